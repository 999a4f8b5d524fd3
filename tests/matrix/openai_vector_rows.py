"""OpenAI's embeddings, and reranking beside them."""

from __future__ import annotations

import base64
import struct
from typing import Any

from tests.matrix.questions import ALIKE, FRANCE, check_vectors, rounded
from tests.matrix.rows import Body, Rows, Way, right

row = Rows("openai")


def embed(way: Way, texts: Any, **more: Any) -> list[list[float]]:
    return [entry["embedding"] for entry in embedded(way, texts, **more)]


def embedded(way: Way, texts: Any, **more: Any) -> list[Body]:
    rows: list[Body] = way.call("embeddings.create", model=way.model("embed"), input=texts, **more)["data"]
    right([entry["index"] for entry in rows], list(range(len(rows))), "index")
    return rows


@row("embeddings", words=("embed",))
def _(way: Way) -> Any:
    return check_vectors([embed(way, text, encoding_format="float")[0] for text in ALIKE])


@row("embeddings: several texts", words=("embed",))
def _(way: Way) -> Any:
    return check_vectors(embed(way, ALIKE, encoding_format="float"))


@row("embeddings: base64", words=("embed",))
def _(way: Way) -> Any:
    packed = embed(way, ALIKE, encoding_format="base64")
    assert all(isinstance(vector, str) for vector in packed), "these are numbers"
    found = [list(struct.unpack(f"<{len(data) // 4}f", data)) for data in map(base64.b64decode, packed)]
    right(rounded(found), rounded(embed(way, ALIKE, encoding_format="float")), "the same as numbers")
    return check_vectors(found)


@row("embeddings: the SDK's own choice", words=("embed",))
def _(way: Way) -> Any:
    return check_vectors(embed(way, ALIKE))


@row("embeddings: dimensions", "dimensions", words=("embed",))
def _(way: Way) -> Any:
    vectors = embed(way, ALIKE, dimensions=16, encoding_format="float")
    right({len(vector) for vector in vectors}, {16}, "numbers")
    return check_vectors(vectors)


@row("embeddings: token ids", "input", words=("token ids", "embed"))
def _(way: Way) -> Any:
    one, two = embed(way, [[5, 6, 7, 8], [5, 6, 7, 9]], encoding_format="float")
    assert one != two, "different tokens, one vector"
    return rounded([one, two])


@row("embeddings: usage", words=("embed",))
def _(way: Way) -> Any:
    usage = way.call("embeddings.create", model=way.model("embed"), input=ALIKE)["usage"]
    right(usage["total_tokens"], usage["prompt_tokens"], "total_tokens")
    assert usage["prompt_tokens"] >= sum(len(text.split()) for text in ALIKE), f"only {usage['prompt_tokens']}"
    return usage["prompt_tokens"]


CAPITALS = ["a cat", "the capital of France is Paris", "a dog"]


@row("rerank", words=("rerank",))
def _(way: Way) -> Any:
    """The demo model's scores are stable and mean nothing: they must be sorted, and one for each document."""
    told = way.call("rerank", model=way.model("rerank"), query=FRANCE, documents=CAPITALS)
    scores = [result["relevance_score"] for result in told["results"]]
    right(scores, sorted(scores, reverse=True), "best first")
    right(sorted(result["index"] for result in told["results"]), [0, 1, 2], "index")
    return [(result["index"], round(result["relevance_score"], 3)) for result in told["results"]]


@row("rerank: top_n and documents", "top_n", words=("rerank",))
def _(way: Way) -> Any:
    body = {"query": FRANCE, "documents": CAPITALS}
    every = way.call("rerank", model=way.model("rerank"), **body)["results"]
    best = way.call("rerank", model=way.model("rerank"), top_n=2, return_documents=True, **body)["results"]
    right([result["index"] for result in best], [result["index"] for result in every[:2]])
    right([result["document"]["text"] for result in best], [CAPITALS[result["index"]] for result in best])

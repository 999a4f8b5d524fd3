"""Ollama's generate and embed."""

from __future__ import annotations

import json
from typing import Any

from tests.matrix.checks import joined
from tests.matrix.questions import (
    ADA,
    ALIKE,
    ANSWER,
    COLOUR,
    FIFTEEN,
    FRANCE,
    I_AM_ADA,
    ITALY,
    PARIS,
    RAW,
    RED,
    ROME,
    SUM,
    THOUGHT,
    WHO,
    check_vectors,
)
from tests.matrix.rows import Body, Refused, Rows, Way, right

row = Rows("ollama")


def generated(way: Way, prompt: str, *, options: Body | None = None, **more: Any) -> Body:
    body = {"prompt": prompt, "options": {"temperature": 0, "num_predict": 200, **(options or {})}, **more}
    return way.call("generate", model=way.model(), **body)


@row("generate")
def _(way: Way) -> Any:
    reply = generated(way, FRANCE)
    right(reply["response"], way.says(PARIS, FRANCE))
    right((reply["done"], reply["done_reason"]), (True, "stop"))


@row("generate, streamed")
def _(way: Way) -> Any:
    parts = way.stream("generate", model=way.model(), prompt=FRANCE, options={"temperature": 0})
    texts = [part["response"] for part in parts if part["response"]]
    right(joined(texts), way.says(PARIS, FRANCE))


@row("generate: system", "system")
def _(way: Way) -> Any:
    right(generated(way, WHO, system=I_AM_ADA)["response"], ADA)


@row("generate: image", "images", words=("image",))
def _(way: Way) -> Any:
    right(generated(way, COLOUR, images=[RED])["response"], "The image is red.")


@row("generate: format", "format", words=("form",))
def _(way: Way) -> Any:
    right(json.loads(generated(way, ITALY, format=ANSWER)["response"]), {"answer": ROME})


@row("generate: think", "think")
def _(way: Way) -> Any:
    reply = generated(way, SUM, think=True)
    right(((reply["thinking"] or "").strip(), reply["response"]), (THOUGHT, FIFTEEN))


@row("generate: raw", "raw", "prompt")
def _(way: Way) -> Any:
    right(generated(way, RAW, raw=True)["response"].strip(), way.says(FIFTEEN, RAW.strip()))


@row("generate: suffix", "suffix", words=("insert", "prompt"))
def _(way: Way) -> Any:
    body = {"prompt": "Once upon", "options": {"temperature": 0, "num_predict": 30}}
    suffixes = " the end.", " 7 + 8"
    filled = [way.call("generate", model=way.model("fill"), suffix=it, **body)["response"] for it in suffixes]
    assert filled[0], "no text"
    assert filled[0] != filled[1], f"with another suffix it is the same: {filled[0]!r}"
    return filled


@row("embed", words=("embed",))
def _(way: Way) -> Any:
    replies = [way.call("embed", model=way.model("embed"), input=text) for text in ALIKE]
    return check_vectors([vector for reply in replies for vector in reply["embeddings"]])


@row("embed: several texts", words=("embed",))
def _(way: Way) -> Any:
    reply = way.call("embed", model=way.model("embed"), input=ALIKE)
    assert reply["prompt_eval_count"] >= sum(len(text.split()) for text in ALIKE), f"only {reply['prompt_eval_count']}"
    return check_vectors(reply["embeddings"]), reply["prompt_eval_count"]


@row("embed: dimensions", "dimensions", words=("embed",))
def _(way: Way) -> Any:
    vectors = way.call("embed", model=way.model("embed"), input=ALIKE, dimensions=16)["embeddings"]
    right({len(vector) for vector in vectors}, {16}, "numbers")
    return check_vectors(vectors)


@row("embed: truncate off", "truncate", words=("context", "embed"))
def _(way: Way) -> Any:
    way.call("embed", model=way.model("embed"), input=ALIKE[0], truncate=False)
    try:
        way.call("embed", model=way.model("embed"), input="cat " * 5000, truncate=False)
    except Refused as refused:
        right(refused.status, 400, "the status for a text that is too long")
    else:
        raise AssertionError("a text that is too long was cut")


@row("embed: truncate on", "truncate", words=("context length", "embed"))
def _(way: Way) -> Any:
    reply = way.call("embed", model=way.model("embed"), input="cat " * 5000, truncate=True)
    right(len(reply["embeddings"]), 1, "vectors")


@row("embeddings, the older route", words=("embed",))
def _(way: Way) -> Any:
    replies = [way.call("embeddings", model=way.model("embed"), prompt=text) for text in ALIKE]
    return check_vectors([reply["embedding"] for reply in replies])

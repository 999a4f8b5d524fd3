"""``/v1/rerank``, both ways: which documents answer a query best.

    {"model":…,"query":…,"documents":["…",{"text":"…"}],"top_n":3,"return_documents":true}
    -> {"id":…,"object":"list","model":…,"results":[{"index":2,"relevance_score":0.9,"document":{"text":"…"}}],
        "usage":{"prompt_tokens":9,"total_tokens":9},"meta":{…}}

The vendor has no such route; this is what Jina, Cohere (``id``, ``meta``), vLLM and llama-server answer alike. A body with
``texts`` is in TEI's form, whose answer is a bare array:  [{"index":2,"score":0.9,"text":"…"}]
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from adapters.dialect import RerankAsk, Stamp
from adapters.openai.errors import in_band_error
from adapters.openai.fields import read, refuse_dangerous
from canonical.errors import BackendError, InvalidRequest
from canonical.features import Feature
from canonical.requests import Origin, Ranked, Ranking, Rerank, Vocabulary

DOCUMENTS = 2048
"""Documents of one request."""
Document = dict[str, Any]


class RerankRequest(Struct):
    """What is asked for."""

    query: str
    model: str | None = None
    documents: list[str | Document] | None = None
    texts: list[str] | None = None
    top_n: int | None = None
    return_documents: bool | None = None
    return_text: bool | None = None
    truncate: bool | None = None


class Result(Struct):
    """A document's place, and how well it answers."""

    index: int
    relevance_score: float
    document: Document | UnsetType = UNSET


class RankUsage(Struct):
    """Tokens read."""

    prompt_tokens: int
    total_tokens: int


class Version(Struct, frozen=True):
    """Of Cohere's API."""

    version: str = "2"


class Billed(Struct):
    """Tokens read, as Cohere counts them."""

    input_tokens: int


class Meta(Struct):
    """Cohere's."""

    api_version: Version = Version()
    tokens: Billed | UnsetType = UNSET


class RerankReply(Struct, kw_only=True):
    """The ranking."""

    id: str
    object: str = "list"
    model: str
    results: list[Result]
    usage: RankUsage | UnsetType = UNSET
    meta: Meta


class Row(Struct):
    """A result of TEI's."""

    index: int
    score: float
    text: str | UnsetType = UNSET


class _SeenResult(Struct):
    index: int
    relevance_score: float | None = None
    score: float | None = None


class _SeenUsage(Struct):
    prompt_tokens: int | None = None
    total_tokens: int | None = None


class _Seen(Struct):
    """A ranking as a backend sends it; Voyage calls the results ``data``."""

    results: list[_SeenResult] | None = None
    data: list[_SeenResult] | None = None
    model: str | None = None
    usage: _SeenUsage | None = None
    error: Any = None


VOCABULARY = Vocabulary(
    {Feature.TOP_N: ("top_n",), Feature.TRUNCATE: ("truncate",)},
    frozenset(RerankRequest.__struct_fields__),
    inside={"documents": {"text": None}},
)
_request = msgspec.json.Decoder(RerankRequest, strict=False)
_seen = msgspec.json.Decoder(_Seen | list[_SeenResult], strict=False)
_encode = msgspec.json.Encoder().encode


def read_rerank(body: bytes) -> RerankAsk:
    """A request to rank documents, and how to word its answer.

    Raises:
        InvalidRequest: the body breaks the format, there is no query, or none or more than ``DOCUMENTS`` documents.
    """
    request = read(_request, body)
    bare = request.texts is not None
    name = "texts" if bare else "documents"
    given: list[str | Document] = [*(request.texts or request.documents or ())]
    if bare and request.documents is not None:
        raise InvalidRequest("'texts' and 'documents' are two words for one thing: send one", param="texts")
    if not given:
        raise InvalidRequest(f"'{name}' must not be empty", param=name)
    if len(given) > DOCUMENTS:
        raise InvalidRequest(f"at most {DOCUMENTS} documents are accepted", param=name)
    if not request.query:
        raise InvalidRequest("'query' must not be empty", param="query")
    if request.top_n is not None and request.top_n < 1:
        raise InvalidRequest("'top_n' must be at least 1", param="top_n")
    rerank = Rerank(
        model=request.model or "",
        query=request.query,
        documents=tuple(_text(document, position) for position, document in enumerate(given)),
        top_n=request.top_n,
        truncate=request.truncate,
        origin=Origin("openai", body, VOCABULARY, plain=all(isinstance(document, str) for document in given)),
    )
    if bare:
        return RerankAsk(rerank, partial(_bare_reply, texts=rerank.documents if request.return_text else None))
    return RerankAsk(rerank, partial(_reply, model=rerank.model, given=given if request.return_documents else None))


def write_rerank(request: Rerank, model: str) -> bytes:
    """The body of ``/v1/rerank``. Documents that the client wants back are ours to give.

    Raises:
        Unsupported: an extra field of the client's would steer the backend itself.
    """
    body: dict[str, Any] = {"model": model, "query": request.query, "documents": request.documents}
    if request.top_n is not None:
        body["top_n"] = request.top_n
    if request.truncate is not None:
        body["truncate"] = request.truncate
    if request.origin.dialect == "openai":
        onward = request.origin.onward()
        refuse_dangerous(onward.keys())
        body.update(onward)
    return _encode(body)


def read_ranking(body: bytes, documents: int) -> Ranking:
    """The scores of so many documents, in the backend's order.

    Raises:
        BackendError: the body is not this format, tells of a failure, or scores what was not sent.
    """
    try:
        reply = _seen.decode(body)
    except msgspec.MsgspecError as error:
        raise BackendError(f"the backend sent a ranking that is not in a known format: {error}") from error
    if isinstance(reply, list):
        reply = _Seen(results=reply)
    if reply.error:
        raise in_band_error(reply.error)
    rows = reply.data if reply.results is None else reply.results
    if rows is None:
        raise BackendError("the backend sent no ranking")
    ranked = []
    for row in rows:
        score = row.score if row.relevance_score is None else row.relevance_score
        if score is None or not math.isfinite(score) or not 0 <= row.index < documents:
            raise BackendError("the backend sent a ranking with a wrong index or score")
        ranked.append(Ranked(row.index, score))
    if len({one.index for one in ranked}) < len(ranked):
        raise BackendError("the backend ranked a document twice")
    usage = reply.usage or _SeenUsage()
    tokens = usage.total_tokens if usage.prompt_tokens is None else usage.prompt_tokens
    return Ranking(model=reply.model or "", ranked=tuple(ranked), prompt_tokens=tokens)


def _reply(ranking: Ranking, stamp: Stamp, *, model: str, given: list[str | Document] | None) -> bytes:
    tokens = ranking.prompt_tokens
    return _encode(
        RerankReply(
            id=f"rerank-{stamp.id}",
            model=model or ranking.model,
            results=[
                Result(one.index, one.score, UNSET if given is None else _document(given[one.index]))
                for one in ranking.ranked
            ],
            usage=UNSET if tokens is None else RankUsage(tokens, tokens),
            meta=Meta(tokens=UNSET if tokens is None else Billed(tokens)),
        )
    )


def _bare_reply(ranking: Ranking, _: Stamp, *, texts: tuple[str, ...] | None) -> bytes:
    return _encode([Row(one.index, one.score, UNSET if texts is None else texts[one.index]) for one in ranking.ranked])


def _document(given: str | Document) -> Document:
    return {"text": given} if isinstance(given, str) else given


def _text(document: str | Document, position: int) -> str:
    if isinstance(document, str):
        return document
    text = document.get("text")
    if not isinstance(text, str):
        raise InvalidRequest("a document must be a text or have a 'text'", param=f"documents[{position}]")
    return text

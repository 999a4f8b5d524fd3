"""Ranking documents: the dialect's bodies, every backend that can, and what happens when something is wrong."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.dialect import Stamp
from adapters.openai.rerank import DOCUMENTS, read_ranking, read_rerank, write_rerank
from backends.echo import EchoBackend, EchoSettings
from backends.llama_cpp.ranking import RerankModel
from canonical.errors import BackendError, GatewayError, InvalidRequest, Unsupported
from canonical.report import report
from canonical.requests import Origin, Ranked, Ranking, Rerank
from tests.faulty import always, faulty, reply
from tests.serving import serving
from tests.test_llama_cpp import every_engine, on
from tests.upstreams import ANTHROPIC, OLLAMA, OPENAI, backend

STAMP = Stamp("7", lambda: 0)
BODY: dict[str, Any] = {"model": "m", "query": "red apple", "documents": ["a red apple", {"text": "the sky"}]}
RANKING = Ranking(model="x", ranked=(Ranked(1, 2.5), Ranked(0, -0.5)), prompt_tokens=9)
PATHS = ("/v1/rerank", "/rerank", "/v1/reranking", "/reranking", "/v2/rerank")


def body(**fields: Any) -> bytes:
    return json.dumps({**BODY, **fields}).encode()


def wrong(raw: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        read_rerank(raw)
    return caught.value


# The dialect


def test_a_request_is_read_and_its_answer_worded() -> None:
    ask = read_rerank(body(top_n=1))
    assert (ask.request.model, ask.request.query, ask.request.documents) == (
        "m",
        "red apple",
        ("a red apple", "the sky"),
    )
    assert (ask.request.top_n, ask.request.truncate) == (1, None)
    assert json.loads(ask.whole(RANKING, STAMP)) == {
        "id": "rerank-7",
        "object": "list",
        "model": "m",
        "results": [{"index": 1, "relevance_score": 2.5}, {"index": 0, "relevance_score": -0.5}],
        "usage": {"prompt_tokens": 9, "total_tokens": 9},
        "meta": {"api_version": {"version": "2"}, "tokens": {"input_tokens": 9}},
    }


def test_documents_come_back_as_they_came_for_who_wants_them() -> None:
    given = ["a", {"text": "b", "id": 7}]
    ask = read_rerank(body(documents=given, return_documents=True))
    results = json.loads(ask.whole(RANKING, STAMP))["results"]
    assert [row["document"] for row in results] == [{"text": "b", "id": 7}, {"text": "a"}]


def test_teis_form_is_answered_in_its_form() -> None:
    plain, told = (
        read_rerank(json.dumps({"query": "q", "texts": ["a", "b"], "return_text": wish}).encode()).whole(RANKING, STAMP)
        for wish in (False, True)
    )
    assert json.loads(plain) == [{"index": 1, "score": 2.5}, {"index": 0, "score": -0.5}]
    assert json.loads(told) == [{"index": 1, "score": 2.5, "text": "b"}, {"index": 0, "score": -0.5, "text": "a"}]


def test_tokens_are_told_only_where_somebody_counted() -> None:
    found = json.loads(read_rerank(body()).whole(msgspec.structs.replace(RANKING, prompt_tokens=None), STAMP))
    assert "usage" not in found
    assert "tokens" not in found["meta"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"query": ""}, "query"),
        ({"query": None}, "query"),
        ({"documents": []}, "documents"),
        ({"documents": None}, "documents"),
        ({"documents": ["a", {"image": "b"}]}, "documents[1]"),
        ({"documents": ["a", 7]}, "documents[1]"),
        ({"documents": ["a"] * (DOCUMENTS + 1)}, "documents"),
        ({"texts": ["a"]}, "texts"),
        ({"documents": None, "texts": []}, "texts"),
        ({"top_n": 0}, "top_n"),
        ({"top_n": "many"}, "top_n"),
    ],
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str) -> None:
    assert wrong(body(**fields)).param == param


def test_what_no_model_reads_is_reported() -> None:
    ask = read_rerank(body(documents=[{"text": "a", "title": "b"}], max_tokens_per_doc=5, top_n=1, truncate=True))
    model = asyncio.run(EchoBackend("e", EchoSettings()).open("echo"))
    told = report(ask.request, model.honours)
    assert told.honoured == ("top_n",)
    assert told.dropped == ("truncate", "max_tokens_per_doc", "documents[].title")


@given(
    st.text(min_size=1),
    st.lists(st.text(), min_size=1, max_size=5),
    st.none() | st.integers(1, 9),
    st.none() | st.booleans(),
)
def test_m3_what_one_half_writes_the_other_reads(
    query: str, documents: list[str], top_n: int | None, truncate: bool | None
) -> None:
    request = Rerank(model="m", query=query, documents=tuple(documents), top_n=top_n, truncate=truncate)
    found = read_rerank(write_rerank(request, "m"))
    assert msgspec.structs.replace(found.request, origin=Origin()) == request


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=8))
def test_m3_a_ranking_survives_the_wire(scores: list[float]) -> None:
    ranking = Ranking(
        model="m", ranked=tuple(Ranked(index, score) for index, score in enumerate(scores)), prompt_tokens=3
    )
    ask = read_rerank(body(documents=["x"] * len(scores)))
    assert read_ranking(ask.whole(ranking, STAMP), len(scores)) == ranking


@pytest.mark.parametrize(
    "told",
    [
        b'[{"index":1,"score":2},{"index":0,"score":-0.5}]',
        b'{"data":[{"index":1,"relevance_score":2},{"index":0,"relevance_score":-0.5}],"usage":{"total_tokens":4}}',
        b'{"results":[{"index":1,"relevance_score":2,"document":{"text":"x"}},{"index":0,"relevance_score":-0.5}]}',
    ],
    ids=["tei", "voyage", "cohere"],
)
def test_rankings_of_every_house_are_read(told: bytes) -> None:
    assert read_ranking(told, 2).ranked == (Ranked(1, 2.0), Ranked(0, -0.5))


@pytest.mark.parametrize(
    "told",
    [
        b"nonsense",
        b"{}",
        b'{"error":{"message":"no"}}',
        b'[{"index":2,"score":1}]',
        b'[{"index":-1,"score":1}]',
        b'[{"index":0}]',
        b'[{"index":0,"score":1},{"index":0,"score":2}]',
    ],
)
def test_a_ranking_that_is_none_is_the_backends_failure(told: bytes) -> None:
    with pytest.raises(BackendError):
        read_ranking(told, 2)


# Backends


def test_echo_counts_shared_words() -> None:
    async def main() -> Ranking:
        model = await EchoBackend("e", EchoSettings()).open("echo")
        return await model.rerank(
            Rerank(model="echo", query="Red apple", documents=("an apple", "the sky", "red APPLE"))
        )

    found = asyncio.run(main())
    assert [one.score for one in found.ranked] == [0.5, 0.0, 1.0]


def test_m3_a_server_of_this_dialect_is_asked_and_unknown_fields_travel() -> None:
    async def main() -> None:
        answer = b'{"results":[{"index":1,"relevance_score":0.9},{"index":0,"relevance_score":0.1}]}'
        async with faulty(always(reply(200, answer))) as fake:
            source = backend(OPENAI, fake.port)
            model = await source.open("up-name")
            request = read_rerank(body(max_tokens_per_doc=7, top_n=2, return_documents=True)).request
            found = await model.rerank(request)  # type: ignore[union-attr]  # it is OpenAI's
            assert found.ranked == (Ranked(1, 0.9), Ranked(0, 0.1))
            assert fake.requests[0].path == "/v1/rerank"
            assert json.loads(fake.requests[0].body) == {
                "model": "up-name",
                "query": "red apple",
                "documents": ["a red apple", "the sky"],
                "top_n": 2,
                "max_tokens_per_doc": 7,
            }
            with pytest.raises(Unsupported):
                await model.rerank(read_rerank(body(api_base="http://elsewhere")).request)  # type: ignore[union-attr]
            await source.close()

    asyncio.run(main())


def test_backends_without_a_word_for_it_do_not_pretend() -> None:
    async def main() -> None:
        for dialect in (OLLAMA, ANTHROPIC):
            source = backend(dialect, 9)
            assert not hasattr(await source.open("m"), "rerank")
            await source.close()

    asyncio.run(main())


DOCS = ("a red apple", "the sky", "apple pie is red")


def ranked(engine: dict[str, Any], *requests: Rerank) -> list[Ranking | GatewayError]:
    async def story(model: RerankModel) -> list[Ranking | GatewayError]:
        found: list[Ranking | GatewayError] = []
        for request in requests:
            try:
                found.append(await model.rerank(request))
            except GatewayError as error:
                found.append(error)
        return found

    told: list[Ranking | GatewayError] = on(engine, story, "rerank")
    return told


def scores(ranking: Ranking | GatewayError) -> list[float]:
    assert isinstance(ranking, Ranking)
    return [one.score for one in sorted(ranking.ranked, key=lambda one: one.index)]


@every_engine
def test_m3_the_model_inside_scores_each_document_by_itself(engine: dict[str, Any]) -> None:
    plain = Rerank(model="rerank", query="red apple", documents=DOCS)
    many = msgspec.structs.replace(plain, documents=DOCS * 20)
    first, again, alone = ranked(engine, plain, many, msgspec.structs.replace(plain, documents=DOCS[1:2]))
    assert all(math.isfinite(score) for score in scores(first))
    assert len(set(scores(first))) == 3
    assert scores(again) == pytest.approx(scores(first) * 20, abs=1e-4)  # also over more than one call of the engine
    assert scores(alone) == pytest.approx(scores(first)[1:2], abs=1e-4)
    assert isinstance(first, Ranking)
    assert isinstance(again, Ranking)
    assert first.prompt_tokens
    assert again.prompt_tokens == first.prompt_tokens * 20


@every_engine
def test_m3_both_engines_read_a_pair_alike(engine: dict[str, Any]) -> None:
    """The figures of the default engine, which are llama.cpp's own: random weights, but stable ones."""
    (found,) = ranked(engine, Rerank(model="rerank", query="red apple", documents=DOCS[:2]))
    assert scores(found) == pytest.approx([0.75392, 0.76689], abs=1e-3)
    assert isinstance(found, Ranking)
    assert found.prompt_tokens == 19


@every_engine
def test_m4_a_document_too_long_is_refused_or_cut(engine: dict[str, Any]) -> None:
    long = "a long story " * 2000
    plain = Rerank(model="rerank", query="red apple", documents=(DOCS[0], long))
    huge = msgspec.structs.replace(plain, documents=("x" * 10_000_000,))
    query = msgspec.structs.replace(plain, query="y " * 10_000_000)
    cut = msgspec.structs.replace(plain, truncate=True)
    *refusals, shortened, after = ranked(
        engine, plain, huge, query, cut, msgspec.structs.replace(plain, documents=DOCS)
    )
    for refusal in refusals:
        assert isinstance(refusal, InvalidRequest)
        assert (refusal.status, refusal.code) == (400, "context_length_exceeded")
    assert len(scores(shortened)) == 2
    assert len(scores(after)) == 3


@every_engine
def test_m4_a_client_that_leaves_ends_the_ranking(engine: dict[str, Any]) -> None:
    """Documents go to the engine by a few: what it has begun it ends, and no more."""
    request = Rerank(model="rerank", query="red apple", documents=("the red apple is on the table " * 15,) * DOCUMENTS)

    async def story(model: RerankModel) -> None:
        asked = 0
        rerank = model.runner.rerank

        async def counted(body: bytes) -> bytes:
            nonlocal asked
            asked += 1
            begun.set()
            return await rerank(body)

        begun = asyncio.Event()
        model.runner.rerank = counted  # type: ignore[method-assign]
        work = asyncio.ensure_future(model.rerank(request))
        await begun.wait()
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert asked == 1
        assert len(scores(await model.rerank(msgspec.structs.replace(request, documents=DOCS)))) == 3

    on(engine, story, "rerank")


# The whole way

CONFIG = """
listeners: [{port: 0}]
backends:
  local: {type: llama_cpp, models_dir: ./models, threads: 1}
  demo: {type: echo}
models:
  - {id: rerank, backend: local, file: rerank.gguf}
  - {id: pip, backend: local, file: pip.gguf}
  - {id: echo, backend: demo}
defaults: {rerank: echo}
access_log: false
"""
REMOTE = """
listeners: [{{port: 0}}]
backends: {{up: {{type: openai, url: {url}}}}}
models: [{{id: far, backend: up, name: echo}}, {{id: far-pip, backend: up, name: pip}}]
access_log: false
"""


def test_m3_ranking_end_to_end() -> None:
    with serving(CONFIG) as near, serving(REMOTE.format(url=near.url)) as far, httpx.Client(timeout=30) as client:

        def post(url: str, path: str, headers: dict[str, str] | None = None, **fields: Any) -> httpx.Response:
            asked = {"query": "red apple", "documents": ["the sky", "a red apple", "an apple"], **fields}
            return client.post(url + path, json=asked, headers=headers)

        for path in PATHS:
            for url, model in ((near.url, "echo"), (near.url, ""), (far.url, "far")):
                found = post(url, path, model=model, top_n=2).json()
                assert [row["index"] for row in found["results"]] == [1, 2]
                assert [row["relevance_score"] for row in found["results"]] == [1.0, 0.5]
        local = post(near.url, "/v1/rerank", model="rerank").json()
        told = [row["relevance_score"] for row in local["results"]]
        assert told == sorted(told, reverse=True)
        assert sorted(row["index"] for row in local["results"]) == [0, 1, 2]
        bare = client.post(near.url + "/rerank", json={"query": "apple", "texts": ["sky", "apple"]})
        assert bare.json() == [{"index": 1, "score": 1.0}, {"index": 0, "score": 0.0}]

        refused = post(near.url, "/v1/rerank", model="pip")
        assert refused.status_code == 400
        assert refused.json()["error"]["message"] == '"pip" does not support rerank'
        assert post(near.url, "/v1/rerank", model="none").status_code == 404
        assert post(far.url, "/v1/rerank", model="far-pip").status_code == 400
        strict = post(near.url, "/v1/rerank", {"Dragoman-Strict": "true"}, model="echo", max_tokens_per_doc=3)
        assert strict.json()["error"]["param"] == "max_tokens_per_doc"
        reported = post(near.url, "/v1/rerank", {"Dragoman-Report": "header"}, model="echo", top_n=1)
        assert json.loads(reported.headers["dragoman-report"])["honoured"] == ["top_n"]

        rows = {row["id"]: row for row in client.get(near.url + "/v1/models").json()["data"]}
        assert rows["rerank"]["capabilities"] == ["rerank"]
        shown = client.post(near.url + "/api/show", json={"model": "rerank"}).json()
        assert shown["capabilities"] == ["rerank"]
        hello = {"model": "rerank", "messages": [{"role": "user", "content": "Hello!"}]}
        assert client.post(near.url + "/api/chat", json=hello).status_code == 400

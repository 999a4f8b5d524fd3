"""The conversation service's words: what is read of its requests, and what its clients see."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.conversation import serve
from adapters.dialect import Stamp
from adapters.framing import SseReader
from adapters.ollama.answers import GenerateStream
from canonical.errors import BackendError, Conflict, GatewayError, InvalidRequest, ModelNotFound
from canonical.events import Finished, Started, TextDelta
from canonical.models import ModelInfo

STAMP = Stamp("1", lambda: 1_700_000_000_000_000_000)
ACCEPT = b"accept"


def refusal(error: GatewayError) -> tuple[int, object]:
    return serve.error_status(error), json.loads(serve.error_body(error))["detail"]


def refused_start(query: bytes) -> tuple[int, object]:
    with pytest.raises(InvalidRequest) as caught:
        serve.read_start(query)
    return refusal(caught.value)


# What is asked


def test_a_model_may_be_left_out() -> None:
    for body in (b'{"prompt":"Hi"}', b'{"prompt":"Hi","model":null}', b'{"prompt":"Hi","model":""}'):
        question = serve.read_query(body)
        assert (question.prompt, question.model) == ("Hi", "")
    assert serve.read_query(b'{"prompt":"Hi","model":"pip","temperature":1}').model == "pip"


@pytest.mark.parametrize(
    ("body", "kind", "loc"),
    [
        (b"{}", "missing", ["body", "prompt"]),
        (b'{"model":"pip"}', "missing", ["body", "prompt"]),
        (b'{"prompt":""}', "value_error", ["body", "prompt"]),
        (b'{"prompt":1}', "value_error", ["body", "prompt"]),
        (b'{"prompt":"Hi","model":[]}', "value_error", ["body", "model"]),
        (b"[]", "value_error", ["body"]),
        (b"", "json_invalid", ["body"]),
        (b"{", "json_invalid", ["body"]),
        (b'{"prompt":"Hi","prompt":"Ho"}', "json_invalid", ["body"]),
        (b'{"prompt":"\xff"}', "json_invalid", ["body"]),
    ],
)
def test_what_cannot_be_read_is_told_as_fastapi_does(body: bytes, kind: str, loc: list[str]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        serve.read_query(body)
    status, (place,) = refusal(caught.value)
    assert (status, place["type"], place["loc"]) == (422, kind, loc)
    assert place["msg"]


@pytest.mark.parametrize(
    ("query", "id"),
    [
        (b"conv_id=a", "a"),
        (b"x=1&conv_id=3f2b-11.2~x&y", "3f2b-11.2~x"),
        (b"conv_id=%C3%A9t%C3%A9+2026%20(3)", "été 2026 (3)"),
        (b"conv_id=%E4%BC%9A%E8%A9%B1", "会話"),
        (b"conv_id=" + b"a" * 128, "a" * 128),
        (b"conv_id=start", "start"),
    ],
)
def test_an_id_is_what_people_and_programs_call_a_conversation(query: bytes, id: str) -> None:
    assert serve.read_start(query) == id == serve.read_id(id)


@pytest.mark.parametrize(
    ("query", "kind", "loc"),
    [
        (b"", "missing", ["query", "conv_id"]),
        (b"conversation=a", "missing", ["query", "conv_id"]),
        (b"conv_id=", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=a&conv_id=b", "value_error", ["query", "conv_id"]),
        (b"conv_id=" + b"a" * 129, "string_too_long", ["query", "conv_id"]),
        (b"conv_id=..", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=.", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=a%2Fb", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=a%5Cb", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=a%00", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=a%0A", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=a%20", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=a%3Fb", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=a%E2%80%AEb", "string_pattern_mismatch", ["query", "conv_id"]),
        (b"conv_id=%ff", "value_error", ["query"]),
        (b"conv_id=a&" + b"&" * 200 + b"x=1&" * 200, "value_error", ["query"]),
        (b"conv_id=a&x=" + b"1" * 20_000, "value_error", ["query"]),
    ],
)
def test_any_other_id_is_refused_and_the_place_is_named(query: bytes, kind: str, loc: list[str]) -> None:
    status, (place,) = refused_start(query)  # type: ignore[misc]
    assert (status, place["type"], place["loc"]) == (422, kind, loc)


@given(st.text(max_size=140))
def test_no_id_is_a_path_or_breaks_a_line(text: str) -> None:
    try:
        id = serve.read_id(text)
    except InvalidRequest:
        return
    assert not re.search(r"[/\\?#%\x00-\x1f\x7f<>\"&]", id)
    assert id == id.strip()
    assert id.strip(".")
    assert id.isprintable()


# What is told


def test_c2_models_are_told_by_the_name_to_ask_for_and_the_tag_in_it() -> None:
    ids = ["pip", "qwen3:4b", "acme/bot", "hf.co/acme/bot-GGUF:Q8_0", "Some Model.gguf"]
    rows = json.loads(serve.models_reply([ModelInfo(id=id) for id in ids]))
    assert rows == [
        {"model": "pip", "version": "latest"},
        {"model": "qwen3:4b", "version": "4b"},
        {"model": "acme/bot", "version": "latest"},
        {"model": "hf.co/acme/bot-GGUF:Q8_0", "version": "Q8_0"},
        {"model": "Some Model.gguf", "version": "latest"},
    ]


def test_c3_an_id_that_is_taken_is_a_400() -> None:
    assert refusal(Conflict("Conversation ID already exists")) == (400, "Conversation ID already exists")
    assert refusal(ModelNotFound("model 'x' not found")) == (404, "model 'x' not found")
    assert refusal(InvalidRequest("too long")) == (400, "too long")
    assert refusal(BackendError("\ud800 broke")) == (502, "? broke")


@given(st.lists(st.text(max_size=8), max_size=6))
def test_c1_events_hold_ollamas_lines_one_each(pieces: list[str]) -> None:
    events = [Started("m"), *map(TextDelta, pieces), Finished("stop")]
    request = serve.read_query(b'{"prompt":"Hi"}').asked("m")
    lines, framed = (serve.generate_ask(request, lines=bare).encoder(STAMP) for bare in (True, False))
    assert isinstance(lines, GenerateStream)
    bare = b"".join(lines.feed(event) for event in events) + lines.finish()
    told = b"".join(framed.feed(event) for event in events) + framed.finish()
    assert (lines.media_type, framed.media_type) == ("application/x-ndjson", "text/event-stream; charset=utf-8")
    # A reader of events, and one of lines, find the same.
    assert [data + b"\n" for _, data in SseReader().feed(told)] == bare.splitlines(keepends=True)
    found = [line.removeprefix("data: ") for line in told.decode().splitlines() if line]
    assert found == bare.decode().splitlines()
    assert "".join(json.loads(line)["response"] for line in found) == "".join(pieces)


def test_c1_a_failure_in_a_stream_is_an_event_of_its_own() -> None:
    request = serve.read_query(b'{"prompt":"Hi"}').asked("m")
    frame = serve.generate_ask(request, lines=False).encoder(STAMP).fail(BackendError("it broke\n\ndata: off"))
    assert frame == b'data: {"error":"it broke\\n\\ndata: off"}\n\n'


@pytest.mark.parametrize(
    ("accept", "lines"),
    [
        ([], False),
        ([(ACCEPT, b"*/*")], False),
        ([(ACCEPT, b"application/json, text/plain, */*")], False),
        ([(ACCEPT, b"text/event-stream")], False),
        ([(ACCEPT, b"application/x-ndjson")], True),
        ([(ACCEPT, b"Application/NDJSON;q=0.9")], True),
        ([(ACCEPT, b"application/x-ndjson"), (ACCEPT, b"text/event-stream")], False),
    ],
)
def test_c1_bare_lines_are_for_who_asks_for_them(accept: list[tuple[bytes, bytes]], lines: bool) -> None:
    assert serve.wants_lines(accept) is lines

"""The hybrid API, wire by wire: what bodies mean, what is refused and how, and answers as lines."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.dialect import Stamp
from adapters.hybrid import serve
from adapters.openai.answers import ChatReader
from canonical.errors import (
    BackendError,
    BackendUnavailable,
    Busy,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    TooLarge,
    Unauthorized,
    Unsupported,
)
from canonical.events import Event, Finished, ReasoningDelta, Started, TextDelta, ToolCallDelta, Usage, fold
from canonical.messages import Image, Text
from canonical.models import Capability, LoadedModel, ModelInfo
from canonical.report import Honours, report
from tests.splitting_sse import chunks, cut
from tests.test_fetch import RED

STAMP = Stamp("abc", lambda: 0)
HELLO = [{"role": "user", "content": "Hello"}]
PICTURE = base64.b64encode(RED).decode()


def chat(stream: bool = False, **fields: Any) -> serve.Chat:
    return serve.read_chat(json.dumps({"messages": HELLO, **fields}).encode(), stream=stream)


def asked_with(*images: dict[str, Any], **more: Any) -> serve.Chat:
    return chat(messages=[{"role": "user", "content": "What is it?", "images": list(images), **more}])


def refused(**fields: Any) -> tuple[int, Any]:
    with pytest.raises(InvalidRequest) as caught:
        chat(**fields)
    return serve.error_status(caught.value), json.loads(serve.error_body(caught.value))["detail"]


# Requests


def test_h5_what_is_said_has_its_place() -> None:
    told = chat(
        model_key="pip",
        messages=[
            {"role": "system", "content": "Be brief."},
            *HELLO,
            {"role": "assistant", "content": "Hi"},
            {"role": "user", "content": ""},
        ],
        config={"temperature": 0.7, "maxTokens": 100, "topP": 0.9, "presencePenalty": -2, "frequencyPenalty": 0.5},
    )
    (request,) = told.ask("pip").requests
    assert [(one.role, one.text) for one in request.messages] == [
        ("system", "Be brief."),
        ("user", "Hello"),
        ("assistant", "Hi"),
        ("user", ""),
    ]
    drawn = request.sampling
    assert (drawn.temperature, drawn.max_tokens, drawn.top_p) == (0.7, 100, 0.9)
    assert (drawn.presence_penalty, drawn.frequency_penalty) == (-2, 0.5)
    assert (told.model, told.shows, request.stream) == ("pip", False, False)


@pytest.mark.parametrize("limit", [0, -1, None])
def test_h5_no_limit_is_no_limit(limit: int | None) -> None:
    (request,) = chat(config={"maxTokens": limit}).ask("pip").requests
    assert request.sampling.max_tokens is None


@pytest.mark.parametrize("data", [PICTURE, f"data:image/jpeg;base64,{PICTURE}"], ids=["bare", "url"])
@pytest.mark.parametrize("claim", ["image/png", "image/jpeg", "text/html", None])
def test_h5_a_picture_is_what_its_bytes_are(data: str, claim: str | None) -> None:
    told = asked_with({"data_base64": data, "mime_type": claim})
    (message,) = told.generate.messages
    text, image = message.parts
    assert text == Text("What is it?")
    assert isinstance(image, Image)
    assert not isinstance(image.source, str)
    assert (image.source.data, image.source.media_type) == (RED, "image/png")
    assert told.shows


def test_h5_a_picture_needs_no_words() -> None:
    (message,) = asked_with({"data_base64": PICTURE}, content=None).generate.messages
    assert [type(part) for part in message.parts] == [Image]


@pytest.mark.parametrize(
    ("fields", "place", "kind"),
    [
        ({"messages": None}, ["messages"], "value_error"),
        ({"messages": []}, ["messages"], "value_error"),
        ({"messages": [{"content": "x"}]}, ["messages", "role"], "missing"),
        ({"messages": [{"role": "ai", "content": "x"}]}, ["messages", "role"], "value_error"),
        ({"messages": [{"role": "user"}]}, ["messages", 0, "content"], "missing"),
        ({"messages": [{"role": "user", "content": 5}]}, ["messages", "content"], "value_error"),
        ({"messages": HELLO * 10_001}, ["messages"], "value_error"),
        ({"config": {"temperature": 2.1}}, ["config", "temperature"], "value_error"),
        ({"config": {"temperature": -0.1}}, ["config", "temperature"], "value_error"),
        ({"config": {"temperature": "hot"}}, ["config", "temperature"], "value_error"),
        ({"config": {"topP": 1.5}}, ["config", "topP"], "value_error"),
        ({"config": {"presencePenalty": 2.5}}, ["config", "presencePenalty"], "value_error"),
        ({"config": {"frequencyPenalty": -2.5}}, ["config", "frequencyPenalty"], "value_error"),
        ({"config": {"maxTokens": 1.5}}, ["config", "maxTokens"], "value_error"),
        ({"config": []}, ["config"], "value_error"),
        ({"model_key": 5}, ["model_key"], "value_error"),
    ],
    ids=str,
)
def test_h5_a_body_that_breaks_the_format_is_422_and_says_where(
    fields: dict[str, Any], place: list[str | int], kind: str
) -> None:
    status, (fault,) = refused(**fields)
    assert (status, fault["type"]) == (422, kind)
    assert [step for step in fault["loc"] if step != 0 or 0 in place] == ["body", *place]
    assert fault["msg"]


@pytest.mark.parametrize(
    ("images", "role", "place"),
    [
        ([{"mime_type": "image/png"}], "user", "data_base64"),
        ([{"data_base64": "no base64!"}], "user", "data_base64"),
        ([{"data_base64": base64.b64encode(b"GIF89a" + bytes(20)).decode()}], "user", "data_base64"),
        ([{"data_base64": base64.b64encode(b"%PDF-1.7").decode(), "mime_type": "image/png"}], "user", "data_base64"),
        ([{"data_base64": "https://example.org/a.png"}], "user", "data_base64"),
        ([{"data_base64": "file:///etc/passwd"}], "user", "data_base64"),
        ([{"data_base64": PICTURE}], "assistant", "images"),
        ([{"data_base64": PICTURE}] * 65, "user", "messages"),
    ],
)
def test_h5_a_picture_that_is_none_is_refused(images: list[Any], role: str, place: str) -> None:
    status, (fault,) = refused(messages=[{"role": role, "content": "x", "images": images}])
    assert (status, fault["loc"][-1]) == (422, place)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b'{"messages":[],"messages":[]}'])
def test_h7_what_is_no_json_is_422(body: bytes) -> None:
    for read in (lambda body: serve.read_chat(body, stream=True), serve.read_load, serve.read_unload):
        with pytest.raises(InvalidRequest) as caught:
            read(body)
        assert serve.error_status(caught.value) == 422
        (fault,) = json.loads(serve.error_body(caught.value))["detail"]
        assert fault["loc"] == ["body"]


@settings(max_examples=40)
@given(st.dictionaries(st.text(), st.recursive(st.none() | st.floats() | st.text(), st.lists), max_size=4))
def test_h7_no_body_whatever_is_more_than_refused(fields: dict[str, Any]) -> None:
    errors: list[InvalidRequest] = []
    for name in ("messages", "config", "model_key", "exclusive", "unload_all"):
        body = json.dumps({**fields, name: list(fields.values())}).encode()
        for read in (lambda body: serve.read_chat(body, stream=False), serve.read_load, serve.read_unload):
            try:
                read(body)
            except InvalidRequest as error:
                errors.append(error)
    assert errors
    for error in errors:
        assert serve.error_status(error) == 422
        assert json.loads(serve.error_body(error))["detail"][0]["loc"][0] == "body"


def test_h5_what_nobody_knows_is_reported_by_its_name() -> None:
    told = chat(
        config={"temperature": 1, "topK": 3, "maxTokens": 0},
        messages=[{**HELLO[0], "mood": "gay"}],
        seed=1,
    )
    (request,) = told.ask("pip").requests
    found = report(request, Honours({}))
    assert set(found.dropped) == {"config.topK", "config.maxTokens", "config.temperature", "messages[].mood", "seed"}


def test_h5_what_nobody_knows_inside_a_message_alone_is_reported() -> None:
    (request,) = chat(messages=[{**HELLO[0], "mood": "gay"}]).ask("pip").requests
    assert report(request, Honours({})).dropped == ("messages[].mood",)


# Answers

pieces = st.lists(st.text(min_size=1), max_size=8)


@given(pieces, st.integers(0, 99))
def test_h4_whatever_is_said_comes_out_line_by_line(texts: list[str], tokens: int) -> None:
    texts = [text.encode(errors="ignore").decode() for text in texts]
    events: list[Event] = [Started("m"), *map(TextDelta, texts), Finished("stop", Usage(1, tokens))]
    ask = chat(stream=True).ask("pip")
    encoder = ask.encoder(STAMP)
    sent = b"".join([*map(encoder.feed, events), encoder.finish()])
    assert sent.endswith(b"\n")
    lines = [json.loads(line) for line in sent.decode().splitlines()]  # which cuts at any line break that Unicode knows
    *fragments, last = lines
    assert all(list(line) == ["type", "content"] and line["type"] == "fragment" for line in fragments)
    assert [line["content"] for line in fragments] == [text for text in texts if text]
    assert last == {"type": "done", "model": "pip", "predicted_tokens": tokens, "stop_reason": "stop"}
    whole = json.loads(ask.whole([fold(events)], STAMP))
    assert whole == {
        "model": "pip",
        "content": "".join(texts),
        "stop_reason": "stop",
        "predicted_tokens": tokens,
    }


@given(pieces, st.data())
def test_h4_however_the_bytes_behind_are_cut(texts: list[str], data: st.DataObject) -> None:
    texts = [text.encode(errors="ignore").decode() for text in texts]
    reader = ChatReader(lambda: "id")
    encoder = chat(stream=True).ask("pip").encoder(STAMP)
    sent = b""
    for piece in cut(chunks(texts), data):
        sent += b"".join(map(encoder.feed, reader.feed(piece)))
    sent += b"".join(map(encoder.feed, reader.finish()))
    *fragments, last = [json.loads(line) for line in sent.splitlines()]
    assert "".join(line["content"] for line in fragments) == "".join(texts)
    assert (last["stop_reason"], last["predicted_tokens"]) == ("length", len(texts))


def test_h3_what_nobody_counted_is_null_and_thoughts_have_no_word() -> None:
    events: list[Event] = [
        Started("m"), ReasoningDelta("hm"), TextDelta(""), TextDelta("x"), ToolCallDelta(0, "i", "f"), Finished("length"),
    ]  # fmt: skip
    ask = chat(stream=True).ask("pip")
    encoder = ask.encoder(STAMP)
    assert b"".join(map(encoder.feed, events)).splitlines() == [
        b'{"type":"fragment","content":"x"}',
        b'{"type":"done","model":"pip","predicted_tokens":null,"stop_reason":"length"}',
    ]
    assert json.loads(ask.whole([fold(events)], STAMP)) == {
        "model": "pip", "content": "x", "stop_reason": "length", "predicted_tokens": None,
    }  # fmt: skip
    assert encoder.fail(BackendError("a\u2028b")) == b'{"type":"error","detail":"a\\u2028b"}\n'


# Errors


def unreached(server: str, reason: str) -> BackendUnavailable:
    error = BackendUnavailable("backend 'x' cannot be reached: " + reason)
    error.server, error.reason = server, reason
    return error


@pytest.mark.parametrize(
    ("error", "status", "detail"),
    [
        (unreached("LM Studio", "connection refused"), 503, "Could not connect to LM Studio: Connection refused"),
        (unreached("backend 'x'", "TLS failed"), 503, "Could not connect to backend 'x': TLS failed"),
        (BackendUnavailable("the gateway is shutting down"), 503, "the gateway is shutting down"),
        (ModelNotFound("model 'x' not found"), 404, "model 'x' not found"),
        (Unsupported("x does not support images"), 400, "x does not support images"),
        (InvalidRequest("too long a context"), 400, "too long a context"),
        (TooLarge("too large"), 413, "too large"),
        (Unauthorized("a key"), 401, "a key"),
        (MethodNotAllowed("no \udcff"), 405, "no ?"),
        (Busy("busy"), 503, "busy"),
        (GatewayError("internal error"), 500, "internal error"),
    ],
    ids=str,
)
def test_h7_an_error_is_a_detail(error: GatewayError, status: int, detail: str) -> None:
    assert (serve.error_status(error), json.loads(serve.error_body(error))) == (status, {"detail": detail})


# Models


def test_h2_a_row_tells_what_an_interface_shows() -> None:
    info = ModelInfo(id="pip", backend="local", family="llama", quantization="Q8_0", context_length=4096)
    forever = LoadedModel(info=info, size=5, context_length=512)
    soon = LoadedModel(
        info=ModelInfo(id="e", capabilities=frozenset({Capability.EMBED})), expires=1_700_000_000 * 10**9
    )
    sees = LoadedModel(info=ModelInfo(id="v", capabilities=frozenset({Capability.CHAT, Capability.VISION})))
    reads = LoadedModel(info=ModelInfo(id="r", capabilities=frozenset({Capability.READ})))
    coming = LoadedModel(info=ModelInfo(id="x"), loading=True)
    first, second, third, fourth = json.loads(serve.rows([forever, soon, sees, reads, coming]))
    assert first == {
        "key": "pip", "display_name": "pip", "id": "pip", "name": "pip", "supported_loras": [], "loaded": True, "type": "llm",
        "backend": "local", "architecture": "llama", "quantization": "Q8_0", "context_length": 512, "size_bytes": 5,
    }  # fmt: skip
    assert (second["type"], second["expires_at"]) == ("embedding", "2023-11-14T22:13:20.000000Z")
    assert (third["type"], fourth["type"]) == ("vlm", "other")


def test_h2_a_failure_is_worded_as_documented() -> None:
    error = ModelNotFound("model 'x' not found")
    assert json.loads(serve.not_loaded_reply(error)) == {
        "loaded": False,
        "error": "Failed to load model: Model not found",
    }
    assert json.loads(serve.not_unloaded_reply(error))["error"] == "Failed to unload model: Model not found"

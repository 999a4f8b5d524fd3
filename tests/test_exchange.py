"""One request and its answer, in memory: limits, clients that leave, failures early and late, and the access log."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
from collections.abc import AsyncGenerator, Sequence

import pytest

from canonical.errors import BackendError, BackendUnavailable, Busy, GatewayError
from canonical.events import Event, Finished, Started, TextDelta, ToolCallDelta
from canonical.requests import Embed, Embeddings, Generate
from gateway.settings import Config, Limits, ModelEntry
from gateway.web import answering
from gateway.web.exchange import Exchange
from tests.asgi import Call, House, frames, message_of
from tests.houses import HELLO, Home, tells, waits
from tests.test_cuts import ASKS
from tests.virtual_time import run

CHAT = {"model": "a", "messages": [{"role": "user", "content": "the secret prompt"}]}
OLLAMA, OPENAI = "/api/chat", "/v1/chat/completions"
BOTH = pytest.mark.parametrize("path", [OLLAMA, OPENAI])


@pytest.fixture(autouse=True, params=[True, False], ids=["told", "asked"])
def _departures(request, monkeypatch):
    """Every promise holds under our own server, which tells of a client that leaves, and under any other."""
    monkeypatch.setattr(Call, "tells_departure", request.param)


def chat(*, stream: bool = True) -> dict:
    return {**CHAT, "stream": stream}


# Answers


@BOTH
@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_arrives(path, stream):
    async def whole() -> None:
        house = House(a=Home(tells(*[[event] for event in HELLO])))
        call = await house.ask("POST", path, chat(stream=stream))
        assert call.status == 200
        assert call.complete
        assert len(call.headers[b"x-request-id"]) == 24
        if stream:
            assert len(call.sent) >= 4  # not held back until the end
            text = call.body.decode()
            assert "Hel" in text
            assert ("[DONE]" in text) == (path == OPENAI)
        elif path == OLLAMA:
            assert call.json()["message"]["content"] == "Hello"
        else:
            assert call.json()["choices"][0]["message"]["content"] == "Hello"
        assert house.running() == 0
        dialect = "ollama" if path == OLLAMA else "openai"
        (line,) = house.access()
        assert line.startswith(f"{dialect} POST {path} a 200 2 tokens ")
        await house.close()

    run(whole())


def test_each_token_is_sent_when_it_comes():
    async def whole() -> None:
        gates = [asyncio.Event() for _ in HELLO]

        async def story(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
            for gate, event in zip(gates, HELLO, strict=True):
                await gate.wait()
                yield [event]

        house = House(a=Home(story))
        call = house.call("POST", OLLAMA, chat())
        await asyncio.sleep(1)
        assert call.sent == []  # no status before the first event
        gates[0].set()
        gates[1].set()
        await call.until(2)
        assert call.lines()[-1]["message"]["content"] == "Hel"
        gates[2].set()
        gates[3].set()
        await call.end()
        await house.close()

    run(whole())


def test_a_client_that_does_not_read_stops_the_model():
    async def whole() -> None:
        told = 0

        async def story(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
            nonlocal told
            yield [Started("m")]
            while told < 1000:
                told += 1
                yield [TextDelta("x")]
            yield [Finished("stop")]

        house = House(a=Home(story))
        call = house.call("POST", OLLAMA, chat())
        call.reading.clear()
        await asyncio.sleep(100)
        assert told <= 1
        call.reading.set()
        await call.end()
        assert told == 1000
        await house.close()

    run(whole())


def test_a_whole_answer_has_a_limit_in_text_and_in_arguments(monkeypatch):
    monkeypatch.setattr(answering, "REPLY_LIMIT", 100)

    async def whole() -> None:
        long = [ToolCallDelta(0, "id", "f", "x" * 101)]
        for piece in ([TextDelta("x" * 101)], long):
            house = House(a=Home(tells([Started("m")], piece, [Finished("stop")])))
            call = await house.ask("POST", OLLAMA, chat(stream=False))
            assert call.status == 502
            assert "more than 100 characters" in message_of(OLLAMA, call.json())
            assert house.running() == 0
            await house.close()

    run(whole())


# Bodies


@pytest.mark.parametrize("path", [OLLAMA, OPENAI, "/api/embed", "/v1/embeddings", "/api/show", "/api/pull"])
def test_a_body_announced_too_long_is_refused_unread(path):
    async def whole() -> None:
        house = House(config=Config(limits=Limits(body=1000)), a=Home(tells(HELLO)))
        call = await house.ask("POST", path, b"x" * 1001, [(b"content-length", b"1001")])
        assert call.status == 413
        assert "at most 1000 bytes" in message_of(path, call.json())
        assert call.received == 0
        await house.close()

    run(whole())


@BOTH
def test_a_body_that_grows_too_long_is_refused_as_soon_as_it_is(path):
    async def whole() -> None:
        house = House(config=Config(limits=Limits(body=1000)), a=Home(tells(HELLO)))
        call = await house.ask("POST", path, [b"x" * 400] * 100)
        assert call.status == 413
        assert call.received == 3
        exact = await house.ask("POST", path, [b" " * 400, b" " * 400, b" " * 200])
        assert exact.status == 400
        assert message_of(path, exact.json())
        await house.close()

    run(whole())


def test_a_body_in_pieces_is_put_together():
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)))
        body = json.dumps(chat(stream=False)).encode()
        call = await house.ask("POST", OLLAMA, [body[:5], b"", body[5:20], body[20:], b""])
        assert call.json()["message"]["content"] == "Hello"
        await house.close()

    run(whole())


# Clients that leave


def test_a_client_that_leaves_while_it_sends_gets_nothing_and_is_noted():
    async def whole() -> None:
        home = Home(tells(HELLO))
        house = House(a=home)
        for began in (False, True):
            call = house.call("POST", OLLAMA, [])
            if began:
                call.arrive(b'{"model":', more=True)
            await asyncio.sleep(0)
            call.leave()
            await call.end()
            assert call.sent == []
        assert home.opened == 0
        assert [line.split()[3:5] for line in house.access()] == [["499", "0"]] * 2
        await house.close()

    run(whole())


@pytest.mark.parametrize("path", ASKS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("said", [0, 1, 2])
def test_a_client_that_leaves_stops_its_generation_at_once(path, stream, said):
    async def whole() -> None:
        home = Home(waits(*[[event] for event in HELLO[:said]]))
        house = House(a=home)
        call = house.call("POST", path, {"model": "a", "stream": stream, **ASKS[path]})
        await asyncio.sleep(1)
        assert house.running() == 1
        began = asyncio.get_running_loop().time()
        call.leave()
        await call.end()
        assert asyncio.get_running_loop().time() == began
        assert home.model.stopped == 1
        assert house.running() == 0
        assert " 499 " in house.access()[0]
        assert not call.complete
        await house.close()

    run(whole())


SAID = [{"role": "user", "content": "Hello"}]
STREAMED = {
    **{path: {"model": "a", "stream": True, **ask} for path, ask in ASKS.items()},
    "/chat/stream": {"model_key": "a", "messages": SAID},
    "/generate": {"model": "a", "prompt": "Hello"},
    "/v1/chat/completions?of=brenda": {"model": "a", "stream": True, "system": "", "messages": SAID},
}


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("reads", [True, False])
def test_what_a_client_has_sent_goes_with_it_and_not_with_the_collector_of_cycles(path, reads):
    async def whole() -> None:
        house = House(a=Home(waits(*[[event] for event in HELLO[:2]])))
        call = house.call("POST", path, STREAMED[path])
        await call.until(2)
        if not reads:
            call.reading.clear()
        await asyncio.sleep(1)
        call.leave()
        await call.end()
        del call
        await asyncio.sleep(1)
        left = sum(type(one) is Exchange for one in gc.get_objects())  # torch has objects that warn when they are asked
        await house.close()
        assert not left

    collects = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        run(whole())
    finally:
        if collects:
            gc.enable()


def test_a_client_that_leaves_the_queue_never_reaches_the_model():
    async def whole() -> None:
        home = Home(waits([Started("m")]))
        house = House(a=home)
        first = house.call("POST", OLLAMA, chat())
        await asyncio.sleep(1)
        second = house.call("POST", OLLAMA, chat())
        await asyncio.sleep(1)
        second.leave()
        await second.end()
        first.leave()
        await first.end()
        await asyncio.sleep(1)
        assert len(home.model.requests) == 1
        assert house.running() == 0
        await house.close()

    run(whole())


def test_a_client_that_leaves_while_it_does_not_read_is_noticed():
    async def whole() -> None:
        home = Home(waits([HELLO[0]], [HELLO[1]]))
        house = House(a=home)
        call = house.call("POST", OLLAMA, chat())
        call.reading.clear()
        await asyncio.sleep(1)
        call.leave()
        await call.end()
        assert home.model.stopped == 1
        assert house.running() == 0
        await house.close()

    run(whole())


def test_a_client_that_leaves_during_embeddings_or_a_load():
    async def whole() -> None:
        home = Home()

        async def slow(_: Embed) -> Embeddings:
            return await asyncio.get_running_loop().create_future()

        home.model.embed = slow
        house = House(v=home, loading=Home(tells(HELLO), on_open=lambda: asyncio.sleep(50)))
        calls = [
            house.call("POST", "/api/embed", {"model": "v", "input": "x"}),
            house.call("POST", "/api/chat", {"model": "loading", "messages": []}),
            house.call("POST", "/api/generate", {"model": "loading"}),
        ]
        await asyncio.sleep(1)
        for call in calls:
            call.leave()
            await call.end()
            assert call.sent == []
        assert house.running() == 0
        await asyncio.sleep(100)
        await house.close()

    run(whole())


def test_a_client_that_leaves_after_its_answer_changes_nothing():
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)))
        call = await house.ask("POST", OLLAMA, chat())
        call.leave()
        await asyncio.sleep(1)
        assert call.complete
        assert " 200 2 tokens " in house.access()[0]
        await house.close()

    run(whole())


# Failures


@BOTH
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status", "header"),
    [
        (BackendError("the backend said no"), 502, (b"x-should-retry", b"false")),
        (Busy("full", retry_after=7), 503, (b"retry-after", b"7")),
        (BackendUnavailable("away"), 502, None),
        (Busy("slow down", status=429, retry_after=0.2), 429, (b"retry-after", b"1")),
    ],
)
def test_a_failure_before_the_first_event_keeps_its_status(path, stream, error, status, header):
    async def whole() -> None:
        house = House(a=Home(tells(error)))
        call = await house.ask("POST", path, chat(stream=stream))
        assert call.status == status
        assert message_of(path, call.json()) == error.message
        if header is not None:
            assert call.headers[header[0]] == header[1]
        assert (b"x-should-retry" in call.headers) == (status >= 500 and not error.retry)
        assert f" {status} 0 tokens " in house.access()[0]
        await house.close()

    run(whole())


@BOTH
def test_a_failure_after_it_is_one_frame_and_the_end(path):
    async def whole() -> None:
        house = House(a=Home(tells(HELLO[:1], HELLO[1:2], BackendError("it broke"))))
        call = await house.ask("POST", path, chat())
        assert call.status == 200
        assert call.complete
        told = [frame for frame in frames(path, call) if frame != "[DONE]"]
        assert message_of(path, told[-1]) == "it broke"
        assert not any("error" in frame for frame in told[:-1])
        assert not any(frame.get("done") for frame in told)
        assert 'finish_reason":"' not in call.body.decode()
        assert house.running() == 0
        await house.close()

    run(whole())


@BOTH
def test_a_stream_that_just_ends_is_a_failure(path):
    async def whole() -> None:
        house = House(a=Home(tells(HELLO[:1], HELLO[1:2])))
        call = await house.ask("POST", path, chat())
        assert "closed the stream" in call.body.decode()
        whole_answer = await house.ask("POST", path, chat(stream=False))
        assert whole_answer.status == 502
        await house.close()

    run(whole())


@BOTH
@pytest.mark.parametrize("said", [0, 2])
@pytest.mark.parametrize("stream", [False, True])
def test_a_defect_of_ours_tells_the_client_nothing(path, stream, said, caplog):
    async def whole() -> None:
        defect = ValueError("/secret/path the secret prompt")
        house = House(a=Home(tells(*[[event] for event in HELLO[:said]], defect)))
        call = await house.ask("POST", path, chat(stream=stream))
        assert call.complete
        assert call.status == (200 if stream and said else 500)
        text = call.body.decode()
        assert "internal error" in text
        assert "secret" not in text
        assert "Traceback" not in text
        assert house.running() == 0
        await house.close()

    with caplog.at_level(logging.ERROR):
        run(whole())
    assert "a request failed inside the gateway" in caplog.text
    assert "ValueError" in caplog.text  # whole, on the machine


def test_several_choices_share_one_stream_and_one_failure_ends_it():
    async def whole() -> None:
        asked = 0

        async def story(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
            nonlocal asked
            asked += 1
            yield HELLO[:2]
            if asked == 2:
                raise BackendError("second")
            yield HELLO[2:]

        house = House(a=Home(story))
        call = await house.ask("POST", OPENAI, {**chat(), "n": 3})
        told = [frame for frame in frames(OPENAI, call) if frame != "[DONE]"]
        assert message_of(OPENAI, told[-1]) == "second"
        assert asked == 2
        good = await house.ask("POST", OPENAI, {**chat(stream=False), "n": 3})
        assert [choice["message"]["content"] for choice in good.json()["choices"]] == ["Hello"] * 3
        assert " 6 tokens " in house.access()[1]
        await house.close()

    run(whole())


@BOTH
def test_broken_requests_are_400_in_the_dialects_words(path):
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)))
        for body in (b"", b"{", b"[]", b'{"model": 3}', b"\xff", b"{}{}", b'{"messages": 1, "model": "a"}'):
            call = await house.ask("POST", path, body)
            assert call.status == 400, body
            assert message_of(path, call.json())
        missing = await house.ask("POST", path, {**CHAT, "model": "nope"})
        assert missing.status == 404
        assert "nope" in message_of(path, missing.json())
        assert "not found" in message_of(path, missing.json())
        await house.close()

    run(whole())


# The end


@BOTH
def test_cut_off_by_the_end_of_the_grace_period(path):
    async def whole() -> None:
        house = House(a=Home(waits(HELLO[:1], HELLO[1:2]), slots=1))
        streaming = house.call("POST", path, chat())
        await asyncio.sleep(1)
        queued = house.call("POST", path, chat())
        collecting = house.call("POST", path, chat(stream=False))
        await asyncio.sleep(1)
        house.gateway.draining = True
        for task in list(house.gateway.running):
            task.cancel()
        for call in (streaming, queued, collecting):
            await call.end()
        assert streaming.complete
        assert "shutting down" in message_of(path, [f for f in frames(path, streaming) if f != "[DONE]"][-1])
        for call in (queued, collecting):
            assert call.status == 503
            assert "shutting down" in message_of(path, call.json())
        assert house.running() == 0
        await house.close()

    run(whole())


def test_a_cancellation_that_nobody_announced_is_not_swallowed():
    async def whole() -> None:
        house = House(a=Home(waits()))
        call = house.call("POST", OLLAMA, chat())
        await asyncio.sleep(1)
        call.task.cancel()
        await asyncio.wait([call.task])
        assert call.task.cancelled()
        assert house.running() == 0
        await house.close()

    run(whole())


@BOTH
def test_a_draining_gateway_refuses_new_work_in_the_dialects_words(path):
    async def whole() -> None:
        house = House(a=Home(tells(HELLO)))
        assert (await house.ask("GET", "/health/ready")).json() == {"status": "ready"}
        house.gateway.draining = True
        call = await house.ask("POST", path, chat())
        assert call.status == 503
        assert call.headers[b"retry-after"] == b"5"
        assert "shutting down" in message_of(path, call.json())
        assert (await house.ask("GET", "/health/ready")).status == 503
        assert (await house.ask("GET", "/health/live")).status == 200
        await house.close()

    run(whole())


def test_two_models_and_an_internal_error_of_the_engine_leave_no_slot_behind():
    async def whole() -> None:
        async def broken() -> None:
            raise RuntimeError("defect")

        models = [ModelEntry(id="a", backend="a", name="m"), ModelEntry(id="b", backend="b", name="m")]
        house = House(models=models, a=Home(tells(HELLO), on_open=broken), b=Home(tells(GatewayError("no"))))
        for name in ("a", "b"):
            call = await house.ask("POST", OLLAMA, {**CHAT, "model": name})
            assert call.status == 500
        assert house.running() == 0
        await house.close()

    logging.disable(logging.CRITICAL)
    try:
        run(whole())
    finally:
        logging.disable(logging.NOTSET)

"""Backends behind HTTP when they fail: the reliability table, row by row, for every kind.

Nothing is ever made up, sent twice or followed elsewhere, and our key never shows (``failing`` checks it each time).
"""

from __future__ import annotations

import asyncio
import socket

import pytest

from canonical.errors import BackendError, BackendTimeout, BackendUnavailable, Busy, InvalidRequest, ModelNotFound
from canonical.events import Event, Finished
from canonical.requests import Embed, Generate
from tests.calling import SOON, until
from tests.faulty import Peer, always, chunk, endless, faulty, once, reply, then_silent
from tests.upstreams import ASK, KEY, OPENAI, WHOLE, Dialect, answer, backend, both, every, failing, stream, words


@every
def test_refused_is_502(dialect: Dialect) -> None:
    async def scenario() -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            source = backend(dialect, taken.getsockname()[1])
            with pytest.raises(BackendUnavailable, match="backend 'up' cannot be reached") as caught:
                await answer(source)
            assert caught.value.status == 502
            with pytest.raises(BackendUnavailable):
                await source.models()

    asyncio.run(scenario())


@every
def test_silence_is_504(dialect: Dialect) -> None:
    error, told = failing(dialect, then_silent(), timeouts={"first_byte": SOON})
    assert isinstance(error, BackendTimeout)
    assert (error.status, told) == (504, [])


@every
def test_a_stall_is_504_after_what_came(dialect: Dialect) -> None:
    begun = dialect.head + chunk(dialect.pieces[0])
    for timeouts in ({"idle": SOON}, {"total": SOON}):
        error, told = failing(dialect, then_silent(begun), leaves=True, timeouts=timeouts)
        assert isinstance(error, BackendTimeout)
        assert words(told) == "Hel" or "total" in timeouts  # a busy machine may take that long to say a word


CUT = {
    "nothing": lambda _: b"",
    "no http": lambda _: b"hello\r\n\r\n",
    "cut in the head": lambda dialect: dialect.head[:30],
    "closed after a word": lambda dialect: dialect.head + chunk(dialect.pieces[0]),
    "ended without a finish reason": lambda dialect: stream(dialect, pieces=dialect.pieces[:2]),
    "half a record at the end": lambda dialect: stream(
        dialect, pieces=[*dialect.pieces[:2], dialect.pieces[2].rstrip()[:-3]]
    ),
    "[DONE] alone": lambda dialect: stream(dialect, dialect.framed(b"[DONE]"), pieces=dialect.pieces[:2]),
    "bad json": lambda dialect: stream(dialect, dialect.framed(b'{"choices":[')),
    "another shape": lambda dialect: stream(dialect, pieces=[dialect.framed(b'{"choices":7,"message":7}')]),
    "html": lambda _: reply(200, b"<html>proxy</html>", kind="text/html"),
    "bytes that are no UTF-8": lambda dialect: stream(dialect, pieces=[dialect.pieces[0].replace(b"Hel", b"\xff")]),
    "no content": lambda _: b"HTTP/1.1 204 No Content\r\n\r\n",
    "an empty stream": lambda dialect: stream(dialect, pieces=[]),
    "compressed": lambda dialect: dialect.head.replace(b"\r\n\r\n", b"\r\nContent-Encoding: gzip\r\n\r\n"),
    "huge headers": lambda _: b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
}


@every
@pytest.mark.parametrize("fault", CUT)
def test_a_broken_answer_is_502_and_nothing_is_made_up(dialect: Dialect, fault: str) -> None:
    data = CUT[fault](dialect)
    if fault == "bad json":
        data = data.replace(b"".join(map(chunk, dialect.pieces[2:])), b"")
    error, told = failing(dialect, once(data))
    assert isinstance(error, BackendError)
    assert error.status == 502
    assert not any(isinstance(event, Finished) for event in told)
    assert "Hello".startswith(words(told))


@every
@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"{}", b'{"choices":[]}', b'{"message":null}', b"<html>", b"\xff", b"Hello"]
)
def test_a_broken_whole_answer_is_502(dialect: Dialect, body: bytes) -> None:
    if body == b"Hello":
        body = dialect.whole.replace(body, b"\xff")
    error, _ = failing(dialect, once(reply(200, body)), request=WHOLE)
    assert isinstance(error, BackendError)
    assert error.status == 502


@every
def test_a_reset_is_502(dialect: Dialect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(dialect.head + chunk(dialect.pieces[0]))
        peer.reset()

    error, _ = failing(dialect, script)
    assert (type(error), error.status) == (BackendError, 502)


@every
def test_an_error_in_the_stream_ends_it(dialect: Dialect) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(dialect.head + chunk(dialect.pieces[0]))
        await step.wait()
        await peer.send(chunk(dialect.framed(dialect.error("the GPU has gone"))) + chunk(b""))

    async def scenario() -> None:
        told: list[Event] = []
        async with faulty(script) as fake:
            source = backend(dialect, fake.port)
            asking = asyncio.create_task(answer(source, told=told))
            await until(lambda: bool(told))
            step.set()
            with pytest.raises(BackendError, match="the GPU has gone"):
                await asking
            assert words(told) == "Hel"
            await source.close()

    step = asyncio.Event()
    asyncio.run(scenario())


@every
def test_m5_what_stood_before_an_error_in_one_read_is_not_lost(dialect: Dialect) -> None:
    failed = dialect.framed(dialect.error("the GPU has gone"))
    error, told = failing(dialect, once(stream(dialect, pieces=[dialect.pieces[0] + dialect.pieces[1] + failed])))
    assert (error.message, words(told)) == ("the GPU has gone", "Hello")


def test_m5_a_server_that_never_ends_its_stream_does_not_keep_its_client() -> None:
    """The finish reason has come, no usage, no [DONE], no close: the answer is complete all the same."""

    async def scenario() -> None:
        said = OPENAI.head + b"".join(map(chunk, OPENAI.pieces[:3]))
        async with faulty(then_silent(said)) as fake:
            source = backend(OPENAI, fake.port)
            events = await answer(source)
            assert words(events) == "Hello"
            assert events[-1] == Finished("stop")
            await source.close()

    asyncio.run(scenario())


@every
@pytest.mark.parametrize("request_", [ASK, WHOLE], ids=["stream", "whole"])
def test_an_error_with_status_200_is_an_error(dialect: Dialect, request_: Generate) -> None:
    error, _ = failing(dialect, once(reply(200, dialect.error("Unexpected endpoint"))), request=request_)
    assert (error.status, error.message) == (502, "Unexpected endpoint")


@every
@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_request_at_fault_keeps_status_and_reason(dialect: Dialect, status: int) -> None:
    error, _ = failing(dialect, once(reply(status, dialect.error("too long", "context_length_exceeded"))))
    assert isinstance(error, InvalidRequest)
    assert (error.status, error.message) == (status, "too long")
    if dialect is OPENAI:
        assert error.code == "context_length_exceeded"


PAUSES = {"17": 17, "0": 0, "3600": 3600, "3601": None, "-1": None, "soon": None, "inf": None}


@every
@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("pause", PAUSES)
def test_a_full_backend_keeps_status_and_a_sane_pause(dialect: Dialect, status: int, pause: str) -> None:
    data = reply(status, dialect.error("full"), headers=[f"Retry-After: {pause}"])
    error, _ = failing(dialect, once(data))
    assert isinstance(error, Busy)
    assert (error.status, error.message, error.retry_after) == (status, "full", PAUSES[pause])


@every
def test_a_pause_as_a_date_long_ago_is_none(dialect: Dialect) -> None:
    data = reply(503, dialect.error("full"), headers=["Retry-After: Wed, 21 Oct 2015 07:28:00 GMT"])
    assert failing(dialect, once(data))[0].retry_after is None


@every
@pytest.mark.parametrize("status", [401, 403])
def test_our_wrong_key_is_502_and_stays_ours(dialect: Dialect, status: int) -> None:
    error, _ = failing(dialect, once(reply(status, dialect.error(f"Incorrect API key: {KEY}"))))
    assert (type(error), error.status) == (BackendError, 502)


@every
@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_a_backend_that_echoes_our_key_is_redacted(dialect: Dialect, status: int) -> None:
    error, _ = failing(dialect, once(reply(status, dialect.error(f"model for {KEY}", f"code-{KEY}"))))
    assert error.message == "model for [redacted]"
    in_band, _ = failing(dialect, once(reply(200, dialect.error(f"{KEY} failed"))))
    assert in_band.message == "[redacted] failed"


@every
def test_a_missing_model_is_404_and_a_missing_route_502(dialect: Dialect) -> None:
    error, _ = failing(dialect, once(reply(404, dialect.error("model 'm' not found"))))
    assert (type(error), error.status) == (ModelNotFound, 404)
    error, _ = failing(dialect, once(reply(404, b"404 page not found", kind="text/plain")))
    assert (type(error), error.status) == (BackendError, 502)


@every
@pytest.mark.parametrize(("status", "expected"), [(500, 500), (502, 502), (504, 504), (418, 502), (507, 502)])
def test_other_failures(dialect: Dialect, status: int, expected: int) -> None:
    error, _ = failing(dialect, once(reply(status, b"<html>oops</html>", kind="text/html")))
    assert isinstance(error, BackendError)
    assert error.status == expected
    assert "html" not in error.message


@every
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_never_followed(dialect: Dialect, status: int) -> None:
    async def scenario() -> None:
        async with faulty(always(stream(dialect))) as elsewhere:
            data = reply(status, headers=[f"Location: http://127.0.0.1:{elsewhere.port}/v1/chat/completions"])
            async with faulty(once(data)) as fake:
                source = backend(dialect, fake.port)
                with pytest.raises(BackendError) as caught:
                    await answer(source)
                assert caught.value.status == 502
                assert not elsewhere.requests
                await source.close()

    asyncio.run(scenario())


@every
def test_an_error_without_end_keeps_its_status(dialect: Dialect) -> None:
    error, _ = failing(dialect, endless(b"HTTP/1.1 500 Oh\r\n\r\n", b"y" * 10_000), leaves=True)
    assert error.status == 500


@every
@pytest.mark.parametrize("what", ["line", "body"])
def test_what_is_endless_is_502(dialect: Dialect, what: str) -> None:
    begun = dialect.framed(b"")[:-2] if what == "line" else b""
    records = dialect.pieces[1].replace(b'"lo"', b'"' + b"lo" * 5000 + b'"') * 100
    piece = chunk(b"y" * 1_000_000) if what == "line" else chunk(records)
    error, told = failing(dialect, endless(dialect.head + chunk(begun + b" "), piece), leaves=True)
    assert (type(error), error.status) == (BackendError, 502)
    assert bool(told) is (what == "body")


@both
@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"error":"no"}', b'{"model":"\xff"}', b'{"data":7,"models":7,"embeddings":7}']
)
def test_a_broken_catalog_or_vector_is_502(dialect: Dialect, body: bytes) -> None:
    async def scenario() -> None:
        async with faulty(always(reply(200, body))) as fake:
            source = backend(dialect, fake.port)
            model = await source.open("m")
            for asked in (source.models(), model.embed(Embed(model="m", inputs=("hi",)))):
                with pytest.raises(BackendError) as caught:
                    await asked
                assert caught.value.status == 502
            await source.close()

    asyncio.run(scenario())

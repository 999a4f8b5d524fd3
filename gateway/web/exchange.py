"""One HTTP request and its answer: the body in, JSON or a stream out, and an end when the client leaves.

Errors before the first byte keep their status and are worded by the dialect. After it they are one in-band frame.
The status line of a stream waits for the first event, so that failures until then are real statuses.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, cast

from msgspec import Struct, structs

from adapters.dialect import Ask, CountAsk, EmbedAsk, Encoder, LoadAsk, RerankAsk, Stamp
from canonical.errors import (
    BackendError,
    BackendUnavailable,
    Busy,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    TooLarge,
)
from canonical.events import Event, Finished, fold
from canonical.media import Blob
from canonical.report import Report
from canonical.requests import Embed, Generate
from gateway.accesslog import AccessLog
from gateway.background import Jobs
from gateway.engine import Engine
from gateway.web.caller import HEADER, caller_of, header_value, in_body
from gateway.web.cycle import DEPARTURE, Departure

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send

REPLY_LIMIT = 64 * 1024 * 1024
"""Characters of one whole answer."""


class Voice(Struct, frozen=True):
    """How a dialect words what is not a stream."""

    name: str
    json_type: bytes
    error_status: Callable[[GatewayError], int]
    error_body: Callable[[GatewayError], bytes]
    id_header: bytes = b"x-request-id"


class Gateway:
    """What every request of the process shares."""

    def __init__(self, engine: Engine, *, body_limit: int, access_log: AccessLog, jobs: Jobs | None = None) -> None:
        self.engine = engine
        self.jobs = jobs
        """What is made in the background, and the store of responses; None: nothing is kept."""
        self.body_limit = body_limit
        self.access_log = access_log
        self.running: set[asyncio.Task[object]] = set()
        """Tasks of requests that are being answered; a drain waits for them."""
        self.draining = False


Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request, from its scope to its last byte."""

    __slots__ = (
        "_gone",
        "_images",
        "_lost",
        "_receive",
        "_send",
        "_status",
        "_task",
        "caller",
        "gateway",
        "id",
        "model",
        "report",
        "scope",
        "tokens",
        "voice",
    )

    def __init__(self, scope: HTTPScope, receive: Receive, send: Send, gateway: Gateway, voice: Voice) -> None:
        self.scope = scope
        self.gateway = gateway
        self.voice = voice
        self.id = f"{random.getrandbits(96):024x}"  # a name, no secret: os.urandom is a system call
        self.model = ""
        self.tokens = 0
        self.caller = caller_of(scope)
        self.report: Report | None = None
        """What became of the request's fields, as soon as a model has them."""
        self._lost: tuple[str, ...] = ()
        self._receive = receive
        self._send = send
        self._status = 0
        self._gone = False
        self._images: dict[str, Blob] = {}
        """What was behind the links of the request, which all its choices have."""
        self._task: asyncio.Task[object] | None = None

    @property
    def engine(self) -> Engine:
        """The models."""
        return self.gateway.engine

    async def run(self, methods: dict[str, Handler]) -> None:
        """Answer by the handler of the request's method; whatever happens, the client gets an answer or has left."""
        began = time.monotonic()
        self._task = task = asyncio.current_task()
        assert task is not None
        running = self.gateway.running
        running.add(task)
        try:
            method = self.scope["method"]
            if method in methods:
                await methods[method](self)
            else:
                error = MethodNotAllowed(f"method {method} is not allowed here")
                await self.fail(error, [(b"allow", ", ".join(methods).encode())])
        except GatewayError as error:
            await self.fail(error)
        except asyncio.CancelledError:
            if not self._gone and not self.gateway.draining:
                raise
            task.uncancel()
            await self.fail(Busy("the gateway is shutting down", retry_after=5))
        except Exception as error:  # noqa: BLE001  # the last resort: it is logged whole, and the client is told little
            self.gateway.access_log.crash(error)
            await self.fail(GatewayError("internal error"))
        finally:
            running.discard(task)
            self._task = None
            status = 499 if self._gone else self._status
            what = f"{self.voice.name} {self.scope['method']} {self.scope['path'][:100]} {self.model[:100]}"
            lost = f" {len(self.report.dropped)} dropped" if self.report is not None and self.report.dropped else ""
            self.gateway.access_log.line(f"{what} {status} {self.tokens} tokens {time.monotonic() - began:.3f} s{lost}")

    async def body(self) -> bytes:
        """The whole request body.

        Raises:
            TooLarge: before reading what its length announces, or as soon as more than the limit has come.
        """
        limit = self.gateway.body_limit
        for name, value in self.scope["headers"]:
            if name == b"content-length" and int(value) > limit:
                raise TooLarge(f"the body may have at most {limit} bytes")
        message = await self._receive()
        if message["type"] == "http.request" and not message["more_body"]:
            return message["body"]
        pieces: list[bytes] = []
        size = 0
        while message["type"] == "http.request":
            pieces.append(message["body"])
            size += len(message["body"])
            if size > limit:
                raise TooLarge(f"the body may have at most {limit} bytes")
            if not message["more_body"]:
                return b"".join(pieces)
            message = await self._receive()
        self._gone = True
        raise InvalidRequest("the client left before its body was complete")

    async def json(self, body: bytes, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole JSON answer, with the report where it was asked for."""
        if self.report is not None and self.caller.report:
            headers = [*headers, *self._told()]
            if self.caller.report == "body" and status < 400:
                body = in_body(self.report, body, self.voice.json_type)
        await self.reply(status, self.voice.json_type, body, headers)

    def _told(self) -> list[tuple[bytes, bytes]]:
        """The report's header, where it was asked for."""
        return [(HEADER, header_value(self.report))] if self.report is not None and self.caller.report else []

    def learn(self, report: Report) -> None:
        """Take note of what becomes of the request's fields."""
        self.report = structs.replace(report, dropped=(*report.dropped, *self._lost)) if self._lost else report

    def lose(self, field: str) -> None:
        """Take note that the gateway itself cannot do what ``field`` asks for."""
        self._lost = (*self._lost, field)
        if self.report is not None:
            self.report = structs.replace(self.report, dropped=(*self.report.dropped, field))

    async def reply(
        self, status: int, media_type: bytes, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
    ) -> None:
        """Send a whole answer of any type."""
        self._status = status
        head = [
            (b"content-type", media_type),
            (b"content-length", b"%d" % len(body)),
            (self.voice.id_header, self.id.encode()),
            *headers,
        ]
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: GatewayError, extra: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send an error in the dialect's words, unless the answer has begun or the client has left."""
        if self._status or self._gone:
            return
        headers = list(extra)
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after))))
        if error.status >= 500 and not error.retry:
            # OpenAI's SDKs repeat every 5xx twice: a generation that failed would run three times.
            headers.append((b"x-should-retry", b"false"))
        await self.json(self.voice.error_body(error), self.voice.error_status(error), headers)

    async def while_connected(self, work: Awaitable[None]) -> None:
        """Await ``work`` and cancel it as soon as the client leaves. The body must have been read."""
        extensions = self.scope.get("extensions") or {}
        departure = cast("Departure | None", extensions.get(DEPARTURE))
        if departure is not None:  # our own server tells; a task that waits for it costs 15 us
            departure.watch(self._leave)
            try:
                await work
            finally:
                departure.unwatch()
            return
        watch = asyncio.ensure_future(self._watch())
        try:
            await work
        finally:
            watch.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._leave()

    def _leave(self) -> None:
        self._gone = True
        if self._task is not None:
            self._task.cancel()

    async def answer(self, ask: Ask, path: str = "") -> None:
        """Generate, and send what comes: frame by frame, or folded into one body.

        ``path`` is the one of the dialect, where a model's own server may answer it in its own bytes.
        """
        self.model = ask.requests[0].model
        stamp = Stamp(self.id, time.time_ns)
        await self.while_connected(
            self.stream(ask.requests, ask.encoder(stamp), path=path) if ask.stream else self._whole(ask, stamp, path)
        )

    async def embed(self, ask: EmbedAsk, path: str = "") -> None:
        """Make vectors, and send them whole. ``path`` as in ``answer``."""
        self.model = ask.request.model

        async def work() -> None:
            if self.engine.relays and path and await self._relay(ask.request, path, stream=False):
                return
            await self.json(ask.whole(await self.engine.embed(ask.request, strict=self.caller.strict, tell=self.learn)))

        await self.while_connected(work())

    async def rerank(self, ask: RerankAsk) -> None:
        """Rank documents, and send the ranking whole."""
        self.model = ask.request.model

        async def work() -> None:
            ranking = await self.engine.rerank(ask.request, strict=self.caller.strict, tell=self.learn)
            await self.json(ask.whole(ranking, Stamp(self.id, time.time_ns)))

        await self.while_connected(work())

    async def count(self, ask: CountAsk) -> None:
        """Count the tokens of a prompt."""
        self.model = ask.request.model

        async def work() -> None:
            await self.json(ask.whole(await self.engine.count(ask.request)))

        await self.while_connected(work())

    async def load(self, ask: LoadAsk) -> None:
        """Load a model, or unload it when its keep-alive is 0."""
        self.model = ask.request.model

        async def work() -> None:
            if ask.request.keep_alive == 0:
                await self.engine.unload(ask.request.model)
            else:
                await self.engine.load(ask.request.model, ask.request.keep_alive)
            await self.json(ask.whole(Stamp(self.id, time.time_ns)))

        await self.while_connected(work())

    async def _relay(self, request: Generate | Embed, path: str, *, stream: bool) -> bool:
        """Send the bytes of the model's own server, where the configuration wants it so; whether it does."""
        pieces = self.engine.relay(request, path, tell=self.learn if self.caller.report else None)
        begun = False
        try:
            async for media_type, piece in pieces:
                if not stream:
                    await self.reply(200, media_type.encode(), piece, self._told())
                    return True
                if not begun:
                    await self._begin(media_type)
                    begun = True
                if piece:
                    await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        finally:
            await pieces.aclose()
        if begun:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        return begun

    async def _whole(self, ask: Ask, stamp: Stamp, path: str) -> None:
        if self.engine.relays and path and await self._relay(ask.requests[0], path, stream=False):
            return
        completions = []
        for request in ask.requests:
            events: list[Event] = []
            size = 0
            stream = self.engine.generate(request, strict=self.caller.strict, tell=self.learn, images=self._images)
            try:
                async for batch in stream:
                    events.extend(batch)
                    size += sum(len(getattr(event, "text", "") or getattr(event, "arguments", "")) for event in batch)
                    if size > REPLY_LIMIT:
                        raise BackendError(f"the answer has more than {REPLY_LIMIT} characters")
            finally:
                await stream.aclose()
            completion = fold(events)
            if completion.usage is not None:
                self.tokens += completion.usage.completion
            completions.append(completion)
        await self.json(ask.whole(completions, stamp))

    async def pour(self, media_type: str, frames: AsyncIterator[bytes]) -> None:
        """Send a stream that is made elsewhere, and that words its own failures."""
        try:
            async for piece in frames:
                if not self._status:
                    await self._begin(media_type)
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
        except GatewayError:
            if not self._status:
                raise
        if not self._status:
            await self._begin(media_type)
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def stream(
        self,
        requests: Sequence[Generate],
        encoder: Encoder,
        closing: Callable[[], Awaitable[None]] | None = None,
        *,
        path: str = "",
    ) -> None:
        """Generate, a choice a request, and send each frame as it comes. ``closing`` is done before the last ones go."""
        try:
            if self.engine.relays and path and await self._relay(requests[0], path, stream=True):
                return
            last = b""
            for choice, request in enumerate(requests):
                if last:
                    await self._send({"type": "http.response.body", "body": last, "more_body": True})
                last = await self._choice(encoder, choice, request)
            if closing is not None:
                await closing()
            last += encoder.finish()
            if self.report is not None and self.caller.report == "body":
                last = in_body(self.report, last, encoder.media_type.encode())
            await self._send({"type": "http.response.body", "body": last, "more_body": False})
        except GatewayError as error:
            if not self._status:
                raise
            await self._break_off(encoder, error)
        except asyncio.CancelledError:
            if self._gone or not self._status:
                raise
            # The grace period of a shutdown is over.
            await self._break_off(encoder, BackendUnavailable("the gateway is shutting down"))
        except Exception as error:
            if not self._status:
                raise
            self.gateway.access_log.crash(error)
            await self._break_off(encoder, GatewayError("internal error"))

    async def _choice(self, encoder: Encoder, choice: int, request: Generate) -> bytes:
        """Send one choice; returns its last frames, which are not sent yet."""
        feed, send = encoder.feed, self._send
        frames = b""
        stream = self.engine.generate(request, strict=self.caller.strict, tell=self.learn, images=self._images)
        try:
            async for batch in stream:
                if len(batch) == 1:
                    frames = feed(batch[0], choice)
                else:
                    frames = b"".join([feed(event, choice) for event in batch])
                if not self._status:
                    await self._begin(encoder.media_type)
                last = batch[-1]
                if type(last) is Finished:
                    if last.usage is not None:
                        self.tokens += last.usage.completion
                elif frames:
                    await send({"type": "http.response.body", "body": frames, "more_body": True})
        finally:
            await stream.aclose()
        return frames

    async def _begin(self, media_type: str) -> None:
        self._status = 200
        head = [
            (b"content-type", media_type.encode()),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
            (self.voice.id_header, self.id.encode()),
            *self._told(),
        ]
        await self._send({"type": "http.response.start", "status": 200, "headers": head})

    async def _break_off(self, encoder: Encoder, error: GatewayError) -> None:
        await self._send({"type": "http.response.body", "body": encoder.fail(error), "more_body": False})

"""One HTTP request and its answer: the body in, bytes out, an error in the dialect's words, an end when the client leaves.

What the answer says is others' business: the routes read requests, and ``answering`` asks the engine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, cast

from msgspec import structs

from adapters.automatic1111.wire import Choice
from backends.base import tell_nobody
from canonical.errors import (
    BackendUnavailable,
    Forbidden,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    StorageFailed,
    TooLarge,
    shutting_down,
)
from canonical.events import Event
from canonical.media import Blob
from canonical.progress import Progress
from canonical.report import Report
from canonical.requests import Generate
from gateway.accesslog import AccessLog
from gateway.background import Jobs as Background
from gateway.conversations import Conversing
from gateway.downloads import Downloads
from gateway.engine import Engine
from gateway.jobs import Jobs
from gateway.sessions import Sessions
from gateway.store import Store
from gateway.web.caller import HEADER, caller_of, header_value, in_body
from gateway.web.charset import as_read, in_utf8
from gateway.web.cycle import DEPARTURE, Departure
from gateway.web.signed import Links
from gateway.web.voice import Voice, new_id

if TYPE_CHECKING:
    from litestar.types import HTTPScope, Receive, Send


class Gateway:
    """What every request of the process shares."""

    def __init__(
        self,
        engine: Engine,
        *,
        body_limit: int,
        access_log: AccessLog,
        background: Background | None = None,
        jobs: Jobs | None = None,
        store: Store | None = None,
        sessions: Sessions | None = None,
        links: Links | None = None,
    ) -> None:
        self.engine = engine
        self.sessions = sessions
        """Those of Brenda's dialect; None: nothing is kept."""
        self.store = store
        """What outlives the process; None: nothing is kept."""
        self.conversations = None if store is None else Conversing(store.conversations)
        self.background = background
        """Responses that are made in the background, and their store; None: nothing is kept."""
        self.jobs = jobs
        """Pictures that are being made, and those that were; None: nothing is kept."""
        self.chosen: dict[str, Choice] = {}
        """What each key has chosen in A1111's options; forgotten with the process."""
        self.downloads = Downloads(engine.library.pull)
        """Pulls that nobody waits for."""
        self.links = links
        """Makes the links to pictures that open without a key; None: nothing is kept."""
        self.body_limit = body_limit
        self.access_log = access_log
        self.running: set[asyncio.Task[object]] = set()
        """Tasks of requests that are being answered; a drain waits for them."""
        self.draining = False


Handler = Callable[["Exchange"], Awaitable[None]]


class Exchange:
    """One request, from its scope to its last byte."""

    __slots__ = (
        "_body",
        "_lost",
        "_receive",
        "_task",
        "caller",
        "gateway",
        "gone",
        "headers",
        "id",
        "images",
        "model",
        "report",
        "scope",
        "send",
        "status",
        "tokens",
        "voice",
    )

    def __init__(self, scope: HTTPScope, receive: Receive, send: Send, gateway: Gateway, voice: Voice) -> None:
        self.scope = scope
        self.gateway = gateway
        self.voice = voice
        self.id = new_id()
        self.model = ""
        self.tokens = 0
        self.caller = caller_of(scope)
        self.report: Report | None = None
        """What became of the request's fields, as soon as a model has them."""
        self.headers: list[tuple[bytes, bytes]] = []
        """What every answer to this request says besides, errors too."""
        self._body: bytes | None = None
        self._lost: tuple[str, ...] = ()
        self._receive = receive
        self.send = send
        self.status = 0
        """Of the answer; 0 until it has begun."""
        self.gone = False
        """Whether the client has left."""
        self.images: dict[str, Blob] = {}
        """What was behind the links of the request, which all its choices have."""
        self._task: asyncio.Task[object] | None = None

    @property
    def engine(self) -> Engine:
        """The models."""
        return self.gateway.engine

    @property
    def jobs(self) -> Jobs:
        """Pictures, which are jobs in every dialect. Raises StorageFailed where nothing is kept."""
        jobs = self.gateway.jobs
        if jobs is None:
            raise StorageFailed("this gateway keeps nothing, and pictures are jobs")
        return jobs

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
                stray = self.voice.stray
                words = f"method {method} is not allowed here" if stray is None else stray(method, self.scope["path"])
                error = MethodNotAllowed(words)
                await self.fail(error, [(b"allow", ", ".join(methods).encode())])
        except GatewayError as error:
            await self.fail(error)
        except asyncio.CancelledError:
            if not self.gone and not self.gateway.draining:
                raise
            task.uncancel()
            await self.fail(shutting_down())
        except Exception as error:  # noqa: BLE001  # the last resort: it is logged whole, and the client is told little
            self.gateway.access_log.crash(error)
            await self.fail(GatewayError("internal error"))
        finally:
            running.discard(task)
            self._task = None
            status = 499 if self.gone else self.status
            what = f"{self.voice.name} {self.scope['method']} {self.scope['path'][:100]} {self.model[:100]}"
            lost = f" {len(self.report.dropped)} dropped" if self.report is not None and self.report.dropped else ""
            self.gateway.access_log.line(f"{what} {status} {self.tokens} tokens {time.monotonic() - began:.3f} s{lost}")

    async def body(self) -> bytes:
        """The whole request body, in UTF-8 where the request tells what else it is in.

        Raises:
            TooLarge: before reading what its length announces, or as soon as more than the limit has come.
        """
        if self._body is None:
            self._body = in_utf8(await self._read_body(), self.scope["headers"])
        return self._body

    async def _read_body(self) -> bytes:
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
        self.gone = True
        raise InvalidRequest("the client left before its body was complete")

    @property
    def announced(self) -> int:
        """Bytes that the body has, as its head says; 0: it says nothing."""
        return next((int(value) for name, value in self.scope["headers"] if name == b"content-length"), 0)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The request body as it comes, of any length; the client is held back while nobody asks for the next piece.

        Raises:
            InvalidRequest: the client left before the end.
        """
        more = True
        while more:
            message = await self._receive()
            if message["type"] != "http.request":
                self.gone = True
                raise InvalidRequest("the client left before its body was complete")
            more = message["more_body"]
            if message["body"]:
                yield message["body"]

    def must_manage(self) -> None:
        """Raises Forbidden for a caller whose key may only use models."""
        if not self.caller.manage:
            raise Forbidden("this key may not change which models there are")

    async def json(self, body: bytes, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole JSON answer, with the report where it was asked for."""
        if self.report is not None and self.caller.report:
            headers = [*headers, *self.told()]
            if self.caller.report == "body" and status < 400:
                body = in_body(self.report, body, self.voice.json_type)
        await self.reply(status, self.voice.json_type, body, headers)

    def told(self) -> list[tuple[bytes, bytes]]:
        """The report's header, where it was asked for."""
        return [(HEADER, header_value(self.report))] if self.report is not None and self.caller.report else []

    def events(
        self,
        request: Generate,
        *,
        far: Callable[[Progress], None] = tell_nobody,
        ready: Callable[[], None] | None = None,
    ) -> AsyncGenerator[Sequence[Event], None]:
        """What a model says to ``request``, held to what the caller wishes. Closing it stops the generation.

        ``far`` learns how far a load is that the request waits for; ``ready`` is called as soon as a model has the request.
        """
        learn = self.learn
        if ready is not None:

            def learn(report: Report) -> None:
                self.learn(report)
                ready()

        return self.engine.generate(
            self.owned(request), strict=self.caller.strict, tell=learn, images=self.images, far=far
        )

    def owned(self, request: Generate) -> Generate:
        """``request`` as the caller's: what is computed for it is shared with no other's."""
        return structs.replace(request, tenant=self.caller.owner)

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
        self.status = status
        head = [
            (b"content-type", as_read(media_type, body, self.scope["headers"])),
            (b"content-length", b"%d" % len(body)),
            self.voice.named(self.id),
            *self.voice.besides(self.scope["headers"]),
            *self.headers,
            *headers,
        ]
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def fail(self, error: GatewayError, extra: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send an error in the dialect's words, unless the answer has begun or the client has left."""
        if self.status or self.gone:
            return
        headers = list(extra)
        if error.retry_after is not None:
            headers.append((b"retry-after", b"%d" % max(1, round(error.retry_after))))
        if error.status >= 500 and not error.retry:
            # OpenAI's SDKs repeat every 5xx twice: a generation that failed would run three times.
            headers.append((b"x-should-retry", b"false"))
        await self.json(self.voice.refusal(error, self.id), self.voice.error_status(error), headers)

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
        self.gone = True
        if self._task is not None:
            self._task.cancel()

    async def begin(self, media_type: str) -> None:
        """Send the head of a stream; pieces and the end follow."""
        self.status = 200
        head = [
            (b"content-type", media_type.encode()),
            (b"cache-control", b"no-cache, no-transform"),
            (b"x-accel-buffering", b"no"),
            self.voice.named(self.id),
            *self.voice.besides(self.scope["headers"]),
            *self.headers,
            *self.told(),
        ]
        await self.send({"type": "http.response.start", "status": 200, "headers": head})

    async def piece(self, body: bytes) -> None:
        """Send more of a stream."""
        await self.send({"type": "http.response.body", "body": body, "more_body": True})

    async def end(self, body: bytes = b"") -> None:
        """Send the last of a stream."""
        await self.send({"type": "http.response.body", "body": body, "more_body": False})

    async def break_off(self, error: BaseException, word: Callable[[GatewayError], bytes]) -> None:
        """End a stream that fails with a frame that tells why; raise ``error`` where it has not begun, or nobody is there."""
        told: GatewayError | None = None
        try:
            match error:
                case _ if not self.status:
                    raise error
                case GatewayError():
                    told = error
                case asyncio.CancelledError() if not self.gone:  # the grace period of a shutdown is over
                    told = BackendUnavailable("the gateway is shutting down")
                case Exception():
                    self.gateway.access_log.crash(error)
                    told = GatewayError("internal error")
                case _:
                    raise error
            await self.end(word(told))
        finally:
            # Its traceback holds this frame: they, and the request with them, would wait for the collector of cycles.
            del error, told

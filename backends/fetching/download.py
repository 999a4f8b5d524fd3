"""One file from one address: over several connections, taken up where an earlier try ended, checked before it is kept.

A connection takes the next range that is missing, writes it in blocks and notes each. Breaks, stalls, 5xx and 429 are
tried again from where they happened. Where the server knows no ranges, one stream brings it all.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections import deque
from collections.abc import Callable
from pathlib import Path

from msgspec import Struct

from backends.fetching.ledger import Ledger, ledger_of
from backends.fetching.out import Out
from backends.fetching.partial import Partial, storage_failed
from backends.fetching.patience import Failed, Pace, Patience, failed, judge
from backends.fetching.spans import Span, split
from backends.fetching.threaded import Threads, result
from backends.fetching.web import Web
from backends.links import Link
from backends.store import locks
from backends.transport import Response
from canonical.digests import EMPTY
from canonical.errors import BackendError

RESTARTS = 2
"""How often a file may turn out to be another one while it is fetched."""
TOLD = 0.06
"""Seconds between two words on progress."""
TURN = 0.5
"""Seconds between two looks whether another process has finished the same file."""

"""The digest of no bytes."""

_RANGE = re.compile(r"bytes ([0-9]{1,16})-([0-9]{1,16})/([0-9]{1,16}|\*)")
_NO_RANGE = re.compile(r"bytes \*/([0-9]{1,16})")

Told = Callable[[int, int], None]
"""Takes the bytes that are there, and all."""


class Wanted(Struct, frozen=True, kw_only=True):
    """A file, and where it is."""

    link: Link
    digest: str
    """``sha256:<64 hex>``."""
    size: int = 0
    """0: whatever its server says."""
    secret: str = ""
    """The value of ``Authorization`` at the link's own origin."""


class _Changed(Exception):
    """The server has another file there now."""

    def __init__(self, size: int, etag: str) -> None:
        super().__init__()
        self.size, self.etag = size, etag


async def download(
    wanted: Wanted,
    partial: Path,
    *,
    web: Web,
    keep: Callable[[], None],
    has: Callable[[], bool],
    pace: Pace | None = None,
    told: Told = lambda _there, _all: None,
) -> None:
    """Fetch a file to ``partial``, check it, and call ``keep``, which gives it its name; nothing if ``has`` it already.

    Cancelling pauses: the next call for the same file goes on from there, in this process or another. Two at once take
    turns.

    Raises:
        BackendError: its source failed, or has another file.
        StorageFailed: the disk did.
    """
    pace = pace or Pace()
    threads = Threads(pace.connections + 2)
    try:
        file = await _turn(partial, threads, pace, told)
        one = Partial(partial, file, reserve=pace.reserve)
        try:
            if await threads.call(has):
                await threads.call(one.remove)  # a fresh file of ours, or the ledger of a process that was killed
                return
            await threads.call(one.open)
            await _Download(wanted, one, web=web, threads=threads, pace=pace, told=told).run()
            await threads.call(keep)
            await threads.call(one.ledger.remove)
        finally:
            one.close()
    finally:
        threads.close()


def tidy(partial: Path) -> None:
    """The file has its name: what a process that was killed at that moment left beside it goes."""
    ledger_of(partial).unlink(missing_ok=True)


async def _turn(partial: Path, threads: Threads, pace: Pace, told: Told) -> int:
    """Wait until no other process fetches this file, and tell how far that one is."""
    while True:
        taking = threads.start(lambda: locks.held(partial))
        try:
            file = await result(taking)
        except asyncio.CancelledError:
            # It may be ours by now, and nobody would ever let go of it.
            if taking.exception() is None and (file := taking.result()) is not None:
                os.close(file)
            raise
        except OSError as error:
            raise storage_failed(error) from error
        if file is not None:
            return file
        there, size = await threads.call(lambda: _noted(partial))
        if size:
            told(there, size)
        await pace.sleep(TURN)


def _noted(partial: Path) -> tuple[int, int]:
    """What the ledger of whoever fetches it says: the bytes that are there, and all."""
    ledger = Ledger(partial)
    with contextlib.suppress(OSError):
        ledger.read(partial.stat().st_size)
    return ledger.spans.total, ledger.size


class _Download:
    def __init__(self, wanted: Wanted, partial: Partial, *, web: Web, threads: Threads, pace: Pace, told: Told) -> None:
        self._wanted = wanted
        self._partial = partial
        self._web = web
        self._threads = threads
        self._pace = pace
        self._told = told
        self._told_at = 0.0
        self._todo: deque[Span] = deque()
        self._direct: Link | None = None
        """Where the redirects ended; a signed address that runs out is asked for again."""
        self._ranged = asyncio.Event()
        """The server knows ranges: other connections are of use. Or: nothing is left to do."""
        self._single = False
        """It knows none: one stream brings everything."""
        self._grown = asyncio.Event()

    async def run(self) -> None:
        partial, wanted = self._partial, self._wanted
        if wanted.digest == EMPTY:
            await self._threads.call(lambda: partial.begin(0, ""))
        else:
            size = wanted.size or partial.ledger.size or await self._look()
            if partial.ledger.size != size:
                await self._threads.call(lambda: partial.begin(size, ""))
            await self._whole()
        self._tell(force=True)
        await self._threads.call(lambda: partial.finish(wanted.digest))

    async def _whole(self) -> None:
        """The file as it is now, however often it turns out to be another one than a moment ago."""
        partial, size = self._partial, self._wanted.size
        for _ in range(RESTARTS + 1):
            await self._threads.call(partial.check_room)
            try:
                return await self._fetch()
            except _Changed as changed:
                if size and changed.size != size:
                    raise BackendError(f"its source has {changed.size} bytes for it, not {size}") from None
                begin = (changed.size, changed.etag)
                await self._threads.call(lambda: partial.begin(*begin))  # noqa: B023  waited for at once
                self._direct = None
        raise BackendError("its source has another file for it each time")

    async def _fetch(self) -> None:
        """Everything that is missing, and the digest beside it."""
        partial, pace = self._partial, self._pace
        self._todo = deque(split(partial.written.gaps(partial.ledger.size), pace.part))
        self._ranged, self._grown, self._single = asyncio.Event(), asyncio.Event(), False
        workers = min(pace.connections, len(self._todo))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._digest())
                for number in range(workers):
                    group.create_task(self._work(first=number == 0))
        except ExceptionGroup as failures:
            raise next((e for e in failures.exceptions if isinstance(e, _Changed)), failures.exceptions[0]) from None

    async def _digest(self) -> None:
        """Follow the bytes that are whole from the beginning."""
        partial = self._partial
        while partial.hashed < partial.ledger.size:
            whole = partial.written.frontier
            if whole == partial.hashed:
                self._grown.clear()
                await self._grown.wait()
            else:
                end = min(whole, partial.hashed + 16 * self._pace.piece)
                await self._threads.call(lambda: partial.digest_on(end))  # noqa: B023  waited for at once

    async def _work(self, *, first: bool) -> None:
        """One connection: range after range."""
        if not first:
            await self._ranged.wait()
        while self._todo:
            await self._range(*self._todo.popleft())
        self._ranged.set()

    async def _range(self, start: int, end: int) -> None:
        """Bring these bytes, however many tries it takes."""
        patience = Patience(self._pace)
        written = self._partial.written
        while True:
            if self._single:
                start, end = 0, self._partial.ledger.size
            gaps = [(max(a, start), b) for a, b in written.gaps(end) if b > start]
            if not gaps:
                return
            before = written.total
            try:
                await self._try(gaps[0][0], end)
            except Failed as failure:
                # What other connections brought meanwhile counts, too: that errs towards patience.
                await patience.after(failure, written.total - before)

    async def _try(self, start: int, end: int) -> None:
        response = await self._open(start, end)
        try:
            at, until = self._placed(response, start, end)
            gaps = [(start, until)]
            if response.status == 206:
                self._ranged.set()
            elif self._ranged.is_set():
                # Other connections may be filling the rest; what two of them wrote would be written twice.
                raise Failed(BackendError("its source knows ranges only now and then"))
            else:
                # All of it comes from byte 0 on, so all that is missing is taken from it.
                self._single = True
                self._todo.clear()
                gaps = self._partial.written.gaps(until)
            await self._pour(response, at, gaps)
        finally:
            response.close()
        if response.status == 206 and until < end:
            # It may, but one that gives a few bytes each time would be asked for ever.
            raise Failed(BackendError("its source sent less than was asked for"))

    async def _open(self, start: int, end: int) -> Response:
        """Raises Failed where it is worth another try."""
        wanted = self._wanted
        direct = self._direct
        headers = {"Range": f"bytes={start}-{end - 1}"}
        try:
            if direct is None:
                response, there = await self._web.ask("GET", wanted.link, headers, secret=wanted.secret)
            else:
                response, there = await self._web.ask("GET", direct, headers)
        except BackendError as error:
            self._direct = None
            raise (failed(error) if direct is None else Failed(error)) from None
        verdict = judge(response, there.host, "a file")
        if verdict is None:
            self._direct = there if there != wanted.link else None
            return response
        response.close()
        self._direct = None
        if response.status == 416:
            total = _NO_RANGE.fullmatch(response.header(b"content-range"))
            raise _Changed(int(total[1]), "") if total and int(total[1]) != self._partial.ledger.size else verdict
        # What the redirects led to may have run out in between; what the source itself says is final.
        raise Failed(verdict) if there != wanted.link and not isinstance(verdict, Failed) else verdict

    def _placed(self, response: Response, start: int, end: int) -> Span:
        """Which bytes the answer holds. Raises _Changed: of another file; Failed: none that were asked for."""
        ledger = self._partial.ledger
        if response.status == 206:
            found = _RANGE.fullmatch(response.header(b"content-range").strip())
            if found is None or int(found[1]) != start or not start <= int(found[2]) < end:
                raise Failed(BackendError("its source sent other bytes than were asked for"))
            at, until = start, int(found[2]) + 1
            total = ledger.size if found[3] == "*" else int(found[3])
        else:
            length = response.header(b"content-length")
            at, until = 0, ledger.size
            total = int(length) if length.isdecimal() else ledger.size
        etag = response.header(b"etag").strip()
        if not etag.startswith('"'):
            etag = ""  # a weak one, which two servers of one file may differ in
        if total != ledger.size or (etag and ledger.etag and etag != ledger.etag):
            raise _Changed(total, etag)
        if etag and not ledger.etag:
            self._partial.tag(etag)
        return at, until

    async def _pour(self, response: Response, at: int, gaps: list[Span]) -> None:
        """Write what fills ``gaps`` of a body that begins at byte ``at``."""
        out = Out(self._partial, self._threads, self._pace, self._grew)
        waiting = deque(gaps)
        try:
            while waiting:
                try:
                    piece = await response.read()
                except BackendError as error:
                    raise Failed(error) from None
                if not piece:
                    raise Failed(BackendError("its source ended before the end of the file"))
                begin, at = at, at + len(piece)
                while waiting and waiting[0][0] < at:
                    start, end = waiting[0]
                    start, stop = max(start, begin), min(end, at)
                    await out.put(start, piece[start - begin : stop - begin])
                    if stop < end:
                        waiting[0] = (stop, end)
                        break
                    waiting.popleft()
        finally:
            await out.finish()

    async def _look(self) -> int:
        """The size of a file of which only the digest is known."""
        patience = Patience(self._pace)
        while True:
            try:
                response = await self._open(0, 1)
            except Failed as failure:
                await patience.after(failure)
                continue
            except _Changed:
                raise BackendError("its source has an empty file") from None
            response.close()
            found = _RANGE.fullmatch(response.header(b"content-range").strip())
            size = found[3] if found and response.status == 206 else response.header(b"content-length")
            if not size.isdecimal() or not 0 < int(size[:20]) < 1 << 50:
                raise BackendError("its source does not say how large the file is")
            return int(size)

    def _grew(self) -> None:
        self._grown.set()
        self._tell()

    def _tell(self, *, force: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        if force or now - self._told_at >= TOLD:
            self._told_at = now
            self._told(self._partial.written.total, self._partial.ledger.size)

"""Bytes of one connection on their way into the partial file, in blocks that are noted as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from backends.fetching.partial import Partial
from backends.fetching.patience import Pace
from backends.fetching.threaded import Threads, result
from canonical.errors import StorageFailed


class Out:
    """One piece is written while the next one comes."""

    def __init__(self, partial: Partial, threads: Threads, pace: Pace, grew: Callable[[], None]) -> None:
        self._partial, self._threads, self._pace, self._grew = partial, threads, pace, grew
        self._pieces: list[memoryview] = []
        self._size = 0
        self._start = self._at = 0
        """Where the block began that is not noted yet, and where the next byte goes."""
        self._writing: asyncio.Future[None] | None = None
        self._span = (0, 0)
        """What it writes."""

    async def put(self, start: int, piece: bytes) -> None:
        """Take bytes; those that do not follow the last ones begin a block."""
        if start != self._at:
            await self._flush(settle=True)
            self._start = self._at = start
        rest = memoryview(piece)
        while rest:
            part, rest = rest[: self._pace.piece - self._size], rest[self._pace.piece - self._size :]
            self._pieces.append(part)
            self._size += len(part)
            self._at += len(part)
            if self._size >= self._pace.piece:
                await self._flush(settle=self._at - self._start >= self._pace.block)

    async def finish(self) -> None:
        """All of it is on the disk, and noted, also when the connection broke or the pull was paused."""
        await self._flush(settle=True)
        await self._written()

    async def _flush(self, *, settle: bool) -> None:
        await self._written()
        pieces, self._pieces = self._pieces, []
        size, self._size = self._size, 0
        begin, at = self._start, self._at
        if begin == at:
            return
        partial = self._partial

        def work() -> None:
            if pieces:
                partial.write(at - size, pieces)
            if settle:
                partial.settle(begin, at)

        self._writing = self._threads.start(work)
        self._span = (at - size, at)
        if settle:
            self._start = at

    async def _written(self) -> None:
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            await result(writing)
        except StorageFailed:
            self._pieces, self._size, self._start = [], 0, self._at  # what cannot be written is not noted either
            raise
        self._partial.written.add(*self._span)
        self._grew()

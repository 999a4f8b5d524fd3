"""One line a request, at the edge: what was asked of what, how it ended, how long it took. Never prompts or answers.

    15:04:05 ollama POST /api/chat pip 200 17 tokens 0.213 s

Lines are gathered and written together ten times a second: a write per request costs more than the request's parse.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from typing import TextIO

_CONTROL = re.compile(r"[^\x20-\x7e]")
PAUSE = 0.1
"""Seconds between writes."""

logger = logging.getLogger("dragoman")


class AccessLog:
    """Writes to ``stream``; None: writes nothing."""

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lines: list[str] = []
        self._timer: asyncio.TimerHandle | None = None

    def line(self, text: str) -> None:
        """Note one request; a character that could forge a line or move a cursor becomes ``?``."""
        if self._stream is None:
            return
        if not text.isascii() or not text.isprintable():
            text = _CONTROL.sub("?", text)
        self._lines.append(f"{time.strftime('%H:%M:%S')} {text}\n")
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(PAUSE, self.flush)

    def crash(self, error: Exception) -> None:
        """A defect of ours: logged whole, on the machine alone."""
        logger.error("a request failed inside the gateway", exc_info=error)

    def flush(self) -> None:
        """Write what has gathered."""
        self._timer = None
        lines, self._lines = self._lines, []
        if self._stream is not None and lines:
            self._stream.write("".join(lines))
            self._stream.flush()

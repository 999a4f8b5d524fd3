r"""The answer as plain text in SSE: what an ``EventSource`` hears, put together, is the answer.

    data: The capital of France
    data:
    data: is Paris.

    data: [DONE]

Line ends inside a piece are ``data`` lines of one event, which readers join with ``\n``. SSE has no carriage return: one
counts as a line end, with or without a line feed behind it. No event has ``[DONE]`` in it but the last: an answer that
says so says it in two pieces. What fails is an event of its own name, so that no text can be taken for it.
"""

from __future__ import annotations

import re
from typing import ClassVar

from adapters.brenda.errors import error_body
from adapters.dialect import Stamp
from canonical.errors import BackendError, GatewayError
from canonical.events import Event, TextDelta, ToolCallDelta

DONE = "[DONE]"
_AMID_DONE = re.compile(r"(?<=\[DO)(?=NE\])")


def frames(text: str) -> bytes:
    r"""The events of a piece of text whose lines end with ``\n``; none of an empty one."""
    found = b""
    for piece in _AMID_DONE.split(text) if DONE in text else (text,):
        if piece:
            found += b"data: " + piece.encode().replace(b"\n", b"\ndata: ") + b"\n\n"
    return found


class TextStream:
    """Canonical events -> plain text. Thoughts are no part of the answer, and calls of tools have no place in it."""

    media_type: ClassVar[str] = "text/event-stream; charset=utf-8"

    __slots__ = ("_after_return",)

    def __init__(self, stamp: Stamp) -> None:  # noqa: ARG002  # nothing of it is told
        self._after_return = False

    def feed(self, event: Event, choice: int = 0) -> bytes:  # noqa: ARG002  # a stream has one choice
        """The frames of one event.

        Raises:
            BackendError: the model calls a tool, though there were none to be called.
        """
        match event:
            case TextDelta(text):
                return frames(self._lines(text))
            case ToolCallDelta():
                raise BackendError("the model called a tool, for which a stream of plain text has no place")
            case _:
                return b""

    def finish(self) -> bytes:
        """The word that it is whole."""
        return b"data: [DONE]\n\n"

    def fail(self, error: GatewayError) -> bytes:
        """The last event of an answer that is not."""
        return b"event: error\ndata: " + error_body(error) + b"\n\n"

    def _lines(self, text: str) -> str:
        r"""The text with ``\n`` for every line end, also for one that is cut in two."""
        if text and self._after_return:
            self._after_return = False
            text = text.removeprefix("\n")
        if "\r" in text:
            self._after_return = text.endswith("\r")
            text = text.replace("\r\n", "\n").replace("\r", "\n")
        return text

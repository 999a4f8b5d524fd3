"""Bytes that pass between a client and a server of one dialect: all stay as they are, but for the model's name.

What comes back is cut where a frame ends, so that a failure can be told behind the last whole one.
"""

from __future__ import annotations

import re

import msgspec
from msgspec import Raw

from adapters.framing import RECORD_LIMIT
from adapters.openai.fields import refuse_dangerous
from canonical.errors import BackendError

_SSE_ENDS = (b"\n\n", b"\r\n\r\n", b"\r\r")
_LINE_ENDS = (b"\n",)
_LONGEST = 3
"""Bytes of an end that may lie in the piece before."""
_SAID = re.compile(
    rb'^data: ?\[DONE\]|"finish_reason" ?: ?"|^\{ ?"error"|^data: ?\{ ?"error"|"type" ?: ?"(?:message_stop|error)"|"done" ?: ?true',
    re.MULTILINE,
)
"""What a stream says at its end, well or not, in any dialect. In a text that holds the same, quotes and lines are escaped."""
_KEY = re.compile(rb'[\s,]*("[^"\\]*+(?:\\.[^"\\]*+)*+")\s*:\s*', re.DOTALL)

_fields = msgspec.json.Decoder(dict[str, Raw])


def addressed(body: bytes, model: str) -> bytes:
    """``body``, a JSON object that was checked, with ``model`` as the model it names; every other byte stays.

    Servers written in Go take ``Model`` for ``model`` as well: each spelling gets the name.

    Raises:
        Unsupported: a field would steer the server itself.
    """
    fields = _fields.decode(body)
    refuse_dangerous({name.casefold() for name in fields})
    name = msgspec.json.encode(model)
    at = body.index(b"{") + 1
    pieces = [body[:at]]
    named = False
    for field, raw in fields.items():
        key = _KEY.match(body, at)
        assert key is not None
        end = key.end() + len(raw)
        if field.casefold() == "model":
            pieces += [body[at : key.end()], name]
            named = True
        else:
            pieces.append(body[at:end])
        at = end
    if not named:
        pieces.insert(1, b'"model":' + name + (b"," if fields else b""))
    pieces.append(body[at:])
    return b"".join(pieces)


class Frames:
    """Bytes in any pieces -> the same bytes, in pieces that end where a frame does."""

    __slots__ = ("_before", "_ends", "_held", "_last", "_size")

    def __init__(self, media_type: str) -> None:
        """``text/event-stream``, or lines."""
        self._ends = _SSE_ENDS if media_type == "text/event-stream" else _LINE_ENDS
        self._held: list[bytes] = []
        self._size = 0
        self._before = b""
        self._last = (b"", b"")

    def feed(self, data: bytes) -> bytes:
        """The frames that ``data`` completes, and what was held before it.

        Raises:
            BackendError: a frame exceeds ``RECORD_LIMIT``.
        """
        if not self._held and data.endswith(self._ends):
            self._last = (self._last[1], data)
            return data  # the usual case: servers flush whole frames
        seen = self._before + data
        found = max((at + len(end) for end in self._ends if (at := seen.rfind(end)) >= 0), default=0)
        cut = found - len(self._before)
        whole = b""
        if cut > 0:
            whole = b"".join([*self._held, data[:cut]])
            self._last = (self._last[1], whole)
            data = data[cut:]
            self._held = []
            self._size = 0
            self._before = b""
        if data:
            self._held.append(data)
            self._size += len(data)
            self._before = (self._before + data)[-_LONGEST:]
            if self._size > RECORD_LIMIT:
                raise BackendError(f"the backend sent a frame of more than {RECORD_LIMIT} bytes")
        return whole

    def finish(self) -> bytes:
        """What is left where the stream ended as it should: a last frame that lacks its end. Half a frame tells none."""
        rest = b"".join(self._held)
        if rest.rstrip().endswith((b"}", b"[DONE]")):
            self._last = (self._last[1], rest)
        return rest

    @property
    def ended(self) -> bool:
        """Whether the stream has told its own end; usage may follow a finish reason."""
        return any(map(_SAID.search, self._last))

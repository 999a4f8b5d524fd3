r"""``POST /generate``: an Ollama server's lines, each as one event.

    data: {"model":"mistral","created_at":"...","response":"Hel","done":false}\n\n

The service that this comes from said ``text/event-stream`` and sent those lines, so both kinds of clients exist. An event of
one ``data`` line is what the media type promises: readers of events get the line, and so does who reads lines and takes off
``data: ``. A bare line would be no event at all, and a reader of events drops it without a word. Whoever wants bare lines says
so: ``Accept: application/x-ndjson``.
"""

from __future__ import annotations

from functools import partial
from typing import ClassVar

from adapters.dialect import Ask
from adapters.ollama.answers import GenerateStream, generate_reply
from canonical.errors import GatewayError
from canonical.events import Event
from canonical.requests import Generate

MEDIA_TYPE = "text/event-stream; charset=utf-8"
"""Python's ``requests`` reads a text as Latin-1 where nothing is said of its encoding."""


class GenerateEvents(GenerateStream):
    """Canonical events -> the lines of Ollama's ``/api/generate``, as events."""

    media_type: ClassVar[str] = MEDIA_TYPE

    def feed(self, event: Event, choice: int = 0) -> bytes:
        """The lines of one event, each as an event of its own."""
        return _events(super().feed(event, choice))

    def fail(self, error: GatewayError) -> bytes:
        """The error's line, likewise; no ``done`` follows it."""
        return _events(super().fail(error))


def generate_ask(request: Generate, *, lines: bool) -> Ask:
    """How the answer to ``request`` is worded; ``lines``: the client wants them bare."""
    return Ask(
        (request,),
        True,
        partial(GenerateStream if lines else GenerateEvents, request.model, None),
        partial(generate_reply, request.model, None),
    )


def _events(lines: bytes) -> bytes:
    return b"".join(b"data: %b\n\n" % line for line in lines.split(b"\n") if line)

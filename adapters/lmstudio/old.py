"""``/api/v0``: OpenAI's chats and completions, with ``stats``, ``model_info`` and ``runtime`` beside the answer.

They stand at the end of a whole answer, and of the frame of a stream that says how it ended.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

from msgspec import structs

from adapters.dialect import Ask, Encoder, Stamp
from adapters.framing import encode_line
from adapters.lmstudio import wire
from adapters.lmstudio.stats import End, old_stats
from adapters.openai.reply import Stream
from canonical.errors import GatewayError
from canonical.events import Completion, Event, Finished
from canonical.models import ModelInfo

VERSION = "0.1.0"
"""Ours, as ``runtime`` tells it."""

_END = b"}\n\n"


def with_stats(ask: Ask, info: ModelInfo) -> Ask:
    """``ask`` with figures in its answer; ``info`` is of the model that gives it."""

    def encoder(stamp: Stamp) -> StatsStream:
        return StatsStream(ask.encoder(stamp), info)

    return structs.replace(ask, encoder=encoder, whole=partial(_whole, ask, info))


class StatsStream:
    """A stream of OpenAI's with the figures in the frames that say how a choice ended."""

    media_type: ClassVar[str] = Stream.media_type

    __slots__ = ("_info", "_inner")

    def __init__(self, inner: Encoder, info: ModelInfo) -> None:
        self._inner = inner
        self._info = info

    def feed(self, event: Event, choice: int = 0) -> bytes:
        """The frames of one event."""
        frame = self._inner.feed(event, choice)
        if isinstance(event, Finished):
            assert frame.endswith(_END)
            return frame[: -len(_END)] + _beside([event], self._info) + b"\n\n"
        return frame

    def finish(self) -> bytes:
        """The closing frames."""
        return self._inner.finish()

    def fail(self, error: GatewayError) -> bytes:
        """The in-band error frame."""
        return self._inner.fail(error)


def _whole(ask: Ask, info: ModelInfo, completions: Sequence[Completion], stamp: Stamp) -> bytes:
    body = ask.whole(completions, stamp)
    assert body.endswith(b"}")
    return body[:-1] + _beside(completions, info)


def _beside(ends: Sequence[End], info: ModelInfo) -> bytes:
    """The three fields, behind a comma, and the brace that ends their object."""
    told = wire.Beside(
        old_stats(ends, info.context_length),
        wire.About(
            arch=info.family,
            quant=info.quantization,
            format=info.format or "gguf",
            context_length=info.context_length,
        ),
        wire.Runtime("dragoman", VERSION, ["gguf"]),
    )
    return b"," + encode_line(told)[1:]

"""What chat and completion answers share: the frame around a choice, the sum of tokens, the stream's end.

A frame: ``data: {"id":…,"object":…,"created":…,"model":…,"system_fingerprint":…,"choices":[{…}]}`` and a blank line.
All of it but the piece itself is constant over a stream, so it is encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec

from adapters.dialect import Stamp
from adapters.framing import encode_line
from adapters.openai import wire
from adapters.openai.errors import error_body
from canonical.errors import GatewayError
from canonical.events import Reason, TokenLogprob, Usage

FINGERPRINT = "fp_dragoman"
REASONS: dict[Reason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "content_filter": "content_filter",
    "cancelled": "stop",
}

encode = msgspec.json.Encoder().encode


class Stream:
    """One stream of either kind, less the pieces themselves. One frame says how it ends, unless it fails."""

    media_type: ClassVar[str] = "text/event-stream; charset=utf-8"

    __slots__ = ("_created", "_end", "_id", "_model", "_n", "_name", "_object", "_usages", "_want_usage")

    def __init__(
        self, stamp: Stamp, *, prefix: str, object: str, model: str, usage: bool, choices: int, n: int
    ) -> None:
        self._id = encode(prefix + stamp.id)
        self._object = encode(object)
        self._created = created(stamp)
        self._model = model
        self._name = model
        self._usages: list[Usage | None] = [None] * choices
        self._n = n
        self._want_usage = usage
        self._end = b'],"usage":null}\n\n' if usage else b"]}\n\n"

    def finish(self) -> bytes:
        """The usage frame, if the client asked and the backend counted, and ``[DONE]``."""
        total = total_usage(self._usages, self._n) if self._want_usage else None
        if total is None:
            return b"data: [DONE]\n\n"
        return self._head() + b'],"usage":' + encode(total) + b"}\n\ndata: [DONE]\n\n"

    def fail(self, error: GatewayError) -> bytes:
        """The error frame. No finish reason and no ``[DONE]`` follow, or clients would take the answer as whole."""
        return b"data: " + error_body(error) + b"\n\n"

    def _head(self) -> bytes:
        return b'data: {"id":%b,"object":%b,"created":%d,"model":%b,"system_fingerprint":%b,"choices":[' % (
            self._id,
            self._object,
            self._created,
            encode_line(self._model or self._name),
            encode(FINGERPRINT),
        )


def created(stamp: Stamp) -> int:
    """Whole seconds since the epoch, as the dialect counts."""
    return stamp.clock() // 1_000_000_000


def total_usage(usages: Sequence[Usage | None], n: int) -> wire.Usage | None:
    """The sum over choices, ``n`` of which share each prompt; None where a backend did not count."""
    known = [usage for usage in usages if usage is not None]
    if len(known) != len(usages):
        return None
    prompts = known[::n]
    prompt = sum(usage.prompt for usage in prompts)
    completion = sum(usage.completion for usage in known)
    return wire.Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=wire.Details(sum(usage.cached for usage in prompts)),
        completion_tokens_details=wire.OutputDetails(sum(usage.reasoning for usage in known)),
    )


def chat_logprobs(tokens: Sequence[TokenLogprob], top: int | None) -> wire.Logprobs | None:
    """Log probabilities in the chat form, each with at most ``top`` alternatives; None where there are none."""
    if not tokens:
        return None
    return wire.Logprobs(
        [
            wire.Logprob(
                token=token.token,
                logprob=token.logprob,
                bytes=token.bytes,
                top_logprobs=[wire.Alternative(other.token, other.logprob, other.bytes) for other in token.top[:top]],
            )
            for token in tokens
        ]
    )


def text_logprobs(tokens: Sequence[TokenLogprob], top: int | None, offset: int = 0) -> wire.TextLogprobs | None:
    """The same in the completions form, of text that starts at character ``offset``."""
    if not tokens:
        return None
    offsets: list[int] = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.token)
    return wire.TextLogprobs(
        tokens=[token.token for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=[{other.token: other.logprob for other in token.top[:top]} or None for token in tokens],
        text_offset=offsets,
    )

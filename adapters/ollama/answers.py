r"""What an Ollama client sees of an answer: NDJSON lines, whole replies, errors.

    {"model":"pip","created_at":"2026-08-21T09:00:00.104000Z","message":{"role":"assistant","content":"Hel"},"done":false}

The line's constant parts are made once a stream. Every object is one line for every reader: the official Python
client splits where ``str.splitlines`` does, so U+0085, U+2028 and U+2029 go out as escapes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import msgspec

from adapters.dialect import Stamp
from adapters.framing import encode_line, escape_lines
from adapters.ollama import wire
from adapters.ollama.times import CreatedAt
from adapters.ollama.values import arguments_object
from canonical.errors import BackendError, GatewayError, ModelNotFound
from canonical.events import (
    Completion,
    Event,
    Finished,
    Reason,
    ReasoningDelta,
    TextDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from canonical.messages import ToolCall
from canonical.requests import Embeddings

MEDIA_TYPE = "application/x-ndjson"
_encode = msgspec.json.encode
_NO_TIMINGS = Timings()


class _Stream:
    """What both routes' streams share. Nothing goes out for Started: a status belongs to the first real piece."""

    media_type: ClassVar[str] = MEDIA_TYPE

    def __init__(self, model: str, top_logprobs: int | None, stamp: Stamp) -> None:
        self._created_at = CreatedAt(stamp.clock)
        self._head = b'{"model":' + encode_line(model) + b',"created_at":"'
        self._top_logprobs = top_logprobs
        self._calls: list[tuple[str, str, list[str]]] = []

    def finish(self) -> bytes:
        """Nothing: the line of Finished was the last."""
        return b""

    def fail(self, error: GatewayError) -> bytes:
        """The error's line; no ``done`` follows it."""
        return error_body(error) + b"\n"

    def _collect(self, piece: ToolCallDelta) -> None:
        if piece.index == len(self._calls):
            self._calls.append((piece.id, piece.name, []))
        self._calls[piece.index][2].append(piece.arguments)

    def _collected(self, reason: Reason) -> bytes:
        """The array of tool calls; empty when there is none."""
        calls = [ToolCall(id, name, "".join(pieces)) for id, name, pieces in self._calls]
        return _tool_calls(calls, reason)

    def _logprobs(self, tokens: Sequence[TokenLogprob]) -> bytes:
        """``,"logprobs":[...]`` if there are any and the client asked."""
        return _logprobs(tokens, self._top_logprobs)


class ChatStream(_Stream):
    """Canonical events -> the lines of ``/api/chat``. Tool calls are collected, and go out whole before the last line."""

    def feed(self, event: Event, choice: int = 0) -> bytes:  # noqa: ARG002 - Ollama has one choice
        """Raises BackendError for tool arguments that are not a JSON object."""
        match event:
            case TextDelta(text, logprobs):
                if text or logprobs:
                    return self._line(b'"content":' + encode_line(text), self._logprobs(logprobs) if logprobs else b"")
            case ReasoningDelta(text):
                return self._line(b'"content":"","thinking":' + encode_line(text)) if text else b""
            case ToolCallDelta():
                self._collect(event)
            case Finished(reason, usage, timings):
                calls = self._collected(reason)
                line = self._line(b'"content":"","tool_calls":' + calls) if calls else b""
                return line + (
                    b'%b%b","message":{"role":"assistant","content":""},"done":true%b}\n'
                    % (self._head, self._created_at(), _end(reason, usage, timings))
                )
        return b""

    def _line(self, message: bytes, logprobs: bytes = b"") -> bytes:
        return b'%b%b","message":{"role":"assistant",%b},"done":false%b}\n' % (
            self._head,
            self._created_at(),
            message,
            logprobs,
        )


class GenerateStream(_Stream):
    """Canonical events -> the lines of ``/api/generate``."""

    def feed(self, event: Event, choice: int = 0) -> bytes:  # noqa: ARG002 - Ollama has one choice
        """Raises BackendError for tool arguments that are not a JSON object."""
        match event:
            case TextDelta(text, logprobs):
                if text or logprobs:
                    return self._line(encode_line(text), tail=self._logprobs(logprobs) if logprobs else b"")
            case ReasoningDelta(text):
                return self._line(b'""', b',"thinking":' + encode_line(text)) if text else b""
            case ToolCallDelta():
                self._collect(event)
            case Finished(reason, usage, timings):
                calls = self._collected(reason)
                line = self._line(b'""', tail=b',"tool_calls":' + calls) if calls else b""
                return line + (
                    b'%b%b","response":"","done":true%b}\n'
                    % (self._head, self._created_at(), _end(reason, usage, timings))
                )
        return b""

    def _line(self, response: bytes, thinking: bytes = b"", tail: bytes = b"") -> bytes:
        return b'%b%b","response":%b%b,"done":false%b}\n' % (
            self._head,
            self._created_at(),
            response,
            thinking,
            tail,
        )


def chat_reply(model: str, top_logprobs: int | None, completions: Sequence[Completion], stamp: Stamp) -> bytes:
    """``/api/chat`` not streamed. Raises BackendError for tool arguments that are not a JSON object."""
    answer = completions[0]
    calls = _tool_calls(answer.tool_calls, answer.reason)
    return b'%b,"message":{"role":"assistant","content":%b%b%b},"done":true%b%b}' % (
        _head(model, stamp),
        encode_line(answer.text),
        b',"thinking":' + encode_line(answer.reasoning) if answer.reasoning else b"",
        b',"tool_calls":' + calls if calls else b"",
        _end(answer.reason, answer.usage, answer.timings),
        _logprobs(answer.logprobs, top_logprobs),
    )


def generate_reply(model: str, top_logprobs: int | None, completions: Sequence[Completion], stamp: Stamp) -> bytes:
    """``/api/generate`` not streamed. Raises BackendError for tool arguments that are not a JSON object."""
    answer = completions[0]
    calls = _tool_calls(answer.tool_calls, answer.reason)
    return b'%b,"response":%b%b,"done":true%b%b%b}' % (
        _head(model, stamp),
        encode_line(answer.text),
        b',"thinking":' + encode_line(answer.reasoning) if answer.reasoning else b"",
        _end(answer.reason, answer.usage, answer.timings),
        b',"tool_calls":' + calls if calls else b"",
        _logprobs(answer.logprobs, top_logprobs),
    )


def chat_loaded(model: str, reason: str, stamp: Stamp) -> bytes:
    """The answer to a chat without messages, one object even when streaming; ``reason`` is ``load`` or ``unload``."""
    return b'%b,"message":{"role":"assistant","content":""},"done":true,"done_reason":%b}' % (
        _head(model, stamp),
        encode_line(reason),
    )


def generate_loaded(model: str, reason: str, stamp: Stamp) -> bytes:
    """The answer to an empty prompt, one object even when streaming; ``reason`` is ``load`` or ``unload``."""
    return b'%b,"response":"","done":true,"done_reason":%b}' % (_head(model, stamp), encode_line(reason))


def embed_reply(model: str, answer: Embeddings) -> bytes:
    """``/api/embed``. Raises BackendError for a vector that is not of finite numbers."""
    _check_finite(answer)
    return _encode(
        wire.EmbedReply(
            model=model,
            embeddings=answer.vectors,
            total_duration=answer.total,
            load_duration=answer.load,
            prompt_eval_count=answer.prompt_tokens or 0,
        )
    )


def embeddings_reply(answer: Embeddings) -> bytes:
    """``/api/embeddings``: one flat vector. Raises BackendError as ``embed_reply`` does."""
    _check_finite(answer)
    return _encode(wire.EmbeddingsReply(embedding=answer.vectors[0] if answer.vectors else []))


def error_status(error: GatewayError) -> int:
    """The HTTP status of ``error``."""
    return error.status


def error_body(error: GatewayError) -> bytes:
    """``{"error":"text"}``. Clients search the text for ``not found`` and ``does not support``."""
    return _error(error.message)


def embed_error_body(error: GatewayError) -> bytes:
    """``error_body`` for the two embedding routes, where Ollama words a missing model differently."""
    if isinstance(error, ModelNotFound) and error.message.startswith("model '"):
        name = error.message.removeprefix("model '").removesuffix("' not found")
        return _error(f'model "{name}" not found, try pulling it first')
    return error_body(error)


def _error(text: str) -> bytes:
    # A path's odd bytes come as lone surrogates, which have no UTF-8.
    return b'{"error":%b}' % encode_line(text.encode(errors="replace").decode())


def _head(model: str, stamp: Stamp) -> bytes:
    return b'{"model":%b,"created_at":"%b"' % (encode_line(model), CreatedAt(stamp.clock)())


def _end(reason: Reason, usage: Usage | None, timings: Timings | None) -> bytes:
    """``,"done_reason":...`` and the metrics that somebody counted. Ollama knows the reasons stop and length alone."""
    times = timings or _NO_TIMINGS
    metrics = _encode(
        wire.Metrics(
            total_duration=times.total or 0,
            load_duration=times.load or 0,
            prompt_eval_count=usage.prompt if usage else 0,
            prompt_eval_duration=times.prompt or 0,
            eval_count=usage.completion if usage else 0,
            eval_duration=times.eval or 0,
        )
    )[1:-1]
    return b',"done_reason":"%b"%b%b' % (
        b"length" if reason == "length" else b"stop",
        b"," if metrics else b"",
        metrics,
    )


def _tool_calls(calls: Sequence[ToolCall], reason: Reason) -> bytes:
    """The array of ``tool_calls``; empty when there is none.

    Raises:
        BackendError: arguments that are not a JSON object. Ollama's clients get them parsed, so there is no form in
            which to pass on a broken text, and a made-up ``{}`` would call the function with other values than the
            model wrote. Where the answer was cut off, the unfinished call is left out: the reason tells of it.
    """
    entries: list[bytes] = []
    for call in calls:
        arguments = arguments_object(call.arguments.encode())
        if arguments is None:
            if reason in ("length", "cancelled"):
                continue
            raise BackendError(f"the model called {call.name!r} with arguments that are not a JSON object")
        entries.append(
            b'{"id":%b,"function":{"index":%d,"name":%b,"arguments":%b}}'
            % (encode_line(call.id), len(entries), encode_line(call.name), escape_lines(arguments))
        )
    return b"[%b]" % b",".join(entries) if entries else b""


def _logprobs(tokens: Sequence[TokenLogprob], top: int | None) -> bytes:
    """``,"logprobs":[...]``, with ``top`` alternatives each; empty when there are none or they were not asked for."""
    if top is None or not tokens:
        return b""
    entries = [
        wire.Logprob(
            token=token.token,
            logprob=token.logprob,
            bytes=token.bytes,
            top_logprobs=tuple(
                wire.TopLogprob(token=other.token, logprob=other.logprob, bytes=other.bytes)
                for other in token.top[:top]
            )
            or None,
        )
        for token in tokens
    ]
    return b',"logprobs":' + escape_lines(_encode(entries))


def _check_finite(answer: Embeddings) -> None:
    # A NaN or an infinity survives summing, and one sum is far cheaper than a test of each number.
    if not all(math.isfinite(sum(vector)) for vector in answer.vectors):
        raise BackendError("the model gave a vector with numbers that are not finite")

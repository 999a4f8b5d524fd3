r"""The answer of ``/v1/messages``: a stream of blocks, or one object.

    event: content_block_delta
    data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel"}}

Blocks come one after another: a block opens at a change of kind and closes before the next. Without its ``event:`` line a
frame is lost on the official SDK.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import msgspec
from msgspec import UNSET

from adapters.anthropic import wire
from adapters.anthropic.errors import error_body
from adapters.anthropic.turns import REDACTED, UNSIGNED, input_object
from adapters.dialect import Stamp
from adapters.framing import encode_line
from canonical.errors import BackendError, GatewayError
from canonical.events import Completion, Event, Finished, Reason, ReasoningDelta, TextDelta, ToolCallDelta, Usage
from canonical.messages import Reasoning, ToolCall

REASONS: dict[Reason, str] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "content_filter": "refusal",
    "cancelled": "end_turn",
}
_CUT_OFF = frozenset({"length", "cancelled"})

_encode = msgspec.json.Encoder().encode


class _Call:
    """A tool call that has begun: its head, and its arguments so far."""

    __slots__ = ("head", "pieces")

    def __init__(self, call: ToolCallDelta) -> None:
        self.head = call
        self.pieces = [call.arguments] if call.arguments else []

    @property
    def whole(self) -> bool:
        """Whether the arguments are one object, after which nothing can follow."""
        return bool(self.pieces) and input_object("".join(self.pieces).encode()) is not None


class MessageStream:
    """Canonical events -> frames.

    A call that is not whole yet keeps its block open, and what comes in between waits: a block cannot be taken up again.
    ``prompt`` is an estimate of the prompt's tokens, which the last record corrects. ``hidden``: thoughts are told
    without their text.
    """

    media_type: ClassVar[str] = "text/event-stream; charset=utf-8"

    __slots__ = ("_call", "_called", "_delta", "_hidden", "_index", "_kind", "_model", "_prompt", "_stamp", "_waiting")

    def __init__(self, stamp: Stamp, *, model: str, prompt: int = 0, hidden: bool = False) -> None:
        self._stamp = stamp
        self._model = model
        self._prompt = prompt
        self._hidden = hidden
        self._index = -1
        self._kind = ""
        self._delta = b""
        """Begins a frame of the open block; the piece, two brackets and a blank line end it."""
        self._call: _Call | None = None
        self._called = False
        self._waiting: list[TextDelta | ReasoningDelta | _Call] = []

    def feed(self, event: Event, choice: int = 0) -> bytes:  # noqa: ARG002 - Anthropic has one choice
        """The frames of one event.

        Raises:
            BackendError: a call goes on after its arguments were whole.
        """
        match event:
            case TextDelta(text):
                if self._kind == "text":
                    return self._delta + encode_line(text) + b"}}\n\n"
                return self._tell(event)
            case ReasoningDelta():
                return self._tell(event)
            case ToolCallDelta():
                return self._piece(event)
            case Finished():
                return self._drain(end=True) + self._close() + self._end(event)
            case _:
                return self._begin(event.model)

    def finish(self) -> bytes:
        """The closing frame."""
        return b'event: message_stop\ndata: {"type":"message_stop"}\n\n'

    def fail(self, error: GatewayError) -> bytes:
        """The error frame; no stop follows it, or clients would take the answer as whole."""
        return b"event: error\ndata: " + error_body(error) + b"\n\n"

    def _begin(self, model: str) -> bytes:
        message = (encode_line(f"msg_{self._stamp.id}"), encode_line(self._model or model), self._prompt)
        return (
            b'event: message_start\ndata: {"type":"message_start","message":{"id":%b,"type":"message",'
            b'"role":"assistant","model":%b,"content":[],"stop_reason":null,"stop_sequence":null,"usage":'
            b'{"input_tokens":%d,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}\n\n'
            % message
        )

    def _tell(self, event: TextDelta | ReasoningDelta) -> bytes:
        """A piece of text or thought, now or once the calls before it are whole."""
        if self._call is None:
            return self._say(event)
        self._waiting.append(event)
        return self._drain()

    def _say(self, event: TextDelta | ReasoningDelta) -> bytes:
        if isinstance(event, TextDelta):
            if not event.text:
                return b""
            return self._open("text", b'"text":""', b'"text_delta","text":') + self._frame(event.text)
        if event.signature.startswith(REDACTED):
            data = b'"data":' + encode_line(event.signature.removeprefix(REDACTED))
            return self._open("redacted_thinking", data, b"") + self._close()
        if not event.text and not event.signature:
            return b""
        frames = self._open("thinking", b'"thinking":"","signature":""', b'"thinking_delta","thinking":')
        if event.text and not self._hidden:
            frames += self._frame(event.text)
        if event.signature:
            frames += self._sign(event.signature) + self._shut()
        return frames

    def _piece(self, event: ToolCallDelta) -> bytes:
        """A piece of a call, now or once the calls before it are whole."""
        call = self._call
        if event.id:
            self._waiting.append(_Call(event))
            return self._drain()
        if call is not None and call.head.index == event.index:
            if not event.arguments:
                return b""
            call.pieces.append(event.arguments)
            frame = self._frame(event.arguments)
            return frame + self._drain() if self._waiting else frame
        waiting = next((w for w in self._waiting if isinstance(w, _Call) and w.head.index == event.index), None)
        if waiting is not None:
            waiting.pieces.append(event.arguments)
        elif event.arguments.strip():
            raise BackendError(f"the backend went on with tool call {event.index} after its arguments were whole")
        return b""

    def _drain(self, *, end: bool = False) -> bytes:
        """What has waited, as far as the calls between are whole; at the end nothing more can come for them."""
        frames = b""
        while self._waiting and (end or self._call is None or self._call.whole):
            self._call = None
            item = self._waiting.pop(0)
            frames += self._start(item) if isinstance(item, _Call) else self._say(item)
        return frames

    def _start(self, call: _Call) -> bytes:
        head = b'"id":%b,"name":%b,"input":{}' % (encode_line(call.head.id), encode_line(call.head.name))
        self._called = True
        frames = self._open("tool_use", head, b'"input_json_delta","partial_json":')
        self._call = call
        text = "".join(call.pieces)
        return frames + self._frame(text) if text else frames

    def _open(self, kind: str, start: bytes, delta: bytes) -> bytes:
        """Open a block unless one of this kind is open; each call and each sealed thought has its own."""
        if self._kind == kind and kind in {"text", "thinking"}:
            return b""
        frames = self._close()
        self._index += 1
        self._kind = kind
        self._delta = self._head(b"content_block_delta") + b',"delta":{"type":' + delta
        block = b',"content_block":{"type":"%b",%b}}\n\n' % (kind.encode(), start)
        return frames + self._head(b"content_block_start") + block

    def _sign(self, signature: str) -> bytes:
        delta = b'"signature_delta","signature":' + encode_line(signature)
        return self._head(b"content_block_delta") + b',"delta":{"type":' + delta + b"}}\n\n"

    def _close(self) -> bytes:
        if not self._kind:
            return b""
        return (self._sign(UNSIGNED) if self._kind == "thinking" else b"") + self._shut()

    def _shut(self) -> bytes:
        self._kind = ""
        return self._head(b"content_block_stop") + b"}\n\n"

    def _frame(self, text: str) -> bytes:
        return self._delta + encode_line(text) + b"}}\n\n"

    def _head(self, name: bytes) -> bytes:
        return b'event: %b\ndata: {"type":"%b","index":%d' % (name, name, self._index)

    def _end(self, event: Finished) -> bytes:
        usage = _encode(_usage(event.usage)) if event.usage is not None else b'{"output_tokens":0}'
        return (
            b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":%b,"stop_sequence":%b},"usage":%b}\n\n'
            % (
                _encode(_reason(event.reason, event.stop_sequence, called=self._called)),
                encode_line(event.stop_sequence),
                usage,
            )
        )


def message_reply(completions: Sequence[Completion], stamp: Stamp, *, model: str, hidden: bool = False) -> bytes:
    """The whole answer.

    Raises:
        BackendError: a call's arguments are not a JSON object, and nothing cut the answer off.
    """
    answer = completions[0]
    content: list[wire.TextBlock | wire.ThinkingBlock | wire.RedactedBlock | wire.ToolUseBlock] = []
    thoughts = answer.signed or ((Reasoning(answer.reasoning),) if answer.reasoning else ())
    for thought in thoughts:
        signature = thought.signature or UNSIGNED
        redacted = signature.startswith(REDACTED)
        if thought.text or not redacted:
            content.append(wire.ThinkingBlock("" if hidden else thought.text, UNSIGNED if redacted else signature))
        if redacted:
            content.append(wire.RedactedBlock(signature.removeprefix(REDACTED)))
    if answer.text:
        content.append(wire.TextBlock(answer.text))
    content.extend(_tool_uses(answer.tool_calls, answer.reason))
    return encode_line(
        wire.Reply(
            id=f"msg_{stamp.id}",
            model=model or answer.model,
            content=content,
            stop_reason=_reason(answer.reason, answer.stop_sequence, called=bool(answer.tool_calls)),
            stop_sequence=answer.stop_sequence,
            usage=_usage(answer.usage or Usage(0, 0)),
        )
    )


def _tool_uses(calls: Sequence[ToolCall], reason: Reason) -> list[wire.ToolUseBlock]:
    blocks: list[wire.ToolUseBlock] = []
    for call in calls:
        given = input_object(call.arguments.encode())
        if given is not None:
            blocks.append(wire.ToolUseBlock(call.id, call.name, given))
        elif reason not in _CUT_OFF:
            raise BackendError(f"the model called {call.name!r} with arguments that are not a JSON object")
    return blocks


def _reason(reason: Reason, stop_sequence: str | None, *, called: bool) -> str:
    if called and reason == "stop":
        return "tool_use"
    return "stop_sequence" if reason == "stop" and stop_sequence is not None else REASONS[reason]


def _usage(usage: Usage) -> wire.Usage:
    return wire.Usage(
        input_tokens=max(usage.prompt - usage.cached, 0),
        output_tokens=usage.completion,
        cache_read_input_tokens=usage.cached,
        output_tokens_details=wire.OutputDetails(usage.reasoning) if usage.reasoning else UNSET,
    )

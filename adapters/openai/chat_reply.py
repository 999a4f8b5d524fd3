"""The answer of ``/v1/chat/completions``: chunks of a stream, or one object.

    data: {"id":"chatcmpl-…",…,"choices":[{"index":0,"delta":{"content":"Hel"},"logprobs":null,"finish_reason":null}]}

The role comes once, in the first chunk; so do each call's id and name: the SDK appends whatever is repeated.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import UNSET

from adapters.dialect import Stamp
from adapters.framing import encode_line
from adapters.openai import wire
from adapters.openai.reply import FINGERPRINT, REASONS, Stream, chat_logprobs, created, encode, total_usage
from canonical.errors import BackendError
from canonical.events import Completion, Event, Finished, ReasoningDelta, Started, TextDelta, ToolCallDelta
from canonical.messages import ToolCall

_NOT_YET = b',"logprobs":null,"finish_reason":null}'


class ChatStream(Stream):
    """Canonical events -> ``chat.completion.chunk`` frames. ``top``: a token has no more alternatives than that."""

    __slots__ = ("_before", "_calls_end", "_legacy", "_text", "_text_end", "_top")

    def __init__(
        self,
        stamp: Stamp,
        *,
        model: str,
        top: int | None = None,
        usage: bool = False,
        choices: int = 1,
        legacy: bool = False,
    ) -> None:
        super().__init__(
            stamp,
            prefix="chatcmpl-",
            object="chat.completion.chunk",
            model=model,
            usage=usage,
            choices=choices,
            n=choices,
        )
        self._legacy = legacy
        self._top = top
        self._before = [b""] * choices
        self._text = [b""] * choices
        self._text_end = b"}" + _NOT_YET + self._end
        self._calls_end = b"}}]}" + _NOT_YET + self._end

    def feed(self, event: Event, choice: int = 0) -> bytes:
        """The frame of one event."""
        match event:
            case TextDelta():
                if event.logprobs:
                    logprobs = encode_line(chat_logprobs(event.logprobs, self._top))
                    text = self._text[choice] + encode_line(event.text)
                    return text + b'},"logprobs":' + logprobs + b',"finish_reason":null}' + self._end
                return self._text[choice] + encode_line(event.text) + self._text_end
            case ToolCallDelta():
                return self._before[choice] + self._call(event)
            case ReasoningDelta(text):
                if not text:
                    return b""
                return self._before[choice] + b'{"reasoning_content":' + encode_line(text) + self._text_end
            case Started(model):
                self._name = self._name or model
                self._before[choice] = self._head() + b'{"index":%d,"delta":' % choice
                self._text[choice] = self._before[choice] + b'{"content":'
                return self._before[choice] + b'{"role":"assistant","content":""' + self._text_end
            case Finished(reason, usage):
                self._usages[choice] = usage
                told = _reason(REASONS[reason], legacy=self._legacy)
                return self._before[choice] + b'{},"logprobs":null,"finish_reason":"%b"}' % told.encode() + self._end

    def _call(self, event: ToolCallDelta) -> bytes:
        arguments = encode_line(event.arguments)
        if self._legacy:
            _refuse_more(event.index)
            name = b'"name":' + encode_line(event.name) + b"," if event.name else b""
            return b'{"function_call":{' + name + b'"arguments":' + arguments + b"}" + self._text_end
        if not event.id:
            return b'{"tool_calls":[{"index":%d,"function":{"arguments":' % event.index + arguments + self._calls_end
        head = (event.index, encode_line(event.id), encode_line(event.name))
        return (
            b'{"tool_calls":[{"index":%d,"id":%b,"type":"function","function":{"name":%b,"arguments":' % head
            + arguments
            + self._calls_end
        )


def chat_reply(
    completions: Sequence[Completion], stamp: Stamp, *, model: str, top: int | None = None, legacy: bool = False
) -> bytes:
    """The whole answer, a choice per completion; ``top`` as in ``ChatStream``."""
    choices = [chat_choice(index, completion, top=top, legacy=legacy) for index, completion in enumerate(completions)]
    return chat_object(choices, completions, stamp, model=model)


def chat_object(choices: list[wire.Choice], completions: Sequence[Completion], stamp: Stamp, *, model: str) -> bytes:
    """The object around the choices."""
    usage = total_usage([completion.usage for completion in completions], len(completions))
    return encode(
        wire.Reply(
            id=f"chatcmpl-{stamp.id}",
            object="chat.completion",
            created=created(stamp),
            model=model or completions[0].model,
            system_fingerprint=FINGERPRINT,
            choices=choices,
            usage=UNSET if usage is None else usage,
        )
    )


def chat_choice(index: int, completion: Completion, *, top: int | None, legacy: bool) -> wire.Choice:
    """One of the choices; ``top`` as in ``ChatStream``."""
    calls = completion.tool_calls
    message = wire.ReplyMessage(content=None if calls and not completion.text else completion.text)
    if completion.reasoning:
        message.reasoning_content = completion.reasoning
    if calls and legacy:
        _refuse_more(len(calls) - 1)
        message.function_call = _function(calls[0])
    elif calls:
        message.tool_calls = [wire.ReplyCall(id=call.id, function=_function(call)) for call in calls]
    reason = _reason(REASONS[completion.reason], legacy=legacy)
    return wire.Choice(index, message, chat_logprobs(completion.logprobs, top), reason)


def _function(call: ToolCall) -> wire.ReplyFunction:
    return wire.ReplyFunction(call.name, call.arguments)


def _reason(reason: str, *, legacy: bool) -> str:
    return "function_call" if legacy and reason == "tool_calls" else reason


def _refuse_more(index: int) -> None:
    if index:
        raise BackendError("the model called more than one function, and 'function_call' has room for one: use 'tools'")

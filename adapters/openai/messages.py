"""Messages, both ways: the wire's seven spellings of a turn, and canonical parts.

``developer`` is ``system``, ``function`` is ``tool``; ``content`` may be a text, parts, null or absent; ``arguments`` may
be a text, empty, null or an object. A legacy ``function_call`` has no id: it gets one from its place in the list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from adapters.openai import wire
from adapters.openai.fields import missing
from canonical.errors import InvalidRequest, Unsupported
from canonical.media import audio_from_base64, image_from_base64
from canonical.messages import Audio, Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
_PLAIN = frozenset({"system", "user", "assistant", "tool"})
_LINKS = ("data:", "http://", "https://")
_PARTS = frozenset({"text", "image_url", "input_audio", "refusal"})
_NO_ARGUMENTS = "{}"
_BLANKS = " \t\r\n"
"""White space as JSON knows it."""

_encode = msgspec.json.Encoder().encode


def read_messages(messages: Sequence[wire.Message]) -> tuple[Message, ...]:
    """The conversation as canonical messages. A tool's result gets the name of the call it answers.

    Raises:
        InvalidRequest: an unknown role, a part of an unknown or misplaced kind, a result without its call's id.
    """
    if not messages:
        raise InvalidRequest("'messages' must hold at least one message", param="messages", code="invalid_value")
    read: list[Message] = []
    names: dict[str, str] = {}
    latest: dict[str, str] = {}
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        role = _ROLES.get(message.role)
        if role is None:
            raise InvalidRequest(
                f"unknown role {message.role[:40]!r}: {', '.join(_ROLES)} are accepted", param=f"{where}.role"
            )
        if role == "tool":
            read.append(Message(role, (_read_result(message, names, latest, where),)))
            continue
        parts = _read_content(message.content, role, where)
        if role == "assistant":
            calls = _read_calls(message, where, position)
            names.update((call.id, call.name) for call in calls)
            latest.update((call.name, call.id) for call in calls)
            thought = message.reasoning_content or message.reasoning
            if thought and isinstance(thought, str):
                parts.insert(0, Reasoning(thought))
            parts.extend(calls)
        read.append(Message(role, tuple(parts), message.name or ""))
    return tuple(read)


def sound(messages: Sequence[wire.Message]) -> bool:
    """Whether every server of this dialect can read them as they are: chat templates crash on what we repair."""
    for message in messages:
        content, calls = message.content, message.tool_calls
        if message.role not in _PLAIN or content is None or message.function_call is not None:
            return False
        if type(content) is list and not all(map(_sound_part, content)):
            return False
        if calls is not None and not all(map(_sound_call, calls)):
            return False
    return True


def write_messages(messages: Sequence[Message]) -> list[wire.Message]:
    """The conversation as a backend reads it; a message with several tool results becomes several."""
    written: list[wire.Message] = []
    for message in messages:
        if message.role == "tool":
            written.extend(
                wire.Message(role="tool", content=part.told, tool_call_id=part.id)
                for part in message.parts
                if isinstance(part, ToolResult)
            )
            continue
        parts: list[wire.Part] = []
        calls: list[wire.Called] = []
        reasoning: list[str] = []
        for part in message.parts:
            match part:
                case Text(text):
                    parts.append(wire.Part(type="text", text=text))
                case Image(source, detail):
                    url = source if isinstance(source, str) else source.data_url()
                    parts.append(wire.Part(type="image_url", image_url=wire.Link(url=url, detail=detail or None)))
                case Audio(source):
                    sound = wire.Sound(
                        data=source.base64(), format="wav" if source.media_type == "audio/wav" else "mp3"
                    )
                    parts.append(wire.Part(type="input_audio", input_audio=sound))
                case Reasoning(text):
                    reasoning.append(text)
                case ToolCall(id, name, arguments):
                    function = wire.CalledFunction(name=name, arguments=arguments)
                    calls.append(wire.Called(id=id, type="function", function=function))
                case ToolResult():
                    raise InvalidRequest(f"a message of role {message.role} cannot hold a tool result")
        written.append(
            wire.Message(
                role=message.role,
                # Never null beside tool calls: chat templates crash on it.
                content=_write_content(parts),
                reasoning_content="".join(reasoning) or None,
                tool_calls=calls or None,
                name=message.name or None,
            )
        )
    return written


def arguments_text(arguments: Any) -> str:
    """A call's arguments as JSON text, whatever form they came in."""
    if isinstance(arguments, str):
        return _NO_ARGUMENTS if arguments.strip(_BLANKS) in {"", "null"} else arguments
    return _NO_ARGUMENTS if arguments is None else _encode(arguments).decode()


def piece_text(arguments: Any) -> str:
    """A piece of streamed arguments, which has no form of its own."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else _encode(arguments).decode()


def _sound_part(part: wire.Part) -> bool:
    link = part.image_url
    return part.type != "refusal" and (link is None or (not isinstance(link, str) and link.url.startswith(_LINKS)))


def _sound_call(call: wire.Called) -> bool:
    function = call.function
    return bool(call.id) and call.type == "function" and function is not None and _full(function.arguments)


def _full(arguments: Any) -> bool:
    return isinstance(arguments, str) and arguments.strip(_BLANKS) not in {"", "null"}


def _write_content(parts: list[wire.Part]) -> str | list[wire.Part]:
    if not parts:
        return ""
    if len(parts) == 1 and parts[0].text is not None:
        return parts[0].text
    return parts


def _read_content(content: str | list[wire.Part] | None, role: Role, where: str) -> list[Part]:
    if content is None or isinstance(content, str):
        return [Text(content)] if content else []
    read: list[Part] = []
    for number, part in enumerate(content):
        path = f"{where}.content[{number}]"
        if part.type not in _PARTS:
            raise Unsupported(f"content parts of type {part.type[:40]!r} are not supported", param=f"{path}.type")
        if part.type in {"text", "refusal"}:
            text = part.text if part.type == "text" else part.refusal
            if text is None:
                raise missing(f"{path}.{part.type}")
            if text:
                read.append(Text(text))
        elif role != "user":
            raise InvalidRequest(f"only user messages may hold {part.type} parts", param=path)
        elif part.type == "image_url":
            read.append(_read_image(part, f"{path}.image_url"))
        elif part.input_audio is None:
            raise missing(f"{path}.input_audio")
        else:
            read.append(Audio(audio_from_base64(part.input_audio.data, param=f"{path}.input_audio")))
    return read


def _read_image(part: wire.Part, path: str) -> Image:
    link = part.image_url
    if link is None:
        raise missing(path)
    url, detail = (link, None) if isinstance(link, str) else (link.url, link.detail)
    if detail is None or detail == "auto":  # which holds anyway
        detail = ""
    scheme = url[:8].lower()
    if scheme.startswith(("http://", "https://")):
        return Image(url, detail)
    if "://" in url[:20]:
        # file:// above all: no client may make us open a path.
        raise InvalidRequest("an image URL must be data:image/...;base64,... or http(s)", param=path)
    return Image(image_from_base64(url, param=path), detail)


def _read_calls(message: wire.Message, where: str, position: int) -> list[ToolCall]:
    calls: list[ToolCall] = []
    for number, call in enumerate(message.tool_calls or ()):
        path = f"{where}.tool_calls[{number}]"
        if call.function is None:
            raise Unsupported("only tool calls of type function are supported", param=f"{path}.type")
        if not call.function.name:
            raise missing(f"{path}.function.name")
        arguments = arguments_text(call.function.arguments)
        calls.append(ToolCall(call.id or f"call_{position}_{number}", call.function.name, arguments))
    if message.function_call is not None:
        called = message.function_call
        calls.append(ToolCall(f"call_{position}_{len(calls)}", called.name, arguments_text(called.arguments)))
    return calls


def _read_result(message: wire.Message, names: dict[str, str], latest: dict[str, str], where: str) -> ToolResult:
    parts = _read_content(message.content, "tool", where)
    text = "".join(part.text for part in parts if isinstance(part, Text))
    if message.role == "function":
        if not message.name:
            raise missing(f"{where}.name")
        return ToolResult(latest.get(message.name, f"call_{message.name}"), message.name, text)
    if not message.tool_call_id:
        raise missing(f"{where}.tool_call_id")
    return ToolResult(message.tool_call_id, names.get(message.tool_call_id, message.name or ""), text)

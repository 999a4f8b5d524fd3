"""``messages`` of both directions: Ollama's turns <-> ours. A model's own ones, in ``/api/create`` and ``/api/show``, are the same."""

from __future__ import annotations

from msgspec import Raw

from adapters.ollama import wire
from adapters.ollama.fields import wrong_type
from adapters.ollama.values import arguments_object
from canonical.errors import InvalidRequest, Unsupported
from canonical.media import audio_from_base64, image_from_base64
from canonical.messages import Audio, Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult

ROLES: dict[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "developer": "system",  # templates skip the role that they do not know, and with it all instructions
}
_SOUNDS = ("UklGR", "SUQz", "//")
"""How the base64 of WAV and MP3 begins."""


def read_messages(turns: list[wire.Message]) -> list[Message]:
    """Ids that Ollama's clients leave out come from the call's place; answers without one go to the first open call.

    Pictures beside the results of tools follow them as the user's: no other dialect has a place for them there.
    """
    found: list[Message] = []
    calls: list[ToolCall] = []
    seen: list[Part] = []
    for position, turn in enumerate(turns):
        role = ROLES.get((turn.role or "").lower())
        if role is None:
            raise InvalidRequest(
                f'invalid role: "{(turn.role or "")[:80]}" (must be "system", "user", "assistant", or "tool")',
                param="messages.role",
            )
        parts: list[Part] = []
        if turn.thinking:
            parts.append(Reasoning(turn.thinking))
        if role == "tool":
            parts.append(_read_result(turn, position, calls))
            seen.extend(read_images(turn.images))
        else:
            if seen and role != "user":
                found.append(Message("user", tuple(seen)))
            elif seen:
                parts.extend(seen)
            seen = []
            parts.extend(read_images(turn.images))
        if role != "tool" and (turn.content or not (parts or turn.tool_calls)):
            parts.append(Text(turn.content or ""))
        if turn.tool_calls:
            calls = [_read_call(call, position, place) for place, call in enumerate(turn.tool_calls)]
            parts.extend(calls)
        found.append(Message(role, tuple(parts)))
    if seen:
        found.append(Message("user", tuple(seen)))
    return found


def _read_call(call: wire.ToolCall, position: int, place: int) -> ToolCall:
    function = call.function
    if function is None or not function.name:
        raise InvalidRequest("a tool call needs a function with a name", param="messages.tool_calls")
    text = bytes(function.arguments).strip()
    if text == b"null":
        text = b""
    arguments = arguments_object(text)
    if arguments is None:
        got = {b'"': "string", b"[": "array", b"t": "bool", b"f": "bool"}.get(text[:1], "number")
        field = "messages.tool_calls.function.arguments"
        raise wrong_type(got, "ChatRequest", field, "api.ToolCallFunctionArguments")
    return ToolCall(call.id or f"call_{position}_{place}", function.name, arguments.decode())


def _read_result(turn: wire.Message, position: int, open_calls: list[ToolCall]) -> ToolResult:
    text = turn.content or ""
    by_id = [call for call in open_calls if call.id == turn.tool_call_id]
    by_name = [call for call in open_calls if call.name == turn.tool_name]
    if turn.tool_call_id:
        matches = by_id
    elif turn.tool_name:
        matches = by_name
    else:
        matches = open_calls
    if not matches:
        return ToolResult(turn.tool_call_id or f"call_{position}", turn.tool_name or "", text)
    call = matches[0]
    open_calls.remove(call)
    return ToolResult(call.id, turn.tool_name or call.name, text)


def read_images(images: list[str] | None) -> tuple[Image | Audio, ...]:
    """Bare base64, or with the head of a ``data:`` URL. Raises InvalidRequest."""
    return tuple(_medium(text) for text in images or ())


def _medium(text: str) -> Image | Audio:
    """A picture; or a sound, which has no other place here."""
    try:
        return Image(image_from_base64(text, param="images"))
    except InvalidRequest:
        if not text.startswith(_SOUNDS):
            raise
        return Audio(audio_from_base64(text, param="images"))


def write_messages(messages: tuple[Message, ...]) -> list[wire.Message]:
    """Each result of a tool is a turn of its own. Raises Unsupported, InvalidRequest."""
    found: list[wire.Message] = []
    names: dict[str, str] = {}
    for message in messages:
        images: list[str] = []
        thinking: list[str] = []
        calls: list[wire.ToolCall] = []
        results: list[ToolResult] = []
        for part in message.parts:
            match part:
                case Image(source) if isinstance(source, str):
                    raise Unsupported("an Ollama backend takes no links to images", param="messages")
                case Image(source) | Audio(source) if not isinstance(source, str):
                    images.append(source.base64())
                case Reasoning(text):
                    thinking.append(text)
                case ToolCall(id, name):
                    names[id] = name
                    calls.append(_write_call(part, len(calls)))
                case ToolResult():
                    results.append(part)
        found.extend(
            wire.Message(
                role="tool",
                content=result.told,
                tool_name=result.name or names.get(result.id) or None,
                tool_call_id=result.id or None,
            )
            for result in results
        )
        if results:
            found[-1].images = images or None
            images = []
        if not results or message.text:
            found.append(
                wire.Message(
                    role="user" if results else message.role,
                    content=message.text,
                    thinking="".join(thinking) or None,
                    images=images or None,
                    tool_calls=calls or None,
                )
            )
    return found


def _write_call(call: ToolCall, index: int) -> wire.ToolCall:
    arguments = arguments_object(call.arguments.encode())
    if arguments is None:
        raise InvalidRequest(f"the arguments of tool call {call.name!r} are not a JSON object", param="messages")
    return wire.ToolCall(
        id=call.id, function=wire.CalledFunction(index=index, name=call.name, arguments=Raw(arguments))
    )

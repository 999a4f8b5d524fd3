"""Items, both ways: what a client sends as ``input`` becomes messages, and what is kept of it gets types and ids.

    {"type":"function_call","call_id":"call_1","name":"get_weather","arguments":"{}"}

Thoughts, texts and calls of the model that follow each other are one message: chat templates want a call's result right
behind the message that makes the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from adapters.openai.fields import invalid, missing
from adapters.openai.messages import arguments_text
from adapters.reading import Reading
from adapters.responses import wire
from adapters.responses.seal import text_arguments, unseal
from canonical.errors import InvalidRequest, NotFound, Unsupported
from canonical.media import audio_from_base64, image_from_base64
from canonical.messages import Audio, Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

_ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_TEXTS = frozenset({"input_text", "output_text", "text", "summary_text", "reasoning_text"})
_CALLS = frozenset({"function_call", "custom_tool_call"})
_OUTPUTS = frozenset({"function_call_output", "custom_tool_call_output"})
_PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}

_kind = msgspec.json.Decoder(wire.Kind)
_message = Reading(wire.Message, exact=True)
_call = Reading(wire.Call, exact=True)
_output = Reading(wire.CallOutput, exact=True)
_thoughts = Reading(wire.Thoughts, exact=True)
_object = msgspec.json.Decoder(dict[str, Any])
_encode = msgspec.json.Encoder().encode


def kept_items(given: str | Sequence[Raw] | None, id: str) -> list[Raw]:
    """``input`` as it is kept: a list of items, each with its type and an id; made ones bear the response's ``id``."""
    if given is None or isinstance(given, str):
        given = [Raw(_encode({"role": "user", "content": given}))] if given else []
    kept: list[Raw] = []
    for number, raw in enumerate(given):
        item = _object.decode(raw)
        kind = item.get("type") or "message"
        content = item.get("content")
        if kind == "message" and isinstance(content, str):
            part = "output_text" if item.get("role") == "assistant" else "input_text"
            item["content"] = [{"type": part, "text": content}]
        own = item.get("id") or f"{_PREFIXES.get(kind, 'item')}_{id}_i{number}"
        kept.append(Raw(_encode({**item, "type": kind, "id": own})))
    return kept


def item_ids(items: Iterable[Raw]) -> list[str]:
    """The id of each item; empty where it has none."""
    return [_kind.decode(item).id or "" for item in items]


def referred(items: Iterable[Raw]) -> list[str]:
    """The ids of items that stand elsewhere, and here only by reference."""
    found = (_read(_kind.decode, item, f"input[{number}]") for number, item in enumerate(items))
    return [kind.id or "" for kind in found if kind.type == "item_reference"]


def owner_of(item: str) -> str:
    """The id of the response that an item's id tells of; empty where it tells of none."""
    middle = item.split("_")[1:2]
    return f"resp_{middle[0]}" if middle and middle[0] else ""


def resolved(items: Sequence[Raw], found: Mapping[str, Raw]) -> list[Raw]:
    """``items`` with what they refer to in the place of references.

    Raises:
        NotFound: a reference leads nowhere.
    """
    whole: list[Raw] = []
    for item in items:
        kind = _kind.decode(item)
        if kind.type != "item_reference":
            whole.append(item)
        elif kind.id is not None and kind.id in found:
            whole.append(found[kind.id])
        else:
            raise NotFound(
                f"item with id {str(kind.id)[:80]!r} not found; items are kept only of responses with 'store' true",
                param="input",
            )
    return whole


class Conversation:
    """Items, one after another, on their way to messages.

    ``lost`` gathers the paths of what has no canonical form; ``plain`` says that the items had no unknown fields.
    """

    def __init__(self) -> None:
        self.lost: list[str] = []
        self.plain = True
        self._messages: list[Message] = []
        self._turn: list[Part] = []
        """What the model has said, thought and called since anybody else spoke."""
        self._thoughts: list[str] = []
        """The paths of its thoughts."""
        self._names: dict[str, str] = {}
        self._seen: list[Part] = []
        """Pictures that tools have given: they follow the results as the user's."""

    def say(self, role: Role, text: str) -> None:
        """Text of somebody."""
        self._flush()
        self._messages.append(Message(role, (Text(text),)))

    def read(self, items: Sequence[Raw], where: str = "input") -> None:
        """Take ``items``, in their order. ``where`` is what the client calls their list.

        Raises:
            InvalidRequest: an item breaks the format, or holds what no model can be told of.
        """
        for number, raw in enumerate(items):
            place = f"{where}[{number}]"
            kind = _read(_kind.decode, raw, place)
            match kind.type or "message":
                case "message":
                    self._message(self._known(_message, raw, place), place)
                case name if name in _CALLS:
                    self._call(self._known(_call, raw, place), place, custom=name == "custom_tool_call")
                case name if name in _OUTPUTS:
                    self._output(self._known(_output, raw, place), where, place)
                case "reasoning":
                    self._reasoning(self._known(_thoughts, raw, place), where)
                case name:
                    self.lost.append(f"{where}[type={name[:40]}]")
                    self.plain = False

    def messages(self) -> tuple[Message, ...]:
        """The whole conversation."""
        self._flush()
        if self._seen:
            self._messages.append(Message("user", self._shown()))
        return tuple(self._messages)

    def _known(self, reading: Reading[S], raw: Raw, place: str) -> S:
        item, plain = _read(reading.decode, raw, place)
        self.plain = self.plain and plain
        return item

    def _message(self, message: wire.Message, place: str) -> None:
        role = _ROLES.get(message.role)
        if role is None:
            raise InvalidRequest(
                f"unknown role {message.role[:40]!r}: {', '.join(_ROLES)} are accepted", param=f"{place}.role"
            )
        content = message.content
        if content is None or isinstance(content, str):
            parts: list[Part] = [Text(content)] if content else []
        else:
            parts = [part for part in self._parts(content, f"{place}.content", role) if part != Text("")]
        if role != "assistant":
            self._flush()
            seen = self._shown() if role == "user" else ()
            self._messages.append(Message(role, (*seen, *parts)))
            return
        thoughts: list[Part] = []
        if any(isinstance(part, Text) for part in self._turn) and not self._called:
            # Two texts of the model are two turns; thoughts belong to what follows them.
            while self._turn and isinstance(self._turn[-1], Reasoning):
                thoughts.insert(0, self._turn.pop())
            self._flush()
        self._turn.extend((*thoughts, *parts))

    @property
    def _called(self) -> bool:
        return any(isinstance(part, ToolCall) for part in self._turn)

    def _call(self, call: wire.Call, place: str, *, custom: bool) -> None:
        id = call.call_id or call.id
        if not id:
            raise missing(f"{place}.call_id")
        if not call.name:
            raise missing(f"{place}.name")
        self._names[id] = call.name
        arguments = text_arguments(call.input or "") if custom else arguments_text(call.arguments)
        self._turn.append(ToolCall(id, call.name, arguments))

    def _output(self, output: wire.CallOutput, where: str, place: str) -> None:
        self._flush()
        told = output.output
        if not isinstance(told, str):
            texts: list[str] = []
            for number, part in enumerate(told or ()):
                if part.type in _TEXTS and part.text is not None:
                    texts.append(part.text)
                elif part.type == "input_image":
                    self._seen.append(_image(part, f"{place}.output[{number}]"))
                else:
                    self.lost.append(f"{where}[].output[type={part.type[:40]}]")
            told = "".join(texts)
        result = ToolResult(output.call_id, self._names.get(output.call_id, ""), told)
        self._messages.append(Message("tool", (result,)))

    def _reasoning(self, thoughts: wire.Thoughts, where: str) -> None:
        sealed = unseal(thoughts.encrypted_content) if thoughts.encrypted_content else None
        if sealed is None:
            # What another server has encrypted only it can read, and a thought is no reason to refuse a turn.
            shown = thoughts.content or thoughts.summary or ()
            sealed = Reasoning("".join(part.text or "" for part in shown))
            if thoughts.encrypted_content and not sealed.text:
                self.lost.append(f"{where}[].encrypted_content")
        if sealed.text or sealed.signature:
            self._turn.append(sealed)
            self._thoughts.append(f"{where}[type=reasoning]")

    def _parts(self, content: Sequence[wire.Part], where: str, role: Role) -> list[Part]:
        parts: list[Part] = []
        for number, part in enumerate(content):
            place = f"{where}[{number}]"
            if part.type in _TEXTS or part.type == "refusal":
                text = part.refusal if part.type == "refusal" else part.text
                if text is None:
                    raise missing(f"{place}.{'refusal' if part.type == 'refusal' else 'text'}")
                parts.append(Text(text))
            elif part.type not in {"input_image", "input_audio"}:
                raise Unsupported(f"content parts of type {part.type[:40]!r} are not supported", param=f"{place}.type")
            elif role != "user":
                raise InvalidRequest(f"only user messages may hold {part.type} parts", param=place)
            elif part.type == "input_image":
                parts.append(_image(part, place))
            elif part.input_audio is None:
                raise missing(f"{place}.input_audio")
            else:
                parts.append(Audio(audio_from_base64(part.input_audio.data, param=f"{place}.input_audio")))
        return parts

    def _shown(self) -> tuple[Part, ...]:
        seen, self._seen = tuple(self._seen), []
        return seen

    def _flush(self) -> None:
        if any(not isinstance(part, Reasoning) for part in self._turn):
            if self._seen:
                self._messages.append(Message("user", self._shown()))
            self._messages.append(Message("assistant", tuple(self._turn)))
        else:
            # Of an answer that was cut off in its thoughts: an empty turn would only confuse a template.
            self.lost.extend(self._thoughts)
        self._turn = []
        self._thoughts = []


def _image(part: wire.Part, place: str) -> Image:
    url = part.image_url
    if not url:
        raise Unsupported("an image must be given by its 'image_url': files are not kept here", param=place)
    detail = part.detail if part.detail in {"low", "high"} else ""
    if url[:8].lower().startswith(("http://", "https://")):
        return Image(url, detail)
    if "://" in url[:20]:
        # file:// above all: no client may make us open a path.
        raise InvalidRequest("an image URL must be data:image/...;base64,... or http(s)", param=f"{place}.image_url")
    return Image(image_from_base64(url, param=f"{place}.image_url"), detail)


def _read(decode: Callable[[Raw], T], raw: Raw, place: str) -> T:
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        text = str(error)
        raise invalid(text.replace("`$", f"`$.{place}", 1) if "`$" in text else f"{text} - at `$.{place}`") from error

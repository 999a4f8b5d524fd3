"""Conversations, both ways: turns of content blocks, and canonical messages.

A result of a tool is a block of a user's turn here and a message of its own there; consecutive turns of one role are one.
Blocks of the vendor's own servers (``server_tool_use``, ``web_search_tool_result``, …) mean nothing elsewhere: they are
left out, and their neighbours stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw

from adapters.anthropic import wire
from canonical.errors import InvalidRequest, Unsupported
from canonical.media import image_from_base64
from canonical.messages import Audio, Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult

REDACTED = "redacted_thinking:"
"""Before the data of a thought that only its vendor can read: canonically a signature without a text."""
UNSIGNED = "dW5zaWduZWQ="
"""The signature of thoughts that nobody signed: clients drop a block whose own is empty. Reads as none."""
BILLING = "x-anthropic-billing-header:"
"""Claude Code's first system block may be this; it changes with every request, and so undoes every prompt cache."""

_ROLES: dict[str, Role] = {"user": "user", "assistant": "assistant", "system": "system", "developer": "system"}
_NO_INPUT = Raw(b"{}")

OPENING = "…"
"""The user's first word where a conversation has none: here it must begin with the user."""
_ODD = re.compile(r"[^a-zA-Z0-9_-]")
"""What no id may have before the vendor's servers; others write ``functions.name:0``."""

_blocks = msgspec.json.Decoder(list[wire.Block])
_source = msgspec.json.Decoder(wire.Source)
_object = msgspec.json.Decoder(dict[str, Raw])


def read_turns(
    system: str | list[wire.Block] | None, turns: Sequence[wire.Message], lost: list[str]
) -> tuple[Message, ...]:
    """The conversation as canonical messages. ``lost`` gets the paths of blocks that are left out.

    Raises:
        InvalidRequest: no turn, an unknown role, a block without what its kind needs.
        Unsupported: PDF documents, and files that lie at the vendor's.
    """
    if not turns:
        raise InvalidRequest("messages: at least one message is required", param="messages")
    read: list[Message] = []
    if isinstance(system, str):
        told = [system]
    else:
        told = [block.text or "" for block in system or ()]
        lost.extend(f"system[].{block.type[:64]}" for block in system or () if block.type != "text")
    text = "\n\n".join(text for text in told if text and not text.startswith(BILLING))
    if text:
        read.append(Message("system", (Text(text),)))
    names: dict[str, str] = {}
    for position, turn in enumerate(turns):
        where = f"messages.{position}"
        role = _ROLES.get(turn.role)
        if role is None:
            raise InvalidRequest(
                f"{where}.role: unknown role {turn.role[:40]!r}; 'user' and 'assistant' are accepted", param="messages"
            )
        results, parts = _read_content(turn.content, role, where, names, lost)
        read.extend(Message("tool", (result,)) for result in results)
        if not parts:
            continue
        if role != "system" and read and read[-1].role == role:
            parts = [*read.pop().parts, *parts]
        read.append(Message(role, tuple(parts)))
    _trim_beginning(read)
    if all(message.role == "system" for message in read):
        raise InvalidRequest("messages: at least one message must not be empty", param="messages")
    return tuple(read)


def write_turns(messages: Sequence[Message], *, unsigned: bool) -> tuple[str, list[dict[str, Any]]]:
    """The system prompt (empty: none) and the turns. ``unsigned``: whether thoughts without a signature go along.

    Raises:
        Unsupported: a sound.
        InvalidRequest: a tool call whose arguments are not a JSON object.
    """
    system: list[str] = []
    turns: list[tuple[str, list[dict[str, Any]]]] = []
    for message in messages:
        if message.role == "system" and not turns:
            system.append(message.text)
            continue
        # A system message amid the conversation has no place of its own.
        role = "assistant" if message.role == "assistant" else "user"
        blocks = list(_write_parts(message.parts, unsigned=unsigned))
        if not blocks:
            continue
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        else:
            turns.append((role, blocks))
    if turns and turns[-1][0] == "assistant" and turns[-1][1][-1]["type"] == "text":
        # A beginning of the answer, which may not end in white space.
        turns[-1][1][-1]["text"] = turns[-1][1][-1]["text"].rstrip()
    if not turns or turns[0][0] == "assistant":
        turns.insert(0, ("user", [{"type": "text", "text": OPENING}]))
    written = []
    for role, blocks in turns:
        # Results must stand first; sorting keeps the order otherwise.
        blocks.sort(key=lambda block: block["type"] != "tool_result" and role == "user")
        written.append({"role": role, "content": blocks})
    return "\n\n".join(text for text in system if text), written


def without_unsigned(messages: Raw) -> Raw:
    """Turns as they came, but without the thoughts that nobody signed, and without turns of nothing else."""
    kept = []
    for turn in msgspec.json.decode(messages):
        content = turn.get("content")
        if isinstance(content, list):
            content = [
                block
                for block in content
                if block.get("type") != "thinking" or (block.get("signature") or UNSIGNED) != UNSIGNED
            ]
            if not content and turn["content"]:
                continue
        kept.append({**turn, "content": content})
    return Raw(msgspec.json.encode(kept))


def input_object(arguments: bytes) -> Raw | None:
    """The compact JSON of a call's arguments if they are one object; None if not. Nothing at all is ``{}``."""
    if not arguments or arguments.isspace():
        return _NO_INPUT
    try:
        _object.decode(arguments)
        return Raw(msgspec.json.format(arguments, indent=-1))
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None


def _trim_beginning(read: list[Message]) -> None:
    """A last turn of the assistant begins the answer. Models go astray after a blank, and the vendor refuses it."""
    if not read or read[-1].role != "assistant" or not isinstance(end := read[-1].parts[-1], Text):
        return
    text = end.text.rstrip()
    *before, _ = read.pop().parts
    parts = (*before, Text(text)) if text else tuple(before)
    if parts:
        read.append(Message("assistant", parts))


def _read_content(
    content: str | list[wire.Block], role: Role, where: str, names: dict[str, str], lost: list[str]
) -> tuple[list[ToolResult], list[Part]]:
    """Results of tools, and everything else; ``names`` learns the calls of an assistant's turn."""
    if isinstance(content, str):
        return [], [Text(content)] if content else []
    results: list[ToolResult] = []
    parts: list[Part] = []
    for number, block in enumerate(content):
        path = f"{where}.content.{number}"
        match block.type:
            case "text":
                if block.text is None:
                    raise _missing(f"{path}.text.text")
                if block.text:
                    parts.append(Text(block.text))
            case "tool_result" if role == "user":
                result, images = _read_result(block, path, names, lost)
                results.append(result)
                parts.extend(images)
            case "image" | "document" | "search_result" if role == "user":
                parts.extend(_read_media(block, path, lost))
            case "tool_use" if role == "assistant":
                call = _read_call(block, path)
                names[call.id] = call.name
                parts.append(call)
            case "thinking" if role == "assistant":
                signature = None if block.signature == UNSIGNED else block.signature or None
                if block.thinking or signature:
                    parts.append(Reasoning(block.thinking or "", signature))
            case "redacted_thinking" if role == "assistant":
                parts.append(Reasoning("", REDACTED + (block.data or "")))
            case "tool_result" | "image" | "document" | "search_result" | "tool_use" | "thinking" | "redacted_thinking":
                raise InvalidRequest(f"{path}: a turn of role {role!r} cannot hold a {block.type} block", param=path)
            case kind:
                lost.append(f"messages[].content[].{kind[:64]}")
    return results, parts


def _read_call(block: wire.Block, path: str) -> ToolCall:
    if not block.id:
        raise _missing(f"{path}.tool_use.id")
    if not block.name:
        raise _missing(f"{path}.tool_use.name")
    arguments = input_object(bytes(block.input))
    if arguments is None:
        raise InvalidRequest(f"{path}.tool_use.input: Input should be an object", param=path)
    return ToolCall(block.id, block.name, bytes(arguments).decode())


def _read_result(
    block: wire.Block, path: str, names: dict[str, str], lost: list[str]
) -> tuple[ToolResult, list[Image]]:
    if not block.tool_use_id:
        raise _missing(f"{path}.tool_result.tool_use_id")
    images: list[Image] = []
    texts: list[str] = []
    raw = bytes(block.content)
    if raw[:1] == b'"':
        texts.append(msgspec.json.decode(raw, type=str))
    elif raw not in {b"", b"null"}:
        for number, inner in enumerate(_inner(raw, f"{path}.tool_result.content")):
            for part in _read_media(inner, f"{path}.tool_result.content.{number}", lost):
                if isinstance(part, Image):
                    images.append(part)
                else:
                    texts.append(part.text)
    name = names.get(block.tool_use_id, "")
    return ToolResult(block.tool_use_id, name, "\n".join(texts), bool(block.is_error)), images


def _read_media(block: wire.Block, path: str, lost: list[str]) -> list[Text | Image]:
    """What an image, a document, a search result or a text comes to; nothing for other kinds."""
    match block.type:
        case "text":
            return [Text(block.text)] if block.text else []
        case "search_result":
            lost.append("messages[].content[].source")
            texts = [inner.text or "" for inner in _inner(bytes(block.content), path)] if bytes(block.content) else []
            return [Text("\n".join(filter(None, [block.title, *texts])))]
        case "image":
            return [_read_image(_read_source(block, path), path)]
        case "document":
            return [Text("\n".join(filter(None, [block.title, _document(_read_source(block, path), path)])))]
        case kind:
            lost.append(f"messages[].content[].content[].{kind[:64]}")
            return []


def _read_image(source: wire.Source, path: str) -> Image:
    match source.type:
        case "base64" if source.data is not None:
            return Image(image_from_base64(source.data, param=f"{path}.source.data"))
        case "url" if source.url is not None and source.url[:8].lower().startswith(("http://", "https://")):
            return Image(source.url)
        case "base64" | "url":
            raise InvalidRequest(f"{path}.source: an image needs base64 data, or an http(s) URL", param=path)
        case _:
            raise Unsupported(f"{path}.source: images of type {source.type[:40]!r} are not supported", param=path)


def _document(source: wire.Source, path: str) -> str:
    match source.type:
        case "text":
            return source.data or ""
        case "content":
            content = source.content or ""
            return content if isinstance(content, str) else "\n".join(block.text for block in content if block.text)
        case _:
            kind = source.media_type or source.type
            raise Unsupported(
                f"{path}.source: documents of type {kind[:40]!r} are not supported, only text", param=path
            )


def _read_source(block: wire.Block, path: str) -> wire.Source:
    if not bytes(block.source):
        raise _missing(f"{path}.{block.type}.source")
    try:
        return _source.decode(block.source)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{path}.source: {error}", param=path) from error


def _inner(raw: bytes, path: str) -> list[wire.Block]:
    try:
        return _blocks.decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"{path}: {error}", param=path) from error


def _write_parts(parts: Iterable[Part], *, unsigned: bool) -> Iterable[dict[str, Any]]:
    for part in parts:
        match part:
            case Text(text):
                if text:
                    yield {"type": "text", "text": text}
            case Image(source) if isinstance(source, str):
                yield {"type": "image", "source": {"type": "url", "url": source}}
            case Image(source) if not isinstance(source, str):
                data = {"type": "base64", "media_type": source.media_type, "data": source.base64()}
                yield {"type": "image", "source": data}
            case Reasoning(text, signature):
                if signature is not None and signature.startswith(REDACTED):
                    yield {"type": "redacted_thinking", "data": signature.removeprefix(REDACTED)}
                elif signature is not None:
                    yield {"type": "thinking", "thinking": text, "signature": signature}
                elif unsigned:
                    yield {"type": "thinking", "thinking": text, "signature": ""}
            case ToolCall(id, name, arguments):
                given = input_object(arguments.encode())
                if given is None:
                    raise InvalidRequest(f"the arguments of tool call {name!r} are not a JSON object", param="messages")
                yield {"type": "tool_use", "id": _plain_id(id), "name": name, "input": given}
            case ToolResult(id, _, text, error):
                result: dict[str, Any] = {"type": "tool_result", "tool_use_id": _plain_id(id), "content": text}
                yield {**result, "is_error": True} if error else result
            case Audio():
                raise Unsupported("an Anthropic backend takes no sounds", param="messages")


def _plain_id(id: str) -> str:
    return _ODD.sub(lambda found: f"-{ord(found[0]):x}-", id)


def _missing(path: str) -> InvalidRequest:
    return InvalidRequest(f"{path}: Field required", param=path, code="missing_required_parameter")

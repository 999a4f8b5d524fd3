"""Tools for a model that has none: told in its prompt, and what was called and answered before told as text.

The form is that of Hermes and Qwen, which more models have seen in training than any other:

    <tools> one JSON object a tool </tools>
    <tool_call>{"name": "f", "arguments": {…}}</tool_call>
    <tool_response>what it answered</tool_response>
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from msgspec import Struct, structs

from canonical.call_heads import CLOSE, OPEN
from canonical.errors import InvalidRequest, Unsupported
from canonical.forced import force
from canonical.messages import Message, Part, Text, ToolCall, ToolResult
from canonical.prompted_calls import RESULT
from canonical.requests import Generate, Tool
from canonical.roles import joined, told_first

STOPS = 4
"""Stop strings that every backend takes; OpenAI refuses more."""

_EXAMPLE = f'{OPEN}\n{{"name": NAME, "arguments": ARGS}}\n{CLOSE}'
_ABOUT = (
    "You can call functions. Each line between the <tools> tags describes one, its parameters as a JSON Schema:\n"
    "<tools>\n{tools}\n</tools>\n"
    "To use a tool, reply " + _EXAMPLE.replace("{", "{{").replace("}", "}}") + "\n"
    "with a function's name and a JSON object of its arguments, {often}, and nothing after the last one. "
    "What a function answers comes to you between <tool_response> tags. {when}"
)
_FORM = (
    "You can call functions. Each line between the <tools> tags describes one, its parameters as a JSON Schema:\n"
    "<tools>\n{tools}\n</tools>\n"
    "Call one of them. To use a tool, reply " + _EXAMPLE.replace("{", "{{").replace("}", "}}") + "\n"
    "with its name and a JSON object of its arguments."
)
"""For an answer that is held to the form of a call. The wordings are those that the demo model understands, too."""


class Prompted(Struct, frozen=True):
    """A request whose tools are told in its prompt, and what is needed to read its answer."""

    request: Generate
    names: frozenset[str] = frozenset()
    """Tools that may be called; none: the answer is text in any case."""
    held: bool = False
    """The answer is held to the form of a call, which it must be."""
    stops: tuple[str, ...] = ()
    """Stop strings that were added."""


def prompted(request: Generate, *, holds: bool, stops: bool) -> Prompted:
    """The request for a model that knows nothing of tools.

    Args:
        request: a conversation.
        holds: whether the backend can hold an answer to a schema.
        stops: whether it ends an answer at stop strings.

    Raises:
        InvalidRequest: a tool is named that is not there.
        Unsupported: a form of the answer is asked for beside tools, which can only be one of both.
    """
    names = callable_names(request)
    plain = structs.replace(
        request,
        messages=_as_text(request.messages),
        tools=(),
        tool_choice=None,
        parallel_tool_calls=None,
        origin=structs.replace(request.origin, verbatim=False),
    )
    if not names:
        return Prompted(plain)
    if request.output is not None:
        raise Unsupported(
            "this model's tools are told to it in its prompt, and then no form can hold for its answer",
            param="response_format",
        )
    forced = force(request) if holds else None
    if forced is not None:
        return Prompted(told(structs.replace(plain, output=forced.output), request), names, held=True)
    added: tuple[str, ...] = ()
    given = request.sampling.stop
    if stops and len(given) < STOPS:
        added = (RESULT,)
    sampling = structs.replace(request.sampling, stop=(*given, *added))
    return Prompted(structs.replace(told(plain, request), sampling=sampling), names, stops=added)


def shown(request: Generate, forced: Generate) -> Generate:
    """A forced request for a model that knows of tools, but whose backend cannot hold a form beside them."""
    plain = structs.replace(forced, tools=(), tool_choice=None, origin=structs.replace(request.origin, verbatim=False))
    return told(plain, request)


def told(plain: Generate, request: Generate) -> Generate:
    """``plain`` with the tools of ``request`` in its system prompt."""
    choice = request.tool_choice
    tools = [tool for tool in request.tools if choice is None or choice.mode != "named" or tool.name == choice.name]
    lines = "\n".join(_line(tool) for tool in tools)
    if plain.output is None:
        must = choice is not None and choice.mode in {"required", "named"}
        text = _ABOUT.format(
            tools=lines,
            often="once at most" if request.parallel_tool_calls is False else "once for each call",
            when="You must call a function now." if must else "Where no function helps, just answer.",
        )
    else:
        text = _FORM.format(tools=lines)
    return structs.replace(plain, messages=told_first(plain.messages, text))


def callable_names(request: Generate) -> frozenset[str]:
    """The tools that may be called. Raises InvalidRequest when one is wanted that is not there."""
    choice = request.tool_choice
    mode = "auto" if choice is None else choice.mode
    if mode == "none":
        return frozenset()
    names = frozenset(tool.name for tool in request.tools)
    if choice is not None and mode == "named":
        if choice.name not in names:
            raise InvalidRequest(f"there is no tool named {choice.name[:64]!r}", param="tool_choice")
        return frozenset({choice.name})
    if mode == "required" and not names:
        raise InvalidRequest("a tool must be called, and there is none", param="tool_choice")
    return names


def _line(tool: Tool) -> str:
    """One tool as the chat templates of the models that know this form write it."""
    function: dict[str, Any] = {"name": tool.name}
    if tool.description:
        function["description"] = tool.description
    nothing = {"type": "object", "properties": {}}
    function["parameters"] = nothing if tool.parameters is None else json.loads(bytes(tool.parameters))
    return json.dumps({"type": "function", "function": function}, ensure_ascii=False)


def _as_text(messages: Sequence[Message]) -> tuple[Message, ...]:
    """Calls and their results as text. Results are the user's turn, and one with what the user says next."""
    found: list[Message] = []
    names: dict[str, str] = {}
    after_result = False
    for message in messages:
        results = any(isinstance(part, ToolResult) for part in message.parts)
        if results or any(isinstance(part, ToolCall) for part in message.parts):
            message = _plain(message, names)
        if message.role == "user" and found and found[-1].role == "user" and (results or after_result):
            found[-1] = joined(found[-1], message)
        else:
            found.append(message)
        after_result = results or (after_result and message.role == "user")
    return tuple(found)


def _plain(message: Message, names: dict[str, str]) -> Message:
    """One message, its calls and results told as text. ``names`` are those of the turn's calls by their ids."""
    parts: list[Part] = []
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    if calls:
        names.clear()
        names.update((call.id, call.name) for call in calls)
    for part in message.parts:
        if isinstance(part, ToolCall):
            text = f'{OPEN}\n{{"name": {json.dumps(part.name)}, "arguments": {part.arguments or "{}"}}}\n{CLOSE}'
            parts.append(Text(f"\n{text}" if parts and isinstance(parts[-1], Text) else text))
        elif isinstance(part, ToolResult):
            # Of several, the model must know which is which.
            name = (part.name or names.get(part.id, "")) if len(names) > 1 else ""
            said = f" name={json.dumps(name)}" if name else ""
            text = f"<tool_response{said}>\n{part.told}\n</tool_response>"
            parts.append(Text(f"\n{text}" if parts and isinstance(parts[-1], Text) else text))
        elif isinstance(part, Text) and any(isinstance(other, ToolResult) for other in message.parts):
            parts.append(Text(f"\n\n{part.text}" if parts else part.text))
        else:
            parts.append(part)
    role = "user" if message.role == "tool" else message.role
    return Message(role, _merged(parts), message.name)


def _merged(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Neighbouring texts as one: some servers take a message of one text better than a list of parts."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Text) and found and isinstance(found[-1], Text):
            found[-1] = Text(found[-1].text + part.text)
        else:
            found.append(part)
    return tuple(found)

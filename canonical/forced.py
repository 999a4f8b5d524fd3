"""A tool call that must be made, where a backend has no word for it but can hold an answer to a schema.

The default engine knows no named tool, and with ``required`` it lets text come first; Ollama has no word at all. So the
tools are shown to the model, the answer is held to the JSON of a call, and what comes is told as that call:

    {"name": "get_weather", "arguments": {"city": "Paris"}}
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Raw, structs

from canonical.errors import InvalidRequest, Unsupported
from canonical.events import Event, Finished, TextDelta, ToolCallDelta
from canonical.limits import check_schema
from canonical.requests import Generate, Output, Tool

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*')
_TAIL = re.compile(r"\s*\}?\s*\Z")
_SHARED = ("$defs", "definitions")
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
"""What a tool without ``parameters`` is called with, in every dialect."""


def force(request: Generate) -> Generate | None:
    """The request with a schema that only a call fits; None where the model may choose.

    Raises:
        Unsupported: a schema of the answer is asked for beside it, or two tools define one name differently.
        InvalidRequest: there is no such tool, or the tools' schemas together are past the limits.
    """
    choice = request.tool_choice
    if choice is None or choice.mode not in {"required", "named"} or request.prompt is not None:
        return None
    if request.output is not None:
        raise Unsupported("only one of a schema and a forced tool can hold for an answer", param="tool_choice")
    tools = [tool for tool in request.tools if choice.mode == "required" or tool.name == choice.name]
    if not tools:
        raise InvalidRequest(f"there is no tool named {choice.name[:64]!r}", param="tool_choice")
    shared: dict[str, dict[str, Any]] = {}
    calls = [call_schema(tool, shared) for tool in tools]
    schema: dict[str, Any] = {**(calls[0] if len(calls) == 1 else {"anyOf": calls}), **shared}
    text = Raw(msgspec.json.encode(schema))
    check_schema(text, param="tools")
    return structs.replace(request, output=Output("schema", schema=text))


def move_shared(own: dict[str, Any], shared: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """A schema without its definitions, which move to ``shared``: that stands at the root, where references look.

    Raises:
        Unsupported: a name is taken by another definition.
    """
    for word in _SHARED:
        for name, meaning in (own.pop(word, None) or {}).items():
            if shared.setdefault(word, {}).setdefault(name, meaning) != meaning:
                raise Unsupported(f"two tools define {name[:64]!r} differently", param="tools")
    return own


def call_schema(tool: Tool, shared: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The schema of one tool's call; its definitions move as in ``move_shared``."""
    arguments = NO_ARGUMENTS
    if tool.parameters is not None:
        arguments = {"type": "object", **move_shared(json.loads(bytes(tool.parameters)), shared)}
    properties = {"name": {"const": tool.name}, "arguments": arguments}
    return {"type": "object", "properties": properties, "required": ["name", "arguments"]}


class ForcedCall:
    """The text of a call, in any slices -> the call's events. Thoughts before it pass."""

    def __init__(self, new_id: Callable[[], str]) -> None:
        self._new_id = new_id
        self._head = ""
        """What has come before the arguments; None of it is told."""
        self._begun = False
        self._held = ""
        """What may turn out to be the end of the object around the arguments."""
        self._arguments: list[str] = []

    def feed(self, events: list[Event]) -> list[Event]:
        """The same events, with text as pieces of the call."""
        told: list[Event] = []
        for event in events:
            if isinstance(event, TextDelta):
                told.extend(self._text(event.text))
            elif isinstance(event, Finished):
                told.extend(self._end(event))
            else:
                told.append(event)
        return told

    def _text(self, text: str) -> list[Event]:
        told: list[Event] = []
        if not self._begun:
            self._head += text
            found = _HEAD.match(self._head)
            if found is None:
                return []
            self._begun = True
            told.append(ToolCallDelta(0, self._new_id(), json.loads(found[1])))
            text = self._head[found.end() :]
        text = self._held + text if self._arguments else text.lstrip()
        tail = _TAIL.search(text)
        cut = len(text) if tail is None else tail.start()
        self._held = text[cut:]
        if cut:
            self._arguments.append(text[:cut])
            told.append(ToolCallDelta(0, arguments=text[:cut]))
        return told

    def _end(self, end: Finished) -> list[Event]:
        if not self._begun:
            return [end]
        if end.reason == "length" and self._held and self._arguments and not _whole("".join(self._arguments)):
            return [ToolCallDelta(0, arguments=self._held), end]
        return [structs.replace(end, reason="tool_calls") if end.reason == "stop" else end]


def _whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True

"""Tools and what is chosen among them. They are flat here: ``{"type":"function","name":…,"parameters":…}``.

Tools that the vendor's own servers run (``web_search``, ``code_interpreter``, …) mean nothing elsewhere; they are left out
and named. A ``custom`` tool takes plain text: models know it as a function of one text.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Raw, Struct

from adapters.openai.choice import choice_by_name, choice_by_word
from adapters.openai.fields import missing, schema_text
from adapters.responses import wire
from adapters.responses.seal import SCHEMA
from canonical.requests import Tool, ToolChoice

_NAMED = frozenset({"function", "custom"})


class Toolbox(Struct, frozen=True):
    """What a model may call."""

    tools: tuple[Tool, ...] = ()
    choice: ToolChoice | None = None
    custom: frozenset[str] = frozenset()
    """Names of those that take plain text."""
    lost: tuple[str, ...] = ()


def read_tools(tools: Sequence[wire.Tool] | None, chosen: str | wire.ToolChoice | None) -> Toolbox:
    """The tools of a request.

    Raises:
        InvalidRequest: a tool without a name, a choice of one that is not there, or a call demanded without tools.
    """
    read: list[Tool] = []
    custom: set[str] = set()
    lost: list[str] = []
    for number, tool in enumerate(tools or ()):
        place = f"tools[{number}]"
        if tool.type not in _NAMED:
            lost.append(f"tools[type={tool.type[:40]}]")
            continue
        if not tool.name:
            raise missing(f"{place}.name")
        if tool.type == "custom":
            custom.add(tool.name)
            if bytes(tool.format) not in {b"", b"null"} and b'"grammar"' in bytes(tool.format):
                lost.append("tools[].format")
            read.append(Tool(name=tool.name, description=tool.description, parameters=Raw(SCHEMA)))
        else:
            schema = schema_text(tool.parameters, f"{place}.parameters")
            read.append(Tool(name=tool.name, description=tool.description, parameters=schema, strict=tool.strict))
    found, choice = _choose(tuple(read), chosen, lost)
    return Toolbox(found, choice, frozenset(custom), tuple(lost))


def _choose(
    tools: tuple[Tool, ...], chosen: str | wire.ToolChoice | None, lost: list[str]
) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    if not isinstance(chosen, wire.ToolChoice):
        return tools, choice_by_word(chosen, tools, "tool_choice")
    if chosen.type == "allowed_tools":
        allowed = {tool.name for tool in chosen.tools or ()}
        tools = tuple(tool for tool in tools if tool.name in allowed)
        return tools, choice_by_word(chosen.mode or "auto", tools, "tool_choice.mode")
    if chosen.type in _NAMED:
        return tools, choice_by_name(chosen.name or "", tools, "tool_choice")
    # One of the vendor's own, which is not here.
    lost.append(f"tool_choice[type={chosen.type[:40]}]")
    return tools, None

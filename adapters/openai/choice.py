"""Which tool must be called, in the words that chats and responses share. The tools themselves each reads on its own."""

from __future__ import annotations

from collections.abc import Sequence

from canonical.errors import InvalidRequest, Unsupported
from canonical.requests import Tool, ToolChoice


def choice_by_word(word: str | None, tools: Sequence[Tool], param: str) -> ToolChoice | None:
    """``none``, ``auto`` or ``required``; None where nothing is said.

    Raises:
        InvalidRequest: a call is required, and there are no tools.
        Unsupported: another word.
    """
    match word:
        case None:
            return None
        case "auto" | "none":
            return ToolChoice(word)
        case "required":
            if not tools:
                raise InvalidRequest("a tool call is required but there are no tools", param=param)
            return ToolChoice("required")
        case _:
            raise Unsupported(f"{word[:40]!r} is not supported: none, auto, required or a function", param=param)


def choice_by_name(name: str, tools: Sequence[Tool], param: str) -> ToolChoice:
    """The one tool of that name. Raises InvalidRequest where it is none of ``tools``."""
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(f"the function {name[:80]!r} is not among the tools", param=param)
    return ToolChoice("named", name)

r"""Tool calls in a model's text, in the form of Hermes and Qwen: text in any slices becomes text and calls.

    'Wait.\n<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'  ->  "Wait.", Call("f", '{"a": 1}')

Held back is what may still become a tag, the white space before one, and a call until it is whole. What looks like a
call and is none stays text.
"""

from __future__ import annotations

import msgspec
from msgspec import Raw, Struct

from canonical.think import held

OPEN, CLOSE = "<tool_call>", "</tool_call>"


class Call(Struct, frozen=True):
    """One whole call; ``arguments`` is JSON text as the model wrote it."""

    name: str
    arguments: str


class _Written(Struct):
    name: str
    arguments: Raw = Raw(b"{}")


_written = msgspec.json.Decoder(_Written)


class ToolSplitter:
    """One answer's text -> text and calls."""

    __slots__ = ("_called", "_calling", "_rest")

    def __init__(self) -> None:
        self._rest = ""
        self._calling = self._called = False

    def feed(self, text: str) -> list[str | Call]:
        """What ``text`` settles."""
        found: list[str | Call] = []
        self._rest += text
        while self._step(found):
            pass
        return found

    def finish(self) -> list[str | Call]:
        """What was held back: a call whose end tag never came counts if it is whole, else it is text."""
        found: list[str | Call] = []
        rest, self._rest = self._rest, ""
        if self._calling:
            call = _call(rest)
            found.append(OPEN + rest if call is None else call)
        else:
            rest = rest.lstrip() if self._called else rest
            if rest:
                found.append(rest)
        return found

    def _step(self, found: list[str | Call]) -> bool:
        """Settle one piece of what is held; False when the rest must wait."""
        if not self._calling:
            before, tag, after = self._rest.partition(OPEN)
            text = (before if tag else self._rest[: len(self._rest) - held(self._rest, OPEN)]).rstrip()
            if text:
                found.append(text.lstrip() if self._called else text)
                self._called = False
            self._calling = bool(tag)
            self._rest = after if tag else self._rest[len(text) :]
            return self._calling
        end = self._rest.find(CLOSE)
        while end >= 0:
            call = _call(self._rest[:end])
            if call is not None:
                found.append(call)
                self._rest = self._rest[end + len(CLOSE) :]
                self._calling, self._called = False, True
                return True
            end = self._rest.find(CLOSE, end + 1)  # the tag's letters may stand inside a string of the arguments
        return False


def _call(text: str) -> Call | None:
    try:
        written = _written.decode(text.strip())
    except msgspec.MsgspecError:
        return None
    arguments = bytes(written.arguments).decode()
    if arguments.startswith('"'):  # some models write the arguments as a string of JSON
        arguments = msgspec.json.decode(arguments, type=str)
    return Call(written.name, arguments) if written.name else None

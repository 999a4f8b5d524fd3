"""Where a tool call may begin in a model's text, and whether it does.

Models write calls in a handful of forms, and this knows those that are JSON:

    <tool_call>{"name": "f", "arguments": {…}}</tool_call>      the form they are asked for (Hermes's and Qwen's)
    ```json, a line break, and the same object                  a fenced block at the beginning of a line
    {"name": "f", "parameters": {…}}                            an object, or a list of them, at the beginning of a line
    {"type": "function", "function": {"name": …}}               OpenAI's wrapping, and {"tool_calls": […]}

Whatever names none of the request's tools is text.
"""

from __future__ import annotations

import re
from collections.abc import Collection

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

OPEN, CLOSE, FENCE = "<tool_call>", "</tool_call>", "```"
HEAD_LIMIT = 1_024
"""Characters in which a call must have said its name and begun its arguments, to be streamed."""
WHOLE_LIMIT = 65_536
"""Characters of a call that must be read whole before it is known to be one."""

_BLANK = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"', re.DOTALL)
_INFO = re.compile(r"[^\n`]{0,40}")
_INFOS = frozenset({"", "json", "xml", "tool", "tool_call", "tool_calls", "function", "function_call"})
_ARGUMENTS = frozenset({"arguments", "parameters"})
_FIRST = frozenset({"name", "function", "type", "tool_calls", *_ARGUMENTS})
_string = msgspec.json.Decoder(str)


class More(Exception):
    """The text ends before it is decided."""


class NoCall(Exception):
    """It is text."""


class Place(Struct, frozen=True):
    """What is open around a call: a list, a tag, a fenced block."""

    listed: bool = False
    tagged: bool = False
    fenced: bool = False


class Head(Struct, frozen=True):
    """A call begins here."""

    at: int
    """Where its arguments begin, if there is a name; else where its object does, which must be read whole."""
    name: str
    place: Place


def head(text: str, names: Collection[str], inside: Place | None) -> Head:
    """The call that begins with ``text``: at a mark, or at an object or a tag ``inside`` what is open already.

    Raises:
        More: it may be one.
        NoCall: it is none.
    """
    try:
        return _head(text[:HEAD_LIMIT], names, inside or Place())
    except More:
        if len(text) >= HEAD_LIMIT:
            raise NoCall from None
        raise


def _head(text: str, names: Collection[str], inside: Place) -> Head:
    at = 0
    listed, tagged, fenced = inside.listed, inside.tagged, inside.fenced
    if text.startswith(FENCE):
        at, fenced = _fence(text, len(FENCE)), True
    if text[at] == "<":
        if not _begins(text, at, OPEN):
            raise NoCall
        at, tagged = _blank(text, at + len(OPEN)), True
        if text[at] == "`" and not fenced and _begins(text, at, FENCE):
            at, fenced = _fence(text, at + len(FENCE)), True
    if text[at] == "[":
        at, listed = _blank(text, at + 1), True
    name, at = _object(text, at, names, loose=tagged)
    return Head(at, name, Place(listed, tagged, fenced))


def _fence(text: str, at: int) -> int:
    """Behind the line that opens a block."""
    found = _INFO.match(text, at)
    assert found is not None
    end = found.end()
    if end == len(text) and end - at < 40:
        raise More
    if text[end : end + 1] != "\n" or found[0].strip().lower() not in _INFOS:
        raise NoCall
    return _blank(text, end + 1)


def _object(text: str, at: int, names: Collection[str], *, loose: bool) -> tuple[str, int]:
    """The name, if arguments follow it at once, and where they begin; else no name, and where the object begins."""
    if text[at] != "{":
        raise NoCall
    start = at
    key, at = _key(text, _blank(text, at + 1), _FIRST if not loose else None)
    if key != "name":
        return "", start
    if text[at] != '"':
        raise NoCall
    found = _STRING.match(text, at)
    if found is None:
        part = text[at + 1 :]
        if "\\" in part or any(name.startswith(part) for name in names):
            raise More
        raise NoCall
    name = _text(found[0])
    if name not in names:
        raise NoCall
    at = _blank(text, found.end())
    if text[at] != ",":
        return "", start
    key, at = _key(text, _blank(text, at + 1), None)
    if key in _ARGUMENTS and text[at] == "{":
        return name, at
    return "", start


def _key(text: str, at: int, known: Collection[str] | None) -> tuple[str, int]:
    """A key, and where its value begins."""
    if text[at] != '"':
        raise NoCall
    found = _STRING.match(text, at)
    if found is None:
        part = text[at + 1 :]
        if known is None or any(key.startswith(part) for key in known):
            raise More
        raise NoCall
    key = _text(found[0])
    if known is not None and key not in known:
        raise NoCall
    at = _blank(text, found.end())
    if text[at] != ":":
        raise NoCall
    return key, _blank(text, at + 1)


def _text(quoted: str) -> str:
    try:
        return _string.decode(quoted)
    except (msgspec.DecodeError, UnicodeError):
        raise NoCall from None


def _blank(text: str, at: int) -> int:
    """Behind white space; something must follow."""
    found = _BLANK.match(text, at)
    assert found is not None
    if found.end() == len(text):
        raise More
    return found.end()


def _begins(text: str, at: int, mark: str) -> bool:
    """Whether ``mark`` stands at ``at``."""
    part = text[at : at + len(mark)]
    if part != mark and len(part) < len(mark) and mark.startswith(part):
        raise More
    return part == mark


class _Function(Struct):
    name: str
    arguments: Raw | UnsetType = UNSET
    """Not ``parameters`` here: with them it is the tool's definition, which models repeat."""


class _Written(Struct):
    name: str | UnsetType = UNSET
    description: Raw | UnsetType = UNSET
    """A definition has one, a call has none."""
    arguments: Raw | UnsetType = UNSET
    parameters: Raw | UnsetType = UNSET
    function: _Function | str | UnsetType = UNSET
    tool_calls: list[_Written] | UnsetType = UNSET


_written = msgspec.json.Decoder(_Written)


def calls(text: str, names: Collection[str], *, loose: bool) -> list[tuple[str, str]]:
    """The names and arguments of a whole object's calls. ``loose``: one without arguments counts too.

    Raises:
        NoCall: it is not JSON, or none of a call.
    """
    try:
        return list(_calls(_written.decode(text), names, loose=loose))
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        raise NoCall from None


def _calls(written: _Written, names: Collection[str], *, loose: bool) -> list[tuple[str, str]]:
    if written.tool_calls is not UNSET:
        found = [call for one in written.tool_calls for call in _calls(one, names, loose=loose)]
        if not found:
            raise NoCall
        return found
    name, given = written.name, written.arguments if written.arguments is not UNSET else written.parameters
    function = written.function
    if isinstance(function, _Function):
        name, given = function.name, function.arguments
        loose = False
    elif isinstance(function, str) and name is UNSET:
        name = function
    if written.description is not UNSET or name is UNSET or name not in names or (given is UNSET and not loose):
        raise NoCall
    return [(name, _arguments(given))]


def _arguments(given: Raw | UnsetType) -> str:
    if given is UNSET:
        return "{}"
    text = bytes(given).decode()
    if text.startswith('"'):  # some models write the arguments as a string of JSON
        text = _string.decode(text).strip()
    if text in ("null", ""):
        return "{}"
    if not text.startswith("{"):
        raise NoCall
    return text

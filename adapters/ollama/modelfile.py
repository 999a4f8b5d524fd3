r'''Modelfile text, read and written: what a model is made of, a command a line. Nothing here looks at a disk.

    FROM ./tiny.gguf
    PARAMETER stop "<|end|>"
    SYSTEM """You answer
    in one line."""

A value is the rest of its line; one that begins with ``"`` or ``"""`` goes on until a line ends with the same. A text
with such a line in it has no place in that grammar. It gets an end of its own, which a comment names:

    #:end END1
    SYSTEM """Say """
    and go on."""END1
'''

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import msgspec
from msgspec import Struct, field

from adapters.framing import encode_line
from adapters.ollama.values import BOOLEANS, FLOATS, INTEGERS, RETIRED
from canonical.errors import InvalidRequest
from canonical.limits import MESSAGES
from canonical.messages import Message, Role, Text
from canonical.recipe import Recipe

COMMANDS = (
    "from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message", "requires",
)  # fmt: skip
SIZE = 16 * 1024 * 1024
"""Characters of a Modelfile: licenses and templates are the longest parts."""
_BLANK = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
"""What is cut off around a value."""
_REST = "[" + _BLANK.replace("\n", "").replace("\r", "") + r"]*(?=[\r\n]|\Z)"
"""Nothing more on this line."""
_CLOSE = {quotes: re.compile(re.escape(quotes) + _REST) for quotes in ('"', '"""')}
_COMMAND = re.compile(r"([A-Za-z]+)[ \t]")
_PARAMETER = re.compile(r"[ \t]*([A-Za-z0-9_]+)[ \t]")
_ROLE = re.compile(r"[ \t]*([A-Za-z]+)[ \t]")
_LINE = re.compile(r"[^\r\n]*")
_END = re.compile(r"#:end (\w+)")
_TAKEN = re.compile(r'"""END([0-9]{1,9})')
"""Ends that stand in a text already."""
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_SPOKEN: dict[str, Role] = {"system": "system", "user": "user", "assistant": "assistant"}
_TRUE, _FALSE = (
    frozenset(("1", "t", "T", "TRUE", "true", "True")),
    frozenset(("0", "f", "F", "FALSE", "false", "False")),
)
_WIDTH = 30


class Modelfile(Struct, frozen=True, kw_only=True):
    """What a Modelfile says. Names and paths are as they stand there: which of them are files is for others to see."""

    sources: tuple[str, ...]
    """Of ``FROM``: a model's name, or paths of files."""
    adapters: tuple[str, ...] = ()
    drafts: tuple[str, ...] = ()
    template: str | None = None
    system: str | None = None
    licenses: tuple[str, ...] = ()
    parameters: dict[str, Any] = field(default_factory=dict)
    messages: tuple[Message, ...] = ()
    requires: str = ""
    renderer: str = ""
    """A program of Ollama's own in place of a template; so is ``parser``. No other server has them."""
    parser: str = ""
    warnings: tuple[str, ...] = ()
    """What is passed over, in words for its author."""

    def recipe(
        self,
        source: str = "",
        *,
        files: dict[str, str] | None = None,
        adapters: dict[str, str] | None = None,
        drafts: dict[str, str] | None = None,
    ) -> Recipe:
        """The request to make the model, once its files are blobs: relative name -> ``sha256:<64 hex>``."""
        return Recipe(
            source=source,
            files=files or {},
            adapters=adapters or {},
            drafts=drafts or {},
            template=self.template,
            system=self.system,
            licenses=self.licenses or None,
            parameters=self.parameters,
            messages=self.messages or None,
            requires=self.requires,
        )


def read_modelfile(given: bytes | str) -> Modelfile:
    """What a Modelfile says; bytes are UTF-8, or UTF-16 with its mark.

    Raises:
        InvalidRequest: in Ollama's words, with the number of the line.
    """
    text = _decoded(given) if isinstance(given, bytes) else given.removeprefix("\ufeff")
    if len(text) > SIZE:
        raise InvalidRequest(f"a Modelfile may have at most {SIZE} characters")
    found = _Found()
    at, end = 0, ""
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
        elif text[at] == "#":
            line = _LINE.match(text, at)
            assert line is not None
            named = _END.fullmatch(line[0].rstrip(_BLANK))
            end = named[1] if named else end
            at = line.end()
        else:
            at = _command(found, text, at, end)
            end = ""
    return found.modelfile()


def write_modelfile(modelfile: Modelfile) -> str:
    """The text that ``read_modelfile`` takes for the same. Of messages it has their text alone."""
    told: list[tuple[str, str | None]] = [("FROM", source) for source in modelfile.sources]
    told += [("ADAPTER", path) for path in modelfile.adapters]
    told += [("DRAFT", path) for path in modelfile.drafts]
    told += [("TEMPLATE", modelfile.template), ("SYSTEM", modelfile.system)]
    for name, value in modelfile.parameters.items():
        told += [(f"PARAMETER {name}", _plain(item)) for item in (value if _is_list(value) else [value])]
    told += [(f"MESSAGE {message.role}", message.text) for message in modelfile.messages]
    told += [("LICENSE", text) for text in modelfile.licenses]
    told += [("REQUIRES", modelfile.requires or None), ("RENDERER", modelfile.renderer or None)]
    told.append(("PARSER", modelfile.parser or None))
    return "".join(_line(command, text) for command, text in told if text is not None)


def write_parameters(parameters: dict[str, Any]) -> str:
    """The ``parameters`` of ``/api/show``: name, blanks, value, one a line; a list has a line for each item."""
    return "\n".join(
        f"{name:<{_WIDTH}} {_shown(item)}"
        for name, value in parameters.items()
        for item in (value if _is_list(value) else [value])
    )


def read_parameters(text: str) -> dict[str, Any]:
    """The options that a ``parameters`` text tells of; what is no option of today is passed over."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        name, _, rest = line.strip().partition(" ")
        try:
            value = msgspec.json.decode(rest.strip().encode())
        except (msgspec.DecodeError, UnicodeEncodeError):
            value = rest.strip().strip('"')
        if isinstance(value, str | int | float):
            try:
                _add(found, name, _plain(value))
            except InvalidRequest:
                continue
    return found


class _Found:
    """What has been read so far."""

    def __init__(self) -> None:
        self.lists: dict[str, list[str]] = {"from": [], "adapter": [], "draft": [], "license": []}
        self.texts: dict[str, str] = {}
        self.parameters: dict[str, Any] = {}
        self.messages: list[Message] = []
        self.warnings: list[str] = []

    def modelfile(self) -> Modelfile:
        if not self.lists["from"]:
            raise InvalidRequest("no FROM line")
        told = [*self.warnings]
        told += [
            f"{name} is not known here: its template is used" for name in ("renderer", "parser") if name in self.texts
        ]
        return Modelfile(
            sources=tuple(self.lists["from"]),
            adapters=tuple(self.lists["adapter"]),
            drafts=tuple(self.lists["draft"]),
            licenses=tuple(self.lists["license"]),
            template=self.texts.get("template"),
            system=self.texts.get("system"),
            requires=self.texts.get("requires", ""),
            renderer=self.texts.get("renderer", ""),
            parser=self.texts.get("parser", ""),
            parameters=self.parameters,
            messages=tuple(self.messages),
            warnings=tuple(told),
        )


def _command(found: _Found, text: str, at: int, end: str) -> int:
    """Read the command that begins here; where what follows it begins."""
    head = _COMMAND.match(text, at)
    name = head[1].lower() if head else ""
    if head is None or name not in COMMANDS:
        *first, last = (f'"{command}"' for command in COMMANDS)
        raise _wrong(text, at, f"command must be one of {', '.join(first)}, or {last}")
    second = ""
    begin = head.end()
    if name in {"parameter", "message"}:
        word = (_PARAMETER if name == "parameter" else _ROLE).match(text, begin)
        if word is None:
            raise _wrong(text, at, f"{name.upper()} needs a {'name' if name == 'parameter' else 'role'} and a value")
        second, begin = word[1], word.end()
    value, after = _value(text, begin, end)
    if name == "message":
        role = _SPOKEN.get(second)
        if role is None:
            raise _wrong(text, at, 'message role must be one of "system", "user", or "assistant"')
        found.messages.append(Message(role, (Text(value),)))
        if len(found.messages) > MESSAGES:
            raise _wrong(text, at, f"more than {MESSAGES} messages")
    elif name == "parameter":
        if second in RETIRED:
            found.warnings.append(f"parameter {second} has no effect any more")
            return after
        try:
            _add(found.parameters, second, value)
        except InvalidRequest as error:
            raise _wrong(text, at, error.message) from error
    elif name in found.lists:
        found.lists[name].append(value)
    else:
        found.texts[name] = value
    return after


def _value(text: str, at: int, end: str = "") -> tuple[str, int]:
    """The value that begins at or behind ``at``, and where it ends."""
    while text[at : at + 1] in {" ", "\t"}:
        at += 1
    quotes = '"""' if text.startswith('"""', at) else '"' if text.startswith('"', at) else ""
    if not quotes:
        line = _LINE.match(text, at)
        assert line is not None
        return line[0].strip(_BLANK), line.end()
    begin = at + len(quotes)
    close = re.compile(quotes + end + _REST) if end else _CLOSE[quotes]
    found = close.search(text, begin)
    if found is None:
        raise _wrong(text, at, "unexpected end of file: the quotes are never closed")
    return text[begin : found.start()], found.end()


def _add(parameters: dict[str, Any], name: str, value: str) -> None:
    if name == "stop":
        parameters.setdefault(name, []).append(value)
    elif name in INTEGERS:
        if not _INTEGER.fullmatch(value):
            raise InvalidRequest(f"invalid int value [{value[:80]}]")
        parameters[name] = int(value)
    elif name in FLOATS:
        try:
            number = float(value) if value.isascii() and "_" not in value else math.nan
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise InvalidRequest(f"invalid float value [{value[:80]}]")
        parameters[name] = number
    elif name in BOOLEANS:
        if value not in _TRUE | _FALSE:
            raise InvalidRequest(f"invalid bool value [{value[:80]}]")
        parameters[name] = value in _TRUE
    else:
        raise InvalidRequest(f"unknown parameter '{name[:80]}'")


def _line(command: str, text: str) -> str:
    """A command whose value is in the first form that is read as ``text``; the last form has an end of its own."""
    blocks = (f'"""{text}"""', f'"{text}"')
    for form in blocks if "\n" in text or '"' in text else (text, blocks[1], blocks[0]):
        try:
            if _value(f"{form}\n", 0) == (text, len(form)):
                return f"{command} {form}\n"
        except InvalidRequest:
            continue
    taken = {int(digits) for digits in _TAKEN.findall(text)}
    number = next(number for number in itertools.count(1) if number not in taken)
    return f"#:end END{number}\n{command} {blocks[0]}END{number}\n"


def _plain(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else str(_number(value))


def _shown(value: Any) -> str:
    return encode_line(_number(value)).decode()


def _number(value: Any) -> Any:
    """A whole number has no fraction, as Go words it; other values as they are."""
    return int(value) if isinstance(value, float) and abs(value) < 1e15 and value == int(value) else value


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple)


def _decoded(data: bytes) -> str:
    try:
        if data[:2] in {b"\xff\xfe", b"\xfe\xff"}:
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidRequest("a Modelfile is UTF-8 or UTF-16 text") from error


def _wrong(text: str, at: int, message: str) -> InvalidRequest:
    before = text[:at]
    line = 1 + before.count("\n") + before.count("\r") - before.count("\r\n")
    return InvalidRequest(f"(line {line}): {message}")

"""Go's text/template as a tree: as much of its grammar as chat templates use.

    {{- range $i, $m := .Messages }}{{ if eq $m.Role "user" }}...{{ end }}{{ end -}}

Source: the package documentation of Go's text/template.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct

from canonical.errors import InvalidRequest

SIZE = 64 * 1024
"""Characters of a template."""
DEPTH = 100
"""Blocks and brackets inside one another; fields of fields and pipes of one action, too."""
_DIGITS = 20
"""Of a number."""


class BadTemplate(InvalidRequest):
    """The text is no template, or uses what is not translated."""

    def __init__(self, message: str) -> None:
        super().__init__(f"template error: {message}", param="template")


class Literal(Struct, frozen=True):
    """A text, a number, true, false or nil."""

    value: str | int | float | bool | None


class Variable(Struct, frozen=True):
    """``$name``; an empty name is ``$``, what the template was given."""

    name: str


class Dot(Struct, frozen=True):
    """``.``: what is being looked at."""


class Field(Struct, frozen=True):
    """``of.Name``."""

    of: Expression
    name: str


class Call(Struct, frozen=True):
    """A function and what it is given."""

    function: str
    arguments: tuple[Expression, ...]


Expression = Literal | Variable | Dot | Field | Call


class Text(Struct, frozen=True):
    """What stands outside of the braces."""

    text: str


class Print(Struct, frozen=True):
    """``{{ value }}``."""

    value: Expression


class Assign(Struct, frozen=True):
    """``{{ $name := value }}``, or with ``=`` where ``new`` is False."""

    name: str
    value: Expression
    new: bool


class If(Struct, frozen=True):
    """``if``; with ``scoped`` it is ``with``, inside which the dot is the value."""

    value: Expression
    then: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    scoped: bool = False
    name: str = ""
    """The variable that it declares."""


class Range(Struct, frozen=True):
    """A loop; ``key`` and ``name`` are the variables that it declares, or empty."""

    over: Expression
    body: tuple[Node, ...]
    otherwise: tuple[Node, ...]
    key: str = ""
    name: str = ""


class Jump(Struct, frozen=True):
    """``break`` or ``continue``."""

    word: str


Node = Text | Print | Assign | If | Range | Jump

_TOKEN = re.compile(
    r"""\s+
    | (?P<string>"(?:[^"\\\n]|\\.)*"|`[^`]*`)
    | (?P<number>[+-]?\d+(?:\.\d+)?)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<variable>\$\w*)
    | (?P<field>\.[A-Za-z_]\w*)
    | (?P<dot>\.)
    | (?P<mark>:=|[=|(),])
    """,
    re.VERBOSE,
)
_ACTION = re.compile(r"\{\{(-(?=\s))?")
_COMMENT = re.compile(r"\s*/\*.*?\*/", re.DOTALL)
_END = re.compile(r"\s*?(\s-)?\}\}")
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|x[0-9a-fA-F]{2}|[0-7]{3}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_WORDS = {"true": True, "false": False, "nil": None}
_UNTRANSLATED = frozenset({"define", "template", "block"})


class _Token(NamedTuple):
    kind: str
    text: str
    spaced: bool
    """Whether a blank stands before it: ``$x.Name`` is a field of ``$x``, ``$x .Name`` are two things."""


class _Action(NamedTuple):
    tokens: tuple[_Token, ...]


def parse(source: str) -> tuple[Node, ...]:
    """The nodes of a template. Raises BadTemplate."""
    if len(source) > SIZE:
        raise BadTemplate(f"a template may have at most {SIZE} characters")
    return _Blocks(source).whole()


def _pieces(source: str) -> Iterator[str | _Action]:
    """Texts, trimmed where the braces beside them say so, and actions."""
    at = 0
    trim = False
    while True:
        begin = _ACTION.search(source, at)
        text = source[at : begin.start()] if begin else source[at:]
        text = text.lstrip(" \t\r\n") if trim else text
        text = text.rstrip(" \t\r\n") if begin and begin[1] else text
        if text:
            yield text
        if begin is None:
            return
        tokens, at, trim = _action(source, begin.end())
        if tokens is not None:
            yield _Action(tuple(tokens))


def _action(source: str, at: int) -> tuple[list[_Token] | None, int, bool]:
    """The tokens of an action (None: a comment), where it ends, and whether it trims what follows."""
    comment = _COMMENT.match(source, at)
    if comment:
        at = comment.end()
    tokens: list[_Token] = []
    spaced = True
    while True:
        end = _END.match(source, at)
        if end:
            return (None if comment else tokens), end.end(), bool(end[1])
        found = _TOKEN.match(source, at)
        if found is None or comment:
            raise BadTemplate(f"unexpected {source[at : at + 20]!r}" if at < len(source) else "unclosed action")
        at = found.end()
        if found.lastgroup is None:
            spaced = True
        else:
            tokens.append(_Token(found.lastgroup, found[found.lastgroup], spaced))
            spaced = False


class _Blocks:
    """Pieces -> nodes: what opens and closes blocks."""

    def __init__(self, source: str) -> None:
        self._pieces = _pieces(source)
        self._depth = 0

    def whole(self) -> tuple[Node, ...]:
        nodes, closing = self._list()
        if closing is not None:
            raise BadTemplate(f"unexpected {{{{{closing.word}}}}}")
        return nodes

    def _list(self) -> tuple[tuple[Node, ...], _Terms | None]:
        """Nodes up to an ``end`` or ``else``, and that."""
        self._depth += 1
        if self._depth > DEPTH:
            raise BadTemplate("nested too deeply")
        nodes: list[Node] = []
        closing = None
        for piece in self._pieces:
            if isinstance(piece, str):
                nodes.append(Text(piece))
                continue
            terms = _Terms(piece.tokens)
            if terms.word in {"end", "else"}:
                closing = terms
                break
            nodes.append(self._node(terms))
        self._depth -= 1
        return tuple(nodes), closing

    def _node(self, terms: _Terms) -> Node:
        word = terms.word
        if word in _UNTRANSLATED:
            raise BadTemplate(f"{word} is not supported")
        if word in {"break", "continue"}:
            terms.skip()
            terms.done()
            return Jump(word)
        if word == "range":
            return self._range(terms)
        if word in {"if", "with"}:
            return self._branch(terms, word)
        names, new = terms.declared()
        value = terms.pipeline()
        if len(names) > 1:
            raise BadTemplate("too many variables")
        return Assign(names[0], value, new) if names else Print(value)

    def _range(self, terms: _Terms) -> Range:
        terms.skip()
        names, _ = terms.declared()
        over = terms.pipeline()
        body, otherwise = self._bodies()
        key, name = ("", *names) if len(names) == 1 else (names or ["", ""])
        return Range(over, body, otherwise, key, name)

    def _branch(self, terms: _Terms, word: str) -> If:
        terms.skip()
        names, _ = terms.declared()
        value = terms.pipeline()
        then, otherwise = self._bodies()
        return If(value, then, otherwise, word == "with", names[0] if names else "")

    def _bodies(self) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
        body, closing = self._list()
        if closing is None:
            raise BadTemplate("a block has no end")
        if closing.word == "end":
            return body, ()
        closing.skip()
        if closing.word in {"if", "with"}:  # its end is the end of all
            self._depth += 1
            if self._depth > DEPTH:
                raise BadTemplate("nested too deeply")
            otherwise: tuple[Node, ...] = (self._branch(closing, closing.word),)
            self._depth -= 1
            return body, otherwise
        closing.done()
        otherwise, closing = self._list()
        if closing is None or closing.word != "end":
            raise BadTemplate("a block has no end")
        return body, otherwise


class _Terms:
    """The tokens of one action -> expressions."""

    def __init__(self, tokens: tuple[_Token, ...]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0
        self._chain = 0
        """Fields and pipes, each of which stands around what came before."""

    @property
    def word(self) -> str:
        """The word that stands here, or nothing."""
        token = self._peek()
        return token.text if token is not None and token.kind == "word" else ""

    def skip(self) -> None:
        self._at += 1

    def done(self) -> None:
        token = self._peek()
        if token is not None:
            raise BadTemplate(f"unexpected {token.text!r}")

    def declared(self) -> tuple[list[str], bool]:
        """The variables before ``:=`` or ``=``, and whether they are new."""
        names: list[str] = []
        at = self._at
        while at < len(self._tokens) and self._tokens[at].kind == "variable":
            names.append(self._tokens[at].text[1:])
            at += 1
            mark = self._tokens[at].text if at < len(self._tokens) and self._tokens[at].kind == "mark" else ""
            at += 1
            if mark in {":=", "="} and len(names) <= 2 and all(names):
                self._at = at
                return names, mark == ":="
            if mark != ",":
                break
        return [], False

    def pipeline(self) -> Expression:
        value = self._pipe()
        self.done()
        return value

    def _pipe(self) -> Expression:
        value = self._command(None)
        while self._take("|"):
            self._longer()
            value = self._command(value)
        return value

    def _command(self, given: Expression | None) -> Expression:
        """A value, or a function with what follows it; ``given`` comes last."""
        token = self._peek()
        if token is None:
            raise BadTemplate("missing value")
        if token.kind == "word" and token.text not in _WORDS:
            self.skip()
            arguments: list[Expression] = []
            while (following := self._peek()) is not None and not (
                following.kind == "mark" and following.text in {"|", ")"}
            ):
                arguments.append(self._operand())
            return Call(token.text, (*arguments, *(() if given is None else (given,))))
        if given is not None:
            raise BadTemplate(f"{token.text!r} is no function")
        value = self._operand()
        following = self._peek()
        if following is not None and not (following.kind == "mark" and following.text in {"|", ")"}):
            raise BadTemplate(f"unexpected {following.text!r}")
        return value

    def _operand(self) -> Expression:
        token = self._peek()
        assert token is not None
        self.skip()
        value: Expression
        match token.kind:
            case "string":
                value = Literal(_text(token.text))
            case "number" if len(token.text) > _DIGITS:
                raise BadTemplate("a number is too long")
            case "number":
                value = Literal(float(token.text) if "." in token.text else int(token.text))
            case "word" if token.text in _WORDS:
                value = Literal(_WORDS[token.text])
            case "word":
                value = Call(token.text, ())
            case "variable":
                value = Variable(token.text[1:])
            case "field":
                value = Field(Dot(), token.text[1:])
            case "dot":
                value = Dot()
            case _ if token.text == "(":
                self._depth += 1
                if self._depth > DEPTH:
                    raise BadTemplate("nested too deeply")
                value = self._pipe()
                self._depth -= 1
                if not self._take(")"):
                    raise BadTemplate("unclosed bracket")
            case _:
                raise BadTemplate(f"unexpected {token.text!r}")
        while (following := self._peek()) is not None and following.kind == "field" and not following.spaced:
            self.skip()
            self._longer()
            value = Field(value, following.text[1:])
        return value

    def _longer(self) -> None:
        self._chain += 1
        if self._chain > DEPTH:
            raise BadTemplate("nested too deeply")

    def _peek(self) -> _Token | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _take(self, mark: str) -> bool:
        token = self._peek()
        found = token is not None and token.kind == "mark" and token.text == mark
        self._at += found
        return found


def _text(quoted: str) -> str:
    if quoted.startswith("`"):
        return quoted[1:-1]

    def escape(found: re.Match[str]) -> str:
        said = found[1]
        if said[0] in "uUx" and len(said) > 1:
            code = int(said[1:], 16)
            return chr(code) if code <= 0x10FFFF and not 0xD800 <= code <= 0xDFFF else "\ufffd"
        return chr(int(said, 8)) if len(said) == 3 else _ESCAPES.get(said, said)

    return _ESCAPE.sub(escape, quoted[1:-1])

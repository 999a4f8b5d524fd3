"""What a GBNF grammar costs the engine that follows it, worked out before any engine sees it.

An engine keeps every way in which the text so far may go on. A hundred bytes of grammar can make that more ways than a
machine can hold, and llama.cpp looks at them on the thread that serves everybody. Bounded here: the ways at any place,
and the ways after one character more. The syntax is that of llama.cpp's ``grammars/README.md``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from canonical.errors import InvalidRequest
from canonical.recursion import Element, Rules, check_recursion

WAYS = 4_000
"""Ways to go on at one place of a grammar."""
NEXT_WAYS = 20_000
"""The same, summed over what may come one character later."""
PATTERN_SIZE = 4_000
"""Characters of a schema's pattern once its repetitions are written out, as converters do."""

_CEILING = 1 << 40
"""Counts go no higher: they double with each rule."""
_MANY = -1
_TOKEN = re.compile(
    r"""(?P<rule>[A-Za-z0-9_-]+)[ \t]*::=
      | (?P<name>[A-Za-z0-9_-]+)
      | (?P<text>"(?:[^"\\]|\\.)*+")
      | (?P<one>\[(?:[^\]\\]|\\.)*+\]|\.|!?<[^>\n]*>)
      | (?P<repeat>[*+?]|\{[ \t]*\d+[ \t]*(?:,[ \t]*\d*[ \t]*)?\})
      | (?P<sign>[()|])
      | (?P<blank>[ \t\r\n]+|\#[^\r\n]*)
    """,
    re.VERBOSE | re.DOTALL,
)
ANY = (1 << 129) - 1
"""Every character."""
_NAMED = {"n": "\n", "r": "\r", "t": "\t"}
_ESCAPE = re.compile(r"\\(?:x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|.)", re.DOTALL)
_WRONG_ESCAPE = re.compile(
    r"""(?<!\\)(?:\\\\)*+\\(?!x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4}|U[0-9A-Fa-f]{8}|[-trn\\"\[\]])""", re.DOTALL
)
_PATTERN = re.compile(r"\\.|\[\^?\]?(?:[^\]\\]|\\.)*+\]|\{(\d*),?(\d*)\}|[()|]|.", re.DOTALL)


class _Cost(NamedTuple):
    """``ways`` to a first character; ``none``: ways to need none; ``then`` and ``done``: both once it was read."""

    ways: int
    none: int
    then: int
    done: int


_EMPTY = _Cost(0, 1, 0, 0)


def check_cost(grammar: str, *, param: str) -> None:
    """Refuse a grammar that takes more than a moment per token to follow, and what is no grammar.

    An engine would refuse the latter too, but by printing what the client wrote to the standard error of the process.

    Raises:
        InvalidRequest: not GBNF, no rule ``root`` or none of a name that is used, too many ways, left recursion, or a
            repetition with its bounds reversed.
    """
    if not grammar:
        return  # as if there were none
    rules = _rules(grammar, param)
    if rules is None:
        raise InvalidRequest("failed to parse grammar: it is not GBNF", param=param)
    names = {element.name for choices in rules.values() for sequence in choices for element in sequence}
    missing = sorted((names | {"root"}) - rules.keys() - {""})
    if missing:
        raise InvalidRequest(f"failed to parse grammar: there is no rule {missing[0][:64]!r}", param=param)
    costs: dict[str, _Cost] = {}
    for name in rules:
        _settle(name, rules, costs, param)
    for choices in rules.values():
        for sequence in choices:
            _sequence(sequence, costs, param)
    empty = frozenset(name for name, cost in costs.items() if cost.none)
    # In the order of settling: what a rule can begin with stands before it.
    check_recursion({name: rules[name] for name in costs}, empty, param=param)


def pattern_size(pattern: str) -> int:
    """Characters of a regular expression with its repetitions written out."""
    sums = [0]
    last = 0
    for match in _PATTERN.finditer(pattern):
        piece = match[0]
        if piece == "(":
            sums.append(0)
            last = 0
        elif piece == ")" and len(sums) > 1:
            last = sums.pop() + 1
            sums[-1] += last
        elif len(piece) > 1 and piece[0] == "{":
            times = max(int(count[:9]) for count in (match[1] or "0", match[2] or "0"))
            sums[-1] = min(sums[-1] + last * max(times - 1, 0), _CEILING)
        else:
            last = len(piece)
            sums[-1] += last
    return sum(sums)


def _rules(grammar: str, param: str) -> Rules | None:
    """The rules, groups as rules of their own; None: this is no GBNF."""
    rules: Rules = {}
    choices: list[list[Element]] = []
    outer: list[tuple[list[list[Element]], str]] = []
    at = groups = 0
    going = ended = False  # whether the rule goes on behind a line break, and whether one has ended it
    while at < len(grammar):
        match = _TOKEN.match(grammar, at)
        if match is None:
            return None
        at = match.end()
        kind, piece = match.lastgroup, match[0]
        if kind == "blank":
            ended = ended or not (going or outer or ("\n" not in piece and "\r" not in piece))
            continue
        if choices and ended is not (kind == "rule"):
            return None
        going, ended = kind == "rule" or piece == "|", False
        if kind == "rule":
            if outer:
                return None
            choices = rules.setdefault(match["rule"], [])
            choices.append([])
        elif not choices:
            return None
        elif kind == "name":
            choices[-1].append(Element(piece, ()))
        elif kind in {"text", "one"} and _WRONG_ESCAPE.search(piece):
            return None
        elif kind == "text":
            choices[-1].append(Element("", tuple(_bit(character) for character in _characters(piece[1:-1]))))
        elif kind == "one":
            choices[-1].append(Element("", () if piece == "[]" else (_class_bits(piece),)))
        elif kind == "repeat":
            if not choices[-1] or not (choices[-1][-1].name or choices[-1][-1].characters):
                return None
            least, most = _bounds(piece)
            if most != _MANY and most < least:
                raise InvalidRequest(f"a grammar repeats {piece}: the bounds are reversed", param=param)
            choices[-1][-1] = choices[-1][-1]._replace(least=least, most=most)
        elif piece == "|":
            choices.append([])
        elif piece == "(":
            groups += 1
            name = f"({groups}"
            outer.append((choices, name))
            choices = [[]]
        else:
            if not outer:
                return None
            inner = choices
            choices, name = outer.pop()
            rules[name] = inner
            choices[-1].append(Element(name, ()))
    return None if outer else rules


def _characters(text: str) -> Iterator[str]:
    """The characters of a quoted text or a class, escapes read."""
    at = 0
    for match in _ESCAPE.finditer(text):
        yield from text[at : match.start()]
        escape = match[0][1:]
        yield chr(int(escape[1:], 16) % 0x110000) if len(escape) > 1 else _NAMED.get(escape, escape)
        at = match.end()
    yield from text[at:]


def _bit(character: str) -> int:
    return 1 << min(ord(character), 128)


def _class_bits(piece: str) -> int:
    if piece[0] != "[":
        return ANY  # a dot, or a token by its number
    characters = list(_characters(piece[1:-1].removeprefix("^")))
    bits = at = 0
    while at < len(characters):
        low = high = min(ord(characters[at]), 128)
        if at + 2 < len(characters) and characters[at + 1] == "-":
            high = min(ord(characters[at + 2]), 128)
            at += 2
        at += 1
        if low <= high:
            bits |= (2 << high) - (1 << low)
    # Of the characters beyond ASCII a negated class excludes some, never all.
    return (ANY & ~bits) | (1 << 128) if piece[1:2] == "^" else bits


def _bounds(piece: str) -> tuple[int, int]:
    match piece:
        case "*":
            return 0, _MANY
        case "+":
            return 1, _MANY
        case "?":
            return 0, 1
    low, comma, high = piece[1:-1].replace(" ", "").replace("\t", "").partition(",")
    least = int(low[:9] or 0)
    if not comma:
        return least, least
    return least, int(high[:9]) if high else _MANY


def _settle(root: str, rules: Rules, costs: dict[str, _Cost], param: str) -> None:
    """Cost a rule after those that it can begin with; without recursion, as chains of rules may be long."""
    open_rules: dict[str, Iterator[str]] = {}
    order: list[str] = []

    def enter(name: str) -> None:
        open_rules[name] = _beginnings(rules[name], rules, costs)
        order.append(name)

    if root not in costs:
        enter(root)
    while order:
        name = order[-1]
        for needed in open_rules[name]:
            if needed in open_rules:
                raise InvalidRequest("a grammar may not begin a rule with the rule itself", param=param)
            enter(needed)
            break
        else:
            total = [0, 0, 0, 0]
            for sequence in rules[name]:
                for index, count in enumerate(_sequence(sequence, costs, param, rest=False)):
                    total[index] = min(total[index] + count, _CEILING)
            costs[name] = _Cost(*total)
            del open_rules[name]
            order.pop()


def _beginnings(choices: list[list[Element]], rules: Rules, costs: dict[str, _Cost]) -> Iterator[str]:
    """The uncosted rules that must be known first. The rest of a sequence is looked at too, but only where it is free."""
    for sequence in choices:
        for element in sequence:
            if element.name in rules and element.name not in costs:
                yield element.name
            if element.least and (not element.name or not costs.get(element.name, _EMPTY).none):
                break


def _sequence(sequence: list[Element], costs: dict[str, _Cost], param: str, *, rest: bool = True) -> _Cost:
    """The cost at a sequence's beginning; with ``rest``, every place in it is held against the limits."""
    cost = _EMPTY
    for element in reversed(sequence):
        one = _element(element, costs)
        cost = _Cost(
            min(one.ways + one.none * cost.ways, _CEILING),
            min(one.none * cost.none, _CEILING),
            min(one.then + one.done * cost.ways + one.none * cost.then, _CEILING),
            min(one.done * cost.none + one.none * cost.done, _CEILING),
        )
        if rest and (cost.ways > WAYS or cost.then > NEXT_WAYS):
            raise InvalidRequest("there are too many ways to follow this grammar or schema", param=param)
    return cost


def _element(element: Element, costs: dict[str, _Cost]) -> _Cost:
    if element.name:
        one = costs.get(element.name, _EMPTY)
    elif not element.characters:
        return _EMPTY
    else:
        one = _Cost(1, 0, 0, 1) if len(element.characters) == 1 else _Cost(1, 0, 1, 0)
    least, most = element.least, element.most
    if most == 0:
        return _EMPTY
    if (least, most) == (1, 1):
        return one
    # How often a part that may be empty is repeated multiplies the ways to leave it out.
    times = 1 if not one.none else (_CEILING if most == _MANY else most)
    ways = min(one.ways * times, _CEILING)
    again = ways if most != 1 else 0
    done = one.done if least <= 1 else one.done * min(one.none, 1)
    return _Cost(ways, 1 if least == 0 else one.none, min(one.then * times + one.done * again, _CEILING), done)

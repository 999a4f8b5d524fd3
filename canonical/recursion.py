"""Recursion in a grammar that doubles the ways to follow it with every level.

    expr ::= term "+" expr | term          term ::= "(" expr ")" | [0-9]

Each ``(`` may belong to either alternative of ``expr``, so twelve of them are 4,096 ways, and forty stop the machine. What
does it: two alternatives that cannot be told apart until both have led back, in a circle of rules that leaves something
open behind it. ``expr ::= term ("+" expr)?`` says the same and is followed in one way.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import NamedTuple, TypeVar

from canonical.errors import InvalidRequest

K = TypeVar("K", bound=Hashable)

PAIRS = 20_000
"""Comparisons of alternatives; past that the grammar is refused unread."""


class Element(NamedTuple):
    """One element of a sequence: the name of a rule, or characters, and how often."""

    name: str
    characters: tuple[int, ...]
    """What each may be, as a set of bits: one for each of ASCII, one for all others."""
    least: int = 1
    most: int = 1


Rules = dict[str, list[list[Element]]]


def check_recursion(rules: Rules, empty: frozenset[str], *, param: str) -> None:
    """Refuse recursion that doubles the ways with each level.

    ``rules`` come in an order in which a rule stands behind those that it can begin with; ``empty``: those that can be
    nothing. Some grammars are refused that would not have doubled: where alternatives begin with different rules that
    may begin alike, nobody looks further.

    Raises:
        InvalidRequest: see there.
    """
    first = _firsts(rules, empty)
    pairs = 0
    for circle in _circles(rules):
        if not any(_leaves_open(sequence, circle) for name in circle for sequence in rules[name]):
            continue  # a list: it leads back at its end, with nothing left behind
        compare = _Compare(circle, first, empty)
        for name in circle:
            for ways in _places(rules[name], circle, empty):
                for one, other in combinations(ways, 2):
                    pairs += 1
                    if pairs > PAIRS or compare.alike(one, other):
                        raise InvalidRequest(
                            "this recursive grammar can be followed in too many ways: two alternatives that lead back "
                            "to a rule must not begin alike",
                            param=param,
                        )


def _firsts(rules: Rules, empty: frozenset[str]) -> dict[str, int]:
    """What each rule can begin with."""
    first: dict[str, int] = {}
    for name, choices in rules.items():
        bits = 0
        for sequence in choices:
            bits |= _begins(sequence, first, empty)
        first[name] = bits
    return first


def _begins(sequence: Sequence[Element], first: Mapping[str, int], empty: frozenset[str]) -> int:
    bits = 0
    for element in sequence:
        bits |= element.characters[0] if element.characters else first.get(element.name, 0)
        if not _may_be_nothing(element, empty):
            break
    return bits


def _may_be_nothing(element: Element, empty: frozenset[str]) -> bool:
    return element.least == 0 or element.name in empty or not (element.name or element.characters)


def _leaves_open(sequence: Sequence[Element], circle: frozenset[str]) -> bool:
    last = len(sequence) - 1
    return any(
        element.name in circle and (index < last or element.most not in {0, 1})
        for index, element in enumerate(sequence)
    )


def _places(
    choices: Sequence[list[Element]], circle: frozenset[str], empty: frozenset[str]
) -> Iterator[list[list[Element]]]:
    """The ways to go on that lead back, at each place of a rule where there are several."""
    yield [way for sequence in choices for way in _ways(sequence, circle, empty)]
    for sequence in choices:
        for at in range(1, len(sequence)):
            if _may_be_nothing(sequence[at], empty) or sequence[at].most != 1:
                yield list(_ways(sequence[at:], circle, empty))


def _ways(sequence: list[Element], circle: frozenset[str], empty: frozenset[str]) -> Iterator[list[Element]]:
    """The sequence, and what is left of it when parts at its beginning are left out, as far as it leads back."""
    back = max((index for index, element in enumerate(sequence) if element.name in circle), default=-1)
    for at in range(back + 1):
        yield sequence[at:]
        # The first may be a repetition that has had its turn.
        if not (_may_be_nothing(sequence[at], empty) or (at == 0 and sequence[at].most != 1)):
            return


class _Compare:
    """Whether two ways to go on can be told apart before they lead back."""

    def __init__(self, circle: frozenset[str], first: Mapping[str, int], empty: frozenset[str]) -> None:
        self._circle, self._first, self._empty = circle, first, empty

    def alike(self, one: Sequence[Element], other: Sequence[Element]) -> bool:
        """Both begin with their first element: ways without it are ways of their own."""
        if not _begins(one[:1], self._first, self._empty) & _begins(other[:1], self._first, self._empty):
            return False
        together = False
        while one and other:
            a, b = one[0], other[0]
            once = (a.least, a.most, b.least, b.most) == (1, 1, 1, 1)
            if once and a.characters and b.characters:
                if not a.characters[0] & b.characters[0]:
                    return False
                one, other = _behind_one_character(one), _behind_one_character(other)
            elif a == b and a.name not in self._circle:
                one, other = one[1:], other[1:]
            else:
                break
            together = True
        if not together:
            return True
        return bool(_begins(one, self._first, self._empty) & _begins(other, self._first, self._empty))


def _behind_one_character(sequence: Sequence[Element]) -> Sequence[Element]:
    head = sequence[0]
    if len(head.characters) == 1:
        return sequence[1:]
    return [head._replace(characters=head.characters[1:]), *sequence[1:]]


def _circles(rules: Rules) -> Iterator[frozenset[str]]:
    """The rules that lead back to themselves, with those on the way."""
    return components(
        {
            name: [element.name for sequence in choices for element in sequence if element.name in rules]
            for name, choices in rules.items()
        }
    )


def components(below: Mapping[K, Sequence[K]]) -> Iterator[frozenset[K]]:
    """The circles of a graph: Tarjan's strongly connected components, without single nodes that do not lead back."""
    index: dict[K, int] = {}
    low: dict[K, int] = {}
    stack: list[K] = []
    on_stack: set[K] = set()
    for root in below:
        if root in index:
            continue
        work = [(root, iter(below[root]))]
        index[root] = low[root] = len(index)
        stack.append(root)
        on_stack.add(root)
        while work:
            name, rest = work[-1]
            for needed in rest:
                if needed not in index:
                    index[needed] = low[needed] = len(index)
                    stack.append(needed)
                    on_stack.add(needed)
                    work.append((needed, iter(below[needed])))
                    break
                if needed in on_stack:
                    low[name] = min(low[name], index[needed])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[name])
                if low[name] == index[name]:
                    circle: set[K] = set()
                    while name not in circle:
                        circle.add(stack.pop())
                    on_stack -= circle
                    if len(circle) > 1 or name in below[name]:
                        yield frozenset(circle)

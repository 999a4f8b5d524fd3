"""A request as it came: its dialect, its body, and how that dialect calls what can be said.

The body is looked into only where something is asked of it, and decoded once however often that is. Paths have no
positions: ``messages[].content[].cache_control`` stands for all of them, so that a report stays short.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from functools import cached_property
from typing import Any

import msgspec
from msgspec import Raw, Struct, field

Shape = Mapping[str, "Shape | None"] | frozenset[str]
"""The names in an object that somebody reads, each with the shape of what stands under it: None, if it is read whole."""

NAMED = 20_000
"""Unknown fields of a body that are told one by one."""
MORE = "..."
"""Stands for those beyond."""

_raw_object = msgspec.json.Decoder(dict[str, Raw])
_any = msgspec.json.Decoder()
_EMPTY = frozenset((b"null", b"[]", b"{}"))
"""A field of which this is the value says nothing, whatever it is called."""
_BLANK = b" \t\r\n"


class Vocabulary(Struct, frozen=True, eq=False, dict=True):
    """How one route of a dialect calls what can be said to it."""

    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """A feature's name -> the paths of the fields that say it, the usual one first (``max_tokens``, ``options.seed``).
    Where the body has several, the first in this order is the one that is read."""
    known: frozenset[str] = frozenset()
    """Fields of the body that canonical values hold, or that only say how the gateway words its answer."""
    inside: Mapping[str, Shape] = field(default_factory=dict)
    """What is known of the objects in some of them: ``{"options": {"seed", …}}``."""
    idle: Mapping[str, frozenset[bytes]] = field(default_factory=dict)
    """Unknown fields -> values, as JSON without blanks, that say what holds anyway: to leave them out changes nothing."""
    own: frozenset[str] = frozenset()
    """Known fields that go to a server of this dialect in the client's own words: it may know more of them."""
    talk: frozenset[str] = frozenset()
    """The same for as long as the origin is ``verbatim``: the conversation, and what belongs to it."""
    merged: frozenset[str] = frozenset()
    """Known objects whose unknown fields go to a server of this dialect among ours."""
    ours: frozenset[str] = frozenset()
    """Names, folded, that mean something else on the route by which a request may go on: they never travel."""

    def name(self, feature: str, fields: Container[str]) -> str:
        """What the client calls a feature: the first of its spellings that the body has, else the usual one."""
        names = self.names.get(feature)
        if names is None:
            return feature
        if len(names) == 1:
            return names[0]
        return next((name for name in names if top(name) in fields), names[0])

    @cached_property
    def loose(self) -> dict[str, Shape]:
        """The objects in which no reader knows every name, so that they are always looked into."""
        return {outer: shape for outer, shape in self.inside.items() if isinstance(shape, frozenset)}

    @cached_property
    def spellings(self) -> frozenset[str]:
        """The fields that matter where a feature has several names."""
        return frozenset(top(name) for names in self.names.values() if len(names) > 1 for name in names)


class Origin(Struct, frozen=True, dict=True):
    """The request as it came: which dialect, and its body, for fields that only that dialect knows."""

    dialect: str = ""
    body: bytes = b""
    vocabulary: Vocabulary = Vocabulary()
    lost: tuple[str, ...] = ()
    """Paths of known things in the body that have no canonical form (``tools[].type``)."""
    verbatim: bool = False
    """Whether the body's messages and tools can go to a server of this dialect as they are; who changes them canonically
    must say False."""
    plain: bool = False
    """Whether the reader has met nothing unknown inside the known fields, so that nobody needs to look for it."""
    headers: tuple[bytes, ...] = ()
    """Lines of the request's head without which a server of this dialect refuses what is new in the body; each is checked."""

    @cached_property
    def _fields(self) -> dict[str, Raw]:
        return _raw_object.decode(self.body) if self.body else {}

    def fields(self) -> dict[str, Raw]:
        """The body's fields, undecoded."""
        return self._fields

    def spelled(self) -> frozenset[str]:
        """Which of a feature's several names the body has."""
        fields, spellings = self._fields, self.vocabulary.spellings
        found = [name for name in fields if name in spellings]
        if len(found) > 1:
            found = [name for name in found if bytes(fields[name]) != b"null"]
        return frozenset(found)

    def onward(self) -> dict[str, Raw]:
        """The body's fields that go to a server of this dialect as they came. Without a vocabulary these are none."""
        words = self.vocabulary
        fields, known = self._fields, words.known
        if not known or (fields.keys() <= known and not words.own and not self.verbatim):
            return {}
        own = words.own | words.talk if self.verbatim else words.own
        return {
            name: raw
            for name, raw in fields.items()
            if (
                (name in own and bytes(raw) not in _EMPTY)
                if name in known
                else not (words.ours and name.casefold() in words.ours)
            )
        }

    def unknown(self) -> list[str]:
        """Paths of what the client said beyond the vocabulary, without what says nothing.

        Past ``NAMED`` of them the rest is one ``MORE``: who sends so many must not keep others waiting.
        """
        words = self.vocabulary
        fields, known = self._fields, words.known
        looked = words.loose if self.plain else words.inside
        if not known or (fields.keys() <= known and looked.keys().isdisjoint(fields)):
            return []
        found: dict[str, None] = {}
        for path in self._unknown(looked):
            found[path] = None
            if len(found) == NAMED:
                found[MORE] = None
                break
        return list(found)

    def _unknown(self, looked: Mapping[str, Shape]) -> Iterator[str]:
        words = self.vocabulary
        for name, raw in self._fields.items():
            if name not in words.known and not self._idle(name, raw):
                yield name
        for name, shape in looked.items():
            if name in self._fields:
                yield from _strays(_any.decode(self._fields[name]), shape, name, words.idle)

    def _idle(self, name: str, raw: Raw) -> bool:
        text = bytes(raw)
        return text in _EMPTY or text.translate(None, _BLANK) in self.vocabulary.idle.get(name, _EMPTY)

    def extras(self, known: frozenset[str], *, inside: str = "") -> dict[str, Raw]:
        """The body's fields outside ``known``, undecoded. ``inside`` looks into that field's object instead."""
        fields = self._fields
        if inside:
            raw = fields.get(inside)
            fields = _raw_object.decode(raw) if raw is not None and bytes(raw).lstrip()[:1] == b"{" else {}
        return {name: value for name, value in fields.items() if name not in known}


def top(path: str) -> str:
    """The body's field that a path begins in."""
    return path.partition(".")[0].partition("[")[0]


def _strays(value: Any, shape: Shape, path: str, idle: Mapping[str, frozenset[bytes]]) -> Iterator[str]:
    """Paths of what ``shape`` does not have. The depth is the shape's, not the value's."""
    if isinstance(value, list):
        for item in value:
            yield from _strays(item, shape, f"{path}[]", idle)
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in shape:
                if not _says_nothing(inner, idle.get(f"{path}.{name}", ())):
                    yield f"{path}.{name}"
            elif isinstance(shape, Mapping) and (below := shape[name]) is not None:
                yield from _strays(inner, below, f"{path}.{name}", idle)


def _says_nothing(value: Any, idle: frozenset[bytes] | tuple[()]) -> bool:
    return value is None or value in ([], {}) or (bool(idle) and msgspec.json.encode(value) in idle)

"""What becomes of each thing a client said: honoured, approximated, dropped; or refused, which is an error instead.

A backend says what it honours (``Honours``), a dialect how its fields are called (``Vocabulary``), and ``report`` puts
the two together for one request, in the client's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field

from canonical.features import Feature, said
from canonical.requests import Embed, Generate

Fate = Literal["honoured", "approximated", "dropped", "refused"]


class Verdict(Struct, frozen=True):
    """What a backend makes of one feature. ``note`` says how it is approximated, in words for the caller."""

    fate: Fate
    note: str = ""


HONOURED = Verdict("honoured")
DROPPED = Verdict("dropped")
REFUSED = Verdict("refused")
"""The backend's own code raises; a report never holds it."""


def approximated(note: str) -> Verdict:
    """A near thing is done instead: ``note`` says what."""
    return Verdict("approximated", note)


class Honours(Struct, frozen=True):
    """What one model's backend does with everything that can be said to it."""

    verdicts: Mapping[Feature, Verdict] = field(default_factory=dict)
    """A feature that is missing here is dropped."""
    dialect: str = ""
    """Fields that only this dialect knows travel on as they came; empty: none do."""
    extras: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Dialect -> its fields without a canonical form that are understood all the same (``options.mirostat``)."""


class Report(Struct, frozen=True):
    """One request's, in the client's names of its fields."""

    honoured: tuple[str, ...] = ()
    approximated: dict[str, str] = field(default_factory=dict)
    """Field -> what is done instead."""
    dropped: tuple[str, ...] = ()


def report(request: Generate | Embed, honours: Honours) -> Report:
    """What becomes of everything that ``request`` says, where it is answered by a model of these ``honours``."""
    origin = request.origin
    words = origin.vocabulary
    fields = origin.fields() if origin.body else {}
    honoured: list[str] = []
    near: dict[str, str] = {}
    dropped: list[str] = []
    for feature in said(request):
        verdict = honours.verdicts.get(feature, DROPPED)
        name = words.name(feature.value, fields)
        if verdict.fate == "approximated":
            near.setdefault(name, verdict.note)
        elif verdict.fate == "dropped":
            dropped.append(name)
        else:
            honoured.append(name)
    travels = bool(origin.dialect) and origin.dialect == honours.dialect
    understood = honours.extras.get(origin.dialect, frozenset())
    for name in origin.unknown(fields):
        if travels or name in understood:
            honoured.append(name)
        else:
            dropped.append(name)
    if not (travels and origin.verbatim):
        dropped.extend(origin.lost)
    return Report(
        tuple(dict.fromkeys(name for name in honoured if name not in near and name not in dropped)),
        near,
        tuple(dict.fromkeys(dropped)),
    )

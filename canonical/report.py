"""What becomes of each thing a client said: honoured, approximated, dropped; or refused, which is an error instead.

A backend says what it honours (``Honours``), a dialect how its fields are called (``Vocabulary``), and ``report`` puts
the two together for one request, in the client's own words.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from msgspec import Struct, field

from canonical.errors import Unsupported
from canonical.features import LOADS, Feature, said
from canonical.loading import met
from canonical.origin import MORE, Vocabulary, top
from canonical.requests import AS_CONFIGURED, Embed, Generate, LoadOptions, Rerank

_NONE: frozenset[Feature] = frozenset()
NAMES, NAME = 5, 200
"""How many names of fields an error tells, and characters of each: clients choose them."""

Fate = Literal["honoured", "approximated", "dropped", "refused"]


class Verdict(Struct, frozen=True):
    """What a backend makes of one feature. ``note`` says how it is approximated, in words for the caller."""

    fate: Fate
    note: str = ""


HONOURED = Verdict("honoured")
DROPPED = Verdict("dropped")
IGNORED = Verdict("dropped", "the server was seen to ignore it")
"""Dropped even where the client's own words reach the server."""
REFUSED = Verdict("refused")
"""The backend's own code raises; a report never holds it."""


def approximated(note: str) -> Verdict:
    """A near thing is done instead: ``note`` says what."""
    return Verdict("approximated", note)


class Honours(Struct, frozen=True, eq=False):
    """What one model's backend does with everything that can be said to it."""

    verdicts: Mapping[Feature, Verdict] = field(default_factory=dict)
    """A feature that is missing here is dropped."""
    dialect: str = ""
    """Fields that only this dialect knows travel on as they came; empty: none do."""
    extras: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Dialect -> its fields without a canonical form that are understood all the same (``options.mirostat``)."""
    load: LoadOptions | None = None
    """How the model is loaded: who asks for no more gets it, whatever the verdict; another value takes a new load.
    None: that is none of the gateway's business."""
    refuses: Mapping[Feature, str] = field(default_factory=dict)
    """What this model's server was found to refuse, and its words: so nobody needs to ask it again."""


class Report(Struct, frozen=True):
    """One request's, in the client's names of its fields."""

    honoured: tuple[str, ...] = ()
    approximated: dict[str, str] = field(default_factory=dict)
    """Field -> what is done instead."""
    dropped: tuple[str, ...] = ()


def refusal(request: Generate | Embed | Rerank, honours: Honours) -> tuple[str, str] | None:
    """The first of what ``request`` says that is known to be refused: the client's name of it, and the server's words."""
    for feature in said(request):
        words = honours.refuses.get(feature)
        if words is not None:
            origin = request.origin
            return origin.vocabulary.name(feature, origin.spelled()), words
    return None


def forbidden(told: Report, model: str) -> Unsupported:
    """The error of a request that drops something where nothing may be. Its ``param`` is the first of these fields."""
    shown = [repr(name[:NAME]) for name in told.dropped[:NAMES]]
    rest = len(told.dropped) - len(shown)
    names = ", ".join(shown) + (f" and {rest} more" if rest else "")
    words = f'"{model}" cannot honour {names}, and strict is on'
    return Unsupported(words, param=told.dropped[0][:NAME], code="unsupported_parameter")


def report(request: Generate | Embed | Rerank, honours: Honours) -> Report:
    """What becomes of everything that ``request`` says, where it is answered by a model of these ``honours``.

    What the backend itself refuses is not in it: then there is an error, which says so.
    """
    origin = request.origin
    words = origin.vocabulary
    travels = bool(origin.dialect) and origin.dialect == honours.dialect
    features = tuple(said(request))
    as_loaded = _NONE if isinstance(request, Rerank) else _as_loaded(request.load, honours)
    fates = _fates(features, origin.spelled(), words, honours, travels, travels and origin.verbatim, as_loaded)
    unknown = origin.unknown()
    if not unknown and not origin.lost:
        return fates
    onward = origin.onward() if travels else {}
    understood = honours.extras.get(origin.dialect, frozenset())
    honoured, dropped = list(fates.honoured), list(fates.dropped)
    for name in unknown:
        field = top(name)
        kept = name in understood or field in onward or (travels and field in words.merged)
        kept = kept or (name == MORE and travels and origin.verbatim)
        (honoured if kept else dropped).append(name)
    dropped.extend(path for path in origin.lost if top(path) not in onward)
    return _told(honoured, fates.approximated, dropped)


def _as_loaded(wanted: LoadOptions, honours: Honours) -> frozenset[Feature]:
    """What is wanted of the model's load and so."""
    load = honours.load
    if load is None or wanted == AS_CONFIGURED:
        return _NONE
    return frozenset(
        feature for feature, field in LOADS.items() if met(field, getattr(wanted, field), getattr(load, field))
    )


@lru_cache(4096)
def _fates(  # noqa: PLR0917  positions, as the cache is slower by names
    features: tuple[Feature, ...],
    present: frozenset[str],
    words: Vocabulary,
    honours: Honours,
    travels: bool,
    verbatim: bool,
    as_loaded: frozenset[Feature],
) -> Report:
    """What becomes of ``features``. Remembered: most requests of one client say the same few."""
    own = (words.own | words.talk if verbatim else words.own) if travels else frozenset()
    honoured: list[str] = []
    near: dict[str, str] = {}
    dropped: list[str] = []
    for feature in features:
        verdict = honours.verdicts.get(feature, DROPPED)
        if feature in as_loaded:
            verdict = HONOURED
        name = words.name(feature, present)
        if verdict.fate == "honoured" or (top(name) in own and verdict is not IGNORED):
            honoured.append(name)
        elif verdict.fate == "approximated":
            near.setdefault(name, verdict.note)
        elif verdict.fate == "dropped":
            dropped.append(name)
    return _told(honoured, near, dropped)


def _told(honoured: list[str], near: dict[str, str], dropped: list[str]) -> Report:
    gone = dict.fromkeys(dropped)
    return Report(
        tuple(dict.fromkeys(name for name in honoured if name not in near and name not in gone)), near, tuple(gone)
    )

"""Text in another language: what is asked, and the answer."""

from __future__ import annotations

from msgspec import Struct


class Translate(Struct, frozen=True, kw_only=True):
    """Ask for each text in the language ``target``. Languages are codes as ``languages`` has them."""

    texts: tuple[str, ...]
    source: str
    target: str
    model: str = ""
    """Empty: whichever has the pair, or two of them by way of a third language."""
    alternatives: int = 0
    """How many other ways of saying each text are wanted; there may be fewer."""


class Translation(Struct, frozen=True, kw_only=True):
    """The answer: one text for each, in their order."""

    texts: tuple[str, ...]
    alternatives: tuple[tuple[str, ...], ...]
    """Other ways of saying each, the better ones first."""
    source: str
    """The language that they were in: as asked, or as found out."""
    target: str
    sure: float = 1.0
    """How sure it is that they are in that language."""
    models: tuple[str, ...] = ()
    """Those that translated, in their order."""
    via: tuple[str, ...] = ()
    """Languages between the two, where there was no direct way."""


class Guess(Struct, frozen=True, array_like=True):
    """A language that a text may be in, and how likely that is, 0 to 1."""

    language: str
    share: float

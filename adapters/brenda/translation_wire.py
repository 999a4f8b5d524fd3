"""What goes over the wire about translation: the document's fields, and what goes beyond it, told in ``translation``."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType, field


class TranslateRequest(Struct):
    """The body of ``translate``."""

    text: str | list[str]
    from_lang: str
    to_lang: str
    model: str = ""


class Translated(Struct, omit_defaults=True):
    """Its answer."""

    translated_text: str | list[str]
    from_: str = field(name="from")
    to: str
    via: str | UnsetType = UNSET


class Languages(Struct):
    """The answer of ``languages``: what each is translated into."""

    languages: dict[str, list[str]]
    via: dict[str, dict[str, str]]
    """Which of these go by way of a third language, and of which: ``{"fr": {"de": "en"}}``."""

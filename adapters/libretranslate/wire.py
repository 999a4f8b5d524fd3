"""What LibreTranslate's API has: the bodies of its routes, as LibreTranslate 1.9 reads and writes them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType


class TranslateRequest(Struct, kw_only=True):
    """The body of ``/translate``: JSON, or the same fields of a form."""

    q: str | list[str] = ""
    source: str = ""
    target: str = ""
    format: Literal["text", "html", ""] | None = "text"
    alternatives: int | None = 0
    api_key: str | None = None


class DetectRequest(Struct, kw_only=True):
    """The body of ``/detect``."""

    q: str | list[str] = ""
    api_key: str | None = None


Confidence = Annotated[float, Meta(ge=0, le=100)]


class Detected(Struct):
    """A language that a text may be in."""

    confidence: Confidence
    language: str


class Translated(Struct, kw_only=True, rename="camel"):
    """The answer of ``/translate``; of a list of texts each field is a list."""

    translated_text: str | list[str]
    detected_language: Detected | list[Detected] | UnsetType = UNSET
    alternatives: list[str] | list[list[str]] | UnsetType = UNSET
    via: str | UnsetType = UNSET
    """Ours: the language between, where no model knows both."""


class Language(Struct):
    """A row of ``/languages``."""

    code: str
    name: str
    targets: list[str]


class Named(Struct):
    """A language of the settings."""

    code: str
    name: str


class Between(Struct):
    """The languages that a page has chosen at first."""

    source: Named
    target: Named


class Settings(Struct, kw_only=True, rename="camel"):
    """The answer of ``/frontend/settings``."""

    char_limit: int
    frontend_timeout: int = 500
    api_keys: bool = False
    key_required: bool = False
    suggestions: bool = False
    files_translation: bool = False
    supported_files_format: list[str] = []
    language: Between


class Health(Struct):
    """The answer of ``/health``."""

    status: Literal["ok"] = "ok"

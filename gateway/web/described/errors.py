"""Errors that are a text and nothing else, which several dialects have."""

from __future__ import annotations

from msgspec import Struct


class Detail(Struct):
    """What failed, as FastAPI words it."""

    detail: str


class Words(Struct):
    """What failed."""

    error: str

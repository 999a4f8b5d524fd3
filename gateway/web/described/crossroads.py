"""Paths with several owners, told: how it is decided who answers, and what all answer together."""

from __future__ import annotations

from msgspec import Struct

from adapters.hybrid import wire as hybrid_wire
from adapters.openai import wire
from gateway.web.described.operation import Operation, json, ok, read


class Models(wire.ModelList, kw_only=True):
    """OpenAI's list, and Brenda's names beside it."""

    models: list[str]


class Loaded(wire.ModelList, kw_only=True):
    """OpenAI's list, and what is loaded beside it."""

    models: list[hybrid_wire.ModelRow]


class Together(Struct, frozen=True):
    """What several dialects answer with one answer."""

    of: tuple[str, ...]
    methods: dict[str, Operation]
    alone: str = ""
    """Who answers without the others where it stands before them."""


_BY_VERSION = "Several dialects have this path: with a header `anthropic-version` it is Anthropic's, else the other's."

HOW = {
    "/health": "Two dialects have this path. The hybrid API's answer has all that LibreTranslate's has.",
    "/models": (
        "Two dialects have this path. Where the hybrid API stands before all others it answers alone; "
        "else the answer has what both look for."
    ),
    "/v1/models": _BY_VERSION,
    "/v1/models/{model:path}": _BY_VERSION,
    "/v1/chat/completions": (
        "Two dialects have this path. It is Brenda's with a header `X-Session-ID`, with a top-level `system`, "
        "or with a message of role `ai`; else it is OpenAI's."
    ),
}

MERGED = {
    "/models": Together(
        ("openai", "hybrid"),
        read(Operation("List the models, and what is loaded", replies=ok(json(Loaded)))),
        alone="hybrid",
    ),
    "/v1/models": Together(
        ("openai", "brenda"), read(Operation("List the models, in both dialects' words", replies=ok(json(Models))))
    ),
}

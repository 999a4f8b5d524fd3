"""Paths with several owners, told: how it is decided who answers, and what all answer together."""

from __future__ import annotations

from msgspec import UNSET, Struct, UnsetType

from adapters.hybrid import wire as hybrid_wire
from adapters.images import wire as images_wire
from adapters.openai import wire
from gateway.web.described.operation import Operation, json, ok, read


class Models(wire.ModelList, kw_only=True):
    """OpenAI's list, and Brenda's names beside it."""

    models: list[str]


class AnyModel(hybrid_wire.ModelRow, kw_only=True):
    """A model that is loaded, or one that paints, or both."""

    samplers: list[str] | UnsetType = UNSET
    defaults: images_wire.Defaults | UnsetType = UNSET
    max_pixels: int | UnsetType | None = UNSET
    references: bool | UnsetType = UNSET


class AllModels(wire.ModelList, kw_only=True):
    """OpenAI's list, and beside it what is loaded and what paints."""

    models: list[AnyModel]


class Together(Struct, frozen=True):
    """What several dialects answer with one answer."""

    of: tuple[str, ...]
    """Any two of these."""
    methods: dict[str, Operation]
    alone: tuple[str, ...] = ()
    """Who answers without the others where it stands before them."""


_BY_VERSION = "Several dialects have this path: with a header `anthropic-version` it is Anthropic's, else the other's."

HOW = {
    "/generate": (
        "Two dialects have this path. Who names a model that paints gets a job, who names one that chats an answer; "
        "without a name, or with that of a model that does both, any field besides `prompt` and `model` means a job."
    ),
    "/health": (
        "Several dialects have this path. The answer of the image jobs has all that the hybrid API's has, "
        "and that all that LibreTranslate's has."
    ),
    "/models": (
        "Several dialects have this path. Where the hybrid API or the image jobs stand before all others they answer "
        "alone; else the answer has what all look for."
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
        ("openai", "hybrid", "images"),
        read(Operation("List the models, and what is loaded or paints", replies=ok(json(AllModels)))),
        alone=("hybrid", "images"),
    ),
    "/v1/models": Together(
        ("openai", "brenda"), read(Operation("List the models, in both dialects' words", replies=ok(json(Models))))
    ),
}

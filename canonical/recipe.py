"""What a model is made of, and what it brings along to every request: a Modelfile's content in our own words."""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from canonical.messages import Message


class Recipe(Struct, frozen=True, kw_only=True):
    """How to make a model. None: as the model it is made from has it."""

    source: str = ""
    """The model it is made from; empty: of ``files``."""
    files: dict[str, str] = field(default_factory=dict)
    """Relative file name -> ``sha256:<64 hex>`` of a blob that is there."""
    adapters: dict[str, str] = field(default_factory=dict)
    """LoRA adapters, likewise."""
    drafts: dict[str, str] = field(default_factory=dict)
    """A smaller model that guesses ahead, likewise."""
    template: str | None = None
    system: str | None = None
    licenses: tuple[str, ...] | None = None
    parameters: dict[str, Any] = field(default_factory=dict)
    """Ollama's options, laid over those of the source."""
    messages: tuple[Message, ...] | None = None
    requires: str = ""
    """The least version of Ollama that it says it needs."""
    quantize: str = ""
    """A type of llama.cpp (``Q4_K_M``); empty: as it is."""

"""The keys of config.yaml for models that llama.cpp runs: the backend's section, and one model's."""

from __future__ import annotations

from typing import Literal

from backends.base import Section

EngineName = Literal["xllamacpp", "llama-cpp-python"]
Thinking = Literal["auto", "on", "off"]


class LlamaCppModelSettings(Section, frozen=True):
    """How one model runs; what is left out comes from the backend's section."""

    file: str = ""
    """Inside ``models_dir``; empty: the model's id with ``.gguf``."""
    mmproj: str = ""
    """Its vision projector, inside ``models_dir``."""
    context: int | None = None
    """Tokens of one request, prompt and answer together."""
    slots: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None
    batch: int | None = None
    flash_attention: bool | None = None
    thinking: Thinking | bool = "auto"
    """Whether a model that can think does so unasked; ``auto``: yes, as Ollama's clients expect."""
    temperature: float | None = None
    """For requests that say none; absent: llama.cpp's own 0.8."""


class LlamaCppSettings(Section, frozen=True):
    """The backend's section of the configuration."""

    models_dir: str = "models"
    engine: EngineName = "xllamacpp"
    isolation: Literal["auto", "process", "none"] = "auto"
    """Where xllamacpp runs: in a worker process per model, or in this one (auto: see ``LlamaCppBackend.expose``)."""
    context: int = 4096
    slots: int = 4
    threads: int = 0
    """0: one for tiny models, else the physical cores, at most 8."""
    gpu_layers: int = -1
    """-1: all, where there is a GPU."""
    batch: int = 0
    """Prompt tokens computed at once, the grain in which a request can be stopped; 0: by the model's size."""
    flash_attention: bool | None = None


def check_figures(context: int, slots: int, count: int, batch: int) -> None:
    """Raises ValueError for a figure that cannot be."""
    if not 1 <= slots <= 256:
        raise ValueError(f"slots must be 1 to 256, not {slots}")
    if not 1 <= context <= 2**24:
        raise ValueError(f"context must be 1 to {2**24} tokens, not {context}")
    if not 0 <= count <= 512:
        raise ValueError(f"threads must be 0 to 512, not {count}")
    if not 0 <= batch <= 65_536:
        raise ValueError(f"batch must be 0 to 65536, not {batch}")

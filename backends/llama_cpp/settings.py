"""The keys of config.yaml for models that llama.cpp runs: the backend's section, and one model's.

How a model runs can be said for all of a backend's models, and for one; the names are llama.cpp's own where it has some.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, ClassVar, Literal

from msgspec import Meta

from backends.base import Section
from backends.fetching.hosts import PullSettings
from backends.llama_cpp.engine import CacheType, EngineName, Pooling, RopeScaling, SplitMode
from backends.workers.memory import memory_bytes

Isolation = Literal["auto", "process", "none"]
Thinking = Literal["auto", "on", "off"]
Switch = Literal["auto", "on", "off"] | bool

Count = Annotated[int, Meta(ge=0, le=65_536)]
Threads = Annotated[int, Meta(ge=0, le=512)]
Layers = Annotated[int, Meta(ge=-1, le=10_000)]
Share = Annotated[float, Meta(ge=0)]
Chance = Annotated[float, Meta(ge=0, le=1)]

GPUS = 128
"""As many as llama.cpp knows of."""


class Running(Section, frozen=True):
    """How a model runs. None: as the backend's section says, or as llama.cpp and the file would have it."""

    OTHER_NAMES: ClassVar[dict[str, str]] = {
        "ctx_size": "context",
        "n_ctx": "context",
        "num_ctx": "context",
        "n_gpu_layers": "gpu_layers",
        "num_gpu": "gpu_layers",
        "n_threads": "threads",
        "num_thread": "threads",
        "n_threads_batch": "threads_batch",
        "parallel": "slots",
        "n_parallel": "slots",
        "batch_size": "batch",
        "n_batch": "batch",
        "num_batch": "batch",
        "ubatch_size": "ubatch",
        "n_ubatch": "ubatch",
        "flash_attn": "flash_attention",
        "use_mmap": "mmap",
        "use_mlock": "mlock",
        "type_k": "cache_type_k",
        "type_v": "cache_type_v",
        "model_draft": "draft_model",
    }
    """What llama.cpp, its wrappers and Ollama call the same; taken as well."""

    context: Annotated[int, Meta(ge=1, le=2**24)] | None = None
    """Tokens of one request, prompt and answer together."""
    slots: Annotated[int, Meta(ge=1, le=256)] | None = None
    threads: Threads | None = None
    threads_batch: Threads | None = None
    gpu_layers: Layers | None = None
    main_gpu: Annotated[int, Meta(ge=0, lt=GPUS)] | None = None
    split_mode: SplitMode | None = None
    tensor_split: Annotated[tuple[Share, ...], Meta(max_length=GPUS)] | None = None
    override_tensor: str | None = None
    cpu_moe: bool | Count | None = None
    kv_offload: bool | None = None
    batch: Count | None = None
    ubatch: Count | None = None
    flash_attention: Switch | None = None
    cache_type_k: CacheType | None = None
    cache_type_v: CacheType | None = None
    swa_full: bool | None = None
    mmap: bool | None = None
    mlock: bool | None = None
    check_tensors: bool | None = None
    isolation: Isolation | None = None
    memory_limit: int | str | None = None
    """Bytes (or ``8GiB``) that a worker may have beside the mapped file; what wants more dies alone. 0: no limit. A model
    with a limit is isolated."""


class LoraSettings(Section, frozen=True):
    """An adapter of a model."""

    file: str
    """Inside ``models_dir``."""
    scale: float = 1.0


class LlamaCppModelSettings(Running, frozen=True):
    """One model; what is left out comes from the backend's section."""

    file: str = ""
    """Inside ``models_dir``; empty: the model's id with ``.gguf``."""
    mmproj: str = ""
    """Its vision projector, inside ``models_dir``."""
    mmproj_offload: bool = True
    """The projector computes on the GPU, where there is one."""
    image_min_tokens: Count = 0
    image_max_tokens: Count = 0
    lora: tuple[str | LoraSettings, ...] = ()
    """Adapters laid over its weights: names of files, or each with a scale."""
    draft_model: str = ""
    """A small model of the same vocabulary that guesses ahead, inside ``models_dir``."""
    draft_max: Annotated[int, Meta(ge=1, le=256)] = 16
    draft_min: Annotated[int, Meta(ge=0, le=256)] = 0
    draft_p_min: Chance = 0.75
    gpu_layers_draft: Layers | None = None
    """As ``gpu_layers``, for the draft model; absent: the same."""
    chat_template: str = ""
    """A Jinja text instead of the file's own."""
    pooling: Pooling = ""
    rope_scaling: RopeScaling = ""
    rope_freq_base: Share = 0.0
    rope_freq_scale: Share = 0.0
    yarn_orig_ctx: Annotated[int, Meta(ge=0, le=2**24)] = 0
    yarn_ext_factor: float = -1.0
    yarn_attn_factor: float = -1.0
    yarn_beta_slow: float = -1.0
    yarn_beta_fast: float = -1.0
    thinking: Thinking | bool = "auto"
    """Whether a model that can think does so unasked; ``auto``: yes, as Ollama's clients expect."""
    temperature: float | None = None
    """For requests that say none; absent: llama.cpp's own 0.8."""

    @property
    def loras(self) -> tuple[LoraSettings, ...]:
        """``lora`` in its long form."""
        return tuple(LoraSettings(file=one) if isinstance(one, str) else one for one in self.lora)


class LlamaCppSettings(Running, frozen=True):
    """The backend's section of the configuration."""

    models_dir: str = "models"
    store: str = "data/models"
    """Where models are pulled and made, in Ollama's layout; empty: nowhere."""
    also_read: tuple[str, ...] = ()
    """Folders of other programs whose models are offered as they lie there: Ollama's store, LM Studio's models."""
    pull: PullSettings = PullSettings()
    engine: EngineName = "xllamacpp"
    isolation: Isolation = "auto"
    """Where xllamacpp runs: in a worker process per model, or in this one; auto: see ``Runners.apart``."""
    context: Annotated[int, Meta(ge=1, le=2**24)] = 4096
    slots: Annotated[int, Meta(ge=1, le=256)] = 4
    threads: Threads = 0
    """0: one for tiny models, else the physical cores, at most 8."""
    gpu_layers: Layers = -1
    """-1: all, where there is a GPU."""
    batch: Count = 0
    """Prompt tokens computed at once, the grain in which a request can be stopped; 0: by the model's size."""
    hang: Annotated[float, Meta(ge=0)] = 60.0
    """Seconds without a sign of life after which an engine counts as hung; 0: never."""


def merged(common: Running, own: Running) -> Running:
    """How a model runs: as it says itself, else as its backend does."""
    values = {name: getattr(own, name) for name in Running.__struct_fields__}
    return Running(
        **{name: getattr(common, name) if value is None else value for name, value in values.items()},
    )


def check_running(settings: Running, engine: EngineName) -> None:
    """Raises ValueError for what no type tells: values of one key that another forbids."""
    limit = memory_bytes(settings.memory_limit)
    if settings.isolation == "none":
        if engine == "llama-cpp-python":
            raise ValueError("isolation none: the engine llama-cpp-python always runs in a worker")
        if limit:
            raise ValueError("memory_limit is of a worker, and isolation none has none")
    if settings.override_tensor:
        for pair in settings.override_tensor.split(","):
            pattern, _, place = pair.partition("=")
            if not pattern or not place:
                raise ValueError("override_tensor is pattern=buffer, with commas between several")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"override_tensor: {pattern!r} is not a pattern: {error}") from error
    if settings.cache_type_v not in {None, "f16", "f32", "bf16"} and settings.flash_attention in {"off", False}:
        raise ValueError(f"cache_type_v {settings.cache_type_v} needs flash_attention")
    if settings.tensor_split and not any(settings.tensor_split):
        raise ValueError("tensor_split gives no GPU a share")


def check_model(settings: LlamaCppModelSettings, common: LlamaCppSettings) -> None:
    """Raises ValueError for what a model's settings cannot be, or its engine cannot do."""
    engine = common.engine
    check_running(merged(common, settings), engine)
    if settings.draft_min > settings.draft_max:
        raise ValueError("draft_min is more than draft_max")
    if settings.image_max_tokens and settings.image_min_tokens > settings.image_max_tokens:
        raise ValueError("image_min_tokens is more than image_max_tokens")
    if not all(math.isfinite(lora.scale) for lora in settings.loras):
        raise ValueError("the scale of a lora is a finite number")
    if engine == "llama-cpp-python":
        for name in ("mmproj", "draft_model"):
            if getattr(settings, name):
                raise ValueError(f"the engine llama-cpp-python has no {name}")


def is_on(switch: Switch | None) -> bool | None:
    """``on``, ``off`` and ``auto`` as yes, no and None."""
    return {"on": True, "off": False, True: True, False: False}.get(switch) if switch is not None else None

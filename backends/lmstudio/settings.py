"""What config.yaml can say of an LM Studio and of how it loads its models."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, field

from backends.base import Section
from backends.upstream import RemoteSettings, Seconds
from canonical.durations import seconds
from canonical.requests import LoadOptions

Count = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Cache = Literal["f32", "f16", "q8_0", "q4_0", "q4_1", "iq4_nl", "q5_0", "q5_1"]

TOKEN = re.compile(r"sk-lm-([A-Za-z0-9]{8}):([A-Za-z0-9]{20})")
"""Its API tokens: the websockets want both parts."""


class Loading(Section, frozen=True, omit_defaults=True):
    """How a model is loaded; what is left out is as its user set it in LM Studio."""

    context: Count | None = None
    """Tokens."""
    gpu: Share | Literal["max", "off"] | None = None
    """How much of the model goes to the GPU."""
    flash_attention: bool | None = None
    batch: Count | None = None
    """Prompt tokens computed at once."""
    kv_offload: bool | None = None
    """Keep the cache in the GPU's memory."""
    mmap: bool | None = None
    keep_in_memory: bool | None = None
    """Keep it in RAM as well, when the GPU has it."""
    experts: Count | None = None
    cache_type_k: Cache | None = None
    cache_type_v: Cache | None = None


class LMStudioSettings(RemoteSettings, frozen=True):
    """``url`` is where its server listens: ``http://127.0.0.1:1234``. ``api_key`` is an API token of its."""

    load: Loading = Loading()
    """For models whose entries say nothing else."""
    jit: bool = False
    """Leave loading to LM Studio: it loads with its own defaults when a request comes, and one such model at a time."""
    ttl: float | str | None = None
    """Idle time after which LM Studio itself lets go of a model, should this gateway have gone; -1: never. Without it, an
    hour for what was loaded for us, and what LM Studio is set to for what it loads by itself."""
    load_time: Seconds = 300.0
    """Seconds that a load may go without progress, or take as a whole where LM Studio tells none."""

    def __post_init__(self) -> None:
        """As for every backend behind HTTP; and the time must be one."""
        super().__post_init__()
        if self.ttl is not None and seconds(self.ttl) == 0:
            raise ValueError("ttl must be longer than nothing: a loaded model would not wait for its first request")


class EntrySettings(Section, frozen=True):
    """What the entry of one model can say."""

    load: Loading = field(default_factory=Loading)


def settled(*layers: Loading, options: LoadOptions) -> Loading:
    """One configuration of several: a later one's values count, and last what a request wants."""
    values: dict[str, Any] = {}
    for layer in layers:
        values |= {name: value for name in Loading.__struct_fields__ if (value := getattr(layer, name)) is not None}
    if options.context is not None:
        values["context"] = options.context
    if options.batch is not None:
        values["batch"] = options.batch
    if options.mmap is not None:
        values["mmap"] = options.mmap
    if options.gpu_layers is not None and options.gpu_layers <= 0:
        values["gpu"] = "max" if options.gpu_layers else "off"
    return Loading(**values)


def for_package(config: Loading, *, embeds: bool) -> dict[str, Any]:
    """The same as the official package calls it. Models that make vectors know fewer settings."""
    told: dict[str, Any] = {
        "contextLength": config.context,
        "gpu": None if config.gpu is None else {"ratio": config.gpu},
        "tryMmap": config.mmap,
        "keepModelInMemory": config.keep_in_memory,
    }
    if not embeds:
        told |= {
            "flashAttention": config.flash_attention,
            "evalBatchSize": config.batch,
            "offloadKVCacheToGpu": config.kv_offload,
            "numExperts": config.experts,
            "llamaKCacheQuantizationType": config.cache_type_k,
            "llamaVCacheQuantizationType": config.cache_type_v,
        }
    return {name: value for name, value in told.items() if value is not None}


_REST = {
    "context": "context_length",
    "batch": "eval_batch_size",
    "flash_attention": "flash_attention",
    "kv_offload": "offload_kv_cache_to_gpu",
    "experts": "num_experts",
}


def for_rest(config: Loading, *, embeds: bool) -> tuple[dict[str, Any], list[str]]:
    """The same as its REST calls it, and the names of what that does not know."""
    said = {name: value for name in Loading.__struct_fields__ if (value := getattr(config, name)) is not None}
    words = {"context": _REST["context"]} if embeds else _REST
    return {words[name]: said[name] for name in said if name in words}, [name for name in said if name not in _REST]

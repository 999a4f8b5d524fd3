"""What a model takes in memory before it is loaded: weights, keys and values, working memory. Estimated upwards, from its head.

That the engine may share less between processor and GPU than thought, or keep a window of the past only, makes it less.
"""

from __future__ import annotations

from pathlib import Path

from backends.base import Need
from backends.llama_cpp.engine import Start
from backends.llama_cpp.files import Offered
from backends.llama_cpp.gguf import Head

BASE = 64 * 1024 * 1024
"""Of every model, whatever its size: buffers of the engine, and its process where it has one."""
_VOCABULARY = 262_144
"""Tokens, where the file does not tell."""
_ELEMENT = {
    "f32": 4.0,
    "f16": 2.0,
    "bf16": 2.0,
    "q8_0": 34 / 32,
    "q5_1": 24 / 32,
    "q5_0": 22 / 32,
    "q4_1": 20 / 32,
    "q4_0": 18 / 32,
    "iq4_nl": 18 / 32,
}
"""Bytes of one number in a cache of each type, with its share of the scales."""


def need_of(offered: Offered, start: Start, *, gpu: bool | None) -> Need:
    """What a load by ``start`` takes. ``gpu`` None: only the engine knows whether there is one, so all counts as RAM."""
    head = offered.head
    blocks = head.number(f"{head.family}.block_count")
    layers = blocks + 1 if start.gpu_layers < 0 else min(start.gpu_layers, blocks + 1)
    share = layers / (blocks + 1) if gpu else 0.0
    weights = offered.info.size
    cache = cache_bytes(head, start)
    work = _work(head, start)
    projector = _size(start.projector) * 1.2
    extras = sum(_size(lora.path) for lora in start.loras)
    draft = _size(start.draft.path) * 1.2 if start.draft is not None else 0.0
    there = weights * share + extras * share + (work if share else 0)
    there += cache * share if start.kv_offload else 0
    there += projector if share and start.projector_gpu else 0
    there += draft if share and start.draft is not None and start.draft.gpu_layers else 0
    whole = weights + cache + work + projector + extras + draft
    mapped = 0 if start.mmap is False or start.mlock else int(weights * (1 - share))
    # Where all is on the GPU, its table of tokens stays here, and what is computed passes through here.
    here = max(whole - there, 0) + (work if share else 0)
    return Need(ram=int(here) + BASE, vram=int(there) + (BASE if share else 0), mapped=mapped)


def cache_bytes(head: Head, start: Start) -> float:
    """Keys and values of all slots, in the types they are kept in."""
    plain = head.cache_bytes(start.context * start.slots) / 2 / 2  # each of the two, in numbers of two bytes
    family = head.family
    keys = head.number(f"{family}.attention.key_length")
    values = head.number(f"{family}.attention.value_length")
    part = keys / (keys + values) if keys and values else 0.5
    return plain * 2 * (part * _ELEMENT[start.cache_type_k] + (1 - part) * _ELEMENT[start.cache_type_v])


def _work(head: Head, start: Start) -> float:
    """What computing one batch takes: the layers' values, the scores of all tokens, and without flash attention those of all pairs."""
    family = head.family
    width = head.number(f"{family}.embedding_length") or 1
    inner = head.number(f"{family}.feed_forward_length") or 4 * width
    heads = head.number(f"{family}.attention.head_count")
    tokens = min(head.number(f"{family}.vocab_size") or _VOCABULARY, head.parameters // width + 1)
    batch = max(start.ubatch or start.batch, start.batch_gpu)
    pairs = heads * start.context * start.slots if start.flash_attention is False else 0
    return 4.0 * batch * (tokens + 12 * width + 3 * inner + pairs) + 4.0 * tokens * start.slots


def _size(path: str) -> int:
    """Bytes of a file; none where it is not there: its load will say so."""
    try:
        return Path(path).stat().st_size if path else 0
    except OSError:
        return 0

"""``Start`` in the structs of llama-cpp-python's low-level API: models, contexts, adapters.

What llama.cpp is given by pointer has to outlive the call that takes it: ``Told`` keeps it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import llama_cpp.llama_cpp as native
from llama_cpp._ggml import libggml

from backends.llama_cpp.engine import Start, Unable, experts

Far = Callable[[float], bool]
"""Takes how much of a model is loaded, 0 to 1; False aborts the load."""

_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8, "iq4_nl": 20, "bf16": 30}
"""ggml's numbers, which files have too."""
_ALL = 9999
"""Layers, for builds that do not know -1."""
_REASONS = 8
"""Lines of the log that may tell why a load failed."""
_ERROR = 4
"""Level of the log."""


class _Override(ctypes.Structure):
    _fields_ = (("pattern", ctypes.c_char_p), ("buffer", ctypes.c_void_p))


class Told:
    """A model's parameters, and what they point to."""

    def __init__(self, start: Start, far: Far | None = None) -> None:
        """Raises Unable for what this build of llama.cpp does not have."""
        self._kept: list[Any] = []
        params = self.params = native.llama_model_default_params()
        params.n_gpu_layers = start.gpu_layers if start.gpu_layers >= 0 else _ALL
        params.main_gpu = start.main_gpu
        params.split_mode = getattr(native, f"LLAMA_SPLIT_MODE_{start.split_mode.upper()}")
        if start.tensor_split:
            shares = (ctypes.c_float * native.llama_max_devices())(*start.tensor_split[: native.llama_max_devices()])
            params.tensor_split = self._keep(shares)
        pairs = [*filter(None, start.override_tensor.split(",")), *experts(start.cpu_moe)]
        if pairs:
            rows = [_Override(*self._override(pair)) for pair in pairs]
            table = self._keep((_Override * (len(rows) + 1))(*rows))  # the last, all zeros, ends it
            params.tensor_buft_overrides = ctypes.cast(table, ctypes.c_void_p)
        mapped = {None: "AUTO", True: "MMAP", False: "NONE"}[start.mmap]
        if start.mlock:
            mapped = "MLOCK" if start.mmap is False else "MMAP_MLOCK"
        params.load_mode = getattr(native, f"LLAMA_LOAD_MODE_{mapped}")
        params.check_tensors = start.check_tensors
        if far is not None:
            params.progress_callback = self._keep(native.llama_progress_callback(lambda part, _data: far(part)))

    def _keep(self, thing: Any) -> Any:
        self._kept.append(thing)
        return thing

    def _override(self, pair: str) -> tuple[bytes, int]:
        pattern, _, name = pair.partition("=")
        buffers = _buffers()
        if name not in buffers:
            raise Unable(f"override_tensor: there is no {name!r}, but {', '.join(sorted(buffers))}")
        return self._keep(pattern.encode()), buffers[name]


def context_params(start: Start, *, sequences: int = 1) -> Any:
    """What ``llama_init_from_model`` takes for ``sequences`` with ``start.context`` tokens each."""
    params = native.llama_context_default_params()
    params.n_ctx = start.context * sequences
    params.n_batch, params.n_ubatch = start.batch, start.ubatch or start.batch
    params.n_seq_max = sequences
    params.n_threads, params.n_threads_batch = start.threads, start.threads_batch or start.threads
    params.embeddings = start.embedding
    if start.ranking or start.pooling:
        kind = "RANK" if start.ranking else start.pooling.upper()
        params.pooling_type = getattr(native, f"LLAMA_POOLING_TYPE_{kind}")
    if start.flash_attention is not None:
        params.flash_attn_type = int(start.flash_attention)
    params.type_k, params.type_v = _TYPES[start.cache_type_k], _TYPES[start.cache_type_v]
    params.offload_kqv = start.kv_offload
    params.swa_full = start.swa_full
    rope = start.rope
    if rope.scaling:
        params.rope_scaling_type = getattr(native, f"LLAMA_ROPE_SCALING_TYPE_{rope.scaling.upper()}")
    params.rope_freq_base, params.rope_freq_scale = rope.freq_base, rope.freq_scale
    params.yarn_orig_ctx = rope.yarn_orig_ctx
    params.yarn_ext_factor, params.yarn_attn_factor = rope.yarn_ext_factor, rope.yarn_attn_factor
    params.yarn_beta_slow, params.yarn_beta_fast = rope.yarn_beta_slow, rope.yarn_beta_fast
    params.no_perf = True
    return params


def lay_over(model: Any, context: Any, start: Start) -> None:
    """Apply the adapters; they are freed with the model.

    Raises:
        RuntimeError: one is no adapter, or none of this model.
    """
    if not start.loras:
        return
    adapters = []
    for lora in start.loras:
        adapter = native.llama_adapter_lora_init(model, lora.path.encode())
        if not adapter:
            raise RuntimeError("the adapter cannot be laid over this model")
        adapters.append(adapter)
    table = (native.llama_adapter_lora_p_ctypes * len(adapters))(*adapters)
    scales = (ctypes.c_float * len(adapters))(*(lora.scale for lora in start.loras))
    if native.llama_set_adapters_lora(context, table, len(adapters), scales):
        raise RuntimeError("the adapters cannot be laid over this model")


class Log:
    """Takes llama.cpp's log: silent, but for what went wrong while ``listening``, which no client has written.

    llama.cpp calls it until the end of the process, so it must live as long.
    """

    def __init__(self) -> None:
        self.listening = False
        self.reasons: list[str] = []
        self.callback = native.llama_log_callback(self._take)
        native.llama_log_set(self.callback, None)

    def _take(self, level: int, text: bytes, _data: Any) -> None:
        if self.listening and level == _ERROR and len(self.reasons) < _REASONS:
            self.reasons.append(text.decode(errors="replace").strip())


def _buffers() -> dict[str, int]:
    """Where tensors can be: names as ``override_tensor`` writes them."""
    libggml.ggml_backend_dev_count.restype = ctypes.c_size_t
    for name, takes in (
        ("ggml_backend_dev_get", ctypes.c_size_t),
        ("ggml_backend_dev_buffer_type", ctypes.c_void_p),
    ):
        getattr(libggml, name).argtypes = [takes]
        getattr(libggml, name).restype = ctypes.c_void_p
    libggml.ggml_backend_buft_name.argtypes = [ctypes.c_void_p]
    libggml.ggml_backend_buft_name.restype = ctypes.c_char_p
    found = {}
    for index in range(libggml.ggml_backend_dev_count()):
        buffer = libggml.ggml_backend_dev_buffer_type(libggml.ggml_backend_dev_get(index))
        if buffer:
            found[libggml.ggml_backend_buft_name(buffer).decode()] = buffer
    return found

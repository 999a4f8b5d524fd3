"""How a model is started: its settings, its backend's and a request's wishes, with what its file says, as one ``Start``.

The engine and whoever weighs the model beforehand are told the same.
"""

from __future__ import annotations

import os

from msgspec import structs

from backends.llama_cpp.engine import Draft, Rope, Start
from backends.llama_cpp.files import Offered
from backends.llama_cpp.settings import LlamaCppModelSettings, LlamaCppSettings, is_on, merged
from canonical.errors import InvalidRequest
from canonical.models import Capability
from canonical.requests import LoadOptions

TINY = 20 * 1024 * 1024
"""Bytes of a file below which a second thread costs more at its barriers than it computes, and a load takes no time."""
WIDEST = 4096
"""Prompt tokens that a request may have computed at once; the working memory grows with them."""
_MOST = 2**31
_OPERATIONS = 1.2e9
"""Parameters times prompt tokens that one thread gets through in some 40 ms (measured: 150M, Q8_0, one EPYC core)."""
_BATCHES = (512, 256, 128, 64, 32, 16, 8)


def start_of(offered: Offered, common: LlamaCppSettings, options: LoadOptions, *, gpu: bool | None) -> Start:
    """What the engine is told of a model. ``gpu``: there is one that it can use; None: only the engine knows.

    Raises:
        InvalidRequest: a wish that cannot be.
    """
    own, head = offered.settings, offered.head
    run = merged(common, own)
    count = _threads(options, run.threads) or default_threads(head.size)
    context = _context(options, offered)
    layers = (run.gpu_layers or 0) if options.gpu_layers is None else max(options.gpu_layers, -1)
    usable = gpu is not False and layers != 0
    wished = _batch(options) or run.batch
    batch = wished or (512 if gpu and usable else default_batch(head.parameters, count))
    able = offered.info.capabilities
    ranking = Capability.RERANK in able
    embedding = ranking or Capability.EMBED in able
    slots = run.slots or 1
    if context * slots >= _MOST:
        raise InvalidRequest(f"{slots} slots of {context} tokens are more than the engine can count", param="num_ctx")
    draft = _draft(offered, own, layers if own.gpu_layers_draft is None else own.gpu_layers_draft)
    # An encoder takes a text in one batch or not at all; a batch below the slots aborts the process.
    batch = context if embedding else max(min(batch, context), slots)
    moe = run.cpu_moe or 0
    return Start(
        path=str(offered.path),
        projector=str(offered.projector) if offered.projector else "",
        projector_gpu=own.mmproj_offload and usable,
        image_min_tokens=own.image_min_tokens,
        image_max_tokens=own.image_max_tokens,
        loras=offered.loras,
        draft=draft if usable or draft is None else structs.replace(draft, gpu_layers=0),
        template=offered.template,
        embedding=embedding,
        ranking=ranking,
        pooling=own.pooling,
        threads=count,
        threads_batch=run.threads_batch or 0,
        context=context,
        slots=slots,
        batch=batch,
        batch_gpu=min(512, context) if gpu is None and usable and not wished and not embedding else 0,
        ubatch=0 if embedding else min(run.ubatch or 0, batch),
        gpu_layers=layers if usable else 0,
        main_gpu=_main_gpu(options, run.main_gpu),
        split_mode=run.split_mode or "layer",
        tensor_split=run.tensor_split or (),
        override_tensor=run.override_tensor or "",
        cpu_moe=-1 if moe is True else int(moe),
        kv_offload=run.kv_offload is not False,
        flash_attention=is_on(run.flash_attention),
        cache_type_k=run.cache_type_k or "f16",
        cache_type_v=run.cache_type_v or "f16",
        swa_full=bool(run.swa_full),
        rope=Rope(
            scaling=own.rope_scaling,
            freq_base=own.rope_freq_base,
            freq_scale=own.rope_freq_scale,
            yarn_orig_ctx=own.yarn_orig_ctx,
            yarn_ext_factor=own.yarn_ext_factor,
            yarn_attn_factor=own.yarn_attn_factor,
            yarn_beta_slow=own.yarn_beta_slow,
            yarn_beta_fast=own.yarn_beta_fast,
        ),
        mmap=run.mmap if options.mmap is None else options.mmap,
        mlock=bool(run.mlock),
        check_tensors=bool(run.check_tensors),
    )


def default_threads(size: int) -> int:
    """How many threads compute a model of so many bytes: barriers spin, so never more than there are real cores."""
    if size < TINY:
        return 1
    usable = _cores()
    return max(1, min(8, usable // 2 if usable > 2 else 1))


def default_batch(parameters: int, count: int) -> int:
    """Prompt tokens at once: small enough to stop within 100 ms where that is possible at all.

    A model too large for that at 8 tokens gets 32, which costs it less speed and still stops within a second or two.
    """
    tokens = _OPERATIONS * count / max(parameters, 1)
    return next((batch for batch in _BATCHES if batch <= tokens), 32)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _context(options: LoadOptions, offered: Offered) -> int:
    wished = options.context
    if not wished:
        return offered.info.context_length
    if wished < 0:
        raise InvalidRequest(f"a context has 1 token or more, not {wished}", param="num_ctx")
    # Clients ask every model for the same; what it has is told with the answer.
    return min(wished, max(offered.head.context_length, offered.info.context_length) or wished, 2**24)


def _threads(options: LoadOptions, configured: int | None) -> int:
    """A request may have as many as there are cores; more would only make them wait for each other."""
    wished = options.threads or 0
    return min(wished, _cores()) if wished > 0 else configured or 0


def _batch(options: LoadOptions) -> int:
    return max(0, min(options.batch or 0, WIDEST))


def _main_gpu(options: LoadOptions, configured: int | None) -> int:
    wished = configured if options.main_gpu is None else options.main_gpu
    if wished is not None and not 0 <= wished < 128:
        raise InvalidRequest(f"there is no GPU {wished}", param="main_gpu")
    return wished or 0


def _draft(offered: Offered, own: LlamaCppModelSettings, layers: int) -> Draft | None:
    if offered.draft is None:
        return None
    return Draft(
        path=str(offered.draft), max=own.draft_max, min=own.draft_min, p_min=own.draft_p_min, gpu_layers=layers
    )

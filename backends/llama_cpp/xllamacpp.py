"""The default engine: llama.cpp's own server core, in a wheel. Slots, continuous batching, templates, grammars, vision.

It opens an HTTP listener whether one wants it or not. Nothing here uses it, so it listens on a socket file that is
removed at once, with a random key that nobody knows, and every page and endpoint that can be switched off is off.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import secrets
import shutil
import socket
import tempfile
import urllib.parse
from pathlib import Path

import msgspec
import xllamacpp

from backends.llama_cpp.engine import Counted, Draft, Emit, Kind, Start, experts, is_error, write_error
from backends.llama_cpp.places import Places

SILENT = -1
_PROGRESS = b'"prompt_progress":'
_LENGTH = re.compile(rb'(?:"prompt_progress":\{"total"|"n_prompt_tokens"):(\d+)')


def has_gpu() -> bool:
    """Whether this build of llama.cpp sees a device other than the CPU."""
    return any(str(device["type"]).endswith(("TYPE_GPU", "TYPE_IGPU")) for device in xllamacpp.get_device_info())


class XLlamaCpp:
    """One model in one server core. Each running request blocks a thread of its caller's."""

    def __init__(self, start: Start, *, verbosity: int = SILENT) -> None:
        """Load the model.

        Raises:
            RuntimeError, ValueError: llama.cpp refuses the file or the figures.
        """
        folder = _short_folder()
        try:
            params = params_of(start, str(folder / "unused.sock") if folder else "")
            params.verbosity = verbosity
            self._server: xllamacpp.Server | None = xllamacpp.Server(params)
            self._places = Places(start.slots)
            self._settle(start)
        finally:
            if folder is not None:  # with the name gone nobody can connect
                shutil.rmtree(folder, ignore_errors=True)

    @property
    def address(self) -> str:
        """Where the unwanted listener is; for the test that it refuses everybody."""
        return str(self._running.listening_address)

    @property
    def _running(self) -> xllamacpp.Server:
        if self._server is None:
            raise RuntimeError("the model is closed")
        return self._server

    def stream(self, kind: Kind, body: bytes, emit: Emit) -> None:
        """See ``Engine``. The core calls back per token and per prompt batch; True stops it there."""
        handle = self._running.handle_completions if kind == "completion" else self._running.handle_chat_completions
        stopped = False

        def take(chunk: bytes) -> bool:
            nonlocal stopped
            if kind == "count":
                # The first word, before anything is computed, tells how long the prompt is; so does the refusal of one
                # that is too long.
                found = _LENGTH.search(chunk)
                emit(msgspec.json.encode(Counted(int(found[1]))) if found else chunk)
                stopped = True
                return True
            stopped = stopped or emit(b"" if _PROGRESS in chunk and not is_error(chunk) else chunk)
            return stopped

        try:
            with self._places.taken(body) as placed:
                handle(placed, take)
        except (ValueError, RuntimeError, TypeError) as error:
            # What its parsers of requests, templates and schemas refuse; failures of the core come as chunks.
            if not stopped:
                emit(write_error(400, str(error)))

    def embed(self, body: bytes) -> bytes:
        """See ``Engine``."""
        try:
            return bytes(self._running.handle_embeddings(body))
        except (ValueError, RuntimeError, TypeError) as error:
            return write_error(400, str(error))

    def rerank(self, body: bytes) -> bytes:
        """See ``Engine``."""
        try:
            return bytes(self._running.handle_rerank(body))
        except (ValueError, RuntimeError, TypeError) as error:
            return write_error(400, str(error))

    def _settle(self, start: Start) -> None:
        """Wait until both of its loops run.

        Destroying a server whose threads have not entered their loops yet waits for them for ever: one close in a few
        dozen, when it followed the load at once. An answer from each shows that it is past that; a refusal would not,
        for it comes from before the queue. The prompt is text, as token ids are refused beside a projector.

        Raises:
            RuntimeError: the model does not answer.
        """
        answers: list[bytes] = []

        def take(chunk: bytes) -> bool:
            answers.append(chunk)
            return False

        if start.ranking:
            take(self.rerank(b'{"query":"a","documents":["a"]}'))
        elif start.embedding:
            take(self.embed(b'{"input":"a"}'))
        else:
            self.stream("completion", b'{"prompt":"a","max_tokens":1,"stream":true}', take)
        if not answers or is_error(answers[0]):
            raise RuntimeError(f"the model loads but does not answer: {answers[:1]}")
        with contextlib.closing(_Line(self.address)) as listener:
            listener.request("GET", "/health")
            listener.getresponse().read()

    def close(self) -> None:
        """See ``Engine``."""
        server, self._server = self._server, None
        del server


class _Line(http.client.HTTPConnection):
    """To a server on a socket file, or on a port."""

    def __init__(self, address: str) -> None:
        place = urllib.parse.urlsplit(address)
        self._path = place.path if place.scheme == "unix" else ""
        super().__init__(place.netloc or "localhost", timeout=10)

    def connect(self) -> None:
        if not self._path:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def _short_folder() -> Path | None:
    """A folder of our own whose path leaves room for the name of a socket; None: no such files here."""
    if not hasattr(socket, "AF_UNIX"):
        return None
    for parent in (None, "/tmp"):  # noqa: S108  # the folder in it is ours alone
        with contextlib.suppress(OSError):
            folder = Path(tempfile.mkdtemp(prefix="dragoman-", dir=parent))
            if len(bytes(folder)) < 80:
                return folder
            folder.rmdir()
    return None


def params_of(start: Start, address: str = "") -> xllamacpp.CommonParams:
    """Everything that the core is told. ``address``: of the listener that it insists on."""
    params = xllamacpp.CommonParams()
    params.model.path = start.path
    params.model_alias = {"model"}  # the default is the path, and that is nobody's business
    if start.projector:
        params.mmproj.path = start.projector
        params.mmproj_use_gpu = start.projector_gpu
        params.image_min_tokens = start.image_min_tokens or -1
        params.image_max_tokens = start.image_max_tokens or -1
    if start.loras:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora.path, lora.scale) for lora in start.loras]
    params.chat_template = start.template
    params.cpuparams.n_threads = start.threads
    params.cpuparams_batch.n_threads = start.threads_batch or start.threads
    params.n_parallel = start.slots
    params.n_ctx = start.context * start.slots
    params.n_batch, params.n_ubatch = start.batch, start.ubatch or start.batch
    params.swa_full = start.swa_full
    params.warmup = True
    params.use_jinja = True
    params.enable_reasoning = 0  # off unless the request says so; its own default turns it on for every request
    params.cache_ram_mib = 0  # prompts of idle slots stay in their slots, not in gigabytes beside them
    params.ctx_shift = False
    _place(params, start)
    _count(params, start)
    if start.draft is not None:
        _guess(params, start.draft, start)
    if start.embedding:
        params.embedding = True
    if start.ranking or start.pooling:
        kind = "RANK" if start.ranking else start.pooling.upper()
        params.pooling_type = xllamacpp.llama_pooling_type[f"LLAMA_POOLING_TYPE_{kind}"]
    params.hostnames, params.port = [address or "127.0.0.1"], 0
    params.api_keys = [secrets.token_hex(32)]
    params.n_threads_http = 1
    params.ui = params.endpoint_metrics = params.endpoint_props = params.endpoint_slots = False
    with contextlib.suppress(AttributeError):  # younger than the rest
        params.cors_origins, params.cors_credentials = "", False
    return params


def _place(params: xllamacpp.CommonParams, start: Start) -> None:
    """Where the weights are, and how they come there."""
    params.n_gpu_layers = start.gpu_layers
    params.main_gpu = start.main_gpu
    params.split_mode = xllamacpp.llama_split_mode[f"LLAMA_SPLIT_MODE_{start.split_mode.upper()}"]
    if start.tensor_split:
        params.tensor_split = [*start.tensor_split, *[0.0] * (len(params.tensor_split) - len(start.tensor_split))]
    moved = [start.override_tensor, *experts(start.cpu_moe)]
    if any(moved):
        params.tensor_buft_overrides = ",".join(filter(None, moved))
    params.no_kv_offload = not start.kv_offload
    mapped = {None: "AUTO", True: "MMAP", False: "NONE"}[start.mmap]
    if start.mlock:
        mapped = "MLOCK" if start.mmap is False else "MMAP_MLOCK"
    params.load_mode = xllamacpp.llama_load_mode[f"LLAMA_LOAD_MODE_{mapped}"]
    params.check_tensors = start.check_tensors
    params.fit_params = False  # it would change the context behind our back


def _count(params: xllamacpp.CommonParams, start: Start) -> None:
    """How attention is computed and its past kept."""
    params.flash_attn_type = -1 if start.flash_attention is None else int(start.flash_attention)
    params.cache_type_k = xllamacpp.ggml_type[f"GGML_TYPE_{start.cache_type_k.upper()}"]
    params.cache_type_v = xllamacpp.ggml_type[f"GGML_TYPE_{start.cache_type_v.upper()}"]
    rope = start.rope
    if rope.scaling:
        params.rope_scaling_type = xllamacpp.llama_rope_scaling_type[f"LLAMA_ROPE_SCALING_TYPE_{rope.scaling.upper()}"]
    params.rope_freq_base, params.rope_freq_scale = rope.freq_base, rope.freq_scale
    params.yarn_orig_ctx = rope.yarn_orig_ctx
    params.yarn_ext_factor, params.yarn_attn_factor = rope.yarn_ext_factor, rope.yarn_attn_factor
    params.yarn_beta_slow, params.yarn_beta_fast = rope.yarn_beta_slow, rope.yarn_beta_fast


def _guess(params: xllamacpp.CommonParams, draft: Draft, start: Start) -> None:
    speculative = params.speculative
    speculative.types = [xllamacpp.common_speculative_type.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
    small = speculative.draft
    small.mparams.path = draft.path
    small.n_max, small.n_min, small.p_min = draft.max, draft.min, draft.p_min
    small.n_gpu_layers = draft.gpu_layers
    small.cpuparams.n_threads, small.cpuparams_batch.n_threads = start.threads, start.threads_batch or start.threads

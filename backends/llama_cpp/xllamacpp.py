"""The default engine: llama.cpp's own server core, in a wheel. Slots, continuous batching, templates, grammars, vision.

It opens an HTTP listener on a random loopback port whether one wants it or not. Nothing here uses it, so it gets a
random key that nobody knows, and every page and endpoint that can be switched off is off.
"""

from __future__ import annotations

import contextlib
import http.client
import re
import secrets
import urllib.parse

import msgspec
import xllamacpp

from backends.llama_cpp.engine import Counted, Emit, Kind, Start, is_error, write_error

_PROGRESS = b'"prompt_progress":'
_LENGTH = re.compile(rb'(?:"prompt_progress":\{"total"|"n_prompt_tokens"):(\d+)')


def has_gpu() -> bool:
    """Whether this build of llama.cpp sees a device other than the CPU."""
    return any(str(device["type"]).endswith(("TYPE_GPU", "TYPE_IGPU")) for device in xllamacpp.get_device_info())


class XLlamaCpp:
    """One model in one server core. Each running request blocks a thread of its caller's."""

    def __init__(self, start: Start) -> None:
        """Load the model.

        Raises:
            RuntimeError, ValueError: llama.cpp refuses the file or the figures.
        """
        self._server: xllamacpp.Server | None = xllamacpp.Server(_params(start))
        self._settle(start)

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
            handle(body, take)
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
        place = urllib.parse.urlsplit(self.address)
        with contextlib.closing(http.client.HTTPConnection(place.netloc, timeout=10)) as listener:
            listener.request("GET", "/health")
            listener.getresponse().read()

    def close(self) -> None:
        """See ``Engine``."""
        server, self._server = self._server, None
        del server


def _params(start: Start) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.verbosity = -1
    params.model.path = start.path
    params.model_alias = {"model"}  # the default is the path, and that is nobody's business
    if start.projector:
        params.mmproj.path = start.projector
        params.mmproj_use_gpu = start.gpu_layers != 0
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = start.threads
    params.n_parallel = start.slots
    params.n_ctx = start.context * start.slots
    params.n_batch, params.n_ubatch = start.batch, start.batch
    params.n_gpu_layers = start.gpu_layers
    params.fit_params = False  # it would change the context behind our back
    params.flash_attn_type = -1 if start.flash_attention is None else int(start.flash_attention)
    params.warmup = True
    params.use_jinja = True
    params.enable_reasoning = 0  # off unless the request says so; its own default turns it on for every request
    params.cache_ram_mib = 0  # prompts of idle slots stay in their slots, not in gigabytes beside them
    params.ctx_shift = False
    if start.embedding:
        params.embedding = True
    if start.ranking:
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [secrets.token_hex(32)]
    params.n_threads_http = 1
    params.ui = params.endpoint_metrics = params.endpoint_props = params.endpoint_slots = False
    with contextlib.suppress(AttributeError):  # younger than the rest
        params.cors_origins, params.cors_credentials = "", False
    return params

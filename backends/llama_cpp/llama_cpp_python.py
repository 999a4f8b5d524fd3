"""The second engine: llama-cpp-python's low-level bindings, in ``batching``; always in a worker process.

llama.cpp does the numbers; prompts, grammars of schemas, thoughts and tool calls are done here and in ``answer``.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

# A build with OpenMP has its threads spin while they wait, on cores that others need: a step took 636 ms instead of 18.
# The library reads this once, when it is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import llama_cpp.llama_cpp as native
import msgspec
from msgspec import Struct, structs

from backends.llama_cpp.batching.asked import Reading, read_body
from backends.llama_cpp.batching.loop import Loop
from backends.llama_cpp.batching.refusal import Refused
from backends.llama_cpp.batching.task import Task
from backends.llama_cpp.batching.vectors import AT_ONCE, Vectors, unit
from backends.llama_cpp.batching.vocabulary import Vocabulary
from backends.llama_cpp.engine import Counted, Emit, Kind, Start, write_error
from backends.llama_cpp.native import Far, Log, Told, context_params, lay_over
from backends.llama_cpp.sampling import BadSampling
from backends.llama_cpp.templates import ChatTemplate, TemplateError
from canonical.errors import InvalidRequest

_log = Log()


class _Inputs(Struct):
    input: list[str | list[int]]


class _Query(Struct):
    query: str
    documents: list[str]


_inputs = msgspec.json.Decoder(_Inputs)
_query = msgspec.json.Decoder(_Query)


class LlamaCppPython:
    """One model in one llama.cpp context, with a sequence for every slot."""

    def __init__(self, start: Start, far: Far | None = None, *, cells: int = 0) -> None:
        """Load the model; ``far`` is told how much of it is there. ``cells``: tokens that all slots may hold together.

        Raises:
            RuntimeError: llama.cpp refuses the file or the figures, or ``far`` has ended the load.
            Unable: this build of llama.cpp lacks what is asked for.
        """
        native.llama_backend_init()
        if start.batch_gpu and native.llama_supports_gpu_offload():
            start = structs.replace(start, batch=max(start.batch_gpu, start.slots))
        told = Told(start, far)
        with _reasons("llama.cpp cannot load the file"):
            self._model = _there(native.llama_model_load_from_file(start.path.encode(), told.params))
        try:
            with _reasons("llama.cpp cannot make a context of these figures"):
                self._context = _there(native.llama_init_from_model(self._model, _params(start, cells)))
            lay_over(self._model, self._context, start)
        except BaseException:
            native.llama_model_free(self._model)
            raise
        self._start = start
        self.vocabulary = Vocabulary(self._model)
        self._reading = self._read_template()
        self._vectors: Vectors | None = None
        self.loop: Loop | None = None
        if start.embedding or start.ranking:
            self._vectors = Vectors(
                self._model,
                self._context,
                ranking=start.ranking,
                limit=start.context,
                room=max(start.batch, start.context),
            )
        else:
            self.loop = Loop(
                self._context,
                size=self.vocabulary.size,
                slots=start.slots,
                chunk=start.batch,
                partial=_partial(self._model, start),
            )

    def stream(self, kind: Kind, body: bytes, emit: Emit) -> None:
        """See ``Engine``. Of the thread that computes, ``emit`` is only asked whether to go on."""
        try:
            read = read_body(body)
            if kind == "count":
                tokens, _ = self._reading.prompt(kind, read)
                emit(msgspec.json.encode(Counted(len(tokens))))
                return
            task = Task(self._reading.read(kind, read), emit, self.vocabulary, context=self._start.context)
        except Refused as refused:
            emit(refused.chunk)
        except (BadSampling, TemplateError, InvalidRequest, msgspec.MsgspecError) as error:
            emit(write_error(400, str(error)))
        else:
            assert self.loop is not None  # a model of vectors is asked for nothing else
            self.loop.run(task)

    def embed(self, body: bytes) -> bytes:
        """See ``Engine``."""
        vocabulary = self.vocabulary
        try:
            rows = [
                vocabulary.tokens([text], special=True) if isinstance(text, str) else vocabulary.checked(text)
                for text in _inputs.decode(body).input
            ]
            vectors = [unit(vector) for vector in self._pooled(rows)]
        except Refused as refused:
            return refused.chunk
        except msgspec.MsgspecError as error:
            return write_error(400, str(error))
        data = [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)]
        return _whole("data", data, sum(map(len, rows)))

    def rerank(self, body: bytes) -> bytes:
        """See ``Engine``."""
        try:
            asked = _query.decode(body)
            rows = [self.vocabulary.pair(asked.query, document) for document in asked.documents]
            scores = [vector[0] for vector in self._pooled(rows)]
        except Refused as refused:
            return refused.chunk
        except msgspec.MsgspecError as error:
            return write_error(400, str(error))
        results = [{"index": index, "relevance_score": score} for index, score in enumerate(scores)]
        return _whole("results", results, sum(map(len, rows)))

    def close(self) -> None:
        """See ``Engine``."""
        if self.loop is not None:
            self.loop.close()
        native.llama_free(self._context)
        native.llama_model_free(self._model)

    def _pooled(self, rows: list[list[int]]) -> list[list[float]]:
        if self._vectors is None:
            raise Refused(501, "this model makes no vectors")
        return self._vectors.of(rows)

    def _read_template(self) -> Reading:
        written = native.llama_model_chat_template(self._model, None)
        source = self._start.template or (written.decode(errors="replace") if written else "")
        vocabulary, template = self.vocabulary, None
        if source:
            template = ChatTemplate(source, bos=vocabulary.name(vocabulary.bos), eos=vocabulary.name(vocabulary.eos))
        return Reading(vocabulary, template, source, self._start.context)


@contextlib.contextmanager
def _reasons(words: str) -> Iterator[None]:
    """Add to a failure what llama.cpp has to say about it."""
    _log.reasons.clear()
    _log.listening = True
    try:
        yield
    except RuntimeError:
        raise RuntimeError(": ".join([words, *_log.reasons[-1:]])) from None
    finally:
        _log.listening = False


def _there(pointer: Any) -> Any:
    if not pointer:
        raise RuntimeError
    return pointer


def _params(start: Start, cells: int) -> Any:
    if start.embedding or start.ranking:
        params = context_params(start)
        params.n_ctx = params.n_batch = params.n_ubatch = max(start.batch, start.context)
        params.embeddings = True
        params.n_seq_max = AT_ONCE
    else:
        params = context_params(start, sequences=start.slots)
        params.n_ctx = cells or start.context * start.slots
        # A step is a token for each answer and a piece of the prompts, computed in one go.
        params.n_batch = start.slots + start.batch
        params.n_ubatch = start.slots + (min(start.ubatch, start.batch) or start.batch)
        params.n_outputs_max = start.slots
    params.kv_unified = True  # without it no slot could share what another has computed
    return params


def _partial(model: Any, start: Start) -> bool:
    """Whether a part of what a sequence holds can be dropped or copied."""
    if native.llama_model_is_recurrent(model) or native.llama_model_is_hybrid(model):
        return False
    return start.swa_full or native.llama_model_n_swa(model) <= 0


def _whole(name: str, rows: list[dict[str, Any]], count: int) -> bytes:
    usage = {"prompt_tokens": count, "total_tokens": count}
    return msgspec.json.encode({"model": "model", name: rows, "usage": usage})

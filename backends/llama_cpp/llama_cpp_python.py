"""The second engine: llama-cpp-python's low-level bindings, one generation at a time, always in a worker process.

llama.cpp does the numbers; prompts, grammars of schemas, thoughts and tool calls are done here and in ``answer``. The
prompt is computed in batches and the answer token by token, with a look at the stop flag between any two.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import time
from typing import Any

import llama_cpp.llama_cpp as native
import msgspec
import numpy as np
from llama_cpp.llama_grammar import SchemaConverter
from msgspec import Raw, Struct

from backends.base import new_call_id
from backends.llama_cpp import answer
from backends.llama_cpp.engine import Counted, Emit, Kind, Start, write_error
from backends.llama_cpp.sampling import BadSampling, Chain, Draw
from backends.llama_cpp.templates import ChatTemplate, TemplateError
from canonical.errors import InvalidRequest
from canonical.forced import NO_ARGUMENTS
from canonical.limits import check_grammar
from canonical.think import CLOSE, OPEN

_silent = native.llama_log_callback(lambda _level, _text, _data: None)
"""Kept for the life of the process: llama.cpp calls it until the end."""


class _JsonSchema(Struct):
    schema: Any = msgspec.field(default_factory=dict)


class _Format(Struct):
    type: str = "text"
    json_schema: _JsonSchema = msgspec.field(default_factory=_JsonSchema)


class _Body(Draw, kw_only=True):
    messages: list[dict[str, Any]] = msgspec.field(default_factory=list)
    prompt: str | list[int | str] = ""
    tools: list[dict[str, Any]] = msgspec.field(default_factory=list)
    tool_choice: str | dict[str, Any] = "auto"
    response_format: _Format | None = None
    grammar: str = ""
    json_schema: Raw = Raw()
    chat_template_kwargs: dict[str, Any] = msgspec.field(default_factory=dict)
    stop: list[str] = msgspec.field(default_factory=list)
    max_tokens: int | None = None
    ignore_eos: bool = False
    logprobs: bool | int | None = None
    top_logprobs: int | None = None
    thinking_budget_tokens: int | None = None
    parallel_tool_calls: bool | None = None


class _Inputs(Struct):
    input: list[str | list[int]]


class _Query(Struct):
    query: str
    documents: list[str]


class _Refused(Exception):
    """The request cannot be answered; the chunk says why."""

    def __init__(self, status: int, message: str, *, context: int = 0) -> None:
        super().__init__(message)
        kind = "exceed_context_size_error" if context else "invalid_request_error"
        self.chunk = write_error(status, message, kind, context=context)


_body = msgspec.json.Decoder(_Body)
_inputs = msgspec.json.Decoder(_Inputs)
_query = msgspec.json.Decoder(_Query)


class LlamaCppPython:
    """One model in one llama.cpp context with one sequence."""

    def __init__(self, start: Start) -> None:
        """Load the model.

        Raises:
            RuntimeError: llama.cpp refuses the file or the figures.
        """
        native.llama_log_set(_silent, None)
        native.llama_backend_init()
        params = native.llama_model_default_params()
        params.n_gpu_layers = start.gpu_layers if start.gpu_layers >= 0 else 999
        self._model = native.llama_model_load_from_file(start.path.encode(), params)
        if not self._model:
            raise RuntimeError("llama.cpp cannot load the file")
        self._vocab = native.llama_model_get_vocab(self._model)
        self._size = native.llama_vocab_n_tokens(self._vocab)
        context = native.llama_context_default_params()
        context.n_ctx = start.context
        context.n_batch = context.n_ubatch = start.batch
        context.n_seq_max = 1
        context.n_threads = context.n_threads_batch = start.threads
        context.embeddings = start.embedding
        if start.ranking:
            context.pooling_type = native.LLAMA_POOLING_TYPE_RANK
        context.no_perf = True
        if start.flash_attention is not None:
            context.flash_attn_type = int(start.flash_attention)
        self._context = native.llama_init_from_model(self._model, context)
        if not self._context:
            native.llama_model_free(self._model)
            raise RuntimeError("llama.cpp cannot make a context of these figures")
        self._start = start
        self._memory = native.llama_get_memory(self._context)
        self._held: list[int] = []  # the tokens whose keys and values the context holds
        self._template = self._read_template()

    def stream(self, kind: Kind, body: bytes, emit: Emit) -> None:
        """See ``Engine``."""
        try:
            self._generate(kind, _body.decode(body), emit)
        except _Refused as refused:
            emit(refused.chunk)
        except (BadSampling, TemplateError, InvalidRequest, msgspec.MsgspecError) as error:
            emit(write_error(400, str(error)))

    def embed(self, body: bytes) -> bytes:
        """See ``Engine``."""
        try:
            rows = [
                self._tokens([text], special=True) if isinstance(text, str) else self._checked(text)
                for text in _inputs.decode(body).input
            ]
            vectors = [self._vector(row) for row in rows]
        except _Refused as refused:
            return refused.chunk
        except msgspec.MsgspecError as error:
            return write_error(400, str(error))
        count = sum(map(len, rows))
        return msgspec.json.encode(
            {
                "model": "model",
                "data": [{"index": index, "embedding": vector} for index, vector in enumerate(vectors)],
                "usage": {"prompt_tokens": count, "total_tokens": count},
            }
        )

    def rerank(self, body: bytes) -> bytes:
        """See ``Engine``."""
        try:
            asked = _query.decode(body)
            rows = [self._pair(asked.query, document) for document in asked.documents]
            scores = [self._pooled(row)[0] for row in rows]
        except _Refused as refused:
            return refused.chunk
        except msgspec.MsgspecError as error:
            return write_error(400, str(error))
        count = sum(map(len, rows))
        return msgspec.json.encode(
            {
                "model": "model",
                "results": [{"index": index, "relevance_score": score} for index, score in enumerate(scores)],
                "usage": {"prompt_tokens": count, "total_tokens": count},
            }
        )

    def close(self) -> None:
        """See ``Engine``."""
        native.llama_free(self._context)
        native.llama_model_free(self._model)

    def _generate(self, kind: Kind, body: _Body, emit: Emit) -> None:
        calls = bool(body.tools) and body.tool_choice != "none"
        thinks = None
        if kind != "completion":
            text = self._rendered(body)
            tokens = self._tokens([text], special=not self._begins(text))
            if OPEN in self._source:
                thinks = text.rstrip().endswith(OPEN)
        else:
            prompt = [body.prompt] if isinstance(body.prompt, str) else body.prompt
            tokens = self._tokens(prompt, special=all(isinstance(piece, str) for piece in prompt))
        if not tokens:
            tokens = [native.llama_vocab_bos(self._vocab)]
        if kind == "count":
            emit(msgspec.json.encode(Counted(len(tokens))))
            return
        if len(tokens) >= self._start.context:
            raise _Refused(
                400,
                f"request ({len(tokens)} tokens) exceeds the available context size ({self._start.context} tokens)",
                context=self._start.context,
            )
        grammar = self._grammar(body, calls=calls)
        if thinks and grammar:
            thinks = False  # what the grammar makes is the answer, though the prompt has opened a thought
        writer = answer.Writer(kind, thinks=thinks, calls=calls, new_id=new_call_id)
        chain = Chain(body, self._vocab, grammar=grammar)
        try:
            self._run(tokens, body, chain, writer, emit)
        finally:
            chain.free()

    def _run(self, tokens: list[int], body: _Body, chain: Chain, writer: answer.Writer, emit: Emit) -> None:
        begun = time.monotonic()
        cached = self._reuse(tokens)
        at = cached
        while at < len(tokens):
            if emit(b""):
                return
            batch = tokens[at : at + self._start.batch]
            self._decode(batch)
            at += len(batch)
        computed = time.monotonic()
        text, count, reason = answer.Text(body.stop), 0, "length"
        budget = answer.Budget(body.thinking_budget_tokens)
        ending: list[int] = []  # what ends the thoughts; the model does not choose it
        alternatives = self._alternatives(body)
        limit = self._start.context - len(tokens)
        if body.max_tokens is not None:
            limit = min(limit, max(body.max_tokens, 1))
        if emit(writer.begin()):
            return
        while True:
            if budget.spent(writer):
                ending = self._tokens([CLOSE], special=False)
            token = ending.pop(0) if ending else chain.sample(self._context)
            count += 1
            final = bool(native.llama_vocab_is_eog(self._vocab, token)) and not body.ignore_eos
            if not final:
                piece = self._piece(token)
                logprobs = [] if alternatives is None else [self._logprob(token, alternatives)]
                for chunk in writer.feed(text.feed(piece), logprobs):
                    if emit(chunk):
                        return
                budget.count(writer, count)
            if final or text.stopped or (writer.calls and body.parallel_tool_calls is False):
                reason = "stop"
                break
            if count >= limit:
                break
            if emit(b""):
                return
            self._decode([token])
        for chunk in writer.feed("" if text.stopped else text.feed(b"", final=True), []) + writer.finish(reason):
            if emit(chunk):
                return
        emit(
            answer.usage(
                prompt=len(tokens),
                cached=cached,
                completion=count,
                prompt_ms=(computed - begun) * 1000,
                eval_ms=(time.monotonic() - computed) * 1000,
                reasoning=budget.told,
                stop=text.stop,
            )
        )

    def _reuse(self, tokens: list[int]) -> int:
        """Keep what the context already holds of this prompt; how many tokens that is. The last is always computed."""
        most = min(len(self._held), len(tokens) - 1)
        same = next((at for at in range(most) if self._held[at] != tokens[at]), most)
        if not native.llama_memory_seq_rm(self._memory, 0, same, -1):
            native.llama_memory_clear(self._memory, True)  # recurrent memory: no part of it can be dropped
            same = 0
        del self._held[same:]
        return same

    def _decode(self, tokens: list[int]) -> None:
        array = (native.llama_token * len(tokens))(*tokens)
        code = native.llama_decode(self._context, native.llama_batch_get_one(array, len(tokens)))
        if code:
            self._forget()
            raise RuntimeError(f"llama_decode answered {code}")
        self._held += tokens

    def _forget(self) -> None:
        self._held.clear()
        if self._memory:
            native.llama_memory_clear(self._memory, True)

    def _pair(self, query: str, document: str) -> list[int]:
        """A query and a document as models that rank were taught to read them, by llama.cpp's own rules."""
        vocab = self._vocab
        form = native.llama_model_chat_template(self._model, b"rerank")
        if form:
            before, _, rest = form.decode(errors="replace").partition("{query}")
            between, _, after = rest.partition("{document}")
            return self._tokens([before + query + between + document + after], special=False)
        begin = native.llama_vocab_bos(vocab) if native.llama_vocab_get_add_bos(vocab) else -1
        separator = native.llama_vocab_sep(vocab)
        end = native.llama_vocab_eos(vocab)
        end = (separator if end < 0 else end) if native.llama_vocab_get_add_eos(vocab) else -1
        if not native.llama_vocab_get_add_sep(vocab):
            separator = -1
        asked, told = (self._tokens([text], special=False, written=False) for text in (query, document))
        return [token for token in (begin, *asked, end, separator, *told, end) if token >= 0]

    def _vector(self, tokens: list[int]) -> list[float]:
        vector = self._pooled(tokens)
        length = math.sqrt(sum(value * value for value in vector))
        return [value / length for value in vector] if length else vector

    def _pooled(self, tokens: list[int]) -> list[float]:
        """What the model makes of a whole text: a vector, or the outputs of a rank head.

        Of those only so many are there; llama.cpp's own wrapper reads behind their end.
        """
        limit = self._start.context
        if len(tokens) > limit:
            raise _Refused(400, f"input ({len(tokens)} tokens) is too large to process. increase the context ({limit})")
        self._forget()
        self._decode(tokens)
        self._held.clear()
        pointer = native.llama_get_embeddings_seq(self._context, 0)
        if not pointer:
            raise _Refused(501, "this model gives no embedding of a whole text")
        size = native.llama_model_n_cls_out if self._start.ranking else native.llama_model_n_embd
        return list(pointer[: size(self._model)])

    def _rendered(self, body: _Body) -> str:
        if self._template is None:
            raise _Refused(501, "this model has no chat template")
        kwargs = {"tools": body.tools or None, **body.chat_template_kwargs}
        if body.tool_choice == "none":
            kwargs["tools"] = None
        return self._template.render([_plain(message) for message in body.messages], **kwargs)

    def _grammar(self, body: _Body, *, calls: bool) -> str:
        form = body.response_format
        schema: Any = None
        if bytes(body.json_schema) not in {b"", b"null"}:
            schema = json.loads(bytes(body.json_schema))
        elif form is not None and form.type == "json_schema":
            schema = form.json_schema.schema
        elif form is not None and form.type == "json_object":
            schema = {"type": "object"}
        forced = calls and body.tool_choice != "auto"
        if sum((bool(body.grammar), schema is not None, forced)) > 1:
            raise _Refused(400, "only one of a grammar, a schema and a forced tool can hold for an answer")
        if forced:
            return _forced(body)
        return body.grammar if schema is None else _gbnf(schema)

    def _alternatives(self, body: _Body) -> int | None:
        if body.logprobs is None or body.logprobs is False:
            return None
        return body.top_logprobs or 0 if body.logprobs is True else body.logprobs

    def _logprob(self, token: int, alternatives: int) -> dict[str, Any]:
        logits = np.ctypeslib.as_array(native.llama_get_logits_ith(self._context, -1), (self._size,)).astype(np.float64)
        logs = logits - (logits.max() + np.log(np.exp(logits - logits.max()).sum()))
        best = np.argsort(logs)[::-1][:alternatives]
        return {
            **self._named(token, float(logs[token])),
            "top_logprobs": [self._named(int(other), float(logs[other])) for other in best],
        }

    def _named(self, token: int, value: float) -> dict[str, Any]:
        piece = self._piece(token)
        return {"token": piece.decode(errors="replace"), "bytes": list(piece), "logprob": value}

    def _piece(self, token: int, *, special: bool = False) -> bytes:
        buffer = ctypes.create_string_buffer(64)
        count = native.llama_token_to_piece(self._vocab, token, buffer, 64, 0, special)
        if count < 0:
            buffer = ctypes.create_string_buffer(-count)
            count = native.llama_token_to_piece(self._vocab, token, buffer, -count, 0, special)
        return buffer.raw[:count]

    def _tokens(
        self, pieces: list[str] | list[int] | list[int | str], *, special: bool, written: bool = True
    ) -> list[int]:
        """``special``: begin as texts begin; ``written``: what is written like a special token is that token."""
        tokens: list[int] = []
        for index, piece in enumerate(pieces):
            if isinstance(piece, int):
                tokens += self._checked([piece])
                continue
            data = piece.encode()
            room = len(data) + 8
            array = (native.llama_token * room)()
            first = special and index == 0
            count = native.llama_tokenize(self._vocab, data, len(data), array, room, first, written)
            if count < 0:
                raise _Refused(400, "the text cannot be tokenized")
            tokens += array[:count]
        return tokens

    def _checked(self, tokens: list[int]) -> list[int]:
        if any(not 0 <= token < self._size for token in tokens):
            raise _Refused(400, "Prompt contains invalid tokens")
        return tokens

    def _begins(self, text: str) -> bool:
        """Whether a template has already written the token that begins a text."""
        bos = self._text_of(native.llama_vocab_bos(self._vocab))
        return bool(bos) and text.startswith(bos)

    def _text_of(self, token: int) -> str:
        return self._piece(token, special=True).decode(errors="replace") if token >= 0 else ""

    def _read_template(self) -> ChatTemplate | None:
        source = native.llama_model_chat_template(self._model, None)
        self._source = source.decode(errors="replace") if source else ""
        if not self._source:
            return None
        bos, eos = native.llama_vocab_bos(self._vocab), native.llama_vocab_eos(self._vocab)
        return ChatTemplate(self._source, bos=self._text_of(bos), eos=self._text_of(eos))


def _plain(message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates expect it: text for content, objects for arguments."""
    plain = dict(message)
    content = plain.get("content")
    if isinstance(content, list):
        if any(part.get("type") != "text" for part in content):
            raise _Refused(501, "this engine takes text only")
        plain["content"] = "".join(part["text"] for part in content)
    elif content is None:
        plain["content"] = ""
    if plain.get("tool_calls"):
        plain["tool_calls"] = [_called(call) for call in plain["tool_calls"]]
    return plain


def _called(call: dict[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function", {}))
    with contextlib.suppress(ValueError):  # what an earlier model wrote wrong stays as it was written
        function["arguments"] = json.loads(function.get("arguments") or "{}")
    return {**call, "function": function}


class _Converter(SchemaConverter):
    """The package's own, which takes the backslashes of JSON for those of a grammar."""

    def _format_literal(self, literal: str) -> str:
        text = json.dumps(json.loads(literal), ensure_ascii=False).replace("\\", "\\\\")
        return str(super()._format_literal(text))  # type: ignore[no-untyped-call]


def _gbnf(schema: Any) -> str:
    try:
        made: Any = _Converter
        converter = made(prop_order={}, allow_fetch=False, dotall=False, raw_pattern=False)
        converter.visit(converter.resolve_refs(json.loads(json.dumps(schema)), "stdin"), "")
        grammar: str = converter.format_grammar()
        grammar.encode()
    except (KeyError, AssertionError, ValueError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise _Refused(501, f"this schema is not supported by this engine: {error!r}") from error
    # A string of JSON has no control characters, which this generator forgets.
    grammar = grammar.replace('char ::= [^"\\\\] |', 'char ::= [^"\\\\\\x7F\\x00-\\x1F] |', 1)
    check_grammar(grammar)
    return grammar


def _forced(body: _Body) -> str:
    """A grammar of exactly one call, of any tool or of the named one."""
    named = body.tool_choice.get("function", {}).get("name") if isinstance(body.tool_choice, dict) else None
    functions = [tool["function"] for tool in body.tools if named in {None, tool["function"]["name"]}]
    if not functions:
        raise _Refused(400, f"there is no tool named {str(named)[:64]!r}")
    choices = [
        {
            "type": "object",
            "properties": {
                "name": {"const": function["name"]},
                "arguments": function.get("parameters", NO_ARGUMENTS),
            },
            "required": ["name", "arguments"],
        }
        for function in functions
    ]
    lines = _gbnf({"anyOf": choices}).splitlines()
    renamed = ["forced-call" + line[4:] if line.startswith("root ::=") else line for line in lines]
    return "\n".join([*renamed, 'root ::= "<tool_call>\\n" forced-call "\\n</tool_call>"'])

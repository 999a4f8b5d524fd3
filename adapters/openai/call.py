"""Us as client of any OpenAI-compatible server: requests written, catalogs and vectors read.

The readers of answers stand in ``answers``, errors in ``errors``; they are named here, so that a backend has one import.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Raw

from adapters.openai import seen, wire
from adapters.openai.answers import ChatReader, CompletionReader, read_chat, read_completion
from adapters.openai.embeddings import unpack
from adapters.openai.errors import in_band_error, read_error
from adapters.openai.fields import THINK, refuse_dangerous
from adapters.openai.messages import write_messages
from adapters.openai.rerank import read_ranking, write_rerank
from adapters.openai.vocabulary import REASONING
from canonical.errors import BackendError, Unsupported
from canonical.models import Capability, ModelInfo
from canonical.requests import Embed, Embeddings, Generate, Output, Sampling, Tool, ToolChoice

__all__ = [
    "ChatReader",
    "CompletionReader",
    "read_chat",
    "read_completion",
    "read_embeddings",
    "read_error",
    "read_models",
    "read_ranking",
    "write_chat",
    "write_completion",
    "write_embeddings",
    "write_rerank",
]

Limit = Literal["max_tokens", "max_completion_tokens"]
"""How a server wants the limit spelled: most local ones know only the first, reasoning models of clouds only the second."""

_DRAW = tuple(name for name in Sampling.__struct_fields__ if name != "max_tokens")

_encode = msgspec.json.Encoder().encode
_models = msgspec.json.Decoder(seen.Models, strict=False)
_embeddings = msgspec.json.Decoder(seen.Embeddings, strict=False)
_CAPABILITIES = {capability.value: capability for capability in Capability}


def write_chat(request: Generate, model: str, *, limit: Limit = "max_tokens") -> bytes:
    """The body of ``/v1/chat/completions``. A stream always asks for usage: the gateway wants the counts.

    Raises:
        Unsupported: an extra field of the client's would steer the backend itself.
    """
    said = _said(request)
    body = _common(request, model)
    if "messages" not in said:
        body["messages"] = write_messages(request.messages)
    if request.sampling.max_tokens is not None:
        body[limit] = request.sampling.max_tokens
    if request.top_logprobs is not None:
        body["logprobs"] = True
        # With 0 llama.cpp gives none at all; who asked for none gets none: the server half cuts.
        body["top_logprobs"] = max(request.top_logprobs, 1)
    if request.tools and "tools" not in said:
        body["tools"] = [_tool(tool) for tool in request.tools]
    if request.tool_choice is not None:
        body["tool_choice"] = _tool_choice(request.tool_choice)
    if request.parallel_tool_calls is not None and request.tools:
        body["parallel_tool_calls"] = request.parallel_tool_calls
    if request.output is not None and "response_format" not in said:
        body["response_format"] = _response_format(request.output)
    if request.think is not None and said.keys().isdisjoint(REASONING):
        body["reasoning_effort"] = THINK[request.think]
    return _encode({**body, **said})


def write_completion(request: Generate, model: str) -> bytes:
    """The body of ``/v1/completions``.

    Raises:
        Unsupported: as for ``write_chat``; or the answer is to have a form, for which this route has no word.
    """
    if request.output is not None:
        raise Unsupported("an OpenAI backend holds no form of the answer to a prompt as it stands", param="format")
    body = _common(request, model)
    if request.prompt is not None:
        tokens = request.prompt.tokens
        body["prompt"] = request.prompt.text if tokens is None else tokens
        if request.prompt.suffix is not None:
            body["suffix"] = request.prompt.suffix
    # An absent limit means 16 tokens here. Null means none to vLLM and llama-server.
    body["max_tokens"] = request.sampling.max_tokens
    if request.top_logprobs is not None:
        body["logprobs"] = max(request.top_logprobs, 1)  # as in a chat
    return _encode({**body, **_said(request)})


def write_embeddings(request: Embed, model: str) -> bytes:
    """The body of ``/v1/embeddings``. It asks for numbers, as not every server knows base64.

    Raises:
        Unsupported: as for ``write_chat``.
    """
    body: dict[str, Any] = {"model": model, "input": request.inputs, "encoding_format": "float"}
    if request.dimensions is not None:
        body["dimensions"] = request.dimensions
    return _encode({**body, **_said(request)})


def read_embeddings(body: bytes) -> Embeddings:
    """The vectors in the order of their inputs.

    Raises:
        BackendError: the body is not this format, or tells of a failure.
    """
    try:
        reply = _embeddings.decode(body)
        if reply.error:
            raise in_band_error(reply.error)
        rows = sorted(reply.data or (), key=lambda row: row.index)
        vectors = tuple(unpack(row.embedding) if isinstance(row.embedding, str) else row.embedding for row in rows)
    except (msgspec.MsgspecError, ValueError) as error:
        raise BackendError(f"the backend sent embeddings that are not in OpenAI's format: {error}") from error
    if not vectors:
        raise BackendError("the backend sent no embeddings")
    return Embeddings(
        model=reply.model or "",
        vectors=vectors,
        prompt_tokens=reply.usage.prompt_tokens if reply.usage is not None else None,
    )


def read_models(body: bytes) -> list[ModelInfo]:
    """The catalog. What the various servers add to a row is taken where it is understood.

    Raises:
        BackendError: the body is not this format, or tells of a failure.
    """
    try:
        reply = _models.decode(body)
    except msgspec.MsgspecError as error:
        raise BackendError(f"the backend sent a model list that is not in OpenAI's format: {error}") from error
    if reply.error:
        raise in_band_error(reply.error)
    if reply.data is None:
        raise BackendError("the backend sent a model list without 'data'")
    return [_model(row) for row in reply.data]


def _common(request: Generate, model: str) -> dict[str, Any]:
    body: dict[str, Any] = {"model": model, "stream": request.stream}
    if request.stream:
        body["stream_options"] = {"include_usage": True}
    sampling = request.sampling
    for name in _DRAW:
        value = getattr(sampling, name)
        if value is not None and value != ():
            body[name] = value
    return body


def _said(request: Generate | Embed) -> dict[str, Raw]:
    """What the client said in this very dialect and goes on in its own words."""
    if request.origin.dialect != "openai":
        return {}
    said = request.origin.onward()
    refuse_dangerous(said.keys())
    return said


def _tool(tool: Tool) -> dict[str, Any]:
    function = wire.Function(name=tool.name, description=tool.description, strict=tool.strict)
    if tool.parameters is not None:
        function.parameters = tool.parameters
    return {"type": "function", "function": function}


def _tool_choice(choice: ToolChoice) -> str | dict[str, Any]:
    if choice.mode == "named":
        return {"type": "function", "function": {"name": choice.name}}
    return choice.mode


def _response_format(output: Output) -> dict[str, Any]:
    if output.kind == "json":
        return {"type": "json_object"}
    described: dict[str, Any] = {"name": output.name, "schema": output.schema}
    if output.strict is not None:
        described["strict"] = output.strict
    return {"type": "json_schema", "json_schema": described}


def _model(row: seen.Model) -> ModelInfo:
    meta = row.meta or seen.Meta()
    told = row.capabilities if isinstance(row.capabilities, list) else []
    capabilities = {_CAPABILITIES[name] for name in told if isinstance(name, str) and name in _CAPABILITIES}
    if isinstance(row.architecture, seen.Architecture) and "image" in (row.architecture.input_modalities or ()):
        capabilities.add(Capability.VISION)
    lengths = (row.max_model_len, row.max_context_length, row.context_length, row.context_window)
    return ModelInfo(
        id=row.id,
        capabilities=frozenset(capabilities),
        modified=int(row.created or 0) * 1_000_000_000,
        size=meta.size or 0,
        parameter_count=meta.n_params or 0,
        context_length=next((length for length in (*lengths, meta.n_ctx, meta.n_ctx_train) if length), 0),
        owner=row.owned_by or "",
    )

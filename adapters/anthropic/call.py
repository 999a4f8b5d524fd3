"""Us as client of any server of ``/v1/messages``: requests written, counts and catalogs read; answers read in ``answers``.

What this dialect has no word for is left out, and reported. What changes the form of an answer is refused instead.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

import msgspec
from msgspec import Raw

from adapters.anthropic import wire
from adapters.anthropic.answers import MessageReader, read_message
from adapters.anthropic.errors import in_band_error, read_error
from adapters.anthropic.think import Style, write_think
from adapters.anthropic.turns import without_unsigned, write_turns
from adapters.openai.fields import refuse_dangerous
from canonical.errors import BackendError, Unsupported
from canonical.messages import Reasoning
from canonical.models import ModelInfo
from canonical.requests import Generate, Output, Tool, ToolChoice

__all__ = [
    "MessageReader",
    "Style",
    "read_count",
    "read_error",
    "read_message",
    "read_models",
    "write_count",
    "write_messages",
]

MAX_TOKENS = 4096
"""For clients that set no limit; this dialect demands one."""

_CHOICES = {"auto": "auto", "none": "none", "required": "any", "named": "tool"}
_ANY_OBJECT = Raw(b'{"type":"object"}')
_NO_PARAMETERS = Raw(b'{"type":"object","properties":{}}')

_encode = msgspec.json.Encoder().encode
_count = msgspec.json.Decoder(wire.SeenCount, strict=False)
_models = msgspec.json.Decoder(wire.SeenModels, strict=False)


def write_messages(
    request: Generate,
    model: str,
    *,
    max_tokens: int = MAX_TOKENS,
    style: Style = "adaptive",
    unsigned: bool = True,
) -> bytes:
    """The body of ``/v1/messages``.

    What the client said in this very dialect goes on in its own words: cache marks, citations and the vendor's tools have
    no canonical form.

    Args:
        request: a conversation.
        model: the server's name of the model.
        max_tokens: for requests that set no limit.
        style: how the server wants to be told to think.
        unsigned: whether thoughts without a signature go along; the vendor's own servers refuse them.

    Raises:
        Unsupported: a prompt without turns, log probabilities, sounds, or a field that would steer the backend itself.
        InvalidRequest: a tool call whose arguments are not a JSON object.
    """
    if request.prompt is not None:
        raise Unsupported("an Anthropic backend takes conversations, no prompts as they stand", param="prompt")
    if request.top_logprobs is not None:
        raise Unsupported("an Anthropic backend gives no log probabilities", param="logprobs")
    sampling = request.sampling
    limit = sampling.max_tokens
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": max_tokens if limit is None or limit < 1 else limit,
        "stream": request.stream,
    }
    drawn = {
        "temperature": None if sampling.temperature is None else min(sampling.temperature, 1.0),
        "top_p": sampling.top_p,
        # Elsewhere a negative one means all tokens, and so does none.
        "top_k": None if sampling.top_k is None or sampling.top_k < 0 else sampling.top_k,
        "stop_sequences": [text for text in sampling.stop if not text.isspace()] or None,
    }
    body.update((name, value) for name, value in drawn.items() if value is not None)
    return _encode({**body, **_conversation(request, style=style, unsigned=unsigned)})


def write_count(request: Generate, model: str, *, style: Style = "adaptive", unsigned: bool = True) -> bytes:
    """The body of ``/v1/messages/count_tokens``. Arguments and errors as for ``write_messages``."""
    if request.prompt is not None:
        raise Unsupported("an Anthropic backend takes conversations, no prompts as they stand", param="prompt")
    body = {"model": model, **_conversation(request, style=style, unsigned=unsigned)}
    body.pop("metadata", None)  # which is nothing to a count, and refused there
    return _encode(body)


def read_count(body: bytes) -> int:
    """The answer of ``count_tokens``. Raises BackendError."""
    try:
        return _count.decode(body).input_tokens
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackendError(f"the backend sent a count that is not in Anthropic's format: {error}") from error


def read_models(body: bytes) -> list[ModelInfo]:
    """The catalog. Raises BackendError where the body is not this format, or tells of a failure."""
    try:
        reply = _models.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BackendError(f"the backend sent a model list that is not in Anthropic's format: {error}") from error
    if reply.error:
        raise in_band_error(reply.error)
    if reply.data is None:
        raise BackendError("the backend sent a model list without 'data'")
    return [
        ModelInfo(id=row.id, modified=_modified(row), context_length=row.max_input_tokens or 0) for row in reply.data
    ]


def _conversation(request: Generate, *, style: Style, unsigned: bool) -> dict[str, Any]:
    said: dict[str, Raw] = {}
    if request.origin.dialect == "anthropic":
        said = request.origin.onward()
        refuse_dangerous(said.keys())
        if "messages" in said:
            bare = not unsigned and any(
                isinstance(part, Reasoning) and part.signature is None
                for message in request.messages
                for part in message.parts
            )
            return {**said, "messages": without_unsigned(said["messages"])} if bare else said
    system, turns = write_turns(request.messages, unsigned=unsigned)
    body: dict[str, Any] = {"messages": turns}
    if system:
        body["system"] = system
    if request.tools:
        body["tools"] = [_tool(tool) for tool in request.tools]
        choice = _choice(request.tool_choice, request.parallel_tool_calls)
        if choice is not None:
            body["tool_choice"] = choice
    thinking, effort = write_think(request.think, style=style, budget=request.think_budget)
    if thinking is not None:
        body["thinking"] = thinking
    config: dict[str, Any] = {}
    if effort is not None:
        config["effort"] = effort
    if request.output is not None:
        config["format"] = _format(request.output)
    if config:
        body["output_config"] = config
    return {**body, **said}


def _tool(tool: Tool) -> dict[str, Any]:
    written: dict[str, Any] = {"name": tool.name, "input_schema": tool.parameters or _NO_PARAMETERS}
    if tool.description is not None:
        written["description"] = tool.description
    if tool.strict is not None:
        written["strict"] = tool.strict
    return written


def _choice(choice: ToolChoice | None, parallel: bool | None) -> dict[str, Any] | None:
    if choice is None and parallel is None:
        return None
    mode = "auto" if choice is None else choice.mode
    written: dict[str, Any] = {"type": _CHOICES[mode]}
    if mode == "named" and choice is not None:
        written["name"] = choice.name
    if parallel is not None and mode != "none":
        written["disable_parallel_tool_use"] = not parallel
    return written


def _format(output: Output) -> dict[str, Any]:
    return {"type": "json_schema", "schema": output.schema if output.schema is not None else _ANY_OBJECT}


def _modified(row: wire.SeenModel) -> int:
    """Epoch nanoseconds; 0 where nothing of sense is told."""
    if row.created is not None:
        return int(row.created) * 1_000_000_000
    try:
        moment = dt.datetime.fromisoformat(row.created_at or "")
    except ValueError:
        return 0
    return max(0, int(moment.timestamp())) * 1_000_000_000 if moment.tzinfo is not None else 0

"""Us as server of ``/v1/messages``, ``/v1/messages/count_tokens`` and ``/v1/models``: the requests, and the catalog.

Answers are worded by ``reply``, errors by ``errors``. The vendor refuses unknown fields; here they are ignored, as clients
send new ones every month, and travel on to a backend of this dialect.
"""

from __future__ import annotations

import datetime as dt
import re
from functools import partial

import msgspec
from msgspec import UNSET, Raw, structs

from adapters.anthropic import wire
from adapters.anthropic.errors import error_body, error_status
from adapters.anthropic.reply import MessageStream, message_reply
from adapters.anthropic.think import read_think
from adapters.anthropic.turns import read_turns
from adapters.anthropic.vocabulary import MESSAGES
from adapters.dialect import Ask, CountAsk
from adapters.reading import Reading, fault_of, read_request
from canonical.errors import InvalidRequest, Unsupported
from canonical.messages import Reasoning, Text, ToolCall, ToolResult
from canonical.models import ModelInfo
from canonical.requests import Generate, Origin, Output, Sampling, Tool, ToolChoice

__all__ = [
    "error_body",
    "error_status",
    "model_reply",
    "models_reply",
    "read_count",
    "read_messages",
]


CHARACTERS_A_TOKEN = 4
"""For the estimate that opens a stream; the exact count is in its last record."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

_messages = Reading(wire.MessagesRequest, strict=False)  # 5.0 for an int is seen in the wild
_count = Reading(wire.CountRequest, strict=False)
_encode = msgspec.json.Encoder().encode


def read_messages(body: bytes) -> Ask:
    """A request for an answer and how to word it.

    Raises:
        InvalidRequest: the body breaks the format or a limit.
        Unsupported: it asks for what no backend can give.
    """
    asked, plain = read_request(_messages, body, _invalid)
    sampling = Sampling(
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        max_tokens=asked.max_tokens,
        # The vendor drops those of white space alone.
        stop=tuple(text for text in asked.stop_sequences or () if text and not text.isspace()),
    )
    request = _generate(asked, Origin("anthropic", body, MESSAGES, plain=plain), sampling, stream=bool(asked.stream))
    hidden = asked.thinking is not None and asked.thinking.display == "omitted"
    return Ask(
        (request,),
        request.stream,
        partial(MessageStream, model=request.model, prompt=_estimate(request), hidden=hidden),
        partial(message_reply, model=request.model, hidden=hidden),
    )


def read_count(body: bytes) -> CountAsk:
    """A request to count a prompt's tokens. Raises as ``read_messages``."""
    asked, plain = read_request(_count, body, _invalid)
    origin = Origin("anthropic", body, MESSAGES, plain=plain)
    return CountAsk(_generate(asked, origin, Sampling(), stream=False), _counted)


def models_reply(models: list[ModelInfo]) -> bytes:
    """The answer of ``GET /v1/models``: one page, whatever the client's limit, so that no pager asks on."""
    rows = [_row(model) for model in models]
    return _encode(
        wire.ModelList(data=rows, first_id=rows[0].id if rows else None, last_id=rows[-1].id if rows else None)
    )


def model_reply(model: ModelInfo) -> bytes:
    """The answer of ``GET /v1/models/{id}``."""
    return _encode(_row(model))


def _counted(tokens: int) -> bytes:
    return b'{"input_tokens":%d}' % tokens


def _row(model: ModelInfo) -> wire.ModelRow:
    created = _EPOCH + dt.timedelta(seconds=model.modified // 1_000_000_000)
    return wire.ModelRow(
        id=model.id,
        display_name=model.id,
        created_at=created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        max_input_tokens=model.context_length or UNSET,
    )


def _invalid(text: str) -> InvalidRequest:
    """The vendor's way to name a place: ``messages.0.content: …``."""
    fault = fault_of(text)
    path = re.sub(r"\[(\d+|\.\.\.)\]", r".\1", fault.path)
    if fault.missing:
        return InvalidRequest(f"{path}: Field required", param=path, code="missing_required_parameter")
    return InvalidRequest(f"{path}: {fault.words}" if path else fault.words, param=path or None)


def _generate(asked: wire.CountRequest, origin: Origin, sampling: Sampling, *, stream: bool) -> Generate:
    lost: list[str] = []
    tools = tuple(_tools(asked.tools or [], lost))
    choice, parallel = _choice(asked.tool_choice, tools)
    think, budget = read_think(asked.thinking, asked.output_config, lost)
    messages = read_turns(asked.system, asked.messages, lost)
    # Some blocks hold others that the structs leave undecoded.
    plain = origin.plain and b'"source"' not in origin.body and b'"tool_result"' not in origin.body
    return Generate(
        model=asked.model or "",
        messages=messages,
        stream=stream,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        output=_output(asked),
        think=think,
        think_budget=budget,
        sampling=sampling,
        origin=structs.replace(origin, lost=tuple(dict.fromkeys(lost)), verbatim=True, plain=plain),
    )


def _tools(tools: list[wire.Tool], lost: list[str]) -> list[Tool]:
    """Those that a model can be told of; the vendor's own (``web_search_…``, ``bash_…``) mean nothing elsewhere: ``lost``."""
    read: list[Tool] = []
    for number, tool in enumerate(tools):
        if tool.type not in {None, "custom"}:
            lost.append(f"tools[].{(tool.type or '')[:64]}")
            continue
        if not tool.name:
            raise InvalidRequest(f"tools.{number}.custom.name: Field required", param=f"tools.{number}.name")
        schema = _schema(tool.input_schema, f"tools.{number}.custom.input_schema")
        read.append(Tool(name=tool.name, description=tool.description, parameters=schema, strict=tool.strict))
    return read


def _schema(schema: Raw, place: str) -> Raw | None:
    text = bytes(schema)
    if text in {b"", b"null"}:
        return None
    if text[:1] != b"{":
        raise InvalidRequest(f"{place}: Input should be an object", param=place)
    return schema


def _choice(chosen: wire.ToolChoice | None, tools: tuple[Tool, ...]) -> tuple[ToolChoice | None, bool | None]:
    if chosen is None:
        return None, None
    parallel = None if chosen.disable_parallel_tool_use is None else not chosen.disable_parallel_tool_use
    match chosen.type:
        case "auto":
            return ToolChoice("auto"), parallel
        case "none":
            return ToolChoice("none"), parallel
        case "any":
            if not tools:
                raise InvalidRequest("tool_choice: a tool must be used but there are none", param="tool_choice")
            return ToolChoice("required"), parallel
        case "tool":
            name = chosen.name or ""
            if all(tool.name != name for tool in tools):
                raise InvalidRequest(f"tool_choice: the tool {name[:80]!r} is not among the tools", param="tool_choice")
            return ToolChoice("named", name), parallel
        case _:
            raise InvalidRequest(f"tool_choice.type: unknown type {chosen.type[:40]!r}", param="tool_choice")


def _output(asked: wire.CountRequest) -> Output | None:
    form = (asked.output_config.format if asked.output_config else None) or asked.output_format
    if form is None:
        return None
    schema = _schema(form.schema, "output_config.format.schema")
    if form.type != "json_schema" or schema is None:
        raise Unsupported("output_config.format: a json_schema with its schema is supported", param="output_config")
    return Output("schema", schema)


def _estimate(request: Generate) -> int:
    """About how many tokens the prompt has, from its characters."""
    size = sum(len(bytes(tool.parameters or b"")) + len(tool.description or "") for tool in request.tools)
    for message in request.messages:
        for part in message.parts:
            if isinstance(part, Text | Reasoning | ToolResult):
                size += len(part.text)
            elif isinstance(part, ToolCall):
                size += len(part.arguments)
    return size // CHARACTERS_A_TOKEN + 1

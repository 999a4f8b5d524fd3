"""Us as server of ``/v1/chat/completions``: the request. The answer is worded by ``chat_reply``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from adapters.dialect import Ask
from adapters.openai import wire
from adapters.openai.chat_reply import ChatStream, chat_reply
from adapters.openai.choice import choice_by_name, choice_by_word
from adapters.openai.effort import read_effort, read_stay
from adapters.openai.fields import check_constraints, choices, missing, read_known, sampling, schema_text
from adapters.openai.messages import read_messages, sound
from adapters.openai.vocabulary import CHAT
from adapters.reading import Reading
from canonical.errors import InvalidRequest, Unsupported
from canonical.requests import Generate, Origin, Output, Tool, ToolChoice, Vocabulary

_chat = Reading(wire.ChatRequest, strict=False)  # "5" and 5.0 are seen for an int


def read_chat(body: bytes) -> Ask:
    """A chat request and how to word its answer.

    Raises:
        InvalidRequest: the body breaks the format or a limit.
        Unsupported: it asks for what no backend can give.
    """
    request, plain = read_known(_chat, body)
    return asked(request, body, plain=plain)


def asked(
    request: wire.ChatRequest,
    body: bytes,
    *,
    plain: bool,
    words: Vocabulary = CHAT,
    as_it_came: bool = True,
    lost: Sequence[str] = (),
) -> Ask:
    """What a decoded request asks for. A dialect that has more to say hands in a ``request`` that it has changed.

    ``as_it_came``: whether the messages are still those of the body. ``lost``: fields that its answers have no place for.
    """
    check_constraints(request.grammar, request.json_schema)
    if request.modalities and "audio" in request.modalities:
        raise Unsupported("audio output is not supported", param="modalities")
    legacy = request.tools is None and request.functions is not None
    tools, choice = _tools(request)
    limit = request.max_tokens if request.max_completion_tokens is None else request.max_completion_tokens
    lost = list(lost)
    think, budget = read_effort(request, lost)
    if limit == 0:
        lost.append("max_tokens" if request.max_completion_tokens is None else "max_completion_tokens")
    stream = bool(request.stream)
    top = _logprobs(request)
    generate = Generate(
        model=request.model or "",
        messages=read_messages(request.messages),
        stream=stream,
        tools=tools,
        tool_choice=choice,
        # The legacy form has room for one call only.
        parallel_tool_calls=False if legacy else request.parallel_tool_calls,
        output=_output(request.response_format),
        think=think,
        think_budget=budget,
        sampling=sampling(request, limit if limit is not None and limit > 0 else None),
        top_logprobs=top,
        keep_alive=read_stay(request, lost),
        origin=Origin("openai", body, words, tuple(lost), as_it_came and _as_it_came(request), plain),
    )
    requests = tuple(choices(generate, request.n))
    usage = request.stream_options is not None and bool(request.stream_options.include_usage)
    return Ask(
        requests=requests,
        stream=stream,
        encoder=partial(ChatStream, model=generate.model, top=top, usage=usage, choices=len(requests), legacy=legacy),
        whole=partial(chat_reply, model=generate.model, top=top, legacy=legacy),
    )


def _as_it_came(request: wire.ChatRequest) -> bool:
    """Whether any server of this dialect takes the conversation, the tools and the form of the answer as they are."""
    if request.functions is not None or (
        isinstance(request.tool_choice, wire.NamedTool) and request.tool_choice.function is None
    ):
        return False
    form = request.response_format
    if form is not None and (form.type == "json_schema") != (form.json_schema is not None):
        return False
    return sound(request.messages) and all(tool.type == "function" for tool in request.tools or ())


def _logprobs(request: wire.ChatRequest) -> int | None:
    if request.logprobs:
        return request.top_logprobs or 0
    if request.top_logprobs:
        raise InvalidRequest("'top_logprobs' is only allowed when 'logprobs' is true", param="top_logprobs")
    return None


def _tools(request: wire.ChatRequest) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    if request.tools is None and request.functions is not None:
        tools = tuple(_tool(function, f"functions[{number}]") for number, function in enumerate(request.functions))
        called = request.function_call
        if isinstance(called, wire.NamedTool):
            return tools, choice_by_name(called.name or "", tools, "function_call")
        return tools, choice_by_word(called, tools, "function_call")
    read_tools: list[Tool] = []
    for number, tool in enumerate(request.tools or ()):
        if tool.function is None:
            kind = tool.type[:40]
            raise Unsupported(f"tools of type {kind!r} are not supported", param=f"tools[{number}].type")
        read_tools.append(_tool(tool.function, f"tools[{number}].function"))
    tools = tuple(read_tools)
    chosen = request.tool_choice
    if not isinstance(chosen, wire.NamedTool):
        return tools, choice_by_word(chosen, tools, "tool_choice")
    if chosen.function is not None:
        return tools, choice_by_name(chosen.function.name, tools, "tool_choice")
    if chosen.type == "allowed_tools" and chosen.allowed_tools is not None:
        allowed = {tool.function.name for tool in chosen.allowed_tools.tools if tool.function is not None}
        tools = tuple(tool for tool in tools if tool.name in allowed)
        return tools, choice_by_word(chosen.allowed_tools.mode, tools, "tool_choice.allowed_tools.mode")
    return tools, choice_by_word(chosen.type, tools, "tool_choice.type")


def _tool(function: wire.Function, where: str) -> Tool:
    if not function.name:
        raise InvalidRequest(f"'{where}.name' must not be empty", param=f"{where}.name")
    return Tool(
        name=function.name,
        description=function.description,
        parameters=schema_text(function.parameters, f"{where}.parameters"),
        strict=function.strict,
    )


def _output(form: wire.ResponseFormat | None) -> Output | None:
    if form is None or form.type == "text":
        return None
    described = form.json_schema or wire.JsonSchema()
    schema = schema_text(described.schema, "response_format.json_schema.schema") or schema_text(
        form.schema, "response_format.schema"
    )
    match form.type:
        case "json_schema" if form.json_schema is None and schema is None:
            raise missing("response_format.json_schema")
        case "json_schema" | "json_object" if schema is None:
            return Output("json")
        case "json_schema" | "json_object":
            return Output("schema", schema, described.name, described.strict)
        case _:
            raise Unsupported(
                f"response_format {form.type[:40]!r} is not supported: text, json_object or json_schema",
                param="response_format.type",
            )

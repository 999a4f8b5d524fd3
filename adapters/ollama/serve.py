"""Us as an Ollama server: bytes -> canonical request and the way to word its answer.

Keys match whatever their case, as Ollama's do, ``null`` is absent and unknown fields are ignored. One habit of Ollama's
is not kept: it reads the first JSON value of a body and ignores what follows. Here a body is one strict JSON value,
since what two parsers read differently is how requests are smuggled. Templates and token contexts in a request are
refused: the first would run a stranger's program, the second cannot be honoured by other engines.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec
from msgspec import Raw

from adapters.dialect import Ask, EmbedAsk, LoadAsk
from adapters.ollama import wire
from adapters.ollama.answers import (
    ChatStream,
    GenerateStream,
    chat_loaded,
    chat_reply,
    embed_error_body,
    embed_reply,
    embeddings_reply,
    error_body,
    error_status,
    generate_loaded,
    generate_reply,
)
from adapters.ollama.discovery import (
    ShowAsk,
    ps_reply,
    read_show,
    recommendations_reply,
    show_reply,
    status_reply,
    tags_reply,
    version_reply,
)
from adapters.ollama.fields import read_request
from adapters.ollama.times import read_keep_alive
from adapters.ollama.turns import ROLES, read_images, read_messages
from adapters.ollama.values import read_format, read_options, read_think
from adapters.ollama.vocabulary import CHAT, EMBED, EMBEDDINGS, GENERATE
from adapters.reading import Reading
from canonical.errors import InvalidRequest, ModelNotFound, Unsupported
from canonical.messages import Message, Text
from canonical.requests import Embed, Generate, Load, Origin, Prompt, Tool

__all__ = [
    "ShowAsk",
    "embed_error_body",
    "error_body",
    "error_status",
    "ps_reply",
    "read_chat",
    "read_embed",
    "read_embeddings",
    "read_generate",
    "read_show",
    "recommendations_reply",
    "show_reply",
    "status_reply",
    "tags_reply",
    "version_reply",
]

_TOP_LOGPROBS = 20
_PLAIN = frozenset(ROLES) - {"developer"}
_chat = Reading(wire.ChatRequest)
_generate = Reading(wire.GenerateRequest)
_embed = Reading(wire.EmbedRequest)
_embeddings = Reading(wire.EmbeddingsRequest)
_object = msgspec.json.Decoder(dict[str, Raw])


def read_chat(body: bytes) -> Ask | LoadAsk:
    """``POST /api/chat``; without messages it only loads or unloads. Raises InvalidRequest."""
    asked, body, plain = read_request(_chat, body)
    if not asked.model:
        raise InvalidRequest("model is required", param="model")
    if not asked.messages:
        return _load(asked, chat_loaded)
    tools = tuple(map(_tool, asked.tools or ()))
    origin = Origin("ollama", body, CHAT, (), _as_it_came(asked, tools), plain)
    request = _request(asked, origin, tuple(read_messages(asked.messages)), None, tools)
    return Ask(
        (request,),
        request.stream,
        partial(ChatStream, asked.model, request.top_logprobs),
        partial(chat_reply, asked.model, request.top_logprobs),
    )


def read_generate(body: bytes) -> Ask | LoadAsk:
    """``POST /api/generate``; an empty prompt only loads or unloads.

    A prompt is a turn of a conversation, as Ollama renders it through the chat template, unless it is ``raw`` or has
    a ``suffix``.

    Raises:
        ModelNotFound: no model is named (Ollama's wording).
        InvalidRequest, Unsupported: the rest.
    """
    asked, body, plain = read_request(_generate, body)
    if not asked.model:
        raise ModelNotFound("model '' not found", param="model")
    if asked.raw and (asked.template or asked.system or asked.context):
        raise InvalidRequest("raw mode does not support template, system, or context", param="raw")
    if asked.template:
        raise Unsupported("a template in the request is not accepted; the model's own is used", param="template")
    if asked.context:
        raise Unsupported("context is not supported; send the conversation to /api/chat", param="context")
    if not asked.prompt:
        return _load(asked, generate_loaded)
    images = read_images(asked.images)
    messages: tuple[Message, ...] = ()
    prompt = None
    if asked.raw or asked.suffix:
        if images:
            raise Unsupported("images need a prompt that is neither raw nor has a suffix", param="images")
        prompt = Prompt(text=asked.prompt, suffix=asked.suffix or None)
    else:
        system = (Message("system", (Text(asked.system),)),) if asked.system else ()
        messages = (*system, Message("user", (*images, Text(asked.prompt))))
    request = _request(asked, Origin("ollama", body, GENERATE, plain=plain), messages, prompt, ())
    return Ask(
        (request,),
        request.stream,
        partial(GenerateStream, asked.model, request.top_logprobs),
        partial(generate_reply, asked.model, request.top_logprobs),
    )


def read_embed(body: bytes) -> EmbedAsk:
    """``POST /api/embed``. No input means to load the model and answer no vectors: ``inputs`` is empty then.

    Raises:
        ModelNotFound: no model is named (Ollama's wording).
        InvalidRequest: the rest.
    """
    asked, body, plain = read_request(_embed, body)
    if not asked.model:
        raise ModelNotFound("model '' not found", param="model")
    inputs = [] if asked.input in (None, "") else [asked.input] if isinstance(asked.input, str) else asked.input
    if not isinstance(inputs, list) or not all(isinstance(text, str) for text in inputs):
        raise InvalidRequest("invalid input type", param="input")
    _, load = read_options(asked.options)
    request = Embed(
        model=asked.model,
        inputs=tuple(inputs),
        dimensions=asked.dimensions if asked.dimensions and asked.dimensions > 0 else None,
        truncate=asked.truncate,
        load=load,
        keep_alive=read_keep_alive(asked.keep_alive),
        origin=Origin("ollama", body, EMBED, plain=plain),
    )
    return EmbedAsk(request, partial(embed_reply, asked.model))


def read_embeddings(body: bytes) -> EmbedAsk:
    """``POST /api/embeddings``, the older route: one prompt, one vector. Raises InvalidRequest."""
    asked, body, plain = read_request(_embeddings, body)
    if not asked.model:
        raise InvalidRequest("model is required", param="model")
    _, load = read_options(asked.options)
    request = Embed(
        model=asked.model,
        inputs=(asked.prompt,) if asked.prompt else (),
        load=load,
        keep_alive=read_keep_alive(asked.keep_alive),
        origin=Origin("ollama", body, EMBEDDINGS, plain=plain),
    )
    return EmbedAsk(request, embeddings_reply)


def _load(asked: wire.ChatRequest | wire.GenerateRequest, whole: Any) -> LoadAsk:
    model, seconds = asked.model or "", read_keep_alive(asked.keep_alive)
    options, think = read_options(asked.options)[1], read_think(asked.think)
    wish = Load(model=model, load=options, keep_alive=seconds, think=think)
    return LoadAsk(wish, partial(whole, model, "unload" if seconds == 0 else "load"))


def _request(
    asked: wire.ChatRequest | wire.GenerateRequest,
    origin: Origin,
    messages: tuple[Message, ...],
    prompt: Prompt | None,
    tools: tuple[Tool, ...],
) -> Generate:
    if asked.debug_render_only:
        raise Unsupported("_debug_render_only is not supported", param="_debug_render_only")
    if asked.top_logprobs is not None and not 0 <= asked.top_logprobs <= _TOP_LOGPROBS:
        raise InvalidRequest(f"top_logprobs must be between 0 and {_TOP_LOGPROBS}", param="top_logprobs")
    sampling, load = read_options(asked.options)
    return Generate(
        model=asked.model or "",
        messages=messages,
        prompt=prompt,
        stream=asked.stream is not False,
        tools=tools,
        output=read_format(asked.format),
        think=read_think(asked.think),
        sampling=sampling,
        top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        load=load,
        keep_alive=read_keep_alive(asked.keep_alive),
        origin=origin,
    )


def _as_it_came(asked: wire.ChatRequest, tools: tuple[Tool, ...]) -> bool:
    """Whether another Ollama takes the messages and tools as they are, without what is mended here."""
    for message in asked.messages or ():
        if message.role not in _PLAIN or any(image.startswith("data:") for image in message.images or ()):
            return False
    offered = asked.tools or ()
    return all(
        tool.function is not None and _same(read.parameters, tool.function.parameters)
        for tool, read in zip(offered, tools, strict=True)
    )


def _same(read: Raw | None, sent: Raw) -> bool:
    return read is not None and bytes(read) == bytes(sent)


def _tool(tool: wire.Tool) -> Tool:
    function = tool.function
    if function is None or not function.name:
        raise InvalidRequest("a tool needs a function with a name", param="tools")
    return Tool(name=function.name, description=function.description, parameters=_schema(function.parameters))


def _schema(parameters: Raw) -> Raw | None:
    text = bytes(parameters).strip()
    if text in (b"", b"null"):
        return None
    if not text.startswith(b"{"):
        raise InvalidRequest("the parameters of a tool must be an object", param="tools.function.parameters")
    fields = _object.decode(text)
    if bytes(fields.get("properties", Raw(b""))).strip().startswith(b"["):
        # An empty PHP array is written like this; real lists make no sense here.
        fields["properties"] = Raw(b"{}")
        return Raw(msgspec.json.encode(fields))
    return Raw(text)

"""Us as an Ollama client: canonical request -> bytes. The answers are read in ``replies`` and ``discovery``.

Ollama has no word for a forced tool, a token prompt or a linked picture: those are refused. What it also lacks but
leaves the answer true (``logit_bias``, ``parallel_tool_calls``) is left out.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec
from msgspec import Raw

from adapters.ollama import wire
from adapters.ollama.discovery import read_running, read_tags
from adapters.ollama.discovery import read_shown as read_show
from adapters.ollama.fields import read_reply
from adapters.ollama.replies import ChatReader, GenerateReader, error_text, read_chat, read_embed, read_generate
from adapters.ollama.times import write_keep_alive
from adapters.ollama.turns import write_messages
from adapters.ollama.values import write_format, write_load_options, write_options, write_think
from adapters.upstream import upstream_error
from canonical.errors import BackendError, GatewayError, Unsupported
from canonical.requests import Embed, Generate, LoadOptions, Origin, Prompt, Tool

__all__ = [
    "ChatReader",
    "GenerateReader",
    "read_chat",
    "read_embed",
    "read_error",
    "read_generate",
    "read_running",
    "read_show",
    "read_tags",
    "write_chat",
    "write_embed",
    "write_generate",
    "write_load",
]

_TOO_LONG = re.compile(r"context (length|size)", re.IGNORECASE)
_error = msgspec.json.Decoder(dict[str, Any])


def write_chat(request: Generate, model: str) -> bytes:
    """The body for ``/api/chat``; ``model`` is the upstream's name.

    Raises:
        Unsupported: a tool is forced, a picture is a link, or there are no messages (Ollama would only load).
        InvalidRequest: an earlier tool call has arguments that are not a JSON object.
    """
    if not request.messages:
        raise Unsupported("an Ollama backend needs at least one message", param="messages")
    said = _said(request.origin)
    body = wire.ChatRequest(
        model=model,
        messages=None if "messages" in said else write_messages(request.messages),
        tools=None if "tools" in said else _tools(request) or None,
        **_common(request),
    )
    return _joined(body, said)


def write_generate(request: Generate, model: str) -> bytes:
    """The body for ``/api/generate``: the prompt as it stands, or the text around a gap.

    Raises:
        Unsupported: the request is no prompt, is of token ids, or is empty (Ollama would only load).
    """
    prompt = request.prompt or Prompt()
    if prompt.tokens is not None:
        raise Unsupported("an Ollama backend takes no token ids", param="prompt")
    if not prompt.text:
        raise Unsupported("an Ollama backend needs a prompt that is not empty", param="prompt")
    gap = prompt.suffix is not None
    body = wire.GenerateRequest(
        model=model, prompt=prompt.text, suffix=prompt.suffix, raw=None if gap else True, **_common(request)
    )
    return _joined(body, _said(request.origin))


def write_embed(request: Embed, model: str) -> bytes:
    """The body for ``/api/embed``. Raises Unsupported for token ids."""
    inputs = [text for text in request.inputs if isinstance(text, str)]
    if len(inputs) != len(request.inputs):
        raise Unsupported("an Ollama backend takes no token ids", param="input")
    body = wire.EmbedRequest(
        model=model,
        input=inputs,
        # Only Ollama cuts unasked; others expect to be told that their text is too long.
        truncate=request.truncate if request.origin.dialect == "ollama" else bool(request.truncate),
        dimensions=request.dimensions,
        keep_alive=write_keep_alive(request.keep_alive),
    )
    return _joined(body, _said(request.origin))


def write_load(model: str, keep_alive: float | None, options: LoadOptions) -> bytes:
    """The body that loads a model, or unloads it: ``/api/generate`` without a prompt, ``/api/embed`` without an input."""
    body = wire.GenerateRequest(
        model=model, keep_alive=write_keep_alive(keep_alive), options=write_load_options(options) or None, stream=False
    )
    return msgspec.json.encode(body)


def read_error(status: int, body: bytes, retry_after: str | None) -> GatewayError:
    """The error that a reply of ``status`` tells of, whatever its body is."""
    try:
        fields = read_reply(_error, body)
    except BackendError:
        # A proxy's page in between; its text is not for our client.
        fields = {}
    text = error_text(fields["error"]) if fields.get("error") else ""
    code = "context_length_exceeded" if _TOO_LONG.search(text) else None
    return upstream_error(status, text, code, retry_after)


def _common(request: Generate) -> dict[str, Any]:
    return {
        "stream": request.stream,
        "format": write_format(request.output),
        "keep_alive": write_keep_alive(request.keep_alive),
        "options": write_options(request) or None,
        # Clients of Anthropic's dialect who do not ask for thoughts want none.
        "think": write_think(
            "off" if request.think is None and request.origin.dialect == "anthropic" else request.think
        ),
        "logprobs": True if request.top_logprobs is not None else None,
        "top_logprobs": request.top_logprobs or None,
    }


def _said(origin: Origin) -> dict[str, Raw]:
    """What the client said in this very dialect and goes on in its own words.

    Ollama folds the case of keys, Kelvin sign and long s included: no odd spelling in it overrides ours.
    """
    return origin.onward() if origin.dialect == "ollama" else {}


def _joined(body: wire.Wire, said: dict[str, Raw]) -> bytes:
    encoded = msgspec.json.encode(body)
    return encoded[:-1] + b"," + msgspec.json.encode(said)[1:] if said else encoded


def _tools(request: Generate) -> list[wire.Tool]:
    choice = request.tool_choice
    if choice is not None and choice.mode in ("required", "named"):
        raise Unsupported("an Ollama backend cannot be made to call a tool", param="tool_choice")
    if choice is not None and choice.mode == "none":
        return []
    return [
        wire.Tool(
            type="function",
            function=wire.Function(name=tool.name, description=tool.description, parameters=_schema(tool)),
        )
        for tool in request.tools
    ]


def _schema(tool: Tool) -> Raw:
    # Ollama's struct needs the object; a tool without parameters has none to tell of.
    return tool.parameters if tool.parameters is not None else Raw(b'{"type":"object","properties":{}}')

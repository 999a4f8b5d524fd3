"""Us as client of LM Studio: its three lists of models, loads, unloads and downloads; and chats as its OpenAI routes take them.

Its server passes over what it does not know without a word, or refuses it; so only documented fields go out, and what
they cannot say is said otherwise. An unknown route is no 404: status 200, and a body that tells of the failure.
"""

from __future__ import annotations

import math
import re
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from adapters.lmstudio import seen
from adapters.openai import call
from adapters.openai.errors import in_band_error
from canonical.errors import BackendError, GatewayError, ModelNotFound, Unsupported
from canonical.messages import Audio, Image, Message, Part
from canonical.models import Capability, ModelInfo
from canonical.progress import Progress
from canonical.requests import Embed, Embeddings, Generate, Origin, Output, Prompt, ToolChoice

FOREVER = 365 * 24 * 3600
"""Seconds of idle time that stand for no end: there is no word for it."""
EXTRAS = frozenset({"draft_model", "preset"})
"""Its own fields of OpenAI's routes, which travel as a client of that dialect said them."""
GONE = re.compile(r"\bmodel\b.*\b(unloaded|not loaded|not found)\b|\bno models? loaded\b", re.IGNORECASE)
"""In an error: the model was there, and is not any more."""

_OBJECT = Output("schema", Raw(b'{"type":"object"}'), "object")
_LEVELS = {"on": "medium", "minimal": "low", "max": "high"}
_CHAT = frozenset({Capability.CHAT, Capability.COMPLETE, Capability.TOOLS})
"""What every language model there can be asked: tools are put into the prompt of one that was not trained for them."""

_models = msgspec.json.Decoder(seen.Models, strict=False)
_beta = msgspec.json.Decoder(seen.BetaModels, strict=False)
_loaded = msgspec.json.Decoder(seen.Loaded, strict=False)
_job = msgspec.json.Decoder(seen.Job, strict=False)


class Resident(Struct, frozen=True):
    """An instance of a model in its memory. ``context``: 0 where that is not told."""

    id: str
    context: int = 0


class Listed(Struct, frozen=True, kw_only=True):
    """A model on its disk."""

    info: ModelInfo
    residents: tuple[Resident, ...] | None = ()
    """None: the list does not tell."""
    names: frozenset[str] = frozenset()
    """Other names by which it can be asked for."""

    @property
    def embeds(self) -> bool:
        """Whether it makes vectors instead of text."""
        return Capability.EMBED in self.info.capabilities


class Source(Struct, frozen=True):
    """A model that can be downloaded."""

    model: str
    quantization: str = ""
    """Empty: the one that is recommended."""
    hub: bool = False
    """It is a repository of Hugging Face."""


# Lists


def read_models(body: bytes) -> list[Listed] | None:
    """The list of ``/api/v1/models``; None: there is no such route.

    Raises:
        BackendError: it tells of another failure, or is something else.
    """
    reply = _decoded(_models, body)
    if reply.models is None:
        _check(reply.error)
        return None
    return [_listed(row) for row in reply.models]


def read_beta_models(body: bytes) -> list[Listed] | None:
    """The list of ``/api/v0/models``; else as ``read_models``."""
    reply = _decoded(_beta, body)
    if reply.data is None:
        _check(reply.error)
        return None
    return [_listed_beta(row) for row in reply.data]


def read_plain_models(body: bytes) -> list[Listed]:
    """The list of ``/v1/models``, which tells names. Raises BackendError."""
    return [Listed(info=info, residents=None) for info in call.read_models(body)]


def _listed(row: seen.Model) -> Listed:
    residents = tuple(
        Resident(one.id, (one.config.context_length or 0) if one.config else 0) for one in row.loaded_instances or ()
    )
    capabilities: set[Capability] = set()
    if row.type == "embedding":
        capabilities.add(Capability.EMBED)
    elif row.capabilities is not None:
        capabilities.update(_CHAT)
        if row.capabilities.vision:
            capabilities.add(Capability.VISION)
        if row.capabilities.reasoning:
            capabilities.add(Capability.REASONING)
    info = ModelInfo(
        id=row.key,
        capabilities=frozenset(capabilities),
        size=row.size_bytes or 0,
        format=row.format or "",
        family=row.architecture or "",
        parameter_size=row.params_string or "",
        quantization=(row.quantization.name or "") if row.quantization else "",
        context_length=row.max_context_length or 0,
        owner=row.publisher or "",
    )
    return Listed(info=info, residents=residents, names=frozenset(row.variants or ()))


def _listed_beta(row: seen.BetaModel) -> Listed:
    capabilities: frozenset[Capability] = frozenset()  # whether it reasons is not told
    if row.type == "embeddings":
        capabilities = frozenset({Capability.EMBED})
    elif row.type == "vlm":
        capabilities = frozenset({*_CHAT, Capability.VISION, Capability.REASONING})
    elif row.type == "llm":
        capabilities = frozenset({*_CHAT, Capability.REASONING})
    info = ModelInfo(
        id=row.id,
        capabilities=capabilities,
        format=row.compatibility_type or "",
        family=row.arch or "",
        quantization=row.quantization or "",
        context_length=row.max_context_length or 0,
        owner=row.publisher or "",
    )
    loaded = row.state == "loaded"
    return Listed(info=info, residents=(Resident(row.id, row.loaded_context_length or 0),) if loaded else ())


# Loads and downloads


def write_load(model: str, config: dict[str, Any]) -> bytes:
    """The body of ``/api/v1/models/load``."""
    return msgspec.json.encode({"model": model, **config})


def read_load(body: bytes) -> str | None:
    """The id of the instance; None: there is no such route. Raises BackendError."""
    reply: seen.Loaded = _decoded(_loaded, body)
    if reply.instance_id is None:
        _check(reply.error)
    return reply.instance_id


def write_unload(id: str) -> bytes:
    """The body of ``/api/v1/models/unload``."""
    return msgspec.json.encode({"instance_id": id})


def read_source(name: str) -> Source:
    """What to download, for a name as clients write it: ``acme/model``, with ``@q4_k_m`` or ``:Q4_K_M``; ``hf.co/org/repo``."""
    bare = re.sub(r"^(?:https?://)?(?:hf\.co|huggingface\.co)/", "", name)
    found = re.fullmatch(r"(.+?)(?:[@:]([^/@:]+))?", bare, re.DOTALL)
    model, quantization = (found[1], found[2] or "") if found else (bare, "")
    return Source(model, "" if quantization == "latest" else quantization, hub=bare != name)


def write_download(source: Source) -> bytes:
    """The body of ``/api/v1/models/download``."""
    asked = {"model": f"https://huggingface.co/{source.model}" if source.hub else source.model}
    if source.quantization:
        asked["quantization"] = source.quantization
    return msgspec.json.encode(asked)


def read_download(body: bytes) -> tuple[str, Progress | None] | None:
    """The job to look at and how far it is; without progress it is done. None: there is no such route.

    Raises:
        BackendError: the download failed.
    """
    reply = _decoded(_job, body)
    if reply.status is None:
        _check(reply.error)
        return None
    job = reply.job_id or ""
    if reply.status in {"completed", "already_downloaded"}:
        return job, None
    if reply.status == "failed":
        raise BackendError("LM Studio could not download the model")
    # What is paused there is for its user to go on with; whoever waits here sees that.
    words = "paused in LM Studio" if reply.status == "paused" else "downloading"
    return job, Progress(status=words, total=reply.total_size_bytes or 0, completed=reply.downloaded_bytes or 0)


# Requests


def write_chat(request: Generate, model: str, ttl: int | None) -> bytes:
    """The body of ``/v1/chat/completions``. ``ttl``: seconds that the model stays if this loads it.

    Raises:
        Unsupported: it cannot be said there.
    """
    return _more(call.write_chat(_sayable(request), model), request, ttl)


def write_completion(request: Generate, model: str, ttl: int | None) -> bytes:
    """The body of ``/v1/completions``; else as ``write_chat``."""
    prompt = request.prompt or Prompt()
    if prompt.tokens is not None:
        raise Unsupported("an LM Studio backend takes prompts as text", param="prompt")
    if prompt.suffix is not None:
        raise Unsupported("an LM Studio backend fills no gaps", param="suffix")
    asked = _sayable(request)
    if asked.sampling.max_tokens is None:
        asked = structs.replace(asked, sampling=structs.replace(asked.sampling, max_tokens=-1))
    return _more(call.write_completion(asked, model), request, ttl)


def write_embeddings(request: Embed, model: str, ttl: int | None) -> bytes:
    """The body of ``/v1/embeddings``. The vectors have all their numbers: ``cut`` makes them shorter.

    Raises:
        Unsupported: an input is not text.
    """
    if not all(isinstance(text, str) for text in request.inputs):
        raise Unsupported("an LM Studio backend embeds texts", param="input")
    return _more(call.write_embeddings(structs.replace(request, dimensions=None, origin=Origin()), model), request, ttl)


def cut(answer: Embeddings, dimensions: int | None) -> Embeddings:
    """The vectors with their first so many numbers, and of unit length."""
    return structs.replace(answer, vectors=tuple(_unit(vector[:dimensions]) for vector in answer.vectors))


def stay(keep_alive: float | None) -> int | None:
    """Seconds of idle time, as the server counts them: whole, and at least one."""
    if keep_alive is None:
        return None
    return FOREVER if keep_alive < 0 else min(max(math.ceil(keep_alive), 1), FOREVER)


def gone(error: GatewayError) -> bool:
    """Whether a request failed because its model is not loaded any more: then nothing was generated."""
    return isinstance(error, ModelNotFound) or GONE.search(error.message) is not None


def _sayable(request: Generate) -> Generate:
    """The request without what its server has no word for, and with other words for what it has."""
    if request.top_logprobs is not None:
        raise Unsupported("an LM Studio backend gives no log probabilities", param="logprobs")
    choice, tools = request.tool_choice, tuple(structs.replace(tool, strict=None) for tool in request.tools)
    if choice is not None and choice.mode == "named":  # an object is refused
        tools = tuple(tool for tool in tools if tool.name == choice.name)
        if not tools:
            raise Unsupported(f"there is no tool named {choice.name[:64]!r}", param="tool_choice")
        choice = ToolChoice("required")
    output = request.output
    if output is not None and output.kind == "json" and request.prompt is None:  # only schemas are known
        output = _OBJECT
    sampling = structs.replace(request.sampling, min_p=None, typical_p=None, repeat_last_n=None)
    return structs.replace(
        request,
        messages=tuple(map(_message, request.messages)),
        sampling=sampling,
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=None,
        output=output,
        think=_LEVELS.get(request.think, request.think) if request.think is not None else None,
        origin=Origin(),
    )


def _message(message: Message) -> Message:
    return Message(message.role, tuple(map(_part, message.parts)))


def _part(part: Part) -> Part:
    if isinstance(part, Audio):
        raise Unsupported("an LM Studio backend takes no audio", param="messages")
    return Image(part.source) if isinstance(part, Image) else part


def _more(body: bytes, request: Generate | Embed, ttl: int | None) -> bytes:
    """A body with the fields that are LM Studio's own."""
    more: dict[str, Any] = {}
    if request.origin.dialect == "openai":
        more = {name: value for name, value in request.origin.fields().items() if name in EXTRAS}
    own = stay(request.keep_alive)
    if own is not None or ttl is not None:
        more["ttl"] = ttl if own is None else own
    return body[:-1] + b"," + msgspec.json.encode(more)[1:] if more else body


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(math.fsum(value * value for value in vector))
    return [value / length for value in vector] if length else vector


def _decoded(decoder: msgspec.json.Decoder[Any], body: bytes) -> Any:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as error:
        raise BackendError(f"the backend sent something that is not in LM Studio's format: {error}") from error


def _check(error: Any) -> None:
    """Raise a failure that is told with status 200, but not that there is no such route."""
    if error and not (isinstance(error, str) and error.startswith("Unexpected endpoint")):
        raise in_band_error(error)

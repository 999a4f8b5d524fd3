"""A loaded GGUF model: canonical requests in, canonical events out, over either engine."""

from __future__ import annotations

import math
import secrets
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

import msgspec
from msgspec import structs

from adapters.openai.call import ChatReader, CompletionReader, read_embeddings, write_embeddings
from backends.honours import TABLE
from backends.llama_cpp.body import EXTRAS, TOKEN_LENGTH, Limits, chat_body, completion_body
from backends.llama_cpp.engine import Kind, is_error, read_counted, read_error
from backends.llama_cpp.forced import ForcedCall, force
from backends.llama_cpp.inprocess import Runner
from backends.llama_cpp.schema import check_held
from canonical.errors import BackendError, GatewayError, InvalidRequest, Unsupported
from canonical.events import Event, ReasoningDelta, Started, TextDelta
from canonical.models import Capability, LoadedModel, ModelInfo
from canonical.report import Honours
from canonical.requests import Embed, Embeddings, Generate, Origin

_SHRINK = 0.9
_TRIES = 8
_INPUTS = 64
"""Texts that become vectors in one call of the engine."""


class Loaded:
    """What every loaded model has. ``memory`` is an estimate in bytes."""

    honours = Honours(
        TABLE["llama_cpp"], extras={"openai": EXTRAS, "ollama": frozenset(f"options.{name}" for name in EXTRAS)}
    )

    def __init__(self, info: ModelInfo, runner: Runner, *, slots: int, limits: Limits, memory: int) -> None:
        self.info = info
        self.slots = slots
        self.runner = runner
        self._limits = limits
        self._memory = memory

    def loaded(self) -> LoadedModel:
        """Its row of ``/api/ps``."""
        return LoadedModel(info=self.info, size=self._memory, context_length=self._limits.context)

    async def close(self) -> None:
        """Free its memory. No lease is open."""
        await self.runner.close()


class TextModel(Loaded):
    """A model that goes on with conversations and prompts. ``thinking``: for requests that do not say."""

    thinking: bool = False
    engine: str = "xllamacpp"

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        """Yield the answer's events. Closing the generator stops the generation and waits until its slot is free.

        Raises:
            InvalidRequest, Unsupported: before the engine has seen anything, or by its verdict on the request.
            BackendError: the engine failed.
        """
        forced = force(request) if self.engine == "xllamacpp" else None
        call = None if forced is None else ForcedCall(_new_id)
        kind, body, opening = self._asked(request, forced)
        reader = ChatReader(_new_id) if kind == "chat" else CompletionReader()
        trim = _Trim()
        async with aclosing(self.runner.stream(kind, body)) as chunks:
            async for batch in chunks:
                events: list[Event] = []
                for chunk in batch:
                    if not chunk:
                        continue
                    if is_error(chunk):
                        raise read_error(chunk, context=self._limits.context)
                    events.extend(reader.feed_record(chunk))
                told = self._told(events, trim, opening)
                if call is not None:
                    told = call.feed(told)
                if told:
                    yield told
        end = reader.finish()
        yield end if call is None else call.feed(end)

    async def count(self, request: Generate) -> int:
        """The tokens of the prompt, as the engine itself counts them. Raises as ``generate``."""
        kind, body, _ = self._asked(request)
        if kind != "chat":
            raise Unsupported("only conversations are counted", param="prompt")
        async with aclosing(self.runner.stream("count", body)) as chunks:
            async for batch in chunks:
                for chunk in filter(None, batch):
                    if is_error(chunk):
                        raise read_error(chunk, context=self._limits.context)
                    return read_counted(chunk).prompt_tokens
        raise BackendError("the engine did not count")

    def _asked(self, request: Generate, forced: Generate | None = None) -> tuple[Kind, bytes, str]:
        if request.output is not None and request.output.schema is not None:
            check_held(request.output.schema, self.engine, param="response_format")
        prompt = request.prompt
        if prompt is not None:
            if prompt.echo and prompt.tokens is not None:
                raise Unsupported("echo works with a text prompt only", param="echo")
            if prompt.echo and request.top_logprobs is not None:
                raise Unsupported("echo with logprobs is not supported", param="logprobs")
            if Capability.VISION in self.info.capabilities and (prompt.tokens is not None or prompt.suffix is not None):
                # Its engine reads prompts for markers of pictures then, and takes nothing but text.
                what = "token ids" if prompt.suffix is None else "insert"
                raise Unsupported(
                    f'"{self.info.id}" does not support {what} beside its vision projector', param="prompt"
                )
            opening = prompt.text if prompt.echo else ""
            return "completion", completion_body(request, prompt, self._limits), opening
        able = self.info.capabilities
        if request.tools and Capability.TOOLS not in able:
            raise Unsupported(f"{self.info.id!r} does not support tools", param="tools")
        choice = request.tool_choice
        if choice is not None and choice.mode == "named" and all(tool.name != choice.name for tool in request.tools):
            raise InvalidRequest(f"there is no tool named {choice.name[:64]!r}", param="tool_choice")
        thinking = None
        if Capability.REASONING in able:
            # Clients of Anthropic's dialect who do not ask for thoughts want none, and set small limits.
            unasked = self.thinking and request.origin.dialect != "anthropic"
            thinking = unasked if request.think is None else request.think != "off"
        elif request.think not in {None, "off"}:
            raise Unsupported(f"{self.info.id!r} does not support thinking", param="think")
        vision = Capability.VISION in able
        return "chat", chat_body(forced or request, self._limits, thinking=thinking, vision=vision), ""

    def _told(self, events: list[Event], trim: _Trim, opening: str) -> list[Event]:
        told: list[Event] = []
        for event in events:
            if type(event) is ReasoningDelta:
                text = trim.feed(event.text)
                if text:
                    told.append(ReasoningDelta(text))
            elif type(event) is Started:
                told.append(Started(self.info.id))
                if opening:
                    told.append(TextDelta(opening))
            else:
                told.append(event)
        return told


class EmbeddingModel(Loaded):
    """A model that gives vectors."""

    async def embed(self, request: Embed) -> Embeddings:
        """One unit-length vector per input.

        Raises:
            InvalidRequest: an input is empty, too long, or ``dimensions`` is more than the model has.
            BackendError: the engine failed.
        """
        if not request.inputs or not all(request.inputs):
            raise InvalidRequest("input must not be empty", param="input")
        width = self.info.embedding_length
        dimensions = request.dimensions or width
        if width and dimensions > width:
            raise InvalidRequest(f"this model's vectors have {width} dimensions", param="dimensions")
        shorten = request.truncate is True or (request.truncate is None and request.origin.dialect == "ollama")
        longest = self._limits.context * TOKEN_LENGTH
        if not shorten and any(len(text) > longest for text in request.inputs):
            raise _too_long(f"an input has more than {longest} characters", self._limits.context)
        # Counting in the engine costs a second per megabyte, and what is cut there may as well be cut here.
        inputs = tuple(text[:longest] for text in request.inputs)
        plain = structs.replace(request, inputs=inputs, origin=Origin(), dimensions=None)
        try:
            answer = await self._ask(plain)
        except InvalidRequest as error:
            if not shorten or error.code != "context_length_exceeded":
                raise
            answers = [await self._shortened(plain, text) for text in request.inputs]
            answer = Embeddings(
                model="",
                vectors=tuple(one.vectors[0] for one in answers),
                prompt_tokens=sum(one.prompt_tokens or 0 for one in answers),
            )
        vectors = tuple(_unit(vector[:dimensions] if dimensions else vector) for vector in answer.vectors)
        return structs.replace(answer, model=self.info.id, vectors=vectors)

    async def _ask(self, request: Embed) -> Embeddings:
        """A few inputs at a time: what the engine has begun cannot be stopped, and the client may leave."""
        vectors: list[list[float]] = []
        tokens = 0
        for start in range(0, len(request.inputs), _INPUTS):
            part = structs.replace(request, inputs=request.inputs[start : start + _INPUTS])
            body = await self.runner.embed(write_embeddings(part, "model"))
            if is_error(body):
                raise _embedding_error(body, self._limits.context)
            answer = read_embeddings(body)
            vectors.extend(answer.vectors)
            tokens += answer.prompt_tokens or 0
        return Embeddings(model="", vectors=tuple(vectors), prompt_tokens=tokens)

    async def _shortened(self, request: Embed, text: str | tuple[int, ...]) -> Embeddings:
        """One input, cut until it fits: only the engine can count, and it counts in its refusal."""
        error: InvalidRequest | None = None
        for _ in range(_TRIES):
            try:
                return await self._ask(structs.replace(request, inputs=(text,)))
            except InvalidRequest as refused:
                if refused.code != "context_length_exceeded":
                    raise
                error = refused
                counted = _counted(refused)
                share = self._limits.context / counted * _SHRINK if counted > self._limits.context else _SHRINK
                text = text[: max(1, int(len(text) * share))]
        raise error or BackendError("the input could not be shortened")


class _Trim:
    """Reasoning without white space at its ends: engines leave the line breaks beside the tags."""

    def __init__(self) -> None:
        self._held = ""
        self._begun = False

    def feed(self, text: str) -> str:
        text = self._held + text
        if not self._begun:
            text = text.lstrip()
        kept = text.rstrip()
        self._begun = self._begun or bool(kept)
        self._held = text[len(kept) :]
        return kept


def _new_id() -> str:
    return f"call_{secrets.token_hex(12)}"


def _counted(error: GatewayError) -> int:
    for word in error.message.replace("(", " ").split():
        if word.isdigit():
            return int(word)
    return 0


class _Told(msgspec.Struct):
    message: str = ""


class _Refusal(msgspec.Struct):
    error: _Told = msgspec.field(default_factory=_Told)


def _embedding_error(body: bytes, context: int) -> GatewayError:
    try:
        message = msgspec.json.decode(body, type=_Refusal).error.message
    except msgspec.MsgspecError:
        return BackendError("the engine answered an error that cannot be read")
    if "too large to process" in message or "context size" in message:
        return _too_long(message.partition(". increase")[0], context)
    return read_error(body, context=context)


def _too_long(words: str, context: int) -> InvalidRequest:
    return InvalidRequest(
        f"{words}: the input length exceeds the context length; this model's maximum context length is "
        f"{context} tokens",
        param="input",
        code="context_length_exceeded",
    )


def _unit(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector))
    if not math.isfinite(length):
        raise BackendError("the model gave a vector with numbers that are not finite")
    return [value / length for value in vector] if length else vector

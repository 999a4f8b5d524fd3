"""The chat routes: the request, and the answer as lines or as one object.

{"type":"fragment","content":"Hel"}
{"type":"done","model":"pip","predicted_tokens":2,"stop_reason":"stop"}

There is no word for thoughts, so they are left out; their tokens are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar

import msgspec
from msgspec import Struct, structs

from adapters.dialect import Ask, Stamp
from adapters.framing import encode_line
from adapters.hybrid import wire
from adapters.hybrid.errors import invalid, of_the_body, words
from adapters.hybrid.vocabulary import CHAT
from adapters.reading import Reading, read_request
from canonical.errors import GatewayError, InvalidRequest
from canonical.events import Completion, Event, Finished, TextDelta
from canonical.limits import IMAGES, MESSAGES
from canonical.media import PICTURES, image_from_base64
from canonical.messages import Image, Message, Part, Text
from canonical.requests import Generate, Origin, Sampling

_chat = Reading(wire.ChatRequest, strict=False)
_encode = msgspec.json.Encoder().encode
_NO_CONFIG = wire.Config()


class Chat(Struct, frozen=True):
    """A request as it came, perhaps without a model."""

    generate: Generate

    @property
    def model(self) -> str:
        """The model that it names; empty: none."""
        return self.generate.model

    @property
    def shows(self) -> bool:
        """Whether there are pictures in it."""
        return any(isinstance(part, Image) for message in self.generate.messages for part in message.parts)

    def ask(self, model: str) -> Ask:
        """The request to ``model``."""
        generate = structs.replace(self.generate, model=model)
        return Ask(
            requests=(generate,),
            stream=generate.stream,
            encoder=partial(ChatStream, model=model),
            whole=partial(chat_reply, model=model),
        )


class ChatStream:
    """Canonical events -> lines."""

    media_type: ClassVar[str] = "application/x-ndjson; charset=utf-8"
    __slots__ = ("_model",)

    def __init__(self, stamp: Stamp, *, model: str) -> None:  # noqa: ARG002  nothing in an answer needs it
        self._model = model

    def feed(self, event: Event, choice: int = 0) -> bytes:  # noqa: ARG002  there is one
        """The line of one event."""
        match event:
            case TextDelta(text) if text:
                return b'{"type":"fragment","content":' + encode_line(text) + b"}\n"
            case Finished(reason, usage):
                return encode_line(wire.Done(self._model, None if usage is None else usage.completion, reason)) + b"\n"
            case _:
                return b""

    def finish(self) -> bytes:
        """Nothing: the last line came with the last event."""
        return b""

    def fail(self, error: GatewayError) -> bytes:
        """The line of a failure; nothing follows it."""
        return encode_line(wire.Failed(words(error))) + b"\n"


def chat_reply(completions: Sequence[Completion], stamp: Stamp, *, model: str) -> bytes:  # noqa: ARG001  nothing in it needs a stamp
    """The whole answer."""
    (completion,) = completions
    usage = completion.usage
    tokens = None if usage is None else usage.completion
    return _encode(wire.ChatReply(model, completion.text, completion.reason, tokens))


def read_chat(body: bytes, *, stream: bool) -> Chat:
    """A request for an answer. Raises InvalidRequest: the body breaks the format or a limit."""
    with of_the_body():
        request, plain = read_request(_chat, body, invalid)
        config = request.config or _NO_CONFIG
        limit = config.max_tokens
        return Chat(
            Generate(
                model=request.model_key or "",
                messages=_messages(request.messages),
                stream=stream,
                sampling=Sampling(
                    temperature=config.temperature,
                    max_tokens=limit if limit is not None and limit > 0 else None,
                    top_p=config.top_p,
                    presence_penalty=config.presence_penalty,
                    frequency_penalty=config.frequency_penalty,
                ),
                origin=Origin("hybrid", body, CHAT, ("config.maxTokens",) if limit == 0 else (), plain=plain),
            )
        )


def _messages(given: Sequence[wire.Message]) -> tuple[Message, ...]:
    if len(given) > MESSAGES:
        raise InvalidRequest(f"there may be at most {MESSAGES} messages", param="messages")
    if sum(len(message.images or ()) for message in given) > IMAGES:
        raise InvalidRequest(f"there may be at most {IMAGES} images", param="messages")
    return tuple(Message(message.role, tuple(_parts(message, f"messages[{at}]"))) for at, message in enumerate(given))


def _parts(message: wire.Message, place: str) -> list[Part]:
    """The text first, as it is asked about what follows."""
    images = message.images or ()
    if message.content is None and not images:
        raise InvalidRequest("Field required", param=f"{place}.content", code="missing")
    if images and message.role != "user":
        raise InvalidRequest("images stand in the user's messages", param=f"{place}.images")
    parts: list[Part] = [Text(message.content or "")] if message.content or not images else []
    for at, image in enumerate(images):
        param = f"{place}.images[{at}].data_base64"
        parts.append(Image(image_from_base64(image.data_base64, param=param, types=PICTURES)))
    return parts

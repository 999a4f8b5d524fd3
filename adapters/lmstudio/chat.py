"""Us as server of ``/api/v1/chat``: the request. The answer is worded by ``stream``.

A chat goes on from an earlier one by that one's id, and what was said there is given when the request is put together.
It is kept in the form of ``/v1/responses``: either route goes on from what the other one has kept.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from adapters.dialect import Stamp
from adapters.lmstudio import wire
from adapters.lmstudio.fields import invalid, needed, read_stay
from adapters.lmstudio.stream import ChatStream
from adapters.lmstudio.vocabulary import CHAT
from adapters.reading import Reading, read_request
from adapters.responses.items import Conversation, kept_items
from adapters.responses.wire import Kind, Message
from canonical.errors import InvalidRequest, NotImplementedHere
from canonical.limits import MESSAGES
from canonical.media import image_from_base64
from canonical.messages import Image, Part, Text
from canonical.messages import Message as Turn
from canonical.requests import Generate, LoadOptions, Origin, Sampling, Think

_THINK: dict[str, Think] = {"off": "off", "low": "low", "medium": "medium", "high": "high", "on": "on"}
_SYSTEM = "sys_"
"""Begins the id of an item that holds a chat's system prompt: it holds for what goes on from there, too."""

_chat = Reading(wire.ChatRequest, strict=False)
_kind = msgspec.json.Decoder(Kind)
_message = msgspec.json.Decoder(Message)
_encode = msgspec.json.Encoder().encode


class Chat(Struct, frozen=True, kw_only=True):
    """A request as it came: it lacks what was said before."""

    request: wire.ChatRequest
    model: str
    turn: tuple[Part, ...]
    """What the user says now."""
    body: bytes
    plain: bool

    @property
    def stream(self) -> bool:
        """Whether the answer is to come piece by piece."""
        return bool(self.request.stream)

    @property
    def stored(self) -> bool | None:
        """Whether it is to be kept; None: not said, which means yes."""
        return self.request.store

    @property
    def previous(self) -> str | None:
        """The answer that this chat goes on from."""
        return self.request.previous_response_id

    @property
    def think(self) -> Think | None:
        """How long to reason."""
        return _THINK[self.request.reasoning] if self.request.reasoning is not None else None

    def asked(self, history: Sequence[Raw] = ()) -> Generate:
        """The canonical request behind ``history``, the items of earlier turns.

        Raises:
            InvalidRequest: a kept item breaks the format.
        """
        request = self.request
        system, said = _without_system(history)
        if request.system_prompt is not None:
            system = request.system_prompt
        conversation = Conversation()
        if system:
            conversation.say("system", system)
        conversation.read(said, "previous_response_id")
        lost = list(conversation.lost)
        limit = request.max_output_tokens
        if limit == 0:
            lost.append("max_output_tokens")
        stay = read_stay(request.ttl, lost)
        return Generate(
            model=self.model,
            messages=(*conversation.messages(), Turn("user", self.turn)),
            stream=self.stream,
            think=self.think,
            sampling=Sampling(
                temperature=request.temperature,
                top_p=request.top_p,
                top_k=request.top_k,
                min_p=request.min_p,
                repeat_penalty=request.repeat_penalty,
                max_tokens=limit if limit is not None and limit > 0 else None,
            ),
            load=LoadOptions(context=request.context_length),
            keep_alive=stay,
            origin=Origin("lmstudio", self.body, CHAT, tuple(dict.fromkeys(lost)), plain=self.plain),
        )

    def answer(self, stamp: Stamp, *, instance: str, store: bool) -> ChatStream:
        """How to word what comes. ``instance`` is the model's own name, however the client spells it."""
        request = self.request
        return ChatStream(
            stamp,
            instance=instance,
            store=store,
            previous=self.previous,
            temperature=request.temperature,
            top_p=request.top_p,
            limit=request.max_output_tokens,
        )

    def kept(self, id: str) -> bytes:
        """What the client put in, as it is kept: a JSON list of items."""
        items: list[Raw] = []
        if self.request.system_prompt is not None:
            system = {"id": f"{_SYSTEM}{id}_i0", "role": "system", "content": self.request.system_prompt}
            items.append(Raw(_encode(system)))
        items.append(Raw(_encode({"role": "user", "content": [_kept(part) for part in self.turn]})))
        return _encode(kept_items(items, id))


def read_chat(body: bytes) -> Chat:
    """A request for an answer.

    Raises:
        InvalidRequest: the body breaks the format or a limit.
        NotImplementedHere: it names tools that the server would have to call.
    """
    request, plain = read_request(_chat, body, invalid)
    if not request.model:
        raise needed("model")
    if request.input is None:
        raise needed("input")
    if request.integrations:
        raise NotImplementedHere(
            '"integrations" are not supported: this gateway calls no plugins and no MCP servers', param="integrations"
        )
    if request.reasoning is not None and request.reasoning not in _THINK:
        words = f'"reasoning": {request.reasoning[:40]!r} is none of {", ".join(_THINK)}'
        raise InvalidRequest(words, param="reasoning")
    previous = request.previous_response_id
    if previous is not None and not previous.startswith("resp_"):
        raise InvalidRequest('"previous_response_id" must start with "resp_"', param="previous_response_id")
    turn = tuple(_parts(request.input))
    if not turn:
        raise InvalidRequest('"input" must not be empty', param="input")
    return Chat(request=request, model=request.model, turn=turn, body=body, plain=plain)


def _parts(given: str | list[wire.Item]) -> list[Part]:
    if isinstance(given, str):
        return [Text(given)] if given else []
    if len(given) > MESSAGES:
        raise InvalidRequest(f'"input" may have at most {MESSAGES} items', param="input")
    parts: list[Part] = []
    for number, item in enumerate(given):
        place = f"input[{number}]"
        match item.type:
            case "text" | "message":
                if item.content is None:
                    raise needed(f"{place}.content")
                if item.content:
                    parts.append(Text(item.content))
            case "image":
                if not item.data_url:
                    raise needed(f"{place}.data_url")
                if not item.data_url.startswith("data:"):
                    words = "an image is given as base64: data:image/png;base64,..."
                    raise InvalidRequest(f'"{place}.data_url": {words}', param=f"{place}.data_url")
                parts.append(Image(image_from_base64(item.data_url, param=f"{place}.data_url")))
            case "":
                raise needed(f"{place}.type")
            case kind:
                words = f'"{place}.type": {kind[:40]!r} is none of text, message, image'
                raise InvalidRequest(words, param=f"{place}.type")
    return parts


def _kept(part: Part) -> dict[str, str]:
    if isinstance(part, Text):
        return {"type": "input_text", "text": part.text}
    assert isinstance(part, Image)
    assert not isinstance(part.source, str)
    return {"type": "input_image", "image_url": part.source.data_url()}


def _without_system(history: Sequence[Raw]) -> tuple[str, list[Raw]]:
    """The system prompt that holds now, and what else was said: a later one takes the place of an earlier."""
    system = ""
    said: list[Raw] = []
    for item in history:
        if (_kind.decode(item).id or "").startswith(_SYSTEM):
            content = _message.decode(item).content
            system = content if isinstance(content, str) else "".join(part.text or "" for part in content or ())
        else:
            said.append(item)
    return system, said

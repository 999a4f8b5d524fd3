"""``/v1/chat/completions``: OpenAI's request with Brenda's marks, and its answer at once.

A ``system`` text beside the messages stands for all instructions among them, and ``ai`` is the assistant. All other fields
are OpenAI's. So is the whole answer, which has more than the document says: clients of either kind find what they look
for. Its ``content`` is always a text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from msgspec import Struct, structs

from adapters.brenda import wire
from adapters.brenda.stream import TextStream
from adapters.dialect import Ask, Stamp
from adapters.openai import wire as openai
from adapters.openai.chat import asked
from adapters.openai.chat_reply import chat_choice, chat_object
from adapters.openai.fields import read_known
from adapters.openai.vocabulary import CHAT
from adapters.reading import Reading
from canonical.errors import Unsupported
from canonical.events import Completion
from canonical.features import Feature

_chat = Reading(wire.ChatRequest, strict=False)
_WORDS = structs.replace(
    CHAT, names={**CHAT.names, Feature.SYSTEM: ("system", "messages[].role")}, known=CHAT.known | {"system"}
)
_INSTRUCTIONS = frozenset({"system", "developer"})


class Chat(Struct, frozen=True):
    """A chat, read off the wire."""

    model: str
    """The model that it names; empty: its session's."""
    _asked: Ask
    _legacy: bool

    def ask(self, model: str) -> Ask:
        """The same of ``model``, and how to word its answer."""
        requests = tuple(structs.replace(request, model=model) for request in self._asked.requests)
        whole = partial(_reply, model=model, top=requests[0].top_logprobs, legacy=self._legacy)
        return structs.replace(self._asked, requests=requests, encoder=TextStream, whole=whole)


def read_chat(body: bytes, *, system: str = "") -> Chat:
    """A chat; ``system``: the instructions of one that brings none.

    Raises:
        InvalidRequest: the body breaks the format or a limit.
        Unsupported: it asks for what no backend can give, or for what a stream of plain text has no place for.
    """
    request, plain = read_known(_chat, body)
    lost = _check_stream(request) if request.stream else []
    changed = _say(request, system)
    ask = asked(request, body, plain=plain, words=_WORDS, as_it_came=not changed, lost=lost)
    return Chat(ask.requests[0].model, ask, request.tools is None and request.functions is not None)


def _check_stream(request: wire.ChatRequest) -> list[str]:
    """What a stream of plain text leaves unsaid. Raises Unsupported for what would spoil it, or be missed."""
    if request.n is not None and request.n > 1:
        raise Unsupported("a stream of plain text has room for one choice: 'n' must be 1, or 'stream' false", param="n")
    tools, choice = ("tools", request.tool_choice) if request.tools else ("functions", request.function_call)
    if (request.tools or request.functions) and choice != "none":
        raise Unsupported(
            f"a stream of plain text has no place for calls of {tools}: 'stream' must be false", param=tools
        )
    lost: list[str] = []
    if request.logprobs:
        lost.append("logprobs")
        request.logprobs = request.top_logprobs = None
    if request.stream_options is not None and request.stream_options.include_usage:
        lost.append("stream_options.include_usage")
    return lost


def _say(request: wire.ChatRequest, default: str) -> bool:
    """Spell the messages as OpenAI does; whether that changes any of them."""
    messages = request.messages
    changed = False
    for message in messages:
        if message.role == "ai":
            message.role = "assistant"
            changed = True
    text = request.system
    if not messages:
        return changed  # which is refused
    if text is None:
        if not default or any(message.role in _INSTRUCTIONS for message in messages):
            return changed
        text = default
    said = [openai.Message(role="system", content=text)] if text else []
    request.messages = [*said, *(message for message in messages if message.role not in _INSTRUCTIONS)]
    return True


def _reply(completions: Sequence[Completion], stamp: Stamp, *, model: str, top: int | None, legacy: bool) -> bytes:
    """The whole answer. One that was stopped has no calls: the last of them may be half of one."""
    whole = [structs.replace(one, tool_calls=()) if one.reason == "cancelled" else one for one in completions]
    choices = [chat_choice(index, one, top=top, legacy=legacy) for index, one in enumerate(whole)]
    for choice in choices:
        choice.message.content = choice.message.content or ""
    return chat_object(choices, whole, stamp, model=model)

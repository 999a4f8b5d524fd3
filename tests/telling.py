"""Stories: one stream of events, and how each dialect tells it.

A row of ``DIALECTS`` is a file's name in a story's folder and what makes its bytes out of events. A new dialect adds its
rows here and its files there. ``python -m tests.telling`` writes every file anew, to be read with care before it is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from adapters.anthropic import serve as anthropic
from adapters.brenda import serve as brenda
from adapters.conversation import serve as conversation
from adapters.dialect import Ask, LoadAsk, Stamp
from adapters.lmstudio import serve as lmstudio
from adapters.ollama import serve as ollama
from adapters.openai import serve as openai
from adapters.responses import serve as responses
from canonical.events import Event, ReasoningDelta, ToolCallDelta, fold
from canonical.models import ModelInfo

STORIES = Path(__file__).parent / "stories"
STAMP = Stamp("story", lambda: 1_700_000_000_000_000_000)

Tell = Callable[[Sequence[Event]], bytes]
Read = Callable[[bytes], Ask | LoadAsk]

_event = msgspec.json.Decoder(Event)


class Story(NamedTuple):
    """A folder of ``stories``."""

    name: str
    events: tuple[Event, ...]

    @property
    def folder(self) -> Path:
        return STORIES / self.name

    @property
    def plain(self) -> bool:
        """Whether a dialect without tool calls and reasoning can tell it."""
        return not any(isinstance(event, ToolCallDelta | ReasoningDelta) for event in self.events)


def streamed(read: Read, body: bytes) -> Tell:
    """How the dialect of ``read`` streams an answer to the request ``body``."""

    def tell(events: Sequence[Event]) -> bytes:
        ask = read(body)
        assert isinstance(ask, Ask)
        assert ask.stream
        encoder = ask.encoder(STAMP)
        return b"".join([*(encoder.feed(event) for event in events), encoder.finish()])

    return tell


def whole(read: Read, body: bytes) -> Tell:
    """How the dialect of ``read`` answers the request ``body`` at once; a line's end is added, as files have one."""

    def tell(events: Sequence[Event]) -> bytes:
        ask = read(body)
        assert isinstance(ask, Ask)
        assert not ask.stream
        return ask.whole([fold(events)], STAMP).rstrip(b"\n") + b"\n"

    return tell


def respond(body: bytes, *, whole: bool) -> Tell:
    """How ``/v1/responses`` answers the request ``body``: every event of its stream, or the object."""

    def tell(events: Sequence[Event]) -> bytes:
        answer = responses.read_create(body).answer(STAMP, store=True)
        frames = b"".join([*(answer.feed(event) for event in events), answer.finish()])
        return answer.body() + b"\n" if whole else frames

    return tell


def chat(body: bytes, *, whole: bool) -> Tell:
    """How LM Studio's ``/api/v1/chat`` answers the request ``body``, by a model that was loaded."""

    def tell(events: Sequence[Event]) -> bytes:
        answer = lmstudio.read_chat(body).answer(STAMP, instance="pip", store=True)
        frames = b"".join([*(answer.feed(event) for event in events), answer.finish()])
        return answer.body() + b"\n" if whole else frames

    return tell


def brenda_of(body: bytes) -> Ask:
    """A request of Brenda's chats."""
    return brenda.read_chat(body).ask("pip")


def with_stats(body: bytes) -> Ask:
    """A request of LM Studio's ``/api/v0/chat/completions``."""
    info = ModelInfo(id="pip", format="gguf", family="llama", quantization="Q8_0", context_length=4096)
    return lmstudio.with_stats(openai.read_chat(body), info)


def asked(body: bytes) -> Ask:
    """A request of the conversation service's ``/generate``."""
    return conversation.generate_ask(conversation.read_query(body).asked("pip"), lines=False)


_TURN = b'"messages":[{"role":"user","content":"Hello"}]'
_USAGE = b'"stream":true,"stream_options":{"include_usage":true}'
_LOGPROBS = b',"logprobs":true,"top_logprobs":2'

_ASKED = b'{"model":"pip","input":"Hello","include":["message.output_text.logprobs"],"top_logprobs":2'
_LIMIT = b'{"model":"pip","max_tokens":100,'

DIALECTS: dict[str, Tell] = {
    "anthropic.sse": streamed(anthropic.read_messages, _LIMIT + _TURN + b',"stream":true}'),
    "anthropic.json": whole(anthropic.read_messages, _LIMIT + _TURN + b"}"),
    "openai.sse": streamed(openai.read_chat, b'{"model":"pip",' + _TURN + b"," + _USAGE + b"}"),
    "openai.json": whole(openai.read_chat, b'{"model":"pip",' + _TURN + b"}"),
    "brenda.sse": streamed(brenda_of, b"{" + _TURN + b',"stream":true}'),
    "brenda.json": whole(brenda_of, b"{" + _TURN + b"}"),
    "lmstudio.sse": chat(b'{"model":"pip","input":"Hello","stream":true}', whole=False),
    "lmstudio.json": chat(b'{"model":"pip","input":"Hello"}', whole=True),
    "lmstudio-v0.sse": streamed(with_stats, b'{"model":"pip",' + _TURN + b',"stream":true}'),
    "lmstudio-v0.json": whole(with_stats, b'{"model":"pip",' + _TURN + b"}"),
    "responses.sse": respond(_ASKED + b',"stream":true}', whole=False),
    "responses.json": respond(_ASKED + b"}", whole=True),
    "completion.sse": streamed(openai.read_completion, b'{"model":"pip","prompt":"Hello",' + _USAGE + b"}"),
    "completion.json": whole(openai.read_completion, b'{"model":"pip","prompt":"Hello"}'),
    "ollama.ndjson": streamed(ollama.read_chat, b'{"model":"pip",' + _TURN + _LOGPROBS + b"}"),
    "ollama.json": whole(ollama.read_chat, b'{"model":"pip",' + _TURN + _LOGPROBS + b',"stream":false}'),
    "generate.ndjson": streamed(ollama.read_generate, b'{"model":"pip","prompt":"Hello"' + _LOGPROBS + b"}"),
    "conversation.sse": streamed(asked, b'{"model":"pip","prompt":"Hello"}'),
    "generate.json": whole(ollama.read_generate, b'{"model":"pip","prompt":"Hello"' + _LOGPROBS + b',"stream":false}'),
}

PLAIN_ONLY = frozenset({"completion.sse", "completion.json", "brenda.sse"})
"""Dialects without words for tool calls and reasoning."""


def stories() -> list[Story]:
    """All of them, in the order of their names."""
    found = []
    for path in sorted(STORIES.glob("*/events.jsonl")):
        events = tuple(_event.decode(line) for line in path.read_bytes().splitlines())
        found.append(Story(path.parent.name, events))
    return found


def told() -> Iterator[tuple[Story, str]]:
    """Every story with every file that must tell it."""
    for story in stories():
        for file in DIALECTS:
            if story.plain or file not in PLAIN_ONLY:
                yield story, file


if __name__ == "__main__":
    for story, file in told():
        (story.folder / file).write_bytes(DIALECTS[file](story.events))

"""A model's raw bytes -> OpenAI-shaped chunks: whole characters, stop strings, thoughts, tool calls, log probabilities.

For the engine that has none of this itself. Pure: bytes in, bytes out.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable
from typing import Any

import msgspec

from backends.llama_cpp.engine import Kind
from backends.llama_cpp.tags import Call, ToolSplitter
from canonical.events import ReasoningDelta
from canonical.think import ThinkSplitter, held

_encode = msgspec.json.Encoder().encode


class Text:
    """Bytes of tokens -> text; never half a character, never a stop string nor the beginning of one."""

    def __init__(self, stops: list[str]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stop = ""
        """The stop string that was found."""

    @property
    def stopped(self) -> bool:
        """Whether one was."""
        return bool(self.stop)

    def feed(self, data: bytes, *, final: bool = False) -> str:
        """The text that ``data`` settles; nothing follows once ``stopped``."""
        text = self._held + self._decoder.decode(data, final)
        self._held = ""
        places = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if places:
            at, self.stop = min(places)
            return text[:at]
        if not final and self._stops:
            count = max(held(text, stop) for stop in self._stops)
            if count:
                self._held, text = text[-count:], text[:-count]
        return text


class Writer:
    """One answer's chunks.

    ``thinks``: None where the model has no such tags, else whether the prompt has already opened one. ``calls``: whether
    tool calls are looked for.
    """

    def __init__(self, kind: Kind, *, thinks: bool | None, calls: bool, new_id: Callable[[], str]) -> None:
        self._chat = kind == "chat"
        self._think = ThinkSplitter(thinking=thinks) if self._chat and thinks is not None else None
        self._tools = ToolSplitter() if self._chat and calls else None
        self._new_id = new_id
        self.calls = 0
        """Calls so far."""
        self._logprobs: list[dict[str, Any]] = []
        self._thought = False
        self.thoughts = 0
        """Chunks of thoughts so far."""

    @property
    def thinking(self) -> bool:
        """Whether a thought is open."""
        return self._think is not None and self._think.thinking

    def begin(self) -> bytes:
        """The chunk that says that the answer has begun."""
        return self._chunk({"role": "assistant", "content": ""} if self._chat else "")

    def feed(self, text: str, logprobs: list[dict[str, Any]]) -> list[bytes]:
        """The chunks that ``text`` settles. ``logprobs`` of its tokens go out with the next text there is."""
        self._logprobs += logprobs
        if not self._chat:
            return [self._chunk(text)] if text else []
        if self._think is None:
            return self._texts([text]) if text else []
        return self._thoughts(self._think.feed(text)) if text else []

    def finish(self, reason: str) -> list[bytes]:
        """What was held back, and the finish reason."""
        chunks: list[bytes] = []
        if self._think is not None:
            chunks += self._thoughts(self._think.finish())
        if self._tools is not None:
            chunks += self._pieces(self._tools.finish())
        if self._logprobs:
            chunks.append(self._chunk({"content": ""} if self._chat else ""))
        if self.calls and reason == "stop":
            reason = "tool_calls"
        chunks.append(self._chunk({} if self._chat else "", reason))
        return chunks

    def _thoughts(self, events: list[Any]) -> list[bytes]:
        chunks: list[bytes] = []
        for event in events:
            if isinstance(event, ReasoningDelta):
                self._logprobs.clear()  # they belong to tokens that are no content
                self.thoughts += 1
                chunks.append(self._chunk({"reasoning_content": event.text}))
                self._thought = True
            else:
                if self._thought:
                    del self._logprobs[:-1]  # the rest are the tag's, and the white space's behind it
                    self._thought = False
                chunks += self._texts([event.text])
        return chunks

    def _texts(self, texts: list[str]) -> list[bytes]:
        if self._tools is None:
            return [self._chunk({"content": text}) for text in texts]
        return [chunk for text in texts for chunk in self._pieces(self._tools.feed(text))]

    def _pieces(self, pieces: list[str | Call]) -> list[bytes]:
        chunks: list[bytes] = []
        for piece in pieces:
            if isinstance(piece, str):
                chunks.append(self._chunk({"content": piece}))
            else:
                function = {"name": piece.name, "arguments": piece.arguments}
                call = {"index": self.calls, "id": self._new_id(), "type": "function", "function": function}
                self.calls += 1
                self._logprobs.clear()
                chunks.append(self._chunk({"tool_calls": [call]}))
        return chunks

    def _chunk(self, delta: dict[str, Any] | str, reason: str | None = None) -> bytes:
        choice: dict[str, Any] = {"index": 0, "finish_reason": reason, "delta" if self._chat else "text": delta}
        if self._logprobs and (delta if isinstance(delta, str) else "content" in delta or reason):
            choice["logprobs"] = {"content": self._logprobs}
            self._logprobs = []
        return _encode({"choices": [choice], "model": "model"})


class Budget:
    """Counts the tokens of thoughts, and says when there have been enough; ``limit`` None: there never are."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._inside = self._first = self._latest = self._thoughts = 0
        self._ended = False

    @property
    def told(self) -> int:
        """Tokens from the first that became a thought to the last."""
        return self._latest - self._first + 1 if self._latest else 0

    def spent(self, writer: Writer) -> bool:
        """True once: when the thoughts are to end here."""
        if self._limit is None or self._ended or not writer.thinking or self._inside < self._limit:
            self._inside += writer.thinking
            return False
        self._ended = True
        return True

    def count(self, writer: Writer, tokens: int) -> None:
        """Take note of what token number ``tokens`` has become."""
        if writer.thoughts > self._thoughts:
            self._thoughts = writer.thoughts
            self._first = self._first or tokens
            self._latest = tokens


def usage(
    *, prompt: int, cached: int, completion: int, prompt_ms: float, eval_ms: float, reasoning: int = 0, stop: str = ""
) -> bytes:
    """The last chunk."""
    return _encode(
        {
            "choices": [],
            "model": "model",
            "usage": {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": prompt + completion,
                "prompt_tokens_details": {"cached_tokens": cached},
                "completion_tokens_details": {"reasoning_tokens": reasoning},
            },
            "__verbose": {"stopping_word": stop},
            "timings": {
                "cache_n": cached,
                "prompt_n": prompt - cached,
                "prompt_ms": prompt_ms,
                "predicted_n": completion,
                "predicted_ms": eval_ms,
            },
        }
    )

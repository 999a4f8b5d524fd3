"""One request on its way: from the body to the last chunk, a token at a time."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from backends.base import new_call_id
from backends.llama_cpp import answer
from backends.llama_cpp.batching.asked import Asked
from backends.llama_cpp.batching.vocabulary import Vocabulary
from backends.llama_cpp.engine import Emit
from backends.llama_cpp.sampling import Candidates, Chain
from canonical.think import CLOSE

LAG = 64
"""Chunk lists that may wait for a slow reader; then its slot pauses, and the others go on."""


class Task:
    """A request between the thread that serves it and the one that computes."""

    def __init__(
        self,
        asked: Asked,
        emit: Emit,
        vocabulary: Vocabulary,
        *,
        context: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """``context``: tokens that prompt and answer may have together.

        Raises:
            BadSampling: see ``Chain``.
        """
        body = asked.body
        self.prompt = asked.tokens
        self.tenant = body.dragoman_tenant
        self.fresh = not body.cache_prompt
        self.seeded = body.seed is not None
        """The same numbers are to come out each time, as far as that can be had."""
        self.order = 0
        self.cached = 0
        """Tokens of the prompt that were there already."""
        self.barred = -1
        """The memory was full for it when so many requests had ended; it tries again after another."""
        self.failure: BaseException | None = None
        self.out: queue.SimpleQueue[list[bytes] | None] = queue.SimpleQueue()
        """Chunks for the thread that serves it; None: that was all."""
        self.begun = 0
        """Tokens of the answer so far."""
        self._emit = emit
        self._left = False
        self._vocabulary = vocabulary
        self._clock = clock
        self._body = body
        self._writer = answer.Writer(asked.kind, thinks=asked.thinks, calls=body.calls, new_id=new_call_id)
        self._text = answer.Text(body.stop)
        self._budget = answer.Budget(body.thinking_budget_tokens)
        self._ending: list[int] = []  # what ends the thoughts; the model does not choose it
        self._limit = context - len(asked.tokens)
        if body.max_tokens is not None:
            self._limit = min(self._limit, max(body.max_tokens, 1))
        self._seated = self._computed = 0.0
        self._chunks: list[bytes] = []
        self._chain = Chain(body, vocabulary.native, grammar=asked.grammar)

    @property
    def lags(self) -> bool:
        """See ``Work``."""
        return self.out.qsize() >= LAG

    @property
    def stopped(self) -> bool:
        """Whether nobody wants the answer any more. Asks, but does not wait."""
        self._left = self._left or self._emit(b"")
        return self._left

    def deliver(self, relieved: Callable[[], None]) -> None:
        """Pass the chunks on as they come, in the thread that serves the request, until it is over.

        ``relieved``: called when the reader has left, or has caught up. Raises what the computing thread met with.
        """
        while (chunks := self.out.get()) is not None:
            for chunk in chunks:
                if not self._left and self._emit(chunk):
                    self._left = True
                    relieved()
            if self.out.qsize() == LAG - 1:
                relieved()
        if self.failure is not None:
            raise self.failure

    # What follows is for the computing thread alone.

    def seat(self, cached: int) -> None:
        """It has a slot, where so many tokens of its prompt are there already."""
        self.cached = cached
        self._seated = self._clock()

    def next(self, context: Any, place: int, logits: Any, candidates: Candidates) -> int | None:
        """Draw the next token and write what it says; the token, or None where the answer has come to its end.

        ``tell`` or ``drop`` is to follow: a thread that is woken amid a step would only fight for the interpreter.

        Raises:
            NoToken: no token can follow the grammar.
        """
        chunks = self._chunks
        if not self.begun:
            self._computed = self._clock()
            chunks.append(self._writer.begin())
        writer, text = self._writer, self._text
        if self._budget.spent(writer):
            self._ending = self._vocabulary.tokens([CLOSE], special=False)
        token = self._ending.pop(0) if self._ending else self._chain.sample(context, place, logits, candidates)
        self.begun += 1
        final = self._vocabulary.ends(token) and not self._body.ignore_eos
        if not final:
            piece = self._vocabulary.piece(token)
            alternatives = self._body.alternatives
            logprobs = [] if alternatives is None else [self._logprob(token, logits, alternatives)]
            chunks += writer.feed(text.feed(piece), logprobs)
            self._budget.count(writer, self.begun)
        if final or text.stopped or (writer.calls and self._body.parallel_tool_calls is False):
            self.end("stop")
            return None
        if self.begun >= self._limit:
            self.end("length")
            return None
        return token

    def tell(self) -> None:
        """Hand on what has been written."""
        chunks, self._chunks = self._chunks, []
        self.out.put(chunks)

    def drop(self, failure: BaseException | None = None) -> None:
        """It is over: at its end, because nobody wants it, or for ``failure``."""
        self.failure = failure
        self._chain.free()
        self.tell()
        self.out.put(None)

    def refuse(self, chunk: bytes) -> None:
        """It cannot be answered, and ``chunk`` says why."""
        self._chunks.append(chunk)

    def end(self, reason: Literal["stop", "length"]) -> None:
        """Write the answer's end."""
        writer, text, chunks = self._writer, self._text, self._chunks
        chunks += writer.feed("" if text.stopped else text.feed(b"", final=True), [])
        chunks += writer.finish(reason)
        chunks.append(
            answer.usage(
                prompt=len(self.prompt),
                cached=self.cached,
                completion=self.begun,
                prompt_ms=(self._computed - self._seated) * 1000,
                eval_ms=(self._clock() - self._computed) * 1000,
                reasoning=self._budget.told,
                stop=text.stop,
            )
        )

    def _logprob(self, token: int, logits: Any, alternatives: int) -> dict[str, Any]:
        values = logits.astype(np.float64)
        most = values.max()
        logs = values - (most + np.log(np.exp(values - most).sum()))
        best = np.argsort(logs)[::-1][:alternatives]
        return {
            **self._named(token, float(logs[token])),
            "top_logprobs": [self._named(int(other), float(logs[other])) for other in best],
        }

    def _named(self, token: int, value: float) -> dict[str, Any]:
        piece = self._vocabulary.piece(token)
        return {"token": piece.decode(errors="replace"), "bytes": list(piece), "logprob": value}

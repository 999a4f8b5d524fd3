"""One model in one dialect: every question asked as the gateway would ask it, in bounded time.

Three failures in a row that are no refusal (silence, garbage, errors of the server) end it: what was found until then
stands, the rest is unknown.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any

import msgspec
from msgspec import Struct, structs

from backends.abilities import Able, Dialect, Found
from backends.base import Counts, Embeds, Generates, Model, Reranks
from backends.honours import TABLE
from canonical.errors import (
    BackendError,
    BackendTimeout,
    BackendUnavailable,
    Busy,
    GatewayError,
    InvalidRequest,
    ModelNotFound,
)
from canonical.events import Check, Completion, Event, Started, TextDelta, fold
from canonical.features import Feature
from canonical.models import Capability, ModelInfo
from canonical.requests import Embed, Embeddings, Generate, Origin
from gateway.probe import judges, questions

STRIKES = 3
NOTE_LIMIT = 300
"""Characters of a server's words that are kept."""
TEXT_LIMIT = 200_000
"""Characters of an answer: every ask allows far fewer."""
ROOM = 1500
"""Tokens for thoughts that cannot be turned off."""
HOT = {"openai": 1.5, "ollama": 1.5, "anthropic": 1.0}
"""A high temperature that the dialect allows."""
PAUSE = 10.0
"""Seconds that a busy server is given, at most."""

Clock = Callable[[], float]
Progress = Callable[[str, Found | None], None]
"""Takes the name of what is being asked; and, once it is known, what was found."""


class Patience(Struct, frozen=True, kw_only=True):
    """Seconds."""

    first: float = 300.0
    """For the first answer: the server may have to load the model."""
    ask: float = 60.0
    total: float = 1800.0
    """For all questions to all models."""


class GaveUp(Exception):
    """The model does not answer any more; the message says what came instead."""


class _OutOfTime(Exception):
    """All the time there was is used up."""


class Asker:
    """One model, asked."""

    def __init__(
        self, model: Model, dialect: Dialect, *, patience: Patience, until: float, clock: Clock, progress: Progress
    ) -> None:
        """``until`` is when, on ``clock``, the time for everything is over."""
        self._model = model
        self._dialect = dialect
        self._patience = patience
        self._until = until
        self._clock = clock
        self._progress = progress
        self._answers: dict[tuple[bytes, int], Completion] = {}
        self._strikes = 0
        self._off = False
        self._room = 0
        self._drawn = True
        self._alive: Generate | None = None
        self.features: dict[Feature, Found] = {}
        self.also: dict[str, Found] = {}
        self.capabilities: dict[Capability, bool] = {}
        self.length = 0
        """Numbers of a vector."""
        self.trouble = ""
        """Why it ended early; empty: it did not."""

    async def ask_all(self) -> None:
        """Everything. What was found stands in the attributes, also when this ends early."""
        try:
            await self._talk()
            await self._vectors()
            await self._ranks()
        except GaveUp as error:
            self.trouble = str(error)
        except _OutOfTime:
            self.trouble = f"the {self._patience.total:g} s for everything are over"

    @property
    def refused(self) -> str:
        """The server's words, if it refuses even the plainest conversation."""
        chat = self.also.get("chat")
        return chat.note if chat is not None and chat.fate == "refused" else ""

    def able(self, told: ModelInfo) -> Able:
        """What was found, beside what the server tells of the model."""
        inline = any(judges.thinks_inline(answer) for answer in self._answers.values())
        return Able(
            capabilities=dict(sorted(self.capabilities.items())),
            inline_thinking=inline,
            context_length=told.context_length,
            embedding_length=self.length or told.embedding_length,
            family=told.family,
            parameter_size=told.parameter_size,
            quantization=told.quantization,
            features={
                name: found if found.note else found.fate
                for name in Feature
                if (found := self.features.get(name)) is not None
            },
            also={name: found if found.note else found.fate for name, found in self.also.items()},
        )

    # Conversations

    async def _talk(self) -> None:
        if not isinstance(self._model, Generates):
            return
        chat = await self._found("chat", self._first)
        talks = chat.fate == "honoured"
        self._can(Capability.CHAT, chat)
        if talks:
            await self._manners()
            await self._flow()
        wanted: tuple[questions.Question, ...] = ()
        if talks:
            wanted = questions.questions(HOT[self._dialect])
        elif chat.fate == "refused":
            wanted = questions.base_questions()
        for question in wanted:
            if question.feature not in self.features and self._has_words(question.feature):
                await self._question(question)
        self._follow(talks=talks, refused=chat.fate == "refused")

    async def _first(self) -> Found:
        self._alive = questions.FIRST
        answer = await self._generate(questions.FIRST, self._patience.first)
        if not answer.text and answer.reasoning:
            self._room = ROOM
            answer = await self._answer(questions.FIRST)
        if not answer.text and not answer.reasoning:
            return Found("dropped", "the answer is empty")
        return judges.answered("paris")([answer])

    async def _manners(self) -> None:
        """What this model wants in every request: no temperature, no thoughts, or more room for them."""
        temperature = await self._found(
            "temperature 0", lambda: self._judged(judges.accepted, questions.CALM), keep=False
        )
        if temperature.fate == "refused":
            self._drawn = False
            self.features[Feature.TEMPERATURE] = temperature
        for question in questions.questions(HOT[self._dialect]):
            if question.feature is Feature.THINK_OFF and self._has_words(question.feature):
                found = await self._question(question)
                free = self._answers.get((_key(self._settled(question.asks[0])), 0))
                if free is not None and judges.thought(free):
                    self._off, self._room = found.fate == "honoured", 0 if found.fate == "honoured" else ROOM

    async def _flow(self) -> None:
        """What no field asks for."""
        counting = questions.COUNTING
        await self._found("stream", self._streams)
        whole = structs.replace(questions.CALM, stream=False)
        await self._found("whole", lambda: self._judged(judges.same_whole, questions.CALM, whole))
        await self._found("usage", lambda: self._judged(judges.counted, counting, whole))
        await self._found("tool_results", lambda: self._judged(judges.answered("sunny"), questions.ANSWERS))
        await self._found("leaving", self._leaves)
        await self._found("unknown_field", self._unknown_field)
        if isinstance(self._model, Counts):
            await self._found("count", self._counts)

    async def _streams(self) -> Found:
        events = await self._events(self._settled(questions.COUNTING), self._patience.ask)
        return judges.streamed(sum(isinstance(event, TextDelta) for event in events))

    async def _leaves(self) -> Found:
        """Whether a server is free again once nobody listens."""
        assert isinstance(self._model, Generates)
        begun = self._clock()
        await self._generate(questions.CALM, self._patience.ask)
        before = self._clock() - begun
        async with self._in_time(self._patience.ask):
            stream = self._model.generate(self._settled(questions.LONG))
            async with aclosing(stream):
                async for batch in stream:
                    if any(not isinstance(event, Started) for event in batch):
                        break
        begun = self._clock()
        await self._generate(questions.CALM, self._patience.ask)
        return judges.free_again(before, self._clock() - begun)

    async def _unknown_field(self) -> Found:
        body = msgspec.json.encode(
            {"messages": [{"role": "user", "content": questions.GREETING}], "dragoman_probe": True}
        )
        odd = structs.replace(questions.chat(questions.GREETING), origin=Origin(self._dialect, body))
        await self._generate(odd, self._patience.ask)
        return judges.HONOURED

    async def _counts(self) -> Found:
        assert isinstance(self._model, Counts)
        ask = self._settled(questions.CALM)
        async with self._in_time(self._patience.ask):
            count = await self._model.count(ask)
        return judges.count_matches(count, await self._answer(questions.CALM))

    def _follow(self, *, talks: bool, refused: bool) -> None:
        """Capabilities are what the router asks for; they follow from the features."""
        for capability, feature in (
            (Capability.TOOLS, Feature.TOOLS),
            (Capability.VISION, Feature.IMAGE),
            (Capability.REASONING, Feature.THINK_ON),
            (Capability.COMPLETE, Feature.PROMPT),
            (Capability.INSERT, Feature.SUFFIX),
        ):
            found = self.features.get(feature)
            if not self._has_words(feature):
                self.capabilities[capability] = False
            elif found is not None:
                self._can(capability, found)
            elif refused and not talks:
                self.capabilities[capability] = False
        thinks = self.features.get(Feature.THINK_ON)
        if thinks is not None and thinks.fate == "unknown" and "reason" in thinks.note:
            self.capabilities[Capability.REASONING] = False

    # Vectors

    async def _vectors(self) -> None:
        if not isinstance(self._model, Embeds):
            self.capabilities[Capability.EMBED] = False
            return
        found = await self._found("embed", lambda: self._judged_vectors(questions.EMBEDS))
        self._can(Capability.EMBED, found)
        if not self.length:
            return
        for question in questions.vector_questions(self.length):
            feature = question.feature
            if feature is not None and self._has_words(feature):
                ask = partial(self._judged_vectors, question)
                self.features[feature] = await self._found(feature, ask, keep=False)

    async def _judged_vectors(self, question: questions.VectorQuestion) -> Found:
        answers = [await self._embed(ask) for ask in question.asks]
        if question.feature is None:
            self.length = len(answers[0].vectors[0])
        return question.judge(answers)

    async def _embed(self, ask: Embed) -> Embeddings:
        assert isinstance(self._model, Embeds)
        first = not self.length
        async with self._in_time(self._patience.first if first else self._patience.ask):
            return await self._model.embed(ask)

    async def _ranks(self) -> None:
        if not isinstance(self._model, Reranks):
            self.capabilities[Capability.RERANK] = False
            return
        self._can(Capability.RERANK, await self._found("rerank", self._reranks))

    async def _reranks(self) -> Found:
        assert isinstance(self._model, Reranks)
        async with self._in_time(self._patience.ask):
            answer = await self._model.rerank(questions.RERANKS)
        return judges.ranked(len(questions.RERANKS.documents))(answer)

    # One question

    async def _question(self, question: questions.Question) -> Found:
        found = await self._found(question.feature, lambda: self._judged(question.judge, *question.asks), keep=False)
        self.features[question.feature] = found
        return found

    async def _judged(self, judge: judges.Judge, *asks: Generate) -> Found:
        seen: dict[bytes, int] = {}
        answers = []
        for ask in asks:
            key = _key(self._settled(ask))
            answers.append(await self._answer(ask, seen.get(key, 0)))
            seen[key] = seen.get(key, 0) + 1
        return judge(answers)

    async def _found(self, name: str, ask: Callable[[], Any], *, keep: bool = True) -> Found:
        """What ``ask`` finds; a refusal is a finding, and any other failure is asked about once more."""
        self._progress(name, None)
        found = await self._tried(ask)
        self._progress(name, found)
        if keep:
            self.also[name] = found
        return found

    async def _tried(self, ask: Callable[[], Any], *, again: bool = True) -> Found:
        try:
            found: Found = await ask()
        except (BackendTimeout, BackendUnavailable) as error:
            return self._strike(error)
        except Busy as error:
            if not again:
                return self._strike(error)
            await asyncio.sleep(min(error.retry_after or 1.0, PAUSE))
            return await self._tried(ask, again=False)
        except (InvalidRequest, ModelNotFound) as error:
            self._strikes = 0
            return Found("refused", _words(error))
        except BackendError as error:
            if error.code == "backend_credentials":
                raise GaveUp(_words(error)) from None
            if again:
                return await self._tried(ask, again=False)
            return await self._doubtful(error)
        else:
            self._strikes = 0
            return found

    async def _doubtful(self, error: BackendError) -> Found:
        """Servers refuse with any status. If the model still answers what it answered before, this was a refusal."""
        if self.also.get("chat", Found("unknown")).fate == "honoured" and self._alive is not None:
            try:
                await self._generate(self._alive, self._patience.ask)
            except GatewayError:
                pass
            else:
                self._strikes = 0
                return Found("refused", _words(error))
        return self._strike(error)

    def _strike(self, error: GatewayError) -> Found:
        self._strikes += 1
        if self._strikes >= STRIKES:
            raise GaveUp(_words(error))
        return Found("unknown", _words(error))

    # One answer

    async def _answer(self, ask: Generate, turn: int = 0) -> Completion:
        """The answer to a question's request; ``turn`` counts its equals."""
        key = _key(self._settled(ask)), turn
        if key not in self._answers:
            self._answers[key] = await self._generate(ask, self._patience.ask)
        return self._answers[key]

    async def _generate(self, ask: Generate, seconds: float) -> Completion:
        return fold(await self._events(self._settled(ask), seconds))

    async def _events(self, request: Generate, seconds: float) -> list[Event]:
        assert isinstance(self._model, Generates)
        events: list[Event] = []
        check = Check()
        size = 0
        async with self._in_time(seconds):
            stream = self._model.generate(request)
            async with aclosing(stream):
                async for batch in stream:
                    for event in batch:
                        check.feed(event)
                        size += len(event.text) if isinstance(event, TextDelta) else 1
                    events.extend(batch)
                    if size > TEXT_LIMIT:
                        raise BackendError("the answer goes on for ever, whatever limit is asked for")
        check.finish()
        return events

    def _in_time(self, seconds: float) -> _InTime:
        left = self._until - self._clock()
        if left <= 0:
            raise _OutOfTime
        return _InTime(min(seconds, left))

    def _settled(self, ask: Generate) -> Generate:
        return questions.settled(ask, off=self._off, room=self._room, drawn=self._drawn)

    def _has_words(self, feature: Feature) -> bool:
        """Whether the dialect can say it at all."""
        verdict = TABLE[self._dialect].get(feature)
        return verdict is not None and verdict.fate in {"honoured", "approximated"}

    def _can(self, capability: Capability, found: Found) -> None:
        if found.fate != "unknown":
            self.capabilities[capability] = found.fate in {"honoured", "approximated"}


class _InTime:
    """A time limit whose end is the backend's failure."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._timeout = asyncio.timeout(seconds)

    async def __aenter__(self) -> None:
        await self._timeout.__aenter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            await self._timeout.__aexit__(kind, error, where)
        except TimeoutError:
            raise BackendTimeout(f"no answer within {self._seconds:.3g} s") from None


def _key(request: Generate) -> bytes:
    return msgspec.json.encode(request)


def _words(error: GatewayError) -> str:
    words = " ".join(error.message.split())
    return words if len(words) <= NOTE_LIMIT else words[: NOTE_LIMIT - 1] + "…"


def names(models: Sequence[ModelInfo]) -> list[str]:
    """The models' names, each once."""
    return list(dict.fromkeys(info.id for info in models if info.id))

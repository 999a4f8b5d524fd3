"""One model in one dialect: the course of all questions, asked as the gateway would ask them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import msgspec
from msgspec import structs

from backends.abilities import Able, Dialect, Found, Word
from backends.base import Counts, Embeds, Generates, Model, Reranks
from backends.honours import TABLE
from canonical.events import Completion, TextDelta
from canonical.features import Feature
from canonical.models import Capability, ModelInfo
from canonical.requests import Generate, Origin
from gateway.probe import judges, numbers, questions
from gateway.probe.answers import Answers, Clock, GaveUp, Patience

ROOM = 1500
"""Tokens for thoughts that cannot be turned off."""
HOT = {"openai": 1.5, "ollama": 1.5, "anthropic": 1.0}
"""A high temperature that the dialect allows."""

_FEATURES = {
    Capability.TOOLS: Feature.TOOLS,
    Capability.VISION: Feature.IMAGE,
    Capability.REASONING: Feature.THINK_ON,
    Capability.COMPLETE: Feature.PROMPT,
    Capability.INSERT: Feature.SUFFIX,
}
"""What a capability, which the router asks for, is seen by."""

Progress = Callable[[str, Found], None]
"""Takes the name of what was asked, and what was found."""


class Asker:
    """One model, asked. ``until`` is when, on ``clock``, the time for everything is over."""

    def __init__(
        self, model: Model, dialect: Dialect, *, patience: Patience, until: float, clock: Clock, progress: Progress
    ) -> None:
        self._model = model
        self._dialect = dialect
        self._clock = clock
        self._progress = progress
        self._answers = Answers(model, patience=patience, until=until, clock=clock)
        self._known: dict[tuple[bytes, int], Completion] = {}
        self._off = False
        self._room = 0
        self._budget: int | None = None
        self._drawn = True
        self._questions = questions.questions(HOT[dialect])
        self.features: dict[Feature, Found] = {}
        self.also: dict[str, Found] = {}
        self.capabilities: dict[Capability, bool] = {}
        self.length = 0
        """Numbers of a vector."""
        self.trouble = ""
        """Why it ended early; empty: it did not."""

    async def ask_all(self) -> None:
        """Everything. What was found stands in the attributes, also when this ends early."""
        await self._until_trouble(self._talk, self._vectors, self._ranks)

    async def ask_thinking(self) -> None:
        """Only whether it thinks, with a budget for it."""

        async def think() -> None:
            for question in self._questions:
                if question.feature in {Feature.THINK_OFF, Feature.THINK_ON}:
                    await self._question(question)

        self._room, self._budget = ROOM, questions.BUDGET
        await self._until_trouble(think)

    @property
    def refused(self) -> str:
        """The server's words, if it refuses even the plainest conversation."""
        chat = self.also.get("chat")
        return chat.note if chat is not None and chat.fate == "refused" else ""

    def able(self, told: ModelInfo, asked_with: dict[str, str] | None = None) -> Able:
        """What was found, beside what the server tells of the model."""
        features = {name: _brief(self.features[name]) for name in Feature if name in self.features}
        return Able(
            asked_with=asked_with or {},
            capabilities=dict(sorted(self.capabilities.items())),
            inline_thinking=self._answers.inline,
            context_length=told.context_length,
            embedding_length=self.length or told.embedding_length,
            family=told.family,
            parameter_size=told.parameter_size,
            quantization=told.quantization,
            features=features,
            also={name: _brief(found) for name, found in self.also.items()},
        )

    async def _until_trouble(self, *parts: Callable[[], Awaitable[None]]) -> None:
        try:
            for part in parts:
                await part()
        except GaveUp as error:
            self.trouble = str(error)

    # Conversations

    async def _talk(self) -> None:
        if not isinstance(self._model, Generates):
            return
        chat = await self._also("chat", self._first)
        self._can(Capability.CHAT, chat)
        wanted: tuple[questions.Question, ...] = ()
        if chat.fate in {"honoured", "refused"}:
            self._answers.plain = questions.FIRST
        if chat.fate == "honoured":
            await self._manners()
            await self._flow()
            wanted = self._questions
        elif chat.fate == "refused":
            wanted = questions.base_questions()
        for question in wanted:
            if question.feature not in self.features and self._has_words(question.feature):
                await self._question(question)
        self._follow(refused=chat.fate == "refused")

    async def _first(self) -> Found:
        answer = await self._answers.whole(questions.FIRST, self._answers.patience.first)
        if not answer.text and answer.reasoning:
            self._room = ROOM
            answer = await self._answer(questions.FIRST)
        if not answer.text and not answer.reasoning:
            return Found("dropped", "the answer is empty")
        return judges.answered("paris")([answer])

    async def _manners(self) -> None:
        """What this model wants in every request: no temperature, no thoughts, or more room for them."""
        calm = await self._answers.found(lambda: self._judged(judges.accepted, questions.CALM))
        if calm.fate == "refused":
            self._drawn = False
            self.features[Feature.TEMPERATURE] = calm
        question = next(each for each in self._questions if each.feature is Feature.THINK_OFF)
        if not self._has_words(Feature.THINK_OFF):
            return
        free = _key(self._settled(question.asks[0])), 0
        found = await self._question(question)
        if free in self._known and self._known[free].reasoning:
            self._off = found.fate == "honoured"
            self._room = 0 if self._off else ROOM

    async def _flow(self) -> None:
        """What no field asks for."""
        whole = structs.replace(questions.CALM, stream=False)
        await self._also("stream", self._streams)
        await self._also("whole", lambda: self._judged(judges.same_whole, questions.CALM, whole))
        await self._also("usage", lambda: self._judged(judges.counted, questions.COUNTING, whole))
        await self._also("tool_results", lambda: self._judged(judges.answered("sunny"), questions.ANSWERS))
        await self._also("leaving", self._leaves)
        await self._also("unknown_field", self._unknown_field)
        if isinstance(self._model, Counts):
            await self._also("count", self._counts)

    async def _streams(self) -> Found:
        events = await self._answers.events(self._settled(questions.COUNTING))
        return judges.streamed(sum(isinstance(event, TextDelta) for event in events))

    async def _leaves(self) -> Found:
        """Whether a server is free again once nobody listens."""
        begun = self._clock()
        await self._answers.whole(self._settled(questions.CALM))
        before = self._clock() - begun
        await self._answers.begin(self._settled(questions.LONG))
        begun = self._clock()
        await self._answers.whole(self._settled(questions.CALM))
        return judges.free_again(before, self._clock() - begun)

    async def _unknown_field(self) -> Found:
        body = msgspec.json.encode(
            {"messages": [{"role": "user", "content": questions.GREETING}], "dragoman_probe": True}
        )
        odd = structs.replace(questions.chat(questions.GREETING), origin=Origin(self._dialect, body))
        await self._answers.whole(self._settled(odd))
        return judges.HONOURED

    async def _counts(self) -> Found:
        assert isinstance(self._model, Counts)
        async with self._answers.in_time():
            count = await self._model.count(self._settled(questions.CALM))
        return judges.count_matches(count, await self._answer(questions.CALM))

    def _follow(self, *, refused: bool) -> None:
        """Capabilities from the features that show them."""
        for capability, feature in _FEATURES.items():
            found = self.features.get(feature)
            if found is not None:
                self._can(capability, found)
            elif refused or not self._has_words(feature):
                self.capabilities[capability] = False
        if self.features.get(Feature.THINK_ON) == judges.NO_REASONING:
            self.capabilities[Capability.REASONING] = False

    # Vectors and scores

    async def _vectors(self) -> None:
        if not isinstance(self._model, Embeds):
            self.capabilities[Capability.EMBED] = False
            return
        self._can(Capability.EMBED, await self._also("embed", partial(self._judged_vectors, questions.EMBEDS)))
        if not self.length:
            return
        for question in questions.vector_questions(self.length):
            feature = question.feature
            if feature is not None and self._has_words(feature):
                found = await self._answers.found(partial(self._judged_vectors, question))
                self.features[feature] = found
                self._progress(feature.value, found)

    async def _judged_vectors(self, question: questions.VectorQuestion) -> Found:
        assert isinstance(self._model, Embeds)
        answers = []
        for ask in question.asks:
            async with self._answers.in_time(0 if self.length else self._answers.patience.first):
                answers.append(await self._model.embed(ask))
        if question.feature is None:
            self.length = len(answers[0].vectors[0])
        return question.judge(answers)

    async def _ranks(self) -> None:
        if not isinstance(self._model, Reranks):
            self.capabilities[Capability.RERANK] = False
            return
        self._can(Capability.RERANK, await self._also("rerank", self._reranks))

    async def _reranks(self) -> Found:
        assert isinstance(self._model, Reranks)
        async with self._answers.in_time():
            answer = await self._model.rerank(questions.RERANKS)
        return numbers.ranked(len(questions.RERANKS.documents))(answer)

    # One question

    async def _question(self, question: questions.Question) -> Found:
        found = await self._answers.found(lambda: self._judged(question.judge, *question.asks))
        self.features[question.feature] = found
        self._progress(question.feature.value, found)
        return found

    async def _also(self, name: str, ask: Callable[[], Awaitable[Found]]) -> Found:
        found = await self._answers.found(ask)
        self.also[name] = found
        self._progress(name, found)
        return found

    async def _judged(self, judge: judges.Judge, *asks: Generate) -> Found:
        seen: dict[bytes, int] = {}
        answers = []
        for ask in asks:
            key = _key(self._settled(ask))
            answers.append(await self._answer(ask, seen.get(key, 0)))
            seen[key] = seen.get(key, 0) + 1
        return judge(answers)

    async def _answer(self, ask: Generate, turn: int = 0) -> Completion:
        """The answer to a question's request; ``turn`` counts its equals within the question."""
        request = self._settled(ask)
        key = _key(request), turn
        if key not in self._known:
            self._known[key] = await self._answers.whole(request)
        return self._known[key]

    def _settled(self, ask: Generate) -> Generate:
        return questions.settled(ask, off=self._off, room=self._room, drawn=self._drawn, budget=self._budget)

    def _has_words(self, feature: Feature) -> bool:
        """Whether the dialect can say it at all."""
        verdict = TABLE[self._dialect].get(feature)
        return verdict is not None and verdict.fate in {"honoured", "approximated"}

    def _can(self, capability: Capability, found: Found) -> None:
        if found.fate != "unknown":
            self.capabilities[capability] = found.fate in {"honoured", "approximated"}


def _brief(found: Found) -> Word | Found:
    return found if found.note else found.fate


def _key(request: Generate) -> bytes:
    return msgspec.json.encode(request)

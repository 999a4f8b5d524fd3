"""Conversations that are kept: one message after another, each with its whole answer or marked as without one.

A message is stored before the model is asked, and its answer before it goes out. Messages to one conversation are answered in
the order in which they came, also where several gateways share the store: the one in front is asked about there, and those
behind it here wait until it has gone. Who leaves ends the answer; what was said is marked as unanswered then, and whoever says
the same again takes it up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TypeVar

from adapters.conversation.serve import Question
from canonical.errors import Busy, Conflict, GatewayError, InvalidRequest, NotFound, StorageFailed
from canonical.events import Completion
from canonical.limits import MESSAGES
from canonical.messages import Message, Text
from canonical.requests import Generate
from gateway.store import Conversations, Turn
from gateway.unbroken import unbroken

T = TypeVar("T")
Ask = Callable[[Generate], Awaitable[Completion]]
"""Puts a request to a model."""

ROOM = 8 * 1024 * 1024
"""Characters of a conversation: more than any model's context holds."""
WAITING = 512
"""Messages that may wait in one conversation."""
SOON, LATE = 0.02, 0.25
"""Seconds between two looks at a turn that another gateway answers: at first, and at last."""
UNANSWERED = "the client left, or the gateway ended, before the answer was complete"


class Conversing:
    """The conversations of one gateway."""

    def __init__(self, store: Conversations) -> None:
        self._store = store
        self._lines: dict[tuple[str, str], _Line] = {}

    async def start(self, id: str, *, owner: str) -> None:
        """Begin a conversation. Raises Conflict where there is one of this id, and StorageFailed."""
        if not await unbroken(self._store.start(id, owner=owner)):
            raise Conflict("Conversation ID already exists", param="conv_id")

    async def turns(self, id: str, *, owner: str) -> list[Turn]:
        """All that was said, in its order. Raises NotFound where ``owner`` has no such conversation, and StorageFailed."""
        return _known(await self._store.turns(id, owner=owner))

    async def say(self, id: str, question: Question, model: str, *, owner: str, ask: Ask) -> list[Turn]:
        """Add a message, and answer it when it is its turn. Gives the conversation up to it; it is the last.

        Raises:
            GatewayError: there is no answer, and the message is marked. It was not added with NotFound, with Busy where too
                many wait, with Conflict for a conversation that is full, and with StorageFailed.
        """
        line = self._lines.setdefault((owner, id), _Line(self._store, id, owner))
        line.users += 1
        try:
            if line.users > WAITING + 1:
                raise Busy("too many messages wait in this conversation", retry_after=5)
            # Those who come while others are here read nothing yet: to wait with a long conversation in hand takes memory.
            before = [] if line.users > 1 else await self.turns(id, owner=owner)
            _check_room(before, question.prompt)
            turn = await line.add(question.prompt, model)
            try:
                if turn.state == "waiting":
                    before = []
                    await line.comes(turn.number)
                line.answering = turn.number
                if not _reaches(before, turn):
                    before = [one for one in await self.turns(id, owner=owner) if one.number < turn.number]
                    _check_room(before, question.prompt)
                completion, since = await _ask(question, turn, before, ask)
                settled = await line.settle(turn, completion, since)
            except BaseException as error:
                await line.fail(turn, error)
                raise
            finally:
                line.left(turn.number)
        finally:
            line.users -= 1
            if not line.users:
                del self._lines[owner, id]
        return [*before, _known(settled)]


class _Line:
    """One conversation as this gateway works on it: who is answered here, and who waits."""

    def __init__(self, store: Conversations, id: str, owner: str) -> None:
        self._add = partial(store.ask, id, owner=owner)
        self._take = partial(store.take, id, owner=owner)
        self._settle = partial(store.settle, id, owner=owner)
        self.users = 0
        self.answering = 0
        """The number of the turn that is answered here; 0: none."""
        self.waiting: dict[int, asyncio.Event] = {}
        """Turns by their numbers; the lowest is the next."""

    async def add(self, prompt: str, model: str) -> Turn:
        """A new turn. Whoever leaves meanwhile leaves it marked: the next ones must not wait for it."""
        adding = asyncio.ensure_future(self._add(prompt=prompt, model=model))
        try:
            return _known(await unbroken(adding))
        except asyncio.CancelledError as error:
            turn = adding.result()
            if turn is not None:
                await self.fail(turn, error)
            raise

    async def comes(self, number: int) -> None:
        """Wait until every message before this one has been answered, or will never be.

        Whoever is answered here tells when it has ended; about one that another gateway answers, the store is asked.
        """
        news = self.waiting[number] = asyncio.Event()
        pause = SOON
        try:
            while True:
                news.clear()
                if self.answering or number != min(self.waiting):
                    await news.wait()
                elif await unbroken(self._take(number=number)):
                    self.answering = number
                    return
                else:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(pause):
                            await news.wait()
                    pause = min(pause * 2, LATE)
        finally:
            del self.waiting[number]

    async def settle(self, turn: Turn, completion: Completion, since: int) -> Turn | None:
        """Keep an answer."""
        cut = completion.reason == "length"
        return await unbroken(
            self._settle(number=turn.number, state="answered", answer=completion.text, cut=cut, since=since)
        )

    async def fail(self, turn: Turn, error: BaseException) -> None:
        """Mark a turn that is not answered. Where that cannot be stored, the store takes it for failed all the same."""
        with contextlib.suppress(StorageFailed):
            await unbroken(self._settle(number=turn.number, state="failed", error=_words(error)))

    def left(self, number: int) -> None:
        """A turn is over: the next one may look again."""
        if self.answering == number:
            self.answering = 0
        if self.waiting and not self.answering:
            self.waiting[min(self.waiting)].set()


async def _ask(question: Question, turn: Turn, before: Sequence[Turn], ask: Ask) -> tuple[Completion, int]:
    """The model's answer, and the number of the oldest turn that it was told of.

    What has no answer is not told: the templates of some models (Mistral's is one) refuse two messages of the user in a row,
    and one that no model could take would keep every later one from its answer. Where a conversation has outgrown the model's
    context, its older quarter is left out, and a quarter of the rest until it fits: so what the prompts share stays the same for
    many turns, and need not be computed again for each.
    """
    told = [one for one in before if one.number < turn.number and one.state == "answered"]
    if told and told[-1].model == turn.model:
        told = [one for one in told if one.number >= told[-1].since]
    while True:
        try:
            completion = await ask(question.asked(turn.model, _messages(told)))
        except InvalidRequest as error:
            if error.code != "context_length_exceeded" or not told:
                raise
            told = told[(len(told) + 3) // 4 :]
        else:
            return completion, told[0].number if told else turn.number


def _messages(turns: Sequence[Turn]) -> list[Message]:
    return [
        message
        for turn in turns
        for message in (Message("user", (Text(turn.prompt),)), Message("assistant", (Text(turn.answer),)))
    ]


def _reaches(before: Sequence[Turn], turn: Turn) -> bool:
    """Whether what was read before ``turn`` was added is all that it follows."""
    last = before[-1].number if before else 0
    return last + 1 == turn.number and all(one.state in {"answered", "failed"} for one in before)


def _check_room(turns: Sequence[Turn], prompt: str) -> None:
    """Raises Conflict where a conversation holds as much as it may: whoever reads one gets all of it at once."""
    size = sum(len(turn.prompt) + len(turn.answer) for turn in turns) + len(prompt)
    if 2 * len(turns) >= MESSAGES or size > ROOM:
        raise Conflict(f"a conversation has room for {MESSAGES} messages and {ROOM} characters: start another one")


def _known(found: T | None) -> T:
    if found is None:
        raise NotFound("Conversation not found", param="conv_id")
    return found


def _words(error: BaseException) -> str:
    """Why a message has no answer, for who reads the conversation."""
    match error:
        case GatewayError():
            return error.message
        case Exception():
            return "internal error"
        case _:
            return UNANSWERED

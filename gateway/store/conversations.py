"""Conversations: turns in their order, each a prompt and its answer, kept before the reply goes out.

A turn waits until those before it are done, is answered, and ends once: answered or failed. That of a gateway which died
over it reads as failed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from canonical.errors import InvalidRequest, StorageFailed
from gateway.store.database import Database
from gateway.store.evicting import FRESH, PAGE, Bounds, pages

if TYPE_CHECKING:
    from sqlalchemy import Connection

ID = 256
"""Characters of an id."""
OPEN = ("waiting", "answering")
DIED = "the gateway ended before the answer was complete"

State = Literal["waiting", "answering", "answered", "failed"]


class Turn(Struct, frozen=True, kw_only=True):
    """What was said, and what was answered. Times are nanoseconds since 1970."""

    number: int
    """From 1 on."""
    prompt: str
    model: str
    state: State
    asked: int
    answer: str = ""
    answered: int | None = None
    """When it ended."""
    error: str = ""
    """Why it failed."""
    cut: bool = False
    """Whether the answer was ended by its length."""
    since: int = 0
    """The oldest turn that the model was told of."""


class Conversations:
    """Those unused for ``keep`` seconds go (negative: none); beyond ``limit`` of them or ``size`` bytes, as in ``beyond``."""

    def __init__(self, database: Database, *, keep: float, limit: int, size: int, clock: Callable[[], float]) -> None:
        self._database = database
        self._bounds = Bounds(keep=keep, limit=limit, size=size)
        self._clock = clock
        self._lost: set[tuple[str, str, int]] = set()
        """Turns of this gateway whose end could not be noted, by owner, id and number: nobody works on them any more."""

    async def start(self, id: str, *, owner: str) -> bool:
        """Begin a conversation, durably; False where ``owner`` has one of this id.

        Raises:
            InvalidRequest: the id is too long, or empty.
            StorageFailed: it cannot be kept.
        """
        if not 0 < len(id) <= ID:
            raise InvalidRequest(f"the id of a conversation has 1 to {ID} characters")
        if not self._bounds.limit:
            raise StorageFailed("this gateway keeps no conversations: `conversations.limit` is 0")

        def work(db: Connection) -> bool:
            from gateway.store.sql import conversations as sql

            what = {"b_id": id, "b_owner": owner}
            if db.execute(sql.FIND, what).first() is not None:
                return False
            now = self._clock()
            db.execute(sql.START, {**what, "b_used": now})
            if self._bounds.must_look(now, count=1):
                self._evict(db, now)
            return True

        return await self._database.write(work)

    async def turns(self, id: str, *, owner: str) -> list[Turn] | None:
        """All turns, the first first; None where ``owner`` has no conversation of this id. Raises StorageFailed."""

        def work(db: Connection) -> list[Turn] | None:
            from gateway.store.sql import conversations as sql

            rows = db.execute(sql.TURNS, {"b_id": id, "b_owner": owner}).all()
            if not rows:
                return None
            self._touch(rows[0][0], rows[0][1])
            live: dict[str, bool] = {}
            return [self._turn(db, row, id, owner, live) for row in rows if row.turn is not None]

        return await self._database.read(work) if self._database.exists else None

    async def ask(self, id: str, *, owner: str, prompt: str, model: str) -> Turn | None:
        """Add a turn, durably: ``answering`` where none before it is on its way, or else ``waiting``.

        One that has failed and said the same goes: this is the second try. None where ``owner`` has no conversation of
        this id. Raises StorageFailed.
        """

        def work(db: Connection) -> Turn | None:
            from gateway.store.sql import conversations as sql

            size = more = _size(prompt)
            if size > self._bounds.size:
                raise StorageFailed(f"a prompt of {size} bytes is more than is kept of all: `conversations.size`")
            found = db.execute(sql.FIND_LAST, {"b_id": id, "b_owner": owner}).first()
            if found is None:
                return None
            conversation, last = found[0], found[1] or 0
            this = {"b_conversation": conversation}
            waits = False
            for number, state, runner, same, answer in db.execute(sql.UNANSWERED, {**this, "b_prompt": prompt}).all():
                if state in OPEN and self._runs(db, runner, id, owner, number):
                    waits = True
                elif same:
                    db.execute(sql.FORGET, {**this, "b_number": number})
                    more -= size + _size(answer)
            self._database.alive.show()
            now = self._clock()
            turn = Turn(
                number=last + 1,
                prompt=prompt,
                model=model,
                state="waiting" if waits else "answering",
                asked=int(now * 1e9),
            )
            runner = self._database.alive.token
            values = {name: getattr(turn, name) for name in turn.__struct_fields__}
            db.execute(sql.ASK, {**values, "conversation": conversation, "runner": runner})
            db.execute(sql.GROW, {**this, "b_used": now, "b_more": more})
            if self._bounds.must_look(now, size=size):
                self._evict(db, now)
            return turn

        return await self._database.write(work)

    async def take(self, id: str, *, owner: str, number: int) -> bool:
        """Begin to answer a turn that waits; False while one before it is on its way, and where it waits no more.

        Raises StorageFailed.
        """

        def work(db: Connection) -> bool:
            from gateway.store.sql import conversations as sql

            conversation = db.execute(sql.FIND, {"b_id": id, "b_owner": owner}).scalar()
            if conversation is None:
                return False
            this = {"b_conversation": conversation, "b_number": number}
            before = db.execute(sql.BEFORE, {**this, "b_open": OPEN})
            if any(self._runs(db, one.runner, id, owner, one.number) for one in before):
                return False
            runner = self._database.alive.token
            what = {**this, "b_runner": runner, "b_from": "waiting", "b_state": "answering"}
            return db.execute(sql.TAKE, what).rowcount > 0

        return await self._database.write(work)

    async def settle(
        self,
        id: str,
        *,
        owner: str,
        number: int,
        state: Literal["answered", "failed"],
        answer: str = "",
        error: str = "",
        cut: bool = False,
        since: int = 0,
    ) -> Turn | None:
        """Note how a turn of this gateway's ended. None: it is gone, or has ended otherwise. Raises StorageFailed."""

        def work(db: Connection) -> Turn | None:
            return self._settled(db, id, owner, number, state=state, answer=answer, error=error, cut=cut, since=since)

        try:
            turn = await self._database.write(work)
        except StorageFailed:
            self._lost.add((owner, id, number))
            raise
        self._lost.discard((owner, id, number))
        for lost in tuple(self._lost):  # there is room again
            await self._give_up(*lost)
        return turn

    async def _give_up(self, owner: str, id: str, number: int) -> None:
        """Note a lost turn as failed: other gateways take it for one that is on its way."""

        def work(db: Connection) -> None:
            self._settled(db, id, owner, number, state="failed", error=DIED)

        with contextlib.suppress(StorageFailed):
            await self._database.write(work)
            self._lost.discard((owner, id, number))

    # In the store's threads

    def _settled(
        self,
        db: Connection,
        id: str,
        owner: str,
        number: int,
        *,
        state: State,
        answer: str = "",
        error: str = "",
        cut: bool = False,
        since: int = 0,
    ) -> Turn | None:
        from gateway.store.sql import conversations as sql

        conversation = db.execute(sql.FIND, {"b_id": id, "b_owner": owner}).scalar()
        if conversation is None:
            return None
        now = self._clock()
        this = {"b_conversation": conversation}
        row = db.execute(
            sql.SETTLE,
            {
                **this,
                "b_number": number,
                "b_runner": self._database.alive.token,
                "b_open": OPEN,
                "b_state": state,
                "b_answer": answer,
                "b_answered": int(now * 1e9),
                "b_error": error,
                "b_cut": cut,
                "b_since": since,
            },
        ).first()
        if row is None:
            return None
        size = _size(answer)
        db.execute(sql.GROW, {**this, "b_used": now, "b_more": size})
        if self._bounds.must_look(now, size=size):
            self._evict(db, now)
        return self._turn(db, row, id, owner, {})

    def _turn(self, db: Connection, row: Any, id: str, owner: str, live: dict[str, bool]) -> Turn:
        """A row as it is truly: ``live`` remembers which gateways run."""
        state, error, runner, number = row.state, row.error, row.runner, row.turn
        if state in OPEN:
            if runner not in live:
                live[runner] = self._database.alive.sees(runner, db)
            if not live[runner] or (owner, id, number) in self._lost:
                state, error = "failed", DIED
        return Turn(
            number=number,
            prompt=row.prompt,
            model=row.model,
            state=state,
            asked=row.asked,
            answer=row.answer,
            answered=row.answered,
            error=error,
            cut=row.cut,
            since=row.since,
        )

    def _runs(self, db: Connection, runner: str, id: str, owner: str, number: int) -> bool:
        return self._database.alive.sees(runner, db) and (owner, id, number) not in self._lost

    def _touch(self, conversation: int, used: float) -> None:
        now = self._clock()
        if now - used <= FRESH:
            return

        def work(db: Connection) -> None:
            from gateway.store.sql import conversations as sql

            db.execute(sql.TOUCH, {"b_conversation": conversation, "b_used": now, "b_before": now - FRESH})

        self._database.later(work)

    def _evict(self, db: Connection, now: float) -> None:
        from gateway.store.sql import conversations as sql

        def may_go(conversation: int) -> bool:
            runners = db.execute(sql.RUNNERS, {"b_conversation": conversation, "b_open": OPEN}).scalars().all()
            return not any(self._database.alive.sees(runner, db) for runner in runners)

        def oldest(owner: str) -> Iterator[tuple[int, int]]:
            what = {"b_owner": owner, "b_count": PAGE}
            for number, size in pages(lambda skip: db.execute(sql.OLDEST, {**what, "b_skip": skip}).all()):
                if may_go(number):
                    yield number, size

        if self._bounds.keep >= 0:
            unused = db.execute(sql.UNUSED, {"b_before": now - self._bounds.keep}).scalars().all()
            self._remove(db, list(filter(may_go, unused)))
        held = {owner: (count, int(size)) for owner, count, size in db.execute(sql.HELD)}
        self._remove(db, self._bounds.gone(held, oldest, now))

    def _remove(self, db: Connection, found: list[int]) -> None:
        from gateway.store.sql import conversations as sql

        if found:
            what = [{"b_conversation": number} for number in found]
            db.execute(sql.DELETE_TURNS, what)
            db.execute(sql.DELETE, what)


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))

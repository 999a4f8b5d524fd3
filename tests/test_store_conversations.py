"""Sessions and conversations that are kept: owned, in order, bounded; and turns that end once, whoever dies over them."""

from __future__ import annotations

import asyncio
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from canonical.errors import InvalidRequest, StorageFailed
from gateway.store import Conversations, Session, Store, Turn, alive
from gateway.store.conversations import DIED
from tests.stored import ANN, BEN, Clock, Place


@pytest.fixture(autouse=True)
def no_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server has been up for long."""
    monkeypatch.setattr(alive, "GRACE", 0)


async def ask(kept: Conversations, prompt: str, *, id: str = "c", owner: str = ANN) -> Turn:
    turn = await kept.ask(id, owner=owner, prompt=prompt, model="m")
    assert turn is not None
    return turn


async def answer(
    kept: Conversations, number: int, text: str = "yes", *, id: str = "c", owner: str = ANN
) -> Turn | None:
    return await kept.settle(id, owner=owner, number=number, state="answered", answer=text)


async def said(kept: Conversations, *, id: str = "c", owner: str = ANN) -> list[tuple[str, str, str]]:
    turns = await kept.turns(id, owner=owner)
    assert turns is not None
    assert [turn.number for turn in turns] == sorted({turn.number for turn in turns})
    return [(turn.prompt, turn.state, turn.answer) for turn in turns]


# Sessions.


def test_a_session_is_its_owners_alone_and_the_last_word_counts(place: Place) -> None:
    async def story(store: Store) -> None:
        kept = store.sessions
        first = Session(id="s", owner=ANN, model="one")
        await kept.put(first)
        assert await kept.get("s", owner=ANN) == first
        assert await kept.get("s", owner=BEN) is None
        await kept.put(Session(id="s", owner=BEN, model="his"))
        await kept.put(Session(id="s", owner=ANN, model="two"))
        assert [(await kept.get("s", owner=owner)) for owner in (ANN, BEN)] == [
            Session(id="s", owner=ANN, model="two"),
            Session(id="s", owner=BEN, model="his"),
        ]
        with pytest.raises(InvalidRequest, match="256"):
            await kept.put(Session(id="x" * 257, owner=ANN))

    place.kept(story)


def test_sessions_used_longest_ago_go_and_nobody_drives_out_what_others_keep(place: Place) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        kept = store.sessions
        await kept.put(Session(id="his", owner=BEN))
        for id in "abc":
            clock.now += 100
            await kept.put(Session(id=id, owner=ANN))
        clock.now += 100
        await kept.get("a", owner=ANN)  # which is a use
        for id in "de":
            clock.now += 100
            await kept.put(Session(id=id, owner=ANN))
        assert [id for id in "abcde" if await kept.get(id, owner=ANN)] == ["a", "d", "e"]
        assert await kept.get("his", owner=BEN)
        clock.now += 3000
        await kept.get("d", owner=ANN)
        clock.now += 3000
        await kept.put(Session(id="f", owner=ANN))
        assert [id for id in "abcdef" if await kept.get(id, owner=ANN)] == ["d", "f"]
        assert not await kept.get("his", owner=BEN)

    place.kept(story, limit=4, keep=3600, clock=clock)


# Conversations.


def test_a_conversation_begins_once_and_is_its_owners_alone(place: Place) -> None:
    async def story(store: Store) -> None:
        kept = store.conversations
        assert await kept.start("c", owner=ANN)
        assert not await kept.start("c", owner=ANN)
        assert await kept.turns("c", owner=ANN) == []
        assert await kept.turns("c", owner=BEN) is None
        assert await kept.ask("c", owner=BEN, prompt="hello", model="m") is None
        assert await kept.start("c", owner=BEN)
        await ask(kept, "mine")
        assert await kept.turns("c", owner=BEN) == []
        assert not await kept.take("c", owner=BEN, number=1)
        assert await answer(kept, 1, owner=BEN) is None
        for id in ("", "x" * 257):
            with pytest.raises(InvalidRequest, match="256"):
                await kept.start(id, owner=ANN)

    place.kept(story)


def test_turns_are_answered_one_after_the_other(place: Place) -> None:
    async def story(store: Store) -> None:
        kept = store.conversations
        await kept.start("c", owner=ANN)
        first, second = await ask(kept, "one"), await ask(kept, "two\0")
        assert [first.state, second.state] == ["answering", "waiting"]
        assert not await kept.take("c", owner=ANN, number=2)
        done = await answer(kept, 1, "eins\0")
        assert done is not None
        assert (done.answer, done.state, done.asked, done.answered) == ("eins\0", "answered", first.asked, 10**15)
        assert await answer(kept, 1, "again") is None
        assert await kept.take("c", owner=ANN, number=2)
        assert not await kept.take("c", owner=ANN, number=2)
        settled = await kept.settle(
            "c", owner=ANN, number=2, state="failed", answer="zw", error="upstream", cut=True, since=1
        )
        turns = await kept.turns("c", owner=ANN)
        assert turns == [done, settled]
        assert settled is not None
        assert (settled.error, settled.cut, settled.since) == ("upstream", True, 1)

    place.kept(story)


def test_the_same_again_after_a_failure_is_not_said_twice(place: Place) -> None:
    async def story(store: Store) -> None:
        kept = store.conversations
        await kept.start("c", owner=ANN)
        for prompt in ("one", "two", "one"):
            turn = await ask(kept, prompt)
            await kept.settle("c", owner=ANN, number=turn.number, state="failed", answer="half", error="died")
        assert await said(kept) == [("two", "failed", "half"), ("one", "failed", "half")]
        turn = await ask(kept, "two")
        await answer(kept, turn.number)
        turn = await ask(kept, "two")  # answered: this is said once more
        await answer(kept, turn.number)
        assert await said(kept) == [("one", "failed", "half"), ("two", "answered", "yes"), ("two", "answered", "yes")]

    place.kept(story)
    assert place.ask("SELECT size FROM conversations") == [(3 + 4 + 2 * (3 + 3),)]


def test_a_turn_of_a_gateway_that_ended_has_failed_and_holds_up_nobody(place: Place) -> None:
    async def story() -> None:
        one, two = place.store(), place.store()
        await one.conversations.start("c", owner=ANN)
        assert (await ask(one.conversations, "first")).state == "answering"
        assert (await ask(two.conversations, "second")).state == "waiting"
        assert not await two.conversations.take("c", owner=ANN, number=2)
        assert await answer(two.conversations, 1) is None  # another's
        await one.close()
        assert await two.conversations.take("c", owner=ANN, number=2)
        await answer(two.conversations, 2)
        turns = await two.conversations.turns("c", owner=ANN)
        assert turns is not None
        assert [(turn.state, turn.error) for turn in turns] == [("failed", DIED), ("answered", "")]
        assert await answer(one.conversations, 1) is None  # it has come back as another
        assert (await ask(one.conversations, "first")).number == 3
        assert [prompt for prompt, *_ in await said(two.conversations)] == ["second", "first"]
        await one.close()
        await two.close()

    asyncio.run(story())


def test_a_turn_whose_end_could_not_be_noted_has_failed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(store: Store) -> None:
        kept = store.conversations
        other = place.store()
        await kept.start("c", owner=ANN)
        await ask(kept, "first")

        async def full(_: Any) -> None:
            raise StorageFailed("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(store.database, "write", full)
            with pytest.raises(StorageFailed):
                await answer(kept, 1)
        assert await said(kept) == [("first", "failed", "")]
        assert await said(other.conversations) == [("first", "answering", "")]
        assert (await ask(kept, "second")).state == "answering"
        await answer(kept, 2)
        assert await said(other.conversations) == [("first", "failed", ""), ("second", "answered", "yes")]
        await other.close()

    place.kept(story)


def test_whole_conversations_go_and_never_one_in_use(place: Place) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        kept = store.conversations
        for id in "abc":
            clock.now += 100
            await kept.start(id, owner=ANN)
            await ask(kept, "x" * 30, id=id)
            if id != "a":
                await answer(kept, 1, id=id)
        clock.now += 100
        await kept.start("his", owner=BEN)
        assert await kept.turns("b", owner=ANN) is None
        assert await said(kept, id="a") == [("x" * 30, "answering", "")]
        clock.now += 100
        await said(kept, id="c")
        turn = await ask(kept, "y" * 40, id="a")
        assert await kept.turns("c", owner=ANN) is None
        await answer(kept, 1, id="a")
        await answer(kept, turn.number, id="a")
        clock.now += 100
        await ask(kept, "z" * 70, id="his", owner=BEN)
        assert await kept.turns("a", owner=ANN) is None
        assert await said(kept, id="his", owner=BEN) == [("z" * 70, "answering", "")]
        with pytest.raises(StorageFailed, match=r"conversations\.size"):
            await ask(kept, "z" * 101, id="his", owner=BEN)

    place.kept(story, limit=3, size=100, clock=clock)
    assert place.ask("SELECT count(*) FROM turns") == [(1,)]


def test_conversations_that_nobody_used_go(place: Place) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        kept = store.conversations
        for id in ("old", "used", "busy"):
            await kept.start(id, owner=ANN)
        await ask(kept, "hello", id="busy")
        clock.now += 3000
        await said(kept, id="used")
        clock.now += 3000
        await kept.start("new", owner=ANN)
        assert [id for id in ("old", "used", "busy", "new") if await kept.turns(id, owner=ANN) is not None] == [
            "used",
            "busy",
            "new",
        ]

    place.kept(story, keep=3600, clock=clock)


# Whatever two gateways do.


class Said(NamedTuple):
    """What should be known of a turn."""

    number: int
    prompt: str
    state: str
    gateway: int


_STEPS = st.one_of(
    st.tuples(st.just("start"), st.integers(0, 1), st.sampled_from("cd")),
    st.tuples(st.just("ask"), st.integers(0, 1), st.sampled_from("cd"), st.sampled_from(["x", "y"])),
    st.tuples(st.just("take"), st.integers(0, 1), st.sampled_from("cd"), st.integers(1, 4)),
    st.tuples(st.just("settle"), st.integers(0, 1), st.sampled_from("cd"), st.integers(1, 4), st.booleans()),
    st.tuples(st.just("end"), st.integers(0, 1)),
    st.tuples(st.just("put"), st.integers(0, 1), st.sampled_from("st"), st.sampled_from(["m", "n"])),
)


class Model:
    """The same as dictionaries."""

    def __init__(self) -> None:
        self.conversations: dict[str, list[Said]] = {}
        self.sessions: dict[str, str] = {}

    def start(self, _: int, id: str) -> bool:
        return id not in self.conversations and self.conversations.setdefault(id, []) is not None

    def ask(self, gateway: int, id: str, prompt: str) -> str | None:
        if id not in self.conversations:
            return None
        before = self.conversations[id]
        number = max((turn.number for turn in before), default=0) + 1
        rest = [turn for turn in before if (turn.prompt, turn.state) != (prompt, "failed")]
        state = "waiting" if any(turn.state in {"waiting", "answering"} for turn in rest) else "answering"
        self.conversations[id] = [*rest, Said(number, prompt, state, gateway)]
        return state

    def take(self, gateway: int, id: str, number: int) -> bool:
        turns = self.conversations.get(id, [])
        for place, turn in enumerate(turns):
            if turn.number < number and turn.state in {"waiting", "answering"}:
                return False
            if (turn.number, turn.state, turn.gateway) == (number, "waiting", gateway):
                turns[place] = turn._replace(state="answering")
                return True
        return False

    def settle(self, gateway: int, id: str, number: int, well: bool) -> bool:
        turns = self.conversations.get(id, [])
        for place, turn in enumerate(turns):
            if turn.number == number and turn.state in {"waiting", "answering"} and turn.gateway == gateway:
                turns[place] = turn._replace(state="answered" if well else "failed")
                return True
        return False

    def end(self, gateway: int) -> None:
        for id, turns in self.conversations.items():
            self.conversations[id] = [
                turn._replace(state="failed")
                if turn.gateway == gateway and turn.state in {"waiting", "answering"}
                else turn
                for turn in turns
            ]

    def put(self, _: int, id: str, model: str) -> None:
        self.sessions[id] = model


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(_STEPS, min_size=10, max_size=50))
def test_what_is_kept_is_what_dictionaries_would_keep(place: Place, steps: list[tuple[Any, ...]]) -> None:
    async def story() -> None:
        model = Model()
        stores = [place.store(), place.store()]
        owner = f"ann {next(place.numbers)}"  # each example has its own
        try:
            for name, gateway, *rest in steps:
                store = stores[gateway]
                kept = store.conversations
                wanted: Any = getattr(model, name)(gateway, *rest)
                found: Any = None
                match name, rest:
                    case "start", [id]:
                        found = await kept.start(id, owner=owner)
                    case "ask", [id, prompt]:
                        turn = await kept.ask(id, owner=owner, prompt=prompt, model="m")
                        found = turn.state if turn else None
                    case "take", [id, number]:
                        found = await kept.take(id, owner=owner, number=number)
                    case "settle", [id, number, well]:
                        state: Any = "answered" if well else "failed"
                        found = await kept.settle(id, owner=owner, number=number, state=state) is not None
                    case "end", []:
                        await store.close()
                    case "put", [id, text]:
                        await store.sessions.put(Session(id=id, owner=owner, model=text))
                assert found == wanted, (name, rest)
            for store in stores:
                for id in "cd":
                    turns = await store.conversations.turns(id, owner=owner)
                    expected = model.conversations.get(id)
                    assert (turns is None) == (expected is None)
                    assert [(t.number, t.prompt, t.state) for t in turns or ()] == [t[:3] for t in expected or ()]
                for id in "st":
                    session = await store.sessions.get(id, owner=owner)
                    assert (session.model if session else None) == model.sessions.get(id)
        finally:
            for store in stores:
                await store.close()

    asyncio.run(story())

"""Responses that are kept: owned, chained, bounded, and found again by whichever gateway. (Reliability 6)"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sqlite3

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import structs

from canonical.errors import InvalidRequest, NotFound, StorageFailed
from gateway.store import ABANDONED, Responses, Row, Session, Store, alive
from tests.stored import ANN, BEN, BIG, Clock, Place


def row(id: str, previous: str | None = None, *, owner: str = ANN, status: str = "completed", size: int = 9) -> Row:
    return Row(id=id, owner=owner, previous=previous, status=status, input=b"[]", object=b"x" * size)


async def ids(kept: Responses, id: str, *, owner: str = ANN, limit: int = 100, size: int = BIG) -> list[str]:
    return [row.id for row in await kept.chain(id, owner=owner, limit=limit, size=size)]


async def left(kept: Responses, names: str, *, owner: str = ANN) -> list[str]:
    return [id for id in names if await kept.get(id, owner=owner)]


def test_a_row_comes_back_to_its_owner_alone(place: Place) -> None:
    async def story(store: Store) -> None:
        kept = store.responses
        first = structs.replace(row("a"), log=b"event: x\n\n" * 100)
        await kept.put(first)
        assert await kept.get("a", owner=ANN) == first
        assert await kept.get("a", owner=BEN) is None
        assert await kept.get("b", owner=ANN) is None
        assert await kept.get("\0", owner=ANN) is None
        assert await ids(kept, "a", owner=BEN) == []
        assert not await kept.delete("a", owner=BEN)
        assert await kept.delete("a", owner=ANN)
        assert not await kept.delete("a", owner=ANN)
        assert await kept.get("a", owner=ANN) is None

    place.kept(story)


def test_reading_makes_no_file(tmp_path: object, place: Place) -> None:
    async def story(store: Store) -> None:
        assert await store.responses.get("a", owner=ANN) is None
        assert await ids(store.responses, "a") == []
        assert not await store.responses.delete("a", owner=ANN)
        assert await store.sessions.get("a", owner=ANN) is None
        assert await store.conversations.turns("a", owner=ANN) is None
        await store.responses.ready()

    place.kept(story)
    assert not place.folder.exists()


def test_a_chain_is_linked_and_bounded(place: Place) -> None:
    async def story(store: Store) -> None:
        kept = store.responses
        await kept.put(row("a", size=100))
        await kept.put(row("b", "a", size=100))
        await kept.put(row("c", "b", size=100))
        await kept.put(row("d", "a", size=100))
        assert await ids(kept, "c", limit=3) == ["a", "b", "c"]
        assert await ids(kept, "d") == ["a", "d"]
        with pytest.raises(InvalidRequest, match="2 responses"):
            await ids(kept, "c", limit=2)
        with pytest.raises(InvalidRequest, match="300 bytes"):
            await ids(kept, "c", size=300)
        await kept.put(row("mine", "theirs"))
        await kept.put(row("theirs", owner=BEN))
        with pytest.raises(NotFound, match="'theirs'"):
            await ids(kept, "mine")
        await kept.delete("a", owner=ANN)
        with pytest.raises(NotFound, match="'a', which 'c' goes on from, has been deleted"):
            await ids(kept, "c")

    place.kept(story)


@settings(max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parents=st.lists(st.integers(0, 8), max_size=8))
def test_a_chain_is_its_ancestors_whatever_the_tree(place: Place, parents: list[int]) -> None:
    async def story(store: Store) -> None:
        kept = store.responses
        chains: list[list[str]] = [["r0"]]
        await kept.put(row("r0"))
        for number, parent in enumerate(parents, 1):
            parent %= number
            await kept.put(row(f"r{number}", f"r{parent}"))
            chains.append([*chains[parent], f"r{number}"])
        for number, chain in enumerate(chains):
            assert await ids(kept, f"r{number}") == chain
        for number in range(len(chains)):
            await kept.delete(f"r{number}", owner=ANN)

    place.kept(story)


def test_the_ones_used_longest_ago_go_first(place: Place) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        kept = store.responses
        for id in "abc":
            await kept.put(row(id))
            clock.now += 100
        await kept.get("a", owner=ANN)  # which is a use
        clock.now += 1
        await kept.put(row("d"))
        assert await left(kept, "abcd") == ["a", "c", "d"]
        clock.now += 1
        await kept.put(row("e", "c"))  # goes on from c, which is a use
        await kept.put(row("f"))
        assert await left(kept, "abcdef") == ["c", "e", "f"]

    place.kept(story, limit=3, clock=clock)


def test_bytes_are_bounded_too(place: Place) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        kept = store.responses
        for id in "abcd":
            clock.now += 1
            await kept.put(row(id, size=30_000))
        assert await left(kept, "abcd") == ["b", "c", "d"]
        clock.now += 1
        await kept.put(row("e", size=90_000))
        assert await left(kept, "bcde") == ["e"]
        await kept.put(row("f", status="queued"))
        await kept.settle("f", status="completed", object=b"x" * 50_000, log=b"")
        assert await left(kept, "ef") == ["f"]
        with pytest.raises(StorageFailed, match=r"responses\.size"):
            await kept.put(row("g", size=200_000))
        assert await left(kept, "fg") == ["f"]
        assert store.database.trouble is None

    place.kept(story, size=100_000, clock=clock)
    if not place.url:
        assert place.file.stat().st_size < 350_000


@pytest.mark.parametrize("bound", [{"limit": 10}, {"size": 100}])
def test_nobody_drives_out_what_others_keep(place: Place, bound: dict[str, int]) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        kept = store.responses
        for id in "abc":
            await kept.put(row(id, owner=BEN, size=8))
        for number in range(40):
            clock.now += 100
            await kept.put(row(f"r{number}", size=8))
        assert await left(kept, "abc", owner=BEN) == ["a", "b", "c"]
        assert [n for n in range(40) if await kept.get(f"r{n}", owner=ANN)] == list(range(33, 40))

    place.kept(story, clock=clock, **bound)


def test_a_full_store_does_not_sort_all_that_it_has_with_every_answer(tmp_path: object, place: Place) -> None:
    if place.url:
        pytest.skip("PostgreSQL chooses by what there is")
    from sqlalchemy.dialects import sqlite

    from gateway.store.evicting import PAGE
    from gateway.store.sql import conversations, responses, sessions

    place.kept(lambda store: store.responses.put(row("a")))
    with contextlib.closing(sqlite3.connect(place.file)) as db:
        for statement in (responses.OLDEST, conversations.OLDEST, sessions.OLDEST):
            asked = str(statement.compile(dialect=sqlite.dialect()))
            plan = [step[3] for step in db.execute(f"EXPLAIN QUERY PLAN {asked}", (ANN, PAGE, 0))]
            assert "_by_owner (owner=?)" in plan[0]
            assert not any("FOR ORDER BY" in step for step in plan)


def test_a_conversation_in_use_keeps_its_beginning_and_leaves_nothing(place: Place) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        kept = store.responses
        await kept.put(row("a"))
        await kept.put(row("b", "a"))
        for id in "cdef":
            clock.now += 1
            await kept.put(row(id))
            clock.now += 1
            await kept.put(row("b", "a"))
        assert await ids(kept, "b") == ["a", "b"]
        assert await left(kept, "cdef") == ["f"]
        for id in "abf":
            await kept.delete(id, owner=ANN)

    place.kept(story, limit=3, clock=clock)
    assert place.ask("SELECT count(*) FROM trees") == [(0,)]


def test_what_nobody_used_goes(place: Place) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        kept = store.responses
        await kept.put(row("old"))
        await kept.put(row("used"))
        clock.now += 3000
        assert len(await ids(kept, "used")) == 1
        clock.now += 3000
        await kept.put(row("new"))
        assert [id for id in ("old", "used", "new") if await kept.get(id, owner=ANN)] == ["used", "new"]

    place.kept(story, keep=3600, clock=clock)


def test_an_answer_in_the_making_is_not_driven_out_and_ends_once(place: Place) -> None:
    clock = Clock()

    async def story(store: Store) -> None:
        kept = store.responses
        await kept.put(row("running", status="in_progress"))
        for id in "abcd":
            clock.now += 1000
            await kept.put(row(id))
        clock.now += 1000
        assert await kept.settle("running", status="completed", object=b"done", log=b"frames")
        found = await kept.get("running", owner=ANN)
        assert found is not None
        assert (found.status, found.object, found.log) == ("completed", b"done", b"frames")
        assert not await kept.settle("running", status="failed", object=b"again")
        assert not await kept.settle("no such", status="failed", object=b"")

    place.kept(story, limit=2, keep=3600, clock=clock)


def test_nothing_is_kept_where_the_limit_is_none(place: Place) -> None:
    async def story(store: Store) -> None:
        with pytest.raises(StorageFailed, match="limit"):
            await store.responses.ready()
        with pytest.raises(StorageFailed, match="limit"):
            await store.sessions.put(Session(id="s", owner=ANN))
        with pytest.raises(StorageFailed, match="limit"):
            await store.conversations.start("c", owner=ANN)

    place.kept(story, limit=0)


def test_two_gateways_share_what_is_kept(place: Place) -> None:
    async def story() -> None:
        stores = [place.store() for _ in range(2)]
        await asyncio.gather(*(stores[n % 2].responses.put(row(f"r{n}")) for n in range(200)))
        for store in stores:
            found = await asyncio.gather(*(store.responses.get(f"r{n}", owner=ANN) for n in range(200)))
            assert all(found)
        for store in stores:
            await store.close()

    asyncio.run(story())


def test_the_answers_of_a_dead_gateway_are_abandoned_and_can_go(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alive, "GRACE", 0)
    clock = Clock()

    async def story() -> None:
        one, two = (place.store(clock=clock, limit=3) for _ in range(2))
        await one.responses.put(row("a", status="queued"))
        found = await two.responses.get("a", owner=ANN)
        assert found is not None
        assert found.status == "queued"
        await one.close()
        for read in (two, one):
            found = await read.responses.get("a", owner=ANN)
            assert found is not None
            assert found.status == ABANDONED
        assert [row.status for row in await two.responses.chain("a", owner=ANN, limit=9, size=BIG)] == [ABANDONED]
        for id in "bcde":
            clock.now += 1
            await two.responses.put(row(id))
        assert await left(two.responses, "abcde") == ["c", "d", "e"]
        await two.close()
        await one.close()

    asyncio.run(story())
    if not place.url:
        assert list((place.folder / alive.FOLDER).iterdir()) == []


def test_what_is_put_again_is_there_once(place: Place) -> None:
    async def story(store: Store) -> None:
        for number in itertools.repeat(7, 3):
            await store.responses.put(row("a", size=number))

    place.kept(story)
    assert place.ask("SELECT count(*), sum(size) FROM responses") == [(1, 9)]

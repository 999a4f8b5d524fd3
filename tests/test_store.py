"""The store of responses: durable, bounded, shared, and honest about a full disk or a damaged file. (Reliability 6)"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from canonical.errors import InvalidRequest, NotFound, StorageFailed
from gateway.store import ABANDONED, FILE, Database, Responses, Row
from gateway.store.alive import FOLDER, Files
from gateway.store.sqlite import SqliteFile
from tests.serving import ROOT

ANN, BEN = "ann", "ben"
BIG = 10**9


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def row(id: str, previous: str | None = None, *, owner: str = ANN, status: str = "completed", size: int = 9) -> Row:
    return Row(id=id, owner=owner, previous=previous, status=status, input=b"[]", object=b"x" * size)


def kept(
    folder: Path,
    story: Callable[[Responses], Awaitable[None]],
    *,
    keep: float = -1,
    limit: int = 1000,
    size: int = BIG,
    clock: Any = None,
) -> None:
    async def told() -> None:
        store = Responses(Database(SqliteFile(folder)), keep=keep, limit=limit, size=size, clock=clock or Clock())
        try:
            await story(store)
        finally:
            await store._database.close()

    asyncio.run(told())


async def ids(store: Responses, id: str, *, owner: str = ANN, limit: int = 100, size: int = BIG) -> list[str]:
    return [row.id for row in await store.chain(id, owner=owner, limit=limit, size=size)]


def test_a_row_comes_back_to_its_owner_alone(tmp_path: Path) -> None:
    async def story(store: Responses) -> None:
        first = structs.replace(row("a"), log=b"event: x\n\n" * 100)
        await store.put(first)
        assert await store.get("a", owner=ANN) == first
        assert await store.get("a", owner=BEN) is None
        assert await store.get("b", owner=ANN) is None
        assert await ids(store, "a", owner=BEN) == []
        assert not await store.delete("a", owner=BEN)
        assert await store.delete("a", owner=ANN)
        assert not await store.delete("a", owner=ANN)
        assert await store.get("a", owner=ANN) is None

    kept(tmp_path / "deep" / "data", story)


def test_reading_makes_no_file(tmp_path: Path) -> None:
    async def story(store: Responses) -> None:
        assert await store.get("a", owner=ANN) is None
        assert await ids(store, "a") == []
        assert not await store.delete("a", owner=ANN)
        await store.ready()

    kept(tmp_path / "data", story)
    assert not (tmp_path / "data").exists()


def test_a_chain_is_linked_and_bounded(tmp_path: Path) -> None:
    async def story(store: Responses) -> None:
        await store.put(row("a", size=100))
        await store.put(row("b", "a", size=100))
        await store.put(row("c", "b", size=100))
        await store.put(row("d", "a", size=100))
        assert await ids(store, "c", limit=3) == ["a", "b", "c"]
        assert await ids(store, "d") == ["a", "d"]
        with pytest.raises(InvalidRequest, match="2 responses"):
            await ids(store, "c", limit=2)
        with pytest.raises(InvalidRequest, match="300 bytes"):
            await ids(store, "c", size=300)
        await store.put(row("mine", "theirs"))
        await store.put(row("theirs", owner=BEN))
        with pytest.raises(NotFound, match="'theirs'"):
            await ids(store, "mine")
        await store.delete("a", owner=ANN)
        with pytest.raises(NotFound, match="'a', which 'c' goes on from, has been deleted"):
            await ids(store, "c")

    kept(tmp_path, story)


@settings(max_examples=20)
@given(parents=st.lists(st.integers(0, 8), max_size=8))
def test_a_chain_is_its_ancestors_whatever_the_tree(
    tmp_path_factory: pytest.TempPathFactory, parents: list[int]
) -> None:
    async def story(store: Responses) -> None:
        chains: list[list[str]] = [["r0"]]
        await store.put(row("r0"))
        for number, parent in enumerate(parents, 1):
            parent %= number
            await store.put(row(f"r{number}", f"r{parent}"))
            chains.append([*chains[parent], f"r{number}"])
        for number, chain in enumerate(chains):
            assert await ids(store, f"r{number}") == chain

    kept(tmp_path_factory.mktemp("store"), story)


def test_the_ones_used_longest_ago_go_first(tmp_path: Path) -> None:
    clock = Clock()

    async def story(store: Responses) -> None:
        for id in "abc":
            await store.put(row(id))
            clock.now += 100
        await store.get("a", owner=ANN)  # which is a use
        clock.now += 1
        await store.put(row("d"))
        assert [id for id in "abcd" if await store.get(id, owner=ANN)] == ["a", "c", "d"]
        clock.now += 1
        await store.put(row("e", "c"))  # goes on from c, which is a use
        await store.put(row("f"))
        assert [id for id in "abcdef" if await store.get(id, owner=ANN)] == ["c", "e", "f"]

    kept(tmp_path, story, limit=3, clock=clock)


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    clock = Clock()

    async def story(store: Responses) -> None:
        for id in "abcd":
            clock.now += 1
            await store.put(row(id, size=30_000))
        assert [id for id in "abcd" if await store.get(id, owner=ANN)] == ["b", "c", "d"]
        clock.now += 1
        await store.put(row("e", size=90_000))
        assert [id for id in "bcde" if await store.get(id, owner=ANN)] == ["e"]
        await store.put(row("f", status="queued"))
        await store.settle("f", status="completed", object=b"x" * 50_000, log=b"")
        assert [id for id in "ef" if await store.get(id, owner=ANN)] == ["f"]
        with pytest.raises(StorageFailed, match=r"responses\.size"):
            await store.put(row("g", size=200_000))
        assert [id for id in "fg" if await store.get(id, owner=ANN)] == ["f"]
        assert store._database.trouble is None

    kept(tmp_path, story, size=100_000, clock=clock)
    written = sum(file.stat().st_size for file in tmp_path.glob(f"{FILE}*") if file.suffix == ".db")
    assert written < 300_000


@pytest.mark.parametrize("bound", [{"limit": 10}, {"size": 100}])
def test_nobody_drives_out_what_others_keep(tmp_path: Path, bound: dict[str, int]) -> None:
    clock = Clock()

    async def story(store: Responses) -> None:
        for id in "abc":
            await store.put(row(id, owner=BEN, size=8))
        for number in range(40):
            clock.now += 100
            await store.put(row(f"r{number}", size=8))
        assert [id for id in "abc" if await store.get(id, owner=BEN)] == ["a", "b", "c"]
        assert [n for n in range(40) if await store.get(f"r{n}", owner=ANN)] == list(range(33, 40))

    kept(tmp_path, story, clock=clock, **bound)


def test_a_conversation_in_use_keeps_its_beginning_and_leaves_nothing(tmp_path: Path) -> None:
    clock = Clock()

    async def story(store: Responses) -> None:
        await store.put(row("a"))
        await store.put(row("b", "a"))
        for id in "cdef":
            clock.now += 1
            await store.put(row(id))
            clock.now += 1
            await store.put(row("b", "a"))
        assert await ids(store, "b") == ["a", "b"]
        assert [id for id in "cdef" if await store.get(id, owner=ANN)] == ["f"]
        for id in "abf":
            await store.delete(id, owner=ANN)
        assert await store._database.write(lambda db: db.exec_driver_sql("SELECT count(*) FROM trees").scalar()) == 0

    kept(tmp_path, story, limit=3, clock=clock)


def test_what_nobody_used_goes(tmp_path: Path) -> None:
    clock = Clock()

    async def story(store: Responses) -> None:
        await store.put(row("old"))
        await store.put(row("used"))
        clock.now += 3000
        assert len(await ids(store, "used")) == 1
        clock.now += 3000
        await store.put(row("new"))
        assert [id for id in ("old", "used", "new") if await store.get(id, owner=ANN)] == ["used", "new"]

    kept(tmp_path, story, keep=3600, clock=clock)


def test_an_answer_in_the_making_is_not_driven_out_and_ends_once(tmp_path: Path) -> None:
    async def story(store: Responses) -> None:
        await store.put(row("running", status="in_progress"))
        for id in "abcd":
            await store.put(row(id))
        assert await store.settle("running", status="completed", object=b"done", log=b"frames")
        found = await store.get("running", owner=ANN)
        assert found is not None
        assert (found.status, found.object, found.log) == ("completed", b"done", b"frames")
        assert not await store.settle("running", status="failed", object=b"again")
        assert not await store.settle("no such", status="failed", object=b"")

    kept(tmp_path, story, limit=2)


def test_nothing_is_kept_where_the_limit_is_none(tmp_path: Path) -> None:
    async def story(store: Responses) -> None:
        with pytest.raises(StorageFailed, match="limit"):
            await store.ready()

    kept(tmp_path, story, limit=0)


# Two gateways.


def test_two_gateways_share_a_file(tmp_path: Path) -> None:
    async def story() -> None:
        stores = [Responses(Database(SqliteFile(tmp_path)), keep=-1, limit=10_000, size=BIG) for _ in range(2)]
        await asyncio.gather(*(stores[n % 2].put(row(f"r{n}")) for n in range(200)))
        for store in stores:
            found = await asyncio.gather(*(store.get(f"r{n}", owner=ANN) for n in range(200)))
            assert all(found)
        for store in stores:
            await store._database.close()

    asyncio.run(story())


def test_the_answers_of_a_dead_gateway_are_abandoned(tmp_path: Path) -> None:
    async def story() -> None:
        one, two = (Responses(Database(SqliteFile(tmp_path)), keep=-1, limit=100, size=BIG) for _ in range(2))
        await one.put(row("a", status="queued"))
        found = await two.get("a", owner=ANN)
        assert found is not None
        assert found.status == "queued"
        await one._database.close()
        for read in (two, one):
            found = await read.get("a", owner=ANN)
            assert found is not None
            assert found.status == ABANDONED
        assert [row.status for row in await two.chain("a", owner=ANN, limit=9, size=BIG)] == [ABANDONED]
        await two._database.close()
        await one._database.close()

    asyncio.run(story())
    assert list((tmp_path / FOLDER).iterdir()) == []


_DIES = """
import asyncio, os, signal, sys
from pathlib import Path
from gateway.store import Database, Responses, Row
from gateway.store.sqlite import SqliteFile

async def main():
    store = Responses(Database(SqliteFile(Path(sys.argv[1]))), keep=-1, limit=100_000, size=10**9)
    number = 0
    while True:
        batch = [Row(id=f"r{number + n}", owner="ann", status="queued" if n else "completed", input=b"[]", object=b"x" * 500)
                 for n in range(8)]
        await asyncio.gather(*map(store.put, batch))
        number += 8
        print(number, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("answers", [1, 7, 40])
def test_a_kill_loses_nothing_that_was_answered(tmp_path: Path, answers: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _DIES, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert process.stdout is not None
    told = [int(process.stdout.readline()) for _ in range(answers)]
    process.kill()
    process.wait()
    process.stdout.close()

    async def story(store: Responses) -> None:
        for number in range(told[-1]):
            found = await store.get(f"r{number}", owner=ANN)
            assert found is not None
            assert found.status == (ABANDONED if number % 8 else "completed")

    kept(tmp_path, story)
    assert list((tmp_path / FOLDER).iterdir()) == []


# What goes wrong.


def test_a_full_disk_is_said_and_passes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(store: Responses) -> None:
        await store.put(row("a"))

        def pages(count: int) -> Callable[[Any], None]:
            return lambda db: db.exec_driver_sql(f"PRAGMA max_page_count = {count}") and None

        used = await store._database.write(lambda db: db.exec_driver_sql("PRAGMA page_count").scalar_one())
        await store._database.write(pages(used + 4))
        results = await asyncio.gather(
            *(store.put(row(id, size=size)) for id, size in (("big", 200_000), ("small", 9))), return_exceptions=True
        )
        assert isinstance(results[0], StorageFailed)
        assert (results[0].status, results[0].code) == (507, "insufficient_storage")
        assert "full" in results[0].message
        assert results[1] is None  # there was room for this one
        with pytest.raises(StorageFailed):
            await store.put(row("big", size=200_000))
        with pytest.raises(StorageFailed):
            await store.ready()
        assert await store.get("a", owner=ANN) is not None
        assert await store.get("big", owner=ANN) is None
        await store._database.write(pages(1000))
        await store.ready()
        await store.ready()
        await store.put(row("big", size=200_000))
        assert await store.get("big", owner=ANN) is not None
        assert await store.get("", owner="") is None

    kept(tmp_path, story)
    assert "full" in caplog.text
    assert caplog.text.count("can be written again") == 2


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    async def story(store: Responses) -> None:
        with pytest.raises(StorageFailed, match="cannot be stored"):
            await store.put(row("a"))
        with pytest.raises(StorageFailed):
            await store.ready()

    kept(tmp_path / "file" / "data", story)


@pytest.mark.parametrize("damage", ["all", "middle"])
def test_a_damaged_store_is_told_of_and_left_alone(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def fill(store: Responses) -> None:
        for number in range(100):
            await store.put(row(f"r{number}", size=2000))

    kept(tmp_path, fill)
    file = tmp_path / FILE
    content = bytearray(file.read_bytes())
    if damage == "all":
        content[:] = b"no database, whatever it is " * (len(content) // 28)
    else:
        content[4096 : len(content) - 4096] = b"\xa5" * (len(content) - 8192)
    file.write_bytes(content)

    async def story(store: Responses) -> None:
        with pytest.raises(StorageFailed, match="damaged") as caught:
            await store.get("r50", owner=ANN)
        assert caught.value.code == "storage_damaged"
        with pytest.raises(StorageFailed, match="damaged"):
            await store.ready()
        with pytest.raises(StorageFailed, match="damaged"):
            await store.put(row("new"))

    kept(tmp_path, story)
    assert file.read_bytes() == bytes(content)
    assert caplog.text.count("is damaged") == 1


def test_a_defect_is_its_callers_alone(tmp_path: Path) -> None:
    async def story(store: Responses) -> None:
        def fails(_: Any) -> None:
            raise ZeroDivisionError

        results = await asyncio.gather(
            store.put(row("a")), store._database.write(fails), store.put(row("b")), return_exceptions=True
        )
        assert [type(result) for result in results] == [type(None), ZeroDivisionError, type(None)]
        assert await store.get("a", owner=ANN)
        assert await store.get("b", owner=ANN)

    kept(tmp_path, story)


def test_signs_of_life(tmp_path: Path) -> None:
    one, two = Files(tmp_path), Files(tmp_path)
    one.show()
    one.show()
    assert two.sees(one.token)
    assert two.sees(two.token)
    assert not two.sees("0123")
    one.hide()
    one.hide()
    assert not two.sees(one.token)

"""SQLite's file, on disks that are full, failing or damaged."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from canonical.errors import StorageFailed
from gateway.store import Store, alive
from tests.stored import ANN, Place, row


def test_a_full_disk_is_said_and_passes(file: Place, caplog: pytest.LogCaptureFixture) -> None:
    async def story(store: Store) -> None:
        await store.responses.put(row("a"))
        used = await store.database.write(lambda db: db.exec_driver_sql("PRAGMA page_count").scalar_one())

        def pages(count: int) -> Callable[[Any], None]:
            return lambda db: db.exec_driver_sql(f"PRAGMA max_page_count = {count}") and None

        await store.database.write(pages(used + 4))
        results = await asyncio.gather(
            *(store.responses.put(row(id, size=size)) for id, size in (("big", 200_000), ("small", 9))),
            return_exceptions=True,
        )
        assert isinstance(results[0], StorageFailed)
        assert (results[0].status, results[0].code) == (507, "insufficient_storage")
        assert results[0].message == "this cannot be stored: the disk is full"
        assert results[1] is None  # there was room for this one
        with pytest.raises(StorageFailed):
            await store.responses.put(row("big", size=200_000))
        with pytest.raises(StorageFailed):
            await store.responses.ready()
        assert await store.responses.get("a", owner=ANN) is not None
        assert await store.responses.get("big", owner=ANN) is None
        await store.database.write(pages(1000))
        await store.responses.ready()
        await store.responses.ready()
        await store.responses.put(row("big", size=200_000))
        assert await store.responses.get("big", owner=ANN) is not None
        assert await store.responses.get("", owner="") is None

    file.kept(story)
    assert "full" in caplog.text
    assert caplog.text.count("can be written again") == 2


def test_a_disk_that_fails_in_the_middle_of_a_commit_is_said_and_passes(file: Place) -> None:
    """Small writes find out that there is no room only when they are committed."""

    async def story(store: Store) -> None:
        await store.responses.put(row("a"))
        journal = next(file.folder.glob("*.db-wal"))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (journal.stat().st_size, hard))
        try:
            for _ in range(2):
                with pytest.raises(StorageFailed, match="the disk"):
                    await store.responses.put(row("b"))
            assert await store.responses.get("a", owner=ANN) is not None
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        await store.responses.put(row("b"))
        assert await store.responses.get("b", owner=ANN) is not None

    file.kept(story)


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    async def story(store: Store) -> None:
        with pytest.raises(StorageFailed, match="cannot be stored") as caught:
            await store.responses.put(row("a"))
        assert str(tmp_path) not in caught.value.message
        with pytest.raises(StorageFailed):
            await store.responses.ready()

    Place(tmp_path / "file" / "data").kept(story)


@pytest.mark.parametrize("damage", ["all", "middle"])
def test_a_damaged_store_is_told_of_and_left_alone(file: Place, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    async def fill(store: Store) -> None:
        for number in range(100):
            await store.responses.put(row(f"r{number}", size=2000))

    file.kept(fill)
    content = bytearray(file.file.read_bytes())
    if damage == "all":
        content[:] = b"no database, whatever it is " * (len(content) // 28)
    else:
        content[4096 : len(content) - 4096] = b"\xa5" * (len(content) - 8192)
    file.file.write_bytes(content)

    async def story(store: Store) -> None:
        with pytest.raises(StorageFailed, match="damaged") as caught:
            await store.responses.get("r50", owner=ANN)
        assert caught.value.code == "storage_damaged"
        with pytest.raises(StorageFailed, match="damaged"):
            await store.responses.ready()
        with pytest.raises(StorageFailed, match="damaged"):
            await store.responses.put(row("new"))

    file.kept(story)
    assert file.file.read_bytes() == bytes(content)
    assert caplog.text.count("is damaged") == 1


def test_signs_of_life(tmp_path: Path) -> None:
    one, two = alive.Files(tmp_path), alive.Files(tmp_path)
    one.show()
    one.show()
    assert two.sees(one.token)
    assert two.sees(two.token)
    assert not two.sees("0123")
    one.hide()
    one.hide()
    assert not two.sees(one.token)

"""Downloads by LM Studio's REST in memory: they run while nobody waits, and are asked after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import pytest

from canonical.errors import BackendError, Busy, ModelNotFound
from canonical.progress import Progress
from gateway.downloads import KEPT, RUNNING, Downloads
from gateway.settings import Config, Key
from tests.asgi import House
from tests.calling import until
from tests.chatting import error_of, live
from tests.houses import HELLO, Home, tells
from tests.responding import ANN, BEN


class Shelf(Home):
    """A backend that can fetch ``new``: in two steps, the second when ``go`` is set."""

    def __init__(self) -> None:
        super().__init__(tells(HELLO))
        self.go = asyncio.Event()
        self.pulls: list[str] = []

    async def pull(self, name: str, *, insecure: bool = False) -> AsyncGenerator[Progress, None]:
        self.pulls.append(name)
        if name == "nobody/nothing":
            raise ModelNotFound("pull model manifest: file does not exist")
        yield Progress(status="pulling manifest")
        yield Progress(status="pulling", digest="sha256:aa", total=100, completed=40)
        await self.go.wait()
        if name == "torn":
            raise BackendError("the source broke off")
        yield Progress(status="pulling", digest="sha256:aa", total=100, completed=100)


async def ended(house: House, status: str, headers: Any = ()) -> Any:
    """Ask after a download until it is over."""
    while True:
        told_of = (await house.ask("GET", status, headers=headers)).json()
        if told_of["status"] != "downloading":
            return told_of
        await asyncio.sleep(0)


def test_a_download_runs_while_nobody_waits_and_is_asked_after() -> None:
    async def story(house: House) -> None:
        shelf = house.engine._backends["a"]
        assert isinstance(shelf, Shelf)
        begun = (await house.ask("POST", "/api/v1/models/download", {"model": "new"}, ANN)).json()
        assert (begun["status"], begun["total_size_bytes"], begun["downloaded_bytes"]) == ("downloading", 100, 40)
        again = (await house.ask("POST", "/api/v1/models/download", {"model": "new"}, ANN)).json()
        assert (again["job_id"], shelf.pulls) == (begun["job_id"], ["new"])
        status = f"/api/v1/models/download/status/{begun['job_id']}"
        assert (await house.ask("GET", status, headers=ANN)).json()["status"] == "downloading"
        for path, who in ((status, BEN), ("/api/v1/models/download/status/job_none", ANN)):
            call = await house.ask("GET", path, headers=who)
            assert (call.status, error_of(call)["type"]) == (404, "job_not_found")
        call = await house.ask("POST", "/api/v1/models/download", {"model": "new"}, BEN)
        assert (call.status, error_of(call)["type"]) == (403, "invalid_request")
        shelf.go.set()
        done = await ended(house, status, ANN)
        assert (done["status"], done["downloaded_bytes"]) == ("completed", 100)
        assert done["completed_at"] >= done["started_at"]

    keys = (Key(key="key-of-ann"), Key(key="key-of-ben", manage=False))
    live(None, story, Shelf(), config=Config(keys=keys))


def test_what_is_there_is_not_fetched_and_what_there_is_not_is_not_found() -> None:
    async def story(house: House) -> None:
        assert (await house.ask("POST", "/api/v1/models/download", {"model": "a"})).json() == {
            "status": "already_downloaded"
        }
        call = await house.ask("POST", "/api/v1/models/download", {"model": "nobody/nothing"})
        assert (call.status, error_of(call)["type"]) == (404, "model_not_found")

    live(None, story, Shelf())


def test_a_download_that_fails_says_why() -> None:
    async def story(house: House) -> None:
        shelf = house.engine._backends["a"]
        assert isinstance(shelf, Shelf)
        begun = (await house.ask("POST", "/api/v1/models/download", {"model": "torn"})).json()
        shelf.go.set()
        status = f"/api/v1/models/download/status/{begun['job_id']}"
        done = await ended(house, status)
        assert (done["status"], done["error"]["message"]) == ("failed", "the source broke off")

    live(None, story, Shelf())


def test_downloads_are_bounded_and_end_with_the_gateway() -> None:
    ended: list[str] = []

    async def pull(name: str) -> AsyncGenerator[Progress, None]:
        try:
            yield Progress(status="pulling", digest="sha256:aa", total=1)
            if name.startswith("long"):
                await asyncio.get_running_loop().create_future()
        finally:
            ended.append(name)

    async def story() -> None:
        downloads = Downloads(pull)
        first = await downloads.begin("short", owner="ann")
        await until(lambda: not first.running)
        for number in range(KEPT):
            one = await downloads.begin(f"short {number}", owner="ann")
            await until(lambda one=one: not one.running)  # type: ignore[misc]
        assert downloads.get(first.id, owner="ann") is None, "the oldest are forgotten"
        running = [await downloads.begin(f"long {number}", owner="ann") for number in range(RUNNING)]
        with pytest.raises(Busy):
            await downloads.begin("long more", owner="ann")
        assert all(downloads.get(one.id, owner="ann") is one for one in running)
        await downloads.close()
        assert all(isinstance(one.error, Busy) for one in running)
        assert sum(name.startswith("long") for name in ended) == RUNNING

    asyncio.run(story())


def test_a_downloads_speed_is_that_of_late() -> None:
    now = 0.0

    async def pull(_: str) -> AsyncGenerator[Progress, None]:
        nonlocal now
        for step in range(1, 21):
            now += 1.0
            yield Progress(
                status="pulling", digest="sha256:aa", total=10_000, completed=step * (1 if step < 10 else 100)
            )

    async def story() -> None:
        downloads = Downloads(pull, clock=lambda: now)
        one = await downloads.begin("x", owner="")
        await until(lambda: not one.running)
        assert one.speed == 100.0
        assert (one.total, one.completed) == (10_000, 2_000)

    asyncio.run(story())

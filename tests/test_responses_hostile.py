"""``/v1/responses`` against clients that mean harm: what runs in the background, and who follows it, is bounded."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.responses.serve import ITEMS
from canonical.events import Finished, Started, TextDelta, Usage
from canonical.requests import Generate
from gateway import background
from gateway.settings import Config, Limits
from gateway.store import Row
from tests.asgi import House
from tests.calling import until
from tests.houses import Home, waits
from tests.responding import ASK, PATH, ask, lived, records, types


def test_the_background_is_bounded_in_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "ROOM", 50_000)

    async def story(house: House) -> None:
        big = {**ASK, "background": True, "input": "x" * 20_000}
        first = await house.ask("POST", PATH, big)
        assert (first.status, (await house.ask("POST", PATH, big)).status) == (200, 503)
        assert (
            await house.ask("POST", PATH, {**ASK, "background": True, "metadata": {"a": "x" * 20_000}})
        ).status == 503
        small = await ask(house, background=True)
        for id in (first.json()["id"], small["id"]):
            await house.ask("POST", f"{PATH}/{id}/cancel")
        again = await house.ask("POST", PATH, big)
        assert again.status == 200
        await house.ask("DELETE", f"{PATH}/{again.json()['id']}")

    lived(tmp_path, story, Home(waits([Started("m")])))


def test_what_cannot_be_stored_takes_no_room(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        assert house.background is not None
        put, fails = house.background.store.put, [True]

        async def failing(row: Row) -> None:
            if fails:
                fails.clear()
                raise RuntimeError
            await put(row)

        house.background.store.put = failing  # type: ignore[method-assign]
        assert (await house.ask("POST", PATH, {**ASK, "background": True})).status == 500
        told = await ask(house, background=True)
        await house.ask("POST", f"{PATH}/{told['id']}/cancel")

    lived(tmp_path, story, Home(waits([Started("m")])), config=Config(limits=Limits(waiting=1)))


def test_a_follower_that_stops_reading_holds_little_and_is_told_what_it_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "LOG", 40_000)
    monkeypatch.setattr(background, "PIECE", 2_000)
    read, gate = asyncio.Event(), asyncio.Event()

    async def long(_: Generate) -> Any:
        yield [Started("m")]
        for number in range(100):
            yield [TextDelta(f"{number} ")]
        await read.wait()
        for number in range(1_000):
            yield [TextDelta(f"{number} ")]
        await gate.wait()
        yield [Finished("stop", Usage(3, 1_100))]

    async def story(house: House) -> None:
        told = await ask(house, background=True)
        job = house.background.get(told["id"], owner="")  # type: ignore[union-attr]
        assert job is not None
        await until(lambda: len(job._frames) > 90)
        slow = job.follow(-1)
        piece = await anext(slow)
        assert 2_000 <= len(piece) < 3_000
        read.set()
        await until(lambda: job._forgotten > 200)
        last = [frame async for frame in slow]
        assert len(last) == 1
        event, data = last[0].decode().removesuffix("\n\n").split("\n")
        error = json.loads(data.removeprefix("data: "))
        assert (event, error["type"], error["param"]) == ("event: error", "error", "starting_after")
        assert error["sequence_number"] == piece.count(b"\n\n")
        fast = house.call("GET", f"{PATH}/{told['id']}?stream=true&starting_after={job._forgotten + 1}")
        await fast.until(2)
        gate.set()
        await fast.end()
        assert types(fast)[-1] == "response.completed"
        numbers = [record["sequence_number"] for record in records(fast)]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))

    lived(tmp_path, story, Home(long))


def test_a_query_of_very_many_parameters_is_refused(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        id = (await ask(house))["id"]
        for path in (f"{PATH}/{id}", f"{PATH}/{id}/input_items"):
            call = await house.ask("GET", f"{path}?{'&'.join(['a=1'] * 51)}")
            assert (call.status, "at most 50" in call.json()["error"]["message"]) == (400, True)

    lived(tmp_path, story)


def test_very_many_items_are_refused_before_each_is_looked_at(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        for path in (PATH, f"{PATH}/input_tokens"):
            call = await house.ask("POST", path, {"model": "a", "input": [5] * (ITEMS + 1)})
            assert (call.status, f"at most {ITEMS} items" in call.json()["error"]["message"]) == (400, True)
            assert (await house.ask("POST", path, {"model": "a", "input": [5] * ITEMS})).status == 400

    lived(tmp_path, story)


def test_no_reply_tells_where_the_store_is(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no folder")

    async def story(house: House) -> None:
        for call in (
            await house.ask("POST", PATH, {**ASK, "store": True}),
            await house.ask("POST", PATH, {**ASK, "background": True}),
            await house.ask("GET", f"{PATH}/resp_x"),
        ):
            assert call.status in {404, 507}
            assert str(tmp_path).encode() not in call.body

    lived(tmp_path / "data", story)


def test_a_stored_stream_goes_out_in_small_pieces(tmp_path: Path) -> None:
    """Who stops reading holds what is on its way."""

    async def story(house: House) -> None:
        id = (await ask(house, instructions="x" * 300_000))["id"]
        call = await house.ask("GET", f"{PATH}/{id}?stream=true")
        sizes = [len(message["body"]) for message in call.sent[1:]]
        assert max(sizes) <= background.PIECE
        assert records(call)[-1]["response"]["instructions"] == "x" * 300_000

    lived(tmp_path, story)

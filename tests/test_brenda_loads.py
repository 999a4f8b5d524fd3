"""Brenda's loads in memory: what is fetched before, on whose word, and who is told."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.sessions import Sessions
from tests.asgi import House
from tests.calling import until
from tests.eventsource import heard
from tests.houses import HELLO, Home, tells
from tests.in_sessions import (
    ALONE,
    CHAT,
    KEYS,
    MINE,
    NAMELESS,
    YOURS,
    Unkept,
    event_of,
    state,
)
from tests.responding import ANN, BEN
from tests.shelf import Shelf, house
from tests.virtual_time import run


def test_b3_a_model_of_config_yaml_that_is_not_there_yet_is_fetched(tmp_path: Path) -> None:
    async def story() -> None:
        shelf = Shelf()
        a = house(shelf, data=tmp_path, listener=ALONE, config=KEYS)
        refused = await a.ask("POST", "/v1/models/later/load", b"", [*BEN, *MINE])
        assert (refused.status, [set(event_of(one)) for one in heard(refused.body)]) == (403, [{"error"}])
        assert shelf.pulls == 0
        load = await a.ask("POST", "/v1/models/later/load", b"", [*ANN, *MINE])
        told = list(map(event_of, heard(load.body)))
        assert told[-2:] == [{"status": "completed"}, {"status": "loaded"}]
        shares = [one["progress"] for one in told[:-2]]
        assert (shares, shares[-1]) == (sorted(shares), 1)
        assert (await state(a, [*ANN, *MINE]))["current_model"] == "later"
        again = await a.ask("POST", "/v1/models/later/load", b"", [*BEN, *MINE])
        assert list(map(event_of, heard(again.body))) == [{"status": "exists"}, {"status": "loaded"}]
        await a.close()

    asyncio.run(story())


@pytest.mark.parametrize(
    "path", ["/v1/models/registry.ollama.ai/library/far/load", "/v1/models/registry.ollama.ai/library/far:latest/load"]
)
def test_b3_a_name_with_its_host_is_fetched_from_there(tmp_path: Path, path: str) -> None:
    async def story() -> None:
        a = house(Shelf(), data=tmp_path, listener=ALONE)
        load = await a.ask("POST", path, b"", MINE)
        assert event_of(heard(load.body)[-1]) == {"status": "loaded"}
        assert (await a.ask("POST", CHAT, NAMELESS, MINE)).status == 200
        missing = await a.ask("POST", path.replace("far", "none"), b"", YOURS)
        assert (missing.status, event_of(heard(missing.body)[-1])) == (
            404, {"error": "pull model manifest: file does not exist"},
        )  # fmt: skip
        assert (await state(a, YOURS))["current_model"] is None
        await a.close()

    asyncio.run(story())


def test_b3_a_slip_of_the_pen_is_looked_up_nowhere(tmp_path: Path) -> None:
    async def story() -> None:
        shelf = Shelf()
        a = house(shelf, data=tmp_path, listener=ALONE)
        for name in ("far", "library/far", "fare"):
            load = await a.ask("POST", f"/v1/models/{name}/load", b"", MINE)
            assert (load.status, list(map(event_of, heard(load.body)))) == (
                404, [{"error": f"model '{name}' not found"}],
            )  # fmt: skip
        for name in ("/etc/passwd", "~/x", "./x", "x" * 3000):
            assert (await a.ask("POST", f"/v1/models/{name}/load", b"", MINE)).status in {400, 404}
        assert shelf.pulls == 0
        await a.close()

    asyncio.run(story())


def test_b3_who_leaves_a_download_that_nobody_else_watches_stops_it(tmp_path: Path) -> None:
    async def story() -> None:
        shelf = Shelf()
        shelf.gate.clear()
        a = house(shelf, data=tmp_path, listener=ALONE)
        one = a.call("POST", "/v1/models/later/load", b"", MINE)
        other = a.call("POST", "/v1/models/later/load", b"", YOURS)
        await until(lambda: shelf.pulls == 1)
        one.leave()
        await one.end()
        assert shelf.stopped == 0
        other.leave()
        await other.end()
        assert shelf.stopped == 1
        await a.close()

    asyncio.run(story())


def test_b3_a_load_that_says_nothing_shows_that_it_lives() -> None:
    async def story() -> None:
        async def slow() -> None:
            await asyncio.sleep(40)

        a = House(listener=ALONE, a=Home(tells(HELLO), on_open=slow))
        a.gateway.sessions = Sessions(Unkept())  # type: ignore[arg-type]
        load = await a.ask("POST", "/v1/models/a/load", b"", MINE)
        assert load.body == b'data: {"status":"exists"}\n\n: \n\n: \n\ndata: {"status":"loaded"}\n\n'
        await a.close()

    run(story())

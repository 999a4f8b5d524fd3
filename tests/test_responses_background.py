"""Responses that are made while nobody waits: followed, called off, bounded, and what becomes of them when a gateway ends."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from canonical.errors import BackendError
from canonical.events import Finished, Started, TextDelta, Usage
from canonical.requests import Generate
from gateway import background
from gateway.settings import Config, Limits
from tests.asgi import House
from tests.calling import until
from tests.houses import HELLO, Home, tells, waits
from tests.responding import ASK, PATH, ask, lived, reached, records, slow_store, types


def gated() -> tuple[Home, asyncio.Event]:
    """A model that says ``Hel`` and waits for a word before ``lo``."""
    gate = asyncio.Event()

    async def story(_: Generate) -> Any:
        yield [Started("m"), TextDelta("Hel")]
        await gate.wait()
        yield [TextDelta("lo")]
        yield [Finished("stop", Usage(3, 2))]

    return Home(story), gate


def test_m3_an_answer_is_made_while_nobody_waits(tmp_path: Path) -> None:
    home, gate = gated()

    async def story(house: House) -> None:
        call = await house.ask("POST", PATH, {**ASK, "background": True})
        told = call.json()
        assert (told["status"], told["background"], told["output"]) == ("queued", True, [])
        making = await reached(house, told["id"], "in_progress")
        assert making["output"] == []
        refused = await house.ask("POST", PATH, {**ASK, "previous_response_id": told["id"]})
        assert (refused.status, "not complete" in refused.json()["error"]["message"]) == (400, True)
        follower = house.call("GET", f"{PATH}/{told['id']}?stream=true")
        late = house.call("GET", f"{PATH}/{told['id']}?stream=true&starting_after=3")
        await follower.until(2)
        assert "response.output_text.delta" in types(follower)
        gate.set()
        done = await reached(house, told["id"], "completed")
        assert done["output"][0]["content"][0]["text"] == "Hello"
        assert done["usage"]["total_tokens"] == 5
        await follower.end()
        await late.end()
        assert types(follower)[:3] == ["response.created", "response.queued", "response.in_progress"]
        assert records(follower)[-1]["response"] == done
        assert records(late) == records(follower)[4:]
        # Afterwards the same numbers, from the store.
        again = await house.ask("GET", f"{PATH}/{told['id']}?stream=true&starting_after=3")
        assert records(again) == records(late)
        assert (await house.ask("POST", f"{PATH}/{told['id']}/cancel")).json() == done
        assert any("background" in line and "2 tokens" in line for line in house.access())

    lived(tmp_path, story, home)


def test_m3_a_background_stream_goes_on_without_its_client(tmp_path: Path) -> None:
    home, gate = gated()

    async def story(house: House) -> None:
        call = house.call("POST", PATH, {**ASK, "background": True, "stream": True})
        await call.until(2)
        id = records(call)[0]["response"]["id"]
        call.leave()
        await call.end()
        gate.set()
        assert (await reached(house, id, "completed"))["output"][0]["content"][0]["text"] == "Hello"

    lived(tmp_path, story, home)


def test_m3_a_client_that_leaves_while_it_is_stored_has_begun_it(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        asked, held, ids = slow_store(house)
        call = house.call("POST", PATH, {**ASK, "background": True})
        await asked.wait()
        call.leave()
        await call.end()
        held.set()
        await until(lambda: not house.gateway.running)
        assert (await house.ask("GET", f"{PATH}/{ids[0]}")).json()["status"] == "completed"

    lived(tmp_path, story)


def test_m3_a_background_answer_is_cancelled(tmp_path: Path) -> None:
    home = Home(waits([Started("m"), TextDelta("Hel")]))

    async def story(house: House) -> None:
        told = await ask(house, background=True)
        follower = house.call("GET", f"{PATH}/{told['id']}?stream=true")
        await follower.until(2)
        cancelled = (await house.ask("POST", f"{PATH}/{told['id']}/cancel")).json()
        assert house.running() == 0
        assert cancelled["status"] == "cancelled"
        assert cancelled["output"][0]["content"][0]["text"] == "Hel"
        await follower.end()
        assert records(follower)[-1] == {
            "type": "response.incomplete",
            "sequence_number": len(records(follower)) - 1,
            "response": cancelled,
        }
        assert (await house.ask("GET", f"{PATH}/{told['id']}")).json() == cancelled
        assert (await house.ask("POST", f"{PATH}/{told['id']}/cancel")).json() == cancelled
        # A deleted one is stopped too.
        told = await ask(house, background=True)
        await until(lambda: house.running() > 0)
        assert (await house.ask("DELETE", f"{PATH}/{told['id']}")).status == 200
        assert house.running() == 0
        assert (await house.ask("GET", f"{PATH}/{told['id']}")).status == 404
        kept = await house.ask("POST", PATH, {**ASK, "model": "b"})
        call = await house.ask("POST", f"{PATH}/{kept.json()['id']}/cancel")
        assert (call.status, "synchronous" in call.json()["error"]["message"]) == (400, True)

    lived(tmp_path, story, home, b=Home(tells(HELLO)))


def test_m3_what_fails_in_the_background_is_told(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        told = await ask(house, background=True)
        failed = await reached(house, told["id"], "failed")
        assert failed["error"] == {"code": "backend_error", "message": "it broke"}
        call = await house.ask("GET", f"{PATH}/{told['id']}?stream=true")
        assert types(call)[-2:] == ["error", "response.failed"]
        call = await house.ask("POST", PATH, {**ASK, "background": True, "model": "none"})
        assert (call.status, call.json()["error"]["code"]) == (404, "model_not_found")

    lived(tmp_path, story, Home(tells([Started("m")], BackendError("it broke"))))


def test_a_defect_in_the_background_is_told_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def story(house: House) -> None:
        told = await ask(house, background=True)
        failed = await reached(house, told["id"], "failed")
        assert failed["error"] == {"code": "server_error", "message": "internal error"}

    lived(tmp_path, story, Home(tells([Started("m")], ZeroDivisionError("the secret"))))
    assert "the secret" in caplog.text


def test_m3_the_background_is_bounded(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        first = await ask(house, background=True)
        call = await house.ask("POST", PATH, {**ASK, "background": True})
        assert (call.status, call.headers[b"retry-after"]) == (503, b"5")
        await house.ask("POST", f"{PATH}/{first['id']}/cancel")
        second = await ask(house, background=True)
        await house.ask("POST", f"{PATH}/{second['id']}/cancel")

    config = Config(limits=Limits(waiting=1))
    lived(tmp_path, story, Home(waits([Started("m")])), config=config)


def test_m3_so_it_is_when_all_ask_at_once(tmp_path: Path) -> None:
    """What is still being stored counts."""

    async def story(house: House) -> None:
        asked = [house.ask("POST", PATH, {**ASK, "background": True}) for _ in range(6)]
        calls = await asyncio.gather(*asked)
        assert sorted(call.status for call in calls) == [200, 200, 503, 503, 503, 503]
        begun = [call.json()["id"] for call in calls if call.status == 200]
        for id in begun:
            await house.ask("POST", f"{PATH}/{id}/cancel")
        third = await ask(house, background=True)  # nothing is counted for ever
        await house.ask("POST", f"{PATH}/{third['id']}/cancel")

    lived(tmp_path, story, Home(waits([Started("m")])), config=Config(limits=Limits(waiting=2)))


def test_the_log_of_a_long_answer_forgets_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LOG", 4000)
    gate = asyncio.Event()

    async def long(_: Generate) -> Any:
        yield [Started("m")]
        for number in range(100):
            yield [TextDelta(f"{number} ")]
        await gate.wait()
        yield [Finished("stop", Usage(3, 100))]

    async def story(house: House) -> None:
        told = await ask(house, background=True)
        job = house.background.get(told["id"], owner="")  # type: ignore[union-attr]
        assert job is not None
        await until(lambda: job._forgotten > 80)
        call = await house.ask("GET", f"{PATH}/{told['id']}?stream=true&starting_after=1")
        assert (call.status, "no longer kept" in call.json()["error"]["message"]) == (400, True)
        late = house.call("GET", f"{PATH}/{told['id']}?stream=true&starting_after={job._forgotten + 1}")
        await late.until(2)
        gate.set()
        await late.end()
        assert types(late)[-1] == "response.completed"
        done = await reached(house, told["id"], "completed")
        again = await house.ask("GET", f"{PATH}/{told['id']}?stream=true")  # from the object
        assert records(again)[-1]["response"] == done

    lived(tmp_path, story, Home(long))


def test_a_shutdown_ends_what_runs_in_the_background(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        told = await ask(house, background=True)
        follower = house.call("GET", f"{PATH}/{told['id']}?stream=true")
        await follower.until(2)
        house.gateway.draining = True
        for task in set(house.gateway.running):
            task.cancel()
        await follower.end()
        await until(lambda: not house.gateway.running)
        assert (follower.complete, types(follower)[-1]) == (True, "response.failed")
        assert house.background is not None
        row = await house.background.store.get(told["id"], owner="")
        assert row is not None
        assert (row.status, json.loads(row.object)["error"]["code"]) == ("failed", "backend_unavailable")

    lived(tmp_path, story, Home(waits([Started("m"), TextDelta("Hel")])))


def test_another_gateways_answers_are_seen_and_called_off(tmp_path: Path) -> None:
    async def story() -> None:
        one = House(a=Home(waits([Started("m")])), data=tmp_path)
        two = House(a=Home(tells(HELLO)), data=tmp_path)
        told = await ask(one, background=True)
        path = f"{PATH}/{told['id']}"
        assert (await two.ask("GET", path)).json()["status"] == "queued"
        assert (await two.ask("GET", f"{path}?stream=true")).status == 400
        assert (await two.ask("POST", f"{path}/cancel")).json()["status"] == "cancelled"
        assert (await one.ask("POST", f"{path}/cancel")).json()["status"] == "cancelled"
        left = await ask(one, background=True)
        job = one.background.get(left["id"], owner="")  # type: ignore[union-attr]
        assert job is not None
        await one.store.close()  # type: ignore[union-attr]  # as if it had died
        path = f"{PATH}/{left['id']}"
        failed = (await two.ask("GET", path)).json()
        assert (failed["status"], failed["error"]["code"]) == ("failed", "server_error")
        assert types(await two.ask("GET", f"{path}?stream=true"))[-1] == "response.failed"
        assert (await two.ask("POST", f"{path}/cancel")).json() == failed
        await job.cancel()
        await one.close()
        await two.close()

    asyncio.run(story())

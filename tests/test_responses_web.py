"""The routes of ``/v1/responses`` in memory: what is kept and whose it is, and what fails when."""

from __future__ import annotations

import json
from pathlib import Path

from backends.honours import TABLE
from canonical.errors import BackendError, StorageFailed
from canonical.events import Started, TextDelta
from canonical.report import Honours
from canonical.requests import Generate
from gateway.settings import Config, Responses
from gateway.store import Row
from tests.asgi import House
from tests.calling import until
from tests.houses import HELLO, Home, Talks, tells, waits
from tests.responding import ANN, ASK, BEN, PATH, REPORT, ask, heard, lived, records, slow_store, types

# What is kept.


def test_m3_a_response_is_kept_gone_on_from_and_forgotten(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        first = await ask(house)
        assert first["store"] is True
        assert first["output"][0]["content"][0]["text"] == "Hello"
        assert (await house.ask("GET", f"{PATH}/{first['id']}")).json() == first
        assert (await house.ask("GET", f"/responses/{first['id']}")).json() == first
        tools = [{"type": "function", "name": "f"}]
        second = await ask(house, input="and?", previous_response_id=first["id"], instructions="Be brief.", tools=tools)
        third = await ask(house, input="so?", previous_response_id=second["id"])
        assert third["previous_response_id"] == second["id"]
        # Neither instructions nor tools are inherited.
        assert heard(house)[2].tools == ()
        assert [(message.role, message.text) for message in heard(house)[2].messages] == [
            ("user", "the secret prompt"),
            ("assistant", "Hello"),
            ("user", "and?"),
            ("assistant", "Hello"),
            ("user", "so?"),
        ]
        page = (await house.ask("GET", f"{PATH}/{third['id']}/input_items?order=asc&limit=3")).json()
        assert [item["role"] for item in page["data"]] == ["user", "assistant", "user"]
        assert page["has_more"] is True
        gone = (await house.ask("DELETE", f"{PATH}/{first['id']}")).json()
        assert gone == {"id": first["id"], "object": "response", "deleted": True}
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/cancel"), ("GET", "/input_items")):
            assert (await house.ask(method, f"{PATH}/{first['id']}{path}")).status == 404
        for previous in (first["id"], third["id"], "resp_none", "x" * 5000):
            call = await house.ask("POST", PATH, {**ASK, "previous_response_id": previous})
            error = call.json()["error"]
            assert (call.status, error["code"]) == (400, "previous_response_not_found")
            assert error["param"] == "previous_response_id"

    lived(tmp_path, story)


def test_a_gateway_that_keeps_nothing_makes_no_file(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        told = await ask(house, store=False)
        assert told["store"] is False
        assert (await house.ask("GET", f"{PATH}/{told['id']}")).status == 404
        assert (await house.ask("POST", PATH, {**ASK, "previous_response_id": told["id"]})).status == 400

    lived(tmp_path / "data", story)
    assert not (tmp_path / "data").exists()


def test_what_is_stored_belongs_to_its_key(tmp_path: Path) -> None:
    config = Config(keys=("key-of-ann", "key-of-ben"))

    async def story(house: House) -> None:
        told = await ask(house, ANN)
        item = told["output"][0]["id"]
        mine = f"{PATH}/{told['id']}"
        assert (await house.ask("GET", mine, headers=ANN)).status == 200
        for method, path in (
            ("GET", ""),
            ("DELETE", ""),
            ("POST", "/cancel"),
            ("GET", "/input_items"),
            ("GET", "?stream=true"),
        ):
            assert (await house.ask(method, mine + path, headers=BEN)).status == 404
        call = await house.ask("POST", PATH, {**ASK, "previous_response_id": told["id"]}, BEN)
        assert (call.status, call.json()["error"]["code"]) == (400, "previous_response_not_found")
        reference = [{"type": "item_reference", "id": item}, {"role": "user", "content": "so?"}]
        assert (await house.ask("POST", PATH, {**ASK, "input": reference}, BEN)).status == 404
        assert (await house.ask("POST", PATH, {**ASK, "input": reference}, ANN)).status == 200
        running = await ask(house, ANN, background=True)
        assert (await house.ask("POST", f"{PATH}/{running['id']}/cancel", headers=BEN)).status == 404
        assert (await house.ask("POST", f"{PATH}/{running['id']}/cancel", headers=ANN)).status == 200

    lived(tmp_path, story, Home(tells(*[[event] for event in HELLO]), slots=4), config=config)


def test_m4_items_are_referred_to(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        first = await ask(house)
        second = await ask(
            house,
            input=[
                {"type": "item_reference", "id": f"msg_{first['id'].removeprefix('resp_')}_i0"},
                {"type": "item_reference", "id": first["output"][0]["id"]},
                {"role": "user", "content": "so?"},
            ],
        )
        assert [message.text for message in heard(house)[1].messages] == ["the secret prompt", "Hello", "so?"]
        await ask(house, input="and?", previous_response_id=second["id"])  # whose items are references
        assert [message.text for message in heard(house)[2].messages] == [
            "the secret prompt",
            "Hello",
            "so?",
            "Hello",
            "and?",
        ]
        call = await house.ask("POST", PATH, {**ASK, "input": [{"type": "item_reference", "id": "msg_x_0"}]})
        assert (call.status, "msg_x_0" in call.json()["error"]["message"]) == (404, True)
        many = [{"type": "item_reference", "id": f"msg_{number}_0"} for number in range(1001)]
        assert (await house.ask("POST", PATH, {**ASK, "input": many})).status == 400

    lived(tmp_path, story)


def test_m4_a_stored_response_is_streamed_again(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        told = await ask(house)
        call = await house.ask("GET", f"{PATH}/{told['id']}?stream=true")
        assert types(call)[0] == "response.created"
        assert records(call)[-1] == {"type": "response.completed", "sequence_number": 8, "response": told}
        rest = await house.ask("GET", f"{PATH}/{told['id']}?stream=true&starting_after=5")
        assert [record["sequence_number"] for record in records(rest)] == [6, 7, 8]
        assert (await house.ask("GET", f"{PATH}/{told['id']}?stream=true&starting_after=99")).body == b""
        call = await house.ask("GET", f"{PATH}/{told['id']}?stream=true&starting_after=x")
        assert call.status == 400

    lived(tmp_path, story)


# Streams.


def test_m4_a_stream_is_durable_before_its_last_event(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        asked, held, _ = slow_store(house)
        call = house.call("POST", PATH, {**ASK, "stream": True})
        await asked.wait()
        assert not call.complete
        assert b"response.completed" not in call.body
        held.set()
        await call.end()
        last = records(call)[-1]
        assert last["type"] == "response.completed"
        assert (await house.ask("GET", f"{PATH}/{last['response']['id']}")).json() == last["response"]

    lived(tmp_path, story)


def test_m4_a_failure_in_mid_stream_ends_it_legally(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        call = await house.ask("POST", PATH, {**ASK, "stream": True})
        assert types(call)[-2:] == ["error", "response.failed"]
        failed = records(call)[-1]["response"]
        assert failed["error"] == {"code": "backend_error", "message": "it broke"}
        assert failed["output"][0]["content"][0]["text"] == "Hel"
        assert (await house.ask("GET", f"{PATH}/{failed['id']}")).status == 404
        call = await house.ask("POST", PATH, ASK)
        assert (call.status, call.json()["error"]["code"]) == (502, "backend_error")

    lived(tmp_path, story, Home(tells([Started("m"), TextDelta("Hel")], BackendError("it broke"))))


def test_m5_a_client_that_leaves_stops_the_generation(tmp_path: Path) -> None:
    home = Home(waits([Started("m"), TextDelta("Hel")]))

    async def story(house: House) -> None:
        for stream in (True, False):
            call = house.call("POST", PATH, {**ASK, "stream": stream})
            await until(lambda: house.running() > 0)
            call.leave()
            await call.end()
            assert house.running() == 0

    lived(tmp_path, story, home)
    assert home.model.finished == 0  # type: ignore[union-attr]


# Where nothing can be kept.


def test_a_store_in_trouble_keeps_nobody_from_an_answer(tmp_path: Path) -> None:
    """Damaged from the start: who insists is refused before anything is generated."""
    (tmp_path / "dragoman.db").write_bytes(b"no database, whatever it is " * 1000)

    async def story(house: House) -> None:
        call = await house.ask("POST", PATH, ASK, REPORT)  # the first finds out at its end
        assert (call.status, call.json()["store"]) == (200, False)
        assert json.loads(call.headers[b"dragoman-report"])["dropped"] == ["store"]
        call = await house.ask("POST", PATH, {**ASK, "stream": True}, REPORT)
        assert records(call)[0]["response"]["store"] is False
        assert types(call)[-1] == "response.completed"
        assert json.loads(call.headers[b"dragoman-report"])["dropped"] == ["store"]
        asked = len(heard(house))
        for fields in ({"store": True}, {"store": True, "stream": True}, {"background": True}):
            call = await house.ask("POST", PATH, {**ASK, **fields})
            assert (call.status, call.json()["error"]["code"]) == (507, "storage_damaged")
            assert call.headers[b"x-should-retry"] == b"false"
        call = await house.ask("POST", PATH, ASK, [(b"dragoman-strict", b"true")])
        assert call.status == 507
        assert len(heard(house)) == asked
        assert (await house.ask("GET", f"{PATH}/resp_x")).status == 507
        assert (await ask(house, store=False))["store"] is False

    lived(tmp_path, story)


def test_a_store_that_fails_at_the_end(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        assert house.background is not None

        async def full(_: Row) -> None:
            raise StorageFailed("the response could not be stored: database or disk is full")

        house.background.store.put = full  # type: ignore[method-assign]
        call = await house.ask("POST", PATH, {**ASK, "stream": True}, [(b"dragoman-report", b"body")])
        assert records(call)[0]["response"]["store"] is True
        assert records(call)[-1]["response"]["store"] is False
        assert b'"dropped": ["store"]' in call.body
        call = await house.ask("POST", PATH, {**ASK, "stream": True, "store": True})
        assert types(call)[-1] == "response.failed"
        assert records(call)[-1]["response"]["error"]["code"] == "insufficient_storage"
        assert (await house.ask("POST", PATH, {**ASK, "store": True})).status == 507

    lived(tmp_path, story)


def test_a_gateway_without_a_store_says_so() -> None:
    async def story(house: House) -> None:
        assert (await ask(house))["store"] is False
        assert (await house.ask("POST", PATH, {**ASK, "store": True})).status == 507
        assert (await house.ask("GET", f"{PATH}/resp_x")).status == 507

    lived(None, story)


def test_a_limit_of_none_keeps_nothing(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        assert (await ask(house))["store"] is False

    lived(tmp_path, story, config=Config(responses=Responses(limit=0)))


# The report, counting, and what is not here.


def test_m3_the_report_comes_with_every_answer(tmp_path: Path) -> None:
    home = Home(tells(HELLO))
    home.model.honours = Honours(TABLE["llama_cpp"])  # type: ignore[misc]

    async def story(house: House) -> None:
        fields = {
            **ASK,
            "temperature": 0.5,
            "max_tool_calls": 3,
            "prompt": {"id": "p"},
            "tools": [{"type": "web_search"}],
        }
        told = {
            "honoured": ["temperature"],
            "approximated": {},
            "dropped": ["prompt", "max_tool_calls", "tools[type=web_search]"],
        }
        for stream in (True, False):
            call = await house.ask("POST", PATH, {**fields, "stream": stream}, REPORT)
            found = json.loads(call.headers[b"dragoman-report"])
            assert {**found, "dropped": sorted(found["dropped"])} == {**told, "dropped": sorted(told["dropped"])}
        call = await house.ask("POST", PATH, fields, [(b"dragoman-strict", b"true")])
        assert (call.status, call.json()["error"]["code"]) == (400, "unsupported_parameter")

    lived(tmp_path, story, home)


class Counting(Talks):
    """A model that counts: ten tokens a message."""

    async def count(self, request: Generate) -> int:
        return 10 * len(request.messages)


def test_m3_tokens_are_counted_where_somebody_can(tmp_path: Path) -> None:
    home = Home(tells(HELLO))
    home.model = Counting(home.info, tells(HELLO), 1)

    async def story(house: House) -> None:
        first = await ask(house)
        fields = {"model": "a", "input": [{"role": "user", "content": "x"}], "previous_response_id": first["id"]}
        call = await house.ask("POST", f"{PATH}/input_tokens", fields)
        assert call.json() == {"object": "response.input_tokens", "input_tokens": 30}
        assert (await house.ask("POST", f"{PATH}/input_tokens", {"model": "a", "input": "x"})).json()[
            "input_tokens"
        ] == 10
        assert (await house.ask("POST", f"{PATH}/input_tokens", {**fields, "model": "b"})).status == 501
        assert (await house.ask("POST", f"{PATH}/compact", fields)).status == 501
        assert (await house.ask("GET", PATH)).status == 405

    lived(tmp_path, story, home, b=Home(tells(HELLO)))

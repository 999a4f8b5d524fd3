"""The routes of LM Studio's REST in memory: what is kept and whose it is, loads that are watched, and what fails."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from backends.base import Tell, tell_nobody
from backends.honours import TABLE
from canonical.errors import BackendError, BackendUnavailable, OutOfMemory, StorageFailed
from canonical.events import Finished, Started, TextDelta, Timings, Usage
from canonical.models import Capability
from canonical.progress import Progress
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, LoadOptions
from gateway.settings import Config, Listener, ModelEntry
from tests.asgi import House
from tests.calling import until
from tests.chatting import SPEAKS, error_of, live, told, types
from tests.houses import HELLO, Home, Talks, Vectors, tells, waits
from tests.responding import ANN, BEN, REPORT, heard, lived
from tests.virtual_time import run

CHAT = "/api/v1/chat"
ASK = {"model": "a", "input": "the secret prompt"}
STRICT = [(b"dragoman-strict", b"true")]


async def chat(house: House, headers: Any = (), **fields: Any) -> Any:
    call = await house.ask("POST", CHAT, {**ASK, **fields}, headers)
    assert call.status == 200, call.body
    return call.json()


# What is kept.


def test_a_chat_is_kept_and_gone_on_from_by_either_route(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        first = await chat(house, system_prompt="Be kind.")
        assert first["output"] == [{"type": "message", "content": "Hello"}]
        second = await chat(
            house, input=[{"type": "text", "content": "and?"}], previous_response_id=first["response_id"]
        )
        by_responses = {"model": "a", "input": "so?", "previous_response_id": second["response_id"]}
        third = (await house.ask("POST", "/v1/responses", by_responses)).json()
        await chat(house, input="well?", previous_response_id=third["id"], system_prompt="Be brief.")
        assert [(message.role, message.text) for message in heard(house)[-1].messages] == [
            ("system", "Be brief."),
            ("user", "the secret prompt"),
            ("assistant", "Hello"),
            ("user", "and?"),
            ("assistant", "Hello"),
            ("user", "so?"),
            ("assistant", "Hello"),
            ("user", "well?"),
        ]
        assert heard(house)[1].messages[0].text == "Be kind."
        shown = (await house.ask("GET", f"/v1/responses/{first['response_id']}")).json()
        assert (shown["object"], shown["output"][0]["content"][0]["text"]) == ("response", "Hello")
        again = (await house.ask("GET", f"/v1/responses/{first['response_id']}?stream=true")).body
        assert again.count(b"event: response.output_text.delta") == 1
        items = (await house.ask("GET", f"/v1/responses/{second['response_id']}/input_items?order=asc")).json()["data"]
        assert [item["role"] for item in items] == ["system", "user", "assistant", "user"]

    live(tmp_path, story)


def test_what_is_kept_belongs_to_its_key(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        mine = (await chat(house, ANN))["response_id"]
        await chat(house, ANN, previous_response_id=mine)
        for id, who in ((mine, BEN), ("resp_none", ANN)):
            call = await house.ask("POST", CHAT, {**ASK, "previous_response_id": id}, who)
            assert (call.status, error_of(call)["code"]) == (400, "previous_response_not_found")
        assert (await house.ask("POST", CHAT, ASK)).status == 401

    live(tmp_path, story, config=Config(keys=("key-of-ann", "key-of-ben")))


def test_a_chat_that_is_not_to_be_kept_is_not(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        assert "response_id" not in await chat(house, store=False)
        streamed = await house.ask("POST", CHAT, {**ASK, "store": False, "stream": True})
        assert "response_id" not in told(streamed.body)[1]

    live(tmp_path / "data", story)
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("late", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
def test_where_nothing_can_be_kept_only_who_asks_for_it_is_refused(tmp_path: Path, late: bool, streamed: bool) -> None:
    async def full(*_: object) -> None:
        raise StorageFailed("the disk is full")

    async def story(house: House) -> None:
        assert house.background is not None
        setattr(house.background.store, "put" if late else "ready", full)
        call = await house.ask("POST", CHAT, {**ASK, "stream": streamed}, REPORT)
        result = told(call.body)[1] if streamed else call.json()
        assert "response_id" not in result
        if not streamed:
            assert json.loads(call.headers[b"dragoman-report"])["dropped"] == ["store"]
        call = await house.ask("POST", CHAT, {**ASK, "stream": streamed, "store": True})
        if streamed and late:
            found, _ = told(call.body, broken=True)
            assert found[-2]["error"]["code"] == "insufficient_storage"
        else:
            assert (call.status, error_of(call)["code"]) == (507, "insufficient_storage")

    live(tmp_path, story)


# What fails.


def test_what_is_refused_before_the_answer_has_its_own_status(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        for streamed in (False, True):
            for fields, status, kind in (
                ({"model": "nobody"}, 404, "model_not_found"),
                ({"integrations": ["mcp/x"]}, 501, "not_implemented"),
                ({"reasoning": "high"}, 400, "invalid_request"),
                (
                    {"input": [{"type": "image", "data_url": "data:image/png;base64,iVBORw0KGgo="}]},
                    400,
                    "invalid_request",
                ),
            ):
                call = await house.ask("POST", CHAT, {**ASK, **fields, "stream": streamed})
                assert (call.status, error_of(call)["type"]) == (status, kind), fields
        call = await house.ask("POST", CHAT, b"{")
        assert (call.status, error_of(call)["type"]) == (400, "invalid_request")
        assert not house.engine.loaded(), "no model was loaded for that"
        for streamed in (False, True):
            call = await house.ask("POST", CHAT, {**ASK, "stream": streamed, "draft_model": "tiny"}, STRICT)
            assert (call.status, error_of(call)["param"]) == (400, "draft_model")

    home = Home(tells(HELLO), abilities=[Capability.CHAT])
    live(tmp_path, story, home)


def test_reasoning_off_is_no_wish_that_a_model_could_lack() -> None:
    async def story(house: House) -> None:
        assert (await chat(house, reasoning="off"))["output"]

    live(None, story, Home(tells(HELLO), abilities=[Capability.CHAT]))


def test_a_stream_that_breaks_ends_with_the_error_and_what_there_is(tmp_path: Path) -> None:
    async def story(house: House) -> None:
        await house.engine.loads.load("a")
        call = await house.ask("POST", CHAT, {**ASK, "stream": True})
        found, result = told(call.body, broken=True)
        assert found[-2]["error"]["message"] == "it broke"
        assert result["output"] == [{"type": "message", "content": "Hel"}]
        assert "response_id" not in result
        whole = await house.ask("POST", CHAT, ASK)
        assert (whole.status, error_of(whole)["type"]) == (502, "internal_error")

    live(tmp_path, story, Home(tells([Started("m"), TextDelta("Hel")], BackendError("it broke"))))


def test_a_client_that_leaves_stops_the_model() -> None:
    async def story(house: House) -> None:
        call = house.call("POST", CHAT, {**ASK, "stream": True})
        await call.until(3)
        call.leave()
        await call.end()
        model = house.engine._pool.residents()[0].model
        assert isinstance(model, Talks)
        await until(lambda: model.stopped == 1)
        await until(lambda: not house.running())

    live(None, story, Home(waits([Started("m"), TextDelta("Hel")])))


def test_a_path_or_method_that_there_is_not_is_worded_as_lm_studio_does_but_is_an_error() -> None:
    async def story(house: House) -> None:
        for method, path, status in (
            ("GET", "/api/v1/nothing", 404),
            ("GET", "/nothing", 404),
            ("DELETE", "/api/v1/models", 405),
            ("POST", "/api/v0/models", 405),
            ("GET", "/api/v1/models/load", 405),
        ):
            call = await house.ask(method, path)
            assert call.status == status
            assert call.json() == {"error": f"Unexpected endpoint or method. ({method} {path})"}

    live(None, story)


def test_beside_ollama_each_dialect_words_its_own_paths() -> None:
    async def story(house: House) -> None:
        assert (await house.ask("GET", "/api/v1/x")).json() == {
            "error": "Unexpected endpoint or method. (GET /api/v1/x)"
        }
        assert "no route" in (await house.ask("GET", "/api/x")).json()["error"]
        assert (await house.ask("GET", "/api/tags")).status == 200

    lived(None, story, listener=Listener(port=1234, dialects=("lmstudio", "ollama", "openai", "anthropic")))


# Loads.


class Heavy(Home):
    """A backend whose loads take two steps, and may fail behind the first."""

    def __init__(self, *, fails: Exception | None = None, silent: bool = False) -> None:
        super().__init__(tells(*[[event] for event in HELLO]))
        self.fails = fails
        self.silent = silent
        self.stuck = False
        self.aborted = 0

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> Talks | Vectors:
        for done in (1, 4):
            if not self.silent:
                tell(Progress(status="loading", total=4, completed=done))
            for _ in range(5):
                await asyncio.sleep(0)
            if self.fails is not None:
                raise self.fails
            if self.stuck:
                try:
                    await asyncio.get_running_loop().create_future()
                finally:
                    self.aborted += 1
        return await super().open(name, options)


@pytest.mark.parametrize("silent", [False, True], ids=["told", "silent"])
def test_a_load_is_watched_in_the_stream_of_who_waits_for_it(silent: bool) -> None:
    async def story(house: House) -> None:
        call = await house.ask("POST", CHAT, {**ASK, "stream": True})
        found, result = told(call.body)
        load = [] if silent else [0.25, 1.0]
        assert [record["progress"] for record in found if record["type"] == "model_load.progress"] == load
        assert types(found)[1] == "model_load.start"
        assert result["stats"]["model_load_time_seconds"] >= 0
        again = told((await house.ask("POST", CHAT, {**ASK, "stream": True})).body)
        assert types(again[0])[1] == "prompt_processing.start"
        assert "model_load_time_seconds" not in again[1]["stats"]

    live(None, story, Heavy(silent=silent))


def test_a_load_for_an_answer_that_comes_whole_is_told_in_its_figures() -> None:
    async def story(house: House) -> None:
        assert (await chat(house))["stats"]["model_load_time_seconds"] > 0
        assert "model_load_time_seconds" not in (await chat(house))["stats"]

    live(None, story, Heavy())


def test_a_model_that_stays_for_one_answer_is_loaded_once_for_it() -> None:
    home = Heavy()

    async def story(house: House) -> None:
        for count in (1, 2):
            found, _ = told((await house.ask("POST", CHAT, {**ASK, "stream": True, "ttl": 0})).body)
            assert "model_load.end" in types(found)
            await until(lambda: not house.engine.loaded())
            assert home.opened == count

    live(None, story, home)


def test_who_wants_nothing_dropped_is_refused_with_a_status_behind_a_load_too() -> None:
    async def story(house: House) -> None:
        call = await house.ask("POST", CHAT, {**ASK, "stream": True, "store": False, "draft_model": "tiny"}, STRICT)
        assert (call.status, error_of(call)["param"]) == (400, "draft_model")

    live(None, story, Heavy())


def test_a_client_that_leaves_amid_a_load_ends_it() -> None:
    home = Heavy()
    home.stuck = True

    async def story() -> None:
        house = House(a=home, listener=SPEAKS)
        call = house.call("POST", CHAT, {**ASK, "stream": True})
        await call.until(3)
        assert home.aborted == 0
        call.leave()
        await call.end()
        await asyncio.sleep(60)  # nobody comes for it any more
        assert (home.aborted, house.engine.loaded()) == (1, [])
        await house.close()

    run(story())


def test_a_load_that_fails_in_a_stream_is_told_there() -> None:
    async def story(house: House) -> None:
        found, result = told((await house.ask("POST", CHAT, {**ASK, "stream": True})).body, broken=True)
        assert types(found) == ["chat.start", "model_load.start", "model_load.progress", "error", "chat.end"]
        assert found[-2]["error"]["message"] == "it is too large"
        assert result["output"] == []

    live(None, story, Heavy(fails=OutOfMemory("it is too large")))


def test_another_model_stands_in_for_one_whose_server_is_gone(tmp_path: Path) -> None:
    async def gone() -> None:
        raise BackendUnavailable("nobody is there")

    async def story(house: House) -> None:
        call = await house.ask("POST", CHAT, {**ASK, "stream": True})
        assert told(call.body)[1]["output"] == [{"type": "message", "content": "Hello"}]

    models = [ModelEntry(id="a", backend="a", name="m", fallbacks=("b",)), ModelEntry(id="b", backend="b", name="m")]
    live(tmp_path, story, Home(tells(HELLO), on_open=gone), models=models, b=Home(tells(HELLO)))


def test_a_model_is_loaded_listed_and_unloaded() -> None:
    async def story(house: House) -> None:
        async def state() -> list[Any]:
            (row,) = (await house.ask("GET", "/api/v1/models")).json()["models"]
            (old,) = (await house.ask("GET", "/api/v0/models")).json()["data"]
            assert (await house.ask("GET", "/api/v0/models/a")).json() == old
            assert (old["state"] == "loaded") is bool(row["loaded_instances"])
            return [instance["id"] for instance in row["loaded_instances"]]

        assert await state() == []
        for _ in range(2):
            call = await house.ask("POST", "/api/v1/models/load", {"model": "a", "echo_load_config": True, "ttl": 60})
            loaded = call.json()
            assert (loaded["type"], loaded["instance_id"], loaded["status"]) == ("llm", "a", "loaded")
            assert loaded["load_config"] == {"context_length": 0, "parallel": 1}
            assert await state() == ["a"], "a second load makes no second instance"
        call = await house.ask("POST", "/api/v1/models/load", {"model": "a"})
        assert "load_config" not in call.json()
        for _ in range(2):
            assert (await house.ask("POST", "/api/v1/models/unload", {"instance_id": "a"})).json() == {
                "instance_id": "a"
            }
            assert await state() == []
        for path, body in (("load", {"model": "nobody"}), ("unload", {"instance_id": "a:2"})):
            call = await house.ask("POST", f"/api/v1/models/{path}", body)
            assert (call.status, error_of(call)["type"]) == (404, "model_not_found")

    live(None, story)


def test_what_a_load_cannot_have_is_told_or_refused() -> None:
    body = {"model": "a", "flash_attention": True, "context_length": 2048, "ttl": 60}

    async def story(house: House) -> None:
        call = await house.ask("POST", "/api/v1/models/load", body, REPORT)
        report = json.loads(call.headers[b"dragoman-report"])
        assert report["honoured"] == ["ttl"]
        assert set(report["dropped"]) == {"flash_attention", "context_length"}  # nobody knows of such a context here
        call = await house.ask("POST", "/api/v1/models/load", body, STRICT)
        assert (call.status, error_of(call)["param"]) == (400, "flash_attention")

    live(None, story)


# OpenAI's shapes.


def test_the_older_routes_answer_as_openai_does_with_figures_beside() -> None:
    home = Home(tells([*HELLO[:-1], Finished("stop", Usage(3, 2), Timings(eval=500_000_000, prompt=1_000_000))]))

    async def story(house: House) -> None:
        asked = {"model": "a", "messages": [{"role": "user", "content": "Hi"}]}
        whole = (await house.ask("POST", "/api/v0/chat/completions", asked)).json()
        assert whole["choices"][0]["message"]["content"] == "Hello"
        assert whole["stats"]["tokens_per_second"] == 4.0
        assert whole["stats"]["stop_reason"] == "eosFound"
        assert whole["model_info"].keys() == {"arch", "quant", "format", "context_length"}
        completed = (await house.ask("POST", "/api/v0/completions", {"model": "a", "prompt": "Hi", "ttl": 9})).json()
        assert (completed["object"], completed["stats"]["generation_time"]) == ("text_completion", 0.5)
        assert heard(house)[-1].keep_alive == 9.0
        call = await house.ask("POST", "/api/v0/chat/completions", {**asked, "messages": []})
        assert error_of(call).keys() == {"message", "type", "param", "code"}
        call = await house.ask(
            "POST", "/api/v0/chat/completions", {**asked, "draft_model": "tiny", "preset": "x"}, REPORT
        )
        assert set(json.loads(call.headers[b"dragoman-report"])["dropped"]) == {"draft_model", "preset"}
        call = await house.ask("GET", "/api/v0/models/nobody")
        assert (call.status, error_of(call)["code"]) == (404, "model_not_found")

    live(None, story, home)


def test_the_older_embeddings_are_openais() -> None:
    async def story(house: House) -> None:
        told_of = (await house.ask("POST", "/api/v0/embeddings", {"model": "a", "input": "x", "ttl": 5})).json()
        assert told_of["data"][0]["embedding"] == [1.0]

    live(None, story, Home(abilities=[Capability.EMBED]))


def test_the_report_names_a_chats_fields_as_the_client_does() -> None:
    home = Home(tells(HELLO))
    home.model.honours = Honours(TABLE["anthropic"])

    async def story(house: House) -> None:
        call = await house.ask(
            "POST", CHAT, {**ASK, "min_p": 0.1, "context_length": 64, "preset": "x", "ttl": 1}, REPORT
        )
        dropped = json.loads(call.headers[b"dragoman-report"])["dropped"]
        assert set(dropped) >= {"min_p", "preset", "ttl"}

    live(None, story, home)

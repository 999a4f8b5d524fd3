"""Brenda's sessions in memory: whose they are, what they keep, and what a stop ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from canonical.errors import BackendError, StorageFailed
from canonical.events import Event, Finished, Started, TextDelta
from canonical.requests import Generate
from gateway.sessions import SessionId, Sessions
from gateway.settings import Config, Key, Listener, Mounted
from gateway.settings import Sessions as Section
from gateway.store import Session
from tests.asgi import Call, Headers, House
from tests.calling import until
from tests.eventsource import Heard, answer, heard
from tests.houses import HELLO, Home, Talks, tells
from tests.responding import ANN, BEN, lived
from tests.shelf import Shelf, house
from tests.virtual_time import run

ALONE = Listener(port=1234, dialects=("brenda",))
SHARED = Listener(port=1234, dialects=("openai", "brenda", "anthropic"))
CHAT = "/v1/chat/completions"
ASK = {"model": "a", "messages": [{"role": "user", "content": "Bonjour"}]}
NAMELESS = {"messages": ASK["messages"]}
KEYS = Config(keys=(Key(key="key-of-ann"), Key(key="key-of-ben", manage=False)))
MINE: Headers = [(b"x-session-id", b"mine")]
YOURS: Headers = [(b"x-session-id", b"yours")]

Story = Callable[[House], Awaitable[None]]


def live(data: Path, story: Story, home: Home | None = None, listener: Listener = ALONE, **more: Any) -> None:
    lived(data, story, home, listener=listener, **more)


def id_of(call: Call) -> bytes:
    (id,) = [value for name, value in call.sent[0]["headers"] if name == b"x-session-id"]
    return id


async def state(a: House, headers: Headers = MINE) -> Any:
    call = await a.ask("GET", "/v1/session", headers=headers)
    assert call.status == 200
    return call.json()


class Unkept:
    """What would be kept, in memory."""

    def __init__(self) -> None:
        self.models: dict[str, Session] = {}

    async def get(self, id: str, *, owner: str) -> Session | None:
        return self.models.get(id)

    async def put(self, session: Session) -> None:
        self.models[session.id] = session


# The header


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHAT, ASK, 200),
        ("POST", CHAT, {**ASK, "stream": True}, 200),
        ("POST", CHAT, NAMELESS, 400),
        ("POST", CHAT, {**ASK, "model": "b"}, 404),
        ("POST", CHAT, {}, 400),
        ("GET", CHAT, b"", 405),
        ("GET", "/v1/session", b"", 200),
        ("GET", "/v1/models", b"", 200),
        ("POST", "/v1/models/a/load", b"", 200),
        ("POST", "/v1/models/b/load", b"", 404),
        ("POST", "/v1/models/a", b"", 404),
        ("POST", "/v1/stop", b"", 400),
        ("GET", "/nothing", b"", 404),
        ("PUT", "/v1/session", b"", 405),
    ],
)
def test_b8_every_answer_has_the_session(tmp_path: Path, method: str, path: str, body: Any, status: int) -> None:
    async def story(a: House) -> None:
        made = await a.ask(method, path, body)
        assert made.status == status
        assert len(id_of(made)) == 32
        again = await a.ask(method, path, body)
        assert id_of(again) != id_of(made)
        assert id_of(await a.ask(method, path, body, MINE)) == b"mine"

    live(tmp_path, story)


def test_b8_so_has_the_answer_to_a_stranger(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        call = await a.ask("GET", "/v1/session", headers=MINE)
        assert (call.status, id_of(call)) == (401, b"mine")
        assert set(call.json()) == {"error"}
        call = await a.ask("GET", "/v1/session", headers=[(b"origin", b"https://evil.example"), *ANN])
        assert (call.status, len(id_of(call))) == (403, 32)

    live(tmp_path, story, config=KEYS)


@pytest.mark.parametrize("id", [b" ", b"a b", b"../x", b"a/b", b"\xe9", b"x" * 129, b"<script>", b"a,b"])
@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/session"), ("POST", "/v1/stop"), ("POST", CHAT)])
def test_b8_what_is_no_id_is_refused_and_not_repeated(tmp_path: Path, method: str, path: str, id: bytes) -> None:
    async def story(a: House) -> None:
        call = await a.ask(method, path, ASK, [(b"x-session-id", id)])
        assert call.status == 400
        assert "X-Session-ID" in call.json()["error"]
        assert len(id_of(call)) == 32

    live(tmp_path, story)


@pytest.mark.parametrize("id", [b"", b"null", b"undefined"])
def test_b8_a_page_that_has_no_id_yet_gets_one_of_its_own(tmp_path: Path, id: bytes) -> None:
    async def story(a: House) -> None:
        calls = [await a.ask("GET", "/v1/session", headers=[(b"x-session-id", id)]) for _ in range(2)]
        ids = {call.json()["session_id"] for call in calls}
        assert len(ids) == 2
        assert ids == {id_of(call).decode() for call in calls}
        assert (await a.ask("POST", "/v1/stop", b"", [(b"x-session-id", id)])).status == 400

    live(tmp_path, story)


def test_b8_two_ids_are_none(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        assert (await a.ask("GET", "/v1/session", headers=[*MINE, *YOURS])).status == 400
        assert (await a.ask("GET", "/v1/session", headers=[*MINE, *MINE])).status == 200

    live(tmp_path, story)


def test_where_openai_answers_there_is_no_session(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        openai = await a.ask("POST", CHAT, ASK)
        assert b"x-session-id" not in openai.headers
        assert openai.json()["object"] == "chat.completion"
        assert b"x-session-id" not in (await a.ask("GET", "/v1/models")).headers
        models = await a.ask("GET", "/v1/models", headers=MINE)
        assert id_of(models) == b"mine"
        assert models.json()["models"] == ["a"]
        assert models.json()["data"][0]["id"] == "a"
        assert (await a.ask("GET", "/v1/models", headers=[(b"x-session-id", b"a b")])).status == 400
        brenda = await a.ask("POST", CHAT, {**ASK, "system": "x"})
        assert len(id_of(brenda)) == 32
        assert b"x-session-id" not in (await a.ask("GET", "/v1/models/a")).headers

    live(tmp_path, story, listener=SHARED)


def test_under_a_prefix_nothing_is_guessed(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        models = await a.ask("GET", "/brenda/v1/models")
        assert (models.json(), len(id_of(models))) == ({"models": ["a"]}, 32)
        load = await a.ask("POST", "/brenda/v1/models/a/load", b"", MINE)
        assert event_of(heard(load.body)[-1]) == {"status": "loaded"}
        plain = await a.ask("POST", f"/brenda{CHAT}", {**NAMELESS, "stream": True}, MINE)
        assert answer(plain.body) == "Hello"
        assert id_of(await a.ask("GET", "/brenda/nothing", headers=MINE)) == b"mine"
        openai = await a.ask("POST", CHAT, {**ASK, "stream": True}, MINE)
        assert b"x-session-id" not in openai.headers
        assert b"chat.completion.chunk" in openai.body

    prefixed = Listener(port=1, dialects=("openai", Mounted(name="brenda", prefix="/brenda")))
    live(tmp_path, story, listener=prefixed)


# What is kept


def test_b8_a_chat_chooses_the_model_once_it_is_answered(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        assert await state(a) == {"session_id": "mine", "current_model": None, "has_model_loaded": False}
        assert (await a.ask("POST", CHAT, {**ASK, "model": "b"}, MINE)).status == 404
        assert (await state(a))["current_model"] is None
        assert (await a.ask("POST", CHAT, NAMELESS, MINE)).status == 400
        call = await a.ask("POST", CHAT, {**ASK, "stream": True}, MINE)
        assert answer(call.body) == "Hello"
        assert await state(a) == {"session_id": "mine", "current_model": "a", "has_model_loaded": True}
        call = await a.ask("POST", CHAT, NAMELESS, MINE)
        assert (call.json()["choices"][0]["message"]["content"], call.json()["model"]) == ("Hello", "a")
        assert (await a.ask("POST", CHAT, NAMELESS, YOURS)).status == 400

    live(tmp_path, story)


def test_b8_the_next_gateway_knows_it(tmp_path: Path) -> None:
    async def first(a: House) -> None:
        await a.ask("POST", CHAT, ASK, MINE)

    async def second(a: House) -> None:
        assert (await state(a))["current_model"] == "a"
        assert (await a.ask("POST", CHAT, NAMELESS, MINE)).status == 200

    live(tmp_path, first)
    live(tmp_path, second)


def test_b8_a_session_is_its_keys(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        await a.ask("POST", CHAT, ASK, [*ANN, *MINE])
        assert (await state(a, [*ANN, *MINE]))["current_model"] == "a"
        assert (await state(a, [*BEN, *MINE]))["current_model"] is None
        assert (await a.ask("POST", "/v1/stop", b"", [*BEN, *MINE])).status == 400

    live(tmp_path, story, config=KEYS)


def test_b9_a_model_that_is_gone_is_not_loaded(tmp_path: Path) -> None:
    async def first(a: House) -> None:
        await a.gateway.sessions.choose(SessionId("", "mine"), "gone")  # type: ignore[union-attr]
        assert await state(a) == {"session_id": "mine", "current_model": "gone", "has_model_loaded": False}
        assert (await a.ask("POST", CHAT, NAMELESS, MINE)).status == 404

    live(tmp_path, first)


def test_a_chat_goes_on_where_nothing_can_be_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(a: House) -> None:
        async def full(*_: object, **__: object) -> None:
            raise StorageFailed("no space left on the device")

        assert a.store is not None
        monkeypatch.setattr(a.store.sessions, "put", full)
        call = await a.ask("POST", CHAT, ASK, [*MINE, (b"dragoman-report", b"header")])
        assert call.status == 200
        assert b'"dropped": ["X-Session-ID"]' in call.headers[b"dragoman-report"]
        assert (await a.ask("POST", CHAT, ASK, [*MINE, (b"dragoman-strict", b"true")])).status == 507
        load = await a.ask("POST", "/v1/models/a/load", b"", MINE)
        assert [one.data for one in heard(load.body)] == [
            '{"status":"exists"}', '{"error":"no space left on the device"}',
        ]  # fmt: skip

    live(tmp_path, story)


def test_a_store_that_does_not_answer_holds_no_chat_back() -> None:
    class Stuck(Unkept):
        async def put(self, session: Session) -> None:
            await asyncio.get_running_loop().create_future()

    async def story() -> None:
        a = House(listener=ALONE, a=Home(tells(HELLO)))
        a.gateway.sessions = Sessions(Stuck())  # type: ignore[arg-type]
        call = await a.ask("POST", CHAT, {**ASK, "stream": True}, MINE)
        assert answer(call.body) == "Hello"
        assert asyncio.get_running_loop().time() < 5
        assert (await a.ask("POST", CHAT, ASK, [*MINE, (b"dragoman-strict", b"true")])).status == 507
        await a.close()

    run(story())


def test_b4_the_configured_instructions_are_for_who_brings_none(tmp_path: Path) -> None:
    home = Home(tells(HELLO))

    async def story(a: House) -> None:
        await a.ask("POST", CHAT, ASK)
        await a.ask("POST", CHAT, {**ASK, "system": "Sois bref."})
        assert isinstance(home.model, Talks)
        told = [request.messages[0].parts for request in home.model.requests]
        assert [parts[0].text for parts in told] == ["Réponds en français.", "Sois bref."]  # type: ignore[union-attr]

    live(tmp_path, story, home, config=Config(sessions=Section(system="Réponds en français.")))


# Failures


def test_b7_errors_are_an_object_with_a_text(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        for body, status in ((NAMELESS, 400), ({**ASK, "model": "b"}, 404), (ASK, 500)):
            call = await a.ask("POST", CHAT, body, MINE)
            assert (call.status, set(call.json())) == (status, {"error"})
            assert isinstance(call.json()["error"], str)

    live(tmp_path, story, Home(tells(ValueError("a defect"))))


def test_b7_what_fails_behind_the_first_word_says_so_in_the_stream(tmp_path: Path) -> None:
    home = Home(tells([Started("m")], [TextDelta("half")], BackendError("the model died")))

    async def story(a: House) -> None:
        call = await a.ask("POST", CHAT, {**ASK, "stream": True}, MINE)
        assert heard(call.body) == [Heard("message", "half"), Heard("error", '{"error":"the model died"}')]
        assert (await a.ask("POST", CHAT, ASK, MINE)).status == 502

    live(tmp_path, story, home)


# Stops


class Talking(Home):
    """Says one word to each, and then nothing for ever; but to who says ``end`` it answers. To be stopped takes as long as ``held``."""

    def __init__(self, slots: int = 1) -> None:
        super().__init__(self._tell, slots=slots)
        self.told = 0
        """To how many the word has been said and taken."""
        self.held = asyncio.Event()
        self.held.set()

    async def _tell(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        if "end" in str(request.messages[-1].parts):
            yield HELLO
            return
        yield [Started("m"), TextDelta("word")]
        self.told += 1
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await self.held.wait()


async def stopped(a: House, headers: Headers = MINE) -> None:
    call = await a.ask("POST", "/v1/stop", b"", headers)
    assert (call.status, call.json()) == (200, {"status": "stopped"})


def test_b10_a_stop_ends_all_of_its_session_and_nothing_else(tmp_path: Path) -> None:
    home = Talking(4)

    async def story(a: House) -> None:
        streams = [a.call("POST", CHAT, {**ASK, "stream": True}, MINE) for _ in range(2)]
        whole = a.call("POST", CHAT, ASK, MINE)
        other = a.call("POST", CHAT, {**ASK, "stream": True}, YOURS)
        for stream in (*streams, other):
            await stream.until(2)
        await until(lambda: home.told == 4)
        await stopped(a)
        assert a.running() == 1
        for stream in streams:
            assert answer((await stream.end()).body) == "word"
        reply = (await whole.end()).json()["choices"][0]
        assert (reply["message"]["content"], reply["finish_reason"]) == ("word", "stop")
        assert not other.complete
        await stopped(a)  # nothing runs, and its model is known
        assert not other.complete
        again = await a.ask("POST", CHAT, {"messages": [{"role": "user", "content": "end"}]}, MINE)
        assert again.json()["choices"][0]["message"]["content"] == "Hello"
        await stopped(a, YOURS)
        assert answer((await other.end()).body) == "word"

    live(tmp_path, story, home)


def test_b10_who_waits_for_a_slot_is_stopped_and_nothing_is_generated_for_it(tmp_path: Path) -> None:
    home = Talking()

    async def story(a: House) -> None:
        first = a.call("POST", CHAT, {**ASK, "stream": True}, YOURS)
        await first.until(2)
        waiting = a.call("POST", CHAT, {**ASK, "stream": True}, MINE)
        whole = a.call("POST", CHAT, {**ASK, "n": 3}, MINE)
        (resident,) = a.engine._pool.residents()
        await until(lambda: len(list(resident.turns())) == 2)
        await stopped(a)
        assert answer((await waiting.end()).body) == ""
        contents = [one["message"]["content"] for one in (await whole.end()).json()["choices"]]
        assert contents == ["", "", ""]
        assert (await state(a))["current_model"] is None  # nobody has answered
        assert isinstance(home.model, Talks)
        assert len(home.model.requests) == 1
        await stopped(a, YOURS)

    live(tmp_path, story, home)


def test_b10_who_waits_for_a_load_is_stopped(tmp_path: Path) -> None:
    go = asyncio.Event()

    async def story(a: House) -> None:
        waiting = a.call("POST", CHAT, ASK, MINE)
        await until(lambda: a.engine._pool.residents() != [])
        await stopped(a)
        assert (await waiting.end()).status == 200
        go.set()

    live(tmp_path, story, Home(tells(HELLO), on_open=lambda: _wait(go)))


async def _wait(event: asyncio.Event) -> None:
    await event.wait()


def test_b10_under_another_key_there_is_nothing_to_stop(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        stream = a.call("POST", CHAT, {**ASK, "stream": True}, [*ANN, *MINE])
        await stream.until(2)
        assert (await a.ask("POST", "/v1/stop", b"", [*BEN, *MINE])).status == 400
        assert a.running() == 1
        await stopped(a, [*ANN, *MINE])
        await stream.end()

    live(tmp_path, story, Talking(), config=KEYS)


def test_b10_a_stop_is_answered_when_nothing_runs_any_more(tmp_path: Path) -> None:
    home = Talking()

    async def story(a: House) -> None:
        stream = a.call("POST", CHAT, {**ASK, "stream": True}, MINE)
        await stream.until(2)
        home.held.clear()
        stop = a.call("POST", "/v1/stop", b"", MINE)
        session = await state(a)  # whatever is answered meanwhile
        assert session["current_model"] == "a"
        assert (stop.sent, stream.complete, a.running()) == ([], False, 1)
        home.held.set()
        assert (await stop.end()).json() == {"status": "stopped"}
        assert a.running() == 0
        assert answer((await stream.end()).body) == "word"

    live(tmp_path, story, home)


def test_b10_what_does_not_stop_is_said_to() -> None:
    async def story() -> None:
        home = Talking()
        a = House(listener=ALONE, a=home)
        a.gateway.sessions = Sessions(Unkept())  # type: ignore[arg-type]
        stream = a.call("POST", CHAT, {**ASK, "stream": True}, MINE)
        await stream.until(2)
        home.held.clear()
        stop = await a.ask("POST", "/v1/stop", b"", MINE)
        assert (stop.status, set(stop.json())) == (500, {"error"})
        home.held.set()
        await stream.end()
        await a.close()

    run(story())


def test_b10_who_reads_slowly_is_stopped_behind_its_back(tmp_path: Path) -> None:
    said = 0

    async def chatter(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
        nonlocal said
        yield [Started("m")]
        while True:
            said += 1
            yield [TextDelta("x")]

    async def story(a: House) -> None:
        slow = a.call("POST", CHAT, {**ASK, "stream": True}, MINE)
        slow.reading.clear()
        await until(lambda: said > 1)
        await stopped(a)
        assert (a.running(), said) == (0, 2)  # a batch ahead, and no further
        slow.reading.set()
        assert set(answer((await slow.end()).body)) == {"x"}

    live(tmp_path, story, Home(chatter))


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_ends_its_own_generation(tmp_path: Path, stream: bool) -> None:
    async def story(a: House) -> None:
        leaving, staying = (a.call("POST", CHAT, {**ASK, "stream": stream}, MINE) for _ in range(2))
        await until(lambda: a.running() == 2)
        leaving.leave()
        await leaving.end()
        assert a.running() == 1
        await stopped(a)
        assert (await staying.end()).status == 200
        sessions = a.gateway.sessions
        assert sessions is not None
        assert not sessions._running

    live(tmp_path, story, Talking(2))


def test_b10_a_stop_needs_a_session_with_a_model(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        for headers in ((), MINE):
            call = await a.ask("POST", "/v1/stop", b"", headers)
            assert (call.status, set(call.json())) == (400, {"error"})

    live(tmp_path, story)


# Loads


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


def event_of(one: Heard) -> Any:
    assert one.event == "message"
    return json.loads(one.data)


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


def test_a_generation_ends_as_its_grammar_has_it_wherever_it_is_stopped() -> None:
    """Stopped before its first word, between any two, or behind its last: what is read is a whole answer."""

    async def story() -> None:
        for place in range(5):
            sessions = Sessions(Unkept())  # type: ignore[arg-type]
            read: list[Event] = []
            with sessions.generating(SessionId("", "x")) as generation:
                if place == 0:
                    generation.stop()
                async for batch in generation.read(told()):
                    read.extend(batch)
                    if len(read) == place:
                        generation.stop()
            assert isinstance(read[0], Started)
            assert [type(event) for event in read].count(Finished) == 1
            assert isinstance(read[-1], Finished)
            assert generation.ended.is_set()
            assert not await sessions.stop(SessionId("", "x"))

    async def told() -> AsyncGenerator[Sequence[Event], None]:
        for event in HELLO:
            yield [event]
            await asyncio.sleep(0)

    run(story())

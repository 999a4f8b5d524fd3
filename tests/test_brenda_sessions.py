"""Brenda's sessions in memory: whose they are, and what they keep."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from canonical.errors import BackendError, StorageFailed
from canonical.events import Started, TextDelta
from gateway.sessions import SessionId, Sessions
from gateway.settings import Config, Listener, Mounted
from gateway.settings import Sessions as Section
from gateway.store import Session
from tests.asgi import House
from tests.eventsource import Heard, answer, heard
from tests.houses import HELLO, Home, Talks, tells
from tests.in_sessions import (
    ALONE,
    ASK,
    CHAT,
    KEYS,
    MINE,
    NAMELESS,
    SHARED,
    YOURS,
    Unkept,
    event_of,
    id_of,
    live,
    state,
)
from tests.responding import ANN, BEN
from tests.virtual_time import run

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


@pytest.mark.parametrize(
    "id", [b"{3F2504E0-4F89-11D3-9A0C-0305E82C3301}", b"zoe@example.org:2", b"aGVsbG8_-w==", b"x" * 128]
)
def test_b8_a_client_may_choose_its_id(tmp_path: Path, id: bytes) -> None:
    async def story(a: House) -> None:
        assert id_of(await a.ask("POST", "/v1/models/a/load", b"", [(b"x-session-id", id)])) == id
        told = (await a.ask("GET", "/v1/session", headers=[(b"x-session-id", id)])).json()
        assert told == {"session_id": id.decode(), "current_model": "a", "has_model_loaded": True}

    live(tmp_path, story)


def test_b8_two_ids_are_none(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        assert (await a.ask("GET", "/v1/session", headers=[*MINE, *YOURS])).status == 400
        assert (await a.ask("GET", "/v1/session", headers=[*MINE, *MINE])).status == 200

    live(tmp_path, story)


def test_b8_where_openai_alone_answers_there_is_no_session(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        openai = await a.ask("POST", CHAT, ASK)
        assert b"x-session-id" not in openai.headers
        assert openai.json()["object"] == "chat.completion"
        first = await a.ask("GET", "/v1/models")  # which may be the first request of a client of Brenda's
        assert len(id_of(first)) == 32
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

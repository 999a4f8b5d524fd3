"""Conversations that are kept: they begin, go on one message after another, and are read again."""

from __future__ import annotations

import asyncio
import json

import pytest

from gateway import conversations
from gateway.settings import Config, Defaults, Key, ModelEntry
from tests.asgi import House
from tests.calling import until
from tests.conversing import ANN, BEN, Parrot, house, in_state, lived, say, saying, shape, start, told
from tests.stored import Place

# Start, say, read


def test_c3_a_second_start_with_the_same_id_is_refused(file: Place) -> None:
    async def story(house: House) -> None:
        first = await start(house)
        assert (first.status, first.json()) == (200, {"message": "Conversation c started", "id": "c", "messages": []})
        await say(house, "hello")
        again = await start(house)
        assert (again.status, again.json()) == (400, {"detail": "Conversation ID already exists"})
        assert shape(await told(house)) == [("hello", "answered"), ("hello!", "complete")]
        missing = await house.ask("POST", "/api/conversation/start")
        assert missing.status == 422
        assert missing.json()["detail"][0]["loc"] == ["query", "conv_id"]

    lived(file, Parrot(), story)


def test_c3_of_many_starts_at_once_one_succeeds(place: Place) -> None:
    async def story(one: House) -> None:
        other = house(Parrot(), place)
        calls = await asyncio.gather(*(start(which) for _ in range(5) for which in (one, other)))
        assert sorted(call.status for call in calls) == [200] + [400] * 9
        await other.close()

    lived(place, Parrot(), story)


def test_c4_the_model_is_told_what_was_said_before(file: Place) -> None:
    parrot = Parrot()

    async def story(house: House) -> None:
        await start(house)
        first = await say(house, "one")
        assert first.status == 200
        answer = first.json()
        assert answer.pop("timestamp").endswith("Z")
        expected = {"role": "assistant", "content": "one!", "generated_text": "one!", "state": "complete", "model": "a"}
        assert answer == expected
        await say(house, "two", model="a")
        cut = (await say(house, "cut three")).json()
        assert (cut["content"], cut["state"]) == ("cut three!", "cut")
        assert parrot.heard[1:] == [["one", "one!", "two"], ["one", "one!", "two", "two!", "cut three"]]
        assert any("/api/conversation/c/message a 200 2 tokens" in line for line in house.access())
        assert not any("one" in line or "two" in line for line in house.access())

    lived(file, parrot, story)


def test_c5_every_message_is_told_with_its_role_time_and_state(place: Place) -> None:
    async def story(house: House) -> None:
        await start(house, "%C3%A9t%C3%A9")
        assert await told(house, "été") == []
        odd = "\u0000 \u2028 \U0001f3f3 \r\n\"'"
        call = await say(house, odd, id="été")
        assert call.status == 200
        user, assistant = await told(house, "été")
        assert (user["role"], user["content"], user["state"]) == ("user", odd, "answered")
        assert assistant == {name: value for name, value in call.json().items() if name != "generated_text"}
        assert user["timestamp"] < assistant["timestamp"]
        assert (await house.ask("HEAD", "/api/conversation/été")).status == 200

    lived(place, Parrot(), story)


def test_c5_a_conversation_outlives_the_gateway(file: Place) -> None:
    async def story(one: House) -> None:
        await start(one)
        await say(one, "one")
        await one.store.close()  # type: ignore[union-attr]
        other = house(parrot, file)
        await say(other, "two")
        assert parrot.heard[-1] == ["one", "one!", "two"]
        assert await told(other) == await told(one)
        await other.close()

    parrot = Parrot()
    lived(file, parrot, story)


def test_a_conversation_may_be_called_start(file: Place) -> None:
    async def story(house: House) -> None:
        await start(house, "start")
        assert (await say(house, "hello", id="start")).status == 200
        assert shape(await told(house, "start")) == [("hello", "answered"), ("hello!", "complete")]

    lived(file, Parrot(), story)


def test_what_cannot_be_leaves_no_mark(file: Place) -> None:
    async def story(house: House) -> None:
        assert (await say(house, "hello")).json() == {"detail": "Conversation not found"}
        assert (await house.ask("GET", "/api/conversation/c")).status == 404
        await start(house)
        for call, status in [
            (await say(house, "hello", model="none"), 404),
            (await say(house, ""), 422),
            (await house.ask("POST", "/api/conversation/c/message", b"not JSON"), 422),
            (await say(house, "hello", id=".."), 422),
            (await say(house, "hello", id="a" * 200), 422),
        ]:
            assert call.status == status, call.body
            assert call.json().keys() == {"detail"}
        assert await told(house) == []

    lived(file, Parrot(), story)


def test_without_a_store_nothing_pretends_to_be_kept() -> None:
    async def life() -> None:
        one = house(Parrot(), None)
        assert (await start(one)).status == 507
        assert (await say(one, "hello")).status == 507
        await one.close()

    asyncio.run(life())


def test_a_conversation_of_another_key_is_not_found(place: Place) -> None:
    config = Config(keys=(Key(key="key-of-ann"), Key(key="key-of-ben")), defaults=Defaults(chat="a"))

    async def story(house: House) -> None:
        assert (await start(house, headers=ANN)).status == 200
        await say(house, "the secret of Ann", headers=ANN)
        assert (await house.ask("GET", "/api/conversation/c", headers=BEN)).status == 404
        assert (await say(house, "hello", headers=BEN)).status == 404
        assert (await start(house, headers=BEN)).status == 200, "the id tells that Ann has one"
        assert await told(house, headers=BEN) == []
        assert len(await told(house, headers=ANN)) == 2

    lived(place, Parrot(), story, config=config)


@pytest.mark.parametrize(
    ("models", "asked", "answers"),
    [(("other", "mistral"), None, "mistral"), (("other",), None, "other"), (("other", "mistral"), "other", "other")],
)
def test_c1_without_a_model_mistral_answers_where_it_is_here_and_else_the_default(
    file: Place, models: tuple[str, ...], asked: str | None, answers: str
) -> None:
    async def story(house: House) -> None:
        await start(house)
        named = {"model": asked} if asked else {}
        assert (await say(house, "hello", **named)).json()["model"] == answers
        stream = await house.ask("POST", "/generate", {"prompt": "hello", **named})
        assert {json.loads(line[6:])["model"] for line in stream.body.split(b"\n") if line} == {answers}

    entries = tuple(ModelEntry(id=name, backend="a", name="m") for name in models)
    lived(file, Parrot(), story, config=Config(defaults=Defaults(chat="other")), models=entries)


# One after another


def test_c4_two_messages_at_once_queue_up(place: Place) -> None:
    parrot = Parrot(free=False)

    async def story(house: House) -> None:
        await start(house)
        calls = []
        for prompt in ("one", "two", "three"):
            calls.append(saying(house, prompt))
            await in_state(house, prompt, "answering" if prompt == "one" else "waiting")
        assert shape(await told(house)) == [("one", "answering"), ("two", "waiting"), ("three", "waiting")]
        for prompt in ("three", "two"):
            parrot.let(prompt)
        parrot.let("one")
        for call in calls:
            await call.end()
        assert [call.json()["content"] for call in calls] == ["one!", "two!", "three!"]
        states = ("answered", "complete")
        everything = ["one", "one!", "two", "two!", "three", "three!"]
        assert shape(await told(house)) == [(text, states[text.endswith("!")]) for text in everything]
        assert parrot.heard[-1] == everything[:-1]
        assert parrot.most == 1

    lived(place, parrot, story)


def test_other_conversations_do_not_wait(file: Place) -> None:
    parrot = Parrot(free=False)

    async def story(house: House) -> None:
        await start(house)
        await start(house, "d")
        held = saying(house, "one")
        await in_state(house, "one", "answering")
        parrot.let("two")
        assert (await say(house, "two", id="d")).status == 200
        parrot.let("one")
        assert (await held.end()).status == 200

    lived(file, parrot, story)


def test_c4_two_gateways_take_turns_in_the_order_of_coming(place: Place) -> None:
    parrot = Parrot(free=False)

    async def story(one: House) -> None:
        other = house(parrot, place)
        await start(one)
        prompts = [f"prompt {number}" for number in range(8)]
        calls = []
        for number, prompt in enumerate(prompts):
            calls.append(saying((one, other)[number % 2], prompt))
            await in_state(one, prompt, "waiting" if number else "answering")
        for prompt in reversed(prompts):
            parrot.let(prompt)
        for call in calls:
            assert (await call.end()).status == 200
        assert parrot.most == 1
        assert [said[-1] for said in parrot.heard] == prompts
        assert parrot.heard[-1] == [text for prompt in prompts for text in (prompt, f"{prompt}!")][:-1]
        assert await told(one) == await told(other)
        await until(lambda: not other.gateway.running)
        await other.close()

    lived(place, parrot, story)


def test_a_queue_is_bounded(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "WAITING", 1)
    parrot = Parrot(free=False)

    async def story(house: House) -> None:
        await start(house)
        calls = [saying(house, "one")]
        await in_state(house, "one", "answering")
        calls.append(saying(house, "two"))
        refused = await say(house, "three")  # at once: the second is on its way to the store
        assert (refused.status, refused.headers[b"retry-after"]) == (503, b"5")
        for prompt in ("one", "two"):
            parrot.let(prompt)
        assert [(await call.end()).status for call in calls] == [200, 200]
        assert len(await told(house)) == 4

    lived(file, parrot, story)


def test_a_full_conversation_takes_no_more(file: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "MESSAGES", 4)
    monkeypatch.setattr(conversations, "ROOM", 1000)

    async def story(house: House) -> None:
        await start(house)
        assert (await say(house, "x" * 1001)).status == 400
        await say(house, "one")
        await say(house, "two")
        full = await say(house, "three")
        assert full.status == 400
        assert "room for 4 messages" in full.json()["detail"]
        assert len(await told(house)) == 4

    lived(file, Parrot(), story)

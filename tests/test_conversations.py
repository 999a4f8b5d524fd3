"""Conversations that are kept: order, failures, clients that leave, histories that are too long. C3, C4, C5."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, Literal

import pytest
from msgspec import structs

from canonical.errors import BackendError, InvalidRequest, StorageFailed
from canonical.events import Event, Finished, Started, TextDelta, Usage
from canonical.requests import Generate
from gateway import conversations
from gateway.settings import Config, Defaults, Key, Listener, ModelEntry
from tests.asgi import Call, Headers, House
from tests.calling import until
from tests.houses import Home
from tests.stored import Place

ANN: Headers = [(b"authorization", b"Bearer key-of-ann")]
BEN: Headers = [(b"authorization", b"Bearer key-of-ben")]
LISTENER = Listener(port=11434, dialects=("conversation",))


class Parrot:
    """A model that answers ``P!`` to the prompt ``P``, as soon as it may: each prompt is held until it is let go.

    ``fail ...`` fails in the middle. More than ``room`` messages are more than its context.
    """

    def __init__(self, *, free: bool = True, room: int = 10_000) -> None:
        self.heard: list[list[str]] = []
        self.running = self.most = 0
        self.gates: dict[str, asyncio.Event] = {}
        self.free = free
        self.room = room

    def let(self, prompt: str) -> None:
        self.gates.setdefault(prompt, asyncio.Event()).set()

    async def __call__(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        said = [message.text for message in request.messages]
        if len(said) > self.room:
            raise InvalidRequest("the context is full", code="context_length_exceeded")
        self.heard.append(said)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            yield [Started("m"), TextDelta(said[-1])]
            if not self.free:
                await self.gates.setdefault(said[-1], asyncio.Event()).wait()
            if said[-1].startswith("fail"):
                raise BackendError("the model broke")
            yield [TextDelta("!"), Finished("length" if said[-1].startswith("cut") else "stop", Usage(1, 2))]
        finally:
            self.running -= 1


def house(parrot: Parrot, place: Place | None, **more: Any) -> House:
    config = more.pop("config", Config(defaults=Defaults(chat="a")))
    data = None
    if place is not None:
        config, data = structs.replace(config, database=place.url), place.folder
    return House(listener=LISTENER, config=config, data=data, a=Home(parrot, slots=50), **more)


def lived(place: Place, parrot: Parrot, story: Callable[[House], Awaitable[None]], **more: Any) -> None:
    async def life() -> None:
        one = house(parrot, place, **more)
        try:
            await story(one)
            await until(lambda: not one.gateway.running)
            assert not one.gateway.conversations._lines  # type: ignore[union-attr]
        finally:
            await one.close()

    asyncio.run(life())


async def start(house: House, id: str = "c", headers: Headers = ()) -> Call:
    return await house.ask("POST", f"/api/conversation/start?conv_id={id}", headers=headers)


def saying(house: House, prompt: str, *, id: str = "c", headers: Headers = (), **more: Any) -> Call:
    return house.call("POST", f"/api/conversation/{id}/message", {"prompt": prompt, **more}, headers)


async def say(house: House, prompt: str, **more: Any) -> Call:
    return await saying(house, prompt, **more).end()


async def told(house: House, id: str = "c", headers: Headers = ()) -> list[dict[str, Any]]:
    call = await house.ask("GET", f"/api/conversation/{id}", headers=headers)
    assert call.status == 200, call.body
    body = call.json()
    assert body["id"] == id
    messages: list[dict[str, Any]] = body["messages"]
    return messages


def shape(messages: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(message["content"], message["state"]) for message in messages]


async def in_state(house: House, prompt: str, state: str) -> None:
    """Poll until a message is in a state."""
    while (prompt, state) not in shape(await told(house)):  # noqa: ASYNC110  no event tells of it
        await asyncio.sleep(0)


async def leave_while(house: House, verb: Literal["ask", "settle"]) -> None:
    """Say something, and leave while the store does what ``verb`` says."""
    store = house.store.conversations  # type: ignore[union-attr]
    does, asked, go = getattr(store, verb), asyncio.Event(), asyncio.Event()

    async def slow(*arguments: Any, **more: Any) -> Any:
        asked.set()
        await go.wait()
        return await does(*arguments, **more)

    setattr(store, verb, slow)
    call = saying(house, "one")
    await asked.wait()
    call.leave()
    await asyncio.sleep(0)
    go.set()
    await call.end()
    setattr(store, verb, does)


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
        await in_state(house, "two", "waiting")
        refused = await say(house, "three")
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


# What fails


def test_c4_a_failed_answer_leaves_the_message_marked_and_a_retry_does_not_double_it(place: Place) -> None:
    parrot = Parrot(free=False)
    parrot.let("fail here")

    async def story(house: House) -> None:
        await start(house)
        failed = await say(house, "fail here")
        assert (failed.status, failed.json()) == (502, {"detail": "the model broke"})
        (user,) = await told(house)
        assert (user["content"], user["state"], user["error"]) == ("fail here", "failed", "the model broke")
        again = await say(house, "fail here")
        assert again.status == 502
        assert shape(await told(house)) == [("fail here", "failed")]
        parrot.let("two")
        assert (await say(house, "two")).status == 200
        assert parrot.heard[-1] == ["two"], "the model is told what nobody answered"
        # Third time lucky; what came between stays where it is.
        held = saying(house, "three")
        await in_state(house, "three", "answering")
        held.leave()
        await held.end()
        await in_state(house, "three", "failed")
        await say(house, "two")
        parrot.let("three")
        assert (await say(house, "three")).status == 200
        assert [text for text, _ in shape(await told(house))] == [
            *("fail here", "two", "two!", "two", "two!", "three", "three!")
        ]

    lived(place, parrot, story)


def test_who_leaves_ends_the_answer_and_it_is_never_half_kept(place: Place) -> None:
    parrot = Parrot(free=False)

    async def story(house: House) -> None:
        await start(house)
        leaves, waits, stays = saying(house, "one"), None, None
        await in_state(house, "one", "answering")
        waits = saying(house, "two")
        await in_state(house, "two", "waiting")
        stays = saying(house, "three")
        await in_state(house, "three", "waiting")
        waits.leave()
        await waits.end()
        await in_state(house, "two", "failed")
        assert parrot.running == 1, "an answer ended for one who only waited behind it"
        leaves.leave()
        await leaves.end()
        parrot.let("three")
        assert (await stays.end()).status == 200
        messages = await told(house)
        assert shape(messages) == [("one", "failed"), ("two", "failed"), ("three", "answered"), ("three!", "complete")]
        assert messages[0]["error"] == messages[1]["error"] == conversations.UNANSWERED
        assert [said[-1] for said in parrot.heard] == ["one", "three"], "nobody is asked for one who has left"

    lived(place, parrot, story)


def test_who_leaves_while_the_answer_is_stored_finds_it_there(file: Place) -> None:
    parrot = Parrot()

    async def story(house: House) -> None:
        await start(house)
        await leave_while(house, "settle")
        assert shape(await told(house)) == [("one", "answered"), ("one!", "complete")]
        assert (await say(house, "two")).status == 200

    lived(file, parrot, story)


def test_who_leaves_while_the_message_is_stored_blocks_nobody(file: Place) -> None:
    parrot = Parrot()

    async def story(house: House) -> None:
        await start(house)
        await leave_while(house, "ask")
        assert shape(await told(house)) == [("one", "failed")]
        assert parrot.heard == []
        assert (await say(house, "two")).status == 200

    lived(file, parrot, story)


def test_a_full_disk_is_told_and_blocks_nobody(file: Place) -> None:
    parrot = Parrot()

    async def story(house: House) -> None:
        await start(house)
        database = house.store.database  # type: ignore[union-attr]
        write = database.write
        writes = 0

        async def full(work: Any) -> Any:
            nonlocal writes
            writes += 1
            if writes > 1:  # the message itself still finds room
                raise StorageFailed("this cannot be stored: database or disk is full")
            return await write(work)

        database.write = full  # type: ignore[method-assign]
        failed = await say(house, "one")
        assert (failed.status, "full" in failed.json()["detail"]) == (507, True)
        assert [state for _, state in shape(await told(house))] == ["failed"]
        assert (await say(house, "two")).status == 507
        database.write = write  # type: ignore[method-assign]
        assert (await say(house, "one")).status == 200
        assert shape(await told(house)) == [("one", "answered"), ("one!", "complete")]

    lived(file, parrot, story)


def test_a_gateway_that_shuts_down_marks_what_it_did_not_answer(file: Place) -> None:
    parrot = Parrot(free=False)

    async def story(one: House) -> None:
        await start(one)
        call = saying(one, "one")
        await in_state(one, "one", "answering")
        one.gateway.draining = True
        for task in set(one.gateway.running):
            task.cancel()
        assert (await call.end()).status == 503
        one.gateway.draining = False
        assert shape(await told(one)) == [("one", "failed")]

    lived(file, parrot, story)


# Longer than the context


def test_what_the_context_does_not_hold_is_left_out_and_told(file: Place) -> None:
    """A quarter goes at a time, so that many turns in a row begin alike."""
    parrot = Parrot(room=16)

    async def story(house: House) -> None:
        await start(house)
        answers = [(await say(house, f"prompt {number}")).json() for number in range(20)]
        assert [answer.get("left_out", 0) for answer in answers] == [
            *([0] * 8),
            *([4] * 2),
            *([8] * 2),
            *([12] * 2),
            *([16] * 2),
            *([20] * 2),
            *([24] * 2),
        ]
        for said in parrot.heard:
            assert len(said) <= 16
            assert said[0].startswith("prompt")
            assert not said[0].endswith("!")
        assert parrot.heard[-1][-2:] == ["prompt 18!", "prompt 19"]
        assert [one.get("left_out", 0) for one in (await told(house))[1::2]] == [
            answer.get("left_out", 0) for answer in answers
        ]

    lived(file, parrot, story)


def test_a_message_that_is_too_long_by_itself_is_a_400(file: Place) -> None:
    parrot = Parrot(room=0)

    async def story(house: House) -> None:
        await start(house)
        refused = await say(house, "one")
        assert (refused.status, refused.json()) == (400, {"detail": "the context is full"})
        parrot.room = 10
        assert (await say(house, "two")).status == 200
        assert shape(await told(house))[0] == ("one", "failed")

    lived(file, parrot, story)


def test_another_model_is_told_all_that_it_holds(file: Place) -> None:
    parrot = Parrot(room=4)
    entries = tuple(ModelEntry(id=name, backend="a", name="m") for name in ("small", "large"))

    async def story(house: House) -> None:
        await start(house)
        for number in range(4):
            await say(house, f"prompt {number}", model="small")
        parrot.room = 100
        assert "left_out" not in (await say(house, "last", model="large")).json()
        assert len(parrot.heard[-1]) == 9

    lived(file, parrot, story, models=entries)

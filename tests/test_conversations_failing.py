"""Messages without an answer: what failed, who left, and what the context does not hold."""

from __future__ import annotations

from typing import Any

from canonical.errors import StorageFailed
from gateway import conversations
from gateway.settings import ModelEntry
from tests.asgi import House
from tests.conversing import Parrot, in_state, leave_while, lived, say, saying, shape, start, told
from tests.stored import Place

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

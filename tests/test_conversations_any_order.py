"""Conversations in any order of events: two gateways on one store, people who speak, wait, leave and come back, models that fail."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from canonical.errors import BackendError
from canonical.events import Event, Finished, Started, TextDelta
from canonical.requests import Generate
from gateway.settings import Config, Defaults, Listener
from tests.asgi import Call, House
from tests.calling import until
from tests.houses import Home

CONVERSATIONS = ("c", "d")
LISTENER = Listener(port=11434, dialects=("conversation",))

says = st.tuples(
    st.just("say"), st.integers(0, 1), st.sampled_from(CONVERSATIONS), st.sampled_from(["one", "two", "three"])
)
goes = st.tuples(st.sampled_from(["answer", "fail"]), st.integers(0, 1))
leaves = st.tuples(st.just("leave"), st.integers(0, 5))
passes = st.tuples(st.just("pass"), st.integers(1, 30))
Step = tuple[Any, ...]


class Model:
    """Answers ``P`` with ``P!`` or fails, when it is told to. A prompt begins with the name of its conversation."""

    def __init__(self) -> None:
        self.open: list[tuple[str, asyncio.Future[bool]]] = []
        self.heard: list[list[str]] = []
        self.freed = False

    async def __call__(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        said = [message.text for message in request.messages]
        self.heard.append(said)
        one = (said[-1].split()[0], asyncio.get_running_loop().create_future())
        assert one[0] not in {conversation for conversation, _ in self.open}, "two answers at once to one conversation"
        self.open.append(one)
        try:
            yield [Started("m"), TextDelta(said[-1])]
            if not self.freed and not await one[1]:
                raise BackendError("the model broke")
            yield [TextDelta("!"), Finished("stop")]
        finally:
            self.open.remove(one)

    def end(self, which: int, *, well: bool) -> None:
        waiting = [future for _, future in self.open if not future.done()]
        if waiting:
            waiting[which % len(waiting)].set_result(well)


async def lived(steps: Sequence[Step], folder: Path) -> None:
    model = Model()
    config = Config(defaults=Defaults(chat="a"))
    houses = [House(listener=LISTENER, config=config, data=folder, a=Home(model, slots=50)) for _ in range(2)]
    for id in CONVERSATIONS:
        assert (await houses[0].ask("POST", f"/api/conversation/start?conv_id={id}")).status == 200
    calls: list[tuple[str, Call]] = []

    def say(house: int, id: str, prompt: str) -> Call:
        call = houses[house].call("POST", f"/api/conversation/{id}/message", {"prompt": f"{id} {prompt}"})
        calls.append((id, call))
        return call

    for step in steps:
        match step:
            case ("say", house, id, prompt):
                say(house, id, prompt)
            case ("leave", which) if calls:
                calls[which % len(calls)][1].leave()
            case ("pass", turns):
                for _ in range(turns):
                    await asyncio.sleep(0.0002)
            case ("answer" | "fail", which):
                model.end(which, well=step[0] == "answer")
    model.freed = True
    while not all(call.task.done() for _, call in calls):
        model.end(0, well=True)
        await asyncio.sleep(0.0005)
    answered = {
        id: [call.json()["content"] for one, call in calls if one == id and call.complete and call.status == 200]
        for id in CONVERSATIONS
    }
    for id in CONVERSATIONS:
        messages = (await houses[0].ask("GET", f"/api/conversation/{id}")).json()["messages"]
        assert messages == (await houses[1].ask("GET", f"/api/conversation/{id}")).json()["messages"]
        told: list[str] = []
        kept: list[str] = []
        for message, following in pairwise([*messages, {}]):
            if message["role"] == "user":
                assert message["state"] in {"answered", "failed"}
                assert bool(message.get("error")) is (message["state"] == "failed")
                if message["state"] == "answered":
                    assert following["content"] == message["content"] + "!", "an answer stands behind another's prompt"
                    assert [*told, message["content"]] in model.heard, "a model was told another history"
                    told += [message["content"], following["content"]]
            else:
                kept.append(message["content"])
        assert not any(answered[id].count(text) > kept.count(text) for text in answered[id]), (
            "an acknowledged answer is lost"
        )
        # Whoever says again what nobody answered takes its place.
        for prompt in {message["content"] for message in messages if message["state"] == "failed"}:
            assert (await say(1, id, prompt.removeprefix(f"{id} ")).end()).status == 200
        messages = (await houses[1].ask("GET", f"/api/conversation/{id}")).json()["messages"]
        assert [message["role"] for message in messages] == ["user", "assistant"] * (len(messages) // 2)
    for house in houses:
        await until(lambda house=house: not house.gateway.running)  # type: ignore[misc]
        assert not house.gateway.conversations._lines  # type: ignore[union-attr]
        await house.close()


@settings(max_examples=12)
@given(st.lists(says | says | goes | leaves | passes, max_size=25))
def test_c4_no_order_of_events_loses_crosses_or_doubles_anything(steps: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(lived(steps, Path(folder)))

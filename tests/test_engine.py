"""The engine: checked events, stops, fallbacks, the stopwatch, refusals; models are small classes with a story."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from backends.base import Need
from backends.echo import EchoBackend, EchoSettings
from canonical.errors import BackendError, BackendTimeout, BackendUnavailable, Busy, InvalidRequest, Unsupported
from canonical.events import Event, Finished, Started, TextDelta, Timings, ToolCallDelta, Usage, fold
from canonical.media import Blob
from canonical.messages import Image, Message, Text
from canonical.models import Capability
from canonical.progress import Progress
from canonical.requests import Embed, Generate, LoadOptions, Origin, Prompt, Tool
from gateway.engine import Engine
from gateway.settings import Config, Defaults, Limits, ModelEntry, Settled
from tests.houses import HELLO, Home, settled, tells, waits
from tests.virtual_time import run

CHAT = Generate(model="a", messages=(Message("user", (Text("hi"),)),))


def clock() -> Callable[[], int]:
    """Each look at it is a microsecond later."""
    ticks: Iterator[int] = iter(range(0, 10**9, 1000))
    return lambda: next(ticks)


def engine(config: Config | None = None, models: Sequence[ModelEntry] = (), **homes: Home) -> Engine:
    return Engine(settled(config, models, **homes), clock=clock())


async def collect(stream: AsyncGenerator[Sequence[Event], None]) -> list[Event]:
    return [event async for batch in stream for event in batch]


def ends_of(home: Home) -> tuple[int, int]:
    return home.model.stopped, home.model.finished


class Weighed(Home):
    """A home whose model takes memory of this machine."""

    async def need(self, name: str, options: LoadOptions) -> Need:
        return Need(ram=10, vram=20)


async def collect_steps(steps: AsyncGenerator[Progress, None]) -> list[Progress]:
    return [step async for step in steps]


async def leases(house: Engine) -> int:
    return sum(resident.running for resident in house._pool.residents())


def test_events_pass_unchanged_and_the_slot_is_free_again():
    async def whole() -> None:
        house = engine(a=Home(tells(*[[event] for event in HELLO])))
        events = await collect(house.generate(CHAT))
        assert events[:-1] == HELLO[:-1]
        assert fold(events).text == "Hello"
        assert await leases(house) == 0
        await house.close()

    run(whole())


WRONG: list[list[Sequence[Event]]] = [
    [],
    [[]],
    [[TextDelta("x")]],
    [[Started("m"), Started("m")]],
    [[Started("m")], [TextDelta("x")]],
    [HELLO, [TextDelta("more")]],
    [HELLO, HELLO[-1:]],
    [[Finished("stop")]],
    [[Started("m"), ToolCallDelta(1, "id", "f", "{}"), Finished("stop")]],
    [[Started("m"), ToolCallDelta(0, "", "", "{}"), Finished("stop")]],
]


@pytest.mark.parametrize("batches", WRONG, ids=str)
def test_what_the_grammar_forbids_is_a_backend_error_and_frees_the_slot(batches):
    async def whole() -> None:
        house = engine(a=Home(tells(*batches)))
        with pytest.raises(BackendError):
            await collect(house.generate(CHAT))
        assert await leases(house) == 0
        await house.close()

    run(whole())


def test_empty_batches_are_skipped():
    async def whole() -> None:
        house = engine(a=Home(tells([], HELLO[:2], [], HELLO[2:], [])))
        assert fold(await collect(house.generate(CHAT))).text == "Hello"
        await house.close()

    run(whole())


@pytest.mark.parametrize("after", range(4))
def test_closing_the_generator_stops_the_model_and_frees_the_slot(after):
    async def whole() -> None:
        home = Home(tells(*[[event] for event in HELLO]))
        house = engine(a=home)
        stream = house.generate(CHAT)
        for _ in range(after):
            await anext(stream)
        await stream.aclose()
        assert ends_of(home) == (1 if after else 0, 0)
        assert await leases(house) == 0
        await house.close()

    run(whole())


def test_cancelling_the_caller_stops_the_model_and_frees_the_slot():
    async def whole() -> None:
        async def endless(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
            yield HELLO[:1]
            await asyncio.get_running_loop().create_future()

        home = Home(endless)
        house = engine(a=home)
        caller = asyncio.ensure_future(collect(house.generate(CHAT)))
        await asyncio.sleep(1)
        assert await leases(house) == 1
        caller.cancel()
        await asyncio.wait([caller])
        assert caller.cancelled()
        assert ends_of(home) == (1, 0)
        assert await leases(house) == 0
        await house.close()

    run(whole())


def test_a_caller_that_leaves_the_queue_reaches_no_model():
    async def whole() -> None:
        async def slow(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
            await asyncio.sleep(10)
            yield HELLO

        home = Home(slow)
        house = engine(a=home)
        first = asyncio.ensure_future(collect(house.generate(CHAT)))
        await asyncio.sleep(1)
        second = asyncio.ensure_future(collect(house.generate(CHAT)))
        await asyncio.sleep(1)
        second.cancel()
        assert fold(await first).text == "Hello"
        assert len(home.model.requests) == 1
        await house.close()

    run(whole())


# Fallbacks

FALLING = (
    ModelEntry(id="a", backend="a", name="m", fallbacks=("b", "c")),
    ModelEntry(id="b", backend="b", name="m"),
    ModelEntry(id="c", backend="c", name="m"),
)


async def _down() -> None:
    raise BackendUnavailable("refused")


def test_who_cannot_be_reached_is_replaced_in_order():
    async def whole() -> None:
        a = Home(tells(BackendUnavailable("no")), slots=0)
        b = Home(tells(), on_open=_down)
        c = Home(tells(HELLO))
        house = engine(None, FALLING, a=a, b=b, c=c)
        assert fold(await collect(house.generate(CHAT))).text == "Hello"
        assert (a.opened, b.opened, c.opened) == (1, 1, 1)
        assert await leases(house) == 0
        # A model that is named itself has no fallbacks but its own.
        with pytest.raises(BackendUnavailable, match="refused"):
            await collect(house.generate(structs.replace(CHAT, model="b")))
        await house.close()

    run(whole())


def test_when_all_are_down_the_last_says_so():
    async def whole() -> None:
        homes = {name: Home(tells(BackendUnavailable(name))) for name in "abc"}
        house = engine(None, FALLING, **homes)
        with pytest.raises(BackendUnavailable, match="c"):
            await collect(house.generate(CHAT))
        await house.close()

    run(whole())


@pytest.mark.parametrize("failure", [BackendError("x"), BackendTimeout("x"), Busy("x"), InvalidRequest("x")])
def test_what_may_have_begun_is_never_repeated_elsewhere(failure):
    async def whole() -> None:
        b = Home(tells(HELLO))
        house = engine(None, FALLING, a=Home(tells(failure)), b=b, c=Home(tells(HELLO)))
        with pytest.raises(type(failure)):
            await collect(house.generate(CHAT))
        assert b.opened == 0
        await house.close()

    run(whole())


def test_after_the_first_event_there_is_no_fallback():
    async def whole() -> None:
        b = Home(tells(HELLO))
        house = engine(None, FALLING, a=Home(tells(HELLO[:1], BackendUnavailable("x"))), b=b, c=Home(tells(HELLO)))
        with pytest.raises(BackendUnavailable):
            await collect(house.generate(CHAT))
        assert b.opened == 0
        await house.close()

    run(whole())


# Stopwatch


def timings_of(*batches: Sequence[Event]) -> Timings | None:
    async def whole() -> Timings | None:
        house = engine(a=Home(tells(*batches)))
        events = await collect(house.generate(CHAT))
        await house.close()
        return fold(events).timings

    return run(whole())


def test_the_stopwatch_fills_what_the_backend_did_not_measure():
    measured = timings_of(*[[event] for event in HELLO])
    assert measured is not None
    assert None not in (measured.total, measured.load, measured.prompt, measured.eval)
    assert measured.total == measured.load + measured.prompt + measured.eval > 0


def test_the_backends_own_measures_stay():
    told = Timings(prompt=7, eval=8)
    measured = timings_of(HELLO[:3], [Finished("stop", Usage(3, 2), told)])
    assert measured is not None
    assert (measured.prompt, measured.eval) == (7, 8)
    assert measured.total is not None
    assert measured.total > 0


def test_an_answer_that_came_whole_has_no_invented_parts():
    measured = timings_of(HELLO)
    assert measured is not None
    assert (measured.prompt, measured.eval) == (None, None)
    assert measured.total is not None


# Refusals

TOOL = Tool(name="f")
REFUSED = [
    (structs.replace(CHAT, tools=(TOOL,)), {"chat"}, "a does not support tools"),
    (
        structs.replace(CHAT, messages=(Message("user", (Image(Blob(b"", "image/png")),)),)),
        {"chat"},
        "a does not support images",
    ),
    (CHAT, {"embed"}, '"a" does not support chat'),
    (Generate(model="a", prompt=Prompt(text="x")), {"embed"}, '"a" does not support generate'),
    (Generate(model="a", prompt=Prompt(text="x", suffix="y")), {"chat", "complete"}, '"a" does not support insert'),
    (structs.replace(CHAT, think="high", origin=Origin("ollama")), {"chat"}, '"a" does not support thinking'),
]


@pytest.mark.parametrize(("request_", "able", "words"), REFUSED, ids=[words for _, _, words in REFUSED])
@pytest.mark.parametrize("listed", [False, True])
def test_what_a_model_cannot_do_is_refused_before_it_runs(request_, able, words, listed):
    async def whole() -> None:
        home = Home(tells(HELLO), abilities=[Capability(name) for name in able])
        house = engine(a=home)
        if listed:  # the catalog knows, and the model is not even loaded
            await house.models()
        with pytest.raises(Unsupported, match=words):
            await collect(house.generate(request_))
        assert home.opened == (0 if listed else 1)
        assert home.model.requests == []
        assert await leases(house) == 0
        await house.close()

    run(whole())


@pytest.mark.parametrize(
    "request_",
    [
        structs.replace(CHAT, think="off", origin=Origin("ollama")),
        structs.replace(CHAT, think="high", origin=Origin("openai")),
    ],
)
def test_thinking_is_refused_to_ollamas_clients_alone(request_):
    async def whole() -> None:
        house = engine(a=Home(tells(HELLO), abilities=[Capability.CHAT]))
        assert fold(await collect(house.generate(request_))).text == "Hello"
        await house.close()

    run(whole())


def test_a_model_without_the_method_is_refused_in_the_same_words():
    async def whole() -> None:
        house = engine(talks=Home(tells(HELLO)), vectors=Home())
        with pytest.raises(Unsupported, match='"vectors" does not support chat'):
            await collect(house.generate(structs.replace(CHAT, model="vectors")))
        with pytest.raises(Unsupported, match='"vectors" does not support generate'):
            await collect(house.generate(Generate(model="vectors", prompt=Prompt(text="x"))))
        with pytest.raises(Unsupported, match='"talks" does not support embed'):
            await house.embed(Embed(model="talks", inputs=("x",)))
        await house.close()

    run(whole())


def test_limits_are_checked_before_any_model_is_asked():
    async def whole() -> None:
        home = Home(tells(HELLO))
        house = engine(a=home)
        with pytest.raises(InvalidRequest, match="messages"):
            await collect(house.generate(structs.replace(CHAT, messages=CHAT.messages * 10_001)))
        assert home.opened == 0
        await house.close()

    run(whole())


# Embeddings, loads, lists


def test_embeddings_bear_the_requested_name_and_without_inputs_only_load():
    async def whole() -> None:
        home = Home()
        house = engine(Config(defaults=Defaults(embed="v")), v=home)
        answer = await house.embed(Embed(model="V:latest", inputs=("x", "y")))
        assert (answer.model, len(answer.vectors), answer.prompt_tokens) == ("V:latest", 2, 1)
        assert answer.total > 0
        empty = await house.embed(Embed(model="v", inputs=()))
        assert empty.vectors == ()
        unnamed = await house.embed(Embed(model="", inputs=()))
        assert unnamed.model == "v"
        assert len(home.model.asked) == 1
        assert home.opened == 1
        assert await leases(house) == 0
        await house.close()
        assert home.closed

    run(whole())


def test_an_embedding_that_fails_frees_the_slot():
    async def whole() -> None:
        home = Home()

        async def broken(_: Embed) -> None:
            raise BackendError("no")

        home.model.embed = broken
        house = engine(v=home)
        with pytest.raises(BackendError):
            await house.embed(Embed(model="v", inputs=("x",)))
        assert await leases(house) == 0
        await house.close()

    run(whole())


def test_load_unload_and_the_list_of_loaded_models():
    async def whole() -> None:
        house = engine(Config(keep_alive="5m"), a=Home(tells(HELLO)), remote=Home(tells(HELLO), slots=0))
        assert house.loaded() == []
        await house.loads.load("a", None)
        await house.loads.load("remote", None)
        (row,) = house.loaded()  # a remote model holds none of our memory
        assert row.info.id == "a"
        assert row.expires is not None
        await house.loads.load("a", -1)
        assert house.loaded()[0].expires is None
        await house.loads.unload("A")
        assert house.loaded() == []
        await house.loads.load("a", 10)
        await asyncio.sleep(9)
        assert house.loaded()
        await asyncio.sleep(2)
        assert house.loaded() == []
        await house.close()

    run(whole())


def test_a_load_can_be_watched_and_seen_and_a_watcher_who_leaves_leaves_it_to_others():
    async def whole() -> None:
        home = Weighed(tells(HELLO), on_open=lambda: asyncio.sleep(10))
        home.info = structs.replace(home.info, context_length=4096)
        house = engine(a=home)
        await house.models()
        steps = house.loads.loading("a")
        watching = asyncio.ensure_future(collect_steps(steps))
        other = asyncio.ensure_future(house.loads.load("a"))
        await asyncio.sleep(5)
        (row,) = house.loaded()
        assert (row.info.id, row.size, row.size_vram, row.context_length) == ("a", 30, 20, 4096)
        watching.cancel()
        await other
        assert home.opened == 1
        assert await collect_steps(house.loads.loading("a")) == []
        await house.close()

    run(whole())


def test_a_model_that_was_replaced_on_disk_is_loaded_anew_and_answers_under_way_end_with_the_old_one():
    async def whole() -> None:
        home = Weighed(waits([Started("m")]), slots=4)
        house = engine(a=home)
        await house.models()
        answer = house.generate(CHAT)
        await anext(answer)
        old = home.model
        home.info = structs.replace(home.info, digest="b" * 64)
        home.model = Weighed(tells(HELLO), slots=4).model
        house._catalog._asked.clear()
        await house.models()
        assert fold(await collect(house.generate(CHAT))).text == "Hello"
        assert home.opened == 2
        assert not old.closed
        await answer.aclose()
        await asyncio.sleep(0.1)
        assert old.closed
        await house.close()

    run(whole())


def test_what_is_pinned_is_loaded_at_the_start_and_stays():
    async def whole() -> None:
        models = [ModelEntry(id="a", backend="a", name="m", pinned=True, keep_alive=0)]
        house = engine(Config(), models, a=Weighed(tells(HELLO)))
        house.begin()
        await asyncio.sleep(1000)
        (row,) = house.loaded()
        assert row.expires is None
        await house.close()

    run(whole())


def test_keep_alive_of_the_entry_the_request_and_the_whole():
    async def whole() -> None:
        models = [ModelEntry(id="a", backend="a", name="m", keep_alive="2s"), ModelEntry(id="b", backend="b", name="m")]
        house = engine(Config(keep_alive=100), models, a=Home(tells(HELLO)), b=Home(tells(HELLO)))
        await collect(house.generate(CHAT))
        await collect(house.generate(structs.replace(CHAT, model="b")))
        await asyncio.sleep(3)
        assert [row.info.id for row in house.loaded()] == ["b"]
        await collect(house.generate(structs.replace(CHAT, model="b", keep_alive=0)))
        await asyncio.sleep(0.1)
        assert house.loaded() == []
        await house.close()

    run(whole())


def test_a_catalogs_model_is_found_without_an_entry_and_details_bear_its_public_name():
    async def whole() -> None:
        house = Engine(Settled(config=Config(), models=(), backends={"a": Home(tells(HELLO))}), clock=clock())
        assert fold(await collect(house.generate(structs.replace(CHAT, model="m")))).text == "Hello"
        assert fold(await collect(house.generate(structs.replace(CHAT, model="a/m")))).text == "Hello"
        assert (await house.details("M:latest")).info.id == "m"
        assert (await house.model("a/m")).backend == "a"
        assert [row.id for row in await house.models()] == ["m"]
        await house.close()

    run(whole())


def test_a_full_queue_is_busy_at_once():
    async def whole() -> None:
        async def slow(_: Generate) -> AsyncGenerator[Sequence[Event], None]:
            await asyncio.sleep(10)
            yield HELLO

        house = engine(Config(limits=Limits(waiting=1)), a=Home(slow))
        running = [asyncio.ensure_future(collect(house.generate(CHAT))) for _ in range(2)]
        await asyncio.sleep(1)
        with pytest.raises(Busy):
            await collect(house.generate(CHAT))
        for each in running:
            assert fold(await each).text == "Hello"
        await house.close()

    run(whole())


@given(st.text(max_size=200))
def test_the_echo_backend_says_any_text_again(text):
    async def whole() -> None:
        echo = EchoBackend("demo", EchoSettings(), Path())
        house = Engine(Settled(config=Config(), models=(), backends={"demo": echo}))
        request = Generate(model="echo", messages=(Message("user", (Text(text),)),))
        assert fold(await collect(house.generate(request))).text == text
        await house.close()

    run(whole())

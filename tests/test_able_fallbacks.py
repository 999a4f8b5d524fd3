"""A model that is known not to do what is asked gives way to a fallback that does; without one the caller is told why."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec import structs

from backends.ollama import OllamaBackend, OllamaSettings
from canonical.errors import BackendUnavailable, Unsupported
from canonical.events import fold
from canonical.features import Feature
from canonical.messages import Message, Text
from canonical.models import Capability
from canonical.report import HONOURED, Honours, Report
from canonical.requests import Generate, Origin, Output, Prompt, Tool, Vocabulary
from gateway.engine import Engine
from gateway.router import candidates, directory
from gateway.settings import Config, ModelEntry, Settled
from tests.houses import HELLO, Home, settled, tells
from tests.test_engine import collect, leases
from tests.virtual_time import run

CHAT = Generate(model="a", messages=(Message("user", (Text("hi"),)),))
TOOLS = structs.replace(CHAT, tools=(Tool(name="f"),))
JSON = structs.replace(
    CHAT,
    output=Output("json"),
    origin=Origin(
        "openai",
        b'{"model":"a","response_format":{}}',
        Vocabulary({"json": ("response_format",)}, frozenset({"model"})),
    ),
)
CAN_CHAT, CAN_CALL = [Capability.CHAT], [Capability.CHAT, Capability.TOOLS]
ENTRIES = (
    ModelEntry(id="a", backend="a", name="m", fallbacks=("b", "c")),
    ModelEntry(id="b", backend="b", name="m"),
    ModelEntry(id="c", backend="c", name="m"),
)


def house(
    abilities: Sequence[Sequence[Capability]], *, models: Sequence[ModelEntry] = ENTRIES
) -> tuple[Engine, list[Home]]:
    homes = [Home(tells(HELLO), abilities=each) for each in abilities]
    return Engine(settled(None, models, **dict(zip("abc", homes, strict=False)))), homes


@pytest.mark.parametrize("listed", [False, True])
def test_the_first_able_fallback_answers(listed):
    async def whole() -> None:
        engine, homes = house([CAN_CHAT, CAN_CHAT, CAN_CALL])
        if listed:
            await engine.models()
        assert fold(await collect(engine.generate(TOOLS))).text == "Hello"
        assert [len(home.model.requests) for home in homes] == [0, 0, 1]
        # What the catalog knows is not even loaded.
        assert [home.opened for home in homes] == ([0, 0, 1] if listed else [1, 1, 1])
        assert fold(await collect(engine.generate(CHAT))).text == "Hello"
        assert len(homes[0].model.requests) == 1
        assert await leases(engine) == 0
        await engine.close()

    run(whole())


@pytest.mark.parametrize("listed", [False, True])
def test_when_none_is_able_the_words_are_about_the_model_that_was_asked_for(listed):
    async def whole() -> None:
        engine, homes = house([CAN_CHAT, [Capability.EMBED], CAN_CHAT])
        if listed:
            await engine.models()
        with pytest.raises(Unsupported, match="a does not support tools"):
            await collect(engine.generate(TOOLS))
        assert [len(home.model.requests) for home in homes] == [0, 0, 0]
        assert await leases(engine) == 0
        await engine.close()

    run(whole())


def test_who_cannot_be_reached_matters_more_than_who_is_not_able():
    """The same request may succeed later."""

    async def whole() -> None:
        engine, homes = house([CAN_CHAT, CAN_CALL, CAN_CHAT])
        homes[1].model.story = tells(BackendUnavailable("b is down"))
        with pytest.raises(Unsupported, match="a does not support tools"):
            await collect(engine.generate(TOOLS))
        engine2, homes = house([CAN_CHAT, CAN_CHAT, CAN_CALL])
        homes[2].model.story = tells(BackendUnavailable("c is down"))
        with pytest.raises(BackendUnavailable, match="c is down"):
            await collect(engine2.generate(TOOLS))
        await engine.close()
        await engine2.close()

    run(whole())


def test_what_the_server_was_found_to_refuse_is_said_before_it_is_asked():
    async def whole() -> None:
        engine, homes = house([CAN_CHAT], models=[structs.replace(ENTRIES[0], fallbacks=())])
        homes[0].model.honours = Honours({Feature.JSON: HONOURED}, refuses={Feature.JSON: "json_object is unknown"})
        with pytest.raises(Unsupported, match=r"'response_format'.*json_object is unknown") as caught:
            await collect(engine.generate(JSON))
        assert (caught.value.param, caught.value.code) == ("response_format", "unsupported_parameter")
        assert homes[0].model.requests == []
        assert fold(await collect(engine.generate(CHAT))).text == "Hello"
        await engine.close()

    run(whole())


def test_what_is_refused_or_strictly_dropped_goes_to_a_fallback_that_has_it():
    async def whole() -> None:
        told: list[Report] = []
        for honours, strict in [(Honours(refuses={Feature.JSON: "no"}), False), (Honours(), True)]:
            engine, homes = house([CAN_CHAT, CAN_CHAT, CAN_CHAT])
            homes[0].model.honours = honours
            homes[1].model.honours = Honours({Feature.JSON: HONOURED})
            stream = engine.generate(JSON, strict=strict, tell=told.append)
            assert fold(await collect(stream)).text == "Hello"
            assert [len(home.model.requests) for home in homes] == [0, 1, 0]
            assert told.pop().honoured == ("response_format",)
            assert told == []
            await engine.close()

    run(whole())


def test_a_backend_without_the_words_gives_way_too():
    """An Anthropic or Ollama backend refuses some things while it writes the request: nothing was sent."""

    async def whole() -> None:
        dumb = OllamaBackend("a", OllamaSettings(url="http://127.0.0.1:9", models=("m",)))
        able = Home(tells(HELLO))
        entries = (
            ModelEntry(id="a", backend="a", name="m", fallbacks=("b",)),
            ModelEntry(id="b", backend="b", name="m"),
        )
        engine = Engine(Settled(config=Config(), models=entries, backends={"a": dumb, "b": able}))
        tokens = Generate(model="a", prompt=Prompt(tokens=(1, 2, 3)))
        assert fold(await collect(engine.generate(tokens))).text == "Hello"
        alone = structs.replace(tokens, model="a/m")
        assert fold(await collect(engine.generate(alone))).text == "Hello"  # the long name of the same entry
        assert len(able.model.requests) == 2
        await engine.close()

    run(whole())


def test_candidates_of_the_catalog():
    catalog = {
        home: [Home(tells(HELLO), abilities=able).info] for home, able in zip("ac", [CAN_CHAT, CAN_CALL], strict=True)
    }
    names = directory(ENTRIES, catalog)
    needs = frozenset(CAN_CALL)
    found = candidates("A:latest", needs, names, Config().defaults)
    assert [route.id for route in found] == ["b", "c"]  # of b nobody knows what it can do
    assert [route.id for route in candidates("a", frozenset(CAN_CHAT), names, Config().defaults)] == ["a", "b", "c"]

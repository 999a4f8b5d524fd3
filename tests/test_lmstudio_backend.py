"""LM Studio's models listed, asked, downloaded and shown; its oddities, read back in our words."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from backends.base import Hosts, Manages, Pulls, Relays
from backends.lmstudio import LMStudioBackend
from canonical.errors import BackendError, GatewayError, InvalidRequest, ModelNotFound, NotImplementedHere, Unsupported
from canonical.events import Usage
from canonical.features import Feature
from canonical.models import Capability
from canonical.origin import Origin
from canonical.progress import Progress
from canonical.requests import Embed, Generate, Output, Prompt, Tool, ToolChoice
from gateway.config import ConfigError, settle
from tests.calling import until
from tests.lmstudio.server import running
from tests.lmstudio.studio import Fault, Studio
from tests.studios import TOKEN, answer, ask, backend, opened, run

CHAT = "POST /v1/chat/completions"


@pytest.fixture
def studio() -> Iterator[Studio]:
    with running() as (studio, _):
        yield studio


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.lmstudio.backend.LOOK", 0.001)


# What it has


def test_h6_the_catalog_tells_what_models_are_and_can(studio: Studio) -> None:
    async def scenario() -> None:
        rows = {info.id: info for info in await backend(studio).models()}
        pip, big, embed = rows["pip"], rows["acme/big"], rows["embed"]
        chat = {Capability.CHAT, Capability.COMPLETE, Capability.TOOLS}
        assert pip.capabilities == chat | {Capability.VISION, Capability.REASONING}
        assert big.capabilities == chat  # one that was not trained for tools has them in its prompt
        assert embed.capabilities == {Capability.EMBED}
        assert (pip.backend, pip.family, pip.parameter_size, pip.quantization) == ("studio", "llama", "0.7M", "F16")
        assert (pip.size, pip.format, pip.context_length, pip.owner) == (1_400_000, "gguf", 8192, "acme")

    run(scenario())


def test_older_versions_are_asked_for_the_lists_that_they_have(studio: Studio) -> None:
    """Whether there is a route is told by the body: a status of 200 says nothing."""

    async def scenario() -> None:
        home = backend(studio)
        for surface in ("/api/v1", "/api/v0", "/v1"):
            studio.surfaces = frozenset({surface})
            rows = {info.id: info for info in await home.models()}
            assert set(rows) == {"pip", "acme/big", "embed"}
            if surface != "/v1":
                assert Capability.VISION in rows["pip"].capabilities
                assert rows["embed"].capabilities == {Capability.EMBED}
                assert (rows["pip"].quantization, rows["pip"].context_length) == ("F16", 8192)
        studio.surfaces = frozenset({"/api/v0"})
        studio.keep(studio.rows["pip"], context=2048)
        (row,) = await home.others()
        assert (row.info.id, row.context_length) == ("pip", 2048)
        studio.surfaces = frozenset()
        with pytest.raises(BackendError, match="Unexpected endpoint"):
            await home.models()

    run(scenario())


def test_what_its_user_has_in_its_memory_is_told(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio)
        assert isinstance(home, Hosts)
        assert await home.others() == []
        studio.keep(studio.rows["pip"], id="mine", context=1024)
        model = await opened(home, "embed")
        (mine,) = await home.others()
        assert (mine.info.id, mine.context_length, mine.size, mine.info.backend) == ("mine", 1024, 1_400_000, "studio")
        await model.close()

    run(scenario())


def test_h2_whatever_is_in_its_memory_can_be_told_to_go(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio)
        for id in ("mine", "pip", "other"):
            studio.keep(studio.rows["pip"], id=id)
        assert await home.free("mine")
        assert set(studio.instances) == {"pip", "other"}
        assert await home.free("pip")  # that very instance, as it bears this name
        assert await home.free("pip")  # all of the model
        assert studio.instances == {}
        assert not await home.free("pip")
        assert not await home.free("nobody")
        model = await opened(home, "pip")
        assert not await home.free("pip")  # a handle has it
        assert set(studio.instances) == {"pip"}
        await model.close()

    run(scenario())


def test_h2_a_load_under_way_is_not_unloaded_from_under_its_holder(studio: Studio) -> None:
    async def scenario() -> None:
        studio.load_time = 0.1
        home = backend(studio)
        loading = asyncio.ensure_future(opened(home, "pip"))
        await until(lambda: bool(studio.asked("loadModel")))
        assert not await home.free("pip")
        model = await loading
        assert set(studio.instances) == {"pip"}
        await model.close()

    run(scenario())


def test_h2_what_it_has_let_go_of_is_not_told_as_there(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio)
        model = await opened(home, "pip")
        await home.others()
        assert not model.loaded().absent
        studio.instances.clear()
        await home.others()
        assert model.loaded().absent
        await answer(model)  # which loads it again
        await home.others()
        assert not model.loaded().absent
        await model.close()

    run(scenario())


def test_details_are_told_in_the_words_of_gguf(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio)
        details = await home.details("pip")
        assert details.info.id == "pip"
        told = {key: msgspec.json.decode(value) for key, value in details.metadata.items()}
        assert told == {
            "general.architecture": "llama",
            "general.size_label": "0.7M",
            "llama.context_length": 8192,
        }
        with pytest.raises(ModelNotFound):
            await home.details("nobody")

    run(scenario())


# What it is asked


def test_h6_answers_streamed_and_whole_with_their_counts(studio: Studio) -> None:
    async def scenario() -> None:
        model = await opened(backend(studio))
        for stream in (True, False):
            told = await answer(model, ask(stream=stream))
            assert told.text == "Hello from the stand-in"
            assert (told.reason, told.usage) == ("stop", Usage(10, 5))

        prompt = await answer(model, Generate(model="pip", prompt=Prompt(text="Once")))
        assert prompt.text == "Hello from the stand-in"
        assert studio.asked("POST /v1/completions")[-1]["max_tokens"] == -1
        await model.close()

    run(scenario())


@pytest.mark.parametrize("place", ["reasoning", "reasoning_content"])
def test_thoughts_are_found_where_each_version_has_them(studio: Studio, place: Any) -> None:
    async def scenario() -> None:
        studio.reasoning_in = place
        model = await opened(backend(studio))
        for stream in (True, False):
            told = await answer(model, ask("think", stream=stream))
            assert (told.reasoning, told.text) == ("hmm", "Hello from the stand-in")
        await model.close()

    run(scenario())


def test_what_it_refuses_or_passes_over_goes_in_words_that_it_knows(studio: Studio) -> None:
    tools = tuple(Tool(name=name, parameters=msgspec.Raw(b'{"type":"object"}'), strict=True) for name in ("f", "g"))

    async def scenario() -> None:
        model = await opened(backend(studio))
        told = await answer(model, ask(output=Output("json")))
        assert told.text == '{"ok": true}'
        form = studio.asked(CHAT)[-1]["response_format"]
        assert (form["type"], form["json_schema"]["schema"]) == ("json_schema", {"type": "object"})

        told = await answer(model, ask(tools=tools, tool_choice=ToolChoice("named", "g"), parallel_tool_calls=False))
        (call,) = told.tool_calls
        assert (call.name, msgspec.json.decode(call.arguments)) == ("g", {"a": 1, "b": 2})
        sent = studio.asked(CHAT)[-1]
        assert (sent["tool_choice"], len(sent["tools"])) == ("required", 1)
        assert "strict" not in sent["tools"][0]["function"]
        assert "parallel_tool_calls" not in sent
        with pytest.raises(Unsupported):
            model.generate(ask(tools=tools, tool_choice=ToolChoice("named", "h")))
        with pytest.raises(Unsupported):
            model.generate(ask(top_logprobs=2))
        await model.close()

    run(scenario())


def test_its_own_fields_travel_and_how_long_to_stay_does(studio: Studio) -> None:
    body = b'{"model":"pip","draft_model":"tiny","preset":"kind","chat_template":"x","user":"me"}'

    async def scenario() -> None:
        model = await opened(backend(studio))
        await answer(model, ask(origin=Origin("openai", body), keep_alive=90.5))
        sent = studio.asked(CHAT)[-1]
        assert (sent["draft_model"], sent["preset"], sent["ttl"]) == ("tiny", "kind", 91)
        assert not {"chat_template", "user"} & sent.keys()
        for keep_alive, ttl in ((0, 1), (-1, 365 * 24 * 3600)):
            await answer(model, ask(keep_alive=keep_alive))
            assert studio.asked(CHAT)[-1]["ttl"] == ttl
        await model.close()

    run(scenario())


def test_with_jit_nothing_is_loaded_before_its_time(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio, jit=True, ttl="5m")
        model = await opened(home)
        assert not studio.log
        assert (await answer(model)).text
        assert (studio.instances["pip"].ttl, studio.instances["pip"].jit) == (300, True)
        await model.close()
        assert "pip" in studio.instances

    run(scenario())


def test_vectors_are_numbers_of_unit_length_and_can_be_cut(studio: Studio) -> None:
    async def scenario() -> None:
        model = await opened(backend(studio), "embed")
        told = await model.embed(Embed(model="embed", inputs=("a", "three words here")))
        assert [math.isclose(math.hypot(*vector), 1.0) for vector in told.vectors] == [True, True]
        short = await model.embed(Embed(model="embed", inputs=("a",), dimensions=2))
        assert (len(short.vectors[0]), math.isclose(math.hypot(*short.vectors[0]), 1.0)) == (2, True)
        with pytest.raises(Unsupported):
            await model.embed(Embed(model="embed", inputs=((1, 2),)))
        studio.instances.clear()
        studio.jit = False  # thrown out a moment ago: it is loaded again
        assert (await model.embed(Embed(model="embed", inputs=("a",)))).vectors
        await model.close()

    run(scenario())


def test_who_leaves_ends_the_generation(studio: Studio) -> None:
    async def scenario() -> None:
        model = await opened(backend(studio))
        stream = model.generate(ask("slow"))
        async for _ in stream:
            break
        assert studio.running == 1
        await stream.aclose()
        async with asyncio.timeout(0.5):
            await until(lambda: not studio.running)
        await model.close()

    run(scenario())


FAULTS: dict[Fault, str] = {"drop": "backend", "partial": "has crashed", "empty": "finish", "stall": "stopped sending"}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_answer_that_fails_is_no_answer(studio: Studio, fault: Fault) -> None:
    async def scenario() -> None:
        model = await opened(backend(studio, timeouts={"idle": 0.2}))
        studio.fault = fault
        with pytest.raises(GatewayError, match=FAULTS[fault]) as caught:
            await answer(model)
        assert caught.value.status in {502, 504}
        studio.fault = ""
        assert (await answer(model)).text
        assert len(studio.asked(CHAT)) == 2  # nothing is asked again that may have begun
        await model.close()

    run(scenario())


def test_errors_that_are_bare_strings_are_read(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio)
        pieces = home.relay(
            "/chat/completions", ask(origin=Origin("openai", b'{"response_format":{"type":"json_object"}}')), "pip"
        )
        with pytest.raises(InvalidRequest, match="response_format"):
            await anext(pieces)
        studio.surfaces -= {"/v1"}
        model = await opened(home)
        with pytest.raises(BackendError, match="Unexpected endpoint"):
            await answer(model)
        await model.close()

    run(scenario())


def test_bytes_pass_as_they_are_where_that_is_wished(studio: Studio) -> None:
    async def scenario() -> None:
        home = backend(studio)
        assert isinstance(home, Relays)
        body = b'{"model":"x","messages":[{"role":"user","content":"hi"}],"stream":false,"anything":1}'
        (kind, told), *_ = [
            piece async for piece in home.relay("/chat/completions", ask(origin=Origin("openai", body)), "pip")
        ]
        assert kind == "application/json"
        assert msgspec.json.decode(told)["choices"][0]["message"]["content"] == "Hello from the stand-in"
        assert studio.asked(CHAT)[-1]["anything"] == 1

    run(scenario())


def test_the_wrong_token_is_the_operators_business(studio: Studio) -> None:
    async def scenario() -> None:
        studio.token = TOKEN
        wrong = TOKEN[:-1] + "x"
        for key in ("", wrong, "sk-other"):
            with pytest.raises(BackendError) as caught:
                await backend(studio, api_key=key).models()
            assert caught.value.code == "backend_credentials"
            assert wrong not in caught.value.message

    run(scenario())


def test_what_was_found_of_its_models_is_believed(studio: Studio, tmp_path: Path) -> None:
    found = """
openai:
  pip:
    capabilities: {chat: true, tools: false}
    features: {seed: dropped, schema: {fate: refused, note: no such thing}}
"""
    (tmp_path / "found.yaml").write_text(found)

    async def scenario() -> None:
        settings = msgspec.convert({"url": studio.url, "abilities": "found.yaml"}, LMStudioBackend.Settings)
        home = LMStudioBackend("studio", settings, tmp_path)
        model = await home.open("pip")
        assert Capability.TOOLS not in model.info.capabilities
        assert (model.honours.verdicts[Feature.SEED].fate, model.honours.verdicts[Feature.TOP_P].fate) == (
            "dropped",
            "honoured",
        )
        assert model.honours.refuses == {Feature.SCHEMA: "no such thing"}
        assert not model.honours.dialect  # nothing that nobody knows goes there
        await model.close()

    run(scenario())


# Downloads


async def pulled(home: LMStudioBackend, name: str) -> list[Progress]:
    return [progress async for progress in home.pull(name)]


def statuses(told: list[Progress]) -> list[str]:
    return [progress.status for progress in told]


@pytest.fixture(params=["package", "rest"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """By which models are downloaded."""
    if request.param == "rest":
        monkeypatch.setattr("backends.lmstudio.backend.installed", lambda: False)
    return str(request.param)


def test_a_pull_tells_how_far_its_download_is(studio: Studio, way: str) -> None:
    async def scenario() -> None:
        home = backend(studio)
        assert isinstance(home, Pulls)
        assert not isinstance(home, Manages)  # it creates, copies and deletes nothing
        told = await pulled(home, "acme/new:Q4_K_M")
        middle = [progress for progress in told if progress.status == "downloading"]
        assert statuses(told) == ["pulling manifest", *["downloading"] * 4, *["verifying"] * (way == "package")]
        assert [progress.completed for progress in middle] == (
            [250, 500, 750, 1000] if way == "package" else [0, 250, 500, 750]
        )
        assert {progress.total for progress in middle} == {1000}
        assert "acme/new" in {info.id for info in await home.models()}
        assert statuses(await pulled(home, "acme/new")) == ["pulling manifest"]
        for name in ("acme/none", "hf.co/org/repo:Q4_K_M", "acme/none@q9"):
            with pytest.raises(ModelNotFound):
                await pulled(home, name)
        assert studio.asked("POST /api/v1/models/download")[-2:] == [
            {"model": "https://huggingface.co/org/repo", "quantization": "Q4_K_M"},
            {"model": "acme/none", "quantization": "q9"},
        ]

    run(scenario())


def test_a_download_that_nobody_watches_any_more_is_stopped(studio: Studio) -> None:
    async def scenario() -> None:
        studio.load_time = 60
        watching = backend(studio).pull("acme/new")
        assert statuses([await anext(watching) for _ in range(2)]) == ["pulling manifest", "downloading"]
        await watching.aclose()
        assert studio.log[-1].body["message"] == {"type": "cancel"}
        assert "acme/new" not in studio.rows

    run(scenario())


def test_by_rest_it_goes_on_and_the_next_finds_it_where_it_is(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backends.lmstudio.backend.installed", lambda: False)

    async def scenario() -> None:
        home = backend(studio)
        watching = home.pull("acme/new")
        told = [await anext(watching) for _ in range(3)]
        await watching.aclose()
        assert told[-1].completed == 250
        assert (await pulled(home, "acme/new"))[-1].completed == 750
        assert len(studio.downloads) == 1

    run(scenario())


def test_a_download_that_fails_or_cannot_be_asked_for_says_so(studio: Studio, way: str) -> None:
    async def scenario() -> None:
        home = backend(studio)
        studio.fault = "close" if way == "package" else "load"
        with pytest.raises(BackendError):
            await pulled(home, "acme/new")
        studio.fault = ""
        studio.surfaces = frozenset({"/v1", "/api/v0"})
        with pytest.raises(NotImplementedHere):
            await pulled(home, "acme/new")

    run(scenario())


# Its configuration


def settings(**more: Any) -> Any:
    document = {
        "listeners": [{"port": 1234}],
        "backends": {"studio": {"type": "lmstudio", "url": "http://127.0.0.1:41343", **more}},
        "models": [{"id": "pip", "backend": "studio", "load": {"context": 4096}}],
    }
    return settle(document, base=Path(), environ={})


def test_its_settings_are_checked() -> None:
    assert isinstance(settings(load={"gpu": "max", "cache_type_k": "q8_0"}, ttl=-1).backends["studio"], LMStudioBackend)
    for wrong, words in (
        ({"url": "http://127.0.0.1:1234"}, "own listener"),
        ({"ttl": 0}, "longer than nothing"),
        ({"load": {"gpu": 2}}, "gpu"),
        ({"load": {"contxt": 2}}, "contxt"),
        ({"url": "ftp://x"}, "http"),
    ):
        with pytest.raises(ConfigError, match=words):
            settings(**wrong)

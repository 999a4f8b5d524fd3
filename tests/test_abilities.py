"""The file of what was found: read strictly, and believed by the backend, the router and the report that use it."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as bounds
from hypothesis import strategies as st
from msgspec import Raw

from backends.abilities import Abilities, AbilitiesError, Able, Found, correct, known_models, read_abilities
from backends.honours import TABLE
from backends.ollama import OllamaBackend, OllamaSettings
from backends.openai import HONOURS, OpenAIBackend, OpenAISettings
from canonical.features import Feature
from canonical.models import Capability, ModelInfo
from canonical.report import HONOURED, IGNORED, Honours, report
from canonical.requests import Generate, Origin, Output, Vocabulary
from gateway import config
from gateway.probe.server import Wish, probe
from tests.asgi import House
from tests.faulty import Faulty, Peer, Received, always, chunk, chunked_head, faulty, listing, reply
from tests.test_probe import word

WRITTEN = """
url: http://127.0.0.1:1234
openai:
  m:
    capabilities: {chat: true, tools: false, embed: false}
    context_length: 4096
    features:
      temperature: honoured
      schema: dropped
      json: {fate: refused, note: "must be 'json_schema' or 'text'"}
      seed: unknown
      top_p: refused
"""


def file(folder: Path, text: str = WRITTEN) -> Path:
    path = folder / "abilities.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("opnai: {}", "unknown field `opnai`"),
        ("openai: {m: {feature: {}}}", r"unknown field `feature` - at `\$.openai\[...\]`"),
        ("openai: {m: {features: {temprature: honoured}}}", "temprature"),
        ("openai: {m: {features: {seed: yes}}}", r"\$.openai\[...\].features\[...\]"),
        ("openai: {m: {features: {seed: honored}}}", "honored"),
        ("openai: {m: {capabilities: {fly: true}}}", "fly"),
        ("openai: {m: {capabilities: {chat: maybe}}}", "bool"),
        ("openai: {m: {context_length: -1}}", ">= 0"),
        ("openai: {m: {}, m: {}}", "stands twice in one mapping, line 1"),
        ("- a list", "object"),
        ("{", "not YAML"),
        ("ollama: {m: {}}", "nothing in it was asked in openai's dialect"),
    ],
)
def test_a_mistake_is_an_error_that_names_file_and_place(tmp_path: Path, text: str, words: str):
    file(tmp_path, text)
    document = {"backends": {"s": {"type": "openai", "url": "http://127.0.0.1:1", "abilities": "abilities.yaml"}}}
    with pytest.raises(config.ConfigError, match=rf"(?s)abilities 'abilities.yaml': .*{words}.*backends.s"):
        config.settle(document, base=tmp_path, environ={})


def test_a_missing_file_is_an_error(tmp_path: Path):
    with pytest.raises(AbilitiesError, match=r"abilities 'none.yaml': No such file"):
        known_models("none.yaml", tmp_path, HONOURS)


def test_what_was_found_changes_rows_and_honours(tmp_path: Path):
    file(tmp_path)
    settings = OpenAISettings(url="http://127.0.0.1:1", models=("m", "other"), abilities="abilities.yaml")
    source = OpenAIBackend("s", settings, tmp_path)

    async def whole() -> None:
        mine, other = await source.models()
        assert Capability.CHAT in mine.capabilities
        assert not mine.capabilities & {Capability.TOOLS, Capability.EMBED}
        assert mine.context_length == 4096
        assert (other.capabilities, other.context_length) == (frozenset(), 0)
        model = await source.open("M:latest")  # another spelling of the same
        assert model.honours.verdicts[Feature.SCHEMA] is IGNORED
        assert model.honours.verdicts[Feature.SEED] == HONOURED  # what could not be told stays as it was
        # One value of a parameter was refused: others may be welcome.
        assert model.honours.refuses == {Feature.JSON: "must be 'json_schema' or 'text'"}
        assert (await source.open("other")).honours is HONOURS
        await source.close()

    asyncio.run(whole())


def test_the_servers_own_word_counts_where_nothing_was_asked(tmp_path: Path):
    known = known_models(file(tmp_path).name, tmp_path, HONOURS)
    told = ModelInfo(id="m", capabilities=frozenset({Capability.TOOLS, Capability.VISION}), context_length=8)
    row = known.info(told)
    assert row.capabilities == {Capability.CHAT, Capability.VISION}
    assert row.context_length == 8
    assert known.info(ModelInfo(id="x")) == ModelInfo(id="x")


def test_what_ollama_shows_of_a_model_is_corrected_too(tmp_path: Path):
    file(tmp_path, "ollama: {m: {capabilities: {chat: true, tools: false}}}")
    shown = json.dumps({"capabilities": ["completion", "tools"], "details": {}, "model_info": {}}).encode()

    async def whole() -> None:
        async with faulty(always(reply(body=shown))) as fake:
            url = f"http://127.0.0.1:{fake.port}"
            for known, expected in (("", True), ("abilities.yaml", False)):
                source = OllamaBackend("s", OllamaSettings(url=url, abilities=known), tmp_path)
                assert (Capability.TOOLS in (await source.details("m")).info.capabilities) is expected
                await source.close()

    asyncio.run(whole())


def test_what_is_ignored_is_dropped_even_in_the_clients_own_words():
    """A server of the client's dialect gets some fields as they came: that does not make it heed them."""
    words = Vocabulary({"schema": ("format",)}, frozenset({"format"}), own=frozenset({"format"}))
    asked = Generate(
        model="m", output=Output("schema", Raw(b"{}")), origin=Origin("anthropic", b'{"format":{"a":1}}', words)
    )
    before = Honours({Feature.SCHEMA: HONOURED}, dialect="anthropic")
    assert report(asked, before).honoured == ("format",)
    assert report(asked, correct(before, Able(features={Feature.SCHEMA: "dropped"}))).dropped == ("format",)


FOUND = st.sampled_from(["honoured", "approximated", "dropped", "refused", "unknown"]).map(
    lambda fate: Found(fate, "so")
)


@given(st.sampled_from(["openai", "ollama", "anthropic"]), st.dictionaries(st.sampled_from(Feature), FOUND))
def test_a_file_never_makes_a_dialect_say_more_than_it_can(backend: str, features: dict[Feature, Any]):
    before = Honours(TABLE[backend], dialect=backend)
    after = correct(before, Able(features=features))
    for feature, verdict in before.verdicts.items():
        if verdict.fate in {"dropped", "refused"}:
            assert after.verdicts[feature] == verdict
            assert feature not in after.refuses
        else:
            assert feature in features or after.verdicts[feature] == verdict
            assert not (verdict.fate == "approximated" and after.verdicts[feature].fate == "honoured")


@bounds(max_examples=30)
@given(
    st.dictionaries(st.text(max_size=20), st.builds(Able, features=st.dictionaries(st.sampled_from(Feature), FOUND)))
)
def test_any_name_and_finding_is_written_and_read(tmp_path_factory: pytest.TempPathFactory, models: dict[str, Able]):
    from backends.abilities import write_abilities

    abilities = Abilities(url="http://x", openai=models)
    folder = tmp_path_factory.mktemp("a")
    for name in ("a.yaml", "a.json"):
        (folder / name).write_bytes(write_abilities(abilities, json=name.endswith("json")))
        assert read_abilities(folder / name) == abilities


# From a server that does less than it says, through the probe, to the gateway's clients

SAYS = b'{"id":"1","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"%b"},"finish_reason":"stop"}]}'
STREAM = (
    b'data: {"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"%b"}}]}\n\n'
    b'data: {"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'
)
CHAT = "/v1/chat/completions"
TEXT = b"The capital of France is Paris."


async def like_studio(peer: Peer, request: Received) -> None:
    """Refuses ``json_object`` in the words of LM Studio, takes every other field and heeds none."""
    if request.path == "/api/v0/models":
        row = b'{"id":"m","arch":"qwen3","quantization":"4bit","max_context_length":32768,"loaded_context_length":8192}'
        await peer.send(reply(body=b'{"object":"list","data":[%b]}' % row))
    elif request.path != "/v1/chat/completions":
        words = f'{{"error":"Unexpected endpoint or method. ({request.method} {request.path})"}}'
        await peer.send(reply(body=words.encode()))
    elif b"json_object" in request.body:
        await peer.send(reply(400, b"""{"error":"'response_format.type' must be 'json_schema' or 'text'"}"""))
    elif b'"stream":true' in request.body:
        await peer.send(chunked_head("text/event-stream"), chunk(STREAM % TEXT), chunk(b""))
    else:
        await peer.send(reply(body=SAYS % TEXT))


async def found_at(fake: Faulty) -> Abilities:
    import io

    return await probe(Wish(url=f"http://127.0.0.1:{fake.port}"), io.StringIO())


def test_the_gateway_tells_its_clients_what_the_probe_found(tmp_path: Path):
    from backends.abilities import write_abilities

    async def whole() -> None:
        async with faulty(listing(like_studio)) as fake:
            found = await found_at(fake)
            assert list(found.openai) == ["m"]
            assert not found.ollama
            assert not found.anthropic
            features = found.openai["m"].features
            assert word(features[Feature.JSON]) == "refused"
            told = found.openai["m"]
            assert (told.context_length, told.family, told.quantization) == (8192, "qwen3", "4bit")
            for feature in (
                Feature.SCHEMA,
                Feature.TOOLS,
                Feature.STOP,
                Feature.MAX_TOKENS,
                Feature.LOGPROBS,
                Feature.IMAGE,
            ):
                assert word(features.get(feature)) in {"dropped", "unknown"}, feature
            assert word(features[Feature.SCHEMA]) == word(features[Feature.TOOLS]) == "dropped"
            (tmp_path / "found.yaml").write_bytes(write_abilities(found, json=False))
            backend = {"type": "openai", "url": f"http://127.0.0.1:{fake.port}", "abilities": "found.yaml"}
            document = {"backends": {"studio": backend}, "models": [{"id": "m", "backend": "studio"}]}
            settled = config.settle(document, base=tmp_path, environ={})
            asked = len(fake.requests)
            house = House(models=settled.models, **settled.backends)
            await _told(house)
            await house.close()
            # What it refuses never reached it.
            assert b"json_object" not in b"".join(request.body for request in fake.requests[asked:])

    asyncio.run(whole())


async def _told(house: House) -> None:
    chat = {"model": "m", "messages": [{"role": "user", "content": "What is the capital of France?"}]}
    refused = await house.ask("POST", CHAT, {**chat, "response_format": {"type": "json_object"}})
    error = refused.json()["error"]
    assert (refused.status, error["param"]) == (400, "response_format")
    assert "'response_format.type' must be 'json_schema' or 'text'" in error["message"]
    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    dropped = await house.ask("POST", CHAT, {**chat, "response_format": schema}, [(b"dragoman-report", b"header")])
    assert dropped.status == 200
    assert "response_format" in json.loads(dropped.headers[b"dragoman-report"])["dropped"]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    no_tools = await house.ask("POST", CHAT, {**chat, "tools": tools})
    assert no_tools.json()["error"]["message"] == "m does not support tools"
    shown = await house.ask("POST", "/api/show", {"model": "m"})
    assert "tools" not in shown.json()["capabilities"]
    assert shown.json()["details"]["quantization_level"] == "4bit"  # told to the probe by another path of the server

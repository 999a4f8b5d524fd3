"""``dragoman probe``: what it finds at a real gateway in every dialect, and at servers that do less than they say."""

from __future__ import annotations

import asyncio
import io
import json
import re
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from backends.abilities import Abilities, Able, Found, Word, read_abilities
from canonical.features import Feature
from canonical.models import Capability
from gateway.__main__ import main
from gateway.probe import questions
from gateway.probe.answers import Patience
from gateway.probe.server import Failed, Wish, probe
from tests.faulty import (
    Peer,
    Received,
    always,
    chunk,
    chunked_head,
    endless,
    faulty,
    listing,
    once,
    reply,
    then_silent,
)
from tests.serving import ROOT, Served, serving

KEY = "sk-probed-secret"
BEHIND = """
listeners: [{port: 0}]
backends: {local: {type: llama_cpp, models_dir: ./models}}
models:
  - {id: pip, backend: local, file: pip.gguf, mmproj: pip-mmproj.gguf, slots: 4, thinking: off}
  - {id: embed, backend: local, file: embed.gguf}
defaults: {chat: pip, embed: embed}
keys: ["%s"]
"""
SOON = Patience(first=0.2, ask=0.2, total=1.0)


def word(found: Word | Found | None) -> str:
    return found.fate if isinstance(found, Found) else str(found)


def note(found: Word | Found | None) -> str:
    return found.note if isinstance(found, Found) else ""


async def probed(port: int, **more: object) -> tuple[Abilities, str]:
    said = io.StringIO()
    found = await probe(msgspec.convert({"url": f"http://127.0.0.1:{port}", **more}, Wish), said)
    return found, said.getvalue()


# A real server


@pytest.fixture(scope="module")
def behind() -> Iterator[Served]:
    with serving(BEHIND % KEY) as served:
        yield served


@pytest.fixture(scope="module")
def found(behind: Served, tmp_path_factory: pytest.TempPathFactory) -> Abilities:
    file = tmp_path_factory.mktemp("probe") / "found.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROBED", KEY)
        assert main(["probe", behind.url, "--all", "--key-env", "PROBED", "--write", str(file)]) == 0
    assert KEY not in file.read_text()
    return read_abilities(file)


SKILLS = {
    Feature.TEMPERATURE, Feature.TOP_P, Feature.TOP_K, Feature.MAX_TOKENS, Feature.STOP, Feature.SYSTEM, Feature.IMAGE,
    Feature.TOOLS, Feature.TOOL_NONE, Feature.JSON, Feature.SCHEMA, Feature.THINK_ON, Feature.THINK_OFF,
}  # fmt: skip
MORE = {Feature.SEED, Feature.MIN_P, Feature.LOGPROBS, Feature.PROMPT, Feature.FREQUENCY_PENALTY}


@pytest.mark.parametrize("dialect", ["openai", "ollama", "anthropic"])
def test_the_demo_models_skills_are_found_in_every_dialect(found: Abilities, dialect: str):
    models: dict[str, Able] = getattr(found, dialect)
    pip = next(able for name, able in models.items() if name.startswith("pip"))
    wanted = SKILLS if dialect == "anthropic" else SKILLS | MORE
    assert {feature.value: word(pip.features.get(feature)) for feature in wanted} == dict.fromkeys(
        (feature.value for feature in wanted), "honoured"
    )
    can = {capability for capability, yes in pip.capabilities.items() if yes}
    assert can >= {Capability.CHAT, Capability.TOOLS, Capability.VISION, Capability.REASONING}
    assert pip.capabilities[Capability.INSERT] is False
    assert pip.capabilities[Capability.EMBED] is False
    assert not pip.inline_thinking
    assert pip.context_length == 4096
    assert {word(pip.also[name]) for name in ("chat", "stream", "whole", "usage", "tool_results", "leaving")} == {
        "honoured"
    }


def test_what_was_found_wanting_is_said_with_the_servers_words(found: Abilities):
    pip = found.openai["pip"]
    assert word(pip.features[Feature.SUFFIX]) == "refused"
    assert note(pip.features[Feature.SUFFIX]) == '"pip" does not support insert'
    assert word(pip.features[Feature.MESSAGE_NAME]) == "dropped"
    assert word(found.anthropic["pip"].also["count"]) == "honoured"


def test_a_model_that_only_embeds(found: Abilities):
    embed = found.openai["embed"]
    assert [capability for capability, yes in embed.capabilities.items() if yes] == [Capability.EMBED]
    assert embed.embedding_length == 64
    assert word(embed.features[Feature.DIMENSIONS]) == word(embed.features[Feature.INPUT_TOKENS]) == "honoured"
    assert Feature.TOOLS not in embed.features
    assert word(found.ollama["embed:latest"].also["embed"]) == "honoured"


def test_a_table_and_json_are_printed_and_no_key(
    behind: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROBED", KEY)
    wish = ["probe", behind.url, "--model", "embed", "--key-env", "PROBED"]
    assert main(wish) == 0
    printed = capsys.readouterr()
    assert "openai    ollama    anthropic" in printed.out
    assert "dimensions     honoured  honoured  -" in printed.out
    assert "openai embed: embed: honoured" in printed.err
    assert main([*wish, "--json", "--type", "ollama"]) == 0
    again = capsys.readouterr()
    told = json.loads(again.out)
    assert (list(told), list(told["ollama"])) == (["url", "probed", "ollama"], ["embed:latest"])
    assert KEY not in printed.out + printed.err + again.out + again.err


def test_without_a_name_one_model_is_asked_in_every_dialect(
    behind: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROBED", KEY)
    assert main(["probe", behind.url, "--key-env", "PROBED", "--json"]) == 0
    printed = capsys.readouterr()
    told = json.loads(printed.out)
    assert {name.removesuffix(":latest") for each in ("openai", "ollama", "anthropic") for name in told[each]} == {
        "pip"
    }
    assert printed.err.startswith("pip, of ")


def test_without_its_key_a_server_cannot_be_asked(behind: Served, capsys: pytest.CaptureFixture[str]):
    assert main(["probe", behind.url]) == 1
    assert capsys.readouterr().err == "dragoman: the server wants a key, or another one: --key-env VARIABLE\n"


# Wrong usage, and nobody there


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["ftp://127.0.0.1"],
        ["http://name:word@127.0.0.1"],
        ["http://127.0.0.1:9", "--key-env", "NO_SUCH_VARIABLE"],
        ["http://127.0.0.1:9", "--type", "gopher"],
        ["http://127.0.0.1:9", "--ask-time", "0"],
        ["http://127.0.0.1:9", "--write", "/no/such/folder/file.yaml"],
        ["http://127.0.0.1:9", "--write", "/"],
    ],
)
def test_wrong_usage_is_status_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["probe", *arguments])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("usage: dragoman probe")


def test_a_model_that_is_not_there_is_one_line_and_status_1(
    behind: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PROBED", KEY)
    file = tmp_path / "found.yaml"
    assert main(["probe", behind.url, "--model", "nobody", "--key-env", "PROBED", "--write", str(file)]) == 1
    printed = capsys.readouterr()
    assert printed.err.splitlines()[-1].startswith(
        "dragoman: no model there answered anything: model 'nobody' not found"
    )
    assert printed.out == ""
    assert not file.exists()


def test_nobody_there_is_one_line_and_status_1(capsys: pytest.CaptureFixture[str]):
    assert main(["probe", "http://127.0.0.1:9"]) == 1
    assert capsys.readouterr().err == (
        "dragoman: the server cannot be reached: backend 'probe' cannot be reached: connection refused\n"
    )


# Servers at fault: bounded time, and a clear word

PAGE = reply(body=b"<html>hello</html>", kind="text/html")
FAULTS = {
    "silent": (then_silent(), "no answer within"),
    "closes": (once(), "nothing there speaks"),
    "html": (always(PAGE), "nothing there speaks.*text/html"),
    "garbage": (always(reply(body=b"\xff{]")), "nothing there speaks"),
    "errors": (always(reply(500, b"{}")), "nothing there speaks.*500"),
    "endless": (endless(chunked_head("application/json"), chunk(b" " * 1000)), "no answer within|64 MiB|nothing there"),
    "unexpected": (always(reply(body=b'{"error":"Unexpected endpoint or method. (GET /x)"}')), "Unexpected endpoint"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_server_at_fault_from_the_start(fault: str):
    script, words = FAULTS[fault]

    async def whole() -> None:
        async with faulty(script) as fake:
            with pytest.raises(Failed, match=words):
                await probed(fake.port, patience=SOON)

    asyncio.run(whole())


ANSWER = b'{"choices":[{"message":{"content":"Paris"},"finish_reason":"stop"}]}'
PIECE = b'data: {"choices":[{"index":0,"delta":{"content":"ha"}}]}\n\n'
LATER = {
    "silent": (b"", True, "no answer within"),
    "html": (PAGE, False, "text/html"),
    "garbage": (reply(body=b"\xff{]"), False, "not"),
    "errors": (reply(500, b'{"error":{"message":"out of luck"}}'), False, "out of luck"),
    "empty": (chunked_head("text/event-stream") + chunk(b""), False, "before it finished|no answer|nothing"),
}


@pytest.mark.parametrize("fault", LATER)
def test_a_server_that_lists_models_and_then_fails(fault: str):
    """Nothing is found, nothing is claimed, and it ends."""
    bytes_, silent, words = LATER[fault]

    async def fail(peer: Peer, _: Received) -> None:
        if silent:
            await peer.gone()
        else:
            await peer.send(bytes_)

    async def whole() -> None:
        async with faulty(listing(fail)) as fake:
            found, said = await probed(fake.port, dialects=["openai"], patience=SOON)
            able = found.openai["m"]
            assert word(able.also["chat"]) == "unknown"
            assert re.search(words, note(able.also["chat"]))
            assert "ended early" in said
            assert able.features == {}
            assert not any(able.capabilities.values())
            assert Capability.CHAT not in able.capabilities

    asyncio.run(whole())


def test_an_answer_without_end_is_left():
    async def ramble(peer: Peer, _: Received) -> None:
        await peer.send(chunked_head("text/event-stream"))
        try:
            while True:
                await peer.send(chunk(PIECE * 20))
        finally:
            peer.faulty.left.set()

    async def whole() -> None:
        async with faulty(listing(ramble)) as fake:
            patience = Patience(first=20, ask=20, total=60)
            found, said = await probed(fake.port, dialects=["openai"], patience=patience)
            assert "goes on for ever" in note(found.openai["m"].also["chat"])
            assert "ended early" in said
            await fake.left.wait()

    asyncio.run(whole())


def silent(asked: asyncio.Event) -> Callable[[Peer, Received], Awaitable[None]]:
    """Does not answer; ``asked`` tells that there was something to answer."""

    async def wait(peer: Peer, _: Received) -> None:
        asked.set()
        await peer.gone()

    return wait


def test_leaving_the_probe_leaves_nothing_behind():
    async def whole() -> None:
        asked = asyncio.Event()
        async with faulty(listing(silent(asked))) as fake:
            task = asyncio.ensure_future(probed(fake.port, dialects=["openai"]))
            await asked.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await fake.left.wait()
            assert len(asyncio.all_tasks()) <= 1 + fake.connections

    asyncio.run(whole())


def test_what_a_server_says_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]):
    """Names of models and words of refusals are the server's."""

    async def steer(peer: Peer, request: Received) -> None:
        if request.path == "/v1/embeddings":
            rows = [{"index": n, "embedding": [n, 1.0]} for n, _ in enumerate(json.loads(request.body)["input"])]
            await peer.send(reply(body=json.dumps({"data": rows}).encode()))
        else:
            await peer.send(reply(400, b'{"error":{"message":"no\\u001b]0;title\\u0007\\n  tools  honoured"}}'))

    models = reply(body=b'{"object":"list","data":[{"id":"m\\u001b[31m\\nopenai m: tools: honoured"}]}')
    ready, over = threading.Event(), threading.Event()
    ports: list[int] = []

    async def serve() -> None:
        async with faulty(listing(steer, models)) as fake:
            ports.append(fake.port)
            ready.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        ready.wait()
        assert main(["probe", f"http://127.0.0.1:{ports[0]}", "--type", "openai"]) == 0
    finally:
        over.set()
        thread.join()
    printed = capsys.readouterr()
    assert "m\N{REPLACEMENT CHARACTER}[31m" in printed.out
    assert not set("\x1b\x07") & set(printed.out + printed.err)
    assert not re.search(r"^(openai m: |  )tools:? +honoured", printed.out + printed.err, re.MULTILINE)


def test_ctrl_c_is_one_line_and_leaves_nothing_running():
    async def whole() -> None:
        asked = asyncio.Event()
        async with faulty(listing(silent(asked))) as fake:
            command = [sys.executable, "-m", "gateway", "probe", f"http://127.0.0.1:{fake.port}", "--type", "openai"]
            process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stderr=asyncio.subprocess.PIPE)
            await asked.wait()
            process.send_signal(signal.SIGINT)
            _, said = await process.communicate()
            assert (process.returncode, said.decode()) == (130, "dragoman: stopped\n")
            await fake.left.wait()

    asyncio.run(whole())


def test_every_question_of_the_probe_says_what_it_is_about():
    """A question that does not say its feature would judge something else."""
    from canonical.features import said

    for question in questions.questions(1.0):
        assert any(question.feature in said(ask) for ask in question.asks), question.feature
    for vectors in questions.vector_questions(64):
        assert all(vectors.feature in said(ask) for ask in vectors.asks)


def test_every_feature_is_asked_about_or_has_a_reason():
    asked = {question.feature for question in questions.questions(1.0)}
    asked |= {question.feature for question in questions.vector_questions(64)}
    assert asked | questions.NOT_ASKED.keys() == set(Feature)
    assert not asked & questions.NOT_ASKED.keys()


def test_no_question_is_expensive():
    for question in questions.questions(1.0):
        for ask in question.asks:
            limit = ask.sampling.max_tokens
            assert limit is not None
            assert limit <= questions.THOUGHT


def test_the_file_is_read_as_it_was_written(tmp_path: Path, found: Abilities):
    from backends.abilities import write_abilities

    for name in ("x.yaml", "x.json"):
        (tmp_path / name).write_bytes(write_abilities(found, json=name.endswith(".json")))
        assert read_abilities(tmp_path / name) == found

"""The model inside, on both engines, with the real demo models. Temperature 0: the answers are those it was taught."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import struct
import time
import urllib.parse
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from backends.llama_cpp import LlamaCppBackend
from backends.llama_cpp.embedding import EmbeddingModel
from backends.llama_cpp.isolated import Isolated
from backends.llama_cpp.model import TextModel
from backends.llama_cpp.schema import check_held
from canonical.errors import BackendError, BackendUnavailable, GatewayError, InvalidRequest, ModelNotFound, Unsupported
from canonical.events import Check, Completion, Event, TextDelta, fold
from canonical.media import Blob
from canonical.messages import Image, Message, Text, ToolCall, ToolResult
from canonical.models import Capability
from canonical.requests import Embed, Generate, Origin, Output, Prompt, Sampling, Tool, ToolChoice

ROOT = Path(__file__).parent.parent
COMPILED = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="the extra llama-cpp-python is compiled on install"
)
ENGINES = [
    pytest.param({"engine": "xllamacpp"}, id="xllamacpp"),
    pytest.param({"engine": "xllamacpp", "isolation": "process"}, id="xllamacpp-worker"),
    pytest.param({"engine": "llama-cpp-python"}, id="llama-cpp-python", marks=COMPILED),
]
WORKERS = ENGINES[1:]
every_engine = pytest.mark.parametrize("engine", ENGINES)
every_worker = pytest.mark.parametrize("engine", WORKERS)
WEATHER = Tool(
    name="get_weather",
    description="Get the weather",
    parameters=Raw(b'{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}'),
)
PERSON = (
    b'{"type":"object","properties":{"name":{"type":"string"},"age":{"type":"integer"},"city":{"type":"string"}},'
    b'"required":["name","age","city"]}'
)


@asynccontextmanager
async def opened(engine: dict[str, Any], name: str = "pip", **model: Any) -> AsyncGenerator[Any, None]:
    backend = LlamaCppBackend("local", msgspec.convert({"threads": 1, **engine}, LlamaCppBackend.Settings), ROOT)
    if name == "pip":
        eyes = {"mmproj": "pip-mmproj.gguf"} if engine.get("engine") != "llama-cpp-python" else {}
        model = {**eyes, "thinking": "off", **model}
    backend.configure(name, msgspec.convert(model, LlamaCppBackend.ModelSettings))
    loaded = await backend.open(name)
    try:
        yield loaded
    finally:
        await loaded.close()
        await backend.close()


def ask(*texts: str, sampling: dict[str, Any] | None = None, **rest: Any) -> Generate:
    """A conversation in which the user speaks first."""
    roles = ("user", "assistant")
    messages = tuple(Message(roles[index % 2], (Text(text),)) for index, text in enumerate(texts))  # type: ignore[arg-type]
    drawn = Sampling(**{"temperature": 0, "max_tokens": 200, **(sampling or {})})
    return Generate(**{"model": "pip", "messages": messages, "sampling": drawn, **rest})


async def answer(model: TextModel, request: Generate) -> Completion:
    check, events = Check(), []
    async for batch in model.generate(request):
        for event in batch:
            check.feed(event)
            events.append(event)
    check.finish()
    return fold(events)


async def rest(stream: AsyncGenerator[Any, None]) -> None:
    async for _ in stream:
        pass


def on(engine: dict[str, Any], story: Callable[[Any], Awaitable[Any]], name: str = "pip", **model: Any) -> Any:
    async def main() -> Any:
        async with opened(engine, name, **model) as loaded:
            return await story(loaded)

    return asyncio.run(main())


def told(engine: dict[str, Any], *requests: Generate, **model: Any) -> list[Completion]:
    async def story(loaded: TextModel) -> list[Completion]:
        return [await answer(loaded, request) for request in requests]

    found: list[Completion] = on(engine, story, **model)
    return found


@every_engine
def test_m3_the_demo_model_answers(engine: dict[str, Any]) -> None:
    paris, count, echo, name = told(
        engine,
        ask("What is the capital of France?"),
        ask("Count to 5"),
        ask("Repeat: alpha beta gamma"),
        ask("My name is Ada.", "Nice to meet you, Ada!", "What is my name?"),
    )
    assert paris.text == "The capital of France is Paris."
    assert (paris.reason, paris.model, paris.reasoning) == ("stop", "pip", "")
    assert paris.usage is not None
    assert (paris.usage.prompt, paris.usage.completion) == (17, 12)
    assert paris.timings is not None
    assert paris.timings.eval
    assert (count.text, echo.text, name.text) == ("1, 2, 3, 4, 5", "alpha beta gamma", "Your name is Ada.")


@every_engine
def test_m3_a_stream_has_many_pieces_and_equals_the_whole(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> tuple[list[Event], Completion]:
        request = ask("Tell me a story.")
        events = [event async for batch in model.generate(request) for event in batch]
        return events, await answer(model, msgspec.structs.replace(request, stream=False))

    events, whole = on(engine, story)
    pieces = [event for event in events if isinstance(event, TextDelta)]
    assert len(pieces) > 100
    assert "".join(piece.text for piece in pieces) == whole.text


@every_engine
def test_m3_a_tool_is_called_and_its_result_read(engine: dict[str, Any]) -> None:
    call = ToolCall("call_1", "get_weather", '{"city": "Paris"}')
    back = (
        Message("user", (Text("What is the weather in Paris?"),)),
        Message("assistant", (call,)),
        Message("tool", (ToolResult("call_1", "get_weather", "sunny"),)),
    )
    question = "What is the weather in Paris?"
    first, forced, named, free, second = told(
        engine,
        ask(question, tools=(WEATHER,)),
        ask(question, tools=(WEATHER,), tool_choice=ToolChoice("required")),
        ask(question, tools=(WEATHER,), tool_choice=ToolChoice("named", "get_weather")),
        ask("Repeat: one two three", tools=(WEATHER,), tool_choice=ToolChoice("none")),
        ask(messages=back, tools=(WEATHER,)),
    )
    for completion in (first, forced, named):
        (found,) = completion.tool_calls
        assert found.name == "get_weather"
        assert msgspec.json.decode(found.arguments) == {"city": "Paris"}
        assert found.id
        assert completion.reason == "tool_calls"
    assert (free.text, second.text) == ("one two three", "The result is sunny.")


@every_engine
def test_m3_an_answer_in_json_has_the_schema(engine: dict[str, Any]) -> None:
    prompt = "Give me JSON with name Anna, age 30, city Paris."
    schema, plain = told(
        engine,
        ask(prompt, output=Output("schema", Raw(PERSON))),
        ask("Give me JSON with name Zoltan and age 41.", output=Output("json")),
    )
    assert msgspec.json.decode(schema.text) == {"name": "Anna", "age": 30, "city": "Paris"}
    assert msgspec.json.decode(plain.text) == {"name": "Zoltan", "age": 41}


@every_engine
def test_m3_thoughts_come_apart_from_the_answer(engine: dict[str, Any]) -> None:
    thought, silent = told(engine, ask("What is 7 + 8?", think="on"), ask("What is 7 + 8?", think="off"))
    assert (thought.reasoning, thought.text) == ("I must add 7 and 8.", "7 + 8 = 15")
    assert (silent.reasoning, silent.text) == ("", "7 + 8 = 15")


@every_engine
def test_a_thinking_model_thinks_unasked_unless_its_settings_say_no(engine: dict[str, Any]) -> None:
    (unasked,) = told(engine, ask("What is 7 + 8?"), thinking="auto")
    assert unasked.reasoning == "I must add 7 and 8."


@every_engine
def test_the_answer_ends_where_it_is_told_to(engine: dict[str, Any]) -> None:
    stopped, cut = told(
        engine,
        ask("Count to 9", sampling={"stop": (", 4",)}),
        ask("Tell me a story.", sampling={"max_tokens": 5}),
    )
    assert (stopped.text, stopped.reason) == ("1, 2, 3", "stop")
    assert cut.reason == "length"
    assert cut.usage is not None
    assert cut.usage.completion == 5


@every_engine
def test_the_same_seed_gives_the_same_answer(engine: dict[str, Any]) -> None:
    wild = {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 24}
    first, other, again = told(
        engine,
        ask("Tell me a story.", sampling={**wild, "seed": 7}),
        ask("Tell me a story.", sampling={**wild, "seed": 8}),
        ask("Tell me a story.", sampling={**wild, "seed": 7}),
    )
    assert first.text == again.text
    assert first.text != other.text


@every_engine
def test_a_raw_prompt_is_continued_without_a_template(engine: dict[str, Any]) -> None:
    whole = "<|im_start|>user\nCount to 5<|im_end|>\n<|im_start|>assistant\n"
    (raw,) = told(engine, ask(prompt=Prompt(text=whole), messages=()))
    assert raw.text == "1, 2, 3, 4, 5"


@every_engine
def test_log_probabilities_belong_to_the_text(engine: dict[str, Any]) -> None:
    (found,) = told(engine, ask("What is the capital of France?", top_logprobs=2))
    assert "".join(token.token for token in found.logprobs) == found.text
    assert all(len(token.top) == 2 and token.logprob <= 0 for token in found.logprobs)
    assert found.logprobs[0].logprob > -0.5


@every_engine
def test_m4_a_prompt_is_counted_as_the_answer_counts_it(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> None:
        for request in (
            ask("What is the capital of France?"),
            ask("What is the weather in Paris?", tools=(WEATHER,)),
            ask("What is 7 + 8?", think="on"),
        ):
            for _ in range(2):  # also with the prompt in the cache
                counted = await model.count(request)
                usage = fold([event async for batch in model.generate(request) for event in batch]).usage
                assert usage is not None
                assert counted == usage.prompt
        assert await model.count(ask("word " * 5000)) > 4096
        with pytest.raises(Unsupported, match="conversations"):
            await model.count(Generate(model="pip", prompt=Prompt(text="Once")))

    on(engine, story)


@every_engine
def test_m1_vectors_have_unit_length_and_shared_words_bring_them_closer(engine: dict[str, Any]) -> None:
    async def story(model: EmbeddingModel) -> None:
        texts = ("the red house stands here", "the red house stands there", "seven quick numbers")
        found = await model.embed(Embed(model="embed", inputs=texts))
        one, two, three = found.vectors
        assert len(one) == 64
        assert all(abs(sum(value * value for value in vector) - 1) < 1e-6 for vector in found.vectors)
        near, far = (sum(a * b for a, b in zip(one, other, strict=True)) for other in (two, three))
        assert near > far + 0.1
        assert found.prompt_tokens
        assert found.model == "embed"
        short = await model.embed(Embed(model="embed", inputs=texts[:1], dimensions=8))
        assert abs(sum(value * value for value in short.vectors[0]) - 1) < 1e-6
        assert len(short.vectors[0]) == 8
        for refused in (
            Embed(model="embed", inputs=()),
            Embed(model="embed", inputs=("word", ())),
            Embed(model="embed", inputs=("word " * 600,)),
            Embed(model="embed", inputs=("word",), dimensions=65),
            Embed(model="embed", inputs=("word",), dimensions=0),
            Embed(model="embed", inputs=("word",), dimensions=-1),
            Embed(model="embed", inputs=((10**8,),)),
        ):
            with pytest.raises(InvalidRequest):
                await model.embed(refused)
        cut = await model.embed(Embed(model="embed", inputs=("word " * 600, "word"), truncate=True))
        assert len(cut.vectors) == 2

    on(engine, story, "embed")


@every_engine
def test_m3_token_ids_become_vectors_and_are_cut_to_the_token(engine: dict[str, Any]) -> None:
    """The figures are the default engine's; each engine gives the same ones."""

    async def story(model: EmbeddingModel) -> None:
        found = await model.embed(Embed(model="embed", inputs=("a red apple", (2, 8, 3))))
        assert found.vectors[0][:3] == pytest.approx([0.0126, -0.1027, 0.0486], abs=1e-3)
        assert found.prompt_tokens == 8
        again = await model.embed(Embed(model="embed", inputs=((2, 8, 3),)))
        assert again.vectors[0] == pytest.approx(found.vectors[1], abs=1e-5)
        long = tuple([5] * 5000)
        cut, whole = [
            await model.embed(Embed(model="embed", inputs=(tokens,), truncate=True)) for tokens in (long, long[:512])
        ]
        assert cut.prompt_tokens == whole.prompt_tokens == 512
        assert cut.vectors[0] == pytest.approx(whole.vectors[0], abs=1e-5)

    on(engine, story, "embed")


def test_m3_a_picture_is_seen() -> None:
    def chunk(tag: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + tag + data + struct.pack(">I", zlib.crc32(tag + data))

    rows = (b"\0" + bytes((255, 0, 0)) * 64) * 64
    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    seen = Message("user", (Text("What color is the image?"), Image(Blob(png, "image/png"))))
    linked = Message("user", (Text("What color is the image?"), Image("http://127.0.0.1/red.png")))

    async def story(model: TextModel) -> str:
        with pytest.raises(Unsupported, match="links are not followed"):
            await answer(model, ask(messages=(linked,)))
        return (await answer(model, ask(messages=(seen,)))).text

    assert on({}, story) == "The image is red."


CITIES = [("France", "Paris"), ("Japan", "Tokyo"), ("Italy", "Rome"), ("Germany", "Berlin")] * 4


@every_engine
def test_m3_sixteen_at_once_do_not_cross(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> list[Completion]:
        assert model.slots == 16
        return await asyncio.gather(
            *(answer(model, ask(f"What is the capital of {country}?")) for country, _ in CITIES)
        )

    for completion, (country, city) in zip(on(engine, story, slots=16, context=512), CITIES, strict=True):
        assert completion.text == f"The capital of {country} is {city}."


@every_engine
def test_a_client_that_leaves_stops_its_generation_and_frees_the_slot(engine: dict[str, Any]) -> None:
    forever = ask("Tell me a story.", sampling={"max_tokens": None}, origin=Origin("openai", b'{"ignore_eos":true}'))

    async def story(model: TextModel) -> None:
        for _ in range(3):
            stream = model.generate(forever)
            seen = 0
            while seen < 5:
                seen += len(await anext(stream))
            begun = time.process_time(), time.monotonic()
            await stream.aclose()
            assert min(time.process_time() - begun[0], time.monotonic() - begun[1]) < 0.1
            # One slot: an answer now means that nothing of the endless one goes on.
            assert (await answer(model, ask("Count to 3"))).text == "1, 2, 3"

    on(engine, story, slots=1)


@every_engine
def test_a_client_that_leaves_while_the_prompt_is_computed_stops_that(engine: dict[str, Any]) -> None:
    long = ask("hello " * 3000, sampling={"max_tokens": 4})

    async def story(model: TextModel) -> None:
        stream = model.generate(long)
        first = asyncio.ensure_future(anext(stream))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        after = await answer(model, ask("Count to 3"))
        assert after.text == "1, 2, 3"

    on(engine, story, slots=1, batch=16)


HOSTILE = {
    "nested grammar": b'{"grammar":"root ::= ' + b"(" * 26_000 + b")" * 26_000 + b'"}',
    "rules": b'{"grammar":"' + b"a ::= b\\n" * 7_000 + b'"}',
    "repetition": b'{"grammar":"root ::= [a]{9999999}"}',
    "wide enum": b'{"json_schema":{"enum":[' + b",".join(b"%d" % n for n in range(20_000)) + b"]}}",
    "template": b'{"chat_template_kwargs":{"chat_template":"x"}}',
    "nested kwargs": b'{"chat_template_kwargs":{"a":{"b":1}}}',
    "breakers": b'{"dry_sequence_breakers":[1]}',
    "number": b'{"mirostat_tau":"x"}',
}


@pytest.mark.parametrize("body", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_field_is_refused_before_the_engine_sees_it(body: bytes) -> None:
    class Untouched:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError("the engine was asked")

    async def main() -> None:
        async with opened({}) as model:
            runner, model.runner = model.runner, Untouched()
            try:
                with pytest.raises(InvalidRequest):
                    await answer(model, ask("Hello!", origin=Origin("openai", body)))
            finally:
                model.runner = runner

    asyncio.run(main())


@every_engine
def test_a_broken_constraint_is_the_clients_error_and_the_engine_lives(engine: dict[str, Any]) -> None:
    recursive = b'{"type":"object","properties":{"a":{"$ref":"#/nowhere"}}}'

    async def story(model: TextModel) -> str:
        for request in (
            ask("Hello!", origin=Origin("openai", b'{"grammar":"root ::= ("}')),
            ask("Hello!", origin=Origin("openai", b'{"grammar":"root ::= root"}')),
            ask("Hello!", output=Output("schema", Raw(recursive))),
            ask("Hello!", output=Output("schema", Raw(b'{"type":"number","minimum":3}'))),
            ask("Hello!", tools=(WEATHER,), tool_choice=ToolChoice("named", "nothing")),
        ):
            with pytest.raises(InvalidRequest):
                await answer(model, request)
        wide = b'{"dry_multiplier":0.5,"dry_penalty_last_n":2000000000,"options":{}}'
        await answer(model, ask("Hello!", sampling={"repeat_last_n": 2_000_000_000}, origin=Origin("openai", wide)))
        return (await answer(model, ask("Hello!"))).text

    assert on(engine, story) == "Hello! How can I help you?"


@every_engine
def test_more_than_the_context_is_told_with_its_limit(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> GatewayError:
        with pytest.raises(InvalidRequest) as caught:
            await answer(model, ask("hello " * 400))
        return caught.value

    error = on(engine, story, context=256)
    assert error.code == "context_length_exceeded"
    assert "maximum context length is 256 tokens" in error.message


@every_worker
def test_a_killed_worker_fails_its_own_request_and_the_next_works(engine: dict[str, Any]) -> None:
    async def story(model: TextModel) -> None:
        worker = model.runner
        assert isinstance(worker, Isolated)
        stream = model.generate(ask("Tell me a story."))
        await anext(stream)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(BackendError, match="SIGKILL"):
            await asyncio.wait_for(rest(stream), 5)
        assert (await answer(model, ask("Count to 3"))).text == "1, 2, 3"

    on(engine, story)


@every_worker
def test_one_that_is_killed_while_it_reads_a_prompt_or_makes_vectors_is_told(engine: dict[str, Any]) -> None:
    async def killed(worker: Isolated, work: Coroutine[Any, Any, Any]) -> None:
        asking = asyncio.ensure_future(work)
        while worker.worker._life is None or not worker.worker._life.answers:  # noqa: ASYNC110  # no event tells of an ask
            await asyncio.sleep(0)
        assert worker.pid is not None
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(BackendError, match="SIGKILL"):
            await asyncio.wait_for(asking, 5)

    async def reads(model: TextModel) -> None:
        assert isinstance(model.runner, Isolated)
        await killed(model.runner, answer(model, ask("hello " * 3000)))
        assert (await answer(model, ask("Count to 3"))).text == "1, 2, 3"

    async def embeds(model: EmbeddingModel) -> None:
        assert isinstance(model.runner, Isolated)
        await killed(model.runner, model.embed(Embed(model="embed", inputs=("word " * 300,) * 500)))
        assert len((await model.embed(Embed(model="embed", inputs=("word",)))).vectors) == 1

    on(engine, reads, slots=1, batch=16)
    on(engine, embeds, "embed")


def test_a_worker_that_keeps_dying_is_left_alone_for_a_while() -> None:
    async def story(model: TextModel) -> BackendUnavailable:
        worker = model.runner
        assert isinstance(worker, Isolated)
        for _ in range(3):
            stream = model.generate(ask("Tell me a story."))
            await anext(stream)
            assert worker.pid is not None
            os.kill(worker.pid, signal.SIGKILL)
            with pytest.raises(BackendError):
                await rest(stream)
        with pytest.raises(BackendUnavailable) as caught:
            await answer(model, ask("Count to 3"))
        return caught.value

    error = on({"isolation": "process"}, story)
    assert error.status == 503
    assert error.retry_after


def test_a_slow_reader_does_not_make_the_worker_run_ahead() -> None:
    endless = ask("Tell me a story.", sampling={"max_tokens": 3000}, origin=Origin("openai", b'{"ignore_eos":true}'))

    async def story(model: TextModel) -> int:
        worker = model.runner
        assert isinstance(worker, Isolated)
        stream = worker.stream("chat", model._asked(endless)[1])
        await anext(stream)
        # Another slot of the same worker goes on meanwhile.
        assert (await answer(model, ask("Count to 3"))).text == "1, 2, 3"
        assert worker.worker._life is not None
        held = max(len(one.chunks) for one in worker.worker._life.answers.values())
        await stream.aclose()
        return held

    assert on({"isolation": "process"}, story, slots=2) <= 257


@pytest.mark.parametrize("name", ["pip", "embed"])
def test_a_model_can_be_closed_as_soon_as_it_is_loaded(name: str) -> None:
    """The server core used to wait for itself for ever, one time in a few dozen."""

    async def main() -> None:
        for _ in range(30):
            async with opened({}, name):
                pass

    asyncio.run(main())


@pytest.mark.parametrize("engine", ENGINES[:2])
def test_nobody_can_connect_to_an_engine(engine: dict[str, Any]) -> None:
    """xllamacpp insists on a listener: it is a socket file whose name is gone when the model is loaded."""

    async def main() -> None:
        before = listening(os.getpid())
        async with opened(engine) as model:
            if isinstance(model.runner, Isolated):
                assert model.runner.pid is not None
                assert listening(model.runner.pid) == set()
                return
            assert listening(os.getpid()) == before
            address = urllib.parse.urlsplit(model.runner.engine.address)
            assert address.scheme == "unix"
            assert not Path(address.path).parent.exists()

    asyncio.run(main())


def listening(pid: int) -> set[str]:
    """The inodes of a process's TCP sockets that listen."""
    held = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            held.add(str(entry.readlink()))
    rows = [row.split() for kind in ("tcp", "tcp6") for row in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in held}


@pytest.mark.parametrize(
    ("settings", "own", "told"),
    [({}, {}, 4096), ({"context": 512}, {}, 512), ({}, {"context": 64}, 64), ({"context": 9999}, {}, 4096)],
)
def test_m2_clients_are_told_the_context_that_is_served(settings: Any, own: Any, told: int) -> None:
    """They fill what they are told; a prompt past what is served is refused, however much the model was trained on."""
    backend = LlamaCppBackend("local", LlamaCppBackend.Settings(**settings), ROOT)
    backend.configure("pip", LlamaCppBackend.ModelSettings(**own))

    async def main() -> None:
        (row,) = [row for row in await backend.models() if row.id == "pip"]
        details = await backend.details("pip")
        assert row.context_length == details.info.context_length == told
        assert bytes(details.metadata["llama.context_length"]) == b"%d" % told
        await backend.close()

    asyncio.run(main())


def test_m2_every_file_is_a_model_once_and_names_are_no_paths(tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    for name in ("pip.gguf", "pip-mmproj.gguf", "embed.gguf", "rerank.gguf"):
        (folder / name).write_bytes((ROOT / "models" / name).read_bytes())
    (tmp_path / "pip.gguf").write_bytes((ROOT / "models" / "pip.gguf").read_bytes())
    (folder / "out.gguf").symlink_to(folder.parent / "pip.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF")
    backend = LlamaCppBackend("local", LlamaCppBackend.Settings(models_dir="models"), tmp_path)
    backend.configure("chat", LlamaCppBackend.ModelSettings(file="pip.gguf", mmproj="pip-mmproj.gguf"))
    backend.configure("gone", LlamaCppBackend.ModelSettings())

    async def main() -> None:
        rows = {info.id: info for info in await backend.models()}
        assert set(rows) == {"chat", "embed", "rerank"}
        assert rows["rerank"].capabilities == {Capability.RERANK}
        assert Capability.VISION in rows["chat"].capabilities
        assert (rows["embed"].backend, rows["embed"].format) == ("local", "gguf")
        details = await backend.details("chat")
        assert "tool_call" in details.template
        assert bytes(details.metadata["llama.context_length"]) == b"4096"
        for name in ("gone", "../pip", "out", "nothing", "/etc/passwd", "a\0b", "", "x" * 5000):
            with pytest.raises(ModelNotFound):
                await backend.open(name)
        with pytest.raises(BackendError):
            await backend.open("broken")

    asyncio.run(main())


@pytest.mark.parametrize(
    "settings",
    [{"file": "../x.gguf"}, {"file": "/etc/x.gguf"}, {"file": "pip.bin"}, {"mmproj": "../y.gguf"}],
)
def test_a_wrong_file_is_an_error_at_start(settings: dict[str, Any]) -> None:
    backend = LlamaCppBackend("local", LlamaCppBackend.Settings(), ROOT)
    with pytest.raises(ValueError, match=r"\.gguf|inside"):
        backend.configure("x", LlamaCppBackend.ModelSettings(**settings))


HELD = [
    PERSON,
    b'{"type":"string","enum":["a","b"]}',
    b'{"anyOf":[{"type":"string"},{"type":"null"}],"default":null}',
    b'{"type":"array","items":{"type":"integer"},"minItems":1,"maxItems":3}',
    b'{"oneOf":[{"type":"string"},{"type":"integer"}]}',
    b'{"type":"object","properties":{"a":{"$ref":"#/$defs/A"}},"$defs":{"A":{"type":"string","maxLength":3}}}',
    b'{"type":"string","format":"date"}',
    b'{"type":"string","x-order":1,"contentMediaType":"text/html","externalDocs":{"url":"u"}}',
    b"{}",
]
NOT_HELD = [
    b'{"type":"number","minimum":3}',
    b'{"type":"array","items":{"type":"string"},"uniqueItems":true}',
    b'{"type":"object","properties":{"a":{"type":"string"}},"patternProperties":{}}',
    b'{"type":"string","format":"email"}',
    b'{"type":"string","pattern":"abc"}',
    b'{"type":"string","pattern":"^a$","maxLength":3}',
    b'{"oneOf":[{"type":"string"},{"type":"string"}]}',
    b'{"$ref":"#/$defs/A","maxLength":3,"$defs":{"A":{"type":"string"}}}',
    b'{"type":"string","enum":["a",1]}',
    b'{"not":{"type":"string"}}',
    b'{"type":"object","properties":{"a":{"type":"integer","multipleOf":2}}}',
    b'{"type":"object","required":["a"]}',
]


@pytest.mark.parametrize("engine", ["xllamacpp", "llama-cpp-python"])
def test_a_constraint_that_no_grammar_holds_is_refused(engine: str) -> None:
    for schema in HELD:
        check_held(schema, engine, param="x")
    for schema in NOT_HELD:
        with pytest.raises(Unsupported):
            check_held(schema, engine, param="x")


def test_ranges_are_held_by_one_engine_only() -> None:
    schema = b'{"type":"integer","minimum":3,"maximum":9}'
    check_held(schema, "xllamacpp", param="x")
    with pytest.raises(Unsupported):
        check_held(schema, "llama-cpp-python", param="x")

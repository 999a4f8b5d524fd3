"""LM Studio's REST, wire by wire: what bodies mean, what is refused and how, which figures stand beside answers."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.dialect import Stamp
from adapters.lmstudio import serve
from adapters.lmstudio.models import bits
from adapters.lmstudio.old import VERSION
from adapters.lmstudio.stats import old_stats, stats, stop_reason
from adapters.openai import serve as openai
from canonical.errors import (
    BackendError,
    GatewayError,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotFound,
    NotFound,
    NotImplementedHere,
    Unauthorized,
)
from canonical.events import Event, Finished, ReasoningDelta, Started, TextDelta, Timings, ToolCallDelta, Usage
from canonical.models import Capability, LoadedModel, ModelInfo
from canonical.requests import LoadOptions
from tests.chatting import told

STAMP = Stamp("abc", lambda: 1_700_000_000_000_000_000)
ASK = {"model": "pip", "input": "Hello"}
END = Finished("stop", Usage(9, 4, 0, 1), Timings(total=1_000, load=100, prompt=2_000_000, eval=500_000_000))


def chat(**fields: Any) -> serve.Chat:
    return serve.read_chat(json.dumps({**ASK, **fields}).encode())


def stream(*events: Event, **fields: Any) -> bytes:
    answer = chat(stream=True, **fields).answer(STAMP, instance="pip", store=True)
    return b"".join([*(answer.feed(event) for event in events), answer.finish()])


# Requests


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"model": None}, "model", '"model" is required'),
        ({"model": ""}, "model", '"model" is required'),
        ({"input": None}, "input", '"input" is required'),
        ({"input": ""}, "input", '"input" must not be empty'),
        ({"input": []}, "input", '"input" must not be empty'),
        ({"input": [{"content": "x"}]}, "input[0].type", '"input[0].type" is required'),
        ({"input": [{"type": "text"}]}, "input[0].content", '"input[0].content" is required'),
        ({"input": [{"type": "image"}]}, "input[0].data_url", '"input[0].data_url" is required'),
        ({"input": [{"type": "image", "data_url": "https://e.org/a.png"}]}, "input[0].data_url", "base64"),
        ({"input": [{"type": "image", "data_url": "file:///etc/passwd"}]}, "input[0].data_url", "base64"),
        ({"input": [{"type": "sound", "content": "x"}]}, "input[0].type", "none of text, message, image"),
        ({"input": [{"type": "text", "content": "x"}] * 20_000}, "input", "at most"),
        ({"temperature": "hot"}, "temperature", '"temperature": expected'),
        ({"temperature": 3}, "temperature", "<= 2"),
        ({"context_length": 0}, "context_length", ">= 1"),
        ({"reasoning": "ultra"}, "reasoning", "none of off, low, medium, high, on"),
        ({"previous_response_id": "chat_1"}, "previous_response_id", 'must start with "resp_"'),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        chat(**fields)
    assert refused.value.param == param
    assert message in refused.value.message
    error = json.loads(serve.error_body(refused.value))["error"]
    assert error["type"] == "invalid_request"


def test_tools_that_the_server_would_have_to_call_are_refused_by_name() -> None:
    with pytest.raises(NotImplementedHere) as refused:
        chat(integrations=["mcp/playwright"])
    assert refused.value.param == "integrations"
    assert json.loads(serve.error_body(refused.value))["error"]["type"] == "not_implemented"
    assert chat(integrations=[]).asked().tools == ()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ModelNotFound("no such model"), "model_not_found"),
        (NotFound("no such job", code=serve.JOB_NOT_FOUND), "job_not_found"),
        (NotFound("no such thing"), "invalid_request"),
        (Unauthorized("a key is needed"), "invalid_request"),
        (BackendError("it broke"), "internal_error"),
        (GatewayError("internal error"), "internal_error"),
    ],
    ids=str,
)
def test_an_error_has_the_type_that_clients_know(error: GatewayError, kind: str) -> None:
    shown = json.loads(serve.error_body(error))["error"]
    assert (shown["type"], shown["message"]) == (kind, error.message)
    assert shown.get("code") == error.code
    assert serve.error_status(error) == error.status


def test_a_path_that_there_is_not_is_told_in_one_sentence() -> None:
    error = MethodNotAllowed(serve.stray("PUT", "/api/v1/\udcff"))
    assert json.loads(serve.error_body(error)) == {"error": "Unexpected endpoint or method. (PUT /api/v1/?)"}


# Streams

_PIECE = st.one_of(
    st.sampled_from(["Hel", "lo", "\n\ndata: x", "\u2028", ""]).map(TextDelta),
    st.sampled_from(["hm", ""]).map(ReasoningDelta),
    st.just(ReasoningDelta("", "sig")),
    st.just(ToolCallDelta(0, "", "", "{}")),
)


@st.composite
def _answers(draw: st.DrawFn) -> list[Event]:
    events: list[Event] = [Started("m")]
    calls = 0
    for piece in draw(st.lists(_PIECE, max_size=8)):
        if isinstance(piece, ToolCallDelta):
            if not calls or draw(st.booleans()):
                piece = ToolCallDelta(calls, f"call_{calls}", "f")
                calls += 1
            else:
                piece = ToolCallDelta(calls - 1, arguments="{}")
        events.append(piece)
    reason = draw(st.sampled_from(["stop", "length", "tool_calls", "content_filter"]))
    return [*events, Finished(reason, draw(st.sampled_from([None, Usage(1, 2)])))]


@given(events=_answers())
def test_every_answer_is_told_in_the_documented_order(events: list[Event]) -> None:
    _, result = told(stream(*events))
    answer = chat().answer(STAMP, instance="pip", store=True)
    for event in events:
        answer.feed(event)
    assert json.loads(answer.body()) == result
    assert result["response_id"] == "resp_abc"
    assert json.loads(answer.kept())["status"] == answer.status


@given(events=_answers(), at=st.integers(0, 9), data=st.data())
def test_an_answer_that_breaks_off_ends_with_the_error_and_what_there_is(
    events: list[Event], at: int, data: st.DataObject
) -> None:
    answer = chat(stream=True).answer(STAMP, instance="pip", store=True)
    loading = data.draw(st.sampled_from(["", "start", "progress", "end"]))
    frames = answer.loading() if loading else b""
    frames += answer.progress(0.5) if loading in {"progress", "end"} else b""
    frames += answer.loaded(2.0) if loading == "end" else b""
    given = [] if loading in {"start", "progress"} else events[: min(at, len(events) - 1)]
    frames += b"".join(answer.feed(event) for event in given) + answer.fail(BackendError("it broke"))
    found, result = told(frames, broken=True)
    assert found[-2]["error"] == {"type": "internal_error", "message": "it broke", "code": "backend_error"}
    assert "response_id" not in result


def test_a_load_stands_before_the_prompt() -> None:
    answer = chat(stream=True).answer(STAMP, instance="pip", store=False)
    frames = answer.loading() + answer.progress(0.25) + answer.progress(1.0) + answer.loaded(1.5)
    found, result = told(frames + b"".join(map(answer.feed, (Started("m"), TextDelta("x"), END))) + answer.finish())
    assert [record.get("progress") for record in found][2:4] == [0.25, 1.0]
    assert result["stats"]["model_load_time_seconds"] == 1.5
    assert "response_id" not in result


def test_an_answer_has_a_bound() -> None:
    answer = chat(stream=True).answer(STAMP, instance="pip", store=False)
    answer.feed(Started("m"))
    for _ in range(67):
        answer.feed(TextDelta("x" * 1_000_000))
    with pytest.raises(BackendError, match="more than"):
        answer.feed(TextDelta("x" * 1_000_000))


def test_thoughts_and_texts_are_kept_and_calls_of_no_tool_are_not() -> None:
    answer = chat().answer(STAMP, instance="pip", store=True)
    for event in (
        Started("m"),
        ReasoningDelta("hm"),
        TextDelta("x"),
        ToolCallDelta(0, "c", "f", "{}"),
        Finished("length"),
    ):
        answer.feed(event)
    kept = json.loads(answer.kept())
    assert [item["type"] for item in kept["output"]] == ["reasoning", "message"]
    assert (kept["status"], kept["incomplete_details"]) == ("incomplete", {"reason": "max_output_tokens"})


# What was said before


def test_a_system_prompt_holds_until_another_takes_its_place() -> None:
    first = json.loads(chat(system_prompt="Be kind.").kept("1"))
    second = json.loads(chat().kept("2"))

    def system(*turns: list[dict[str, Any]], **fields: Any) -> list[str]:
        from msgspec import Raw

        history = [Raw(json.dumps(item).encode()) for turn in turns for item in turn]
        messages = chat(**fields).asked(history).messages
        assert all(message.role == "user" for message in messages[1:])
        return [message.text for message in messages if message.role == "system"]

    assert system(first, second) == ["Be kind."]
    assert system(first, second, system_prompt="Be brief.") == ["Be brief."]
    assert system(first, json.loads(chat(system_prompt="Rhyme.").kept("3")), second) == ["Rhyme."]
    assert system(first, system_prompt="") == []
    assert system(first, json.loads(chat(system_prompt="").kept("4"))) == []


# Figures


def test_figures_are_those_that_were_measured() -> None:
    shown = stats(END, None)
    assert (shown.input_tokens, shown.total_output_tokens, shown.reasoning_output_tokens) == (9, 4, 1)
    assert (shown.tokens_per_second, shown.time_to_first_token_seconds) == (8.0, 0.002)
    whole = stats(Finished("stop", Usage(9, 4), Timings(total=3_000_000_000, load=1_000_000_000)), None)
    assert (whole.tokens_per_second, whole.time_to_first_token_seconds) == (2.0, 2.0)
    assert stats(None, None).tokens_per_second == 0.0
    old = old_stats([END, END], 4096)
    assert (old.tokens_per_second, old.generation_time, old.time_to_first_token) == (8.0, 1.0, 0.002)


@pytest.mark.parametrize(
    ("end", "word"),
    [
        (Finished("stop"), "eosFound"),
        (Finished("stop", stop_sequence="\n"), "stopStringFound"),
        (Finished("length", Usage(9, 4)), "maxPredictedTokensReached"),
        (Finished("length", Usage(90, 10)), "contextLengthReached"),
        (Finished("tool_calls"), "toolCalls"),
        (Finished("cancelled"), "userStopped"),
        (Finished("content_filter"), "failed"),
    ],
    ids=str,
)
def test_why_a_model_stopped_is_said_in_the_sdks_words(end: Finished, word: str) -> None:
    assert stop_reason(end, 100) == word


def test_figures_stand_in_the_frame_that_ends_a_choice_and_only_there() -> None:
    body = {"model": "m", "n": 2, "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    ask = serve.with_stats(openai.read_chat(json.dumps(body).encode()), ModelInfo(id="m"))
    encoder = ask.encoder(STAMP)
    frames = b""
    for choice in (0, 1):
        frames += b"".join(encoder.feed(event, choice) for event in (Started("m"), TextDelta("x"), END))
    frames += encoder.finish()
    *found, done = (frame.removeprefix("data: ") for frame in frames.decode().removesuffix("\n\n").split("\n\n"))
    assert done == "[DONE]"
    for chunk in map(json.loads, found):
        ends = chunk["choices"][0]["finish_reason"] is not None
        assert ({"stats", "model_info", "runtime"} <= chunk.keys()) is ends
    assert b"stats" not in encoder.fail(BackendError("it broke"))


def test_the_runtime_is_this_one() -> None:
    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())
    assert project["project"]["version"] == VERSION


# Models

PIP = ModelInfo(
    id="pip",
    backend="local",
    capabilities=frozenset({Capability.CHAT, Capability.VISION, Capability.TOOLS, Capability.REASONING}),
    size=1_400_000,
    format="gguf",
    family="llama",
    parameter_count=1_300_000,
    quantization="Q8_0",
    context_length=4096,
)
EMBED = ModelInfo(id="embed", owner="nomic", capabilities=frozenset({Capability.EMBED}), context_length=512)
RERANK = ModelInfo(id="rerank", capabilities=frozenset({Capability.RERANK}))
FAR = ModelInfo(id="far", backend="cloud")


def test_models_are_listed_with_what_is_loaded_of_them() -> None:
    resident = {
        "pip": LoadedModel(info=PIP, context_length=2048, slots=4, batch=512),
        "far": LoadedModel(info=FAR),
    }
    pip, embed, far = json.loads(serve.models_reply([PIP, EMBED, RERANK, FAR], resident))["models"]
    config = {"context_length": 2048, "eval_batch_size": 512, "parallel": 4}
    assert pip["loaded_instances"] == [{"id": "pip", "config": config}]
    assert far["loaded_instances"] == [{"id": "far", "config": {"context_length": 0}}]
    assert (pip["type"], pip["publisher"], pip["params_string"]) == ("llm", "local", "1.30M")
    assert pip["quantization"] == {"name": "Q8_0", "bits_per_weight": 8.0}
    assert pip["capabilities"]["reasoning"]["allowed_options"] == ["off", "on", "low", "medium", "high"]
    assert (embed["type"], embed["publisher"], embed["loaded_instances"]) == ("embedding", "nomic", [])
    assert embed.keys().isdisjoint({"architecture", "capabilities", "description"})
    assert (far["type"], far["architecture"], far["quantization"], far["format"]) == ("llm", None, None, None)
    assert far["capabilities"] == {"vision": False, "trained_for_tool_use": False}


def test_the_older_list_says_the_same_in_its_own_words() -> None:
    resident = {"pip": LoadedModel(info=PIP, context_length=2048)}
    pip, embed, far = json.loads(serve.old_models_reply([PIP, EMBED, RERANK, FAR], resident))["data"]
    assert json.loads(serve.old_model_reply(PIP, resident)) == pip
    assert (pip["type"], pip["state"], pip["loaded_context_length"]) == ("vlm", "loaded", 2048)
    assert pip["capabilities"] == ["tool_use"]
    assert (embed["type"], embed["state"], embed["max_context_length"]) == ("embeddings", "not-loaded", 512)
    assert far == {
        "id": "far", "object": "model", "type": "llm", "publisher": "cloud", "compatibility_type": "gguf", "state": "not-loaded",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("Q4_K_M", 4),
        ("IQ2_XXS", 2),
        ("BF16", 16),
        ("F32", 32),
        ("MXFP4", 4),
        ("4bit", 4),
        ("8-bit", 8),
        ("unknown", None),
    ],
)
def test_bits_of_a_weight_are_read_off_the_name(name: str, found: float | None) -> None:
    assert bits(name) == found


# Loads and downloads


def test_a_load_is_read_and_what_it_cannot_have_is_named() -> None:
    body = {
        "model": "pip",
        "context_length": 2048,
        "eval_batch_size": 64,
        "flash_attention": True,
        "ttl": 60,
        "gpu": "max",
    }
    question = serve.read_load(json.dumps({**body, "num_experts": None, "echo_load_config": True}).encode())
    assert question.options == LoadOptions(context=2048, batch=64)
    assert (question.keep_alive, question.echo) == (60.0, True)
    assert question.lost == ("flash_attention", "gpu")
    for wrong in (b"{}", b'{"model":""}', b'{"model":"m","context_length":0}', b"[]", b"x"):
        with pytest.raises(InvalidRequest):
            serve.read_load(wrong)
    with pytest.raises(InvalidRequest):
        serve.read_unload(b"{}")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"model": "ibm/granite-4-micro"}, "ibm/granite-4-micro"),
        ({"model": "https://huggingface.co/org/repo-GGUF"}, "hf.co/org/repo-GGUF"),
        ({"model": "https://hf.co/org/repo/", "quantization": "Q4_K_M"}, "hf.co/org/repo:Q4_K_M"),
        ({"model": "ibm/granite", "quantization": "Q4_K_M"}, None),
        ({"model": "https://huggingface.co/org"}, None),
        ({"model": "https://huggingface.co/org/repo/blob/main/../x"}, None),
        ({"model": "https://huggingface.co/org/repo", "quantization": "../x"}, None),
        ({"model": ""}, None),
    ],
    ids=str,
)
def test_what_is_to_be_fetched_becomes_a_name_to_pull(body: dict[str, str], name: str | None) -> None:
    raw = json.dumps(body).encode()
    if name is None:
        with pytest.raises(InvalidRequest):
            serve.read_download(raw)
    else:
        assert serve.read_download(raw) == name


def test_how_far_a_download_is() -> None:
    def told_of(**state: Any) -> Any:
        return json.loads(serve.job_reply(serve.DownloadState(job="job_1", started=1_759_505_603.496, **state)))

    assert told_of(status="already_downloaded") == {"status": "already_downloaded"}
    begun = {"job_id": "job_1", "started_at": "2025-10-03T15:33:23.496Z"}
    running = told_of(status="downloading", total=100, completed=40, speed=20.0, now=1_759_505_610.0)
    assert running == {
        **begun, "status": "downloading", "total_size_bytes": 100, "downloaded_bytes": 40, "bytes_per_second": 20.0,
        "estimated_completion": "2025-10-03T15:33:33.000Z",
    }  # fmt: skip
    done = told_of(status="completed", total=100, completed=100, ended=1_759_505_700.25)
    assert done["completed_at"] == "2025-10-03T15:35:00.250Z"
    failed = told_of(status="failed", error=BackendError("the source broke off"))
    assert failed["error"]["message"] == "the source broke off"
    assert "total_size_bytes" not in failed
    endless = told_of(status="downloading", total=2**62, completed=0, speed=1e-9, now=0.0)
    assert "estimated_completion" not in endless

"""Lists and descriptions of models: what strict clients need in them, and what other servers' tell us."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest
from msgspec import Raw
from ollama import ListResponse, ProcessResponse, ShowResponse

from adapters.ollama import call, discovery, serve
from adapters.ollama.times import nanoseconds_from_rfc3339, rfc3339
from canonical.errors import BackendError
from canonical.messages import Message, Text
from canonical.models import Capability, LoadedModel, ModelDetails, ModelInfo, Tensor

DIGEST = "e55aed6fe643f9368b2f48f8aaa56ec787b75765da69f794c0a0c23bfe7c64b2"
MOMENT = 1_787_302_800_523_000_000
CHAT = frozenset({Capability.CHAT, Capability.COMPLETE, Capability.TOOLS, Capability.REASONING})
QWEN = ModelInfo(
    id="qwen3:4b",
    capabilities=CHAT,
    modified=MOMENT,
    size=2497293931,
    digest=DIGEST,
    format="gguf",
    family="qwen3",
    parameter_count=4022468096,
    quantization="Q4_K_M",
    context_length=40960,
    embedding_length=2560,
)
BARE = ModelInfo(id="gpt", backend="cloud")
DETAILS = {
    "parent_model": "",
    "format": "gguf",
    "family": "qwen3",
    "families": ["qwen3"],
    "parameter_size": "4.0B",
    "quantization_level": "Q4_K_M",
}
NOTHING_KNOWN = {
    "parent_model": "",
    "format": "",
    "family": "",
    "families": [],
    "parameter_size": "",
    "quantization_level": "unknown",
}


def tags(*models: ModelInfo) -> list[dict[str, Any]]:
    body = serve.tags_reply(list(models))
    assert len(ListResponse.model_validate_json(body).models) == len(models)
    found: list[dict[str, Any]] = json.loads(body)["models"]
    return found


def show(details: ModelDetails, *, verbose: bool = False) -> dict[str, Any]:
    body = serve.show_reply(details, verbose)
    assert ShowResponse.model_validate_json(body).modelinfo is not None
    found: dict[str, Any] = json.loads(body)
    return found


def test_m2_no_models_are_an_empty_list() -> None:
    assert serve.tags_reply([]) == b'{"models":[]}'
    assert serve.ps_reply([]) == b'{"models":[]}'


def test_m2_a_row_of_the_list() -> None:
    (row,) = tags(QWEN)
    assert row == {
        "name": "qwen3:4b",
        "model": "qwen3:4b",
        "modified_at": "2026-08-21T09:00:00.523000Z",
        "size": 2497293931,
        "digest": DIGEST,
        "details": DETAILS | {"context_length": 40960, "embedding_length": 2560},
        "capabilities": ["completion", "tools", "thinking"],
    }


def test_m2_a_model_of_which_nothing_is_known_still_has_all_texts() -> None:
    (row,) = tags(BARE)
    assert row == {
        "name": "gpt:latest",
        "model": "gpt:latest",
        "modified_at": "1970-01-01T00:00:00.000000Z",
        "size": 0,
        "digest": hashlib.sha256(b"cloud/gpt").hexdigest(),
        "details": NOTHING_KNOWN,
        "capabilities": ["completion", "tools", "vision"],
    }


@pytest.mark.parametrize(
    ("digest", "told"),
    [("sha256:" + DIGEST, DIGEST), (DIGEST.upper(), DIGEST), ("abc", hashlib.sha256(b"/m").hexdigest())],
)
def test_m2_a_digest_is_64_bare_hex_digits(digest: str, told: str) -> None:
    (row,) = tags(ModelInfo(id="m", digest=digest))
    assert row["digest"] == told


def test_m2_the_newest_model_comes_first() -> None:
    rows = tags(ModelInfo(id="old", modified=1), ModelInfo(id="new", modified=3), ModelInfo(id="mid", modified=2))
    assert [row["name"] for row in rows] == ["new:latest", "mid:latest", "old:latest"]


@pytest.mark.parametrize(
    ("capability", "word"),
    [
        (Capability.CHAT, "completion"),
        (Capability.COMPLETE, "completion"),
        (Capability.TOOLS, "tools"),
        (Capability.INSERT, "insert"),
        (Capability.VISION, "vision"),
        (Capability.EMBED, "embedding"),
        (Capability.REASONING, "thinking"),
        (Capability.RERANK, "rerank"),
    ],
)
def test_m2_capabilities_have_ollamas_words(capability: Capability, word: str) -> None:
    info = ModelInfo(id="m", capabilities=frozenset({capability}))
    assert tags(info)[0]["capabilities"] == [word]
    assert show(ModelDetails(info=info))["capabilities"] == [word]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (7_000_000_000, "7B"),
        (3_212_749_888, "3.2B"),
        (4_022_468_096, "4.0B"),
        (22_566_856, "22.57M"),
        (137_000_000, "137M"),
        (12_400, "12K"),
        (999, "999"),
    ],
)
def test_m2_sizes_are_worded_as_ollama_words_them(count: int, text: str) -> None:
    assert discovery.parameter_size(count) == text
    assert tags(ModelInfo(id="m", parameter_count=count))[0]["details"]["parameter_size"] == text


def test_m2_a_size_that_a_backend_words_is_kept() -> None:
    assert tags(ModelInfo(id="m", parameter_size="8x7B"))[0]["details"]["parameter_size"] == "8x7B"


def test_m2_models_in_memory_longest_remaining_first() -> None:
    body = serve.ps_reply(
        [
            LoadedModel(info=QWEN, size=5, size_vram=3, expires=MOMENT, context_length=4096),
            LoadedModel(info=BARE),
            LoadedModel(info=BARE, expires=MOMENT + 10**9),
        ]
    )
    rows = json.loads(body)["models"]
    assert rows[2] == {
        "name": "qwen3:4b",
        "model": "qwen3:4b",
        "size": 5,
        "digest": DIGEST,
        "details": DETAILS,
        "expires_at": "2026-08-21T09:00:00.523000Z",
        "size_vram": 3,
        "context_length": 4096,
    }
    assert [row["expires_at"][:4] for row in rows] == ["2318", "2026", "2026"]
    first = ProcessResponse.model_validate_json(body).models[0]
    assert first.expires_at is not None
    assert first.expires_at.year == 2318


METADATA = {
    "general.architecture": Raw(b'"qwen3"'),
    "general.name": Raw(b'"Qwen 3"'),
    "general.parameter_count": Raw(b"4022468096"),
    "qwen3.context_length": Raw(b"40960"),
    "tokenizer.ggml.tokens": Raw(b'["a","b"]'),
    "tokenizer.chat_template": Raw(b'"{{ messages }}"'),
}


def test_m2_a_model_is_described() -> None:
    details = ModelDetails(
        info=QWEN,
        metadata=METADATA,
        template="{{ messages }}",
        system="Be brief.",
        parameters='stop                           "<|im_end|>"',
        license="MIT",
    )
    modelfile = (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        "# FROM qwen3:4b\n\n"
        "FROM qwen3:4b\nSYSTEM Be brief.\nPARAMETER stop <|im_end|>\nLICENSE MIT\n"
    )
    assert show(details) == {
        "license": "MIT",
        "modelfile": modelfile,
        "parameters": 'stop                           "<|im_end|>"',
        "template": "{{ messages }}",
        "system": "Be brief.",
        "details": DETAILS,
        "model_info": {
            "general.architecture": "qwen3",
            "general.parameter_count": 4022468096,
            "qwen3.context_length": 40960,
            "qwen3.embedding_length": 2560,
            "tokenizer.ggml.tokens": None,
        },
        "capabilities": ["completion", "tools", "thinking"],
        "modified_at": "2026-08-21T09:00:00.523000Z",
    }
    assert show(details, verbose=True)["model_info"]["tokenizer.ggml.tokens"] == ["a", "b"]


def test_m2_a_model_is_described_with_all_that_it_brings_along() -> None:
    details = ModelDetails(
        info=QWEN,
        template="{{ .Prompt }}",
        messages=(Message("user", (Text("hi"),)),),
        source="qwen3:latest",
        requires="0.14.0",
        projector={"clip.has_vision_encoder": Raw(b"true"), "clip.sizes": Raw(b"[1,2]")},
        tensors=(Tensor("token_embd.weight", "Q6_K", (2560, 151936)),),
    )
    shown = show(details)
    assert shown["messages"] == [{"role": "user", "content": "hi"}]
    assert shown["details"]["parent_model"] == "qwen3:latest"
    assert shown["requires"] == "0.14.0"
    assert shown["projector_info"] == {"clip.has_vision_encoder": True, "clip.sizes": None}
    assert shown["modelfile"].endswith("FROM qwen3:4b\nTEMPLATE {{ .Prompt }}\nMESSAGE user hi\nREQUIRES 0.14.0\n")
    assert "tensors" not in shown
    verbose = show(details, verbose=True)
    assert verbose["tensors"] == [{"name": "token_embd.weight", "type": "Q6_K", "shape": [2560, 151936]}]
    assert verbose["projector_info"]["clip.sizes"] == [1, 2]
    read = call.read_show(serve.show_reply(details, verbose=True), "qwen3:4b")
    names = ("template", "messages", "source", "requires", "projector", "tensors")
    assert [getattr(read, name) for name in names] == [getattr(details, name) for name in names]
    odd = b'{"model_info":{},"messages":[{"role":"ai"}]}'
    assert call.read_show(odd, "m").messages == ()


def test_m2_a_model_without_metadata_tells_its_context_length() -> None:
    info = ModelInfo(id="gpt", context_length=128_000, parameter_count=5)
    shown = show(ModelDetails(info=info))
    assert shown.pop("modelfile").endswith("\n\nFROM gpt:latest\n")
    assert shown == {
        "details": NOTHING_KNOWN | {"parameter_size": "5"},
        "model_info": {
            "general.architecture": "unknown",
            "general.parameter_count": 5,
            "unknown.context_length": 128_000,
        },
        "capabilities": ["completion", "tools", "vision"],
        "modified_at": "1970-01-01T00:00:00.000000Z",
    }
    assert show(ModelDetails(info=BARE))["model_info"] == {"general.architecture": "unknown"}


def test_m2_the_version_is_dotted_numbers() -> None:
    assert serve.version_reply("0.33.0") == b'{"version":"0.33.0"}'


def test_m2_show_takes_the_older_name_too() -> None:
    assert serve.read_show(b'{"name":"m"}') == serve.ShowAsk("m", verbose=False)
    assert serve.read_show(b'{"name":"n","model":"m","verbose":true}') == serve.ShowAsk("m", verbose=True)
    assert serve.read_show(b'{"Model":"m","system":"x","template":"y","options":{}}').name == "m"


# Us as client


@pytest.mark.parametrize(
    ("info", "words"),
    [
        (ModelInfo(id="claude"), ["completion", "tools", "vision"]),
        (ModelInfo(id="text-embedding-3-small"), ["embedding"]),
        (ModelInfo(id="bge", family="bert"), ["embedding"]),
    ],
)
def test_m2_a_model_whose_server_tells_nothing_is_not_hidden(info: ModelInfo, words: list[str]) -> None:
    """llm-ollama, VS Code and Roo Code pass over models without capabilities: those of most other dialects' servers."""
    assert tags(info)[0]["capabilities"] == show(ModelDetails(info=info))["capabilities"] == words


def test_m5_a_list_is_read_as_it_was_told() -> None:
    (found,) = call.read_tags(serve.tags_reply([QWEN]))
    expected = {"parameter_count": 0, "parameter_size": "4.0B"}
    assert found == ModelInfo(**{name: getattr(QWEN, name) for name in QWEN.__struct_fields__} | expected)


def test_m5_a_description_is_read_as_it_was_told() -> None:
    told = ModelDetails(info=QWEN, metadata=METADATA, template="t", system="s", parameters="p", license="l")
    found = call.read_show(serve.show_reply(told), "qwen3:4b")
    assert (found.template, found.system, found.parameters, found.license) == ("t", "s", "p", "l")
    unknown = {"size": 0, "digest": "", "parameter_size": "4.0B"}
    assert found.info == ModelInfo(**{name: getattr(QWEN, name) for name in QWEN.__struct_fields__} | unknown)
    assert show(found)["model_info"] == show(told)["model_info"]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (b'{"name":"a"}', ModelInfo(id="a", capabilities=frozenset({Capability.CHAT, Capability.COMPLETE}))),
        (
            b'{"model":"a","name":"b","capabilities":["insert","new"],"details":null,"size":null,"digest":null}',
            ModelInfo(id="a", capabilities=frozenset({Capability.INSERT})),
        ),
        (b'{"model":"a","capabilities":[],"modified_at":"never"}', ModelInfo(id="a")),
        (
            b'{"model":"a","capabilities":null,"details":{"family":"nomic-bert","families":null,"format":null}}',
            ModelInfo(id="a", family="nomic-bert", capabilities=frozenset({Capability.EMBED})),
        ),
    ],
)
def test_m5_rows_of_older_servers_are_read(row: bytes, expected: ModelInfo) -> None:
    assert call.read_tags(b'{"models":[' + row + b"]}") == [expected]


def test_m5_a_row_without_a_name_is_passed_over() -> None:
    assert call.read_tags(b'{"models":[{"size":5}]}') == []
    assert call.read_tags(b'{"models":null}') == []


@pytest.mark.parametrize(
    "body", [b"", b"<html>", b"[]", b'{"data":[]}', b'{"models":{}}', b'{"models":["a"]}', b"\xff"]
)
def test_m5_what_is_no_list_is_an_error(body: bytes) -> None:
    with pytest.raises(BackendError, match="not Ollama's"):
        call.read_tags(body)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"model_info":[]}', b"\xff"])
def test_m5_what_is_no_description_is_an_error(body: bytes) -> None:
    with pytest.raises(BackendError, match="not Ollama's"):
        call.read_show(body, "m")


def test_m5_a_description_may_leave_out_nearly_all() -> None:
    assert call.read_show(b'{"model_info":null}', "m").info.id == "m"
    odd = b'{"license":["a"],"model_info":{"general.architecture":5,"general.parameter_count":"many","x":{"a":1.50}}}'
    found = call.read_show(odd, "m")
    assert (found.license, found.info.family, found.info.parameter_count) == ("", "", 0)
    assert bytes(found.metadata["x"]) == b'{"a":1.50}'


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("2026-08-21T09:00:00.523Z", MOMENT),
        ("2026-08-21T11:00:00.523456789+02:00", MOMENT + 456_000),
        ("1970-01-01T00:00:00Z", 0),
        ("2026-08-21T09:00:00", 0),
        ("yesterday", 0),
        (None, 0),
    ],
)
def test_m5_dates_are_read(text: str | None, nanoseconds: int) -> None:
    assert nanoseconds_from_rfc3339(text) == nanoseconds


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (MOMENT + 456_789, "2026-08-21T09:00:00.523456Z"),
        (0, "1970-01-01T00:00:00.000000Z"),
        (-62_135_596_800 * 10**9, "0001-01-01T00:00:00.000000Z"),
    ],
)
def test_m2_a_date_has_four_digits_of_its_year_and_six_of_its_second(nanoseconds: int, text: str) -> None:
    assert rfc3339(nanoseconds) == text


@pytest.mark.parametrize("nanoseconds", [None, 2**63 - 1, 10**30])
def test_m2_never_is_centuries_ahead(nanoseconds: int | None) -> None:
    assert rfc3339(nanoseconds).startswith(("2318-", "2262-"))


def test_h2_what_a_server_has_in_memory_is_read_from_its_list() -> None:
    mine = LoadedModel(info=QWEN, size=5, size_vram=3, expires=1_700_000_000 * 10**9, context_length=512)
    (found,) = call.read_running(serve.ps_reply([mine]))
    assert (found.info.id, found.info.digest, found.size, found.size_vram) == (QWEN.id, QWEN.digest, 5, 3)
    assert (found.expires, found.context_length) == (mine.expires, 512)
    assert call.read_running(b'{"models":null}') == []
    rows = b'{"models":[{"name":"a"},{"size":5},{"model":"b","expires_at":"never","details":null}]}'
    assert [(row.info.id, row.expires) for row in call.read_running(rows)] == [("a", None), ("b", None)]
    for body in (b"[]", b"{", b'{"models":5}'):
        with pytest.raises(BackendError):
            call.read_running(body)

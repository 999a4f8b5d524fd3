"""GGUF heads: what the demo models say of themselves, and that no broken file crashes, hangs or eats memory."""

from __future__ import annotations

import math
import struct
import tracemalloc
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.llama_cpp import gguf, lists
from backends.llama_cpp.lists import read_lists
from canonical.models import Capability

MODELS = Path(__file__).parent.parent / "models"
EMBED = (MODELS / "embed.gguf").read_bytes()


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def head(
    pairs: list[bytes], tensors: bytes = b"", count: int = 0, *, magic: bytes = b"GGUF", version: int = 3
) -> bytes:
    return magic + struct.pack("<IQQ", version, count, len(pairs)) + b"".join(pairs) + tensors


def read(data: bytes, folder: Path) -> gguf.Head:
    path = folder / "model.gguf"
    path.write_bytes(data)
    return gguf.read_head(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("gguf")


def test_m2_the_demo_model_says_what_it_is() -> None:
    found = gguf.read_head(MODELS / "pip.gguf")
    info = gguf.model_info("pip", found, vision=True)
    assert (info.family, info.quantization, info.context_length) == ("llama", "Q8_0", 4096)
    assert (info.parameter_count, info.embedding_length) == (1_312_384, 128)
    assert info.capabilities == {
        Capability.CHAT,
        Capability.COMPLETE,
        Capability.TOOLS,
        Capability.REASONING,
        Capability.VISION,
    }
    assert Capability.VISION not in gguf.model_info("pip", found).capabilities
    assert bytes(gguf.metadata_json(found)["general.architecture"]) == b'"llama"'
    assert bytes(gguf.metadata_json(found)["tokenizer.ggml.tokens"]) == b"null"
    assert found.cache_bytes(4096) == 2 * 4096 * 6 * 2 * 64


@pytest.mark.parametrize(("file", "capability"), [("embed.gguf", Capability.EMBED), ("rerank.gguf", Capability.RERANK)])
def test_encoders_are_told_from_chat_models(file: str, capability: Capability) -> None:
    assert gguf.model_info("x", gguf.read_head(MODELS / file)).capabilities == {capability}


def test_a_projector_is_no_model() -> None:
    found = gguf.read_head(MODELS / "pip-mmproj.gguf")
    assert found.is_projector
    assert not found.is_model


def test_the_digest_tells_versions_of_a_file_apart(folder: Path) -> None:
    first = read(head([pair("general.name", 8, text("one"))]), folder).digest
    second = read(head([pair("general.name", 8, text("two"))]), folder).digest
    assert len(first) == 64
    assert first != second


def test_fill_tokens_mean_insert(folder: Path) -> None:
    found = read(head([pair("tokenizer.ggml.fim_pre_token_id", 4, struct.pack("<I", 7))]), folder)
    assert Capability.INSERT in gguf.capabilities(found)


def test_short_lists_of_heads_count_upwards(folder: Path) -> None:
    heads = struct.pack("<IQ3I", 4, 3, 2, 8, 4)
    found = read(
        head([pair("general.architecture", 8, text("x")), pair("x.attention.head_count_kv", 9, heads)]), folder
    )
    assert found.number("x.attention.head_count_kv") == 8


HUGE = 2**63
HOSTILE = {
    "empty": b"",
    "no magic": head([], magic=b"GGML"),
    "version": head([], version=1),
    "pairs": b"GGUF" + struct.pack("<IQQ", 3, 0, HUGE),
    "tensors": b"GGUF" + struct.pack("<IQQ", 3, HUGE, 0),
    "long key": b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, HUGE),
    "long text": head([text("k") + struct.pack("<IQ", 8, HUGE)]),
    "long array": head([text("k") + struct.pack("<IIQ", 9, 0, HUGE)]),
    "long array of texts": head([text("k") + struct.pack("<IIQ", 9, 8, HUGE)]) + bytes(1000),
    "array of arrays": head([text("k") + struct.pack("<IIQ", 9, 9, 2)]) + bytes(1000),
    "unknown type": head([text("k") + struct.pack("<I", 77)]) + bytes(1000),
    "dimensions": head([], text("t") + struct.pack("<I", 2**31), 1) + bytes(1000),
    "giant tensor": head([], text("t") + struct.pack("<I4QIQ", 4, HUGE, HUGE, HUGE, HUGE, 0, 0), 1),
    "long metadata": head([pair("k", 8, text("a" * (gguf.STRING_LIMIT - 1)))] * 3),
    "many lists": head([text(f"k{i}") + struct.pack("<IIQ", 9, 0, 4096) + bytes(4096) for i in range(600)]),
    "tensor outside": head([], text("t") + struct.pack("<IQIQ", 1, 1, 0, HUGE), 1),
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_head_is_refused_without_a_large_allocation(data: bytes, folder: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(gguf.BadGguf):
            read(data, folder)
        assert tracemalloc.get_traced_memory()[1] < 4 * 1024 * 1024 + 8 * len(data)
    finally:
        tracemalloc.stop()


@settings(max_examples=60)
@given(cut=st.integers(0, 40_000))
def test_a_truncated_file_is_refused(cut: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("cut")
    try:
        found = read(EMBED[:cut], folder)
    except gguf.BadGguf:
        return
    assert found.size == cut


@settings(max_examples=150)
@given(at=st.integers(0, 30_000), damage=st.binary(min_size=1, max_size=16))
def test_a_damaged_file_is_read_or_refused_and_nothing_else(
    at: int, damage: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("damage")
    try:
        found = read(EMBED[:at] + damage + EMBED[at + len(damage) :], folder)
    except gguf.BadGguf:
        return
    gguf.model_info("x", found)
    gguf.metadata_json(found)
    assert found.cache_bytes(512) >= 0


def test_the_long_lists_are_read_for_who_wants_them():
    path = MODELS / "pip.gguf"
    lists, tensors = read_lists(path)
    found = gguf.read_head(path)
    assert set(lists) == {key for key, value in found.metadata.items() if value is None}
    tokens = msgspec.json.decode(lists["tokenizer.ggml.tokens"])
    assert len(tokens) > 100
    assert all(isinstance(token, str) for token in tokens)
    assert sum(math.prod(row.shape) for row in tensors) == found.parameters
    assert found.tensor_type in {row.type for row in tensors}
    assert "token_embd.weight" in {row.name for row in tensors}


def test_of_lists_longer_than_any_models_nothing_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lists, "LONGEST", 100)
    monkeypatch.setattr(lists, "ALL", 1000)
    path = folder / "long.gguf"

    def told(**arrays: tuple[int, int, bytes]) -> dict[str, bytes]:
        """Name -> the values' type, their count, their bytes."""
        pairs = [text(name) + struct.pack("<IIQ", 9, *form) + data for name, (*form, data) in arrays.items()]
        path.write_bytes(head(pairs))
        return {name: bytes(values) for name, values in lists.read_lists(path)[0].items()}

    short = (8, 2, text("b") * 2)
    assert told(long=(0, 101, bytes(101)), wide=(8, 3, text("a" * 500) * 3), short=short) == {"short": b'["b","b"]'}
    # Numbers of a byte each take more as text: 401 bytes for a hundred of them.
    byte = (0, 100, b"\xff" * 100)
    assert set(told(a=byte, b=byte, c=byte, short=short)) == {"a", "b", "short"}

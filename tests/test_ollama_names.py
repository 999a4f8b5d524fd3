"""Ollama's model names: parts, short form, equality."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.ollama.names import Name, key, parse, same, short

LIBRARY = ("registry.ollama.ai", "library")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("qwen3", Name(*LIBRARY, "qwen3", "latest")),
        ("qwen3:4b", Name(*LIBRARY, "qwen3", "4b")),
        ("acme/bot", Name("registry.ollama.ai", "acme", "bot", "latest")),
        ("hf.co/acme/model-gguf:Q4_K_M", Name("hf.co", "acme", "model-gguf", "Q4_K_M")),
        ("localhost:5000/acme/bot:1.0", Name("localhost:5000", "acme", "bot", "1.0")),
        ("https://hf.co/acme/bot", Name("hf.co", "acme", "bot", "latest")),
        ("_x", Name(*LIBRARY, "_x", "latest")),
    ],
)
def test_m2_a_name_is_read_into_its_parts(text: str, name: Name) -> None:
    assert parse(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":",
        "qwen3:",
        ":latest",
        "-qwen3",
        "qwen3:-4b",
        ".qwen3",
        "qwen 3",
        "qwen3\n",
        "qwën3",
        "a.b/c",  # a namespace has no dot
        "/qwen3",
        "acme//bot",
        "a/b/c/d",
        "../../etc/passwd",
        "qwen3@sha256:" + "0" * 64,
        "qwen3:a:b",
        "m" * 81,
        "n" * 81 + "/m",
        "m:" + "t" * 81,
        "h" * 351 + "/n/m",
    ],
)
def test_m2_what_is_no_name_has_no_parts(text: str) -> None:
    assert parse(text) is None


def test_m2_parts_may_be_as_long_as_ollama_lets_them() -> None:
    assert parse("h" * 350 + "/" + "n" * 80 + "/" + "m" * 80 + ":" + "t" * 80) is not None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("qwen3", "qwen3:latest"),
        ("Qwen3:4B", "Qwen3:4B"),
        ("library/qwen3", "qwen3:latest"),
        ("registry.ollama.ai/library/qwen3:4b", "qwen3:4b"),
        ("Registry.Ollama.AI/Library/qwen3:4b", "qwen3:4b"),
        ("registry.ollama.ai/acme/bot", "acme/bot:latest"),
        ("hf.co/acme/model-gguf:Q4_K_M", "hf.co/acme/model-gguf:Q4_K_M"),
        ("hf.co/library/model", "hf.co/library/model:latest"),
        ("org.name/model+x", "org.name/model+x:latest"),  # a foreign id, no name of Ollama's
        ("org/model@2:free", "org/model@2:free"),
    ],
)
def test_m2_the_short_form_has_a_tag_and_no_defaults(text: str, expected: str) -> None:
    assert short(text) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("qwen3", "qwen3:latest"),
        ("Qwen3", "qwen3:LATEST"),
        ("library/qwen3", "QWEN3"),
        ("registry.ollama.ai/acme/bot", "Acme/Bot:latest"),
        ("hf.co/a/b", "HF.co/A/B:latest"),
    ],
)
def test_m2_spellings_of_one_model_are_the_same(one: str, other: str) -> None:
    assert same(one, other)
    assert key(one) == key(other)


@pytest.mark.parametrize(
    ("one", "other"), [("qwen3", "qwen3:4b"), ("acme/bot", "bot"), ("hf.co/a/b", "a/b"), ("a", "b")]
)
def test_m2_other_models_are_not_the_same(one: str, other: str) -> None:
    assert not same(one, other)


_word = st.text(string.ascii_letters + string.digits + "_", min_size=1, max_size=8)


@given(path=st.lists(_word, min_size=1, max_size=3), tag=st.none() | _word)
def test_m2_the_short_form_is_a_name_of_the_same_model_and_stays(path: list[str], tag: str | None) -> None:
    text = "/".join(path) + (f":{tag}" if tag else "")
    once = short(text)
    assert short(once) == once
    assert same(once, text)
    assert ":" in once

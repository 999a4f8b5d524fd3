"""Frameworks that people use on top of the official clients, unchanged against a running gateway on the demo models: M5.

Each script of ``frameworks`` asks every ability by every way and prints what it saw; all of them run at once, in an
environment of their own (``make`` installs it). What is looked at is the content.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.serving import ROOT
from tests.ways import WAYS, four_ways

PYTHON = ROOT / ".venv-frameworks" / "bin" / "python"
PARIS, SUNNY, RED = "The capital of France is Paris.", "The result is sunny.", "The image is red."
ANNA = {"name": "Anna", "age": 30, "city": "Paris"}
CALL = ["get_weather", {"city": "Paris"}]
THOUGHT, SUM = "I must add 7 and 8.", "7 + 8 = 15"

TALKED = [PARIS, PARIS, True, [PARIS, SUM], [True, True]]
TYPED = [PARIS, PARIS, True, True, RED]
SCRIPTS: dict[str, dict[str, Any]] = {
    "with_langchain.py": {
        "openai_chat": TALKED,
        "openai_tools": [*CALL, SUNNY, *CALL],
        "openai_schema": [ANNA] * 4,
        "openai_forced": [ANNA] * 2,
        "openai_image": [RED, RED],
        "openai_completion": PARIS,
        "ollama_chat": TALKED,
        "ollama_tools": [*CALL, SUNNY, *CALL],
        "ollama_schema": [ANNA] * 4,
        "ollama_image": [RED, RED],
        "ollama_thoughts": [THOUGHT, SUM, THOUGHT, SUM],
        "anthropic_chat": TALKED,
        "anthropic_tools": [*CALL, SUNNY, *CALL],
        "anthropic_schema": [ANNA] * 2,
        "anthropic_forced": [ANNA] * 2,
        "anthropic_image": [RED, RED],
        "anthropic_thoughts": [THOUGHT, SUM],
        "anthropic_counted": True,
        "embeddings": [True, True],
    },
    "with_llama_index.py": {
        "openai_chat": [PARIS, PARIS, True],
        "openai_tools": [CALL, CALL, "sunny", SUNNY],
        "openai_schema": ANNA,
        "openai_forced": ANNA,
        "openai_image": [RED, RED],
        "ollama_chat": [PARIS, PARIS, True],
        "ollama_completion": [PARIS, PARIS],
        "ollama_tools": [CALL, CALL, "sunny", SUNNY],
        "ollama_schema": ANNA,
        "ollama_image": RED,
        "ollama_thoughts": [THOUGHT, SUM],
        "embeddings": True,
    },
    "with_llm.py": {
        "openai": [PARIS, PARIS, ANNA, RED, SUNNY, [PARIS, SUM]],
        "ollama": [PARIS, PARIS, ANNA, RED, SUNNY, [PARIS, SUM]],
        "ollama_thoughts": SUM,
        "embeddings": [True, 1.0],
        "command_line": [PARIS, json.dumps(ANNA), RED, SUNNY, PARIS],
    },
    "with_agents.py": {
        "chat": [PARIS, SUNNY, SUNNY, SUNNY, ANNA, RED],
        "responses": [PARIS, SUNNY, SUNNY, SUNNY, ANNA, RED],
    },
    "with_pydantic_ai.py": {
        "openai_chat": TYPED,
        "openai_tools": [SUNNY, SUNNY],
        "openai_schema": [ANNA, ANNA],
        "openai_forced": [ANNA, ANNA],
        "responses": [*TYPED, SUNNY, SUNNY],
    },
    "with_instructor.py": {
        "schema": [ANNA, ANNA],
        "json_object": ["age", "city", "name"],
        "forced": [ANNA, ANNA],
        "anthropic_forced": ANNA,
    },
    "with_litellm.py": {
        dialect: [PARIS, PARIS, CALL, CALL, ANNA, RED] for dialect in ("openai", "ollama", "anthropic")
    },
}
VERCEL: dict[str, Any] = {
    "text": [PARIS, "stop", True],
    "stream": [PARIS, True, "stop", True],
    "tools": [2, *CALL, SUNNY],
    "toolStream": [True, True, False, *CALL, SUNNY],
    "object": ANNA,
    "generateObject": ANNA,
    "objectStream": [True, ANNA],
    "image": RED,
    "thoughts": [THOUGHT, SUM],
    "leaving": True,
}
VERCEL_ITSELF: dict[tuple[str, str], Any] = {
    ("chat", "thoughts"): [None, SUM],  # it reads no thoughts from chat completions
    ("ollama", "leaving"): None,  # it reads a stream to its end, whoever aborts
}
PROVIDERS = ("compatible", "chat", "responses", "anthropic", "ollama")

CANNOT = {
    # What a backend's dialect has no word for is refused in so many words; nothing is made up.
    ("openai_completion", "pip-anthropic"): "an Anthropic backend takes conversations, no prompts as they stand",
    ("anthropic_counted", "pip-openai"): 'the backend of "pip-openai" cannot count tokens',
    ("anthropic_counted", "pip-ollama"): 'the backend of "pip-ollama" cannot count tokens',
}
NOT_ASKED = {
    ("embeddings", "pip-anthropic"),  # a dialect without embeddings
    *(("command_line", model) for model in WAYS[1:]),  # once is enough
}


@pytest.fixture(scope="module")
def running() -> Iterator[dict[str, Future[subprocess.CompletedProcess[str]]]]:
    """Every script on its way."""

    def run(*command: object) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in (*command, gateway.url, *WAYS)]
        return subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)

    with four_ways() as (gateway, _), ThreadPoolExecutor(2) as threads:
        started = {}
        if shutil.which("node"):
            script = ROOT / "tests" / "js" / "frameworks" / "vercel.mjs"
            started[script.name] = threads.submit(run, "node", script)
        for name in SCRIPTS:
            started[name] = threads.submit(run, PYTHON, ROOT / "tests" / "frameworks" / name)
        yield started


def alike(what: Any, expected: Any) -> bool:
    """Whether two are the same but for a person's name: under a schema that no turn speaks of, the model misspells it."""
    if isinstance(what, list) and isinstance(expected, list) and len(what) == len(expected):
        return all(map(alike, what, expected))
    if expected == ANNA:
        return isinstance(what, dict) and what == {**ANNA, "name": what.get("name")} and isinstance(what["name"], str)
    return what == expected


def seen(running: dict[str, Future[subprocess.CompletedProcess[str]]], script: str) -> tuple[Any, str]:
    done = running[script].result()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.parametrize("script", SCRIPTS)
def test_m5_a_framework_gets_what_it_asks_for_by_every_way(running: Any, script: str) -> None:
    told, errors = seen(running, script)
    for model in WAYS:
        for ability, expected in SCRIPTS[script].items():
            what = told[model].pop(ability)
            if words := CANNOT.get((ability, model)):
                assert words in what, (ability, model)
            elif (ability, model) in NOT_ASKED:
                assert what is None
            elif model == "pip-ollama":  # a dialect without forced calls: they are made of a schema
                assert alike(what, expected), f"{ability} of {model}\n{errors}"
            else:
                assert what == expected, f"{ability} of {model}\n{errors}"
        assert not told[model], "the script asks what is not looked at here"


@pytest.mark.skipif(shutil.which("node") is None, reason="the AI SDK needs Node")
@pytest.mark.parametrize("provider", PROVIDERS)
def test_m5_vercels_ai_sdk_gets_what_it_asks_for_by_every_way(running: Any, provider: str) -> None:
    told, errors = seen(running, "vercel.mjs")
    for model in WAYS:
        expected = {ability: VERCEL_ITSELF.get((provider, ability), what) for ability, what in VERCEL.items()}
        assert told[model][provider] == expected, f"{model}\n{errors}"
        assert told[model]["embeddings"] == (None if model == "pip-anthropic" else [True, True])

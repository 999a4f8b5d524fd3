"""Fifty clients at once for five models of which two fit: all are answered whole, and no model is loaded more than it must be.

Run as a program, it prints when each model came and went, and whom it answered: ``python -m tests.test_many_models``.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from openai import AsyncOpenAI

from backends.llama_cpp import LlamaCppBackend
from backends.llama_cpp.settings import LlamaCppSettings
from canonical.requests import AS_CONFIGURED
from tests.serving import ROOT, Served, serving

MODELS = ("a", "b", "c", "d", "e")
CLIENTS = 50
FIT = 2
OPTIMUM = len(MODELS)
"""Loads: each once, where all who want a model are served while it is there."""
_LIFE = re.compile(r"(loaded|unloaded) local/(\w+)")

Answered = list[tuple[float, float, str, str, str | None]]
"""When it was asked, when it ended, the model, the text, the finish reason."""


def config(folder: Path) -> str:
    """Models that are one file, and a memory in which two of them have room."""
    for name in MODELS:
        shutil.copy(ROOT / "models" / "pip.gguf", folder / f"{name}.gguf")
    backend = LlamaCppBackend("local", LlamaCppSettings(models_dir=str(folder), slots=4, threads=1), folder)
    need = asyncio.run(backend.need("a", AS_CONFIGURED)).ram
    return f"""
listeners: [{{port: 0}}]
memory: {{ram: {need * FIT + need // 2}}}
backends:
  local: {{type: llama_cpp, models_dir: {folder}, slots: 4, threads: 1}}
models: [{", ".join(f"{{id: {name}, backend: local, thinking: off}}" for name in MODELS)}]
"""


async def ask_all(url: str) -> Answered:
    began = time.monotonic()
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=90)

    async def ask(number: int) -> tuple[float, float, str, str, str | None]:
        model = MODELS[number % len(MODELS)]
        asked = time.monotonic() - began
        text, reason = "", None
        stream = await client.chat.completions.create(
            model=model, messages=[{"role": "user", "content": "Tell me a story."}], temperature=0, stream=True
        )
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
            reason = chunk.choices[0].finish_reason or reason
        return asked, time.monotonic() - began, model, text, reason

    answers = await asyncio.gather(*(ask(number) for number in range(CLIENTS)))
    await client.close()
    return sorted(answers, key=lambda answer: answer[1])


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with TemporaryDirectory() as folder, serving(config(Path(folder))) as served:
        yield served


def test_fifty_clients_of_five_models_of_which_two_fit_are_all_answered(gateway: Served) -> None:
    answers = asyncio.run(ask_all(gateway.url))
    assert len(answers) == CLIENTS
    assert {reason for *_, reason in answers} == {"stop"}
    assert len({text for _, _, _, text, _ in answers}) == 1, "an answer was cut or crossed"
    assert len(answers[0][3]) > 300
    lives = _LIFE.findall(gateway.log())
    assert {name for word, name in lives if word == "loaded"} == set(MODELS)
    assert sum(word == "loaded" for word, _ in lives) <= OPTIMUM * 1.5
    there = most = 0
    for word, _ in lives:
        there += 1 if word == "loaded" else -1
        most = max(most, there)
    assert most == FIT


def main() -> None:
    with TemporaryDirectory() as folder, serving(config(Path(folder))) as gateway:
        answers = asyncio.run(ask_all(gateway.url))
        for name in MODELS:
            ends = [end for _, end, model, _, _ in answers if model == name]
            print(f"{name}: {len(ends)} answers between {min(ends):.2f} and {max(ends):.2f} s")
        print(" ".join(f"{'+' if word == 'loaded' else '-'}{name}" for word, name in _LIFE.findall(gateway.log())))


if __name__ == "__main__":
    main()

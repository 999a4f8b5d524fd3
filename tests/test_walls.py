"""kill -9 of an isolated engine in the middle of an answer, on both engines, behind the real gateway, in every dialect.

Its own requests end with an error in their dialect, streamed or whole, and nobody else's; the next one is answered by a
new process. The model talks without end, and slowly, so that there is a middle; each test kills one of its own, for
deaths are counted.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import statistics
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.loras import write_lora
from tests.serving import ROOT, Served, serving
from tests.test_clients_break import WAYS, completion, responses
from tests.test_cuts import ASKS as ALL_ASKS
from tests.test_cuts import judge
from tests.test_llama_cpp import COMPILED

WITHIN = 5.0
"""Seconds in which a death is told."""
GRACE = 1.0
"""Seconds that the first answer after a death may take beyond a load."""
ASKS = {path: {key: value for key, value in ask.items() if key != "think"} for path, ask in ALL_ASKS.items()}
ASKS["/v1/completions"] |= {"max_tokens": 2000, "ignore_eos": True}
SEEN = [way for way in WAYS if way.ask not in {completion, responses}]
"""The methods of the official clients that show a word when it comes, and get more than a few."""
TALKERS = [
    *(f"talker{number}" for number in range(3)),
    *(f"client{number}" for number in range(3)),
    "whole",
    "other",
    "idle",
]
"""A model can die twice before that counts as a pattern."""
CONFIG = """
listeners: [{{port: 0}}]
backends:
  local: {{type: llama_cpp, models_dir: {folder}, threads: 1, engine: {engine}, isolation: process}}
models:
  - {{id: embed, backend: local, file: embed.gguf}}
"""
TALKER = "  - {{id: {name}, backend: local, file: pip.gguf, lora: [slow.gguf], chat_template: X, temperature: 0, slots: 8}}\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("walls")
    for name in ("pip.gguf", "embed.gguf"):
        (folder / name).write_bytes((ROOT / "models" / name).read_bytes())
    write_lora(folder / "slow.gguf", rank=4096)
    return folder


WORD = re.compile(rb'"(?:content|response|text|delta)":"[^"]')
"""Some text in a stream, of any dialect."""


@pytest.fixture(scope="module", params=["xllamacpp", pytest.param("llama-cpp-python", marks=COMPILED)])
def served(request: pytest.FixtureRequest, folder: Path) -> Iterator[Served]:
    talkers = "".join(TALKER.format(name=name) for name in TALKERS)
    with serving(CONFIG.format(folder=folder, engine=request.param) + talkers.replace("{{", "{")) as gateway:
        yield gateway


def worker(served: Served, model: str) -> int:
    """The process of a model that is loaded."""
    gateway = served.process.pid
    for child in Path(f"/proc/{gateway}/task/{gateway}/children").read_text().split():
        words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        if words[-2:-1] == [model.encode()]:
            return int(child)
    raise AssertionError(f"{model} has no process")


def kill(served: Served, model: str) -> float:
    os.kill(worker(served, model), signal.SIGKILL)
    return time.monotonic()


@contextmanager
def sent(served: Served, path: str, body: dict[str, Any]) -> Iterator[http.client.HTTPConnection]:
    line = http.client.HTTPConnection(urlsplit(served.url).netloc, timeout=30)
    try:
        line.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        yield line
    finally:
        line.close()


@contextmanager
def asked(served: Served, path: str, body: dict[str, Any]) -> Iterator[http.client.HTTPResponse]:
    with sent(served, path, body) as line:
        yield line.getresponse()


def word(served: Served, model: str) -> float:
    """Seconds that an answer of one token takes, loading included."""
    begun = time.monotonic()
    body = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    with asked(served, "/v1/chat/completions", body) as answer:
        told = json.load(answer)
    assert answer.status == 200, told
    return time.monotonic() - begun


def test_a_streamed_answer_ends_in_an_error_of_its_dialect_and_the_next_comes(served: Served) -> None:
    loads, told, again = [], [], []
    for number, (path, ask) in enumerate(ASKS.items()):
        model = f"talker{number // 2}"
        loads += [] if number % 2 else [word(served, model)]
        with asked(served, path, {"model": model, "stream": True, **ask}) as answer:
            assert answer.status == 200, answer.read()
            body = b""
            while not WORD.search(body):  # some begin with frames that say nothing yet
                line = answer.readline()
                assert line, body
                body += line
            killed = kill(served, model)
            body += answer.read()
            told.append(time.monotonic() - killed)
        again.append(word(served, model))
        well, text = judge(path, body)
        assert not well, path
        assert text, path
        assert b"SIGKILL" in body, path
    assert max(told) < WITHIN
    assert min(again) <= statistics.median(loads) + GRACE  # the quickest of six: a busy machine holds up any one
    print(f"loads {loads}, told after {told}, next answers after {again}")


def test_whole_answers_fail_with_a_status_in_every_dialect_at_once_and_no_other_models(served: Served) -> None:
    for model in ("whole", "other"):
        word(served, model)
    beside = {"model": "other", **ASKS["/api/chat"], "options": {"num_predict": 200}}
    with asked(served, "/api/chat", beside) as other, ExitStack() as open_lines:
        first, process = other.readline(), worker(served, "other")
        lines = {
            path: open_lines.enter_context(sent(served, path, {"model": "whole", **ask, "stream": False}))
            for path, ask in ASKS.items()
        }
        # Taken in the order of their coming: when the last has a word, all are being answered.
        with asked(served, "/api/chat", {"model": "whole", **ASKS["/api/chat"]}) as last:
            assert last.readline()
            kill(served, "whole")
        for path, line in lines.items():
            answer = line.getresponse()
            error = json.load(answer)["error"]
            assert (answer.status, answer.headers.get_content_type()) == (502, "application/json"), path
            assert "ended by SIGKILL" in (error if path.startswith("/api/") else error["message"]), path
        well, text = judge("/api/chat", first + other.read())
        assert well
        assert len(text) >= 200
        assert worker(served, "other") == process
    word(served, "whole")


@pytest.mark.parametrize("served", ["xllamacpp"], indirect=True)
def test_the_official_clients_raise_their_own_error(served: Served) -> None:
    for number, way in enumerate(SEEN):
        model = f"client{number // 2}"
        word(served, model)
        talk = Talk(served, model)
        with pytest.raises(way.error, match="SIGKILL"):
            way.ask(served.url, model, talk.say)
        assert talk.said, model


class Talk:
    """Kills the one who talks at the first word."""

    def __init__(self, served: Served, model: str) -> None:
        self.served, self.model, self.said = served, model, ""

    def say(self, text: str) -> None:
        if text and not self.said:
            kill(self.served, self.model)
        self.said += text


def test_a_death_while_idle_costs_nobody_anything(served: Served) -> None:
    word(served, "idle")
    process = worker(served, "idle")
    os.kill(process, signal.SIGKILL)
    while "'idle' ended by SIGKILL" not in served.log():
        pass
    word(served, "idle")
    assert worker(served, "idle") != process

"""A gateway whose model paints: torch is in a process beside it that steps back behind all else, and all memory comes back."""

from __future__ import annotations

import base64
import contextlib
import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.serving import Served, serving

CONFIG = """
listeners: [{port: 0, dialects: [openai]}]
backends:
  demo: {type: echo}
  painter: {type: diffusers, models_dir: ./models/painting, threads: 1, device: cpu, nice: 7}
models:
  - {id: brief, backend: painter, folder: tiny-sdxl-base, keep_alive: 0, steps: 4}
"""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(CONFIG) as gateway:
        yield gateway


@contextlib.contextmanager
def painting(served: Served, model: str) -> Iterator[Iterator[dict[str, Any]]]:
    """The events of a picture as they come."""
    body = {"model": model, "prompt": "a red circle", "seed": 3, "size": "64x64", "stream": True, "partial_images": 1}
    request = urllib.request.Request(
        f"{served.url}/v1/images/generations", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        yield (json.loads(line[6:]) for line in answer if line.startswith(b"data: {"))


def children(served: Served) -> list[str]:
    pid = served.process.pid
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def memory(served: Served) -> int:
    """Kilobytes of the gateway and all its children, each page once."""
    found = 0
    for pid in (str(served.process.pid), *children(served)):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        found += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return found


def has_torch(pid: str | int) -> bool:
    return "libtorch" in Path(f"/proc/{pid}/maps").read_text()


def niceness(pid: str | int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[16])


def test_a_model_paints_in_a_process_beside_whose_memory_all_comes_back(served: Served) -> None:
    """Within 5 %: the process that held the model is gone, and the gateway's own holds on to nothing of its pictures."""
    with painting(served, "demo/echo") as events:
        assert [event["type"] for event in events][-1] == "image_generation.completed"
    before = memory(served)  # what jobs take is there now
    with painting(served, "brief") as events:
        assert next(events)["type"] == "image_generation.partial_image"
        (worker,) = children(served)
        during = memory(served)
        assert has_torch(worker)
        assert niceness(worker) == min(19, niceness(served.process.pid) + 7), "chats go first"
        last = list(events)[-1]
    assert last["type"] == "image_generation.completed"
    assert base64.b64decode(last["b64_json"]).startswith(b"\x89PNG")
    deadline = time.monotonic() + 10
    while children(served):
        assert time.monotonic() < deadline, "the worker stays"
        time.sleep(0.02)
    after = memory(served)
    assert during > 3 * before
    assert after < before * 1.05, (before, after)
    assert not has_torch(served.process.pid)

"""A job of a real model whose worker is killed, and then its gateway: it ends with the same bytes as one that nobody disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.serving import serving

CONFIG = """
listeners: [{{port: 0, dialects: [images]}}]
backends:
  painter: {{type: diffusers, models_dir: ./models/painting, threads: 1, device: cpu}}
data_dir: {data}
"""
STEPS = 10
ASKED = {
    "prompt": "a red circle",
    "model": "tiny-sdxl-base",
    "seed": 3,
    "n": 2,
    "width": 64,
    "height": 64,
    "steps": STEPS,
}


def until(client: httpx.Client, job: str, so_far: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    deadline = time.monotonic() + 100
    while not so_far(told := client.get(f"/status/{job}").raise_for_status().json()):
        assert time.monotonic() < deadline, told
        time.sleep(0.01)
    return dict(told)


def pictures(client: httpx.Client, job: str) -> list[bytes]:
    return [client.get(f"/image/{job}", params={"index": index}).raise_for_status().content for index in range(2)]


def attempts(data: Path) -> list[tuple[int]]:
    with contextlib.closing(sqlite3.connect(data / "dragoman.db", timeout=30)) as db:
        return db.execute("SELECT attempt FROM jobs ORDER BY number").fetchall()


def test_a_picture_is_the_same_whoever_died_over_it(tmp_path: Path) -> None:
    config = CONFIG.format(data=tmp_path)
    with serving(config) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        job = client.post("/generate", json=ASKED).raise_for_status().json()["job_id"]
        until(client, job, lambda told: told["meta"]["current"] >= 1)
        pid = gateway.process.pid
        (worker,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(worker), signal.SIGKILL)
        until(client, job, lambda told: told["meta"]["current"] >= STEPS + 1)
        assert attempts(tmp_path) == [(2,)]
        gateway.process.kill()
        gateway.process.wait()
    with serving(config) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        until(client, job, lambda told: told["state"] == "SUCCESS")
        undisturbed = client.post("/generate", json=ASKED).raise_for_status().json()["job_id"]
        until(client, undisturbed, lambda told: told["state"] == "SUCCESS")
        assert pictures(client, job) == pictures(client, undisturbed)
        assert attempts(tmp_path) == [(3,), (1,)]

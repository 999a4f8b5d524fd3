"""The real gateway is stopped and killed in the middle of a job: it is found again, gone on with, and done."""

from __future__ import annotations

import contextlib
import sqlite3
import time
from pathlib import Path
from typing import Any

import httpx
from msgspec import structs

from backends.echo_painting import painted_echo, prepared_echo
from canonical.painting import Paint, Painted
from tests.serving import Served, serving

CONFIG = """
listeners: [{{port: 0, dialects: [images]}}]
backends: {{demo: {{type: echo}}}}
data_dir: {data}
"""
ASKED = {"prompt": "a lighthouse", "width": 2048, "height": 2048, "steps": 20, "seed": 4, "n": 10}
"""A tenth of a second for each picture, and no moment of sleep."""


def rows(data: Path) -> list[tuple[Any, ...]]:
    with contextlib.closing(sqlite3.connect(data / "dragoman.db", timeout=30)) as db:
        return db.execute("SELECT state, attempt FROM jobs").fetchall()


def pictures(data: Path) -> list[Path]:
    return list((data / "pictures").glob("*.png"))


def until_painted(gateway: Served, data: Path, count: int) -> None:
    """Wait until so many are kept."""
    deadline = time.monotonic() + 30
    while len(pictures(data)) < count:
        assert time.monotonic() < deadline, gateway.log()
        time.sleep(0.002)


def ended(client: httpx.Client, job: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while True:
        told: dict[str, Any] = client.get(f"/status/{job}", params={"wait": 10}).raise_for_status().json()
        if told["state"] in {"SUCCESS", "FAILURE", "REVOKED"}:
            return told
        assert time.monotonic() < deadline


def test_a_job_outlives_the_end_and_the_death_of_its_gateway(tmp_path: Path) -> None:
    config = CONFIG.format(data=tmp_path)
    with serving(config) as gateway:
        job = httpx.post(f"{gateway.url}/generate", json=ASKED).raise_for_status().json()["job_id"]
        until_painted(gateway, tmp_path, 1)
        gateway.process.terminate()
        assert gateway.process.wait(20) == 0
    assert rows(tmp_path) == [("queued", 0)], "it is given back, and the attempt does not count"
    kept = len(pictures(tmp_path))
    assert kept < 8
    with serving(config) as gateway:
        until_painted(gateway, tmp_path, kept + 1)
        gateway.process.kill()
        gateway.process.wait()
    assert rows(tmp_path) == [("running", 1)]
    with serving(config) as gateway, httpx.Client(base_url=gateway.url, timeout=60) as client:
        ended(client, job)
        found = [client.get(f"/image/{job}", params={"index": index}).raise_for_status().content for index in range(10)]
    assert rows(tmp_path) == [("done", 2)]
    request = structs.replace(prepared_echo(Paint(**{**ASKED, "model": ""})), model="echo")  # type: ignore[arg-type]
    wanted = [event.image.data for event in painted_echo(request) if isinstance(event, Painted)]
    assert found == wanted, "the same pictures as if nothing had happened"
    assert len(pictures(tmp_path)) <= 11, "what was finished was not painted again"

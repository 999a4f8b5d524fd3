"""The real gateway is stopped and killed in the middle of a job: it is found again, gone on with, and done."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

from msgspec import structs

from backends.echo_painting import painted_echo, prepared_echo
from canonical.painting import Paint, Painted
from tests.gated import Gate
from tests.job_processes import gateway, kill, until

CONFIG = """
listeners: [{{port: 0, dialects: [images]}}]
backends: {{gated: {{type: "tests.gated:GatedBackend", folder: {folder}/gate}}}}
data_dir: {folder}/data
"""
ASKED: dict[str, Any] = {"prompt": "lighthouse", "steps": 4, "seed": 4, "n": 3}


def test_a_job_outlives_the_end_and_the_death_of_its_gateway(tmp_path: Path) -> None:
    config, gate = tmp_path / "config.yaml", Gate(tmp_path / "gate")
    config.write_text(CONFIG.format(folder=tmp_path))

    def painted(steps: int) -> None:
        gate.let("lighthouse", steps)
        until(lambda: gate.done(f"step-{steps}", "lighthouse"))

    def kept() -> tuple[list[tuple[Any, ...]], int]:
        with contextlib.closing(sqlite3.connect(tmp_path / "data" / "dragoman.db", timeout=30)) as db:
            rows = db.execute("SELECT state, attempt FROM jobs").fetchall()
        return rows, len(list((tmp_path / "data" / "pictures").glob("*.png")))

    gate.let("lighthouse", 0)
    with gateway(config) as client:
        job = client.submit(**ASKED)
        painted(4 + 2)
        client.served.process.terminate()
        assert client.served.process.wait(30) == 0
    assert kept() == ([("queued", 0)], 1), "it is given back, and the attempt does not count"
    with gateway(config) as client:
        painted(4 + 3)  # of the two that are left
        kill(client)
    assert kept() == ([("running", 1)], 2)
    with gateway(config) as client:
        gate.let("lighthouse")
        client.until(job, "SUCCESS")
        found = [client.ask("GET", f"/image/{job}?index={index}") for index in range(3)]
    assert kept() == ([("done", 2)], 3)
    request = structs.replace(prepared_echo(Paint(**ASKED)), model="echo")
    wanted = [event.image.data for event in painted_echo(request) if isinstance(event, Painted)]
    assert found == [(200, data) for data in wanted], "the same pictures as if nothing had happened"
    assert len(gate.done("step-1", "lighthouse")) == 3
    assert len(gate.done("step-12", "lighthouse")) == 0, "what was finished was not painted again"

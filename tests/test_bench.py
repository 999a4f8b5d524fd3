"""The benchmark kit: it builds, and a tiny run against the fake upstream alone counts no errors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from gateway.config import load

KIT = Path(__file__).parent.parent / "bench"

needs_compiler = pytest.mark.skipif(
    shutil.which(os.environ.get("CC", "cc")) is None, reason="no C compiler on this machine"
)


@needs_compiler
def test_the_kit_builds_and_a_tiny_run_has_no_errors(tmp_path: Path) -> None:
    out = tmp_path / "result.json"
    command = [sys.executable, KIT / "run.py", "bench", "-t", KIT / "anchors.toml", "-T", "direct", "-r", "1"]
    command += ["-s", "json-c1,sse-burst", "--scale", "0.1", "--prime", "0.02", "-o", out]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.returncode == 0, run.stderr
    assert "### json-c1" in run.stdout
    assert "### sse-burst" in run.stdout
    assert run.stdout.count("| direct |") == 2
    results = json.loads(out.read_text())["results"]
    assert {result["scenario"] for result in results} == {"json-c1", "sse-burst"}
    for result in results:
        assert result["ok"] > 0
        assert result["errors"] == 0, result["first_bad"]
    burst = next(result for result in results if result["scenario"] == "sse-burst")
    assert burst["chunks"] >= 64


TARGETS = tomllib.loads((KIT / "targets.toml").read_text())["target"]


@pytest.mark.parametrize("target", TARGETS, ids=[target["name"] for target in TARGETS])
def test_our_targets_have_good_configurations(target: dict[str, Any], tmp_path: Path) -> None:
    text = target["files"]["config.yaml"].replace("@PORT@", "8080").replace("@UPSTREAM@", "http://127.0.0.1:9000")
    path = tmp_path / "config.yaml"
    path.write_text(text)
    assert {model.id for model in load(path).models} == {"mock-64-0", "mock-64-5ms", "mock-100-50ms"}

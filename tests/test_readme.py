"""Every example of README.md runs as printed, against the gateway as it ships."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway import config
from tests.serving import ROOT, Served, serving

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
EXAMPLES = [(kind, code) for kind, code in BLOCKS if kind in {"sh", "python", "js"} and "make serve" not in code]

PICTURES = re.findall(r"^    (curl -s [^\n]+\n[^\n]+ > circle\.png)$", README, re.MULTILINE)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    shipped = (ROOT / "config.yaml").read_text()
    with serving(shipped.replace("port: 11434", "port: 0", 1)) as served:
        yield served


@pytest.mark.parametrize(("kind", "code"), EXAMPLES, ids=[f"{n}-{kind}" for n, (kind, _) in enumerate(EXAMPLES)])
def test_example(gateway: Served, tmp_path: Path, kind: str, code: str) -> None:
    code = code.replace("http://127.0.0.1:11434", gateway.url)
    assert gateway.url in code
    if kind == "js":
        if shutil.which("node") is None:
            pytest.skip("the JavaScript examples need Node")
        (tmp_path / "node_modules").symlink_to(ROOT / "tests" / "js" / "node_modules")
    file = tmp_path / {"sh": "example.sh", "python": "example.py", "js": "example.mjs"}[kind]
    file.write_text(code)
    program = {"sh": "sh", "python": sys.executable, "js": "node"}[kind]
    place = tmp_path if kind == "python" else ROOT  # some write files
    run = subprocess.run(
        [program, file], capture_output=True, text=True, timeout=60, check=False, env=os.environ, cwd=place
    )
    assert run.returncode == 0, run.stderr
    text = "".join(re.findall(r'"content":"([^"]*)"', run.stdout)) or run.stdout
    assert (
        "Paris." in text
        or "7 + 8 = 15" in text
        or '"relevance_score":' in text
        or "Bonjour !" in text
        or "garçon" in text
        or "a red circle" in text
        or '"status":"completed"' in text
    )
    assert ('"best":"red"' in text) == ("images/analyze" in code)
    for promised in re.findall(r"^# (.+)$", code, re.MULTILINE) if kind == "python" else ():
        assert promised in run.stdout.splitlines()


@pytest.mark.parametrize("code", PICTURES)
def test_a_picture_is_one_request(gateway: Served, tmp_path: Path, code: str) -> None:
    assert "http://127.0.0.1:11434" in code
    code = code.replace("http://127.0.0.1:11434", gateway.url)
    subprocess.run(["sh", "-c", code], timeout=60, check=True, cwd=tmp_path)
    assert (tmp_path / "circle.png").read_bytes().startswith(b"\x89PNG")


def test_there_are_examples_of_every_kind() -> None:
    assert {kind for kind, _ in EXAMPLES} == {"sh", "python", "js"}
    assert PICTURES


def test_configuration_examples_are_good(tmp_path: Path) -> None:
    found = [code for kind, code in BLOCKS if kind == "yaml"]
    assert found
    for code in found:
        path = tmp_path / "config.yaml"
        path.write_text(code)
        assert config.load(path, {"CLOUD_KEY": "sk-secret-key", "PASSWORD": "a-password"}).models

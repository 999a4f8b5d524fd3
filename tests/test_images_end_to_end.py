"""The image-job API with real models (promises I1 to I10): the scripts of its document, as printed, all at once against one gateway."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import requests
from PIL import Image

from canonical.media import image_size
from tests.serving import ROOT, Served, serving

for package in ("diffusers", "torch"):
    pytest.importorskip(package)
for program in ("bash", "curl", "jq"):
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed", allow_module_level=True)

EXAMPLES = Path(__file__).parent / "images_examples"
PRINTED = "http://localhost:8009"
CONFIG = """
listeners: [{port: 0, dialects: [images]}, {port: 0}]
backends:
  painter: {type: diffusers, models_dir: ./models/painting, loras_dir: %s, threads: 1}
models:
  - {id: sdxl-base, backend: painter, folder: tiny-sdxl-base, title: SDXL Base 1.0, steps: 8, loras: []}
  - id: pony-xl-v6
    backend: painter
    file: tiny-pony.safetensors
    title: PonyXL v6
    steps: 8
    loras: [style-anime, character-detailed]
"""
BODY = '{"prompt": "a red square", "model": "sdxl-base"}'
READY = 'until [ "$(curl -s .../status/$JOB_ID | jq -r .state)" = SUCCESS ]; do sleep 0.2; done\n'
QUICK = "sleep() { :; }\n"
"""Of a test that sleeps for minutes: what it waits for is there at once."""


def script(name: str) -> str:
    """One that the document prints, its gaps filled."""
    text = (EXAMPLES / name).read_text()
    match name:
        case "first.sh":
            head, tail = text.split("# Réponse: 7f2b0887-3cdf-46ff-b83b-ff7685ac5b23\n")
            text = f"JOB_ID=$({head})\n" + tail.replace("7f2b0887-3cdf-46ff-b83b-ff7685ac5b23", "$JOB_ID")
        case "before.sh" | "now.sh":
            text = text.replace("'...'", f"'{BODY}'").replace("# 3. Téléch", READY + "# 3. Téléch")
            text = text.replace("FILENAME=", READY + "FILENAME=")
        case "test_1.sh":
            text = QUICK + text
        case "pony.py.txt" | "batch.py.txt":
            text = (EXAMPLES / "dragon.py.txt").read_text().partition("# Utilisation")[0] + text
    return text


class Run:
    """A script that runs in a folder of its own."""

    def __init__(self, name: str, url: str, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        text = script(name).replace(PRINTED, url).replace(".../", f"{url}/")
        command = ["bash", "-c", text] if name.endswith(".sh") else [sys.executable, "-c", text]
        quiet = {**os.environ, "no_proxy": "*", "PYTHONIOENCODING": "utf-8"}
        self._process = subprocess.Popen(
            command, cwd=folder, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._said = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._said = self._process.stdout.read()

    def said(self) -> str:
        """All that it has written, once it is over."""
        self._reader.join(100)
        assert self._process.wait(1) == 0, self._said
        return self._said.decode("utf-8", "replace")

    def picture(self, name: str) -> bytes:
        """A picture that it has made."""
        said = self.said()
        data = (self.folder / name).read_bytes()
        assert data.startswith(b"\x89PNG"), (data[:200], said)
        assert image_size(data) == (64, 64)
        return data

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    loras = tmp_path_factory.mktemp("loras")
    for ours, theirs in (("night", "style-anime"), ("frame-kohya", "character-detailed")):
        for end in ("json", "safetensors"):
            shutil.copy(ROOT / f"models/painting/loras/{ours}.{end}", loras / f"{theirs}.{end}")
    with serving(CONFIG % loras, listeners=2) as served:
        yield served


@pytest.fixture(scope="module")
def runs(gateway: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Run]]:
    """All scripts, begun at once: most of their time they sleep."""
    folder = tmp_path_factory.mktemp("scripts")
    with contextlib.ExitStack() as stack:
        begun: dict[str, Run] = {}
        for path in sorted(EXAMPLES.glob("*.[ps][hy]*")):
            begun[path.name] = Run(path.name, gateway.url, folder / path.name)
            stack.callback(begun[path.name].kill)
        yield begun


@pytest.fixture(scope="module")
def client() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def seen(picture: bytes) -> bytes:
    """What of a picture is seen: its text says what it was made from, and so always differs."""
    return Image.open(BytesIO(picture)).tobytes()


def made(client: requests.Session, url: str, **fields: Any) -> requests.Response:
    """The picture of a request."""
    answer = client.post(f"{url}/generate", json={"model": "sdxl-base", **fields}, timeout=30)
    assert answer.status_code == 200, answer.text
    picture = client.get(f"{url}/image/{answer.json()['job_id']}?wait=60", timeout=90)
    assert picture.status_code == 200, picture.text
    return picture


def test_i3_the_documents_first_example(runs: dict[str, Run]) -> None:
    assert runs["first.sh"].picture("sunset.png")


def test_i2_i4_the_documents_way_before_in_three_steps(runs: dict[str, Run]) -> None:
    assert runs["before.sh"].picture("image.png")


def test_i3_the_documents_loop_ends_with_a_picture(runs: dict[str, Run]) -> None:
    assert runs["now.sh"].picture("image.png")


def test_i3_the_documents_first_test(runs: dict[str, Run]) -> None:
    """Its second request comes back with the picture: curl is held, or the loop above would end with a 202."""
    assert runs["test_1.sh"].picture("test.png")
    assert "PNG image data, 64 x 64" in runs["test_1.sh"].said() or shutil.which("file") is None


def test_i3_the_documents_second_test(runs: dict[str, Run]) -> None:
    assert "HTTP/1.1 404 Not Found" in runs["test_2.sh"].said()


def test_i8_i9_the_documents_third_test(runs: dict[str, Run]) -> None:
    assert runs["test_3.sh"].picture("pony_test.png")
    assert "✅ Téléchargé: pony_test.png" in runs["test_3.sh"].said()


def test_i3_the_documents_python_script(runs: dict[str, Run]) -> None:
    said = runs["dragon.py.txt"].said()
    assert runs["dragon.py.txt"].picture("dragon.png")
    metadata = json.loads(said.partition("Metadata: ")[2].splitlines()[0])
    assert (metadata["model"], metadata["steps"]) == ("sdxl-base", 30)


def test_i9_the_documents_script_with_adapters(runs: dict[str, Run]) -> None:
    assert runs["pony.py.txt"].picture("anime_girl.png")
    metadata = json.loads(runs["pony.py.txt"].said().partition("Metadata: ")[2].splitlines()[0])
    assert {one["name"]: one["weight"] for one in metadata["loras"]} == {"style-anime": 0.75, "character-detailed": 0.8}
    assert (metadata["guidance_scale"], metadata["seed"], metadata["steps"]) == (8.0, 42, 35)


def test_i10_the_documents_batch_with_seeds(runs: dict[str, Run]) -> None:
    pictures = {seen(runs["batch.py.txt"].picture(f"city_variation_{index}.png")) for index in range(5)}
    assert len(pictures) == 5


def test_i5_i6_models_and_adapters_as_the_document_has_them(gateway: Served, client: requests.Session) -> None:
    models = {one["id"]: one for one in client.get(f"{gateway.url}/models", timeout=30).json()["models"]}
    assert models["sdxl-base"]["name"] == "SDXL Base 1.0"
    assert models["sdxl-base"]["supported_loras"] == []
    assert models["pony-xl-v6"]["name"] == "PonyXL v6"
    assert models["pony-xl-v6"]["supported_loras"] == ["style-anime", "character-detailed"]
    loras = {one["id"]: one for one in client.get(f"{gateway.url}/loras", timeout=30).json()["loras"]}
    assert {"name", "default_weight", "trigger_words"} <= set(loras["style-anime"])
    assert loras["style-anime"]["default_weight"] == 0.6


def test_i10_the_header_of_a_picture_posted_back_gives_its_bytes(gateway: Served, client: requests.Session) -> None:
    stack = [{"name": "style-anime"}, {"name": "character-detailed", "weight": 0.5}]
    first = made(client, gateway.url, prompt="a blue circle", model="pony-xl-v6", loras=stack, steps=6)
    recipe = json.loads(first.headers["X-Generation-Metadata"])
    assert made(client, gateway.url, **recipe).content == first.content
    assert seen(made(client, gateway.url, **{**recipe, "seed": recipe["seed"] ^ 1}).content) != seen(first.content)
    assert seen(made(client, gateway.url, **{**recipe, "loras": []}).content) != seen(first.content)
    swapped = {**recipe, "loras": recipe["loras"][::-1]}
    assert made(client, gateway.url, **swapped).content == first.content


def test_i10_a_picture_that_began_with_another_is_made_again_from_its_recipe(
    gateway: Served, client: requests.Session
) -> None:
    began = made(client, gateway.url, prompt="a green square", seed=1, steps=6).content
    refined = made(client, gateway.url, prompt="a red square", image=b64encode(began).decode(), strength=0.5, seed=2)
    recipe = json.loads(refined.headers["X-Generation-Metadata"])
    assert made(client, gateway.url, **recipe).content == refined.content


def test_who_names_a_model_that_paints_gets_a_job_where_all_apis_are(gateway: Served, client: requests.Session) -> None:
    common = gateway.urls[1]
    assert made(client, common, prompt="a red square", steps=2).headers["X-Job-ID"]
    answer = client.post(f"{common}/generate", json={"prompt": "x", "model": "sdxl-bass"}, timeout=30)
    assert answer.status_code == 404
    assert "did you mean 'sdxl-base'" in answer.json()["error"]

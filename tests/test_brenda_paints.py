"""Brenda's pictures from a real diffusion model, as her document's readers ask for them: curl, Python, and a page (``test_browser``)."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
from PIL import Image, ImageStat

from tests.eventsource import heard
from tests.serving import Served, serving

CONFIG = """
listeners: [{port: 0, dialects: [brenda]}]
backends:
  painter: {type: diffusers, models_dir: ./models/painting, threads: 1}
models:
  - {id: sdxl-turbo, backend: painter, folder: tiny-sdxl-turbo}
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with serving(CONFIG) as served:
        yield served


def colour(image: Image.Image) -> list[float]:
    """The mean of the picture's middle."""
    width, height = image.size
    middle = image.convert("RGB").crop((width * 3 // 8, height * 3 // 8, width * 5 // 8, height * 5 // 8))
    return ImageStat.Stat(middle).mean


def opened(image: str) -> Image.Image:
    """The picture of a last event."""
    picture = Image.open(BytesIO(base64.b64decode(image)))
    assert picture.format == "PNG"
    picture.load()
    return picture


def test_b11_curl_sees_progress_and_then_the_picture(gateway: Served, tmp_path: Path) -> None:
    command = f"""curl -sN -D {tmp_path}/head -X POST {gateway.url}/v1/images/generate -H "Content-Type: application/json" -d '{{
        "model_type": "sdxl-turbo",
        "prompt": "a red square",
        "negative_prompt": "blue",
        "width": 64,
        "height": 64,
        "steps": 8
    }}'"""
    said = subprocess.run(["bash", "-c", command], capture_output=True, timeout=120, check=True).stdout
    *progress, last = (json.loads(one.data) for one in heard(said))
    shares = [one["progress"] for one in progress]
    assert (shares[0], shares[-1]) == (0, 1)
    assert len(shares) > 3, "it is watched step by step"
    red, green, blue = colour(opened(last["image"]))
    assert red > 100 > max(green, blue)
    assert last["status"] == "completed"
    assert "x-session-id" in (tmp_path / "head").read_text().lower()


def test_b11_b15_python_refines_what_it_had_made(gateway: Served) -> None:
    """Asked for without a model, a size or steps: sdxl-turbo's, of its own size, in the document's 20 steps."""

    def events(path: str, body: dict[str, object]) -> Iterator[dict[str, str]]:
        with httpx.stream("POST", gateway.url + path, json=body, timeout=120) as response:
            response.raise_for_status()
            for line in response.iter_lines():
                if line.startswith("data: "):
                    yield json.loads(line[6:])

    images: list[str] = []
    for path, body in (
        ("/v1/images/generate", {"prompt": "a blue circle", "seed": 3}),
        ("/v1/images/refine", {"prompt": "a yellow circle", "seed": 3, "strength": 0.9}),
    ):
        if images:
            body["image"] = f"data:image/png;base64,{images[-1]}"
        for event in events(path, body):
            assert "error" not in event, event
            if event.get("status") == "completed":
                assert (event["model"], event["steps"], event["seed"]) == ("sdxl-turbo", 20, 3)
                images.append(event["image"])
    before, after = map(opened, images)
    assert before.size == after.size == (64, 64)
    assert colour(before)[2] > colour(before)[0]
    assert colour(after)[0] > colour(before)[0] + 60, "it became yellow"


def test_b16_jpeg_and_webp_are_refined_too_and_come_back_as_png(gateway: Served) -> None:
    image = Image.new("RGB", (64, 64), (128, 128, 128))
    for form in ("JPEG", "WEBP"):
        out = BytesIO()
        image.save(out, form)
        body = {"prompt": "a red square", "steps": 4, "image": base64.b64encode(out.getvalue()).decode()}
        (*_, last) = heard(httpx.post(f"{gateway.url}/v1/images/refine", json=body, timeout=120).content)
        assert opened(json.loads(last.data)["image"]).size == (64, 64)


def test_b12_the_models_that_paint(gateway: Served) -> None:
    told = httpx.get(f"{gateway.url}/v1/images/models").json()
    assert sorted(told) == ["models"]
    assert set(told["models"]) >= {"sdxl-turbo", "tiny-sdxl-base"}
    assert httpx.get(f"{gateway.url}/v1/models").json() == {"models": []}, "nobody chats with one"


def test_b10_a_stop_ends_a_real_picture_within_a_step(gateway: Served) -> None:
    session = {"X-Session-ID": "painting"}
    body = {"prompt": "a red square", "steps": 400}
    stopped, last = 0, {}
    with httpx.stream("POST", f"{gateway.url}/v1/images/generate", json=body, headers=session, timeout=120) as response:
        for line in response.iter_lines():
            if line.startswith("data: "):
                last = json.loads(line[6:])
                if last.get("progress") and not stopped:
                    stopped += 1
                    stop = httpx.post(f"{gateway.url}/v1/stop", headers=session, timeout=60)
                    assert (stop.status_code, stop.json()) == (200, {"status": "stopped"})
    assert stopped == 1
    assert last == {"error": "the picture was stopped"}

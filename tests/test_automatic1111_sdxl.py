"""A1111's API over a real model: what a picture says of itself is read by others, and makes it again to the byte."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from io import BytesIO

import httpx
import pytest
from PIL import Image

from adapters.recipe import of_png
from tests.serving import Served, serving

CONFIG = """
listeners: [{port: 0, dialects: [automatic1111, images]}]
backends: {painter: {type: diffusers, models_dir: ./models/painting, device: cpu, threads: 1}}
defaults: {paint: tiny-sdxl-base}
"""
CIRCLE = {
    "prompt": "a red circle, Würfel <lora:night:0.5> <lora:frame-kohya:0.25>",
    "negative_prompt": "blurry",
    "sampler_name": "DPM++ 2M",
    "scheduler": "Karras",
    "steps": 3,
    "width": 64,
    "height": 64,
}


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    served: Served
    with serving(CONFIG) as served, httpx.Client(base_url=served.url, timeout=60) as found:
        yield found


def test_i3_a_picture_of_a_real_model_is_made_again_from_what_it_says(client: httpx.Client) -> None:
    reply = client.post("/sdapi/v1/txt2img", json=CIRCLE)
    assert reply.status_code == 200, reply.text
    png = base64.b64decode(reply.json()["images"][0])
    info = json.loads(reply.json()["info"])
    with Image.open(BytesIO(png)) as picture:
        picture.load()
        assert picture.size == (64, 64)
        assert picture.info["parameters"] == info["infotexts"][0]
        assert f"Seed: {info['seed']}, Size: 64x64, Model: tiny-sdxl-base" in picture.info["parameters"]
        assert "Sampler: DPM++ 2M, Schedule type: Karras" in picture.info["parameters"]
        posted = picture.info["dragoman"]
    assert "comments" not in info
    by_text = client.post("/sdapi/v1/txt2img", json={"infotext": info["infotexts"][0]})
    assert base64.b64decode(by_text.json()["images"][0]) == png
    job = client.post("/generate", content=posted).json()["job_id"]
    by_json = client.get(f"/image/{job}", params={"wait": 60})
    assert by_json.content == png
    assert by_json.headers["x-generation-metadata"] == posted
    other = {**json.loads(posted), "seed": (info["seed"] + 1) % 2**32}
    job = client.post("/generate", json=other).json()["job_id"]
    assert client.get(f"/image/{job}", params={"wait": 60}).content != png


def test_i3_a_picture_made_of_another_is_made_again_with_its_pictures(client: httpx.Client) -> None:
    packed = BytesIO()
    Image.new("RGB", (64, 64), "red").save(packed, "PNG")
    mask = BytesIO()
    Image.linear_gradient("L").resize((64, 64)).save(mask, "PNG")
    begun, masked = (base64.b64encode(one.getvalue()).decode() for one in (packed, mask))
    body = {"prompt": "a blue square", "init_images": [begun], "mask": masked, "denoising_strength": 0.8, "steps": 4}
    reply = client.post("/sdapi/v1/img2img", json=body)
    assert reply.status_code == 200, reply.text
    png = base64.b64decode(reply.json()["images"][0])
    told = json.loads(of_png(png).json)
    assert told["image"].startswith("sha256:")
    assert told["strength"] == 0.8
    job = client.post("/generate", json=told).json()["job_id"]  # by their digests: they are kept as long as the job is
    assert client.get(f"/image/{job}", params={"wait": 60}).content == png
    inverted = client.post("/sdapi/v1/img2img", json={**body, "seed": told["seed"], "inpainting_mask_invert": 1})
    assert base64.b64decode(inverted.json()["images"][0]) != png

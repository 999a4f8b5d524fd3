"""A1111's API with clients that there are: the Python package webuiapi, and what applications send, word for word."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path

import httpx
import pytest
import uvicorn
import webuiapi
from PIL import Image

from adapters.recipe import of_png
from gateway.settings import Config, Jobs, Key, Listener
from tests.asgi import House
from tests.calling import until
from tests.painter import Painter
from tests.responding import lived
from tests.serving import Served, serving

CONFIG = """
listeners: [{port: 0, dialects: [automatic1111, images]}]
backends: {demo: {type: echo}}
models: [{id: sdxl-base, backend: demo, name: echo}]
keys: [key-of-ann, key-of-ben]
jobs: {running: 2}
"""
RECORDED = sorted((Path(__file__).parent / "automatic1111_requests").glob("*.json"))
ANN = ("ann", "key-of-ann")
KEYS = Config(keys=(Key(key="key-of-ann"), Key(key="key-of-ben")), jobs=Jobs(running=2))


@contextlib.asynccontextmanager
async def listening(house: House) -> AsyncIterator[str]:
    """A gateway in memory behind a real port, for clients that know nothing else."""
    config = uvicorn.Config(house.app, port=0, ws="none", lifespan="off", log_config=None, access_log=False)
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]  # they are the tests'
    serving = asyncio.create_task(server.serve())
    try:
        await until(lambda: server.started)
        yield "http://{}:{}".format(*server.servers[0].sockets[0].getsockname())
    finally:
        server.should_exit = True
        await serving


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(CONFIG) as found:
        yield found


@pytest.fixture
def api(served: Served) -> webuiapi.WebUIApi:
    return webuiapi.WebUIApi(baseurl=f"{served.url}/sdapi/v1", username=ANN[0], password=ANN[1], steps=3)


def _png(picture: Image.Image) -> bytes:
    packed = BytesIO()
    picture.save(packed, "PNG")
    return packed.getvalue()


PICTURE = base64.b64encode(_png(Image.new("RGB", (64, 64), "red"))).decode()


def test_webuiapi_makes_pictures_of_a_prompt(api: webuiapi.WebUIApi) -> None:
    result = api.txt2img(
        prompt="a red cube <lora:dark:0.5>",
        negative_prompt="blurry",
        seed=1003,
        width=64,
        height=96,
        n_iter=2,
        override_settings={"CLIP_stop_at_last_layers": 2},
    )
    assert [picture.size for picture in result.images] == [(64, 96)] * 2
    assert result.image.info["parameters"] == result.info["infotexts"][0]
    assert result.info["all_seeds"] == [1003, 1004]
    assert result.info["infotexts"][1] == (
        "a red cube <lora:dark:0.5>\nNegative prompt: blurry\n"
        "Steps: 3, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.0, Seed: 1004, Size: 64x96, "
        "Model: sdxl-base, Clip skip: 2, Version: dragoman"
    )
    assert result.parameters["prompt"] == "a red cube <lora:dark:0.5>"
    assert "comments" not in result.info, "its defaults change nothing"


def test_webuiapi_makes_pictures_of_a_picture(api: webuiapi.WebUIApi) -> None:
    begun = Image.new("RGB", (64, 64), "red")
    result = api.img2img(images=[begun], mask_image=begun, prompt="a cube", denoising_strength=0.4, width=64, height=64)
    assert result.info["denoising_strength"] == 0.4
    assert "Denoising strength: 0.4" in result.image.info["parameters"]
    other = api.img2img(images=[begun], prompt="a cube", denoising_strength=0.4, width=64, height=64)
    assert result.image.tobytes() != other.image.tobytes()
    info = api.png_info(result.image)
    assert info.info == result.image.info["parameters"]


def test_webuiapi_chooses_a_model_and_finds_what_there_is(api: webuiapi.WebUIApi) -> None:
    assert api.util_get_model_names() == ["sdxl-base"]
    api.util_set_model("sdxl")
    assert api.util_get_current_model() == "sdxl-base"
    api.util_wait_for_ready(0)
    assert api.util_get_sampler_names() == ["Euler", "Euler a"]
    assert api.util_get_scheduler_names() == ["automatic"]
    assert [one["name"] for one in api.get_loras()] == ["bright", "dark"]
    assert api.get_sd_vae() == api.get_prompt_styles() == api.get_hypernetworks() == api.get_face_restorers() == []
    assert api.get_embeddings()["loaded"] == {}
    assert api.get_scripts() == {"txt2img": [], "img2img": []}
    assert api.refresh_checkpoints() is None
    assert api.get_memory()["ram"]["total"] > 0
    assert api.get_cmd_flags()["api"] is True
    assert api.interrupt() == {}
    assert api.skip() == {}
    assert api.get_upscalers()[0]["name"] == "None"


def test_webuiapi_is_told_what_is_wrong(api: webuiapi.WebUIApi, served: Served) -> None:
    with pytest.raises(RuntimeError, match=r"did you mean .{1,2}'dark"):
        api.txt2img(prompt="<lora:drak:1>", width=64, height=64)
    stranger = webuiapi.WebUIApi(baseurl=f"{served.url}/sdapi/v1", username="ann", password="nobody")
    with pytest.raises(RuntimeError, match="401"):
        stranger.txt2img(prompt="x")


def test_webuiapi_watches_and_interrupts(tmp_path: Path) -> None:
    """The picture stands still until it has been seen and stopped."""
    painter = Painter(at=2)

    async def story(house: House) -> None:
        async with listening(house) as url:
            mine, watching, other = [
                await asyncio.to_thread(
                    webuiapi.WebUIApi, baseurl=f"{url}/sdapi/v1", username=name, password=f"key-of-{name}"
                )
                for name in ("ann", "ann", "ben")
            ]
            painting = asyncio.create_task(
                asyncio.to_thread(mine.txt2img, prompt="long", width=64, height=64, steps=3, n_iter=3)
            )
            await until(lambda: painter.steps == 1 or painting.done())
            told = await asyncio.to_thread(watching.get_progress)
            assert (told["state"]["job_count"], told["state"]["sampling_steps"]) == (3, 3)
            assert 0 < told["progress"] < 1
            assert (await asyncio.to_thread(other.get_progress))["state"]["job_count"] == 0
            await asyncio.to_thread(other.interrupt)
            assert not painter.ended, "each key stops its own alone"
            await asyncio.to_thread(watching.interrupt)
            ended = await painting
            assert ended.images == []
            assert (await asyncio.to_thread(watching.get_progress))["progress"] == 0

    lived(tmp_path, story, painter, listener=Listener(port=7860, dialects=("automatic1111",)), config=KEYS)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_what_applications_send_is_painted_as_they_mean_it(path: Path, served: Served) -> None:
    text = path.read_text().replace("{picture}", PICTURE).replace("{model}", "sdxl-base")
    recorded = json.loads(text)
    client = httpx.Client(base_url=served.url, auth=ANN, timeout=30)
    reply = client.post(f"/sdapi/v1/{path.stem.rpartition('-')[2]}", json=recorded["body"])
    assert reply.status_code == 200, reply.text
    for place in recorded["reads"]:
        value = reply.json()
        for step in place.split("."):
            value = value[int(step) if step.isdigit() else step]
        assert value
    assert "secret" not in reply.text, "what an application passes on is not told back"
    (first, *_) = reply.json()["images"]
    made = json.loads(of_png(base64.b64decode(first, validate=True)).json)
    assert made.pop("model") == "sdxl-base"
    seed = made.pop("seed")
    assert recorded["made"].pop("seed", seed) == seed
    assert {name: value for name, value in made.items() if not str(value).startswith("sha256:")} == recorded["made"]


def test_open_webui_changes_the_model_by_sending_all_options_back(served: Served) -> None:
    client = httpx.Client(base_url=served.url, auth=ANN, timeout=30)
    options = client.get("/sdapi/v1/options").json()
    reply = client.post(
        "/sdapi/v1/options", json={**options, "sd_model_checkpoint": "sdxl-base"}, headers={"dragoman-report": "header"}
    )
    reply.raise_for_status()
    assert json.loads(reply.headers["dragoman-report"])["dropped"] == []
    models = client.get("/sdapi/v1/sd-models").json()
    assert [{"id": one["title"], "name": one["model_name"]} for one in models] == [
        {"id": "sdxl-base", "name": "sdxl-base"}
    ]


def test_sillytavern_finds_its_lists_and_waits_for_a_model(served: Served) -> None:
    client = httpx.Client(base_url=served.url, auth=ANN, timeout=30)
    for name in ("upscalers", "latent-upscale-modes", "samplers", "schedulers"):
        assert all(one["name"] for one in client.get(f"/sdapi/v1/{name}").json())
    assert [one["model_name"] for one in client.get("/sdapi/v1/sd-vae").json()] == []
    assert client.post("/sdapi/v1/options", json={"sd_model_checkpoint": "sdxl-base"}).is_success
    progress = client.get("/sdapi/v1/progress").json()
    assert (progress["progress"], progress["state"]["job_count"]) == (0, 0)
    assert "forge_preset" not in client.get("/sdapi/v1/options").json(), "it is not taken for another server"


def test_a_picture_of_this_api_is_made_again_by_its_json(served: Served, api: webuiapi.WebUIApi) -> None:
    body = {"prompt": "a cube <lora:dark:0.25>", "steps": 2, "width": 64, "height": 64}
    client = httpx.Client(base_url=served.url, auth=ANN, timeout=30)
    png = base64.b64decode(client.post("/sdapi/v1/txt2img", json=body).json()["images"][0])
    headers = {"x-api-key": ANN[1]}
    job = httpx.post(f"{served.url}/generate", content=of_png(png).json, headers=headers).json()["job_id"]
    again = httpx.get(f"{served.url}/image/{job}", params={"wait": 30}, headers=headers)
    assert again.status_code == 200, again.text
    assert again.content == png
    assert again.headers["x-generation-metadata"].encode() == of_png(png).json

"""Pictures for OpenAI's own clients, LangChain's and curl, by a live gateway: echo's stripes, and a tiny SDXL."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.serving import ROOT, Served, serving

KEY = "a-key-that-opens"
CONFIG = f"""
listeners: [{{port: 0, dialects: [openai]}}]
backends:
  demo: {{type: echo}}
  painter: {{type: diffusers, models_dir: ./models/painting, threads: 2}}
models:
  - {{id: gpt-image-1, backend: demo, name: echo, aliases: [dall-e-2, dall-e-3]}}
defaults: {{paint: gpt-image-1}}
keys: [{KEY}]
data_dir: data
"""


@pytest.fixture(scope="module")
def gateway() -> Iterator[Served]:
    with serving(CONFIG) as served:
        yield served


@pytest.fixture(scope="module")
def client(gateway: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{gateway.url}/v1", api_key=KEY, max_retries=0)


def fetched(url: str) -> bytes:
    """What a browser gets, which has no key."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url) as answer:
        return answer.read()


def bytes_of(image: Any) -> bytes:
    return base64.b64decode(image.b64_json)


def test_the_official_python_client(client: openai.OpenAI) -> None:
    reply = client.images.generate(prompt="a red cube", size="1024x1024", quality="hd", n=2, style="natural", user="me")
    assert (reply.size, reply.quality, reply.output_format, reply.background) == ("1024x1024", "high", "png", "opaque")
    assert reply.usage is not None
    assert reply.usage.output_tokens == 2 * 64 * 64
    assert reply.data is not None
    first, second = reply.data
    assert first.metadata["steps"] == 6  # type: ignore[attr-defined]  # not OpenAI's
    assert bytes_of(first) != bytes_of(second)
    recipe = {name: value for name, value in second.metadata.items() if name not in {"prompt", "model"}}  # type: ignore[attr-defined]
    again = client.images.generate(prompt="a red cube", size="1024x1024", extra_body=recipe)
    assert again.data is not None
    assert bytes_of(again.data[0]) == bytes_of(second)


def test_the_official_python_client_streams(client: openai.OpenAI) -> None:
    seen = list(client.images.generate(prompt="a", stream=True, partial_images=2, extra_body={"seed": 1}))
    assert seen[-1].type == "image_generation.completed"
    assert {event.type for event in seen[:-1]} <= {"image_generation.partial_image"}
    whole = client.images.generate(prompt="a", extra_body={"seed": 1})
    assert whole.data is not None
    assert bytes_of(seen[-1]) == bytes_of(whole.data[0])


def test_the_official_python_client_edits(client: openai.OpenAI) -> None:
    made = client.images.generate(prompt="a", extra_body={"seed": 1}).data
    assert made is not None
    png = bytes_of(made[0])
    files: list[Any] = [png, io.BytesIO(png), ("lies.txt", png, "text/plain")]
    edits = [client.images.edit(image=file, prompt="blue", n=1, extra_body={"seed": 2}).data for file in files]
    assert len({bytes_of(edit[0]) for edit in edits if edit is not None}) == 1
    loras = [{"name": "bright", "weight": 0.5}]
    masked = client.images.edit(image=png, mask=png, prompt="blue", extra_body={"seed": 2, "loras": loras}).data
    assert masked is not None
    told = masked[0].metadata  # type: ignore[attr-defined]
    assert (told["mask_alpha"], told["loras"]) == (True, loras)
    assert told["image"] == told["mask"]
    streamed = client.images.edit(image=[png], prompt="blue", stream=True)
    assert [event.type for event in streamed] == ["image_edit.completed"]
    with pytest.warns(DeprecationWarning, match="deprecated"):
        varied = client.images.create_variation(image=png, n=2, response_format="url").data
    assert varied is not None
    assert all(fetched(str(image.url)).startswith(b"\x89PNG") for image in varied)


@pytest.mark.parametrize(
    ("fields", "kind", "param"),
    [
        ({"model": "gpt-image-2"}, openai.NotFoundError, "model"),
        ({"size": "banana"}, openai.BadRequestError, "size"),
        ({"size": "8192x8192"}, openai.BadRequestError, "size"),
        ({"n": 11}, openai.BadRequestError, "n"),
        ({"prompt": ""}, openai.BadRequestError, "prompt"),
        ({"extra_body": {"loras": ["darc"]}}, openai.NotFoundError, "loras"),
    ],
)
def test_errors_are_the_clients_own(
    client: openai.OpenAI, fields: Any, kind: type[openai.APIStatusError], param: str
) -> None:
    with pytest.raises(kind) as caught:
        client.images.generate(**{"prompt": "x", **fields})
    assert caught.value.param == param
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="none").images.generate(prompt="x")


@pytest.mark.skipif(shutil.which("node") is None, reason="the JavaScript clients need Node")
def test_the_official_javascript_client(gateway: Served) -> None:
    script = ROOT / "tests" / "js" / "images.mjs"
    run = subprocess.run(["node", script, gateway.url, KEY], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout)
    assert (told["pngs"], told["seeds"], told["link"]) == ([True, True], [7, 8], "PNG")
    assert told["stream"][-1] == ["image_generation.completed", True]
    assert (told["edit"]["loras"], told["edit"]["mask_alpha"]) == ([{"name": "bright", "weight": 0.5}], True)
    assert (told["editStream"], told["variation"]) == (["image_edit.completed"], 1)
    assert told["two"] == ["BadRequestError", 400, "image"]
    assert told["model"] == ["NotFoundError", 404, "model"]
    assert told["size"] == ["BadRequestError", 400, "size"]
    assert told["key"][:2] == ["AuthenticationError", 401]


def test_applications_that_are_used_to_links(client: openai.OpenAI) -> None:
    """As LangChain's DallEAPIWrapper and LibreChat's tool ask, and take the URL that comes without being asked for."""
    for fields in (
        {"model": "dall-e-2", "n": 1, "size": "1024x1024", "quality": "standard"},
        {"model": "dall-e-3", "n": 1, "size": "1792x1024", "quality": "hd", "style": "vivid"},
    ):
        reply = client.images.generate(prompt="a cat", **fields)  # type: ignore[call-overload]
        assert fetched(reply.data[0].url).startswith(b"\x89PNG")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not there")
def test_curl_sends_files_and_gets_pictures(gateway: Served, tmp_path: Path) -> None:
    def curl(path: str, *arguments: str) -> Any:
        command = [
            "curl",
            "-sS",
            "--noproxy",
            "*",
            f"{gateway.url}/v1/images/{path}",
            "-H",
            f"Authorization: Bearer {KEY}",
        ]
        return json.loads(subprocess.run([*command, *arguments], capture_output=True, timeout=30, check=True).stdout)

    picture = tmp_path / "a.png"
    made = curl("generations", "-d", '{"prompt": "a", "size": "64x64"}')
    picture.write_bytes(base64.b64decode(made["data"][0]["b64_json"]))
    edit = ["-F", f"image=@{picture}", "-F", f"mask=@{picture};type=text/plain", "-F", "prompt=blue", "-F", "seed=5"]
    told = curl("edits", *edit, "-F", "loras=bright:0.5,dark", "-F", "n=2")
    assert [image["seed"] for image in told["data"]] == [5, 6]
    assert [lora["name"] for lora in told["data"][0]["metadata"]["loras"]] == ["bright", "dark"]
    assert len(curl("variations", "-F", f"image=@{picture}", "-F", "size=64x64")["data"]) == 1
    assert curl("edits", "-F", "prompt=blue")["error"]["param"] == "image"


def test_a_tiny_sdxl_paints_what_the_mask_says_and_streams_on_its_way(client: openai.OpenAI) -> None:
    image = pytest.importorskip("PIL.Image")
    pytest.importorskip("diffusers")
    fields: dict[str, Any] = {"model": "tiny-sdxl-turbo", "extra_body": {"seed": 3, "steps": 4}}
    stream = list(client.images.generate(prompt="a red circle", stream=True, partial_images=2, **fields))
    assert [event.type for event in stream[-1:]] == ["image_generation.completed"]
    assert all(bytes_of(event).startswith(b"\x89PNG") for event in stream)
    whole = client.images.generate(prompt="a red circle", **fields)
    assert whole.data is not None
    before = image.open(io.BytesIO(bytes_of(whole.data[0])))
    assert bytes_of(stream[-1]) == bytes_of(whole.data[0]), "the same seed gives the same bytes, watched or not"
    assert f"{before.width}x{before.height}" == whole.size
    half = before.width // 2
    mask = image.new("RGBA", before.size, (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, half, before.height))
    file = io.BytesIO()
    mask.save(file, "PNG")
    edited = client.images.edit(image=bytes_of(whole.data[0]), mask=file.getvalue(), prompt="a blue square", **fields)
    assert edited.data is not None
    after = image.open(io.BytesIO(bytes_of(edited.data[0])))
    kept, anew = (half + 8, 0, before.width, before.height), (0, 0, half - 8, before.height)
    assert before.crop(kept).tobytes() == after.crop(kept).tobytes()
    assert before.crop(anew).tobytes() != after.crop(anew).tobytes()
    with pytest.raises(openai.BadRequestError, match="IP-Adapter"):
        client.images.edit(image=[bytes_of(whole.data[0])] * 2, prompt="a blue square", **fields)

"""A1111's API in memory: what is asked, what each key has of its own, and what stops a job."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.automatic1111 import asked, serve
from adapters.automatic1111.fields import dropped
from adapters.recipe import json_of, of_png, read_a1111
from canonical.errors import InvalidRequest
from canonical.painting import Lora, LoraInfo, Offer, Paint
from gateway.settings import Config, Jobs, Key, Listener, ModelEntry
from tests.asgi import Call, House
from tests.calling import until
from tests.painter import Painter
from tests.responding import ANN, BEN, lived
from tests.test_brenda_painting import BARE, STRIPES

TXT2IMG = "/sdapi/v1/txt2img"
IMG2IMG = "/sdapi/v1/img2img"
PROGRESS = "/sdapi/v1/progress"
OPTIONS = "/sdapi/v1/options"
ALONE = Listener(port=7860, dialects=("automatic1111",))
KEYS = Config(keys=(Key(key="key-of-ann"), Key(key="key-of-ben")), jobs=Jobs(running=2))
CUBE = {"prompt": "a red cube", "seed": 7, "width": 64, "height": 64, "steps": 4}
SAMPLERS = ("euler", "euler_a", "dpmpp_2m", "dpmpp_2m_karras", "dpmpp_sde")


def read(**fields: Any) -> asked.Ask:
    return asked.read_txt2img(json.dumps({"prompt": "x", **fields}).encode())


def live(data: Path, story: Any, painter: Painter | None = None, **more: Any) -> None:
    lived(data, story, painter or Painter(), listener=ALONE, **more)


def basic(name: str, password: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", b"Basic " + base64.b64encode(f"{name}:{password}".encode()))]


def picture(call: Call, index: int = 0) -> bytes:
    assert call.status == 200, call.body
    return base64.b64decode(call.json()["images"][index], validate=True)


async def count(a: House, headers: Any = ()) -> int:
    """Pictures of the job that ``progress`` tells of."""
    told = (await a.ask("GET", PROGRESS, headers=headers)).json()
    return int(told["state"]["job_count"])


# What is asked


def test_what_a_request_says_is_what_is_painted_and_the_rest_stays_open() -> None:
    ask = read(
        prompt="a cube <lora:night:0.8> <lora:frame>",
        negative_prompt="blurry",
        seed=5,
        sampler_name="DPM++ 2M",
        scheduler="karras",
        batch_size=2,
        n_iter=3,
        steps="8",
        cfg_scale=4,
        width=512,
        height=768.0,
        override_settings={"sd_model_checkpoint": "pony", "CLIP_stop_at_last_layers": 2},
    )
    assert ask.request == Paint(
        prompt="a cube",
        negative_prompt="blurry",
        model="pony",
        loras=(Lora("night", 0.8), Lora("frame")),
        seed=5,
        sampler="dpmpp_2m_karras",
        n=6,
        steps=8,
        guidance_scale=4.0,
        width=512,
        height=768,
        clip_skip=2,
        previews=asked.PREVIEWS,
    )
    nothing = read(negative_prompt=None, steps=None, seed=-1, sampler_name=None, override_settings=None)
    assert nothing.request == Paint(prompt="x", previews=asked.PREVIEWS)
    assert read(override_settings={"CLIP_stop_at_last_layers": 1}).request.clip_skip is None


def test_a_text_of_a_picture_fills_what_is_open() -> None:
    text = "cube <lora:night:0.5>\nNegative prompt: dim\nSteps: 9, Sampler: Euler a, CFG scale: 3, Seed: 8, Size: 64x32"
    body = {"infotext": text, "steps": 2}
    found = asked.read_txt2img(json.dumps(body).encode()).request
    assert (found.prompt, found.loras, found.negative_prompt) == ("cube", (Lora("night", 0.5),), "dim")
    assert (found.steps, found.seed, found.width, found.height, found.sampler) == (2, 8, 64, 32, "euler_a")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"batch_size": 4, "n_iter": 4}, "batch_size times n_iter may be at most 10, not 16"),
        ({"batch_size": 0}, "batch_size"),
        ({"width": "wide"}, "width"),
        ({"override_settings": {"CLIP_stop_at_last_layers": 40}}, "CLIP_stop_at_last_layers must be from 1 to 12"),
        ({"override_settings": {"CLIP_stop_at_last_layers": "two"}}, "CLIP_stop_at_last_layers must be from 1 to 12"),
        ({"override_settings": "none"}, "override_settings"),
        ({"prompt": "<lora:a:1>" * 20_000}, "prompt may have at most"),
        ({"infotext": "Steps: 1, " * 20_000}, "infotext may have at most"),
    ],
)
def test_what_is_no_request_is_refused_by_its_name(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        read(**fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "Init image not found"),
        ({"init_images": []}, "Init image not found"),
        ({"init_images": [BARE, BARE]}, "one picture at a time"),
        ({"init_images": ["no picture"]}, "init_images|base64"),
        ({"init_images": [BARE], "mask": "bm8gcGljdHVyZQ=="}, "unknown image format"),
    ],
)
def test_a_picture_to_begin_with_is_needed_and_read(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidRequest, match=words):
        asked.read_img2img(json.dumps({"prompt": "x", **fields}).encode())


def test_a_picture_and_a_mask_are_read_and_not_told_back() -> None:
    body = {"prompt": "x", "init_images": [STRIPES.data_url()], "mask": BARE, "inpainting_mask_invert": 1}
    ask = asked.read_img2img(json.dumps(body).encode())
    assert (ask.request.image, ask.request.mask, ask.request.mask_invert) == (STRIPES, STRIPES, True)
    assert ask.request.strength == asked.STRENGTH
    assert (ask.echo["init_images"], ask.echo["mask"]) == (None, None)


def test_what_cannot_be_honoured_is_told_and_what_says_nothing_is_not() -> None:
    usual = {
        "restore_faces": False,
        "enable_hr": False,
        "tiling": False,
        "eta": 1.0,
        "s_churn": 0,
        "s_noise": 1,
        "subseed": -1,
        "subseed_strength": 0.0,
        "styles": [],
        "hr_upscaler": "Latent",
        "denoising_strength": 0.7,
        "save_images": True,
        "override_settings": {"sd_vae": "Automatic", "CLIP_stop_at_last_layers": 1},
        "alwayson_scripts": {"ADetailer": {"args": [False]}, "ControlNet": {"args": []}},
    }
    assert list(dropped(usual)) == []
    telling = {
        "restore_faces": True,
        "enable_hr": True,
        "styles": ["anime"],
        "subseed_strength": 0.5,
        "something_new": 1,
        "override_settings": {"sd_vae": "mine.safetensors"},
        "alwayson_scripts": {"ControlNet": {"args": [{"enabled": True}]}, "ADetailer": {"args": [True, {}]}},
    }
    assert list(dropped(telling)) == [
        "restore_faces",
        "enable_hr",
        "styles",
        "subseed_strength",
        "something_new",
        "override_settings.sd_vae",
        "alwayson_scripts.ControlNet",
        "alwayson_scripts.ADetailer",
    ]


@pytest.mark.parametrize(
    ("sampler", "schedule", "taken", "near"),
    [
        ("DPM++ 2M", "Karras", "dpmpp_2m_karras", None),
        ("DPM++ 2M Karras", None, "dpmpp_2m_karras", None),
        ("Euler a", "automatic", "euler_a", None),
        ("Euler", "Normal", "euler", None),
        ("Euler a", "Karras", "euler_a", "scheduler"),
        ("Euler Karras", "", "euler", "sampler_name"),
        ("Heun++", "", "Heun++", None),
        (None, "Karras", None, None),
    ],
)
def test_a_schedule_that_a_sampler_lacks_costs_no_picture(
    sampler: str | None, schedule: str | None, taken: str | None, near: str | None
) -> None:
    ask = asked.fitting(
        read(sampler_name=sampler, scheduler=schedule), Offer(preset=Paint(prompt=""), samplers=SAMPLERS)
    )
    assert ask.request.sampler == taken
    assert list(ask.report.approximated) == ([near] if near else [])
    nowhere = asked.fitting(read(sampler_name="Euler"), Offer(preset=Paint(prompt="")))
    assert (nowhere.request.sampler, nowhere.report.dropped) == (None, ("sampler_name",))


def test_adapters_are_found_by_their_titles_too() -> None:
    offered = Offer(
        preset=Paint(prompt=""), loras=(LoraInfo(id="bright", title="Brighter stripes"), LoraInfo(id="dark"))
    )
    ask = asked.fitting(read(prompt="<lora:brighter stripes:0.5><lora:dark:1><lora:other:1>"), offered)
    assert [lora.name for lora in ask.request.loras] == ["bright", "dark", "other"]


def test_models_are_found_by_what_clients_make_of_their_names() -> None:
    assert asked.spellings("pony.safetensors [1a2b3c4d5e]") == (
        "pony.safetensors [1a2b3c4d5e]",
        "pony.safetensors",
        "pony",
    )
    assert asked.spellings("pony") == ("pony",)


# What is answered


def test_pictures_come_with_what_they_were_made_from(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        call = await a.ask("POST", TXT2IMG, {**CUBE, "prompt": "a cube <lora:bright:0.5>", "batch_size": 2})
        first, second = picture(call), picture(call, 1)
        info = json.loads(call.json()["info"])
        assert info["all_seeds"] == [7, 8]
        assert (info["seed"], info["steps"], info["sampler_name"], info["cfg_scale"]) == (7, 4, "Euler", 7.0)
        assert info["infotexts"] == [of_png(first).text, of_png(second).text]
        assert info["prompt"] == "a cube <lora:bright:0.5>"
        assert "comments" not in info
        made = read_a1111(of_png(second).text)
        assert (made.seed, made.loras) == (8, (Lora("bright", 0.5),))
        assert json.loads(of_png(second).json)["seed"] == 8
        parameters = call.json()["parameters"]
        assert (parameters["prompt"], parameters["batch_size"]) == ("a cube <lora:bright:0.5>", 2)
        alone = await a.ask("POST", TXT2IMG, {"infotext": of_png(second).text})
        assert picture(alone) == second

    live(tmp_path, story)


def test_pictures_need_not_be_sent(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        call = await a.ask("POST", TXT2IMG, {**CUBE, "send_images": False})
        assert call.json()["images"] == []
        assert len(json.loads(call.json()["info"])["all_seeds"]) == 1

    live(tmp_path, story)


def test_what_cannot_be_done_is_told_or_refused_under_strict(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        hires = {**CUBE, "enable_hr": True, "scheduler": "Karras", "sampler_name": "Euler a"}
        call = await a.ask("POST", TXT2IMG, hires, [(b"dragoman-report", b"header")])
        comments = json.loads(call.json()["info"])["comments"]
        assert comments == [
            "scheduler: the sampler does not know this schedule, and has its own",
            "enable_hr: this has no effect here",
        ]
        told = json.loads(call.headers[b"dragoman-report"])
        assert told["dropped"] == ["enable_hr"]
        assert set(told["approximated"]) == {"scheduler"}
        assert "prompt" in told["honoured"]
        refused = await a.ask("POST", TXT2IMG, hires, [(b"dragoman-strict", b"true")])
        assert refused.status == 400
        assert "enable_hr" in refused.json()["detail"]
        assert (await a.ask("POST", TXT2IMG, CUBE, [(b"dragoman-strict", b"true")])).status == 200
        chosen = await a.ask("POST", OPTIONS, {"sd_vae": "mine"}, [(b"dragoman-strict", b"true")])
        assert chosen.status == 400
        assert (await a.ask("POST", OPTIONS, {"sd_vae": "mine"})).status == 200

    live(tmp_path, story)


def test_a_models_own_strictness_counts(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        call = await a.ask("POST", TXT2IMG, {**CUBE, "tiling": True})
        assert call.status == 400
        assert "tiling" in call.json()["detail"]

    entry = ModelEntry(id="strict", backend="a", name="m", strict=True)
    live(tmp_path, story, models=[entry])


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"prompt": "<lora:brigt:1>"}, 404, "did you mean 'bright'"),
        ({"override_settings": {"sd_model_checkpoint": "nobody"}}, 404, "nobody"),
        ({"width": 7}, 400, "width"),
        ({"sampler_name": "Heun"}, 400, "there is no sampler 'heun'"),
        ({"prompt": "<lora:a:1><lora:b:1><lora:c:1><lora:d:1><lora:e:1>"}, 400, "at most 4 LoRAs"),
        ({"prompt": "<lora:bright:1><lora:bright:2>"}, 400, "twice"),
    ],
)
def test_a_request_that_cannot_be_is_refused_in_a1111s_words(
    tmp_path: Path, fields: dict[str, Any], status: int, words: str
) -> None:
    async def story(a: House) -> None:
        call = await a.ask("POST", TXT2IMG, {**CUBE, **fields})
        assert call.status == status
        assert set(call.json()) == {"error", "detail", "body", "errors"}
        assert words in call.json()["detail"]

    live(tmp_path, story)


def test_a_job_that_fails_is_an_error(tmp_path: Path) -> None:
    from canonical.errors import OutOfMemory

    async def story(a: House) -> None:
        call = await a.ask("POST", TXT2IMG, CUBE)
        assert (call.status, call.json()["detail"]) == (503, "no room")

    live(tmp_path, story, Painter(at=2, failing=OutOfMemory("no room")))


# The job that runs


def test_progress_tells_how_far_the_job_is_and_interrupt_stops_it(tmp_path: Path) -> None:
    painter = Painter(at=3)

    async def story(a: House) -> None:
        idle = (await a.ask("GET", PROGRESS)).json()
        assert (idle["progress"], idle["eta_relative"], idle["state"]["job_count"]) == (0, 0, 0)
        waiting = a.call("POST", TXT2IMG, {**CUBE, "batch_size": 2})
        await until(lambda: painter.steps == 2)
        far: dict[str, Any] = {}
        while far.get("state", {}).get("sampling_step") != 2:
            far = (await a.ask("GET", PROGRESS)).json()
            await asyncio.sleep(0)
        assert far["progress"] == pytest.approx(2 / 8)
        assert (far["state"]["sampling_steps"], far["state"]["job_count"], far["state"]["job_no"]) == (4, 2, 0)
        assert base64.b64decode(far["current_image"]).startswith(b"\x89PNG")
        assert (await a.ask("GET", f"{PROGRESS}?skip_current_image=true")).json()["current_image"] is None
        assert (await a.ask("POST", "/sdapi/v1/skip")).status == 501
        assert (await a.ask("POST", "/sdapi/v1/interrupt")).json() == {}
        call = await waiting.end()
        assert (call.status, call.json()["images"]) == (200, [])
        assert json.loads(call.json()["info"])["infotexts"] == []
        assert painter.ended == 1
        assert (await a.ask("GET", PROGRESS)).json()["state"]["job_count"] == 0
        assert (await a.ask("POST", "/sdapi/v1/interrupt")).json() == {}

    live(tmp_path, story, painter)


def test_what_was_done_before_an_interrupt_is_answered(tmp_path: Path) -> None:
    class Second(Painter):
        async def paint(self, request: Paint) -> Any:
            async for event in Painter.paint(self, request):
                yield event
                if getattr(event, "made", None) is not None:
                    self.at = 1

    painter = Second()

    async def story(a: House) -> None:
        waiting = a.call("POST", TXT2IMG, {**CUBE, "n_iter": 2})
        await until(lambda: painter.at == 1)
        while await count(a):
            await a.ask("POST", "/sdapi/v1/interrupt")
        call = await waiting.end()
        assert json.loads(call.json()["info"])["all_seeds"] == [7]
        assert of_png(picture(call)).json

    live(tmp_path, story, painter)


def test_jobs_of_other_apis_are_neither_told_nor_stopped(tmp_path: Path) -> None:
    painter = Painter(at=1)

    async def story(a: House) -> None:
        assert a.jobs is not None
        job = await a.jobs.submit(Paint(prompt="x"), owner="", dialect="images")
        await until(lambda: painter.asked)
        assert await count(a) == 0
        await a.ask("POST", "/sdapi/v1/interrupt")
        painter.going.set()
        seen = [seen async for seen in a.jobs.watch(job.id, owner="")]
        assert seen[-1].state == "done"

    live(tmp_path, story, painter)


def test_a_job_that_has_just_begun_is_not_taken_for_none(tmp_path: Path) -> None:
    painter = Painter(at=1)

    async def story(a: House) -> None:
        waiting = a.call("POST", TXT2IMG, CUBE)
        await until(lambda: painter.asked)
        assert (await a.ask("GET", PROGRESS)).json()["progress"] == 0.01
        painter.going.set()
        assert picture(await waiting.end())

    live(tmp_path, story, painter)


def test_who_leaves_is_not_painted_for(tmp_path: Path) -> None:
    painter = Painter(at=2)

    async def story(a: House) -> None:
        waiting = a.call("POST", TXT2IMG, CUBE)
        await until(lambda: painter.steps == 1)
        waiting.leave()
        await waiting.end()
        await until(lambda: painter.ended == 1)
        assert await count(a) == 0

    live(tmp_path, story, painter)


def test_a_key_sees_and_stops_its_own_job_alone(tmp_path: Path) -> None:
    painter = Painter(at=2)

    async def story(a: House) -> None:
        waiting = a.call("POST", TXT2IMG, CUBE, ANN)
        await until(lambda: painter.steps == 1)
        assert (await a.ask("GET", PROGRESS, headers=BEN)).json()["state"]["job_count"] == 0
        assert (await a.ask("POST", "/sdapi/v1/interrupt", headers=BEN)).json() == {}
        assert (await a.ask("GET", PROGRESS, headers=ANN)).json()["state"]["job_count"] == 1
        painter.going.set()
        assert picture(await waiting.end())

    live(tmp_path, story, painter, config=KEYS)


def test_a_job_that_waits_its_turn_is_told_and_can_be_stopped(tmp_path: Path) -> None:
    painter = Painter(at=1)

    async def story(a: House) -> None:
        first = a.call("POST", TXT2IMG, CUBE, ANN)
        await until(lambda: painter.asked)
        second = a.call("POST", TXT2IMG, CUBE, BEN)
        far: dict[str, Any] = {"textinfo": None}
        while far["textinfo"] is None:
            far = (await a.ask("GET", PROGRESS, headers=BEN)).json()
            await asyncio.sleep(0)
        assert (far["progress"], far["state"]["job_count"]) == (0.01, 1)
        await a.ask("POST", "/sdapi/v1/interrupt", headers=BEN)
        assert (await second.end()).json()["images"] == []
        painter.going.set()
        assert picture(await first.end())

    live(tmp_path, story, painter, config=Config(keys=KEYS.keys))


# What is chosen, and what there is


def test_each_key_chooses_its_own_model(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        titles = [one["title"] for one in (await a.ask("GET", "/sdapi/v1/sd-models", headers=ANN)).json()]
        assert titles == ["one", "two"]
        for headers in (ANN, BEN):
            told = (await a.ask("GET", OPTIONS, headers=headers)).json()
            assert told["sd_model_checkpoint"] == "one"
        # As Open WebUI does it: everything that was told comes back, with the other model.
        call = await a.ask("POST", OPTIONS, {**told, "sd_model_checkpoint": "two", "CLIP_stop_at_last_layers": 3}, ANN)
        assert (call.status, call.json()) == (200, None)
        ann, ben = [(await a.ask("GET", OPTIONS, headers=headers)).json() for headers in (ANN, BEN)]
        assert (ann["sd_model_checkpoint"], ann["CLIP_stop_at_last_layers"]) == ("two", 3)
        assert (ben["sd_model_checkpoint"], ben["CLIP_stop_at_last_layers"]) == ("one", 1)
        hers = json.loads((await a.ask("POST", TXT2IMG, CUBE, ANN)).json()["info"])
        his = json.loads((await a.ask("POST", TXT2IMG, CUBE, BEN)).json()["info"])
        assert (hers["sd_model_name"], hers["clip_skip"]) == ("two", 3)
        assert (his["sd_model_name"], his["clip_skip"]) == ("one", 1)
        once = {**CUBE, "override_settings": {"sd_model_checkpoint": "one.safetensors [0a1b2c3d4e]"}}
        assert json.loads((await a.ask("POST", TXT2IMG, once, ANN)).json()["info"])["sd_model_name"] == "one"
        unknown = await a.ask("POST", OPTIONS, {"sd_model_checkpoint": "tow"}, ANN)
        assert unknown.status == 404
        assert "did you mean 'two'" in unknown.json()["detail"]

    entries = [ModelEntry(id="one", backend="a", name="m"), ModelEntry(id="two", backend="a", name="m")]
    live(tmp_path, story, config=KEYS, models=entries)


@pytest.mark.parametrize("auth", [basic("me", "key-of-ann"), basic("key-of-ann", ""), ANN])
def test_a_key_may_be_the_password_of_basic_auth(tmp_path: Path, auth: Any) -> None:
    async def story(a: House) -> None:
        assert (await a.ask("GET", OPTIONS)).status == 401
        assert (await a.ask("GET", OPTIONS, headers=basic("me", "nobody"))).status == 401
        assert (await a.ask("GET", OPTIONS, headers=[(b"authorization", b"Basic ")])).status == 401
        assert (await a.ask("GET", OPTIONS, headers=[(b"authorization", b"Basic !")])).status == 401
        assert (await a.ask("GET", OPTIONS, headers=auth)).status == 200

    live(tmp_path, story, config=KEYS)


def test_basic_auth_counts_on_this_dialects_paths_alone(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        assert (await a.ask("GET", "/v1/models", headers=basic("me", "key-of-ann"))).status == 401
        assert (await a.ask("GET", "/v1/models", headers=ANN)).status == 200
        assert (await a.ask("GET", OPTIONS, headers=basic("me", "key-of-ann"))).status == 200

    lived(tmp_path, story, Painter(), listener=Listener(port=7860, dialects=("automatic1111", "openai")), config=KEYS)


def test_what_there_is_has_the_shapes_that_clients_read(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        async def told(name: str) -> Any:
            call = await a.ask("GET", f"/sdapi/v1/{name}")
            assert call.status == 200
            return call.json()

        assert [one["name"] for one in await told("samplers")] == ["Euler", "Euler a"]
        assert [one["name"] for one in await told("schedulers")] == ["automatic"]
        loras = await told("loras")
        assert [(one["name"], one["path"]) for one in loras] == [("bright", ""), ("dark", "")]
        assert loras[0]["metadata"]["trigger_words"] == ["bright"]
        assert [one["name"] for one in await told("upscalers")] == ["None"]
        for name in ("sd-vae", "latent-upscale-modes", "hypernetworks", "prompt-styles", "face-restorers"):
            assert await told(name) == []
        assert await told("embeddings") == {"loaded": {}, "skipped": {}}
        assert await told("scripts") == {"txt2img": [], "img2img": []}
        assert (await told("memory"))["ram"]["total"] > 0
        for name in ("refresh-checkpoints", "refresh-loras", "reload-checkpoint"):
            assert (await a.ask("POST", f"/sdapi/v1/{name}")).json() is None
        assert (await a.ask("POST", "/sdapi/v1/unload-checkpoint")).json() == {}
        assert (await a.ask("POST", "/sdapi/v1/interrogate", {})).status == 501

    live(tmp_path, story)


def test_schedules_of_samplers_are_told_apart() -> None:
    offered = Offer(preset=Paint(prompt=""), samplers=SAMPLERS)
    assert [one["name"] for one in json.loads(serve.samplers(offered))] == ["Euler", "Euler a", "DPM++ 2M", "DPM++ SDE"]
    assert [one["label"] for one in json.loads(serve.schedulers(offered))] == ["Automatic", "Karras"]
    assert json.loads(serve.samplers(None)) == []


def test_a_gateway_that_paints_nothing_says_so_and_lists_nothing(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        for name in ("sd-models", "samplers", "loras"):
            assert (await a.ask("GET", f"/sdapi/v1/{name}")).json() == []
        assert (await a.ask("GET", OPTIONS)).json()["sd_model_checkpoint"] is None
        call = await a.ask("POST", TXT2IMG, CUBE)
        assert call.status == 501
        assert "no model here" in call.json()["detail"]

    lived(tmp_path, story, listener=ALONE)


def test_a_picture_tells_what_it_was_made_from(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        made = picture(await a.ask("POST", TXT2IMG, CUBE))
        call = await a.ask("POST", "/sdapi/v1/png-info", {"image": base64.b64encode(made).decode()})
        told = call.json()
        assert told["info"] == of_png(made).text
        assert told["parameters"]["Seed"] == "7"
        assert told["parameters"]["Size-1"] == "64"
        assert told["items"] == {"dragoman": of_png(made).json.decode()}
        nothing = (
            await a.ask("POST", "/sdapi/v1/png-info", {"image": base64.b64encode(b"GIF89a" + bytes(20)).decode()})
        ).json()
        assert nothing == {"info": "", "items": {}, "parameters": {}}
        assert (await a.ask("POST", "/sdapi/v1/png-info", {"image": "?"})).status == 400

    live(tmp_path, story)
    assert json_of(Paint(prompt="")) == b'{"prompt":""}'

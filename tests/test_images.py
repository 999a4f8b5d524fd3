"""The image-job API in memory (promises I1 to I7, I10): what is asked, what is told of a job, who waits, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from backends.echo_painting import OFFER
from canonical.errors import OutOfMemory
from canonical.media import image_size
from gateway.settings import Config, Jobs, Key, Listener, ModelEntry, Mounted
from gateway.web import holding
from gateway.web import images as routes
from tests.asgi import Call, Headers, House
from tests.calling import until
from tests.eventsource import heard
from tests.painter import Painter
from tests.responding import ANN, BEN, lived

ALONE = Listener(port=1234, dialects=("images",))
KEYS = Config(keys=(Key(key="key-of-ann"), Key(key="key-of-ben")))
MODELS = [ModelEntry(id="sdxl-base", backend="a", name="m"), ModelEntry(id="pony-xl-v6", backend="a", name="m")]
SUNSET = {"prompt": "a beautiful sunset", "model": "sdxl-base"}
CURL: Headers = [(b"user-agent", b"curl/8.5.0")]
REQUESTS: Headers = [(b"user-agent", b"python-requests/2.32.3")]
NOWHERE = "00000000-0000-4000-8000-000000000000"

Story = Callable[[House], Awaitable[None]]


def live(data: Path, story: Story, home: Painter | None = None, *, config: Config | None = None, **more: Any) -> None:
    lived(data, story, home or Painter(), **{"listener": ALONE, "models": MODELS, "config": config or Config(), **more})


async def made(a: House, headers: Headers = (), **fields: Any) -> str:
    """The id of a job."""
    call = await a.ask("POST", "/generate", {**SUNSET, **fields}, headers)
    assert call.status == 200, call.body
    id = call.json()["job_id"]
    assert call.headers[b"x-job-id"] == id.encode()
    return str(id)


async def over(a: House, id: str, headers: Headers = ()) -> Any:
    """A job that is over."""
    call = await a.ask("GET", f"/status/{id}?wait=20", b"", headers)
    assert call.status == 200
    return call.json()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int = 8, height: int = 8, *, more: bytes = b"") -> str:
    """A picture as base64; what its header says is all that is true of it."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    pixels = zlib.compress(b"".join(b"\0" + b"\x80\x40\x20" * 8 for _ in range(8)))
    data = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", pixels) + more + chunk(b"IEND", b"")
    return base64.b64encode(data).decode()


# A job from its beginning to its end


def test_i1_i2_i3_i4_a_job_is_told_from_its_beginning_to_its_picture(tmp_path: Path) -> None:
    home = Painter(at=2)

    async def story(a: House) -> None:
        call = await a.ask("POST", "/generate", {**SUNSET, "steps": 4, "seed": 42})
        told = call.json()
        id = told["job_id"]
        assert (told["seed"], told["model"], told["result"], told["error"]) == (42, "sdxl-base", None, None)
        await until(lambda: home.steps == 1)
        call = await a.ask("GET", f"/image/{id}", headers=REQUESTS)
        assert call.status == 202
        assert call.headers[b"retry-after"].isdigit()
        assert call.headers[b"cache-control"] == b"no-store"
        assert call.json() == {
            "status": "processing",
            "message": "Image en cours de génération",
            "state": "PROGRESS",
            "meta": {"current": 1, "total": 4, "percent": 25},
        }
        status = (await a.ask("GET", f"/status/{id}")).json()
        assert (status["state"], status["status"], status["meta"]["current"]) == ("PROGRESS", "processing", 1)
        home.going.set()
        status = await over(a, id)
        assert (status["state"], status["status"], status["meta"]["percent"]) == ("SUCCESS", "completed", 100)
        call = await a.ask("GET", f"/image/{id}")
        assert (call.status, call.headers[b"content-type"], call.headers[b"x-job-id"]) == (
            200,
            b"image/png",
            id.encode(),
        )
        metadata = json.loads(call.headers[b"x-generation-metadata"])
        assert (metadata["model"], metadata["steps"], metadata["seed"]) == ("sdxl-base", 4, 42)
        assert metadata == status["result"]["metadata"]
        name = status["result"]["filename"]
        assert status["result"]["filenames"] == [name]
        down = await a.ask("GET", f"/download/{name}")
        assert down.body == call.body
        assert image_size(call.body) == (64, 64)
        assert down.headers[b"content-disposition"] == f'attachment; filename="{name}"'.encode()

    live(tmp_path, story, home)


def test_i3_what_waits_for_its_turn_is_pending_and_knows_its_place(tmp_path: Path) -> None:
    home = Painter(at=1)

    async def story(a: House) -> None:
        await made(a)
        ids = [await made(a) for _ in range(2)]
        await until(lambda: bool(home.asked))
        told = [(await a.ask("GET", f"/status/{id}")).json() for id in ids]
        assert [(one["state"], one["status"], one["position"]) for one in told] == [
            ("PENDING", "queued", 0),
            ("PENDING", "queued", 1),
        ]
        call = await a.ask("GET", f"/image/{ids[1]}")
        assert (call.status, call.json()["status"], call.json()["state"]) == (202, "processing", "PENDING")
        health = (await a.ask("GET", "/health")).json()
        assert health == {
            "status": "ok",
            "backends": {"a": "ok"},
            "queue": {"status": "ok", "waiting": 2, "running": 1},
        }
        home.going.set()
        await over(a, ids[1])

    live(tmp_path, story, home)


def test_i10_what_the_header_says_posted_back_gives_the_same_picture(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        stack = [{"name": "bright", "weight": 0.5}, {"name": "dark"}]
        first = await made(a, negative_prompt="flou “é”", loras=stack, sampler="euler_a", n=2)
        await over(a, first)
        for index in (0, 1):
            call = await a.ask("GET", f"/image/{first}?index={index}")
            recipe = call.headers[b"x-generation-metadata"]
            assert recipe.isascii()
            assert json.loads(recipe)["loras"] == [{"name": "bright", "weight": 0.5}, {"name": "dark", "weight": 1.0}]
            again = await made(a, **json.loads(recipe), made_by="somebody", took=3.5)
            await over(a, again)
            assert (await a.ask("GET", f"/image/{again}")).body == call.body

    live(tmp_path, story)


def test_i10_the_recipe_of_a_picture_that_began_with_another_finds_it_by_its_digest(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        first = await made(a, ANN, image=png(), mask=png(), strength=0.5, reference=f"data:image/png;base64,{png()}")
        await over(a, first, ANN)
        call = await a.ask("GET", f"/image/{first}", headers=ANN)
        recipe = json.loads(call.headers[b"x-generation-metadata"])
        assert recipe["image"].startswith("sha256:")
        again = await made(a, ANN, **recipe)
        await over(a, again, ANN)
        assert (await a.ask("GET", f"/image/{again}", headers=ANN)).body == call.body
        theirs = await a.ask("POST", "/generate", recipe, BEN)
        assert theirs.status == 422
        assert theirs.json()["detail"][0]["loc"] == ["body", "image"]

    live(tmp_path, story, config=KEYS)


def test_i3_prompts_that_fit_into_no_header_are_left_out_of_it_and_told_elsewhere(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        id = await made(a, prompt="é" * 5000, negative_prompt="no", seed=5)
        whole = (await over(a, id))["result"]["metadata"]
        told = (await a.ask("GET", f"/x/image/{id}")).headers[b"x-generation-metadata"]
        assert len(told) < 8192
        metadata = json.loads(told)
        assert "prompt" not in metadata
        assert metadata["left_out"] == ["prompt", "negative_prompt"]
        assert metadata["whole"] == f"/x/status/{id}"
        assert (whole["prompt"], whole["seed"]) == ("é" * 5000, 5)
        refused = await a.ask("POST", "/generate", metadata)
        assert refused.status == 422
        assert refused.json()["error"] == "prompt: this is required"

    live(tmp_path, story, listener=Listener(port=1, dialects=("images", Mounted(name="images", prefix="/x"))))


def test_i3_each_of_several_pictures_is_given_as_soon_as_it_is_done(tmp_path: Path) -> None:
    home = Painter(at=4)

    async def story(a: House) -> None:
        id = await made(a, n=2, steps=4, seed=7)
        assert (await a.ask("GET", f"/image/{id}?index=2")).status in {202, 404}
        home.going.set()
        told = await over(a, id)
        assert [one["seed"] for one in told["result"]["images"]] == [7, 8]
        first, second, third = [await a.ask("GET", f"/image/{id}?index={index}") for index in (0, 1, 2)]
        assert (first.status, second.status, third.status) == (200, 200, 404)
        assert first.body == (await a.ask("GET", f"/image/{id}")).body != second.body
        alone = await made(a, steps=4, seed=8)
        await over(a, alone)
        assert (await a.ask("GET", f"/image/{alone}")).body == second.body

    live(tmp_path, story, home)


def test_i3_a_picture_that_is_known_is_not_sent_again(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        id = await made(a)
        name = (await over(a, id))["result"]["filename"]
        for path in (f"/image/{id}", f"/download/{name}"):
            call = await a.ask("GET", path)
            assert b"immutable" in call.headers[b"cache-control"]
            assert b"private" in call.headers[b"cache-control"]
            again = await a.ask("GET", path, b"", [(b"if-none-match", call.headers[b"etag"])])
            assert (again.status, again.body) == (304, b"")
            other = await a.ask("GET", path, b"", [(b"if-none-match", b'"another"')])
            assert other.status == 200

    live(tmp_path, story)


# Jobs that come to no picture


def test_i3_a_failure_is_a_500_with_the_documents_words(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        id = await made(a)
        assert (await over(a, id))["state"] == "FAILURE"
        call = await a.ask("GET", f"/image/{id}")
        assert (call.status, call.json()) == (500, {"status": "failed", "error": "CUDA out of memory"})
        assert call.headers[b"x-should-retry"] == b"false"
        status = (await a.ask("GET", f"/status/{id}")).json()
        assert (status["status"], status["error"], status["result"]) == ("failed", "CUDA out of memory", None)

    live(tmp_path, story, Painter(at=2, failing=OutOfMemory("CUDA out of memory")))


@pytest.mark.parametrize("id", ["invalid-job-id", NOWHERE, "x" * 5000, "%00", "é"])
def test_i3_a_job_that_there_is_not_is_not_found(tmp_path: Path, id: str) -> None:
    async def story(a: House) -> None:
        for method, path in [
            ("GET", f"/image/{id}"),
            ("HEAD", f"/image/{id}"),
            ("GET", f"/image/{id}?wait=10"),
            ("GET", f"/status/{id}"),
            ("GET", f"/jobs/{id}"),
            ("DELETE", f"/jobs/{id}"),
            ("POST", f"/jobs/{id}/cancel"),
            ("GET", f"/jobs/{id}/events"),
            ("HEAD", f"/jobs/{id}/events"),
            ("GET", f"/download/{id}"),
            ("GET", f"/download/{id}.png"),
        ]:
            call = await a.ask(method, path)
            assert call.status == 404, path
            assert call.json()["status"] == "failed"

    live(tmp_path, story)


def test_a_job_that_is_cancelled_is_revoked_and_its_picture_is_gone(tmp_path: Path) -> None:
    home = Painter(at=2)

    async def story(a: House) -> None:
        running, waiting = await made(a), await made(a)
        await until(lambda: bool(home.asked))
        for id, method, path in ((waiting, "POST", "/jobs/{}/cancel"), (running, "DELETE", "/jobs/{}")):
            call = await a.ask(method, path.format(id))
            assert (call.status, call.json()["state"], call.json()["status"]) == (200, "REVOKED", "cancelled")
            picture = await a.ask("GET", f"/image/{id}")
            assert (picture.status, picture.json()["status"]) == (410, "cancelled")
            assert (await a.ask("POST", f"/jobs/{id}/cancel")).json()["state"] == "REVOKED"
        assert home.ended == len(home.asked) == 1
        assert (await a.ask("DELETE", f"/jobs/{running}")).json() == {"job_id": running, "status": "removed"}
        assert (await a.ask("GET", f"/status/{running}")).status == 404

    live(tmp_path, story, home)


def test_a_job_that_is_over_is_forgotten_with_its_picture(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        id = await made(a)
        name = (await over(a, id))["result"]["filename"]
        assert (await a.ask("POST", f"/jobs/{id}/cancel")).json()["state"] == "SUCCESS"
        assert (await a.ask("DELETE", f"/jobs/{id}")).json()["status"] == "removed"
        assert (await a.ask("GET", f"/download/{name}")).status == 404
        assert (await a.ask("DELETE", f"/jobs/{id}")).status == 404

    live(tmp_path, story)


# Whoever waits


@pytest.mark.parametrize(
    ("query", "headers", "held"),
    [
        ("", CURL, True),
        ("?wait=20", [], True),
        ("", [(b"prefer", b"wait=20")], True),
        ("", [(b"prefer", b'respond-async, wait="20"')], True),
        ("?wait=0", CURL, False),
        ("", [*CURL, (b"prefer", b"wait=0")], False),
        ("?wait=0", [(b"prefer", b"wait=20")], False),
        ("", REQUESTS, False),
        ("", [(b"prefer", b"return=minimal, wait=soon")], False),
        ("", [(b"user-agent", b"my curl/8.5")], False),
        ("", [], False),
    ],
)
def test_i3_curl_is_held_until_there_is_a_picture_and_others_where_they_ask_to_be(
    tmp_path: Path, query: str, headers: Headers, held: bool
) -> None:
    home = Painter(at=2)

    async def story(a: House) -> None:
        id = await made(a)
        await until(lambda: bool(home.asked))
        call = a.call("GET", f"/image/{id}{query}", headers=headers)
        if not held:
            assert (await call.end()).status == 202
            assert not a.gateway.running
        else:
            await asyncio.wait((call.task,), timeout=0.05)
            assert not call.sent
        home.going.set()
        await over(a, id)
        if held:
            assert ((await call.end()).status, call.body[:4]) == (200, b"\x89PNG")

    live(tmp_path, story, home)


def test_i3_who_waits_no_longer_is_told_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = Painter(at=2)

    async def story(a: House) -> None:
        id = await made(a)
        await until(lambda: bool(home.asked))
        monkeypatch.setattr(routes.asked, "WAIT", 0.02)
        call = await a.ask("GET", f"/image/{id}?wait=100")
        assert (call.status, call.json()["status"]) == (202, "processing")
        assert (await a.ask("GET", f"/status/{id}?wait=100")).json()["state"] == "PROGRESS"
        home.going.set()
        await over(a, id)

    live(tmp_path, story, home)


@pytest.mark.parametrize("tells", [True, False])
def test_a_client_that_leaves_while_it_is_held_leaves_nothing_behind(
    tmp_path: Path, tells: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Call, "tells_departure", tells)
    home = Painter(at=2)

    async def story(a: House) -> None:
        id = await made(a)
        await until(lambda: bool(home.asked))
        before = asyncio.all_tasks()
        calls = [a.call("GET", f"/image/{id}", headers=CURL), a.call("GET", f"/jobs/{id}/events")]
        await calls[1].until(2)
        mine = {call.task for call in calls}
        await until(lambda: len(asyncio.all_tasks() - before - mine) >= len(calls))
        for call in calls:
            call.leave()
            await asyncio.wait((call.task,))
        assert not a.gateway.running
        await until(lambda: asyncio.all_tasks() <= before)
        assert (await a.ask("GET", f"/status/{id}")).json()["state"] == "PROGRESS", "the job goes on"
        home.going.set()
        assert (await over(a, id))["state"] == "SUCCESS"

    live(tmp_path, story, home)


def test_nobody_is_held_when_the_gateway_ends_and_a_loop_of_curl_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(holding, "GLANCE", 0.01)
    home = Painter(at=2)

    async def story(a: House) -> None:
        id = await made(a)
        await until(lambda: bool(home.asked))
        curl = a.call("GET", f"/image/{id}", headers=CURL)
        asking = a.call("GET", f"/image/{id}?wait=100")
        watching = a.call("GET", f"/jobs/{id}/events")
        await watching.until(2)
        a.gateway.draining = True
        assert (await curl.end()).status == 503, "a 202 would end it with something that is no picture"
        assert (await asking.end()).status == 202
        assert (await watching.end()).complete
        a.gateway.draining = False
        home.going.set()
        await over(a, id)

    live(tmp_path, story, home)


# Events


def test_a_job_is_watched_up_to_its_end_and_who_comes_back_is_told_that_it_is_over(tmp_path: Path) -> None:
    home = Painter(at=2)

    async def story(a: House) -> None:
        id = await made(a, previews=2)
        call = a.call("GET", f"/jobs/{id}/events?previews=1")
        await call.until(2)
        home.going.set()
        events = [json.loads(one.data) for one in heard((await call.end()).body)]
        assert call.headers[b"content-type"].startswith(b"text/event-stream")
        assert (events[0]["state"] in {"PENDING", "PROGRESS"}, events[-1]["state"]) == (True, "SUCCESS")
        steps = [one["meta"]["current"] for one in events]
        assert steps == sorted(steps)
        assert all(one.get("preview", "data:image/png;base64,").startswith("data:image/png;base64,") for one in events)
        last = call.body.decode().rpartition("id: ")[2].partition("\n")[0]
        again = await a.ask("GET", f"/jobs/{id}/events", b"", [(b"last-event-id", last.encode())])
        assert (again.status, again.body) == (204, b"")
        for seen in (b"1-PROGRESS", b"nonsense", b""):
            other = await a.ask("GET", f"/jobs/{id}/events", b"", [(b"last-event-id", seen)])
            assert json.loads(heard(other.body)[-1].data)["state"] == "SUCCESS"
        assert "preview" not in json.loads(heard(other.body)[-1].data)
        head = await a.ask("HEAD", f"/jobs/{id}/events")
        assert head.status == 200

    live(tmp_path, story, home)


def test_a_stream_gives_a_sign_of_life_in_a_long_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "GLANCE", 0.01)
    monkeypatch.setattr(routes, "HEARTBEAT", 0.02)
    home = Painter(at=2)

    async def story(a: House) -> None:
        id = await made(a)
        call = a.call("GET", f"/jobs/{id}/events")
        await until(lambda: b"\n\n: \n\n" in b"".join(one["body"] for one in call.sent[1:]))
        home.going.set()
        assert json.loads(heard((await call.end()).body)[-1].data)["state"] == "SUCCESS"

    live(tmp_path, story, home)


# Lists


def test_jobs_are_listed_the_newest_first_in_pages_and_by_state(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        ids = []
        for _ in range(5):
            ids.append(await made(a))
            await over(a, ids[-1])
        first = (await a.ask("GET", "/jobs?limit=2")).json()
        assert [one["job_id"] for one in first["jobs"]] == ids[:-3:-1]
        second = (await a.ask("GET", f"/jobs?limit=2&after={first['next']}")).json()
        third = (await a.ask("GET", f"/jobs?limit=2&after={second['next']}")).json()
        assert [one["job_id"] for one in (*first["jobs"], *second["jobs"], *third["jobs"])] == ids[::-1]
        assert third["next"] is None
        assert len((await a.ask("GET", "/jobs?state=SUCCESS,FAILURE")).json()["jobs"]) == 5
        assert (await a.ask("GET", "/jobs?state=completed")).json()["jobs"]
        assert (await a.ask("GET", "/jobs?state=PENDING")).json() == {"jobs": [], "next": None}
        assert (await a.ask("GET", f"/jobs?after={NOWHERE}")).status == 404
        assert (await a.ask("GET", f"/jobs/{ids[0]}")).json()["job_id"] == ids[0]

    live(tmp_path, story)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=x", "limit"),
        ("/jobs?limit=1001", "limit"),
        ("/jobs?limit=%C2%B2", "limit"),
        ("/jobs?state=SUCCES", "state"),
        (f"/image/{NOWHERE}?index=-1", "index"),
        (f"/image/{NOWHERE}?wait=soon", "wait"),
        (f"/image/{NOWHERE}?wait=-1", "wait"),
        (f"/jobs/{NOWHERE}/events?previews=2", "previews"),
    ],
)
def test_a_query_that_is_not_what_it_should_be_is_refused_with_its_place(tmp_path: Path, path: str, name: str) -> None:
    async def story(a: House) -> None:
        call = await a.ask("GET", path)
        assert call.status == 422
        assert call.json()["detail"][0]["loc"] == ["query", name]

    live(tmp_path, story)


def test_i5_i6_models_and_adapters_are_listed_as_the_document_has_them(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        models = (await a.ask("GET", "/models")).json()["models"]
        assert {"sdxl-base", "pony-xl-v6"} <= {one["id"] for one in models}
        for one in models:
            assert {"id", "name", "supported_loras"} <= set(one)
            assert one["supported_loras"] == [lora.id for lora in OFFER.loras]
            assert (one["samplers"], one["defaults"]["steps"]) == (["euler", "euler_a"], 4)
        assert not any(one["loaded"] for one in models)
        await over(a, await made(a))
        assert [one["id"] for one in (await a.ask("GET", "/models")).json()["models"] if one["loaded"]] == ["sdxl-base"]
        assert (await a.ask("GET", "/loras")).json() == {
            "loras": [
                {
                    "id": "bright",
                    "name": "Brighter stripes",
                    "default_weight": 0.75,
                    "trigger_words": ["bright"],
                    "kind": "lora",
                },
                {"id": "dark", "name": "Darker stripes", "default_weight": 1.0, "trigger_words": None, "kind": "lora"},
            ]
        }

    live(tmp_path, story)


def test_what_is_read_answers_head_too(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        id = await made(a)
        name = (await over(a, id))["result"]["filename"]
        for path in (
            f"/image/{id}", f"/status/{id}", f"/download/{name}", "/models", "/loras", "/health", "/jobs", f"/jobs/{id}",
        ):  # fmt: skip
            got, head = await a.ask("GET", path), await a.ask("HEAD", path)
            assert (head.status, head.headers[b"content-length"]) == (200, got.headers[b"content-length"]), path

    live(tmp_path, story)


# What is refused


BOMB = png(more=chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(100_000_000), 9)))

BAD: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "sdxl-bas"}, 404, "", "did you mean 'sdxl-base'"),
    ({"loras": [{"name": "brigt", "weight": 0.75}]}, 404, "", "did you mean 'bright'"),
    ({"loras": [{"name": f"l{index}"} for index in range(5)]}, 422, "loras", "at most 4 LoRAs"),
    ({"loras": [{"name": "bright"}, {"name": "bright"}]}, 422, "loras", "twice"),
    ({"loras": [{"weight": 1}]}, 422, "loras.0.name", "required"),
    ({"loras": [{"name": "bright", "weight": 99}]}, 422, "loras", "weight"),
    ({"loras": "bright"}, 422, "loras", "Expected `array | null`"),
    ({"width": 7}, 422, "width", "16 to 8192"),
    ({"height": 100}, 422, "height", "multiple of 8"),
    ({"width": "wide"}, 422, "width", "Expected `int | null`"),
    ({"width": 8192, "height": 8192}, 422, "width", "at most"),
    ({"steps": 0}, 422, "steps", "1 to 500"),
    ({"steps": 2.5}, 422, "steps", "Expected"),
    ({"seed": 2**32}, 422, "seed", "0 to"),
    ({"n": 11}, 422, "n", "1 to 10"),
    ({"n": 0}, 422, "n", "1 to 10"),
    ({"previews": 11}, 422, "previews", "0 to 10"),
    ({"prompt": 5}, 422, "prompt", "Expected `str`"),
    ({"prompt": "x" * 10_001}, 422, "prompt", "at most 10000"),
    ({"sampler": "eulr"}, 422, "sampler", "did you mean 'euler'"),
    ({"sampler": "euler", "scheduler": "euler_a"}, 422, "scheduler", "one field"),
    ({"image": png(), "strength": 2}, 422, "strength", "0 to 1"),
    ({"image": png(), "strength": 0}, 422, "strength", "above 0"),
    ({"strength": 0.5}, 422, "strength", "the image is missing"),
    ({"mask": png()}, 422, "mask", "the image that it belongs to"),
    ({"image": png(10_000, 5_000)}, 422, "image", "pixels"),
    ({"image": png(7_072, 7_072)}, 422, "image", "pixels"),
    ({"reference": png(100_000, 8)}, 422, "reference", "side"),
    ({"image": png(more=chunk(b"tEXt", b"") * 30_000)}, 422, "image", "chunks"),
    ({"image": BOMB}, 422, "image", "inflates to far more"),
    ({"image": png(), "mask": BOMB}, 422, "mask", "inflates to far more"),
    ({"image": base64.b64encode(b"\x80\x04\x95cos\nsystem\n").decode()}, 422, "image", "PNG, JPEG and WebP"),
    ({"image": base64.b64encode(b"GIF89a" + b"\0" * 20).decode()}, 422, "image", "GIF"),
    ({"image": "https://example.org/a.png"}, 422, "image", "base64"),
    ({"image": "sha256:" + "0" * 64}, 422, "image", "send its bytes"),
    ({"image": "sha256:../../etc/passwd"}, 422, "image", "send its bytes"),
]  # fmt: skip


def test_what_cannot_be_is_refused_with_its_place_and_nothing_is_begun(tmp_path: Path) -> None:
    home = Painter()

    async def story(a: House) -> None:
        for fields, status, place, words in BAD:
            call = await a.ask("POST", "/generate", {**SUNSET, **fields})
            told = call.json()
            assert call.status == status, (str(fields)[:200], told)
            assert words in told["error"], told
            assert told["status"] == "failed"
            if status == 422:
                (fault,) = told["detail"]
                assert ".".join(map(str, fault["loc"])) == f"body.{place}"
            else:
                assert told["detail"] == told["error"]
        for body in (b"", b"[]", b"{", b'{"prompt":"x","prompt":"y"}', b"\xff", b"null"):
            assert (await a.ask("POST", "/generate", body)).status == 422
        assert (await a.ask("GET", "/jobs")).json()["jobs"] == []
        assert home.asked == []

    live(tmp_path, story, home)


def test_a_full_queue_is_busy_and_says_when_to_come_back(tmp_path: Path) -> None:
    home = Painter(at=2)

    async def story(a: House) -> None:
        await made(a)
        await until(lambda: bool(home.asked))
        await made(a)
        call = await a.ask("POST", "/generate", SUNSET)
        assert call.status == 503
        assert int(call.headers[b"retry-after"]) > 0
        home.going.set()

    live(tmp_path, story, home, config=Config(jobs=Jobs(waiting=1)))


def test_jobs_of_one_key_are_unknown_to_every_other(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        id = await made(a, ANN)
        name = (await over(a, id, ANN))["result"]["filename"]
        for method, path in [
            ("GET", f"/image/{id}"),
            ("GET", f"/status/{id}"),
            ("GET", f"/download/{name}"),
            ("GET", f"/jobs/{id}"),
            ("GET", f"/jobs/{id}/events"),
            ("GET", f"/jobs?after={id}"),
            ("POST", f"/jobs/{id}/cancel"),
            ("DELETE", f"/jobs/{id}"),
        ]:
            assert (await a.ask(method, path, headers=BEN)).status == 404, path
            assert (await a.ask(method, path)).status == 401, path
        assert (await a.ask("GET", "/jobs", headers=BEN)).json()["jobs"] == []
        assert (await a.ask("GET", f"/download/{name}", headers=ANN)).status == 200

    live(tmp_path, story, config=KEYS)


def test_a_page_may_read_the_headers_of_a_picture(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        id = await made(a)
        await over(a, id)
        call = await a.ask("GET", f"/image/{id}", headers=[(b"origin", b"http://localhost:3000")])
        exposed = call.headers[b"access-control-expose-headers"].lower().split(b", ")
        assert {b"x-job-id", b"x-generation-metadata"} <= set(exposed)

    live(tmp_path, story)


def test_without_a_store_there_are_no_jobs_and_all_else_is_told() -> None:
    async def story(a: House) -> None:
        assert (await a.ask("POST", "/generate", SUNSET)).status == 507
        assert (await a.ask("GET", "/health")).json()["queue"] is None
        assert (await a.ask("GET", "/models")).status == 200

    lived(None, story, Painter(), listener=ALONE, models=MODELS)

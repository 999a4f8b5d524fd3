"""Brenda's pictures (promises B10, B11, B12, B15, B16): what is asked, how it is told, and what stops it."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from adapters.brenda.painting import PaintStream, read_generate, read_refine, sized
from backends.echo_painting import painted_echo, prepared_echo
from canonical.errors import InvalidRequest, OutOfMemory, TooLarge
from canonical.media import Blob, image_size
from canonical.models import Capability
from canonical.painting import Lora, Offer, Paint, Painted
from gateway.settings import Config, Jobs, ModelEntry
from tests.asgi import Call, Headers, House
from tests.calling import until
from tests.eventsource import heard
from tests.houses import Home
from tests.in_sessions import KEYS, MINE, YOURS, id_of, live
from tests.painter import Painter
from tests.responding import ANN

GENERATE = "/v1/images/generate"
REFINE = "/v1/images/refine"
SUNSET = {"prompt": "un coucher de soleil"}
STRIPES = next(
    one.image for one in painted_echo(prepared_echo(Paint(prompt="", seed=1, steps=1))) if isinstance(one, Painted)
)
BARE = STRIPES.base64()
AS_URI = STRIPES.data_url()


def told(call: Call) -> list[Any]:
    """The events of a stream, whatever its status."""
    assert call.headers[b"content-type"].startswith(b"text/event-stream"), call.headers
    return [json.loads(one.data) for one in heard(call.body)]


def picture(events: list[Any]) -> bytes:
    """The picture of a stream that is as the document says: progress that grows, and then what is completed."""
    *progress, last = events
    shares = [one["progress"] for one in progress]
    assert all(set(one) == {"progress"} for one in progress)
    assert shares == sorted(set(shares))
    assert shares[0] >= 0, "a job may have begun before it is heard of"
    assert shares[-1] == 1
    assert last["status"] == "completed"
    data = base64.b64decode(last["image"], validate=True)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    return data


# What is asked


def asked(**fields: Any) -> Paint:
    return read_generate(json.dumps({**SUNSET, **fields}).encode())


def test_b11_a_request_as_the_document_has_it() -> None:
    whole = asked(model_type="sdxl-base", negative_prompt="flou", width=512, height=768, steps=12)
    assert whole == Paint(
        prompt=SUNSET["prompt"], model="sdxl-base", negative_prompt="flou", width=512, height=768, steps=12
    )
    assert asked() == Paint(prompt=SUNSET["prompt"], steps=20)
    assert asked(negative_prompt=None, steps=None, width=None, model_type=None, loras=None) == asked()
    assert asked(steps="8", width="64").steps == 8, "forms send numbers as text"


def test_b11_beside_the_document_there_are_a_seed_guidance_and_adapters() -> None:
    stack = [{"name": "night", "weight": 0.5}, {"name": "frame"}]
    more = asked(model="pony", seed=7, guidance_scale=4.5, loras=stack)
    assert (more.model, more.seed, more.guidance_scale) == ("pony", 7, 4.5)
    assert more.loras == (Lora("night", 0.5), Lora("frame"))
    assert asked(seed=-1).seed is None


def test_b15_a_picture_to_refine_has_the_documents_defaults() -> None:
    request = read_refine(json.dumps({**SUNSET, "image": AS_URI}).encode())
    assert (request.strength, request.steps, request.image) == (0.3, 20, STRIPES)
    assert request == read_refine(json.dumps({**SUNSET, "image": BARE, "strength": None, "steps": None}).encode())
    assert read_refine(json.dumps({**SUNSET, "image": BARE, "strength": 0.9, "steps": 3}).encode()).strength == 0.9


@pytest.mark.parametrize(
    ("body", "where"),
    [
        (b"{}", "prompt"),
        (b'{"prompt":5}', "prompt"),
        (b'{"prompt":"x","width":"wide"}', "width"),
        (b'{"prompt":"x","loras":[{"weight":1}]}', "loras[0].name"),
        (b"[]", None),
    ],
)
def test_what_is_no_request_is_refused_with_its_place(body: bytes, where: str | None) -> None:
    with pytest.raises(InvalidRequest) as error:
        read_generate(body)
    assert error.value.param == where


@pytest.mark.parametrize(
    "image", ["", "x" * 40, "data:image/png;base64,AAAA", base64.b64encode(b"GIF89a" + bytes(20)).decode()]
)
def test_b16_what_is_no_picture_is_refused(image: str) -> None:
    with pytest.raises(InvalidRequest):
        read_refine(json.dumps({**SUNSET, "image": image}).encode())


def test_b16_more_than_10_mb_are_too_large() -> None:
    large = base64.b64encode(STRIPES.data + bytes(10 * 1024 * 1024)).decode()
    with pytest.raises(TooLarge):
        read_refine(json.dumps({**SUNSET, "image": large}).encode())


@pytest.mark.parametrize(
    ("own", "most", "size"),
    [
        ((1024, 1024), 0, (1024, 1024)),
        ((512, 512), 0, (1024, 1024)),
        ((None, None), 0, (1024, 1024)),
        ((64, 64), 0, (None, None)),
        ((512, 512), 512 * 512, (None, None)),
    ],
)
def test_b11_a_picture_is_as_large_as_the_document_says_where_the_model_can(
    own: tuple[int | None, int | None], most: int, size: tuple[int | None, int | None]
) -> None:
    offer = Offer(preset=Paint(prompt="", width=own[0], height=own[1]), max_pixels=most)
    found = sized(asked(), offer)
    assert (found.width, found.height) == size
    said = sized(asked(width=72), offer)
    assert (said.width, said.height) == (72, size[1])


def test_b11_progress_never_goes_back_and_says_each_share_once() -> None:
    stream = PaintStream()
    shares = [stream.feed(done, 4) for done in (0, 0, 1, 3, 0, 2, 4, 4)]
    assert shares == [
        b'data: {"progress":0.0}\n\n',
        b"",
        b'data: {"progress":0.25}\n\n',
        b'data: {"progress":0.75}\n\n',
        b"",
        b"",
        b'data: {"progress":1.0}\n\n',
        b"",
    ]
    assert PaintStream().feed(0, 0) == b'data: {"progress":0.0}\n\n'
    unknown = PaintStream.end(Blob(b"x", "image/png"), Paint(prompt="", model="far"))
    assert unknown == b'data: {"status":"completed","image":"eA==","model":"far"}\n\n'


# What is told


def test_b11_b12_b15_pictures_are_made_as_events(tmp_path: Path) -> None:
    home = Painter()

    async def story(a: House) -> None:
        call = await a.ask("POST", GENERATE, {**SUNSET, "steps": 5, "seed": 9, "width": 72, "height": 40})
        assert (call.status, id_of(call) != b"") == (200, True)
        events = told(call)
        made = picture(events)
        assert image_size(made) == (72, 40)
        last = events[-1]
        assert (last["model"], last["seed"], last["steps"], last["width"]) == ("a", 9, 5, 72)
        again = await a.ask(
            "POST", GENERATE, {**SUNSET, **{name: last[name] for name in ("seed", "steps", "width", "height")}}
        )
        assert picture(told(again)) == made

        for image in (AS_URI, BARE):
            anew = await a.ask("POST", REFINE, {**SUNSET, "image": image, "seed": 9})
            picture(told(anew))
            assert (home.asked[-1].strength, home.asked[-1].steps) == (0.3, 20)
            assert home.asked[-1].image == STRIPES

        models = await a.ask("GET", "/v1/images/models")
        assert models.json() == {"models": ["a"]}
        assert id_of(models)

    live(tmp_path, story, home)


def test_b11_without_a_model_it_is_sdxl_turbo_and_else_the_default(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        for body, model in (({}, "sdxl-turbo"), ({"model_type": "other"}, "other")):
            events = told(await a.ask("POST", GENERATE, {**SUNSET, **body}))
            assert events[-1]["model"] == model

    async def without(a: House) -> None:
        assert told(await a.ask("POST", GENERATE, SUNSET))[-1]["model"] == "a"
        named = await a.ask("POST", GENERATE, {**SUNSET, "model_type": "sdxl-turbo"})
        assert named.status == 404

    models = [ModelEntry(id="other", backend="a", name="m"), ModelEntry(id="sdxl-turbo", backend="a", name="m")]
    live(tmp_path / "with", story, Painter(), models=models)
    live(tmp_path / "without", without, Painter())


@pytest.mark.parametrize(
    ("path", "fields", "status", "word"),
    [
        (GENERATE, {"model_type": "aa"}, 404, "did you mean 'a'"),
        (GENERATE, {"loras": [{"name": "brigt"}]}, 404, "did you mean 'bright'"),
        (GENERATE, {"width": 7}, 400, "width"),
        (GENERATE, {"steps": 0}, 400, "steps"),
        (GENERATE, {"prompt": None}, 400, "prompt"),
        (REFINE, {"image": BARE, "strength": 2}, 400, "strength"),
        (REFINE, {"image": "?"}, 400, "image"),
        (REFINE, {}, 400, "image"),
    ],
)
def test_b11_what_cannot_be_is_an_error_among_the_events_with_its_status(
    tmp_path: Path, path: str, fields: dict[str, Any], status: int, word: str
) -> None:
    home = Painter()

    async def story(a: House) -> None:
        call = await a.ask("POST", path, {**SUNSET, **fields})
        (event,) = told(call)
        assert (call.status, set(event)) == (status, {"error"})
        assert word in event["error"]
        assert not home.asked

    live(tmp_path, story, home)


def test_b11_without_a_model_that_paints_it_is_said(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        call = await a.ask("POST", GENERATE, SUNSET)
        assert (call.status, "paint" in told(call)[0]["error"]) == (501, True)
        assert (await a.ask("GET", "/v1/images/models")).json() == {"models": []}

    live(tmp_path, story, Home(abilities=[Capability.CHAT]))


def test_b11_what_fails_on_the_way_is_its_last_event(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        call = await a.ask("POST", GENERATE, SUNSET)
        *progress, last = told(call)
        assert call.status == 200
        assert all(set(one) == {"progress"} for one in progress)
        assert last == {"error": "there is no memory left"}

    live(tmp_path, story, Painter(at=2, failing=OutOfMemory("there is no memory left")))


def test_b11_a_full_queue_is_busy(tmp_path: Path) -> None:
    home = Painter(at=2)

    async def story(a: House) -> None:
        first = a.call("POST", GENERATE, SUNSET)
        await until(lambda: home.steps == 1)
        second = a.call("POST", GENERATE, SUNSET)
        await second.until(2)
        third = await a.ask("POST", GENERATE, SUNSET)
        assert (third.status, b"retry-after" in third.headers) == (503, True)
        home.going.set()
        picture(told(await first.end()))
        picture(told(await second.end()))

    live(tmp_path, story, home, config=Config(jobs=Jobs(waiting=1)))


# What stops it


async def stop(a: House, headers: Headers) -> None:
    call = await a.ask("POST", "/v1/stop", b"", headers)
    assert (call.status, call.json()) == (200, {"status": "stopped"})


def test_b10_a_stop_ends_the_sessions_picture_and_no_other(tmp_path: Path) -> None:
    home = Painter(at=3)

    async def story(a: House) -> None:
        mine = a.call("POST", GENERATE, SUNSET, MINE)
        await until(lambda: home.steps == 2)
        other = a.call("POST", GENERATE, SUNSET, YOURS)
        waiting = a.call("POST", GENERATE, SUNSET, MINE)
        await waiting.until(2)
        await other.until(2)
        await stop(a, MINE)
        assert (home.ended, home.steps) == (1, 2), "it stopped before it was answered, within a step"
        for call in (mine, waiting):
            *progress, last = told(await call.end())
            assert all(set(one) == {"progress"} for one in progress)
            assert last == {"error": "the picture was stopped"}
        home.going.set()
        picture(told(await other.end()))
        assert len(home.asked) == 2, "what waited was never begun"
        picture(told(await a.ask("POST", GENERATE, SUNSET, MINE)))
        after = await a.ask("POST", "/v1/stop", b"", MINE)
        assert after.status == 400, "nothing runs, and it has no model"

    live(tmp_path, story, home)


def test_b11_a_client_that_leaves_stops_its_picture_within_a_step(tmp_path: Path) -> None:
    home = Painter(at=3)

    async def story(a: House) -> None:
        call = a.call("POST", GENERATE, SUNSET, MINE)
        await until(lambda: home.steps == 2)
        call.leave()
        await call.end()
        await until(lambda: home.ended == 1)
        assert home.steps == 2
        await until(lambda: a.running() == 0)

    live(tmp_path, story, home)


def test_a_picture_belongs_to_the_key_and_its_session_has_no_model_of_it(tmp_path: Path) -> None:
    async def story(a: House) -> None:
        picture(told(await a.ask("POST", GENERATE, SUNSET, [*ANN, *MINE])))
        told_of = await a.ask("GET", "/v1/session", headers=[*ANN, *MINE])
        assert told_of.json()["current_model"] is None, "chats without a model would go to one that paints"
        loaded = await a.ask("POST", "/v1/models/a/load", b"", [*ANN, *MINE])
        assert told(loaded)[-1] == {"status": "loaded"}
        assert (await a.ask("GET", "/v1/session", headers=[*ANN, *MINE])).json()["current_model"] is None
        refused = await a.ask("POST", GENERATE, SUNSET, MINE)
        assert refused.status == 401

    live(tmp_path, story, Painter(), config=KEYS)

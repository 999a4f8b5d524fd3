"""OpenAI's image API in a gateway in memory: what is answered, and who gets to see what."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.openai.images import QUALITIES, Wish, read_edit
from canonical.errors import BackendError, OutOfMemory
from canonical.media import Blob, image_from_base64
from canonical.painting import Offer
from gateway.settings import Config, Jobs, Key, Listener, Mounted
from gateway.web import openai_images
from gateway.web.signed import LIFE, Links
from tests.asgi import Call, House
from tests.painter import Painter
from tests.uploads import DATA_URL, FORM, RED, form

OTHER = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
GENERATIONS, EDITS, VARIATIONS = "/v1/images/generations", "/v1/images/edits", "/v1/images/variations"
KEYS = ("first-key-123", "second-key-456")


# A gateway


def live(
    data: Path,
    use: Callable[[House], Awaitable[None]],
    *,
    painter: Painter | None = None,
    config: Config | None = None,
    listener: Listener | None = None,
) -> None:
    """A gateway with a model ``p`` that paints, for as long as ``use`` takes."""

    async def whole() -> None:
        house = House(
            data=data, config=config, listener=listener or Listener(port=1, dialects=(Mounted("openai"),)), p=painter or Painter()
        )  # fmt: skip
        try:
            await use(house)
        finally:
            assert house.jobs is not None
            await house.jobs.close()
            await house.close()

    asyncio.run(whole())


async def until(there: Callable[[], object]) -> None:
    while not there():  # noqa: ASYNC110  nobody tells
        await asyncio.sleep(0)


def error_of(call: Call) -> dict[str, Any]:
    assert set(call.json()["error"]) == {"message", "type", "param", "code"}
    return call.json()["error"]


def events(call: Call) -> list[dict[str, Any]]:
    """A stream's, whose names are those of their data."""
    found = []
    for record in call.body.decode().removesuffix("\n\n").split("\n\n"):
        if not record.startswith(":"):
            name, data = record.split("\n")
            found.append(json.loads(data.removeprefix("data: ")))
            assert name == f"event: {found[-1].get('type', 'error')}"
    return found


def test_what_a_picture_was_made_from_comes_with_it_and_gives_it_again(tmp_path: Path) -> None:
    async def use(house: House) -> None:
        first = await house.ask("POST", GENERATIONS, {"prompt": "a", "size": "64x72", "quality": "high"})
        reply = first.json()
        (picture,) = reply["data"]
        assert json.loads(first.headers[b"x-generation-metadata"]) == picture["metadata"]
        assert (picture["metadata"]["seed"], picture["metadata"]["steps"]) == (picture["seed"], 6)
        assert (reply["size"], reply["quality"], reply["output_format"], reply["background"]) == (
            "64x72",
            "high",
            "png",
            "opaque",
        )
        assert reply["usage"]["output_tokens"] == 4 * 5
        assert reply["usage"]["total_tokens"] == reply["usage"]["input_tokens"] + 20
        assert "revised_prompt" not in picture
        again = await house.ask(
            "POST", GENERATIONS, {**picture["metadata"], "size": "64x72", "response_format": "b64_json"}
        )
        assert again.json()["data"][0]["b64_json"] == picture["b64_json"]
        other = await house.ask(
            "POST", GENERATIONS, {"prompt": "a", "size": "64x72", "n": 2, "seed": picture["seed"], "steps": 6}
        )
        assert other.json()["data"][0]["b64_json"] == picture["b64_json"]
        assert other.json()["data"][1]["seed"] == picture["seed"] + 1
        assert b"x-generation-metadata" not in other.headers

    live(tmp_path, use)


def test_quality_is_a_number_of_steps_and_said_ones_win(tmp_path: Path) -> None:
    painter = Painter()

    async def use(house: House) -> None:
        for quality in QUALITIES:
            await house.ask("POST", "/images/generations", {"prompt": "a", "quality": quality})
        await house.ask("POST", "/images/generations", {"prompt": "a", "quality": "max", "steps": 3})
        assert [paint.steps for paint in painter.asked] == [*(round(4 * factor) for factor in QUALITIES.values()), 3]

    live(tmp_path, use, painter=painter)


def test_dropped_fields_are_told_and_refused_where_nothing_may_be(tmp_path: Path) -> None:
    async def use(house: House) -> None:
        body = {"prompt": "a", "style": "vivid", "size": "60x64", "model": "p"}
        call = await house.ask("POST", GENERATIONS, body, [(b"dragoman-report", b"body")])
        assert call.json()["dragoman_report"] == {
            "honoured": ["prompt", "model"],
            "approximated": {"size": "64x64"},
            "dropped": ["style"],
        }
        call = await house.ask("POST", GENERATIONS, {**body, "stream": True}, [(b"dragoman-report", b"body")])
        assert call.body.rpartition(b"\n\n: dragoman-report ")[2].strip().endswith(b'"dropped": ["style"]}')
        call = await house.ask("POST", GENERATIONS, body, [(b"dragoman-strict", b"true")])
        assert (call.status, error_of(call)["param"]) == (400, "style")

    live(tmp_path, use)


WRONG: list[tuple[dict[str, Any], int, str, str]] = [
    ({"model": "pp"}, 404, "model", "did you mean 'p'"),
    ({"model": "pp"}, 404, "model", "does not exist"),
    ({"size": "4096x4096"}, 400, "size", "4194304"),
    ({"cfg_scale": 101}, 400, "cfg_scale", "100"),
    ({"steps": 501}, 400, "steps", "500"),
    ({"num_inference_steps": 0}, 400, "num_inference_steps", "1"),
    ({"sampler": "eule"}, 400, "sampler", "did you mean 'euler'"),
    ({"loras": ["brigt"]}, 404, "loras", "did you mean 'bright'"),
    ({"loras": ["a", "b", "c", "d", "e"]}, 400, "loras", "4"),
    ({"seed": 2**32}, 400, "seed", "4294967295"),
]


def test_errors_name_what_the_client_wrote(tmp_path: Path) -> None:
    painter = Painter()

    async def use(house: House) -> None:
        for body, status, param, words in WRONG:
            call = await house.ask("POST", GENERATIONS, {"prompt": "a", **body})
            assert (call.status, error_of(call)["param"]) == (status, param), body
            assert words in error_of(call)["message"]
        assert not painter.asked

    live(tmp_path, use, painter=painter)


class TakesAfter(Painter):
    """With an IP-Adapter."""

    async def offer(self, name: str) -> Offer:
        return msgspec.structs.replace(await super().offer(name), references=True)


def test_a_second_picture_is_taken_after_where_the_model_can(tmp_path: Path) -> None:
    painter = TakesAfter()
    other = image_from_base64(OTHER, param="")

    async def use(house: House) -> None:
        body = {"prompt": "x", "image": [DATA_URL, OTHER], "reference_scale": 0.3, "seed": 1}
        assert (await house.ask("POST", EDITS, body)).status == 200
        assert (painter.asked[0].image, painter.asked[0].reference) == (Blob(RED, "image/png"), other)
        assert painter.asked[0].reference_scale == 0.3

    live(tmp_path, use, painter=painter)


def test_links_are_followed_and_the_order_of_pictures_stays(tmp_path: Path) -> None:
    painter = TakesAfter()
    other = image_from_base64(OTHER, param="")

    class Fetches:
        async def fetch(self, links: list[str], images: dict[str, Blob], field: str) -> None:
            assert (links, field) == (["https://host/a.png"], "image")
            images["https://host/a.png"] = other

    async def use(house: House) -> None:
        house.engine._fetcher = Fetches()  # type: ignore[assignment]
        places = [{"image_url": DATA_URL}, {"image_url": "https://host/a.png"}]
        assert (await house.ask("POST", EDITS, {"prompt": "x", "images": places, "mask": DATA_URL})).status == 200
        made = painter.asked[0]
        assert (made.image, made.reference, made.mask) == (Blob(RED, "image/png"), other, Blob(RED, "image/png"))

    live(tmp_path, use, painter=painter)


def test_a_link_to_a_picture_is_followed_only_where_the_operator_says(tmp_path: Path) -> None:
    async def use(house: House) -> None:
        body = {"prompt": "x", "images": [{"image_url": "http://127.0.0.1/a.png"}]}
        call = await house.ask("POST", EDITS, body)
        assert (call.status, error_of(call)["param"]) == (400, "image")
        assert "images.hosts" in error_of(call)["message"]

    live(tmp_path, use)


@settings(max_examples=30, deadline=None)
@given(cuts=st.lists(st.integers(0, 600), max_size=6))
def test_however_a_form_is_cut_on_its_way_it_is_the_same(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int]
) -> None:
    body = form(("image", RED), ("prompt", "x"), ("n", "1"), ("seed", "5"))
    at = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    pieces = [body[begin:end] for begin, end in itertools.pairwise(at)]
    read: list[Wish] = []

    async def whole() -> None:
        house = House(listener=Listener(port=1, dialects=(Mounted("openai"),)), p=Painter())
        original = openai_images._answer

        async def noted(_: Any, wish: Wish) -> None:
            read.append(wish)

        openai_images._answer = noted  # type: ignore[assignment]
        try:
            await house.call("POST", EDITS, pieces, [(b"content-type", FORM)]).end()
        finally:
            openai_images._answer = original
        await house.close()

    asyncio.run(whole())
    assert msgspec.structs.replace(read[0], names={}) == msgspec.structs.replace(read_edit(FORM, body), names={})


def test_bytes_in_parts_are_left_as_they_are_whoever_sends_them(tmp_path: Path) -> None:
    painter = Painter()

    async def use(house: House) -> None:
        headers = [(b"content-type", FORM), (b"user-agent", b"Mozilla/5.0 PowerShell/7.4")]
        call = await house.ask("POST", VARIATIONS, form(("image", RED)), headers)
        assert call.status == 200
        assert painter.asked[0].image == Blob(RED, "image/png")

    live(tmp_path, use, painter=painter)


# Streams


def test_a_stream_has_partial_pictures_and_then_whole_ones(tmp_path: Path) -> None:
    async def use(house: House) -> None:
        body = {"prompt": "a", "stream": True, "partial_images": 2, "n": 2, "seed": 9}
        call = await house.ask("POST", GENERATIONS, body)
        assert call.headers[b"content-type"].startswith(b"text/event-stream")
        told = events(call)
        ends = [event for event in told if event["type"] == "image_generation.completed"]
        parts = [event for event in told if event["type"] == "image_generation.partial_image"]
        assert [event["image_index"] for event in ends] == [0, 1]
        for index in (0, 1):
            numbers = [event["partial_image_index"] for event in parts if event["image_index"] == index]
            assert numbers == list(range(len(numbers)))
            assert len(numbers) <= 2
        whole = await house.ask("POST", GENERATIONS, {"prompt": "a", "n": 2, "seed": 9})
        assert [event["b64_json"] for event in ends] == [one["b64_json"] for one in whole.json()["data"]]
        assert ends[0]["usage"]["total_tokens"] == 17
        call = await house.ask(
            "POST", EDITS, form(("image", RED), ("prompt", "x"), ("stream", "true")), [(b"content-type", FORM)]
        )
        assert [event["type"] for event in events(call)] == ["image_edit.completed"]

    live(tmp_path, use)


def test_a_stream_that_is_silent_says_that_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_images, "SILENCE", 0.01)
    painter = Painter(at=2)

    async def use(house: House) -> None:
        call = house.call("POST", GENERATIONS, {"prompt": "a", "stream": True})
        await call.until(3)
        assert call.status == 200
        assert call.sent[1]["body"] == openai_images.BEAT
        painter.going.set()
        await call.end()
        assert [event["type"] for event in events(call)] == ["image_generation.completed"]

    live(tmp_path, use, painter=painter)


def test_a_client_that_leaves_stops_its_picture(tmp_path: Path) -> None:
    for body in ({"prompt": "a"}, {"prompt": "a", "stream": True}):
        painter = Painter(at=2)

        async def use(house: House, painter: Painter = painter, body: dict[str, Any] = body) -> None:
            call = house.call("POST", GENERATIONS, body)
            await until(lambda: painter.steps)
            call.leave()
            await call.end()
            assert (painter.ended, painter.steps) == (1, 1)
            assert house.jobs is not None
            (job,) = await house.jobs.list(owner="")
            assert job.state == "cancelled"

        live(tmp_path / str(len(body)), use, painter=painter)


def test_a_picture_that_is_cancelled_elsewhere_is_not_asked_for_again(tmp_path: Path) -> None:
    painter = Painter(at=2)

    async def use(house: House) -> None:
        call = house.call("POST", GENERATIONS, {"prompt": "a"})
        await until(lambda: painter.steps)
        assert house.jobs is not None
        (job,) = await house.jobs.list(owner="")
        await house.jobs.cancel(job.id, owner="")
        await call.end()
        assert (call.status, error_of(call)["code"]) == (409, "cancelled")
        assert call.headers[b"x-should-retry"] == b"false"

    live(tmp_path, use, painter=painter)


@pytest.mark.parametrize("failure", [BackendError("the model broke"), OutOfMemory("there is no room")])
def test_a_failure_keeps_its_status_and_in_a_stream_its_words(tmp_path: Path, failure: Any) -> None:
    async def use(house: House) -> None:
        call = await house.ask("POST", GENERATIONS, {"prompt": "a"})
        assert (call.status, error_of(call)["message"]) == (failure.status, failure.message)
        assert call.headers[b"x-should-retry"] == b"false"
        call = await house.ask("POST", GENERATIONS, {"prompt": "a", "stream": True})
        assert call.status == failure.status

    live(tmp_path, use, painter=Painter(at=2, failing=failure))

    async def streamed(house: House) -> None:
        call = await house.ask("POST", GENERATIONS, {"prompt": "a", "stream": True, "partial_images": 3})
        assert call.status == 200
        assert events(call)[-1]["error"]["message"] == failure.message

    live(tmp_path / "late", streamed, painter=Painter(at=3, failing=failure))


def test_a_full_queue_is_503_and_says_when_to_come_back(tmp_path: Path) -> None:
    painter = Painter(at=1)

    async def use(house: House) -> None:
        first = house.call("POST", GENERATIONS, {"prompt": "a"})
        await until(lambda: painter.asked)
        second = await house.ask("POST", GENERATIONS, {"prompt": "b"})
        assert (second.status, error_of(second)["code"]) == (503, "server_busy")
        assert int(second.headers[b"retry-after"]) >= 1
        assert b"x-should-retry" not in second.headers
        painter.going.set()
        assert (await first.end()).status == 200

    live(tmp_path, use, painter=painter, config=Config(jobs=Jobs(waiting=0)))


# Links


async def link_of(house: House, *headers: tuple[bytes, bytes], path: str = GENERATIONS, **fields: Any) -> str:
    call = await house.ask("POST", path, {"prompt": "a", "response_format": "url", **fields}, headers)
    assert "b64_json" not in call.json()["data"][0]
    return call.json()["data"][0]["url"]


def test_a_link_opens_its_picture_without_a_key_and_nothing_else(tmp_path: Path) -> None:
    async def use(house: House) -> None:
        first, second = ((b"authorization", b"Bearer " + key.encode()) for key in KEYS)
        url = await link_of(house, first, seed=1)
        other = await link_of(house, first, seed=2)
        place = url.removeprefix("http://127.0.0.1:11434")
        path, _, query = place.partition("?")
        call = await house.ask("GET", place)
        assert (call.status, call.headers[b"content-type"], call.body[:4]) == (200, b"image/png", b"\x89PNG")
        assert int(call.headers[b"cache-control"].rpartition(b"=")[2]) <= LIFE
        head = await house.ask("HEAD", place)
        assert (head.status, head.headers[b"content-length"]) == (200, call.headers[b"content-length"])
        strange = other.removeprefix("http://127.0.0.1:11434").partition("?")[0]
        refused = {
            path: 401,
            f"{path}?": 401,
            f"{path}?expires=9999999999": 401,
            f"{strange}?{query}": 403,
            f"{path}?{query}&expires=9999999999": 403,
            f"{path}?{query}&format=webp": 403,
            f"{path}?{query.replace('expires=1', 'expires=2')}": 403,
            f"{path}?{query[:-1]}": 403,
            f"{path}?{query}&signature=": 401,
            f"{path}?{query}&more=": 403,
            f"{path}?expires=9999999999&{query}": 403,
            f"/v1/models?{query}": 401,
            f"/v1/models{path.removeprefix('/v1')}?{query}": 401,
            f"{path}/?{query}": 403,
            f"/v1/images/files/?{query}": 403,
            f"/v1/images/files/..%2Flinks.key?{query}": 403,
            f"/v1/images/files/../links.key?{query}": 403,
        }
        for spelled, status in refused.items():
            call = await house.ask("GET", spelled)
            assert call.status == status, spelled
            assert b"PNG" not in call.body
        for method in ("POST", "DELETE", "PUT", "PATCH", "OPTIONS"):
            assert (await house.ask(method, place)).status == 401
        assert (await house.ask("GET", path, b"", [first])).status == 200, "a key opens its own pictures"
        assert (await house.ask("GET", path, b"", [second])).status == 404, "and no other key's"
        assert (await house.ask("GET", place, b"", [second])).status == 200

    live(tmp_path, use, config=Config(keys=tuple(Key(key=key) for key in KEYS)))


def test_without_keys_a_picture_needs_its_signature_all_the_same(tmp_path: Path) -> None:
    async def use(house: House) -> None:
        place = (await link_of(house)).removeprefix("http://127.0.0.1:11434")
        assert (await house.ask("GET", place)).status == 200
        assert (await house.ask("GET", place.partition("?")[0])).status == 404
        assert (await house.ask("GET", place + "x")).status == 403

    live(tmp_path, use)


def test_a_link_is_below_the_url_that_was_called(tmp_path: Path) -> None:
    async def use(house: House) -> None:
        for path in ("/far/v1/images/generations", "/far/images/generations"):
            url = await link_of(house, (b"host", b"my.localhost:1234"), path=path)
            base = path.removesuffix("/generations")
            assert url.startswith(f"http://my.localhost:1234{base}/files/")
            assert (await house.ask("GET", url.removeprefix("http://my.localhost:1234"))).status == 200

    live(tmp_path, use, listener=Listener(port=1, dialects=(Mounted("openai", "/far"),)))


def test_a_picture_that_is_gone_is_404(tmp_path: Path) -> None:
    async def use(house: House) -> None:
        place = (await link_of(house)).removeprefix("http://127.0.0.1:11434")
        assert house.jobs is not None
        (job,) = await house.jobs.list(owner="")
        await house.jobs.remove(job.id, owner="")
        assert (await house.ask("GET", place)).status == 404

    live(tmp_path, use)


def test_links_expire_and_outlive_a_restart_and_no_other_gateway_can_make_them(tmp_path: Path) -> None:
    now = [1000.0]

    async def whole() -> None:
        links = Links(tmp_path / "a", clock=lambda: now[0])
        url = await links.link("http://h/v1", "n.png", "webp", 80)
        query = url.partition("?")[2].encode()
        again = Links(tmp_path / "a", clock=lambda: now[0])
        opened = await again.opened("n.png", query)
        assert opened is not None
        assert (opened.form, opened.quality, opened.seconds) == ("webp", 80, LIFE)
        for clock, folder in ((1000.0 + LIFE, "a"), (1000.0, "b")):
            now[0] = clock
            with pytest.raises(Exception, match="this link"):
                await Links(tmp_path / folder, clock=lambda: now[0]).opened("n.png", query)
        assert (tmp_path / "a" / "links.key").stat().st_mode & 0o777 == 0o600
        (tmp_path / "a" / "links.key").write_bytes(b"half")
        assert "signature" in await Links(tmp_path / "a").link("", "n.png")
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["links.key"]

    asyncio.run(whole())


def test_where_no_secret_can_be_kept_there_are_no_links(tmp_path: Path) -> None:
    async def use(house: House) -> None:
        house.gateway.links = Links(tmp_path / "file" / "below")
        (tmp_path / "file").write_bytes(b"")
        call = await house.ask("POST", GENERATIONS, {"prompt": "a", "response_format": "url"})
        assert (call.status, error_of(call)["code"]) == (507, "insufficient_storage")
        assert str(tmp_path) not in error_of(call)["message"]

    live(tmp_path / "data", use)


# Formats


@pytest.mark.parametrize(("form", "magic"), [("webp", b"RIFF"), ("jpeg", b"\xff\xd8\xff"), ("jpg", b"\xff\xd8\xff")])
def test_other_formats_have_the_recipe_too(tmp_path: Path, form: str, magic: bytes) -> None:
    image = pytest.importorskip("PIL.Image")

    async def use(house: House) -> None:
        call = await house.ask("POST", GENERATIONS, {"prompt": "a caf\xe9", "output_format": form, "seed": 3})
        assert call.json()["output_format"] == form.replace("jpg", "jpeg")
        data = base64.b64decode(call.json()["data"][0]["b64_json"])
        assert data.startswith(magic)
        with image.open(__import__("io").BytesIO(data)) as picture:
            comment = picture.getexif().get_ifd(0x8769)[0x9286]
        assert comment[8:].decode("utf-16-be").startswith("a caf\xe9\nSteps: 4")
        sizes = []
        for quality in (1, 100):
            url = await link_of(house, output_format=form, output_compression=quality, seed=3)
            call = await house.ask("GET", url.removeprefix("http://127.0.0.1:11434"))
            assert call.body.startswith(magic)
            sizes.append(len(call.body))
        assert sizes[0] < sizes[1]
        body = {"prompt": "a", "output_format": form, "stream": True, "partial_images": 1}
        for event in events(await house.ask("POST", GENERATIONS, body)):
            assert base64.b64decode(event["b64_json"]).startswith(magic)

    live(tmp_path, use)


def test_without_pillow_there_is_png_and_a_clear_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.picture_formats.can_convert", lambda: False)
    painter = Painter()

    async def use(house: House) -> None:
        call = await house.ask("POST", GENERATIONS, {"prompt": "a", "output_format": "webp"})
        assert (call.status, error_of(call)["param"]) == (400, "output_format")
        assert not painter.asked
        assert (await house.ask("POST", GENERATIONS, {"prompt": "a", "output_format": "png"})).status == 200

    live(tmp_path, use, painter=painter)


def test_a_gateway_that_keeps_nothing_paints_nothing() -> None:
    async def whole() -> None:
        house = House(listener=Listener(port=1, dialects=(Mounted("openai"),)), p=Painter())
        assert (await house.ask("POST", GENERATIONS, {"prompt": "a"})).status == 507
        assert (await house.ask("GET", "/v1/images/files/a.png?signature=a")).status == 404
        await house.close()

    asyncio.run(whole())

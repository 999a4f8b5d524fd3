"""Pictures of servers that speak OpenAI's API: what they are asked, what is made of their answers, and what is not believed."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from contextlib import aclosing
from typing import Any

import httpx
import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.forms import read_form
from adapters.openai.painting_call import ALL, Partial, Picture, PictureReader, said, write_edit, write_generation
from adapters.recipe import of_png
from backends.base import Paints, Prepares
from backends.echo_painting import painted_echo, prepared_echo
from backends.openai import OpenAIBackend
from canonical.errors import BackendError, BackendTimeout, Busy, GatewayError, InvalidRequest, Unsupported
from canonical.models import Capability
from canonical.painting import Lora, Paint, Painted, Step
from tests.calling import SOON, until
from tests.eventsource import heard
from tests.faulty import Peer, Script, always, chunk, chunked_head, faulty, reply, then_silent
from tests.serving import Served, serving
from tests.upstreams import KEY

PNG = next(
    one.image for one in painted_echo(prepared_echo(Paint(prompt="x", seed=1, steps=1))) if isinstance(one, Painted)
)
ASKED = Paint(prompt="a red cube", seed=7)
FULL = Paint(
    prompt="a red cube",
    negative_prompt="blur",
    loras=(Lora("night", 0.5), Lora("frame")),
    steps=12,
    guidance_scale=4.5,
    seed=7,
    width=64,
    height=32,
    sampler="euler",
    clip_skip=2,
    previews=2,
)
ANSWER = json.dumps({"created": 1, "data": [{"b64_json": PNG.base64()}]}).encode()


def server(port: int, **settings: Any) -> OpenAIBackend:
    values = {"url": f"http://127.0.0.1:{port}", "api_key": KEY, "paints": ["m"], **settings}
    return OpenAIBackend("up", msgspec.convert(values, OpenAIBackend.Settings))


async def painted(source: OpenAIBackend, request: Paint = ASKED) -> list[Step | Painted]:
    model = await source.open("m")
    assert isinstance(model, Paints)
    assert isinstance(source, Prepares)
    async with aclosing(model.paint(await source.prepared("m", request))) as events:
        return [event async for event in events]


def asking(script: Script, request: Paint = ASKED, **settings: Any) -> tuple[list[Step | Painted], list[Any]]:
    """What comes of a request to a server that does as ``script`` says, and what that server was asked."""

    async def scenario() -> tuple[list[Step | Painted], list[Any]]:
        async with faulty(script) as fake:
            source = server(fake.port, **settings)
            try:
                return await painted(source, request), fake.requests
            finally:
                await source.close()

    return asyncio.run(scenario())


def failing(script: Script, **settings: Any) -> GatewayError:
    with pytest.raises(GatewayError) as caught:
        asking(script, **settings)
    assert KEY not in caught.value.message
    return caught.value


# What is asked


def test_a_request_says_all_that_the_picture_depends_on_in_the_servers_words() -> None:
    assert json.loads(write_generation(FULL, "m", ALL)) == {
        "model": "m",
        "prompt": "a red cube",
        "n": 1,
        "size": "64x32",
        "response_format": "b64_json",
        "stream": True,
        "partial_images": 2,
        "negative_prompt": "blur",
        "steps": 12,
        "guidance_scale": 4.5,
        "seed": 7,
        "sampler": "euler",
        "clip_skip": 2,
        "loras": [{"name": "night", "weight": 0.5}, {"name": "frame"}],
    }
    assert json.loads(write_generation(ASKED, "m", {"seed": "noise", "steps": "num_inference_steps"})) == {
        "model": "m", "prompt": "a red cube", "n": 1, "noise": 7,
    }  # fmt: skip
    one_side = msgspec.structs.replace(ASKED, width=512)
    assert json.loads(write_generation(one_side, "m", {}))["size"] == "512x512"


def test_a_cloud_gets_openais_own_words_and_the_rest_is_told_as_lost() -> None:
    request, lost = said(FULL, {})
    assert set(lost) == {"negative_prompt", "steps", "guidance_scale", "seed", "sampler", "clip_skip", "loras"}
    assert json.loads(write_generation(FULL, "m", {})).keys() == {"model", "prompt", "n", "size"}
    assert (request.seed, request.negative_prompt, request.loras, request.width) == (None, "", (), 64)
    assert said(FULL, ALL) == (FULL, ())


def test_an_edit_is_a_form_whose_texts_cannot_end_a_part() -> None:
    evil = 'x"\r\n--edge--\r\n\r\n'
    request = msgspec.structs.replace(FULL, prompt=evil, image=PNG, mask=PNG, strength=0.5, previews=0)
    body = write_edit(request, "m", ALL, "b" * 40)
    parts = read_form(b"multipart/form-data; boundary=" + b"b" * 40, body)
    texts = {part.name: part.text() for part in parts if part.name not in {"image", "mask"}}
    assert texts == {
        "model": "m", "prompt": evil, "n": "1", "size": "64x32", "response_format": "b64_json", "negative_prompt": "blur",
        "steps": "12", "guidance_scale": "4.5", "seed": "7", "sampler": "euler", "clip_skip": "2", "strength": "0.5",
        "loras": '[{"name":"night","weight":0.5},{"name":"frame"}]',
    }  # fmt: skip
    assert {part.name: part.data for part in parts if part.name in {"image", "mask"}} == {
        "image": PNG.data,
        "mask": PNG.data,
    }
    two = write_edit(msgspec.structs.replace(request, reference=PNG), "m", ALL, "b" * 40)
    assert two.count(b'name="image[]"') == 2


def test_what_no_such_server_can_be_told_is_refused_before_it_is_asked() -> None:
    for fields, asked, param in (
        ({}, {"loras": (Lora("night"),)}, "loras"),
        (ALL, {"reference": PNG}, "reference"),
        (ALL, {"image": PNG, "mask": PNG, "mask_invert": True}, "mask"),
    ):
        with pytest.raises(Unsupported) as error:
            asking(always(reply(body=ANSWER)), msgspec.structs.replace(ASKED, **asked), paint_fields=dict(fields))
        assert error.value.param == param


def test_the_configuration_says_who_paints_where_the_list_does_not() -> None:
    async def scenario() -> None:
        listing = b'{"data":[{"id":"m"},{"id":"chat"},{"id":"own","capabilities":["paint"]}]}'
        async with faulty(always(reply(body=listing))) as fake:
            source = server(fake.port, paints=["m", "unlisted"])
            rows = {row.id: row.capabilities for row in await source.models()}
            paints = frozenset({Capability.PAINT})
            assert rows == {"m": paints, "chat": frozenset(), "own": paints, "unlisted": paints}
            assert (await source.open("m")).info.capabilities == paints
            await source.close()

    asyncio.run(scenario())
    with pytest.raises(ValueError, match="paint_fields"):
        server(1, paint_fields={"seed": 'x"\r\n'})


# What is made of the answers


def test_a_picture_comes_with_what_it_was_made_from() -> None:
    (begun, ended, picture), (request,) = asking(always(reply(body=ANSWER)))
    assert (request.method, request.path) == ("POST", "/v1/images/generations")
    assert (begun, ended) == (Step(done=0, total=1), Step(done=1, total=1))
    assert isinstance(picture, Painted)
    assert (picture.made.seed, picture.made.width, picture.made.height) == (7, 64, 64)
    told = json.loads(of_png(picture.image.data).json)
    assert (told["prompt"], told["seed"]) == ("a red cube", 7), "what the server wrote into it is replaced"
    assert picture.warnings == ()


def test_several_pictures_are_asked_for_one_by_one_each_with_its_seed() -> None:
    events, requests = asking(always(reply(body=ANSWER)), msgspec.structs.replace(ASKED, n=3, steps=4))
    pictures = [event for event in events if isinstance(event, Painted)]
    assert [one.made.seed for one in pictures] == [7, 8, 9]
    assert [one.index for one in pictures] == [0, 1, 2]
    assert [json.loads(one.body)["seed"] for one in requests] == [7, 8, 9]
    assert {event.total for event in events if isinstance(event, Step)} == {4}


def test_what_a_server_does_not_take_is_told_and_not_claimed() -> None:
    (*_, picture), _ = asking(always(reply(body=ANSWER)), msgspec.structs.replace(FULL, loras=()), paint_fields={})
    assert isinstance(picture, Painted)
    assert picture.made.seed is None
    assert "seed: the model's server takes none" in picture.warnings


def test_another_dragoman_tells_what_it_made_the_picture_from() -> None:
    metadata = {
        "seed": 99,
        "steps": 3,
        "guidance_scale": 7,
        "sampler": "euler_a",
        "model": "inner",
        "loras": [{"name": "a", "weight": 1}],
    }
    data = [{"b64_json": PNG.base64(), "metadata": metadata, "warnings": ["too long a prompt", 5]}]
    (*_, picture), _ = asking(always(reply(body=json.dumps({"data": data}).encode())))
    assert isinstance(picture, Painted)
    made = picture.made
    assert (made.seed, made.steps, made.sampler, made.model, made.loras) == (99, 3, "euler_a", "", (Lora("a", 1.0),))
    assert picture.warnings == ("too long a prompt",)


def test_half_finished_pictures_are_steps() -> None:
    def event(kind: str, **more: Any) -> bytes:
        told = {"type": f"image_generation.{kind}", "b64_json": PNG.base64(), **more}
        return chunk(f"event: image_generation.{kind}\ndata: {json.dumps(told)}\n\n".encode())

    stream = chunked_head("text/event-stream") + event("partial_image", partial_image_index=0)
    stream += event("partial_image", partial_image_index=1) + event("completed") + b"0\r\n\r\n"
    events, _ = asking(always(stream), msgspec.structs.replace(ASKED, previews=2, steps=12))
    steps = [(event.done, event.total, event.preview is not None) for event in events if isinstance(event, Step)]
    assert steps == [(0, 12, False), (4, 12, True), (8, 12, True), (12, 12, False)]
    # Who cannot stream answers at once.
    events, _ = asking(always(reply(body=ANSWER)), msgspec.structs.replace(ASKED, previews=2, steps=12))
    assert isinstance(events[-1], Painted)


@given(st.lists(st.integers(1, 4000), max_size=12))
def test_a_stream_may_be_cut_anywhere(cuts: list[int]) -> None:
    data = (
        b"".join(
            b"event: image_edit." + kind + b'\r\ndata: {"b64_json":"' + PNG.base64().encode() + b'"}\r\n\r\n'
            for kind in (b"partial_image", b"completed")
        )
        + b"data: [DONE]\n\n"
    )
    reader, found, at = PictureReader(), [], 0
    for cut in [*cuts, len(data)]:
        found += reader.feed(data[at : at + cut])
        at += cut
    assert found == [Partial(PNG), Picture(image=PNG)]


def test_a_link_is_followed_to_the_server_itself_and_nowhere_else() -> None:
    async def answered(peer: Peer) -> None:
        while True:
            request = await peer.request()
            if request.method == "GET":
                assert request.path == "/files/1.png?sig=x"
                await peer.send(reply(body=PNG.data, kind="image/png"))
            else:
                port = peer.faulty.port
                link = {"absolute": f"http://127.0.0.1:{port}/files/1.png?sig=x", "bare": "/files/1.png?sig=x"}
                url = link.get(json.loads(request.body)["prompt"], json.loads(request.body)["prompt"])
                await peer.send(reply(body=json.dumps({"data": [{"url": url}]}).encode()))

    for prompt in ("absolute", "bare"):
        events, _ = asking(answered, Paint(prompt=prompt, seed=1))
        assert isinstance(events[-1], Painted)
    for url in (
        "http://169.254.169.254/latest",
        "https://127.0.0.1/x",
        "//evil.test/x",
        "http://u:p@127.0.0.1/x",
        "file:///etc/passwd",
        "http://[",
        "x\r\ny",
    ):
        with pytest.raises(BackendError, match="another server"):
            asking(answered, Paint(prompt=url, seed=1))


BAD = {
    "no json": b"<html>",
    "no picture": b'{"data":[]}',
    "an empty one": b'{"data":[{}]}',
    "a gif": json.dumps({"data": [{"b64_json": base64.b64encode(b"GIF89a" + bytes(20)).decode()}]}).encode(),
    "no base64": b'{"data":[{"b64_json":"%%"}]}',
    "a bomb": json.dumps(
        {"data": [{"b64_json": base64.b64encode(PNG.data[:16] + b"\x00\x01\x00\x00" * 2 + PNG.data[24:]).decode()}]}
    ).encode(),
    "an error in its place": b'{"error":{"message":"out of paint"}}',
    "another shape": b'{"data":{"b64_json":5}}',
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD.keys())
def test_an_answer_that_is_none_is_a_failure_of_the_server(body: bytes) -> None:
    assert isinstance(failing(always(reply(body=body))), BackendError)


def test_a_stream_that_ends_early_or_tells_of_an_error_is_a_failure() -> None:
    head = chunked_head("text/event-stream")
    partial = chunk(b'data: {"type":"image_generation.partial_image","b64_json":"' + PNG.base64().encode() + b'"}\n\n')
    assert "no picture" in failing(always(head + partial + b"0\r\n\r\n")).message
    told = failing(
        always(head + partial + chunk(b'event: error\ndata: {"error":{"message":"out of paint","code":"x"}}\n\n'))
    )
    assert "out of paint" in told.message


def test_what_a_server_refuses_keeps_its_status() -> None:
    def refusal(status: int, message: str, *headers: str) -> Script:
        return always(reply(status, json.dumps({"error": {"message": message}}).encode(), headers=headers))

    assert isinstance(failing(refusal(400, "size must be 1024x1024")), InvalidRequest)
    busy = failing(refusal(503, "full", "Retry-After: 7"))
    assert isinstance(busy, Busy)
    assert busy.retry_after == 7
    assert failing(refusal(401, f"wrong key {KEY}")).status == 502


def test_silence_and_endless_answers_have_bounds() -> None:
    assert isinstance(failing(then_silent(), timeouts={"first_byte": SOON}), BackendTimeout)

    async def endless(peer: Peer) -> None:
        await peer.request()
        await peer.send(chunked_head("application/json"))
        while True:
            await peer.send(chunk(b" " * 1_000_000))

    assert "more than" in failing(endless).message


def test_closing_the_generator_leaves_the_server() -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.gone()

    async def scenario() -> None:
        async with faulty(silent) as fake:
            source = server(fake.port)
            task = asyncio.ensure_future(painted(source))
            await until(lambda: bool(fake.requests))
            task.cancel()
            await asyncio.wait((task,))
            await asyncio.wait_for(fake.left.wait(), 10)
            await source.close()

    asyncio.run(scenario())


# A dragoman behind a dragoman

BACK = """
listeners: [{port: 0, dialects: [openai]}]
backends: {demo: {type: echo}}
"""
FRONT = """
listeners: [{{port: 0, dialects: [openai, brenda, ollama]}}]
backends: {{far: {{type: openai, url: "{url}"}}}}
models: [{{id: stripes, backend: far, name: echo}}]
"""


@pytest.fixture(scope="module")
def ways() -> Iterator[tuple[Served, Served]]:
    """The one in front, and the one that paints."""
    with serving(BACK) as back, serving(FRONT.format(url=back.url)) as front:
        yield front, back


def test_a_dragoman_paints_through_another(ways: tuple[Served, Served]) -> None:
    front, back = ways
    body = {"prompt": "a red cube", "seed": 5, "steps": 3, "width": 72, "height": 40, "negative_prompt": "blur"}
    body |= {"loras": [{"name": "bright", "weight": 0.5}]}
    events = [
        json.loads(one.data)
        for one in heard(httpx.post(f"{front.url}/v1/images/generate", json=body, timeout=60).content)
    ]
    assert (events[0], events[-2]) == ({"progress": 0.0}, {"progress": 1.0})
    last = events[-1]
    assert (last["model"], last["seed"], last["steps"], last["width"]) == ("stripes", 5, 3, 72)
    there = openai.OpenAI(base_url=f"{back.url}/v1", api_key="none", max_retries=0)
    more = {name: body[name] for name in ("seed", "steps", "negative_prompt", "loras")}
    whole = there.images.generate(model="echo", prompt="a red cube", size="72x40", extra_body=more)  # type: ignore[arg-type]
    assert whole.data is not None
    assert _pixels(base64.b64decode(last["image"])) == _pixels(base64.b64decode(whole.data[0].b64_json or ""))


def test_a_dragoman_edits_through_another(ways: tuple[Served, Served]) -> None:
    front, _ = ways
    body = {"prompt": "a blue cube", "seed": 5, "image": PNG.base64(), "loras": [{"name": "dark"}]}
    first, second = (
        json.loads(heard(httpx.post(f"{front.url}/v1/images/refine", json=one, timeout=60).content)[-1].data)
        for one in (body, {**body, "strength": 0.9})
    )
    assert (first["status"], second["status"]) == ("completed", "completed")
    assert _pixels(base64.b64decode(first["image"])) != _pixels(base64.b64decode(second["image"])), "strength arrives"


def test_what_the_one_behind_refuses_is_told(ways: tuple[Served, Served]) -> None:
    front, _ = ways
    body = {"prompt": "x", "loras": [{"name": "brigt"}]}
    (*_, last) = heard(httpx.post(f"{front.url}/v1/images/generate", json=body, timeout=60).content)
    assert "did you mean 'bright'" in json.loads(last.data)["error"]


def _pixels(png: bytes) -> bytes:
    """Of an echo's picture, whose texts may differ: its models are called differently."""
    return png[png.index(b"IDAT") :]

"""What a picture was made from: the JSON, A1111's text, and both in a PNG that others read."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from hashlib import sha256

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import structs
from PIL import Image, PngImagePlugin

from adapters.recipe import a1111_text, digest_of, header, in_png, json_of, of_png, read_a1111
from adapters.recipe.parameters import parameters
from adapters.recipe.png import HEADER_LIMIT, TEXT_LIMIT
from adapters.recipe.samplers import SCHEDULES, a1111_sampler, our_sampler
from adapters.recipe.tags import without_tags
from backends.diffusers.samplers import SAMPLERS
from backends.echo_painting import painted_echo
from canonical.media import Blob
from canonical.painting import SEED, Lora, Paint, Painted
from canonical.png import chunk, chunks

MADE = Paint(
    model="sdxl-base",
    prompt="a red cube",
    negative_prompt="blurry, dark",
    loras=(Lora("night", 0.75), Lora("frame", 1.0)),
    steps=20,
    guidance_scale=7.0,
    seed=42,
    width=512,
    height=768,
    sampler="dpmpp_2m_karras",
    clip_skip=2,
)
PICTURE = Blob(b"\x89PNG...", "image/png")


def _png(made: Paint = MADE) -> bytes:
    *_, painted = painted_echo(structs.replace(made, width=16, height=16, steps=1, seed=1))
    assert isinstance(painted, Painted)
    return in_png(painted.image.data, made)


def test_the_json_has_the_names_that_are_posted_in_one_order() -> None:
    assert json_of(MADE) == (
        b'{"model":"sdxl-base","prompt":"a red cube","negative_prompt":"blurry, dark",'
        b'"loras":[{"name":"night","weight":0.75},{"name":"frame","weight":1.0}],"steps":20,"guidance_scale":7.0,'
        b'"seed":42,"width":512,"height":768,"sampler":"dpmpp_2m_karras","clip_skip":2}'
    )


def test_the_json_tells_pictures_by_their_digests_and_leaves_out_what_is_open() -> None:
    told = json.loads(json_of(Paint(prompt="é", image=PICTURE, mask=PICTURE, strength=0.5)))
    digest = "sha256:" + sha256(PICTURE.data).hexdigest()
    assert told == {"prompt": "é", "image": digest, "mask": digest, "strength": 0.5}
    assert digest_of(PICTURE) == digest
    masked = json.loads(json_of(Paint(prompt="", image=PICTURE, mask=PICTURE, mask_alpha=True, mask_invert=True)))
    assert masked == {"prompt": "", "image": digest, "mask": digest, "mask_alpha": True, "mask_invert": True}


def test_the_json_has_all_that_a_picture_depends_on() -> None:
    """But how many were asked for, and what was seen on the way."""
    blobs = dict.fromkeys(("image", "mask", "reference"), PICTURE)
    rest = {"guidance_rescale": 0.5, "mask_alpha": True, "mask_invert": True, "strength": 0.5, "reference_scale": 0.5}
    whole = structs.replace(MADE, **blobs, **rest)
    usual = Paint(prompt="")
    assert all(getattr(whole, name) != getattr(usual, name) for name in _told(Paint)), "a new field is to be told, too"
    assert set(json.loads(json_of(whole))) == _told(Paint)


def _told(kind: type[Paint]) -> set[str]:
    return set(kind.__struct_fields__) - {"n", "previews"}


def test_the_text_is_as_a1111_writes_it() -> None:
    assert a1111_text(MADE) == (
        "a red cube <lora:night:0.75> <lora:frame:1>\n"
        "Negative prompt: blurry, dark\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 42, Size: 512x768, "
        "Model: sdxl-base, Clip skip: 2, Version: dragoman"
    )


_texts = st.text(alphabet=st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    ["", "a\nb", "Negative prompt: x", "a\nNegative prompt: x", "x, Steps: 3, Seed: 2, Size: 1x1", " a ", "a\r\nb", '"']
)
_loras = st.lists(
    st.builds(Lora, st.text(min_size=1, max_size=8), st.none() | st.floats(-10, 10, allow_nan=False)),
    max_size=4,
    unique_by=lambda lora: lora.name,
).map(tuple)
_paints = st.builds(
    Paint,
    prompt=_texts,
    negative_prompt=_texts,
    model=_texts,
    loras=_loras,
    steps=st.none() | st.integers(1, 500),
    guidance_scale=st.none() | st.floats(0, 100),
    guidance_rescale=st.none() | st.floats(0, 1),
    seed=st.none() | st.integers(0, SEED),
    width=st.just(512),
    height=st.integers(16, 8192),
    sampler=st.none() | st.sampled_from(["euler", "euler_a", "dpmpp_2m_sde_karras", "unipc", "of my own"]),
    clip_skip=st.none() | st.integers(1, 12),
    strength=st.none() | st.floats(0.01, 1),
)


@given(made=_paints)
@example(Paint(prompt="Steps: 3, Seed: 2, Size: 1x1"))
@example(Paint(prompt="<lora:night:1>", loras=(Lora("night", 1.0),)))
@example(Paint(prompt="<lora:night:one>", negative_prompt="\0\u2028\x85\U0001f600"))
@example(Paint(prompt="", loras=(Lora("a:b>", None),)))
def test_any_text_is_read_as_it_was_meant(made: Paint) -> None:
    assert read_a1111(a1111_text(made)) == made


@given(made=_paints)
def test_any_recipe_stands_in_a_picture_and_is_found_there(made: Paint) -> None:
    found = of_png(_png(made))
    assert found.json == json_of(made)
    assert read_a1111(found.text) == made or "\0" in a1111_text(made)


_A1111_PARAMETER = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
"""With which A1111 itself reads the last line."""


@given(made=_paints)
def test_a1111_finds_the_same_parameters(made: Paint) -> None:
    line = a1111_text(made).split("\n")[-1]
    theirs = {key: json.loads(value) if value[:1] == '"' else value for key, value in _A1111_PARAMETER.findall(line)}
    ours = parameters(a1111_text(made))
    assert {key: ours[key] for key in theirs} == theirs or len(theirs) < 3


def test_a_text_of_a1111_is_read() -> None:
    read = read_a1111(
        "girl with an artist's beret, ((eyeshadow)), <lora:add_detail:0.6:0.2>\nsecond line\n"
        "Negative prompt: ugly, (extra_limb)\nmore\n"
        "Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 965400086, Size: 512x640, Model hash: 45dee52b, "
        'Model: v1-5, Lora hashes: "add_detail: 7c6bad76eb54, x: 2", Clip skip: 2, Version: v1.8.0'
    )
    assert read == Paint(
        prompt="girl with an artist's beret, ((eyeshadow)), \nsecond line",
        negative_prompt="ugly, (extra_limb)\nmore",
        loras=(Lora("add_detail", 0.6),),
        steps=20,
        sampler="dpmpp_2m_karras",
        guidance_scale=7.0,
        seed=965400086,
        width=512,
        height=640,
        model="v1-5",
        clip_skip=2,
    )


@pytest.mark.parametrize(
    "text",
    [
        "Steps: x, Seed: nan, CFG scale: inf, Size: 9x, Clip skip: " + "9" * 5000,
        "a, " * 50_000,
        "a b" * 50_000,
        'ab: "' * 50_000,
        "ab: \\" * 50_000,
        "<lora:" * 50_000,
        "Negative prompt:\n" * 10_000,
        'Prompt: "x", Loras: "[[1]]", Seed: 4',
        "Steps: " + "9" * 400 + ", Clip skip: -" + "9" * 400 + ", Seed: 1",
        'Prompt: "\\ud800", Negative prompt: "\\udfff", Model: "\\ud83d", Sampler: "\\ud800", Loras: "[]"',
    ],
    ids=range(10),
)
def test_nonsense_is_read_without_much_ado(text: str) -> None:
    read = read_a1111(text)
    assert read.steps is None
    assert read.guidance_scale is None
    assert read.loras == ()
    assert json_of(read)
    f"{read.prompt} {read.negative_prompt} {read.model} {read.sampler} {parameters(text)}".encode()  # all of it is text


def test_tags_are_taken_out_of_prompts() -> None:
    assert without_tags("a <lora:night:0.5>cat<lyco:frame>, <lora:b:x> <lora:c:nan> <hypernet:d:1>") == (
        "a cat, <lora:b:x> <lora:c:nan> <hypernet:d:1>",
        (Lora("night", 0.5), Lora("frame", None)),
    )
    assert without_tags(" as it is ") == (" as it is ", ())


@pytest.mark.parametrize(
    ("sampler", "schedule", "ours"),
    [
        ("Euler a", "Automatic", "euler_a"),
        ("euler a", "", "euler_a"),
        ("k_euler_ancestral", "", "euler_a"),
        ("DPM++ 2M Karras", "", "dpmpp_2m_karras"),
        ("DPM++ 2M SDE", "karras", "dpmpp_2m_sde_karras"),
        ("dpmpp_2m_sde", "Karras", "dpmpp_2m_sde_karras"),
        ("DPM++ SDE", "SGM Uniform", "dpmpp_sde_sgm_uniform"),
        ("PLMS", "Automatic", "pndm"),
        ("DPM2 a", "", "dpm2_a"),
        ("Something new", "Karras", "Something new"),
    ],
)
def test_samplers_have_two_names(sampler: str, schedule: str, ours: str) -> None:
    assert our_sampler(sampler, schedule) == ours


@pytest.mark.parametrize("name", ["euler", "dpmpp_2m", "dpmpp_sde", "ddim", "unipc", "lcm", "unheard_of_karras"])
@pytest.mark.parametrize("end", ["", *SCHEDULES])
def test_each_sampler_comes_back(name: str, end: str) -> None:
    name = f"{name}_{end}" if end else name
    assert our_sampler(*a1111_sampler(name)) == name


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_sampler_of_diffusers_is_meant_by_a1111s_names(name: str) -> None:
    assert our_sampler(*a1111_sampler(name)) == name
    assert a1111_sampler(name)[0] != name, "A1111 has a name for it"


def test_pillow_reads_both_texts() -> None:
    with Image.open(io.BytesIO(_png())) as picture:
        picture.load()
        assert isinstance(picture, PngImagePlugin.PngImageFile)
        assert picture.text == {"parameters": a1111_text(MADE), "dragoman": json_of(MADE).decode()}


def test_a_text_that_latin_1_lacks_is_an_international_one() -> None:
    made = structs.replace(MADE, prompt="ein Würfel, 赤い立方体")
    png = _png(made)
    kinds = [kind for kind, _, _ in chunks(png)]
    assert kinds == [b"IHDR", b"iTXt", b"tEXt", b"IDAT", b"IEND"]
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.info["parameters"] == a1111_text(made)
    assert [kind for kind, _, _ in chunks(_png())] == [b"IHDR", b"tEXt", b"tEXt", b"IDAT", b"IEND"]


def test_what_a_picture_said_before_goes() -> None:
    others = PngImagePlugin.PngInfo()
    others.add_text("parameters", "another server's", zip=True)
    others.add_itxt("dragoman", "x" * 1000, zip=True)
    others.add_text("Title", "kept")
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG", pnginfo=others)
    assert of_png(file.getvalue()).text == "another server's"
    png = in_png(file.getvalue(), MADE)
    assert of_png(png) == of_png(in_png(png, MADE))
    assert in_png(png, MADE) == png
    assert of_png(png).others == {"Title": "kept"}
    assert of_png(png).text == a1111_text(MADE)
    Image.open(io.BytesIO(png)).verify()


def test_the_same_gives_the_same_bytes_and_only_texts_are_added() -> None:
    png = _png()
    assert png == _png()
    assert in_png(b"no picture", MADE) == b"no picture"
    assert in_png(b"\x89PNG\r\n\x1a\nshort", MADE) == b"\x89PNG\r\n\x1a\nshort"
    for kind, start, end in chunks(png):
        assert zlib.crc32(png[start + 4 : end - 4]) == struct.unpack(">I", png[end - 4 : end])[0], kind


def test_texts_of_a_picture_cannot_fill_the_memory() -> None:
    bomb = zlib.compress(b"x" * (64 * TEXT_LIMIT), 9)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13))
    png += b"".join(chunk(b"zTXt", b"k%d\0\0" % n + bomb) for n in range(20)) + chunk(b"IEND", b"")
    found = of_png(png)
    assert sum(map(len, found.others.values())) <= 2 * TEXT_LIMIT
    assert of_png(png[:-40]).others
    assert of_png(b"\x89PNG\r\n\x1a\n" + chunk(b"zTXt", b"k\0\0no zlib")).others == {"k": ""}


def test_the_header_is_the_json_of_the_picture_and_never_too_long() -> None:
    assert header(_png()) == json_of(MADE)
    long = header(_png(structs.replace(MADE, prompt="x" * 9000)))
    assert len(long) < HEADER_LIMIT
    assert json.loads(long)["left_out"] == ["prompt", "negative_prompt"]
    assert json.loads(long)["seed"] == 42
    assert header(_png(structs.replace(MADE, prompt="a\r\nSet-Cookie: x=1; é"))).isascii()
    assert b"\r" not in header(_png(structs.replace(MADE, prompt="a\r\nSet-Cookie: x=1")))
    broken = b"\x89PNG\r\n\x1a\n" + chunk(b"tEXt", b"dragoman\0a\r\nSet-Cookie: x=1")
    assert header(broken) == b"{}"
    assert header(b"") == b"{}"

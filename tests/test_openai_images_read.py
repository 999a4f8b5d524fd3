"""OpenAI's image API, as it is read: JSON and forms, in the words of OpenAI and of other servers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.openai.images import Wish, read_edit, read_generation, read_variation
from canonical.errors import InvalidRequest, TooLarge
from canonical.media import Blob
from canonical.painting import Lora
from tests.uploads import DATA_URL, FORM, RED, form


def asked(**fields: Any) -> Wish:
    return read_generation(json.dumps({"prompt": "a red cube", **fields}).encode())


def test_a_plain_request_leaves_all_to_the_model() -> None:
    wish = asked()
    assert (wish.paint.prompt, wish.paint.n, wish.form, wish.link, wish.stream) == ("a red cube", 1, None, False, False)
    assert not wish.paint.complete
    assert (wish.report.honoured, wish.report.dropped) == (("prompt",), ())


@pytest.mark.parametrize(
    ("model", "said", "link"),
    [
        ("dall-e-3", None, True),
        ("dall-e-2", "b64_json", False),
        ("gpt-image-1", None, False),
        ("gpt-image-1", "url", True),
        (None, None, False),
        (None, "", False),
    ],
)
def test_links_go_to_who_asks_for_them_and_to_who_is_used_to_them(model: str, said: str, link: bool) -> None:
    assert asked(model=model, response_format=said).link is link


@pytest.mark.parametrize(
    ("size", "sides", "told"),
    [
        ("auto", (None, None), None),
        ("", (None, None), None),
        ("1024x768", (1024, 768), None),
        (" 1792X1024 ", (1792, 1024), None),
        ("1000x1001", (1000, 1000), "1000x1000"),
        ("20x1023", (24, 1024), "24x1024"),
    ],
)
def test_sizes(size: str, sides: tuple[int | None, int | None], told: str | None) -> None:
    wish = asked(size=size)
    assert (wish.paint.width, wish.paint.height) == sides
    assert wish.report.approximated.get("size") == told


@pytest.mark.parametrize("size", ["7x7", "0x0", "99999x8", "1024", "wide", "1024x", "-8x8", "1e3x8", "9" * 400 + "x1"])
def test_an_absurd_size_is_named(size: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(size=size)
    assert caught.value.param == "size"
    assert len(caught.value.message) < 300


def test_all_that_local_servers_know_is_understood() -> None:
    wish = asked(
        negative_prompt="blue",
        num_inference_steps="7",
        cfg_scale=3,
        guidance_rescale=0.5,
        clip_skip=2,
        seed=-1,
        sampler="euler",
        loras=[{"name": "night", "weight": 0.5}, "frame", {"id": "x", "scale": "2"}],
        n="2",
        stream=True,
        partial_images=3,
    )
    paint = wish.paint
    assert (paint.negative_prompt, paint.steps, paint.guidance_scale, paint.seed) == ("blue", 7, 3.0, None)
    assert (paint.guidance_rescale, paint.clip_skip, paint.sampler, paint.n, paint.previews) == (0.5, 2, "euler", 2, 3)
    assert paint.loras == (Lora("night", 0.5), Lora("frame"), Lora("x", 2.0))
    assert wish.report.dropped == ()
    assert wish.names["steps"] == "num_inference_steps"


@pytest.mark.parametrize(
    ("given", "stack"),
    [
        ("night:0.8, frame", (Lora("night", 0.8), Lora("frame"))),
        ({"night": 0.8, "frame": None}, (Lora("night", 0.8), Lora("frame"))),
        ('[{"name": "night", "weight": -1}]', (Lora("night", -1.0),)),
        ([{"path": "night", "multiplier": 1}], (Lora("night", 1.0),)),
        ([], ()),
        ("", ()),
        (None, ()),
    ],
)
def test_adapters_in_any_spelling(given: Any, stack: tuple[Lora, ...]) -> None:
    assert asked(loras=given).paint.loras == stack


@pytest.mark.parametrize("given", [1, [1], [{}], [{"name": 5}], [{"name": "a", "weight": "much"}], [""], "[", True])
def test_adapters_that_cannot_be_understood_are_named(given: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(loras=given)
    assert caught.value.param in {"loras", None}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 0),
        ("n", 11),
        ("quality", "ultra"),
        ("response_format", "file"),
        ("output_format", "gif"),
        ("output_compression", 101),
        ("partial_images", 4),
        ("prompt", " "),
        ("prompt", None),
        ("steps", "many"),
    ],
)
def test_what_cannot_be_is_named(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asked(**{field: value})
    assert caught.value.param == field


def test_what_stands_for_nothing_is_told() -> None:
    wish = asked(
        style="vivid", user="u1", background="transparent", moderation="low", partial_images=1, output_compression=50
    )
    assert set(wish.report.dropped) == {"style", "user", "background", "partial_images", "output_compression"}
    wish = asked(background="auto", moderation="auto", user="", output_format="webp", output_compression=50, x=None)
    assert wish.report.dropped == ()


# Forms

FIELDS: list[tuple[str, str | bytes]] = [
    ("prompt", "a cube\r\nof \xe9"),
    ("image[]", RED),
    ("mask", RED),
    ("n", "2"),
    ("size", "64x72"),
    ("stream", "false"),
    ("seed", "7"),
    ("strength", "0.5"),
    ("loras[][name]", "bright"),
    ("loras[][weight]", "0.5"),
    ("user", ""),
]


def test_a_form_is_read_as_json_is() -> None:
    wish = read_edit(FORM, form(*FIELDS))
    body = {
        "prompt": "a cube\nof \xe9",
        "images": [{"image_url": DATA_URL}],
        "mask": {"image_url": DATA_URL},
        "n": 2,
        "size": "64x72",
        "stream": False,
        "seed": 7,
        "strength": 0.5,
        "loras": {"bright": 0.5},
    }
    same = read_edit(b"application/json", json.dumps(body).encode())
    assert (wish.paint, wish.images, wish.mask) == (same.paint, same.images, same.mask)
    assert wish.images == (Blob(RED, "image/png"),)
    assert wish.paint.mask_alpha
    assert wish.paint.loras == (Lora("bright", 0.5),)


@given(st.permutations(FIELDS))
def test_the_order_of_a_forms_fields_means_nothing(fields: list[tuple[str, str | bytes]]) -> None:
    wish, other = read_edit(FORM, form(*fields)), read_edit(FORM, form(*FIELDS))
    assert (wish.paint, wish.images, wish.mask, wish.stream) == (other.paint, other.images, other.mask, other.stream)


@pytest.mark.parametrize("name", ["image", "image[]", "image[0]", "images", "images[]"])
def test_files_by_any_of_their_names(name: str) -> None:
    assert read_edit(FORM, form((name, RED), ("prompt", "x"))).images == (Blob(RED, "image/png"),)
    wish = read_edit(FORM, form(("prompt", "x"), (name, RED), ("mask", b""), ("image[]", DATA_URL)))
    assert wish.images == (Blob(RED, "image/png"),) * 2
    assert wish.mask is None
    assert not wish.paint.mask_alpha


@pytest.mark.parametrize(
    ("parts", "param"),
    [
        ([("prompt", "x")], "image"),
        ([("image", RED)], "prompt"),
        ([("image", RED), ("prompt", "")], "prompt"),
        ([("image", b"no picture"), ("prompt", "x")], "image"),
        ([("image", RED), ("mask", b"no picture"), ("prompt", "x")], "mask"),
        ([("image", RED), ("mask", RED), ("mask", RED), ("prompt", "x")], "mask"),
        ([("image", RED), ("prompt", "x"), ("prompt", "y")], "prompt"),
        ([("image", RED), ("prompt", b"\xff")], "prompt"),
        ([("image", RED), ("prompt", "x"), ("n", "many")], "n"),
        ([("image", RED), ("prompt", "x"), ("stream", "perhaps")], "stream"),
        ([("image", RED), ("prompt", "x"), ("loras", "a"), ("loras[]", "b")], "loras"),
        ([("image", RED), ("prompt", "x"), ("loras[][name]", "a"), ("loras[][name]", "b"), ("loras[][weight]", "1")], "loras"),
        ([("image[]", RED)] * 17 + [("prompt", "x")], "image"),
    ],
)  # fmt: skip
def test_forms_that_are_wrong_are_told_what_is(parts: list[tuple[str, str | bytes]], param: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_edit(FORM, form(*parts))
    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"images": []},
        {"images": [{}]},
        {"images": [{"file_id": "file-1"}]},
        {"image": "nothing"},
        {"image": DATA_URL, "mask": {"file_id": "file-1"}},
        {"image": [DATA_URL] * 17},
    ],
)
def test_json_without_a_picture_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read_edit(b"application/json", json.dumps({"prompt": "x", **fields}).encode())
    assert caught.value.param in {"image", "mask"}


def test_variations_have_one_picture_and_no_prompt() -> None:
    wish = read_variation(FORM, form(("image", RED), ("n", "2")))
    assert (wish.paint.prompt, wish.paint.n, wish.edit) == ("", 2, True)
    assert wish.paint.strength is not None
    assert read_variation(b"", json.dumps({"image": DATA_URL, "strength": 0.3}).encode()).paint.strength == 0.3
    with pytest.raises(InvalidRequest):
        read_variation(FORM, form(("image", RED), ("image", RED)))


def test_a_picture_that_is_too_large_is_413() -> None:
    with pytest.raises(TooLarge):
        read_variation(b"", json.dumps({"image": "A" * (41 * 1024 * 1024)}).encode())

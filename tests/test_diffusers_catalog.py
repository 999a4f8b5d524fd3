"""Which models paint, and what of a request they refuse before anything is loaded: files of all kinds, presets, sizes, names."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import shutil
import struct
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import backends.extras
from backends.diffusers import DiffusersBackend
from backends.diffusers.settings import PainterModelSettings, PainterSettings
from backends.diffusers.sizes import upright_size
from canonical.errors import GatewayError, InvalidRequest, ModelNotFound, NotFound, NotImplementedHere, Unsupported
from canonical.media import Blob
from canonical.models import Capability
from canonical.painting import SIDE, Lora, Offer, Paint
from canonical.requests import AS_CONFIGURED
from tests.drawing import encoded, shape
from tests.serving import ROOT

PAINTING = ROOT / "models" / "painting"
BASE, PONY = "tiny-sdxl-base", "tiny-pony"


class House:
    """A backend over a folder of models."""

    def __init__(self, folder: Path = PAINTING, **settings: Any) -> None:
        self.backend = DiffusersBackend("painter", PainterSettings(models_dir=str(folder), **settings))

    def named(self, id: str, **settings: Any) -> House:
        self.backend.configure(id, PainterModelSettings(**settings))
        return self

    def rows(self) -> dict[str, Any]:
        return {row.id: row for row in asyncio.run(self.backend.models())}

    def offer(self, name: str = BASE) -> Offer:
        return asyncio.run(self.backend.offer(name))

    def prepared(self, name: str = BASE, **request: Any) -> Paint:
        return asyncio.run(self.backend.prepared(name, Paint(**{"prompt": "a red circle", **request})))

    def refused(self, name: str = BASE, **request: Any) -> GatewayError:
        with pytest.raises(GatewayError) as caught:
            self.prepared(name, **request)
        return caught.value


def safetensors(path: Path, tensors: dict[str, list[int]], *, cut: int = 0) -> None:
    """A file of zeros with tensors of these shapes, in 16 bits."""
    head, at = {}, 0
    for name, sides in tensors.items():
        size = 2 * math.prod(sides)
        head[name] = {"dtype": "F16", "shape": sides, "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(head).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(at - cut))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the demo models that may be spoiled."""
    for name in (BASE, f"{PONY}.safetensors", "loras"):
        copy: Callable[..., Any] = shutil.copytree if (PAINTING / name).is_dir() else shutil.copy
        copy(PAINTING / name, tmp_path / name)
    return tmp_path


def test_files_whose_names_cannot_be_told_are_passed_over(folder: Path) -> None:
    there = House(folder).rows()
    for name in (b"\xff", b"two\nlines", b"\x1b[31m"):
        with contextlib.suppress(OSError):  # not every file system has such names
            shutil.copy(
                folder / "loras" / "night.safetensors", os.fsencode(folder / "loras") + b"/" + name + b".safetensors"
            )
            shutil.copy(folder / f"{PONY}.safetensors", os.fsencode(folder) + b"/" + name + b".safetensors")
            shutil.copytree(os.fsencode(folder / BASE), os.fsencode(folder) + b"/" + name)
    assert House(folder).rows() == there


# What there is


def test_folders_and_single_files_are_found_by_what_is_in_them() -> None:
    rows = House().rows()
    assert set(rows) == {BASE, "tiny-sdxl-turbo", PONY}
    for row in rows.values():
        assert row.capabilities == {Capability.PAINT}
        assert (row.family, row.format, row.trouble, row.backend) == ("sdxl", "safetensors", "", "painter")
        assert {"night", "frame-kohya", "night-loha", "frame-lokr"} <= set(row.loras)
        assert len(row.digest) == 64
    assert rows[BASE].parameter_count == rows[PONY].parameter_count > 3_000_000
    assert rows[PONY].size == (PAINTING / f"{PONY}.safetensors").stat().st_size


def test_a_model_has_its_configured_name_and_title(folder: Path) -> None:
    house = House(folder).named("sdxl", folder=BASE, title="Tiny XL", loras=("night",))
    house.named("elsewhere", file=str(PAINTING / f"{PONY}.safetensors"))
    rows = house.rows()
    assert set(rows) == {"sdxl", "elsewhere", PONY}
    assert (rows["sdxl"].title, rows["sdxl"].loras) == ("Tiny XL", ("night",))
    assert [lora.id for lora in house.offer("sdxl").loras] == ["night"]


def test_a_digest_changes_with_the_weights(folder: Path) -> None:
    house = House(folder)
    before = house.rows()[BASE].digest
    assert house.rows()[BASE].digest == before
    unet = folder / BASE / "unet" / "diffusion_pytorch_model.safetensors"
    unet.write_bytes(unet.read_bytes() + b" ")
    assert house.rows()[BASE].digest != before


def test_pickles_are_refused_unopened(folder: Path) -> None:
    (folder / "old.ckpt").write_bytes(b"\x80\x04not even looked at")
    vae = folder / BASE / "vae"
    (vae / "diffusion_pytorch_model.safetensors").rename(vae / "diffusion_pytorch_model.bin")
    house = House(folder)
    for name in ("old", BASE):
        assert "pickled" in house.rows()[name].trouble
        refused = house.refused(name)
        assert isinstance(refused, Unsupported)
        assert "safetensors" in refused.message
        with pytest.raises(Unsupported):
            asyncio.run(house.backend.open(name))


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda f: (f / "unet" / "diffusion_pytorch_model.safetensors").unlink(), "no weights"),
        (lambda f: shutil.rmtree(f / "text_encoder"), "no weights"),
        (lambda f: (f / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"rubbish"), "no safetensors"),
        (lambda f: _index(f, unet=["beside", "Own"]), "code of its own"),
        (lambda f: _index(f, safety=["beside", "Own"]), "code of its own"),
        (lambda f: _index(f, _class_name="FluxPipeline"), "FluxPipeline is no pipeline"),
        (lambda f: _index(f, _class_name=["pipeline", "Own"]), "no pipeline"),
    ],
    ids=["no unet", "no text encoder", "rubbish", "foreign part", "foreign extra", "another family", "custom"],
)
def test_a_folder_that_cannot_be_loaded_says_why(folder: Path, spoil: Callable[[Path], None], words: str) -> None:
    spoil(folder / BASE)
    house = House(folder)
    assert words in house.rows()[BASE].trouble
    assert words in house.refused().message
    assert str(folder) not in house.refused().message


def _index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize("bytes_", [b"", b"[", b"{" * 100_000, b"\xff\xfe", b'{"_class_name": {}}'], ids=repr)
def test_descriptions_that_are_none_break_nothing(folder: Path, bytes_: bytes) -> None:
    (folder / BASE / "model_index.json").write_bytes(bytes_)
    (folder / "pipe").mkdir()
    rows = House(folder).rows()
    assert PONY in rows


def test_a_cut_file_is_told_from_a_whole_one(folder: Path) -> None:
    whole = (folder / f"{PONY}.safetensors").read_bytes()
    (folder / f"{PONY}.safetensors").write_bytes(whole[:-1])
    assert House(folder).rows()[PONY].trouble == "it is cut short"


def test_a_single_file_needs_a_folder_that_is_built_like_it(folder: Path) -> None:
    shutil.move(folder / BASE, folder.parent / "apart")
    assert "`config`" in House(folder).rows()[PONY].trouble
    told = House(folder).named(PONY, config=str(folder.parent / "apart"))
    assert told.rows()[PONY].trouble == ""
    assert told.offer(PONY).preset.width == 64
    safetensors(
        folder / "large.safetensors",
        {
            "model.diffusion_model.input_blocks.0.0.weight": [320, 4, 3, 3],
            "conditioner.embedders.1.model.ln_final.weight": [8],
        },
    )
    told = House(folder).named("large", config=str(folder.parent / "apart"))
    assert "built like it" in told.rows()["large"].trouble


def test_what_belongs_to_a_model_and_is_not_there_is_told_before_it_is_loaded() -> None:
    house = House().named("one", folder=BASE, vae="nowhere").named("two", folder=BASE, ip_adapter="nowhere")
    house.named("three", folder=BASE, vae=f"{BASE}/vae")
    rows = house.rows()
    assert [rows[id].trouble for id in ("one", "two", "three")] == [
        "what its `vae` names is not there",
        "what its `ip_adapter` names is not there",
        "",
    ]


def test_single_files_are_told_by_their_tensors(tmp_path: Path) -> None:
    first = "model.diffusion_model.input_blocks.0.0.weight"
    safetensors(tmp_path / "sd1.safetensors", {first: [320, 4, 3, 3], "cond_stage_model.transformer.x": [1]})
    safetensors(tmp_path / "sd2.safetensors", {first: [320, 4, 3, 3], "cond_stage_model.model.ln_final.weight": [1]})
    safetensors(tmp_path / "xl.safetensors", {first: [320, 9, 3, 3], "conditioner.embedders.1.model.x": [1]})
    safetensors(tmp_path / "vae.safetensors", {"decoder.conv_in.weight": [1]})
    rows = House(tmp_path).rows()
    assert {id: row.family for id, row in rows.items()} == {"sd1": "sd1", "sd2": "sd2", "xl": "sdxl"}


def test_weights_of_16_bits_are_taken_where_such_are_wanted(folder: Path) -> None:
    unet = folder / BASE / "unet"
    shutil.copy(unet / "diffusion_pytorch_model.safetensors", unet / "diffusion_pytorch_model.fp16.safetensors")
    known = {half: House(folder, dtype=half).backend._catalog.find(BASE).of for half in ("float32", "float16")}
    assert (known["float32"].variant, known["float16"].variant) == ("", "fp16")
    assert known["float32"].numbers == known["float16"].numbers, "each tensor once"
    (unet / "diffusion_pytorch_model.safetensors").unlink()
    assert House(folder, dtype="float32").backend._catalog.find(BASE).of.variant == "fp16"


def test_what_is_not_there_is_not_found() -> None:
    for name in ("nobody", "../painting/tiny-sdxl-base", "", "x" * 5000, "loras", "a\0b"):
        with pytest.raises(ModelNotFound):
            asyncio.run(House().backend.open(name))


# What a request leaves open


def test_what_a_request_leaves_open_is_as_the_files_say() -> None:
    base, turbo = House().offer().preset, House().offer("tiny-sdxl-turbo").preset
    assert (base.sampler, base.steps, base.guidance_scale, base.width, base.height) == ("euler", 30, 5.0, 64, 64)
    assert (turbo.sampler, turbo.steps, turbo.guidance_scale) == ("euler_a", 4, 0.0)
    made = House().prepared(seed=3)
    assert made.complete
    assert (made.steps, made.width, made.strength, made.reference_scale) == (30, 64, None, None)


def test_what_a_request_leaves_open_is_as_configured_before_that() -> None:
    more = {"steps": 12, "guidance_scale": 0.0, "sampler": "DPM++ 2M Karras", "width": 128, "negative_prompt": "dull"}
    house = House().named("mine", folder=BASE, prefix="score_9, score_8_up,", clip_skip=2, guidance_rescale=0.5, **more)
    made = house.prepared("mine")
    assert (made.steps, made.guidance_scale, made.sampler) == (12, 0.0, "dpmpp_2m_karras")
    assert (made.width, made.height, made.clip_skip, made.guidance_rescale) == (128, 64, 2, 0.5)
    assert (made.prompt, made.negative_prompt) == ("score_9, score_8_up, a red circle", "dull")
    said = house.prepared("mine", steps=3, guidance_scale=4.0, width=64, negative_prompt="sad", guidance_rescale=0.0)
    assert (said.steps, said.guidance_scale, said.width, said.negative_prompt) == (3, 4.0, 64, "sad")
    assert said.guidance_rescale == 0.0
    assert house.prepared("mine", prompt=made.prompt).prompt == made.prompt, "a recipe comes back as it was"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"folder": "a", "file": "b"}, "a folder or a file"),
        ({"sampler": "eular"}, "did you mean"),
        ({"steps": 0}, "steps must be"),
        ({"width": 500}, "multiple of 8"),
        ({"strength": 2.0}, "strength"),
        ({"clip_skip": 0}, "clip_skip"),
    ],
    ids=repr,
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        House().named("x", **settings)


def test_adapters_are_known_by_their_names_however_written_and_ordered() -> None:
    one = House().prepared(loras=(Lora("night", 0.5), Lora("frame-kohya")))
    other = House().prepared(loras=(Lora("Frame-Kohya.safetensors"), Lora("NIGHT", 0.5)))
    assert one == other
    assert [lora.name for lora in one.loras] == ["frame-kohya", "night"]
    assert one.loras[0].weight == 0.8, "its own"


def test_an_adapter_that_there_is_not_is_not_found_with_what_there_is() -> None:
    refused = House().refused(loras=(Lora("nigth"),))
    assert isinstance(refused, NotFound)
    assert refused.param == "loras"
    assert "did you mean 'night'" in refused.message
    refused = House().named("none", folder=BASE, loras=()).refused("none", loras=(Lora("night"),))
    assert isinstance(refused, NotFound)
    assert House().refused(loras=(Lora("night"), Lora("NIGHT"))).param == "loras"


def test_adapters_stand_in_the_order_in_which_they_are_configured() -> None:
    house = House().named("two", folder=BASE, loras=("night", "gone", "frame-kohya"))
    assert [lora.id for lora in house.offer("two").loras] == ["night", "frame-kohya"]
    assert house.rows()["two"].loras == ("night", "frame-kohya")


def test_a_damaged_adapter_is_offered_to_nobody_and_says_why(folder: Path) -> None:
    path = folder / "loras" / "night.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert "night" not in {lora.id for lora in House(folder).offer().loras}
    refused = House(folder).refused(loras=(Lora("night"),))
    assert (refused.status, refused.param) == (400, "loras")
    assert "cut short" in refused.message


def test_an_unknown_sampler_is_refused_with_the_nearest() -> None:
    assert House().prepared(sampler="Euler a").sampler == "euler_a"
    refused = House().refused(sampler="eular_a")
    assert isinstance(refused, InvalidRequest)
    assert refused.param == "sampler"
    assert "euler_a" in refused.message


PICTURE = Blob(encoded(shape("red", "square")), "image/png")


def sized(width: int, height: int) -> Blob:
    """The head of a PNG; nothing here decodes it."""
    return Blob(
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBBI", 13, b"IHDR", width, height, 8, 2, 0, 0, 0, 0), "image/png"
    )


def test_a_strength_that_leaves_no_step_is_refused() -> None:
    """Inside diffusers it would be a failure without a reason."""
    refused = House().refused(image=PICTURE, strength=0.2, steps=4)
    assert (refused.param, refused.status) == ("strength", 400)
    assert "0.25" in refused.message
    assert House().prepared(image=PICTURE, strength=0.25, steps=4).strength == 0.25
    assert House().prepared(image=PICTURE, strength=0.34, steps=3).strength == 0.34
    assert House().prepared(image=PICTURE).strength == 0.6
    assert House().prepared(image=PICTURE, steps=1).strength == 1.0
    assert House().prepared(image=PICTURE, mask=PICTURE).strength == 1.0
    assert House().prepared(strength=0.5).strength is None, "of nothing"


def test_too_many_pixels_are_refused() -> None:
    house = House(max_pixels=128 * 128).named("small", file=f"{PONY}.safetensors", max_pixels=64 * 64)
    assert house.offer().max_pixels == 128 * 128
    assert house.prepared(width=256, height=64).width == 256
    refused = house.refused(width=256, height=128)
    assert (refused.param, refused.status) == ("width", 400)
    assert "16384" in refused.message
    assert house.refused("small", height=128).param == "height"
    assert house.refused("small", width=128).param == "width"


@pytest.mark.parametrize(
    ("image", "asked", "becomes"),
    [
        ((64, 64), {}, (64, 64)),
        ((80, 56), {}, (80, 56)),
        ((83, 59), {}, (80, 56)),
        ((4000, 3000), {}, (72, 56)),
        ((10, 10), {}, (64, 64)),
        ((128, 64), {"width": 256}, (256, 128)),
        ((128, 64), {"height": 128}, (256, 128)),
        ((500, 500), {"width": 96, "height": 64}, (96, 64)),
        ((60_000, 1), {}, (64, 64)),
    ],
    ids=repr,
)
def test_a_picture_that_is_painted_over_keeps_its_shape(
    image: tuple[int, int], asked: dict[str, int], becomes: tuple[int, int]
) -> None:
    made = House(max_pixels=64 * 1024).prepared(image=sized(*image), **asked)
    assert (made.width, made.height) == becomes
    assert max(becomes) <= SIDE[1]


@pytest.mark.parametrize(("turn", "becomes"), [(1, (64, 32)), (3, (64, 32)), (6, (32, 64)), (8, (32, 64))])
def test_a_photograph_that_was_taken_sideways_is_measured_upright(turn: int, becomes: tuple[int, int]) -> None:
    image, exif, out = Image.new("RGB", (64, 32)), Image.Exif(), BytesIO()
    exif[0x0112] = turn
    image.save(out, "JPEG", exif=exif)
    assert upright_size(Blob(out.getvalue(), "image/jpeg")) == becomes
    for cut in range(0, len(out.getvalue()), 7):
        with contextlib.suppress(InvalidRequest):
            upright_size(Blob(out.getvalue()[:cut], "image/jpeg"))


def test_a_model_without_an_ip_adapter_takes_after_nothing() -> None:
    assert House().offer().references is False
    assert House().refused(reference=PICTURE).param == "reference"
    house = House().named("taking", folder=BASE, ip_adapter="loras")
    assert house.offer("taking").references
    assert house.prepared("taking", reference=PICTURE).reference_scale == 0.6


def test_a_model_for_masks_needs_a_picture(folder: Path) -> None:
    path = folder / BASE / "unet" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "in_channels": 9}))
    assert House(folder).refused().param == "image"
    assert House(folder).prepared(image=PICTURE).width == 64


def test_without_the_extra_models_are_listed_and_painting_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends.extras, "find_spec", lambda name: None)
    assert House().rows()[BASE].trouble == ""
    with pytest.raises(NotImplementedHere, match=r"dragoman\[images\]"):
        House().backend.check_equipped()
    assert House().prepared().width == 64, "a gateway that leaves painting to others needs no torch"
    with pytest.raises(NotImplementedHere):
        asyncio.run(House().backend.open(BASE))


def test_what_a_model_takes_is_known_before_it_is_loaded() -> None:
    def need(**settings: Any) -> Any:
        return asyncio.run(House(**settings).backend.need(BASE, AS_CONFIGURED))

    numbers = House().rows()[BASE].parameter_count
    work = need(device="cpu").ram - need(device="cpu", dtype="bfloat16").ram - 2 * numbers
    assert 2000 < work / 64**2 < 4000, "numbers that are twice as wide take twice as much where they become a picture"
    assert need(device="cpu").vram == 0
    assert (
        need(device="cuda").vram
        > need(device="cuda", offload="model").vram
        > need(device="cuda", offload="sequential").vram
    )


def test_what_lies_over_a_model_and_beside_it_is_counted(folder: Path) -> None:
    """Adapters cover most of SDXL, and what they cover is kept; the encoder of an IP-Adapter can be larger than the model."""
    safetensors(
        folder / "ip" / "adapter.safetensors", {"image_proj.proj.weight": [8, 24], "ip_adapter.1.to_k_ip": [500]}
    )
    safetensors(folder / "ip" / "image_encoder" / "model.safetensors", {"layer": [1000, 1000]})
    (folder / "ip" / "image_encoder" / "config.json").write_text('{"projection_dim": 24}')

    def need(**model: Any) -> int:
        house = House(folder, device="cpu").named("one", folder=BASE, **model)
        return asyncio.run(house.backend.need("one", AS_CONFIGURED)).ram

    plain, numbers = need(loras=()), House().rows()[BASE].parameter_count
    assert need(loras=(), ip_adapter="ip") - plain == 4 * (8 * 24 + 500 + 1_000_000)
    assert need(loras=(), ip_adapter="loras") == plain, "there is none, which is told when it is asked for"
    assert 1.6 * numbers < need() - plain < 2 * numbers, "in 16 bits, though it computes in 32"

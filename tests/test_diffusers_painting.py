"""A real diffusion model, small as it is: the same request gives the same bytes whatever came between, and whoever leaves stops it."""

from __future__ import annotations

import asyncio
import os
import pickle
import resource
import signal
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from backends.diffusers import DiffusersBackend
from backends.diffusers.backend import PaintingModel
from backends.diffusers.settings import PainterModelSettings, PainterSettings
from canonical.errors import BackendError, BackendTimeout, GatewayError, InvalidRequest, NotFound
from canonical.media import Blob
from canonical.painting import Lora, Paint, Painted, Step
from tests.drawing import encoded, shape
from tests.serving import ROOT

Pixels = np.ndarray[Any, np.dtype[np.float64]]


class Easel:
    """One loaded model, whose process all tests of this file share."""

    def __init__(self, runner: asyncio.Runner) -> None:
        self.run = runner.run
        settings = PainterSettings(models_dir="models/painting", threads=1, device="cpu")
        self.backend = DiffusersBackend("painter", settings, ROOT)
        self.backend.configure("base", PainterModelSettings(folder="tiny-sdxl-base", steps=6))
        self.model: PaintingModel = self.run(self.backend.open("base"))

    async def asked(self, **more: Any) -> Paint:
        request = Paint(**{"prompt": "a red circle", "seed": 7, **more})
        return await self.backend.prepared("base", request)

    def events(self, **more: Any) -> list[Step | Painted]:
        async def all() -> list[Step | Painted]:
            return [event async for event in self.model.paint(await self.asked(**more))]

        return self.run(all())

    def pictures(self, **more: Any) -> list[bytes]:
        return [event.image.data for event in self.events(**more) if isinstance(event, Painted)]

    def picture(self, **more: Any) -> bytes:
        (only,) = self.pictures(**more)
        return only


@pytest.fixture(scope="module")
def easel() -> Iterator[Easel]:
    with asyncio.Runner() as runner:
        easel = Easel(runner)
        yield easel
        runner.run(easel.model.close())


def pixels(picture: bytes | Blob | Image.Image) -> Pixels:
    if isinstance(picture, Blob):
        picture = picture.data
    image = Image.open(BytesIO(picture)) if isinstance(picture, bytes) else picture
    return np.asarray(image.convert("RGB"), dtype=float)


def blob(image: Image.Image) -> Blob:
    return Blob(encoded(image), "image/png")


def part(*, white: bool, alpha: bool = False) -> Image.Image:
    """A mask whose left half is to be painted anew."""
    mask = Image.new("RGBA" if alpha else "L", (64, 64), (0, 0, 0, 255) if alpha else 0)
    mask.paste((0, 0, 0, 0) if alpha else 255, (0, 0, 32, 64))
    return mask if white else mask.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


@pytest.mark.parametrize("sampler", ["euler", "euler_a", "dpmpp_2m_sde"])
def test_i3_the_same_seed_gives_the_same_bytes_and_another_does_not(easel: Easel, sampler: str) -> None:
    """Also with samplers that add noise at each step."""
    first = easel.picture(sampler=sampler)
    assert Image.open(BytesIO(first)).size == (64, 64)
    assert easel.picture(sampler=sampler) == first
    other = easel.picture(sampler=sampler, seed=8)
    assert np.abs(pixels(other) - pixels(first)).mean() > 1, "it is not its text alone that differs"
    easel.picture(sampler="ddim", prompt="a blue square")
    assert easel.picture(sampler=sampler) == first, "whatever was painted in between"


def test_whatever_may_be_chosen_is_seen_in_the_picture(easel: Easel) -> None:
    """Not in its text alone."""
    plain = pixels(easel.picture())
    for choice in (
        {"negative_prompt": "a red square, blue"},
        {"guidance_scale": 2.0},
        {"guidance_rescale": 0.7},
        {"clip_skip": 3},
        {"sampler": "ddim"},
        {"steps": 3},
    ):
        assert (pixels(easel.picture(**choice)) != plain).any(), choice


def test_i3_it_draws_what_is_asked(easel: Easel) -> None:
    """The demo model knows colours: the middle of the picture has the one that was asked for."""
    for colour, channel in (("red", 0), ("green", 1), ("blue", 2)):
        middle = pixels(easel.picture(prompt=f"a {colour} square", steps=20))[24:40, 24:40].mean(axis=(0, 1))
        assert int(middle.argmax()) == channel, (colour, middle)


def test_each_of_n_pictures_is_what_it_would_be_alone(easel: Easel) -> None:
    first, second, third = easel.pictures(n=3, seed=2**32 - 2)
    assert second == easel.picture(seed=2**32 - 1)
    assert third == easel.picture(seed=0), "seeds go round"
    assert first != second


def test_what_a_picture_was_made_from_gives_it_again(easel: Easel) -> None:
    *_, last = easel.events(n=2, steps=3, guidance_scale=3.5, sampler="Euler a")
    assert isinstance(last, Painted)
    assert last.made.complete
    assert (last.made.seed, last.made.n, last.made.sampler) == (8, 1, "euler_a")

    async def again() -> list[Step | Painted]:
        return [event async for event in easel.model.paint(last.made)]

    *_, same = easel.run(again())
    assert isinstance(same, Painted)
    assert same.image == last.image


def test_i5_every_step_is_told(easel: Easel) -> None:
    steps = [event for event in easel.events(steps=5, n=2) if isinstance(event, Step)]
    assert [(step.index, step.done, step.total) for step in steps] == [(i, k, 5) for i in (0, 1) for k in range(1, 6)]
    assert all(step.preview is None for step in steps)


def test_a_picture_to_start_from_takes_the_steps_of_its_strength(easel: Easel) -> None:
    events = easel.events(image=blob(shape("blue", "square")), strength=0.5, steps=10)
    assert [(event.done, event.total) for event in events if isinstance(event, Step)] == [(k, 5) for k in range(1, 6)]


def test_strength_is_how_much_of_a_picture_is_given_up(easel: Easel) -> None:
    start = shape("blue", "square").resize((64, 64))
    change = {
        strength: np.abs(
            pixels(easel.picture(image=blob(start), strength=strength, steps=10, prompt="a red circle")) - pixels(start)
        ).mean()
        for strength in (0.2, 0.9)
    }
    assert change[0.2] < change[0.9]


@pytest.mark.parametrize("how", ["white", "transparent", "inverted", "opaque"])
def test_what_a_mask_leaves_out_stays_to_the_pixel(easel: Easel, how: str) -> None:
    start = shape("yellow", "triangle").resize((64, 64))
    mask = part(white=how != "inverted", alpha=how == "transparent")
    meant = {"mask_alpha": how in {"transparent", "opaque"}, "mask_invert": how == "inverted"}
    if how == "opaque":  # drawn in white, by a program that adds an alpha channel to everything
        mask = mask.convert("RGBA")
    made = pixels(easel.picture(image=blob(start), mask=blob(mask), prompt="a blue square", **meant))
    assert (made[:, 32:] == pixels(start)[:, 32:]).all()
    assert np.abs(made[:, :32] - pixels(start)[:, :32]).mean() > 5


def test_previews_come_on_the_way_and_look_like_what_is_to_be(easel: Easel) -> None:
    events = easel.events(steps=8, previews=3)
    seen = [event for event in events if isinstance(event, Step) and event.preview is not None]
    assert [step.done for step in seen] == [2, 4, 6]
    last = events[-1]
    assert isinstance(last, Painted)
    far = [np.abs(pixels(step.preview) - pixels(last.image)).mean() for step in seen if step.preview is not None]
    assert far[-1] < far[0]
    assert far[-1] < 25, far
    assert last.image.data == easel.picture(steps=8), "nobody's looking on changes a picture"


def test_previews_of_large_pictures_need_no_autoencoder(easel: Easel) -> None:
    """A 20th of the time; rough, and of the right colours all the same."""
    last = easel.events(width=320, height=256, steps=4, previews=1)
    (seen,) = [event.preview for event in last if isinstance(event, Step) and event.preview is not None]
    made = last[-1]
    assert isinstance(made, Painted)
    assert Image.open(BytesIO(seen.data)).size == (320, 256)
    assert np.abs(pixels(seen) - pixels(made.image)).mean() < 40


def test_i6_who_leaves_stops_it_within_a_step(easel: Easel) -> None:
    """A generator that is closed after step 2 of 400: were it not stopped, the next picture would wait half a minute."""
    first, process = easel.picture(), easel.model.worker.pid

    async def leave() -> int:
        events: AsyncGenerator[Step | Painted, None] = easel.model.paint(await easel.asked(steps=400))
        told = 0
        async with aclosing(events):
            async for event in events:
                assert isinstance(event, Step)
                told = event.done
                if told == 2:
                    break
        return told

    async def in_time() -> int:
        async with asyncio.timeout(10):
            return await leave()

    assert easel.run(in_time()) == 2
    assert easel.picture() == first, "the model is none the worse for it"
    assert easel.model.worker.pid == process, "and its process has not been ended for it"


def test_pictures_that_cannot_be_decoded_are_refused_with_their_field(easel: Easel) -> None:
    good = encoded(shape("red", "circle"))
    for field in ("image", "mask"):
        inputs = {"image": Blob(good, "image/png"), field: Blob(good[: len(good) // 2], "image/png")}
        with pytest.raises(InvalidRequest, match=r"cut short|damaged") as refused:
            easel.picture(**inputs)
        assert refused.value.param == field
    assert easel.picture()


def test_a_picture_that_takes_too_long_is_given_up(easel: Easel) -> None:
    first = easel.picture()
    slow = PaintingModel(easel.model.info, easel.model.worker, easel.model._need, easel.model._catalog, 0.2)

    async def wait() -> None:
        async for _ in slow.paint(await easel.asked(steps=400)):
            pass

    with pytest.raises(BackendTimeout, match=r"longer than 0.2 s"):
        easel.run(wait())
    assert easel.picture() == first


def test_a_worker_that_is_killed_fails_what_it_painted_and_the_next_one_paints_the_same(easel: Easel) -> None:
    first = easel.picture()

    async def kill() -> None:
        async for _ in easel.model.paint(await easel.asked(steps=400)):
            process = easel.model.worker.pid
            assert process is not None
            os.kill(process, signal.SIGKILL)

    with pytest.raises(BackendError, match="SIGKILL"):
        easel.run(kill())
    assert easel.picture() == first, "a fresh process, the same bytes"


def test_memory_that_runs_out_is_told_and_the_process_goes_on(easel: Easel) -> None:
    """The process may have 30 MB more than it has: a picture of 1024 pixels a side needs hundreds."""
    process = easel.model.worker.pid
    assert process is not None
    first = easel.picture()
    status = Path(f"/proc/{process}/status").read_text().splitlines()
    has = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData"))
    before = resource.prlimit(process, resource.RLIMIT_DATA)
    resource.prlimit(process, resource.RLIMIT_DATA, (has + 30_000_000, before[1]))
    try:
        with pytest.raises(GatewayError) as failed:
            easel.picture(width=1024, height=1024, steps=1)
    finally:
        resource.prlimit(process, resource.RLIMIT_DATA, before)
    assert failed.value.code == "out_of_memory"
    assert easel.picture() == first
    assert easel.model.worker.pid == process


STACK = (Lora("night", 0.5), Lora("frame-kohya", 0.6), Lora("night-loha", 0.3))


def test_i9_a_stack_changes_the_picture_and_its_order_does_not(easel: Easel) -> None:
    plain = easel.picture()
    stacked = easel.picture(loras=STACK)
    assert abs(pixels(stacked) - pixels(plain)).mean() > 10
    assert easel.picture(loras=STACK[::-1]) == stacked
    assert easel.picture() == plain
    lighter = easel.picture(loras=(Lora("night", 0.1), *STACK[1:]))
    assert pixels(lighter).mean() > pixels(stacked).mean()


def test_i9_weight_0_is_no_adapter_and_no_weight_is_its_own(easel: Easel) -> None:
    assert (pixels(easel.picture(loras=(Lora("night", 0.0),))) == pixels(easel.picture())).all()
    assert easel.picture(loras=(Lora("night"),)) == easel.picture(loras=(Lora("night", 0.6),))


def test_i9_an_adapter_that_is_not_there_or_not_for_this_model_is_told(tmp_path: Path, easel: Easel) -> None:
    with pytest.raises(NotFound, match="did you mean 'night'"):
        easel.run(easel.asked(loras=(Lora("nigth"),)))
    loras = tmp_path / "loras"
    loras.mkdir()
    name = "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {f"{name}.lora_down.weight": np.ones((4, 768)), f"{name}.lora_up.weight": np.ones((320, 4))}
    save_file({key: value.astype(np.float16) for key, value in tensors.items()}, loras / "old.safetensors")
    (loras / "pickled.safetensors").write_bytes(pickle.dumps({"lora": 1}))
    (tmp_path / "tiny-sdxl-base").symlink_to(ROOT / "models" / "painting" / "tiny-sdxl-base")
    backend = DiffusersBackend("painter", PainterSettings(models_dir=str(tmp_path)))
    for lora, words in (("old", "sd1"), ("pickled", "no safetensors file")):
        with pytest.raises(InvalidRequest, match=words):
            easel.run(backend.prepared("tiny-sdxl-base", Paint(prompt="", loras=(Lora(lora),))))
    assert easel.run(backend.offer("tiny-sdxl-base")).loras == ()

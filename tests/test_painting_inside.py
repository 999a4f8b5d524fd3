"""Inside a worker that paints: samplers, prompts of any length, pictures to take after, and models in one file or damaged."""

from __future__ import annotations

import copy
import json
import shutil
import warnings
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from PIL import Image

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from backends.diffusers.asking import Asked
    from backends.diffusers.decoder import Decoder, NotNumbers
    from backends.diffusers.engine import Painter  # keeps the libraries from the network, and quiet
    from backends.diffusers.loading import pipeline
    from backends.diffusers.prompts import PIECES, Encoded, encoded
    from backends.diffusers.references import References
    from backends.diffusers.samplers import SAMPLERS, scheduler
    from backends.diffusers.start import Start
from backends.seeing.serving import Wrong
from canonical.media import Blob
from canonical.painting import Paint
from tests import drawing
from tests.serving import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:__array_:DeprecationWarning")  # of diffusers' schedulers
MODELS = ROOT / "models" / "painting"
BASE, TURBO, PONY = MODELS / "tiny-sdxl-base", MODELS / "tiny-sdxl-turbo", MODELS / "tiny-pony.safetensors"


def loaded(path: Path, **more: str) -> Any:
    pipe = pipeline(Start(path=str(path), **more), torch.float32)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe() -> Any:
    torch.set_num_threads(1)
    return loaded(BASE)


def picture(pipe: Any, *prompt: str, guidance: float = 5.0, **more: Any) -> torch.Tensor:
    told = pipe(
        *prompt,
        num_inference_steps=2,
        guidance_scale=guidance,
        generator=torch.Generator().manual_seed(3),
        width=64,
        height=64,
        output_type="pt",
        **more,
    )
    image: torch.Tensor = told.images[0]
    return image


# samplers


def sampled(name: str, config: dict[str, Any]) -> torch.Tensor:
    """What a sampler makes of noise, where the model is a simple sum."""
    made = scheduler(name, config)
    chance = torch.Generator().manual_seed(1)
    made.set_timesteps(5)
    sample = torch.randn((1, 4, 8, 8), generator=chance) * made.init_noise_sigma
    for step in made.timesteps:
        guess = made.scale_model_input(sample, step) * 0.9
        more = {"generator": chance} if "generator" in made.step.__code__.co_varnames else {}
        sample = made.step(guess, step, sample, **more).prev_sample
    result: torch.Tensor = sample
    return result


def test_each_sampler_does_the_same_each_time_and_no_two_do_the_same() -> None:
    config = json.loads((BASE / "scheduler" / "scheduler_config.json").read_text())
    made = {}
    for name in SAMPLERS:
        first = sampled(name, config)
        assert torch.isfinite(first).all(), name
        if not name.startswith("dpm2_") or name == "dpm2_a":  # these take half a second to make
            assert torch.equal(sampled(name, config), first), name
        made[name] = first.numpy().tobytes()
    assert len(set(made.values())) == len(SAMPLERS)


def test_a_turbo_counts_its_steps_from_the_end_with_every_sampler() -> None:
    config = json.loads((TURBO / "scheduler" / "scheduler_config.json").read_text())
    for name in ("euler_a", "euler", "dpmpp_2m", "ddim", "unipc"):
        made = scheduler(name, config)
        made.set_timesteps(4)
        assert [int(step) for step in made.timesteps] == [999, 749, 499, 249], name


# prompts


def read(pipe: Any, prompt: str, negative: str = "", clip_skip: int | None = None, *, guided: bool = True) -> Encoded:
    with torch.no_grad():
        return encoded(pipe, prompt, negative, clip_skip=clip_skip, guided=guided)


@pytest.mark.parametrize(
    ("negative", "guidance", "clip_skip", "theirs"),
    [("", 5.0, None, None), ("a blue circle", 5.0, 2, 0), ("a blue circle", 0.0, None, None), ("", 5.0, 1, None), ("", 5.0, 4, 2)],
)  # fmt: skip
def test_a_short_prompt_is_read_to_the_last_bit_as_diffusers_does(
    pipe: Any, negative: str, guidance: float, clip_skip: int | None, theirs: int | None
) -> None:
    mine = read(pipe, "a red square", negative, clip_skip, guided=guidance > 1)
    assert mine.warnings == ()
    own = picture(pipe, "a red square", guidance=guidance, negative_prompt=negative or None, clip_skip=theirs)
    assert torch.equal(picture(pipe, guidance=guidance, **mine.arguments), own)


def test_clip_skip_changes_the_picture_and_beyond_the_encoder_it_is_told(pipe: Any) -> None:
    def vectors(skip: int | None) -> torch.Tensor:
        found: torch.Tensor = read(pipe, "a red square", clip_skip=skip).arguments["prompt_embeds"]
        return found

    assert torch.equal(vectors(None), vectors(2))
    assert not torch.equal(vectors(2), vectors(3))
    assert torch.equal(vectors(12), vectors(5))
    assert "beyond the text encoder" in read(pipe, "a red square", clip_skip=12).warnings[0]


def test_what_is_behind_the_77th_token_counts(pipe: Any) -> None:
    filler = "a photo of a gray background, " * 20
    first = read(pipe, f"{filler} a red square").arguments["prompt_embeds"]
    other = read(pipe, f"{filler} a blue circle").arguments["prompt_embeds"]
    assert first.shape == other.shape
    assert first.shape[1] % 77 == 0
    assert first.shape[1] > 77
    assert torch.equal(first[:, :77], other[:, :77])
    assert not torch.equal(first, other)
    assert read(pipe, f"{filler} a red square").warnings == ()
    assert picture(pipe, **read(pipe, filler, "a blue circle").arguments).shape == (3, 64, 64)
    assert picture(pipe, **read(pipe, "a blue circle", filler).arguments).shape == (3, 64, 64)


def test_a_long_prompt_is_parted_at_a_comma_or_where_it_says_break(pipe: Any) -> None:
    words = "red " * 65 + ", " + "blue " * 20
    parted = read(pipe, words).arguments["prompt_embeds"]
    assert torch.equal(parted, read(pipe, "red " * 65 + ", BREAK " + "blue " * 20).arguments["prompt_embeds"])
    assert not torch.equal(parted[:, :77], read(pipe, words.replace(",", "red")).arguments["prompt_embeds"][:, :77])
    assert read(pipe, "a red square BREAK a circle").arguments["prompt_embeds"].shape[1] == 2 * 77


def test_what_is_left_out_of_a_prompt_is_told(pipe: Any) -> None:
    found = read(pipe, "x" * 10_000, "a circle")
    assert found.arguments["prompt_embeds"].shape[1] == PIECES * 77
    assert found.warnings == ("the prompt is too long: what is behind its first 1200 tokens is left out",)


@pytest.mark.parametrize("prompt", ["", "((((", "[[a]", "a:1.2)", "\0\x01", "é😀漢字", "<lora:x:1>", ","])
def test_any_prompt_can_be_read(pipe: Any, prompt: str) -> None:
    assert read(pipe, prompt, prompt).arguments["prompt_embeds"].shape[1] == 77


def test_emphasis_is_read_as_it_stands_and_that_is_told(pipe: Any) -> None:
    assert read(pipe, "a (red:1.2) square").warnings == ("emphasis such as (word:1.2) is read as plain text",)
    assert read(pipe, "a (red) square, ratio 1:2").warnings == ()
    assert read(pipe, "a square", "(red:1.2)", guided=False).warnings == ()


# pictures to take after


def ip_adapter(folder: Path, pipe: Any, *, plus: bool = False, wide: int = 24) -> Path:
    """An IP-Adapter with random numbers, built as the real ones are."""
    torch.manual_seed(3)
    hidden, cross = 32, int(pipe.unet.config.cross_attention_dim)
    vision = CLIPVisionConfig(
        hidden_size=hidden,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=32,
        patch_size=8,
        projection_dim=wide,
    )
    CLIPVisionModelWithProjection(vision).save_pretrained(folder / "image_encoder")
    tensors: dict[str, torch.Tensor] = {}
    if plus:
        latents, heads = 64, 64
        sizes = {
            "latents": (1, 4, latents),
            "proj_in.weight": (latents, hidden),
            "proj_in.bias": (latents,),
            "proj_out.weight": (cross, latents),
            "proj_out.bias": (cross,),
            "norm_out.weight": (cross,),
            "norm_out.bias": (cross,),
        }
        for layer in range(4):
            sizes |= {f"layers.{layer}.0.norm{n}.{end}": (latents,) for n in (1, 2) for end in ("weight", "bias")}
            sizes |= {
                f"layers.{layer}.0.to_q.weight": (heads, latents),
                f"layers.{layer}.0.to_kv.weight": (2 * heads, latents),
                f"layers.{layer}.0.to_out.weight": (latents, heads),
                f"layers.{layer}.1.0.weight": (latents,),
                f"layers.{layer}.1.0.bias": (latents,),
                f"layers.{layer}.1.1.weight": (4 * latents, latents),
                f"layers.{layer}.1.3.weight": (latents, 4 * latents),
            }
    else:
        sizes = {
            "proj.weight": (4 * cross, wide),
            "proj.bias": (4 * cross,),
            "norm.weight": (cross,),
            "norm.bias": (cross,),
        }
    tensors |= {f"image_proj.{name}": torch.randn(size) * 0.5 for name, size in sizes.items()}
    at = 1
    for name in pipe.unet.attn_processors:
        if name.endswith("attn2.processor"):
            key = pipe.unet.get_submodule(name.removesuffix(".processor")).to_k.weight
            tensors |= {f"ip_adapter.{at}.to_{part}_ip.weight": torch.randn(key.shape[0], cross) for part in "kv"}
            at += 2
    save_file(tensors, folder / "ip-adapter.safetensors")
    return folder


RED, BLUE = Image.new("RGB", (50, 40), "red"), Image.new("RGB", (40, 50), "blue")


@pytest.mark.parametrize("plus", [False, True])
@pytest.mark.parametrize("guidance", [5.0, 0.0])
def test_a_picture_to_take_after_changes_what_is_painted_and_only_then(
    pipe: Any, tmp_path: Path, plus: bool, guidance: float
) -> None:
    references = References(pipe, str(ip_adapter(tmp_path, pipe, plus=plus)))
    guided = guidance > 1
    plain = picture(pipe, "a red square", guidance=guidance)

    def after(image: Image.Image, scale: float) -> torch.Tensor:
        with torch.no_grad(), references.worn(image, scale, guided=guided) as more:
            return picture(pipe, "a red square", guidance=guidance, **more)

    red = after(RED, 0.8)
    assert not torch.equal(red, plain)
    assert torch.equal(picture(pipe, "a red square", guidance=guidance), plain)
    assert not torch.equal(after(BLUE, 0.8), red)
    assert not torch.equal(after(RED, 0.4), red)
    assert torch.equal(after(RED, 0.0), plain)
    assert torch.equal(after(RED, 0.8), red)
    assert torch.equal(picture(pipe, "a red square", guidance=guidance), plain)


def test_a_request_is_painted_after_its_picture_and_the_next_one_is_not(pipe: Any, tmp_path: Path) -> None:
    adapter = str(ip_adapter(tmp_path, pipe))
    painter = Painter(Start(path=str(BASE), ip_adapter=adapter, device="cpu", nice=0), lambda far: False)
    asked = Paint(prompt="a red square", seed=3, steps=2, guidance_scale=5.0, width=64, height=64, n=1, sampler="euler")

    def seen(**more: Any) -> bytes:
        told: list[Any] = []
        painter.paint(Asked(structs.replace(asked, **more)), told.append)
        painter.clear()
        return Image.open(BytesIO(told[-1].image)).tobytes()

    red, plain = Blob(drawing.encoded(RED), "image/png"), seen()
    after = seen(reference=red, reference_scale=0.8)
    assert after != plain
    assert seen(reference=red, reference_scale=0.4) != after
    assert seen(reference=red, reference_scale=0.0) == plain
    assert seen() == plain


def test_a_picture_to_take_after_is_taken_off_when_painting_fails(pipe: Any, tmp_path: Path) -> None:
    references = References(pipe, str(ip_adapter(tmp_path, pipe)))
    plain = picture(pipe, "a red square")
    with pytest.raises(ZeroDivisionError), torch.no_grad(), references.worn(RED, 0.8, guided=True):
        1 / 0  # noqa: B018
    assert torch.equal(picture(pipe, "a red square"), plain)


def test_an_ip_adapter_that_is_none_is_told_in_words(pipe: Any, tmp_path: Path) -> None:
    def refused(place: Path | str) -> str:
        with pytest.raises(Wrong) as told, References(pipe, str(place)).worn(RED, 0.5, guided=True):
            pass
        assert told.value.param == "reference"
        assert str(tmp_path) not in str(told.value)
        return str(told.value)

    assert refused("") == "this model has no IP-Adapter"
    assert "one safetensors file" in refused(tmp_path)
    folder = ip_adapter(tmp_path / "a", pipe)
    other = ip_adapter(tmp_path / "b", pipe, wide=16)
    shutil.rmtree(folder / "image_encoder")
    assert "no image encoder with projection_dim 24" in refused(folder)
    shutil.copytree(other / "image_encoder", folder / "image_encoder")
    assert "no image encoder with projection_dim 24" in refused(folder)
    assert "no IP-Adapter that is known" in refused(BASE / "unet")
    tensors = load_file(other / "ip-adapter.safetensors")
    save_file({key: value[:, :5].contiguous() if value.dim() == 2 and ".to_k" in key else value for key, value in tensors.items()}, other / "ip-adapter.safetensors")  # fmt: skip
    assert "damaged, or of another kind" in refused(other)
    assert torch.isfinite(picture(pipe, "a red square")).all()


# files


def test_a_single_file_paints_the_same_as_the_folder_it_was_packed_from(pipe: Any, tmp_path: Path) -> None:
    plain = picture(pipe, "a red square")
    assert torch.equal(picture(loaded(PONY, config=str(BASE)), "a red square"), plain)
    bare = tmp_path / "config"
    shutil.copytree(BASE, bare, ignore=shutil.ignore_patterns("*.safetensors"))
    assert torch.equal(picture(loaded(PONY, config=str(bare)), "a red square"), plain)


def test_a_single_file_needs_to_be_told_how_it_is_built() -> None:
    with pytest.raises(ValueError, match="needs a folder of diffusers of the same family as its `config`"):
        loaded(PONY)


def originals_vae(path: Path) -> Path:
    begin = "first_stage_model."
    tensors = {key.removeprefix(begin): value for key, value in load_file(PONY).items() if key.startswith(begin)}
    save_file({key: value * 1.01 for key, value in tensors.items()}, path)
    return path


def test_another_vae_decodes_the_picture(pipe: Any, tmp_path: Path) -> None:
    plain = picture(pipe, "a red square")
    for place in (BASE, BASE / "vae", BASE / "vae" / "diffusion_pytorch_model.safetensors"):
        assert torch.equal(picture(loaded(BASE, vae=str(place)), "a red square"), plain)
    other = originals_vae(tmp_path / "vae.safetensors")
    of_folder = picture(loaded(BASE, vae=str(other)), "a red square")
    assert not torch.equal(of_folder, plain)
    assert torch.equal(picture(loaded(PONY, config=str(BASE), vae=str(other)), "a red square"), of_folder)


def test_a_vae_whose_numbers_are_none_makes_no_black_picture(pipe: Any) -> None:
    spoiled = copy.deepcopy(pipe.vae)
    for weight in spoiled.decoder.conv_out.parameters():
        weight.data.fill_(float("nan"))
    with pytest.raises(NotNumbers):
        Decoder(spoiled).image(torch.zeros(1, 4, 8, 8))


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "text_encoder_2"])
def test_a_model_with_a_hole_is_not_filled_with_noise(tmp_path: Path, part: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(BASE, folder)
    (file,) = (folder / part).glob("*.safetensors")
    tensors = load_file(file)
    tensors.pop(sorted(tensors)[5])
    save_file(tensors, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match=f"of its {part} are missing"):
        loaded(folder)


@pytest.mark.parametrize(
    "begin",
    ["model.diffusion_model.out.2.w", "conditioner.embedders.0.transformer.text_model.encoder", "first_stage_model."],
)
def test_a_file_with_a_hole_is_not_filled_with_noise(tmp_path: Path, begin: str) -> None:
    tensors = load_file(PONY)
    tensors.pop(next(key for key in sorted(tensors) if key.startswith(begin) and key.endswith("weight")))
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    with pytest.raises(ValueError, match="missing"):
        loaded(path, config=str(BASE))


def test_a_file_that_is_cut_short_is_told_without_its_place(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(PONY.read_bytes()[:3_000_000])
    with pytest.raises(ValueError, match="it is cut short") as told:
        loaded(path, config=str(BASE))
    assert str(tmp_path) not in str(told.value)

"""Other kinds of models than SDXL's first: Stable Diffusion 1, models for masks, refiners. Their structure is real, their weights are noise."""

from __future__ import annotations

import asyncio
import json
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from backends.diffusers import DiffusersBackend
from backends.diffusers.settings import PainterSettings
from canonical.errors import InvalidRequest
from canonical.media import Blob
from canonical.painting import Paint
from tests.drawing import encoded, shape
from tests.serving import ROOT

pytestmark = pytest.mark.filterwarnings("ignore")  # a worker prints those of its libraries; here they would be errors

START = Blob(encoded(shape("red", "circle")), "image/png")
KINDS = ("sd15", "sd15-inpaint", "xl-inpaint", "refiner")


def make(folder: Path) -> None:
    """Four models of the demo's parts, each with a UNet of its own."""
    import torch
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import StableDiffusionInpaintPipeline
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl import StableDiffusionXLPipeline
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_img2img import (
        StableDiffusionXLImg2ImgPipeline,
    )
    from diffusers.pipelines.stable_diffusion_xl.pipeline_stable_diffusion_xl_inpaint import (
        StableDiffusionXLInpaintPipeline,
    )

    base: Any = StableDiffusionXLPipeline.from_pretrained(str(ROOT / "models" / "painting" / "tiny-sdxl-base"))
    torch.manual_seed(0)

    def unet(**changes: Any) -> Any:
        return UNet2DConditionModel.from_config({**base.unet.config, **changes})

    def old(channels: int) -> Any:
        return UNet2DConditionModel(
            sample_size=8,
            in_channels=channels,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=base.text_encoder.config.hidden_size,
            attention_head_dim=4,
            norm_num_groups=16,
        )

    both = {"vae": base.vae, "scheduler": base.scheduler}
    first = {"text_encoder": base.text_encoder, "tokenizer": base.tokenizer}
    second = {"text_encoder_2": base.text_encoder_2, "tokenizer_2": base.tokenizer_2}
    unsafe: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    wide = base.text_encoder_2.config.hidden_size
    refining = {
        "cross_attention_dim": wide,
        "projection_class_embeddings_input_dim": wide + 5 * base.unet.config.addition_time_embed_dim,
    }
    made = {
        "sd15": StableDiffusionPipeline(**both, **first, unet=old(4), **unsafe),
        "sd15-inpaint": StableDiffusionInpaintPipeline(**both, **first, unet=old(9), **unsafe),
        "xl-inpaint": StableDiffusionXLInpaintPipeline(**both, **first, **second, unet=unet(in_channels=9)),
        "refiner": StableDiffusionXLImg2ImgPipeline(
            **both,
            **second,
            text_encoder=None,
            tokenizer=None,
            unet=unet(**refining),
            requires_aesthetics_score=True,
        ),
    }
    for name, pipe in made.items():
        pipe.save_pretrained(str(folder / name))
    # As Stable Diffusion 1 comes, with a large model that looks at what was painted; nothing here asks it.
    index = folder / "sd15" / "model_index.json"
    checker = {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    index.write_text(json.dumps(json.loads(index.read_text()) | checker))
    (folder / "sd15" / "safety_checker").mkdir()
    (folder / "sd15" / "safety_checker" / "pytorch_model.bin").write_bytes(b"it is not read")


class Studio:
    """All of them in this process: what a worker does, without one for each."""

    def __init__(self, folder: Path) -> None:
        self.backend = DiffusersBackend("painter", PainterSettings(models_dir=str(folder), threads=1, device="cpu"))
        self._painters: dict[str, Any] = {}
        self.told: list[Any] = []
        """All that was heard of the last picture."""

    def painted(self, name: str, **request: Any) -> tuple[bytes, tuple[str, ...]]:
        from backends.diffusers.asking import Asked, Drawn
        from backends.diffusers.engine import Painter

        if name not in self._painters:
            known = self.backend._catalog.usable(name)
            self._painters[name] = Painter(self.backend._start(known), lambda part: True)
        asked = Paint(**{"prompt": "a red square", "seed": 7, "steps": 4, **request})
        told = self.told = []
        self._painters[name].paint(Asked(asyncio.run(self.backend.prepared(name, asked))), told.append)
        self._painters[name].clear()
        last = told[-1]
        assert isinstance(last, Drawn)
        return last.image, last.warnings


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    folder = tmp_path_factory.mktemp("kinds")
    make(folder)
    return Studio(folder)


def test_they_are_known_for_what_they_are(studio: Studio) -> None:
    rows = {row.id: row for row in asyncio.run(studio.backend.models())}
    assert {id: row.family for id, row in rows.items()} == dict(zip(KINDS, ("sd1", "sd1", "sdxl", "sdxl"), strict=True))
    assert not any(row.trouble for row in rows.values())


@pytest.mark.parametrize("kind", KINDS)
def test_they_paint_over_pictures_with_and_without_a_mask(studio: Studio, kind: str) -> None:
    mask = Image.new("L", (64, 64))
    mask.paste(255, (0, 0, 32, 64))
    whole, _ = studio.painted(kind, image=START)
    part, _ = studio.painted(kind, image=START, mask=Blob(encoded(mask), "image/png"))
    assert studio.painted(kind, image=START)[0] == whole
    before, after = (np.asarray(Image.open(BytesIO(data)).convert("RGB")) for data in (START.data, part))
    assert (before[:, 32:] == after[:, 32:]).all()
    assert (before[:, :32] != after[:, :32]).any()


def test_only_stable_diffusion_paints_of_words_alone(studio: Studio) -> None:
    first, _ = studio.painted("sd15")
    assert studio.painted("sd15")[0] == first != studio.painted("sd15", clip_skip=2)[0]
    for kind in KINDS[1:]:
        with pytest.raises(InvalidRequest, match="only paints over pictures"):
            studio.painted(kind)


def test_what_has_no_effect_is_told(studio: Studio) -> None:
    assert studio.painted("sd15", guidance_rescale=0.7)[1] == ()
    (warning,) = studio.painted("sd15", guidance_rescale=0.7, image=START)[1]
    assert "guidance_rescale" in warning


def test_who_leaves_is_heard_between_any_two_layers_of_the_autoencoder_too(studio: Studio) -> None:
    """Of a large picture on a processor it takes longer than a step, and a single block of it seconds."""
    studio.painted("sd15")
    before = studio.told.index(next(told for told in studio.told if told is not None))
    steps = [at for at, told in enumerate(studio.told) if told is not None]
    assert before > 40
    assert min(later - earlier for earlier, later in pairwise(steps)) > 30

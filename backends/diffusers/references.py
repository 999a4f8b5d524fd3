"""Pictures to take after, through an IP-Adapter: runs in a worker process.

The adapter changes how the UNet attends, so it is put on for one request and taken off again: what is painted without a
picture to take after is the same as if there were none.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from msgspec import Struct
from PIL import Image

from backends.diffusers.headers import BadFile
from backends.diffusers.reference_files import parts_of
from backends.seeing.serving import Wrong


class _Worn(Struct):
    """A loaded adapter."""

    encoder: Any
    eye: Any
    """Makes a picture what the encoder takes."""
    projection: Any
    attention: dict[str, Any]
    whole: bool
    """It takes one vector of a picture; else all that the encoder saw (the "plus" kinds)."""


class References:
    """The IP-Adapter of one pipeline; ``place``: its folder or file, empty where there is none."""

    def __init__(self, pipe: Any, place: str) -> None:
        self._pipe = pipe
        self._place = place
        self._worn: _Worn | None = None

    @contextlib.contextmanager
    def worn(self, image: Image.Image, scale: float, *, guided: bool) -> Iterator[dict[str, Any]]:
        """Within it the pipeline takes after the picture; what it gives are arguments for the call.

        Raises:
            Wrong: there is no adapter, or it is not for this model.
        """
        if not self._place:
            raise Wrong("this model has no IP-Adapter", "reference")
        if not scale:
            yield {}
            return
        unet = getattr(self._pipe.unet, "_orig_mod", self._pipe.unet)
        before = (unet.encoder_hid_proj, unet.config.encoder_hid_dim_type, dict(unet.attn_processors))
        try:
            worn = self._put_on(unet)
            for processor in worn.attention.values():
                if hasattr(processor, "scale"):
                    processor.scale = [scale]
            yield {"ip_adapter_image_embeds": [self._seen(worn, image, guided=guided)]}
        finally:
            unet.encoder_hid_proj, unet.config.encoder_hid_dim_type = before[:2]
            unet.set_attn_processor(before[2])

    def _put_on(self, unet: Any) -> _Worn:
        if self._worn is None:
            self._worn = self._loaded(unet)
        else:
            unet.encoder_hid_proj, unet.config.encoder_hid_dim_type = self._worn.projection, "ip_image_proj"
            # It takes them out of the dictionary that it is given.
            unet.set_attn_processor(dict(self._worn.attention))
        return self._worn

    def _loaded(self, unet: Any) -> _Worn:
        from diffusers.models.embeddings import ImageProjection
        from safetensors.torch import load_file
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
        from transformers.models.clip.modeling_clip import CLIPVisionModelWithProjection

        try:
            file, folder = parts_of(Path(self._place))
            state: dict[str, dict[str, torch.Tensor]] = {"image_proj": {}, "ip_adapter": {}}
            for key, tensor in load_file(file).items():
                half, _, name = key.partition(".")
                if half in state:
                    state[half][name] = tensor
            unet._load_ip_adapter_weights([state], low_cpu_mem_usage=True)  # noqa: SLF001  # what load_ip_adapter calls
            encoder: Any = CLIPVisionModelWithProjection.from_pretrained(
                str(folder), dtype=unet.dtype, local_files_only=True, use_safetensors=True
            )
        except (BadFile, OSError, ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:
            # Their words name places of this machine.
            words = str(error) if isinstance(error, BadFile) else "it is damaged, or of another kind"
            raise Wrong(f"the IP-Adapter of this model cannot be used: {words}", "reference") from error
        side = int(encoder.config.image_size)
        projection = unet.encoder_hid_proj
        return _Worn(
            encoder=encoder.eval(),
            eye=CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side}),
            projection=projection,
            attention=dict(unet.attn_processors),
            whole=isinstance(projection.image_projection_layers[0], ImageProjection),
        )

    def _seen(self, worn: _Worn, image: Image.Image, *, guided: bool) -> torch.Tensor:
        """What it takes of a picture; for guidance, behind what it takes of none."""
        place = self._pipe._execution_device  # noqa: SLF001  # with offload nothing else tells
        encoder = worn.encoder.to(place)
        pixels = worn.eye(images=[image.convert("RGB")], return_tensors="pt")["pixel_values"]
        pixels = pixels.to(place, encoder.dtype)
        if worn.whole:
            some = encoder(pixels).image_embeds[None]
            none = torch.zeros_like(some)
        else:
            some = encoder(pixels, output_hidden_states=True).hidden_states[-2][None]
            none = encoder(torch.zeros_like(pixels), output_hidden_states=True).hidden_states[-2][None]
        if hasattr(self._pipe.unet, "_hf_hook"):
            encoder.to("cpu")  # offload: it goes where the others wait
        return torch.cat([none, some]) if guided else some

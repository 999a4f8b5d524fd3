"""CLIP itself, through transformers: runs in a worker process. Torch and transformers take 4 s and 400 MB to import.

transformers is kept from the network, and from any code that lies beside the weights.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

os.environ.update(
    HF_HUB_OFFLINE="1",
    TRANSFORMERS_OFFLINE="1",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    TOKENIZERS_PARALLELISM="false",
    TRANSFORMERS_VERBOSITY="error",
)

import torch
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.clip.modeling_clip import CLIPModel
from transformers.models.clip.tokenization_clip import CLIPTokenizer
from transformers.utils import logging

from backends.clip.settings import GAP
from backends.clip.start import Start
from backends.seeing.decoding import decoded
from backends.seeing.device import device, dtype
from backends.seeing.serving import Wrong

BATCH = 64
"""Labels that are read at once, between two looks at whether anybody still waits."""
KNOWN = 4096
"""Labels whose meaning is remembered: people ask for the same ones of picture after picture."""
_LONG = 4
"""Times its width that a picture may be high, or the other way round; of more the middle is looked at, as of all."""


class Clip:
    """One loaded model."""

    def __init__(self, start: Start) -> None:
        torch.set_num_threads(start.threads)
        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        self._device = device(start.device)
        self._dtype = dtype(start.dtype, self._device)
        here: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        loaded: Any = CLIPModel.from_pretrained(
            start.path, dtype=self._dtype, use_safetensors=True, output_loading_info=True, **here
        )
        model, told = loaded
        lost = sorted(told["missing_keys"]) or sorted(told["mismatched_keys"])
        if lost:
            # They would be random numbers, and the scores with them.
            raise ValueError(f"the weights of {len(lost)} parts are missing, the first is {str(lost[0])[:80]}")
        self._model = model.eval().to(self._device)
        self._tokenizer = CLIPTokenizer.from_pretrained(start.path, **here)
        self._processor = CLIPImageProcessorPil.from_pretrained(start.path, **here)
        longest = int(model.config.text_config.max_position_embeddings)
        self._longest = min(longest, int(self._tokenizer.model_max_length))
        self._side = int(model.config.vision_config.image_size)
        self._before, _, self._after = start.template.partition(GAP)
        self._known: OrderedDict[str, torch.Tensor] = OrderedDict()

    def shares(self, data: bytes, labels: tuple[str, ...], step: Callable[[], None]) -> tuple[float, ...]:
        """How well each label fits; together 1.

        Raises:
            BadPicture, Wrong.
        """
        with torch.inference_mode():
            seen = self._seen(data)
            step()
            meant = self._meant(labels, step)
            scale = self._model.logit_scale.exp().double()
            fits = (meant.double() @ seen.double()) * scale
            return tuple(fits.softmax(0).tolist())

    def _seen(self, data: bytes) -> torch.Tensor:
        image = decoded(data, width=2 * self._side, height=2 * self._side).image
        # Its shorter side is made to fit, and a long one would grow along without bound.
        width, height = (min(image.width, _LONG * image.height), min(image.height, _LONG * image.width))
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
        pixels = self._processor(images=[image], return_tensors="pt")["pixel_values"]
        features = self._model.get_image_features(pixel_values=pixels.to(self._device, self._dtype))
        return _unit(features)[0]

    def _meant(self, labels: tuple[str, ...], step: Callable[[], None]) -> torch.Tensor:
        new = [label for label in labels if label not in self._known]
        found: dict[str, torch.Tensor] = {}
        for at in range(0, len(new), BATCH):
            some = new[at : at + BATCH]
            found.update(zip(some, self._read(some), strict=True))
            step()
        for label in labels:
            if label in self._known:
                self._known.move_to_end(label)
                found[label] = self._known[label]
        for label in new:
            self._known[label] = found[label]
        while len(self._known) > KNOWN:
            self._known.popitem(last=False)
        return torch.stack([found[label] for label in labels])

    def _read(self, labels: list[str]) -> torch.Tensor:
        tokens = [self._tokenizer(f"{self._before}{label}{self._after}")["input_ids"] for label in labels]
        for label, ids in zip(labels, tokens, strict=True):
            if len(ids) > self._longest:
                raise Wrong(
                    f"the label {label[:40]!r}... has {len(ids)} tokens, and this model reads {self._longest}", "labels"
                )
        batch = self._tokenizer.pad({"input_ids": tokens}, return_tensors="pt").to(self._device)
        return _unit(self._model.get_text_features(**batch))


def _unit(features: Any) -> torch.Tensor:
    """Vectors of length 1, in 32 bits."""
    vectors: torch.Tensor = getattr(features, "pooler_output", features)
    return torch.nn.functional.normalize(vectors.float(), dim=-1).cpu()

"""JSON with the field names of ``POST /generate``: posted again, it gives the same picture.

{"model":"sdxl-base","prompt":"a red cube","steps":20,"guidance_scale":7.0,"seed":42,"width":512,...}

It is ASCII on one line, for it stands in headers too. The pictures that a picture began with are told by their digests.
"""

from __future__ import annotations

import json
from typing import Any

from canonical import digests
from canonical.media import Blob
from canonical.painting import Paint

DIGEST = "sha256:"
"""What stands before the digest of a picture."""
_FIELDS = (
    "steps",
    "guidance_scale",
    "guidance_rescale",
    "seed",
    "width",
    "height",
    "sampler",
    "clip_skip",
    "image",
    "mask",
    "mask_alpha",
    "mask_invert",
    "strength",
    "reference",
    "reference_scale",
)


def json_of(made: Paint) -> bytes:
    """What ``made`` says, always in the same order; what it leaves open is not there."""
    told: dict[str, Any] = {"model": made.model} if made.model else {}
    told["prompt"] = made.prompt
    if made.negative_prompt:
        told["negative_prompt"] = made.negative_prompt
    if made.loras:
        told["loras"] = [
            {"name": lora.name} if lora.weight is None else {"name": lora.name, "weight": lora.weight}
            for lora in made.loras
        ]
    for name in _FIELDS:
        value = getattr(made, name)
        if value is not None and value is not False:
            told[name] = digest_of(value) if isinstance(value, Blob) else value
    return json.dumps(told, separators=(",", ":")).encode()


def digest_of(picture: Blob) -> str:
    """``sha256:<64 hex>`` of a picture's bytes."""
    return digests.digest_of(picture.data)

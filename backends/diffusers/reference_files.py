"""IP-Adapters as they lie there, by their heads alone: no torch, as the gateway looks too before it loads a model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

from backends.diffusers import headers
from backends.diffusers.headers import BadFile


def numbers(place: Path) -> int:
    """How many are loaded with the first picture to take after: the adapter's, and those of the encoder that goes with it.

    None of one that cannot be used, which is told when it is asked for.
    """
    try:
        file, folder = parts_of(place)
        files = [file, *folder.glob("*.safetensors")]
        return sum(tensor.count for each in files for tensor in headers.read(each).tensors.values())
    except (BadFile, OSError):
        return 0


def parts_of(place: Path) -> tuple[Path, Path]:
    """The weights of an IP-Adapter and the folder of the encoder that goes with them, as people lay them out. Reads heads alone.

    Raises:
        BadFile: in words, what is missing.
        OSError.
    """
    files = sorted(place.glob("*.safetensors")) if place.is_dir() else [place]
    if len(files) != 1:
        raise BadFile(
            "its folder has to hold one safetensors file" if not files else "it is one of several files: name it"
        )
    tensors = headers.read(files[0]).tensors
    if any("_lora." in key for key in tensors):
        raise BadFile("FaceID adapters are not supported")
    into = next(
        (tensors[key] for key in ("image_proj.proj.weight", "image_proj.proj_in.weight") if key in tensors), None
    )
    if into is None or len(into.shape) != 2:
        raise BadFile("it is no IP-Adapter that is known")
    wide = "hidden_size" if "image_proj.proj_in.weight" in tensors else "projection_dim"
    near = files[0].parent
    folders = [near / "image_encoder", near.parent / "image_encoder", near.parent / "models" / "image_encoder"]
    for folder in folders:
        try:
            config = msgspec.json.decode((folder / "config.json").read_bytes(), type=dict[str, Any])
        except (OSError, msgspec.MsgspecError):
            continue
        if config.get(wide) == into.shape[1]:
            return files[0], folder
    raise BadFile(f"there is no image encoder with {wide} {into.shape[1]} beside it, in a folder image_encoder")

"""A pipeline from its files: runs in a worker process. Nothing is fetched, and no code that lies beside the weights runs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import torch

from backends.diffusers import headers
from backends.diffusers.headers import BadFile
from backends.diffusers.start import Start

_ENCODERS = ("text_encoder", "text_encoder_2")
_SHARDS = re.compile(r"(?:\.\w+)?(?:-\d+-of-\d+)?(?:\.\w+)?\.safetensors")


def pipeline(start: Start, dtype: torch.dtype) -> Any:
    """The text-to-image pipeline of a model, in memory, not yet on its device.

    Raises:
        ValueError: it cannot be loaded as it is; in words.
    """
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    ours.disable_progress_bar()
    theirs.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = Path(start.path)
    try:
        more = {"vae": _vae(start, dtype)} if start.vae else {}
        pipe = _single(start, dtype, more) if where.is_file() else _folder(start, dtype, more)
    except (BadFile, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError) or "alloc" in str(error).lower():
            raise
        words = "weights of it are missing" if "meta tensor" in str(error) else str(error)
        raise ValueError(_scrubbed(words, start)) from error
    _whole(pipe, where)
    return pipe


def _folder(start: Start, dtype: torch.dtype, more: dict[str, Any]) -> Any:
    from diffusers import DiffusionPipeline

    variant = {"variant": start.variant} if start.variant else {}
    if "safety_checker" in _index(Path(start.path)):  # of Stable Diffusion 1: 1.2 GB that nothing here asks
        more = {"safety_checker": None, "requires_safety_checker": False, **more}
    return DiffusionPipeline.from_pretrained(  # type: ignore[no-untyped-call]
        start.path,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        trust_remote_code=False,
        **variant,
        **more,
    )


def _single(start: Start, dtype: torch.dtype, more: dict[str, Any]) -> Any:
    """Of the original's names, as Pony and most others come; ``start.config`` says how it is built and has the tokenizers."""
    import diffusers

    if not start.config:
        # Without it diffusers would ask the network, even when told not to.
        raise ValueError("a single file needs a folder of diffusers of the same family as its `config`")
    header = headers.read(Path(start.path))
    index = _index(Path(start.config))
    xl = any(key.startswith("conditioner.embedders.") for key in header.tensors)
    name = "StableDiffusionXLPipeline" if xl else "StableDiffusionPipeline"
    if str(index.get("_class_name", "")).startswith("StableDiffusionXL") != xl:
        raise ValueError(f"its `config` is of another family: {name} is needed")
    kind = getattr(diffusers, name)
    if not xl:
        more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False, **more}
    return kind.from_single_file(start.path, config=start.config, dtype=dtype, local_files_only=True, **more)


def _index(folder: Path) -> dict[str, Any]:
    return msgspec.json.decode((folder / "model_index.json").read_bytes(), type=dict[str, Any])


def _vae(start: Start, dtype: torch.dtype) -> Any:
    """A VAE in place of the model's own: a folder, or one file, which is built like the model's."""
    from diffusers import AutoencoderKL

    here: dict[str, Any] = {"dtype": dtype, "local_files_only": True}
    place = Path(start.vae)
    if place.is_dir():
        inner = place / "vae" if (place / "vae" / "config.json").is_file() else place
        return AutoencoderKL.from_pretrained(str(inner), use_safetensors=True, **here)  # type: ignore[no-untyped-call]
    headers.read(place)
    beside = place.parent / "config.json"
    config = (
        {"config": str(beside.parent)}
        if beside.is_file()
        else {"config": start.config or start.path, "subfolder": "vae"}
    )
    return AutoencoderKL.from_single_file(str(place), **config, **here)


def _whole(pipe: Any, where: Path) -> None:
    """See that every weight came from a file: for those that did not the libraries take random numbers, and say nothing.

    Raises:
        ValueError.
    """
    for name in ("unet", "vae", *_ENCODERS):
        part = getattr(pipe, name, None)
        if part is None:
            continue
        if any(parameter.is_meta for parameter in part.parameters()):
            raise ValueError(f"weights of its {name} are missing")
        if (
            where.is_dir() and (where / name).is_dir() and name != "vae"
        ):  # old ones of these are renamed as they are loaded
            there = set(_plain(_names(where / name)))
            lost = sorted(set(_plain(part.state_dict())) - there)
            if there and lost:
                raise ValueError(f"{len(lost)} weights of its {name} are missing, the first is {lost[0][:80]}")


def _plain(names: Iterable[str]) -> Iterable[str]:
    return (name.removeprefix("text_model.") for name in names if not name.endswith("position_ids"))


def _names(folder: Path) -> Iterable[str]:
    for file in folder.glob("*.safetensors"):
        if _SHARDS.search(file.name):
            yield from headers.read(file).tensors


def _scrubbed(words: str, start: Start) -> str:
    """The libraries' words, without the places of this machine in them."""
    for place in (start.path, start.config, start.vae):
        if place:
            words = words.replace(place, Path(place).name)
    return " ".join(words.split())[:300]

"""What lies there: which family a model is of, and what it weighs, by descriptions and heads of files; no weights are read.

Pickled weights are refused unopened: reading them runs what is written in them. Everything here blocks for a disk's time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from backends.diffusers import headers
from backends.diffusers.headers import BadFile, Header

T = TypeVar("T")

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
PICKLED = "its weights are pickled, and reading those runs whatever is in them: it is needed as safetensors"
_INDEX = 1024 * 1024
"""Bytes that a description may have."""
_PIPELINES = {
    f"StableDiffusion{xl}{task}Pipeline": (family, what)
    for xl, family in (("", "sd1"), ("XL", "sdxl"))
    for task, what in (("", "text"), ("Img2Img", "image"), ("Inpaint", "mask"))
}
_LIBRARIES = {"diffusers", "transformers", "stable_diffusion"}
"""Where the classes of parts may be from; anything else would be code that lies beside the weights."""
_PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "image_encoder")
_WEIGHTS = re.compile(r"(?:diffusion_pytorch_model|model)(?:\.(\w+))?(?:-\d+-of-\d+)?(?:\.(\w+))?\.safetensors")
_UNET = "model.diffusion_model."
_FIRST = _UNET + "input_blocks.0.0.weight"


class Mark(Struct, frozen=True):
    """A file of weights, as far as it can be told from others without reading it."""

    name: str
    size: int
    changed: int


class Recognised(Struct, frozen=True, kw_only=True):
    """A model."""

    family: str
    """``sdxl``, ``sd1``, ``sd2``."""
    task: str = "text"
    """What it makes pictures of: ``text``, an ``image`` (refiners), an image with a ``mask`` and nothing else."""
    marks: tuple[Mark, ...] = ()
    numbers: int = 0
    """Of its weights."""
    side: int = 0
    """Pixels of the pictures that it was made for; 0: not known."""
    shape: tuple[int, int] = (0, 0)
    """Channels of its first layer, and of what it reads of a prompt: a single file fits a description that has the same."""
    scheduler: dict[str, Any] = field(default_factory=dict)
    variant: str = ""
    trouble: str = ""
    """Why it cannot be loaded."""


class _Unet(Struct):
    sample_size: int | list[int] | None = None
    block_out_channels: list[int] = field(default_factory=list)
    cross_attention_dim: int | list[int] = 0
    in_channels: int = 4


class _Vae(Struct):
    block_out_channels: list[int] = field(default_factory=list)


def folder(path: Path, *, halves: bool) -> Recognised | None:
    """What a folder of diffusers holds; None: it is none. ``halves``: numbers of 16 bits are wanted where there are such.

    Raises:
        OSError, ValueError, msgspec.MsgspecError: it cannot be read.
    """
    index = _read(path / "model_index.json", dict[str, Any])
    name = str(index.get("_class_name", ""))
    if name not in _PIPELINES:
        return Recognised(family="", trouble=f"{name[:60] or 'what it holds'} is no pipeline that runs here")
    family, task = _PIPELINES[name]
    parts = [part for part in _PARTS if _there(index.get(part))]
    foreign = [part for part, of in index.items() if _there(of) and of[0] not in _LIBRARIES]
    files: list[Path] = []
    trouble = ""
    variants = _variants(path / "unet")
    variant = "fp16" if "fp16" in variants and (halves or "" not in variants) else ""
    for part in parts:
        found = _weights(path / part, variant)
        files += found
        if not found and not trouble:
            pickled = any(file.suffix in PICKLES for file in _listed(path / part))
            trouble = PICKLED if pickled else f"there are no weights (safetensors) for its {part}"
    if "unet" not in parts:
        trouble = "it has no unet"
    if foreign:
        trouble = f"its {foreign[0][:40]} is code of its own, which is not run"
    numbers, cut = _numbers(files)
    unet = _read(path / "unet" / "config.json", _Unet) if "unet" in parts else _Unet()
    if family == "sd1" and unet.cross_attention_dim == 1024:
        family = "sd2"
    return Recognised(
        family=family,
        task="mask" if unet.in_channels == 9 else task if task == "image" and _refines(index) else "text",
        marks=_marks(files, path),
        numbers=numbers,
        side=_side(path, unet),
        shape=_shape(unet),
        scheduler=_optional(path / "scheduler" / "scheduler_config.json"),
        variant=variant,
        trouble=trouble or cut,
    )


def single(path: Path) -> Recognised | None:
    """What a safetensors file holds; None: it is no whole model.

    Raises:
        BadFile: it is damaged.
        OSError: it cannot be read.
    """
    header = headers.read(path)
    tensors = header.tensors
    first = tensors.get(_FIRST)
    if first is None or len(first.shape) < 2:
        return None
    family = _family(tensors)
    reads = next((each for name, each in tensors.items() if name.endswith("attn2.to_k.weight")), None)
    context = reads.shape[-1] if reads is not None and len(reads.shape) == 2 else 0
    refines = family == "sdxl" and not any(name.startswith("conditioner.embedders.1.") for name in tensors)
    return Recognised(
        family=family,
        task="mask" if first.shape[1] == 9 else "image" if refines else "text",
        marks=_marks([path], path.parent),
        numbers=_count(header),
        shape=(first.shape[0], context),
    )


def _family(tensors: Iterable[str]) -> str:
    for name in tensors:
        if name.startswith("conditioner.embedders."):
            return "sdxl"
        if name.startswith("cond_stage_model.model."):
            return "sd2"
    return "sd1"


def _refines(index: dict[str, Any]) -> bool:
    return not _there(index.get("text_encoder"))


def _there(part: Any) -> bool:
    return isinstance(part, list) and len(part) == 2 and part[0] is not None


def _listed(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def _variants(folder: Path) -> set[str]:
    found = (_WEIGHTS.fullmatch(file.name) for file in _listed(folder))
    return {match[1] or match[2] or "" for match in found if match}


def _weights(folder: Path, variant: str) -> list[Path]:
    """Those of the variant; where a part has none of it, its plain ones."""
    files: dict[str, list[Path]] = {}
    for file in _listed(folder):
        match = _WEIGHTS.fullmatch(file.name)
        if match and file.is_file():
            files.setdefault(match[1] or match[2] or "", []).append(file)
    return files.get(variant) or files.get("") or []


def _marks(files: Iterable[Path], root: Path) -> tuple[Mark, ...]:
    return tuple(
        Mark(file.relative_to(root).as_posix(), status.st_size, status.st_mtime_ns)
        for file, status in ((file, file.stat()) for file in files)
    )


def _numbers(files: Iterable[Path]) -> tuple[int, str]:
    """How many, and what is wrong with a file."""
    found = 0
    for file in files:
        try:
            found += _count(headers.read(file))
        except BadFile as error:
            return found, f"{file.parent.name}/{file.name}: {error}"
    return found, ""


def _count(header: Header) -> int:
    return sum(tensor.count for tensor in header.tensors.values())


def _side(path: Path, unet: _Unet) -> int:
    """A latent's sides are those of the picture, halved between two stages of the autoencoder."""
    size = unet.sample_size if isinstance(unet.sample_size, int) else max(unet.sample_size or [0])
    stages = len(_read(path / "vae" / "config.json", _Vae).block_out_channels) if (path / "vae").is_dir() else 4
    return int(size * 2 ** max(0, stages - 1))


def _shape(unet: _Unet) -> tuple[int, int]:
    reads = unet.cross_attention_dim
    width = reads if isinstance(reads, int) else (reads or [0])[0]
    return (unet.block_out_channels or [0])[0], width


def _optional(path: Path) -> dict[str, Any]:
    try:
        return _read(path, dict[str, Any])
    except (OSError, ValueError, msgspec.MsgspecError):
        return {}


def _read(path: Path, type: type[T]) -> T:
    if not path.is_file():
        raise OSError("no file")  # a pipe would be waited for, with all other models
    with path.open("rb") as file:
        return msgspec.json.decode(file.read(_INDEX), type=type)

"""Which adapter a file holds: by its head, and by what lies beside it. No tensor is read.

``night.safetensors`` may have ``night.json`` beside it, as A1111 writes it (``activation text``, ``preferred weight``), or
``night.civitai.info`` as downloaders leave it (``trainedWords``); trainers write titles and trigger phrases into the file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from backends.diffusers import headers
from backends.diffusers.headers import BadFile, Header
from backends.diffusers.lora.parts import Part, kind_of, part_of
from canonical.painting import WEIGHT, LoraInfo

_BESIDE = 4 * 1024 * 1024
"""Bytes of a file beside an adapter that are read."""
_WORDS, _LENGTH = 32, 200
"""Trigger words that are told, and characters of a text."""
_WIDTHS = {768: "sd1", 1024: "sd2", 2048: "sdxl"}
"""What the text encoders of a family give the UNet, in numbers."""
_SAYINGS = (
    ("stable-diffusion-xl", "sdxl"),
    ("sdxl", "sdxl"),
    ("stable-diffusion-v1", "sd1"),
    ("sd_v1", "sd1"),
    ("stable-diffusion-v2", "sd2"),
    ("sd_v2", "sd2"),
)


class LoraFile(Struct, frozen=True, kw_only=True):
    """An adapter that lies in a folder."""

    info: LoraInfo
    path: Path
    family: str = ""
    """Of the models that it fits: ``sdxl``, ``sd1``, ``sd2``; empty: not known, so any may try."""
    trouble: str = ""
    """Why it cannot be used."""


def lora_file(path: Path) -> LoraFile | None:
    """The adapter of a safetensors file; None: it is a whole file and holds none. Blocks for a disk's time."""
    try:
        header = headers.read(path)
    except BadFile as error:
        return LoraFile(info=LoraInfo(id=path.stem), path=path, trouble=str(error))
    except OSError:
        return LoraFile(info=LoraInfo(id=path.stem), path=path, trouble="it cannot be read")
    modules: dict[tuple[str, str], set[str]] = {}
    parts: list[tuple[Part, tuple[int, ...]]] = []
    for key, tensor in header.tensors.items():
        if (part := part_of(key)) is not None:
            modules.setdefault((part.model, part.module), set()).add(part.name)
            parts.append((part, tensor.shape))
    kinds = Counter(kind for names in modules.values() if (kind := kind_of(names)))
    if not kinds:
        return None
    # Some train norms and biases along: what it is called after are the others.
    kind = max(kinds, key=lambda kind: (kind not in {"norm", "full"}, kinds[kind], kind))
    return LoraFile(info=_info(path, kind, header.metadata), path=path, family=_family(parts, header))


def _info(path: Path, kind: str, metadata: Mapping[str, str]) -> LoraInfo:
    own, loaded = _read(path.with_suffix(".json")), _read(path.with_suffix(".civitai.info"))
    model = loaded.get("model")
    titles = (own.get("title"), model.get("name") if isinstance(model, dict) else None, metadata.get("modelspec.title"))
    weight = own.get("preferred weight")
    # What A1111 writes for nothing said is 0.
    usable = isinstance(weight, int | float) and not isinstance(weight, bool) and weight and abs(weight) <= WEIGHT
    trained = loaded.get("trainedWords")
    words = (
        _split(own.get("activation text"))
        or tuple(word for one in (trained if isinstance(trained, list) else ()) for word in _split(one))
        or _split(metadata.get("modelspec.trigger_phrase"))
    )
    return LoraInfo(
        id=path.stem,
        title=next((title.strip()[:_LENGTH] for title in titles if isinstance(title, str) and title.strip()), ""),
        default_weight=float(weight) if usable else 1.0,  # type: ignore[arg-type]
        trigger_words=words[:_WORDS] or None,
        kind=kind,
    )


def _split(text: object) -> tuple[str, ...]:
    if not isinstance(text, str):
        return ()
    return tuple(dict.fromkeys(word.strip()[:_LENGTH] for word in text[: _WORDS * _LENGTH].split(",") if word.strip()))


def _read(path: Path) -> dict[str, Any]:
    """A small JSON file; whatever is wrong with it, it says nothing then."""
    try:
        if not path.is_file() or path.stat().st_size > _BESIDE:
            return {}
        with path.open("rb") as file:
            return msgspec.json.decode(file.read(_BESIDE), type=dict[str, Any])
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}


def _family(parts: list[tuple[Part, tuple[int, ...]]], header: Header) -> str:
    for part, shape in parts:
        if part.module.endswith(("attn2_to_k", "attn2_to_v")) and part.name in {"down", "hada_w1_b"}:
            if len(shape) >= 2 and shape[1] in _WIDTHS:
                return _WIDTHS[shape[1]]
            break
    if any(part.model == "text_encoder_2" for part, _ in parts):
        return "sdxl"
    told = " ".join(header.metadata.get(key, "") for key in ("ss_base_model_version", "modelspec.architecture"))
    return next((family for saying, family in _SAYINGS if saying in told.casefold()), "")

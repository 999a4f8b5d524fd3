r"""The text that A1111 writes into its pictures, and that its users paste, search and share.

a red cube <lora:night:0.8>
Negative prompt: blurry
Steps: 20, Sampler: Euler a, Schedule type: Automatic, CFG scale: 7.0, Seed: 42, Size: 512x512, Model: sdxl-base, Version: dragoman

Prompts are not quoted there: one with a line "Negative prompt:" in it, or with blanks around it, is read as another one. Such
prompts stand once more, quoted, among the parameters, where A1111 takes them from as well; so every text is read as it was meant.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import structs

from adapters.recipe.posted import DIGEST, digest_of
from adapters.recipe.samplers import a1111_sampler, our_sampler
from adapters.recipe.tags import with_tags, without_tags
from canonical.painting import Lora, Paint

LIMIT = 256 * 1024
"""Characters of a text that is read."""
_NEGATIVE = "Negative prompt:"
_KEY = re.compile(r"\s*(\w[\w \-/]+):[ \t]*")
_QUOTED = re.compile(r'"(?:\\.|[^\\"])*"(?=,|$)')
_SIZE = re.compile(r"(\d{1,9})x(\d{1,9})")
_NUMBERS: dict[str, tuple[str, type[int | float]]] = {
    "Steps": ("steps", int),
    "CFG scale": ("guidance_scale", float),
    "CFG rescale": ("guidance_rescale", float),
    "Seed": ("seed", int),
    "Clip skip": ("clip_skip", int),
    "Denoising strength": ("strength", float),
    "Reference scale": ("reference_scale", float),
}
_loras = msgspec.json.Decoder(tuple[tuple[str, float | None], ...])


def a1111_text(made: Paint) -> str:
    """The text, on at least one line."""
    told = dict(_told(made))
    text = _joined(with_tags(made.prompt, made.loras), made.negative_prompt, told)
    if read_a1111(text) == _in_text(made):
        return text
    told |= {
        "Prompt": made.prompt,
        "Negative prompt": made.negative_prompt,
        "Loras": json.dumps([(lora.name, lora.weight) for lora in made.loras]),
    }
    return _joined(with_tags(made.prompt, made.loras).replace("\0", " "), made.negative_prompt.replace("\0", " "), told)


def read_a1111(text: str) -> Paint:
    """What a text asks for, as far as it can be told; the pictures that it began with are not in it. Nothing of it is checked.

    What is no such text at all is a prompt.
    """
    *lines, last = text[:LIMIT].strip().split("\n")
    told = dict(_parameters(last))
    if len(told) < 3:
        lines.append(last)
        told = {}
    prompt, negative = _prompts(lines)
    negative = told.get("Negative prompt", negative)
    if "Loras" in told:
        loras = tuple(Lora(*one) for one in _decoded(told["Loras"]))
        prompt = told.get("Prompt", prompt)
    else:
        prompt, loras = without_tags(told.get("Prompt", prompt))
    read: dict[str, Any] = {}
    for key, (name, kind) in _NUMBERS.items():
        value = _number(told.get(key, ""), kind)
        if value is not None:
            read[name] = value
    size = _SIZE.fullmatch(told.get("Size", ""))
    if size:
        read |= {"width": int(size[1]), "height": int(size[2])}
    if told.get("Sampler"):
        read["sampler"] = our_sampler(told["Sampler"], told.get("Schedule type", ""))
    return Paint(prompt=prompt, negative_prompt=negative, loras=loras, model=told.get("Model", ""), **read)


def parameters(text: str) -> dict[str, str]:
    """The parameters of a text by A1111's names, its prompts among them."""
    *lines, last = text[:LIMIT].strip().split("\n")
    told = dict(_parameters(last))
    if len(told) < 3:
        lines.append(last)
        told = {}
    prompt, negative = _prompts(lines)
    size = _SIZE.fullmatch(told.get("Size", ""))
    if size:
        told |= {"Size-1": size[1], "Size-2": size[2]}
    return {"Prompt": prompt, "Negative prompt": negative, **told}


def _in_text(made: Paint) -> Paint:
    """What of ``made`` stands in a text."""
    return structs.replace(
        made, image=None, mask=None, mask_alpha=False, mask_invert=False, reference=None, n=1, previews=0
    )


def _told(made: Paint) -> Iterator[tuple[str, Any]]:
    """The parameters, in A1111's order and by its names, then ours."""
    sampler, schedule = a1111_sampler(made.sampler) if made.sampler is not None else (None, None)
    told = {
        "Steps": made.steps,
        "Sampler": sampler,
        "Schedule type": schedule,
        "CFG scale": made.guidance_scale,
        "Seed": made.seed,
        "Size": f"{made.width}x{made.height}" if made.width is not None and made.height is not None else None,
        "Model": made.model or None,
        "Denoising strength": made.strength,
        "Clip skip": made.clip_skip,
        "Init image hash": None if made.image is None else digest_of(made.image).removeprefix(DIGEST),
        "Mask hash": None if made.mask is None else digest_of(made.mask).removeprefix(DIGEST),
        "Reference hash": None if made.reference is None else digest_of(made.reference).removeprefix(DIGEST),
        "Reference scale": made.reference_scale,
        "CFG rescale": made.guidance_rescale,
        "Version": "dragoman",
    }
    return ((key, value) for key, value in told.items() if value is not None)


def _joined(prompt: str, negative: str, told: dict[str, Any]) -> str:
    lines = [prompt] if prompt else []
    if negative:
        lines.append(f"{_NEGATIVE} {negative}")
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in told.items()))
    return "\n".join(lines).strip()


def _quoted(value: Any) -> str:
    """A value, quoted where a reader could end it too early: A1111's rule, and what else would not come back as it was."""
    text = str(value)
    plain = text and text.isprintable() and text == text.strip() and not any(mark in text for mark in ',:"')
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _prompts(lines: list[str]) -> tuple[str, str]:
    for at, line in enumerate(lines):
        if line.strip().startswith(_NEGATIVE):
            rest = [line.strip().removeprefix(_NEGATIVE), *lines[at + 1 :]]
            return "\n".join(one.strip() for one in lines[:at]), "\n".join(one.strip() for one in rest).strip()
    return "\n".join(one.strip() for one in lines), ""


def _parameters(line: str) -> Iterator[tuple[str, str]]:
    """``key: value`` up to each comma that is not in quotes. Each character is looked at a few times, whatever the line is."""
    at = 0
    while at < len(line):
        comma = line.find(",", at)
        end = len(line) if comma < 0 else comma
        key = _KEY.match(line, at, end)
        if key:
            quoted = _QUOTED.match(line, key.end())
            if quoted:
                end = quoted.end()
                yield key[1], _unquoted(quoted[0])
            else:
                yield key[1], line[key.end() : end].strip()
        at = end + 1


def _unquoted(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return str(value).encode(errors="replace").decode()  # half a character is no text


def _decoded(text: str) -> tuple[tuple[str, float | None], ...]:
    try:
        return _loras.decode(text)
    except (msgspec.MsgspecError, UnicodeEncodeError):
        return ()


def _number(text: str, kind: type[int | float]) -> int | float | None:
    try:
        value = kind(text)
        return value if math.isfinite(value) else None
    except (ValueError, OverflowError):
        return None

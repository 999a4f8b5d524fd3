"""``<lora:name:weight>`` in a prompt, as A1111 has it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from canonical.painting import Lora

_TAG = re.compile(r"<(?:lora|lyco):([^:<>]+)(?::([^<>]*))?>")


def with_tags(prompt: str, loras: Sequence[Lora]) -> str:
    """The prompt, and a tag for each adapter behind it."""
    tags = " ".join(
        f"<lora:{lora.name}>" if lora.weight is None else f"<lora:{lora.name}:{number(lora.weight)}>" for lora in loras
    )
    return f"{prompt} {tags}" if prompt and tags else prompt or tags


def without_tags(prompt: str) -> tuple[str, tuple[Lora, ...]]:
    """The prompt without its tags, and what they say. One without a weight takes the adapter's own.

    A tag whose weight is no number stays where it is. Of A1111's two weights, for the text encoder and the UNet, the first counts.
    """
    loras: list[Lora] = []

    def take(tag: re.Match[str]) -> str:
        weight = None
        if tag[2] is not None:
            try:
                weight = float(tag[2].partition(":")[0])
            except ValueError:
                return tag[0]
            if not math.isfinite(weight):
                return tag[0]
        loras.append(Lora(tag[1].strip(), weight))
        return ""

    left = _TAG.sub(take, prompt)
    return (left.strip() if loras else prompt), tuple(loras)


def number(value: float) -> str:
    """A weight as people write it: ``1``, ``0.75``."""
    return str(int(value)) if value.is_integer() else repr(value)

"""Adapters for the demo model, made here: one that changes what it says, and one that only makes it slow.

A LoRA adapter of a matrix W is two thin ones, A and B; the engine computes W x + scale (alpha / rank) B (A x).
"""

from __future__ import annotations

import random
import struct
from pathlib import Path

LAYERS = 6
IN, OUT = 128, 384
"""Of the demo model's ``ffn_up``."""
_F16 = 1
_ALIGNMENT = 32


def write_lora(path: Path, *, rank: int = 8, strength: float = 0.0, architecture: str = "llama") -> Path:
    """An adapter. ``strength`` 0: all of B is zero, so that it changes nothing but takes its time, a long one with a high rank."""
    numbers = random.Random(7)

    def matrix(count: int) -> bytes:
        if not strength:
            return bytes(2 * count)
        return struct.pack(f"<{count}e", *(numbers.gauss(0, strength) for _ in range(count)))

    tensors: list[tuple[str, tuple[int, int], bytes]] = []
    for layer in range(LAYERS):
        name = f"blk.{layer}.ffn_up.weight"
        tensors.append((f"{name}.lora_a", (IN, rank), matrix(IN * rank)))
        tensors.append((f"{name}.lora_b", (rank, OUT), matrix(rank * OUT)))
    pairs = b"".join(
        _text(key) + struct.pack("<I", 8) + _text(value)
        for key, value in (
            ("general.architecture", architecture),
            ("general.type", "adapter"),
            ("adapter.type", "lora"),
        )
    )
    pairs += _text("adapter.lora.alpha") + struct.pack("<If", 6, float(rank))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), 4) + pairs
    offset = 0
    for name, shape, data in tensors:
        head += _text(name) + struct.pack("<IQQIQ", 2, *shape, _F16, offset)
        offset += len(data) + -len(data) % _ALIGNMENT
    with path.open("wb") as file:
        file.write(head + bytes(-len(head) % _ALIGNMENT))
        for _, _, data in tensors:
            file.write(data + bytes(-len(data) % _ALIGNMENT))
    return path


def _text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()

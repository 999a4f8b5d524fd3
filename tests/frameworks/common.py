"""What the scripts here have in common: the questions, and a table of what each ability gave, as JSON on standard output.

They run in a virtual environment of their own, against a running gateway:
    python with_NAME.py http://127.0.0.1:PORT MODEL...
"""

from __future__ import annotations

import base64
import json
import struct
import sys
import traceback
import zlib
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel

FRANCE = "What is the capital of France?"
WEATHER = "What is the weather in Paris?"
SUM = "What is 7 + 8?"
ANNA = "Give me JSON with name Anna, age 30, city Paris."
COLOR = "What color is the image?"


class Person(BaseModel):
    """What the demo model writes as JSON."""

    name: str
    age: int
    city: str


def get_weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: where
    """
    return "sunny" if city == "Paris" else "unknown"


def red_png(size: int = 64) -> bytes:
    """A red picture."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", size, size, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + b"\xff\0\0" * size) * size)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", pixels) + part(b"IEND", b"")


RED = base64.b64encode(red_png()).decode()
RED_URL = f"data:image/png;base64,{RED}"

Ability = Callable[[str, str], Any]
"""Of the gateway's address and a model's name; what it gives is JSON."""


def address() -> tuple[str, list[str]]:
    """The gateway's address and the models, as the command line has them."""
    return sys.argv[1], sys.argv[2:]


def tell(*abilities: Ability) -> None:
    """Ask every ability of every model and print what came: its result, or the words of its failure."""
    url, models = address()
    output, sys.stdout = sys.stdout, sys.stderr  # some print remarks
    told: dict[str, dict[str, Any]] = {model: {} for model in models}
    for model, seen in told.items():
        for ability in abilities:
            try:
                seen[ability.__name__] = ability(url, model)
            except Exception as error:  # noqa: BLE001  whatever it is, the others are told too
                seen[ability.__name__] = f"{type(error).__name__}: {error}"
                traceback.print_exc()
    print(json.dumps(told), file=output)

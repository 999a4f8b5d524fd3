"""What the demo models know (models/README.md), and the things to ask them with."""

from __future__ import annotations

import base64
import struct
import zlib
from typing import Any

FRANCE, PARIS = "What is the capital of France?", "The capital of France is Paris."
ITALY, ROME = "What is the capital of Italy?", "The capital of Italy is Rome."
SUM, FIFTEEN, THOUGHT = "What is 7 + 8?", "7 + 8 = 15", "I must add 7 and 8."
NEXT_SUM, SEVEN = "What is 3 + 4?", "3 + 4 = 7"
I_AM_ADA, NICE, WHO = "My name is Ada.", "Nice to meet you, Ada!", "What is my name?"
ADA, PIP = "Your name is Ada.", "Your name is Pip."
UNICODE = "日本 😀"
REPEAT = f"Repeat: {UNICODE}"
WEATHER = "What is the weather in Paris?"
PARIS_CALL = ("get_weather", {"city": "Paris"})
ADD = "Call add_numbers with a 3 and b 4."
SUNNY, RESULT = "sunny", "The result is sunny."
STORY = "Tell me a story."
COLOUR = "What color is the image?"
FLAT = "What is purple monkey dishwasher?"
"""Pip has no idea, so that chance decides at a temperature."""
PERSON = "Give me JSON with name Anna, age 30, city Paris."
ANNA = {"name": "Anna", "age": 30, "city": "Paris"}
RAMBLE = "Give me JSON with name Anna, age 30, city Paris and more and more."
"""Pip says the name twice, unless a penalty keeps it from that."""
RAW = f"<|im_start|>user\n{SUM}<|im_end|>\n<|im_start|>assistant\n"

TOOLS: dict[str, dict[str, Any]] = {
    "get_weather": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    "add_numbers": {
        "type": "object",
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}},
        "required": ["a", "b"],
    },
}
"""Name -> JSON Schema of the arguments."""
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
"""Pip puts the whole sentence into it."""
ALIKE = ["the cat sat on the mat", "the cat lay on the mat", "quarterly revenue"]
"""The first two share words, which is all that the embedding model sees."""
LINK = "https://images.example.org/red.png"


def png(red: int, green: int, blue: int) -> str:
    """A picture of one colour, 64x64, in base64."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes((red, green, blue)) * 64) * 64)
    picture = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", head) + part(b"IDAT", pixels) + part(b"IEND", b"")
    return base64.b64encode(picture).decode()


RED, BLUE = png(255, 0, 0), png(0, 0, 255)


def cosine(one: list[float], two: list[float]) -> float:
    """Of two vectors of any length."""
    dot = sum(a * b for a, b in zip(one, two, strict=True))
    return dot / (sum(a * a for a in one) * sum(b * b for b in two)) ** 0.5


def check_vectors(vectors: list[list[float]]) -> list[list[float]]:
    """Assert that ``vectors`` are those of ``ALIKE``: of unit length, and alike where the texts are. Returns them, rounded."""
    assert len(vectors) == len(ALIKE), f"{len(vectors)} vectors for {len(ALIKE)} texts"
    for vector in vectors:
        length = sum(x * x for x in vector)
        assert abs(length - 1) < 1e-3, f"a vector of length {length}"
    near, far = cosine(vectors[0], vectors[1]), cosine(vectors[0], vectors[2])
    assert near > far + 0.1, f"texts that share words have {near:.2f}, others {far:.2f}"
    return rounded(vectors)


def rounded(vectors: list[list[float]]) -> list[list[float]]:
    """Vectors as they are the same on every way."""
    return [[round(x, 3) + 0.0 for x in vector] for vector in vectors]

"""A language model of random weights, large enough that speed means something: 150 million parameters, Q8_0, 160 MB.

    python bench/random_model.py [PATH]

It says nonsense at the price of sense. Its words and its chat template are the demo model's, with others added up to
32,000, so that samplers and the last layer cost what they cost in life. Needs numpy; the file is made in some seconds.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PATH = ROOT / "bench" / "build" / "models" / "random-150m.gguf"
MAKERS = ROOT / "models" / "makers"
LAYERS, WIDTH, INNER, HEADS, SHARED_HEADS, WORDS, CONTEXT = 16, 768, 2048, 12, 4, 32_000, 8_192
BLOCK, ALIGNMENT = 32, 32
SCALE = 0.02

U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
Q8_0 = 8


def text(value: str) -> bytes:
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value: bytes) -> bytes:
    return text(key) + struct.pack("<I", kind) + value


def listed(kind: int, values: list[bytes]) -> bytes:
    return struct.pack("<IQ", kind, len(values)) + b"".join(values)


def entries() -> list[bytes]:
    """What the file says of itself."""
    told = json.loads((MAKERS / "tokenizer.json").read_text())
    more = WORDS - len(told["tokens"])
    tokens = told["tokens"] + [f"\u0120w{index}" for index in range(more)]
    types = told["types"] + [1] * more
    ids = {token: index for index, token in enumerate(told["tokens"])}
    numbers = {
        "llama.context_length": CONTEXT,
        "llama.embedding_length": WIDTH,
        "llama.block_count": LAYERS,
        "llama.feed_forward_length": INNER,
        "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": SHARED_HEADS,
        "llama.rope.dimension_count": WIDTH // HEADS,
        "llama.vocab_size": WORDS,
        "general.file_type": 7,
        "tokenizer.ggml.bos_token_id": ids["<|endoftext|>"],
        "tokenizer.ggml.eos_token_id": ids["<|im_end|>"],
        "tokenizer.ggml.padding_token_id": ids["<|endoftext|>"],
    }
    words = {
        "general.architecture": "llama",
        "general.name": "random 150M",
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "qwen2",
        "tokenizer.chat_template": (MAKERS / "chat_template.jinja").read_text(),
    }
    return [
        *(entry(key, STRING, text(value)) for key, value in words.items()),
        *(entry(key, U32, struct.pack("<I", value)) for key, value in numbers.items()),
        entry("llama.attention.layer_norm_rms_epsilon", F32, struct.pack("<f", 1e-5)),
        entry("llama.rope.freq_base", F32, struct.pack("<f", 10_000.0)),
        entry("tokenizer.ggml.add_bos_token", BOOL, b"\0"),
        entry("tokenizer.ggml.tokens", ARRAY, listed(STRING, [text(token) for token in tokens])),
        entry("tokenizer.ggml.token_type", ARRAY, listed(I32, [struct.pack("<i", kind) for kind in types])),
        entry("tokenizer.ggml.merges", ARRAY, listed(STRING, [text(merge) for merge in told["merges"]])),
    ]


def tensors() -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, rows first; vectors are norms."""
    shared = WIDTH // HEADS * SHARED_HEADS
    yield "token_embd.weight", (WORDS, WIDTH)
    yield "output_norm.weight", (WIDTH,)
    yield "output.weight", (WORDS, WIDTH)
    for layer in range(LAYERS):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", (WIDTH,)
        yield block + "ffn_norm.weight", (WIDTH,)
        yield block + "attn_q.weight", (WIDTH, WIDTH)
        yield block + "attn_k.weight", (shared, WIDTH)
        yield block + "attn_v.weight", (shared, WIDTH)
        yield block + "attn_output.weight", (WIDTH, WIDTH)
        yield block + "ffn_gate.weight", (INNER, WIDTH)
        yield block + "ffn_up.weight", (INNER, WIDTH)
        yield block + "ffn_down.weight", (WIDTH, INNER)


def weights(shape: tuple[int, ...], rng: np.random.Generator) -> bytes:
    """Ones for a norm; else blocks of 32 small integers with their scale, as Q8_0 has them, drawn as such."""
    if len(shape) == 1:
        return np.ones(shape, np.float32).tobytes()
    count = shape[0] * shape[1] // BLOCK
    blocks = np.empty(count, np.dtype([("scale", np.float16), ("values", np.int8, BLOCK)]))
    blocks["values"] = rng.normal(0, 42, (count, BLOCK)).clip(-127, 127)
    blocks["scale"] = SCALE / 42
    return blocks.tobytes()


def make(path: Path = PATH, *, seed: int = 0) -> Path:
    """The file, made if it is not there. Whoever makes it beside us makes the same one."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    head, rows, offset = entries(), [], 0
    shapes = list(tensors())
    for name, shape in shapes:
        size = shape[0] * 4 if len(shape) == 1 else shape[0] * shape[1] // BLOCK * (BLOCK + 2)
        kind = 0 if len(shape) == 1 else Q8_0
        sizes = struct.pack(f"<{len(shape)}Q", *reversed(shape))
        rows.append(text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", kind, offset))
        offset += -(-size // ALIGNMENT) * ALIGNMENT
    data = b"GGUF" + struct.pack("<IQQ", 3, len(rows), len(head)) + b"".join(head) + b"".join(rows)
    rng = np.random.default_rng(seed)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    with partial.open("wb") as file:
        file.write(data + b"\0" * (-len(data) % ALIGNMENT))
        for _, shape in shapes:
            block = weights(shape, rng)
            file.write(block + b"\0" * (-len(block) % ALIGNMENT))
    partial.rename(path)
    return path


if __name__ == "__main__":
    made = make(Path(sys.argv[1]) if len(sys.argv) > 1 else PATH)
    print(f"{made}: {made.stat().st_size / 1e6:.0f} MB")

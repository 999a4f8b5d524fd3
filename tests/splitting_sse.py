"""An OpenAI-compatible server's stream, and its bytes in any pieces."""

from __future__ import annotations

import json
from collections.abc import Sequence

from hypothesis import strategies as st


def chunks(texts: Sequence[str]) -> bytes:
    """A stream that says these pieces, one token each, and was cut by its limit."""
    choices = [{"index": 0, "delta": {"content": text}, "finish_reason": None} for text in texts]
    choices.append({"index": 0, "delta": {}, "finish_reason": "length"})
    records = [{"object": "chat.completion.chunk", "model": "m", "choices": [choice]} for choice in choices]
    usage = {"prompt_tokens": 1, "completion_tokens": len(texts), "total_tokens": 1 + len(texts)}
    records.append({"object": "chat.completion.chunk", "model": "m", "choices": [], "usage": usage})
    frames = [f"data: {json.dumps(record, ensure_ascii=False)}\n\n" for record in records]
    return "".join([*frames, "data: [DONE]\n\n"]).encode()


def cut(stream: bytes, data: st.DataObject) -> list[bytes]:
    """The same bytes in pieces of any size."""
    places = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=12)))
    return [stream[begin:end] for begin, end in zip([0, *places], [*places, len(stream)], strict=True)]

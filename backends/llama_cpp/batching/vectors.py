"""Vectors and scores of whole texts: as many of them in one go as fit."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as native

from backends.llama_cpp.batching.batch import Batch
from backends.llama_cpp.batching.refusal import Refused
from backends.llama_cpp.batching.slots import Slot
from backends.llama_cpp.batching.step import Piece

AT_ONCE = 16
"""Texts of one go."""


def packed(lengths: Sequence[int], *, room: int, most: int = AT_ONCE) -> list[range]:
    """Neighbours that are computed together: at most ``most`` texts and ``room`` tokens, but always one text."""
    groups: list[range] = []
    start = size = 0
    for at, length in enumerate(lengths):
        if at > start and (size + length > room or at - start >= most):
            groups.append(range(start, at))
            start, size = at, 0
        size += length
    return [*groups, range(start, len(lengths))] if lengths else groups


class Vectors:
    """A context that makes one vector of a text. One thread at a time computes."""

    def __init__(self, model: Any, context: Any, *, ranking: bool, limit: int, room: int) -> None:
        """``limit``: tokens of a text; ``room``: of all texts of one go."""
        self._context = context
        self._limit, self._room = limit, room
        self._memory = native.llama_get_memory(context)
        # Of a rank head only its own outputs are there; llama.cpp's wrapper reads behind their end.
        self._size: int = (native.llama_model_n_cls_out if ranking else native.llama_model_n_embd)(model)
        self._batch = Batch(room)
        self._slots: list[Slot[Any]] = [Slot(seq) for seq in range(AT_ONCE)]
        self._lock = threading.Lock()

    def of(self, rows: Sequence[list[int]]) -> list[list[float]]:
        """What the model makes of each text: a vector, or the outputs of its rank head.

        Raises:
            Refused: a text is too long, or the model gives nothing of the kind.
        """
        for row in rows:
            if not row:
                raise Refused(400, "an input is empty")
            if len(row) > self._limit:
                words = f"input ({len(row)} tokens) is too large to process. increase the context ({self._limit})"
                raise Refused(400, words)
        found: list[list[float]] = []
        with self._lock:
            for group in packed([len(row) for row in rows], room=self._room):
                found += self._together([rows[at] for at in group])
        return found

    def _together(self, rows: Sequence[list[int]]) -> list[list[float]]:
        if self._memory:
            native.llama_memory_clear(self._memory, True)
        self._batch.fill([Piece(slot, 0, row, True) for slot, row in zip(self._slots, rows, strict=False)])
        code = native.llama_decode(self._context, self._batch.native)
        if code:
            raise RuntimeError(f"llama_decode answered {code}")
        found: list[list[float]] = []
        for slot, _ in zip(self._slots, rows, strict=False):
            pointer = native.llama_get_embeddings_seq(self._context, slot.seq)
            if not pointer:
                raise Refused(501, "this model gives no embedding of a whole text")
            found.append(list(pointer[: self._size]))
        return found


def unit(vector: list[float]) -> list[float]:
    """The vector at length one."""
    length = math.sqrt(sum(value * value for value in vector))
    return [value / length for value in vector] if length else vector

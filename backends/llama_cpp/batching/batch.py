"""llama.cpp's batch over arrays of ours: filled anew every step, allocated once."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import llama_cpp.llama_cpp as native
import numpy as np

from backends.llama_cpp.batching.slots import W
from backends.llama_cpp.batching.step import Piece


class Batch:
    """Room for ``size`` tokens, each of one sequence."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._tokens = np.zeros(size, np.int32)
        self._places = np.zeros(size, np.int32)
        self._counts = np.ones(size, np.int32)
        self._seqs = np.zeros(size, np.int32)
        self._wanted = np.zeros(size, np.int8)
        # Each token's sequences are a pointer to a list; ours have one entry each.
        self._lists = self._seqs.ctypes.data + 4 * np.arange(size, dtype=np.uint64)
        self.native = native.llama_batch(
            0,
            _pointer(self._tokens, native.llama_token),
            None,
            _pointer(self._places, native.llama_pos),
            _pointer(self._counts, ctypes.c_int32),
            ctypes.cast(self._lists.ctypes.data, ctypes.POINTER(ctypes.POINTER(native.llama_seq_id))),
            _pointer(self._wanted, ctypes.c_int8),
        )

    def fill(self, pieces: Sequence[Piece[W]]) -> list[int]:
        """Put the pieces in, one behind the other; the place of each one's last token."""
        at = 0
        last: list[int] = []
        for piece in pieces:
            count = len(piece.tokens)
            if count == 1:
                self._tokens[at], self._places[at], self._seqs[at] = piece.tokens[0], piece.start, piece.slot.seq
                self._wanted[at] = piece.last
            else:
                end = at + count
                self._tokens[at:end] = piece.tokens
                self._places[at:end] = np.arange(piece.start, piece.start + count)
                self._seqs[at:end] = piece.slot.seq
                self._wanted[at:end] = 0
                self._wanted[end - 1] = piece.last
            at += count
            last.append(at - 1)
        self.native.n_tokens = at
        return last


def _pointer(array: Any, kind: Any) -> Any:
    return ctypes.cast(array.ctypes.data, ctypes.POINTER(kind))

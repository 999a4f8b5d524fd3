"""Which tokens are computed next: one for every answer, and a measured piece of the prompts that wait. Pure.

The piece is what keeps a long prompt from stalling the answers beside it: they get a token every step, however long the
prompt is. Of several prompts the one with the fewest tokens left goes first, so that a short question does not wait for a
book; but every ``TURN``-th step belongs to the one that came first, so that the book is read to its end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple

from backends.llama_cpp.batching.slots import Slot, W

TURN = 4


class Piece(NamedTuple, Generic[W]):
    """Tokens of one sequence, at the positions from ``start``. ``last``: what follows the last of them is asked for."""

    slot: Slot[W]
    start: int
    tokens: Sequence[int]
    last: bool


def plan(slots: Sequence[Slot[W]], *, chunk: int, turn: int) -> list[Piece[W]]:
    """The pieces of step number ``turn``: at most ``chunk`` tokens of prompts, beside a token of every answer."""
    pieces: list[Piece[W]] = []
    prompts: list[tuple[int, int, Slot[W]]] = []
    for slot in slots:
        task = slot.task
        if task is None:
            continue
        if slot.next is None:
            prompts.append((len(task.prompt) - len(slot.held), task.order, slot))
        elif not task.lags:
            pieces.append(Piece(slot, len(slot.held), (slot.next,), True))
    if not prompts:
        return pieces
    prompts.sort(key=lambda row: row[:2])
    if turn % TURN == 0:
        first = min(prompts, key=lambda row: row[1])
        prompts.remove(first)
        prompts.insert(0, first)
    for left, _, slot in prompts:
        count = min(left, chunk)
        if not count:
            break
        assert slot.task is not None
        start = len(slot.held)
        pieces.append(Piece(slot, start, slot.task.prompt[start : start + count], count == left))
        chunk -= count
    return pieces


def steps_at_most(tokens: int, *, chunk: int) -> int:
    """The steps after which a prompt is computed for certain, whatever comes beside it, once it is the oldest."""
    return TURN * -(-tokens // chunk)

"""Which slot a request gets, and how much of its prompt is computed already. Pure.

Only tokens of the same tenant are ever looked at: how long a prompt takes would tell one client what another has asked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, NamedTuple

from backends.llama_cpp.batching.slots import Slot, W
from backends.llama_cpp.common import common

WORTH = 8
"""Tokens of a prompt that a neighbour is computing anyway, from which on it is worth waiting for them."""


class Choice(NamedTuple, Generic[W]):
    """``slot`` takes the request; the first ``keep`` tokens of its prompt come from ``source``, which may be itself."""

    slot: Slot[W]
    source: Slot[W] | None
    keep: int


def choose(slots: Sequence[Slot[W]], prompt: Sequence[int], tenant: str, *, partial: bool) -> Choice[W] | None:
    """The best idle slot for a prompt; None where none is idle. The last token is always left to be computed.

    ``partial``: whether a part of a sequence can be dropped or copied. Recurrent memories and sliding windows cannot do
    that: there a slot is gone on with where it stands, or begun anew.
    """
    idle = [slot for slot in slots if slot.task is None]
    if not idle:
        return None
    most = max(len(prompt) - 1, 0)
    shared = {slot.seq: min(common(slot.held, prompt), most) for slot in slots if slot.held and slot.tenant == tenant}
    if not partial:
        fitting = [slot for slot in idle if slot.seq in shared and shared[slot.seq] == len(slot.held)]
        if fitting:
            slot = max(fitting, key=lambda slot: len(slot.held))
            return Choice(slot, slot, len(slot.held))
        return Choice(_least(idle), None, 0)
    own = [slot for slot in idle if shared.get(slot.seq, 0)]
    best = max(shared.values(), default=0)
    if own:
        slot = max(own, key=lambda slot: (shared[slot.seq], -len(slot.held)))
        # A slot that would lose most of what it holds is better left to the conversation that it belongs to.
        if shared[slot.seq] == best and (2 * best >= len(slot.held) or len(idle) == 1):
            return Choice(slot, slot, best)
    if not best:
        return Choice(_least(idle), None, 0)
    source = next(slot for slot in slots if shared.get(slot.seq) == best)
    slot = _least(idle)
    return Choice(slot, source, best)


def soon(slots: Sequence[Slot[W]], prompt: Sequence[int], tenant: str) -> int:
    """How much of ``prompt`` the neighbours that compute theirs will hold when they are through."""
    lengths = (
        common(slot.task.prompt, prompt)
        for slot in slots
        if slot.task is not None and slot.next is None and slot.tenant == tenant
    )
    return min(max(lengths, default=0), len(prompt) - 1)


def _least(idle: Sequence[Slot[W]]) -> Slot[W]:
    """The idle slot that holds nothing, or was used longest ago."""
    return min(idle, key=lambda slot: (bool(slot.held), slot.used, slot.seq))

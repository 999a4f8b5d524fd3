"""The places of one context: what each holds and what it is working on. Bookkeeping only; nothing here computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol, TypeVar


class Work(Protocol):
    """What a slot needs to know of the request it works on."""

    @property
    def prompt(self) -> Sequence[int]:
        """Its tokens."""

    @property
    def order(self) -> int:
        """Requests are numbered in the order of their coming."""

    @property
    def lags(self) -> bool:
        """Whether its reader is too slow for more."""


W = TypeVar("W", bound=Work)


class Slot(Generic[W]):
    """One sequence of the context."""

    __slots__ = ("held", "next", "seq", "task", "tenant", "used")

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.tenant = ""
        """Whose tokens they are."""
        self.held: list[int] = []
        """The tokens whose keys and values the context has for this sequence."""
        self.task: W | None = None
        self.next: int | None = None
        """A token of the answer that is to be computed next; None while the prompt is computed."""
        self.used = 0
        """When it last became idle, in steps."""

    @property
    def prefills(self) -> bool:
        """Whether some of a prompt is still to be computed."""
        return self.task is not None and self.next is None

    def __repr__(self) -> str:
        state = "idle" if self.task is None else "prompt" if self.next is None else "answer"
        return f"<slot {self.seq}: {state}, {len(self.held)} held>"

"""Texts and bytes cut anywhere: what reads a stream must not depend on the pieces that it comes in."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from typing import TypeVar

T = TypeVar("T", str, bytes)


def cut(data: T, places: Iterable[int]) -> list[T]:
    """``data`` cut at ``places``, counted round its length; a place given twice makes an empty piece."""
    ends = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[start:end] for start, end in pairwise(ends)]

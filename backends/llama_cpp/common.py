"""How alike two prompts begin."""

from __future__ import annotations

from collections.abc import Sequence


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of the longest common prefix."""
    low, high = 0, min(len(one), len(other))
    if one[:high] == other[:high]:
        return high
    while high - low > 1:  # slices compare as fast as C does; one[:low] == other[:low]
        middle = (low + high) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle
    return low

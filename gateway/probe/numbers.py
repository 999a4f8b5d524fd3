"""The judges of vectors and scores, beside those of texts. Pure, too."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from backends.abilities import Found
from canonical.requests import Embeddings, Ranking
from gateway.probe.judges import HONOURED

ALIKE = 0.999
"""Cosine from which on two vectors count as the same."""


def vectors(answers: Sequence[Embeddings]) -> Found:
    """One text, then a batch in which it is the second: finite numbers, and as many vectors as texts."""
    alone, batch = answers
    if len(alone.vectors) != 1 or len(batch.vectors) != 3:
        return Found("dropped", f"{len(batch.vectors)} vectors for 3 texts")
    if not all(math.isfinite(number) for vector in batch.vectors for number in vector):
        return Found("dropped", "the vectors hold no numbers")
    if _cosine(batch.vectors[0], batch.vectors[1]) >= ALIKE:
        return Found("dropped", "different texts get the same vector")
    if _cosine(alone.vectors[0], batch.vectors[1]) < ALIKE:
        return Found("approximated", "a text in a batch gets another vector than alone, or the order is another")
    return HONOURED


def dimensions(wanted: int) -> Callable[[Sequence[Embeddings]], Found]:
    """Vectors of ``wanted`` numbers."""

    def judge(answers: Sequence[Embeddings]) -> Found:
        (only,) = answers
        got = len(only.vectors[0])
        return HONOURED if got == wanted else Found("dropped", f"{got} numbers instead of {wanted}")

    return judge


def some_vector(answers: Sequence[Embeddings]) -> Found:
    """Of token ids: one vector, not one an id."""
    (only,) = answers
    return HONOURED if len(only.vectors) == 1 else Found("dropped", f"{len(only.vectors)} vectors for one text")


def ranked(count: int) -> Callable[[Ranking], Found]:
    """Every one of ``count`` documents has its score."""

    def judge(answer: Ranking) -> Found:
        places = sorted(one.index for one in answer.ranked)
        if places == list(range(count)) and all(math.isfinite(one.score) for one in answer.ranked):
            return HONOURED
        return Found("dropped", f"{len(places)} scores for {count} documents")

    return judge


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    if len(one) != len(other):
        return 0.0
    lengths = math.sqrt(sum(x * x for x in one)) * math.sqrt(sum(x * x for x in other))
    return sum(x * y for x, y in zip(one, other, strict=True)) / lengths if lengths else 0.0

"""Budgets of reasoning and levels of it: who knows only one of them gets the nearest of the other."""

from __future__ import annotations

from canonical.requests import Think

BUDGETS: tuple[tuple[Think, int, int], ...] = (
    ("max", 32_769, 49_152),
    ("high", 16_385, 24_576),
    ("medium", 4_097, 8_192),
    ("low", 0, 2_048),
)
"""Level, tokens from which on it is meant, tokens that are written for it."""
MEASURE = 8_192
"""Tokens of a budget where the model's own measure is wanted."""


def level_of(tokens: int) -> Think:
    """The level nearest to a budget of so many tokens."""
    return next((level for level, least, _ in BUDGETS if tokens >= least), "low")


def budget_of(think: Think) -> int:
    """The budget that stands for a level."""
    level = "low" if think == "minimal" else think
    return next((tokens for name, _, tokens in BUDGETS if name == level), MEASURE)

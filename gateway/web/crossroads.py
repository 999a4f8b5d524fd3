"""Paths with two owners: who answers is decided by what the request shows. A path that is not here has one owner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

Headers = Iterable[tuple[bytes, bytes]]
Choose = Callable[[Headers, Sequence[str]], str]
"""A request's headers and the claimants in the listener's order -> the one that answers."""


def by_version(headers: Headers, claimants: Sequence[str]) -> str:
    """Anthropic's clients all send ``anthropic-version``; everybody else gets the first of the others."""
    if any(name == b"anthropic-version" for name, _ in headers):
        return "anthropic"
    return next((name for name in claimants if name != "anthropic"), "")


CROSSROADS: dict[str, Choose] = {"/v1/models": by_version, "/v1/models/{model:path}": by_version}

"""What rows of several dialects check alike, once each has read the answer in its own words."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from tests.matrix.questions import FRANCE
from tests.matrix.rows import Near, Refused, Way, right


def joined(pieces: Iterable[str]) -> str:
    """The text of a stream, which must have come in several pieces."""
    found = [piece for piece in pieces if piece]
    assert len(found) > 3, f"the text came in {len(found)} pieces"
    return "".join(found)


def check_flow(arguments: Iterable[str]) -> None:
    """Raises Near unless the arguments of a call came while the model wrote them."""
    if sum(map(bool, arguments)) < 3:
        raise Near("the arguments came in one piece")


def check_object(text: str) -> str:
    """Assert that ``text`` is a JSON object; returns it."""
    assert isinstance(json.loads(text), dict), f"no JSON object: {text!r}"
    return text


def differs(changed: Any, plain: Any) -> Any:
    """``changed``, which must not be what came without the field in question."""
    assert changed != plain, f"the answer is the same: {plain!r}"
    return changed


def check_chance(cold: str, hot: Callable[[], str]) -> str:
    """Assert that answers at temperature 1, of which ``hot`` draws one, are not all that at 0; returns this."""
    drawn = {hot() for _ in range(6)}
    assert drawn != {cold}, f"six answers at temperature 1 and one at 0 are all {cold!r}"
    return cold


def tokens_of_france(way: Way) -> tuple[int, int]:
    """How many tokens the question about France has, and its answer."""
    words = len(FRANCE.split())
    return (words, words) if way.echoes else (17, 12)


def check_unknown_model(way: Way, ask: Callable[[str], object], kind: str = "") -> None:
    """Assert that ``ask`` for a model that is not there gets a 404 which names it, as the SDK's exception ``kind``."""
    name = f"{way.model()}/none"
    try:
        ask(name)
    except Refused as refused:
        right(refused.status, 404, "the status")
        right(refused.kind, kind or refused.kind, "the exception")
        right(name in refused.message, True, f"whether the model is named in {refused.message!r}")
    else:
        raise AssertionError("it was answered")

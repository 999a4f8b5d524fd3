"""Ollama's spellings of points and lengths of time.

Points are RFC 3339 with exactly 6 fraction digits, since old Python parsers take only 3 or 6; inside they are epoch
nanoseconds. Lengths in requests are numbers of seconds or Go durations (``"1h30m"``).
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from canonical.durations import seconds
from canonical.errors import InvalidRequest

FOREVER = -1.0
"""Seconds of a model that stays loaded until somebody unloads it."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UTC_EPOCH = _EPOCH.replace(tzinfo=None)
_CENTURIES_AHEAD = "2318-01-01T00:00:00.000000Z"
_LONGEST = 2**63 / 1e9


class CreatedAt:
    """``created_at`` of one chunk after another: the text up to the second is made once a second."""

    __slots__ = ("_clock", "_prefix", "_second")

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._second = -1
        self._prefix = b""

    def __call__(self) -> bytes:
        """The time now, as in ``2026-08-21T09:00:00.104000Z``."""
        second, nanoseconds = divmod(self._clock(), 1_000_000_000)
        if second != self._second:
            self._second = second
            self._prefix = (_EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.").encode()
        return b"%b%06dZ" % (self._prefix, nanoseconds // 1000)


def rfc3339(nanoseconds: int | None) -> str:
    """Epoch nanoseconds as a date; None, or past year 2318, is centuries ahead: Ollama's spelling of "never"."""
    if nanoseconds is None:
        return _CENTURIES_AHEAD
    try:
        moment = _UTC_EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return _CENTURIES_AHEAD
    return min(moment.isoformat(timespec="microseconds") + "Z", _CENTURIES_AHEAD)  # strftime takes twice as long


def nanoseconds_from_rfc3339(text: str | None) -> int:
    """Epoch nanoseconds of a date from another server, to the microsecond; 0 for what is no date."""
    try:
        moment = datetime.fromisoformat(text or "")
        return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
    except (ValueError, TypeError):
        # TypeError: a date without an offset cannot be placed.
        return 0


def read_keep_alive(value: Any) -> float | None:
    """Seconds of ``keep_alive``; None where it is not said, ``FOREVER`` for anything negative.

    A number is seconds, a string a Go duration. ``"30"`` and ``"-1"``, which Ollama refuses for their missing unit, are
    seconds as well: many clients send them.

    Raises:
        InvalidRequest: another type, or no duration.
    """
    match value:
        case None:
            return None
        case bool() | list() | dict():
            raise InvalidRequest(f"Unsupported type: {_KINDS[type(value)]}", param="keep_alive")
        case str():
            try:
                length = seconds(value)
            except ValueError as error:
                raise InvalidRequest(f"time: {error}", param="keep_alive") from error
        case _:
            length = float(value)
    return FOREVER if length < 0 or length >= _LONGEST else length


def write_keep_alive(length: float | None) -> float | int | None:
    """``keep_alive`` as a number, which every server understands."""
    return int(length) if length is not None and length == int(length) else length


_KINDS = {bool: "bool", list: "array", dict: "object"}

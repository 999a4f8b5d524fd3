"""What every dialect does alike when it reads: a client's body, and a backend's stream."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TypeVar

import msgspec

from canonical.errors import GatewayError, InvalidRequest
from canonical.events import Event, Started
from canonical.limits import check_json

T = TypeVar("T")


def read_body(decoder: msgspec.json.Decoder[T], body: bytes, invalid: Callable[[str], InvalidRequest]) -> T:
    """Check ``body`` against the JSON limits and decode it; ``invalid`` words what a field should have been.

    Raises:
        InvalidRequest: not JSON, past a limit, or a field of a wrong type.
    """
    check_json(body)
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from error
    except msgspec.DecodeError as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error


class EventReader(ABC):
    """The half of ``adapters.dialect.Reader`` that knows no format: events in front of a failure are not lost."""

    __slots__ = ("failure",)

    def __init__(self) -> None:
        self.failure: GatewayError | None = None

    def feed(self, data: bytes) -> list[Event]:
        """The events that ``data`` completes.

        Raises:
            GatewayError: the backend tells of a failure, or sends what is not its format, before any of these events;
                after some it is kept in ``failure``.
        """
        events: list[Event] = []
        try:
            self._feed(data, events)
        except GatewayError as error:
            # A stream that has only started has told nothing yet: the failure can keep its status.
            if not events or type(events[-1]) is Started:
                raise
            self.failure = error
        return events

    @abstractmethod
    def _feed(self, data: bytes, events: list[Event]) -> None: ...

"""What every dialect does alike when it reads: a client's body, and a backend's stream.

A request is decoded by twins of its wire structs, which refuse what they do not know inside the body's known fields:
where that succeeds, nobody needs to look for what was passed over. Else the structs themselves read it.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable
from types import UnionType
from typing import Annotated, Any, Generic, TypeVar, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, Struct, defstruct, structs

from canonical.errors import GatewayError, InvalidRequest
from canonical.events import Event, Started
from canonical.limits import check_json
from canonical.origin import Shape

T = TypeVar("T")
S = TypeVar("S", bound=Struct)
_UNKNOWN = "unknown field"
_PLACE = re.compile(r" - at `\$\.?([^`]*)`$")
_MISSING = re.compile(r"missing required field `([^`]*)`")


class Reading(Generic[S]):
    """A decoder of one wire struct that tells whether it knew everything inside the struct's fields."""

    def __init__(self, struct: type[S], *, strict: bool = True, exact: bool = False) -> None:
        """``strict`` is msgspec's: without it ``"5"`` is an int. ``exact``: what is read is no body but stands inside of one."""
        self.type = struct
        self._tolerant = msgspec.json.Decoder(struct, strict=strict)
        self._exact = msgspec.json.Decoder(_twin(struct, exact=exact), strict=strict)

    def decode(self, body: bytes) -> tuple[S, bool]:
        """The struct, and whether it is plain: no object inside a known field has a field that was passed over.

        Raises:
            msgspec.DecodeError: as a decoder does.
        """
        try:
            return self._exact.decode(body), True
        except msgspec.ValidationError as error:
            if _UNKNOWN not in str(error):
                raise
        return self._tolerant.decode(body), False


def shape_of(struct: type[Struct], *, without: frozenset[str] = frozenset()) -> dict[str, Shape | None]:
    """The names that ``struct`` reads and, where they hold structs again, the shapes of those."""
    return {info.encode_name: _shape(info.type) for info in structs.fields(struct) if info.encode_name not in without}


def inside_of(struct: type[Struct]) -> dict[str, Shape]:
    """Those of its fields that hold structs, with their shapes."""
    return {name: shape for name, shape in shape_of(struct).items() if shape is not None}


def _shape(kind: Any) -> Shape | None:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return shape_of(kind)
    return next((shape for shape in map(_shape, get_args(kind)) if shape is not None), None)


def _twin(struct: type[S], *, exact: bool) -> type[S]:
    """A subclass that reads the same, with twins for the structs in its fields; ``exact``: and refuses unknown fields."""
    fields: list[tuple[str, Any, Any]] = []
    for info in structs.fields(struct):
        kind = _twinned(info.type)
        if kind is not info.type:
            default = {} if info.default is NODEFAULT else {"default": info.default}
            factory = {} if info.default_factory is NODEFAULT else {"default_factory": info.default_factory}
            fields.append((info.name, kind, msgspec.field(name=info.encode_name, **default, **factory)))
    return defstruct(  # type: ignore[return-value]  # it tells no more than Struct
        struct.__name__, fields, bases=(struct,), kw_only=True, forbid_unknown_fields=exact
    )


def _twinned(kind: Any) -> Any:
    if isinstance(kind, type) and issubclass(kind, Struct):
        return _twin(kind, exact=True)
    origin, args = get_origin(kind), get_args(kind)
    if origin is None:
        return kind
    if origin is Annotated:
        twin = _twinned(args[0])
        return kind if twin is args[0] else Annotated[(twin, *args[1:])]
    twins = tuple(map(_twinned, args))
    if all(twin is arg for twin, arg in zip(twins, args, strict=True)):
        return kind
    return Union[twins] if origin in {Union, UnionType} else origin[twins]  # noqa: UP007  a tuple of types has no bar


def read_request(reading: Reading[S], body: bytes, invalid: Callable[[str], InvalidRequest]) -> tuple[S, bool]:
    """As ``read_body``, by a ``Reading``."""
    return _read(reading.decode, body, invalid)


def read_body(decoder: msgspec.json.Decoder[T], body: bytes, invalid: Callable[[str], InvalidRequest]) -> T:
    """Check ``body`` against the JSON limits and decode it; ``invalid`` words what a field should have been.

    Raises:
        InvalidRequest: not JSON, past a limit, or a field of a wrong type.
    """
    return _read(decoder.decode, body, invalid)


class Fault(Struct, frozen=True):
    """What a decoder found wrong with a body."""

    path: str
    """Of the field (``messages[0].content``); empty: the body as a whole."""
    words: str
    missing: bool


def fault_of(text: str) -> Fault:
    """A decoder's message, taken apart: `` Expected `str`, got `int` - at `$.model` ``."""
    found = _PLACE.search(text)
    path = found[1] if found else ""
    words = _PLACE.sub("", text)
    absent = _MISSING.search(words)
    if absent is None:
        return Fault(path, words, missing=False)
    return Fault(f"{path}.{absent[1]}" if path else absent[1], words, missing=True)


def _read(decode: Callable[[bytes], T], body: bytes, invalid: Callable[[str], InvalidRequest]) -> T:
    check_json(body)
    try:
        return decode(body)
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

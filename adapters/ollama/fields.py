"""JSON -> wire struct: a client's request, with Ollama's leniency about keys and its wording of errors; a backend's reply.

msgspec has three ways to refuse bytes (its own error, bad UTF-8, too deep a nesting); here they become one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from msgspec import Raw

from adapters.reading import Reading
from canonical.errors import BackendError, InvalidRequest
from canonical.limits import check_json

Request = TypeVar("Request")
Asked = TypeVar("Asked", bound=msgspec.Struct)
Reply = TypeVar("Reply")
Shape = dict[str, "Shape"]

_UPPER_KEY = re.compile(rb'"[a-z_]*+[A-Z][A-Za-z_]*+"\s*+:')
_SHAPE: Shape = {"messages": {"tool_calls": {"function": {}}}, "tools": {"function": {}}}
"""Where Ollama has structs within structs; everything else that is nested is a map and keeps its keys."""

_object = msgspec.json.Decoder(dict[str, Raw])
_array = msgspec.json.Decoder(list[Raw])
_TYPE_ERROR = re.compile(r"Expected `(?P<wanted>.+)`, got `(?P<got>\w+)`(?: - at `\$(?P<path>.*)`)?")
_JSON_KINDS = {"str": "string", "int": "number", "float": "number"}


def read_fields(decoder: msgspec.json.Decoder[Request], body: bytes) -> tuple[Request, bytes]:
    """The request in ``body``, and the body with its keys as Ollama spells them.

    Raises:
        InvalidRequest: not strict JSON, a wrong type, or two keys that differ only in case.
    """
    body = _keyed(body)
    return _decode(decoder.decode, body, decoder.type.__name__), body


def read_request(reading: Reading[Asked], body: bytes) -> tuple[Asked, bytes, bool]:
    """As ``read_fields``, and whether nothing inside the known fields was passed over."""
    body = _keyed(body)
    asked, plain = _decode(reading.decode, body, reading.type.__name__)
    return asked, body, plain


def read_reply(decoder: msgspec.json.Decoder[Reply], body: bytes, what: str = "line") -> Reply:
    """A backend's ``body``. Raises BackendError, which calls it ``what``."""
    try:
        return decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BackendError(f"the backend sent a {what} that is not Ollama's: {error}") from error


def _keyed(body: bytes) -> bytes:
    check_json(body)
    if not _UPPER_KEY.search(body):
        return body
    try:
        return _lowered(body, _SHAPE)
    except msgspec.DecodeError as error:
        raise _malformed(error) from error


def _decode(decode: Callable[[bytes], Request], body: bytes, struct: str) -> Request:
    try:
        return decode(body)
    except msgspec.ValidationError as error:
        raise _wrong_type(str(error), struct) from error
    except msgspec.DecodeError as error:
        raise _malformed(error) from error


def _malformed(error: msgspec.DecodeError) -> InvalidRequest:
    """A lone surrogate's escape, which Python's parser takes and msgspec does not."""
    return InvalidRequest(f"the body is not valid JSON: {error}")


def _lowered(body: bytes, shape: Shape) -> bytes:
    kind = body.lstrip()[:1]
    if kind == b"[":
        return msgspec.json.encode([Raw(_lowered(bytes(item), shape)) for item in _array.decode(body)])
    if kind != b"{":
        return body
    fields: dict[str, Any] = {}
    for name, value in _object.decode(body).items():
        name = name.lower()
        if name in fields:
            raise InvalidRequest(f"the name {name[:80]!r} stands twice in one object")
        fields[name] = Raw(_lowered(bytes(value), shape[name])) if name in shape else value
    return msgspec.json.encode(fields)


def wrong_type(got: str, struct: str, path: str, wanted: str) -> InvalidRequest:
    """Ollama's words for a value of a wrong JSON type; clients search for ``cannot unmarshal``."""
    place = f"Go struct field {struct}.{path}" if path else "Go value"
    return InvalidRequest(f"json: cannot unmarshal {got} into {place} of type {wanted}", param=path or None)


def _wrong_type(message: str, struct: str) -> InvalidRequest:
    found = _TYPE_ERROR.fullmatch(message)
    if found is None:
        return InvalidRequest(f"json: {message}")
    path = re.sub(r"\[.*?\]", "", found["path"] or "").lstrip(".")
    wanted = found["wanted"].removesuffix(" | null")
    return wrong_type(
        _JSON_KINDS.get(found["got"], found["got"]), struct, path, _JSON_KINDS.get(wanted, wanted) if path else struct
    )

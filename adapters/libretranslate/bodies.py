"""Bodies of LibreTranslate's clients: JSON, a form, or a form in parts; beside them, or instead, the query of the URL."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from adapters.forms import is_form, read_form
from adapters.reading import fault_of
from canonical.errors import InvalidRequest
from canonical.limits import check_json

FIELDS = 2_000
"""Of a form: a list of texts is as many fields of one name."""

_object = msgspec.json.Decoder(dict[str, Any])


def read_fields(content_type: bytes, body: bytes, query: bytes) -> dict[str, Any]:
    """The fields by their names; what comes several times in a form is a list.

    Raises:
        InvalidRequest: neither JSON nor a form.
    """
    kind = content_type.partition(b";")[0].strip().lower()
    fields = _form(query)
    if not body:
        return fields
    if is_form(content_type):
        parts = read_form(content_type, body, parts=FIELDS)
        return {**fields, **_gathered((part.name, part.text().replace("\r\n", "\n")) for part in parts)}
    # A body that is JSON is read as such whatever it is called; of a form's text only few begin so.
    if b"json" in kind or body.lstrip()[:1] == b"{":
        check_json(body)
        try:
            return {**fields, **_object.decode(body)}
        except msgspec.MsgspecError as error:
            raise InvalidRequest("the body is not a JSON object") from error
    return {**fields, **_form(body)}


def key_of(content_type: bytes, body: bytes, query: bytes) -> str:
    """The API key; empty where there is none, or the body cannot be read."""
    try:
        key = read_fields(content_type, body, query).get("api_key")
    except InvalidRequest:
        return ""
    return key if isinstance(key, str) else ""


def refused(error: msgspec.ValidationError) -> InvalidRequest:
    """A field of a wrong type."""
    fault = fault_of(str(error))
    return InvalidRequest(f"Invalid request: {fault.path or 'the body'}: {fault.words}", param=fault.path or None)


def _form(data: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(data.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=FIELDS)
    except ValueError as error:
        raise InvalidRequest("the form cannot be read") from error
    # Browsers send every break of a form's lines as two characters.
    return _gathered((name, value.replace("\r\n", "\n")) for name, value in pairs)


def _gathered(pairs: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        before = fields.get(name)
        fields[name] = value if before is None else [*before, value] if isinstance(before, list) else [before, value]
    return fields

"""What forms and clients make of a picture's fields: parts gathered by their names, and adapters in any of their spellings.

OpenAI's SDKs write ``{"image": [...], "loras": [{"name": "night", "weight": 0.8}]}`` as parts ``image[]``, ``loras[][name]``
and ``loras[][weight]``; people who use curl write ``loras=night:0.8``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from adapters.forms import Part
from canonical.errors import InvalidRequest
from canonical.limits import check_json
from canonical.painting import Lora

_FILES = re.compile(r"(images?|mask)(?:\[\d*\])?")
_ADAPTER = re.compile(r"loras(?:\[(\d*)\](?:\[(\w+)\])?|\[([^\[\]]+)\])")
_WEIGHED = re.compile(r"([^:]+):(-?\d+(?:\.\d+)?)")


class Form(Struct, kw_only=True):
    """A form, whose scalars are texts yet."""

    fields: dict[str, Any]
    images: list[Part]
    mask: Part | None


def form_of(parts: Iterable[Part]) -> Form:
    """The parts by their names. Raises InvalidRequest: one field stands twice."""
    form = Form(fields={}, images=[], mask=None)
    adapters: list[tuple[str, str]] = []
    for part in parts:
        if found := _FILES.fullmatch(part.name):
            if found[1] != "mask":
                form.images.append(part)
            elif form.mask is not None:
                raise InvalidRequest("there is more than one mask", param="mask")
            else:
                form.mask = part
        elif _ADAPTER.fullmatch(part.name):
            adapters.append((part.name, part.text()))
        elif part.name in form.fields:
            raise InvalidRequest(f"the field {part.name[:100]!r} stands twice", param=part.name[:100])
        elif text := part.text():  # an empty field of a form is one that nobody filled in
            form.fields[part.name] = text.replace("\r\n", "\n")
    if adapters:
        if "loras" in form.fields:
            raise InvalidRequest("the field 'loras' stands twice", param="loras")
        form.fields["loras"] = _gathered(adapters)
    return form


def loras_of(given: Any) -> tuple[Lora, ...]:
    """The stack of adapters. Raises InvalidRequest: it is spelled in no known way."""
    if given is None or given == "":
        return ()
    if isinstance(given, str):
        if given.lstrip()[:1] in {"[", "{"}:
            check_json(given.encode())
            return loras_of(msgspec.json.decode(given))
        given = [name.strip() for name in given.split(",")]
    if isinstance(given, dict):
        given = [{"name": name, "weight": weight} for name, weight in given.items()]
    if not isinstance(given, list):
        raise _unclear()
    return tuple(map(_lora, given))


def _lora(one: Any) -> Lora:
    if isinstance(one, str) and one:
        weighed = _WEIGHED.fullmatch(one)
        return Lora(weighed[1], float(weighed[2])) if weighed else Lora(one)
    if not isinstance(one, dict):
        raise _unclear()
    name = next((one[key] for key in ("name", "id", "path") if one.get(key)), None)
    weight = next((one[key] for key in ("weight", "scale", "strength", "multiplier") if one.get(key) is not None), None)
    if not isinstance(name, str):
        raise _unclear()
    try:
        return Lora(name, None if weight is None else msgspec.convert(weight, float, strict=False))
    except msgspec.ValidationError:
        raise InvalidRequest(f"invalid 'loras': the weight of {name[:100]!r} is no number", param="loras") from None


def _gathered(adapters: list[tuple[str, str]]) -> list[Any]:
    """``loras[][name]`` and its kin: the first name belongs to the first weight."""
    rows: list[Any] = []
    columns: dict[str, list[str]] = {}
    for name, text in adapters:
        found = _ADAPTER.fullmatch(name)
        assert found is not None
        if found[3] is not None:
            rows.append({"name": found[3], "weight": text})
        elif found[2] is None:
            rows.append(text)
        else:
            columns.setdefault(found[2], []).append(text)
    count = max(map(len, columns.values()), default=0)
    if any(len(values) != count for values in columns.values()):
        raise InvalidRequest("invalid 'loras': each of them needs the same fields", param="loras")
    return rows + [{key: values[at] for key, values in columns.items()} for at in range(count)]


def _unclear() -> InvalidRequest:
    words = "invalid 'loras': a list of names, or of objects with a name and a weight, is expected"
    return InvalidRequest(words, param="loras", code="invalid_type")

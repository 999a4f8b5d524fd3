"""The OpenAPI document as tests use it: what it says of a body, and whether a real one is as it says.

Clients may send and servers may add fields that no document knows, so the document leaves objects open. What we write
ourselves is held to it more closely: ``closed`` objects have no field that is not told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import jsonschema_rs
import msgspec

from gateway.settings import Mounted
from gateway.web.app import DIALECTS
from gateway.web.described.document import document

Document = dict[str, Any]


@cache
def told(*names: str, prefix: str = "", keys: bool = False) -> Document:
    """The document of a listener with these dialects; without names, with all."""
    mounts = [Mounted(name=name, prefix=prefix) for name in names or sorted(DIALECTS)]  # type: ignore[arg-type]
    return msgspec.json.decode(document(mounts, keys=keys))


def closed(whole: Document) -> Document:
    """The document with all its objects closed."""
    whole = json.loads(json.dumps(whole))
    for schema in whole["components"]["schemas"].values():
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
    return whole


_NUMBER = {"type": "string", "pattern": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"}
_EASED: dict[str, list[dict[str, Any]]] = {
    "integer": [_NUMBER],
    "number": [_NUMBER],
    "boolean": [{"enum": [0, 1]}, {"type": "string", "pattern": "^(?i:true|false|0|1)$"}],
    "null": [{"type": "string", "pattern": "^(?i:null)$"}],
}
"""What some dialects read as a value of a type, though no document asks for it."""


def eased(whole: Any) -> Any:
    """The document with what is accepted beyond it."""
    if isinstance(whole, list):
        return [eased(one) for one in whole]
    if not isinstance(whole, dict):
        return whole
    kind = whole.get("type")
    if isinstance(whole.get("enum"), list) and "" not in whole["enum"]:
        return {**whole, "enum": [*whole["enum"], ""]}  # an empty text says nothing
    if isinstance(kind, str) and kind in _EASED:
        number = [{**whole, "type": "number"}] if kind == "integer" else []
        return {"anyOf": [whole, *number, *_EASED[kind]]}
    return {name: eased(one) for name, one in whole.items()}


def found(whole: Document, one: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to."""
    if "$ref" not in one:
        return one
    place: Any = whole
    for step in one["$ref"].removeprefix("#/").split("/"):
        place = place[step]
    return place


def example(whole: Document, schema: dict[str, Any]) -> Any:
    """The plainest value that a schema allows."""
    schema = found(whole, schema)
    if "enum" in schema or "const" in schema:
        return schema.get("const", schema.get("enum", [None])[0])
    if "anyOf" in schema:
        return example(whole, schema["anyOf"][0])
    match schema.get("type"):
        case "object":
            return {name: example(whole, schema["properties"][name]) for name in schema.get("required", ())}
        case "array":
            return [example(whole, schema["items"])] if schema.get("minItems", 1) else []
        case "integer" | "number":
            return max(schema.get("minimum", 1), 1)
        case "boolean":
            return False
        case "null":
            return None
    return "hello"


_WRONG: tuple[Any, ...] = ("x", "", -1, 99, 1.5, True, [], {}, [[1]], [{}], {"x": []}, None)


def wrong(judge: Judge, schema: dict[str, Any], good: Any) -> Iterator[Any]:
    """Values that are ``good`` but for one field, somewhere in them, which ``schema`` does not allow so."""
    schema = found(judge.whole, schema)
    for one in schema.get("anyOf", ()):
        one = found(judge.whole, one)
        if one.get("type") == {dict: "object", list: "array"}.get(type(good), ""):
            schema = one
    if isinstance(good, list) and good and "items" in schema:
        yield from ([value, *good[1:]] for value in wrong(judge, schema["items"], good[0]))
    if not isinstance(good, dict):
        return
    for name in schema.get("required", ()):
        yield {field: value for field, value in good.items() if field != name}
    for name, field in schema.get("properties", {}).items():
        for value in _WRONG:
            if judge.faults(field, value):
                yield {**good, name: value}
        if name in good:
            yield from ({**good, name: value} for value in wrong(judge, field, good[name]))


class Judge:
    """Says whether bodies are as a document has them."""

    def __init__(self, whole: Document) -> None:
        self.whole = whole
        self._validators: dict[str, jsonschema_rs.Validator] = {}

    def response(self, path: str, method: str, status: int, media_type: str, body: bytes) -> list[str]:
        """What is wrong with a reply; nothing, if all is as told."""
        where = f"{method.upper()} {path} {status} {media_type}"
        responses = self.whole["paths"][path][method.lower()]["responses"]
        if str(status) not in responses:
            return [f"{where}: no such status is told"]
        content = found(self.whole, responses[str(status)]).get("content", {})
        media_type = media_type.partition(";")[0]
        if method.upper() == "HEAD":
            return []
        if media_type not in content:
            return [f"{where}: no such media type is told, but {sorted(content)}"]
        schema = content[media_type].get("schema")
        if schema is None or schema.get("type") == "string":
            return []
        return [f"{where}: {fault}" for value in values(media_type, body) for fault in self.faults(schema, value)]

    def request(self, path: str, method: str, body: bytes) -> list[str]:
        """What is wrong with a request's body."""
        content = self.whole["paths"][path][method.lower()]["requestBody"]["content"]
        return self.faults(content["application/json"]["schema"], json.loads(body))

    def faults(self, schema: dict[str, Any], value: Any) -> list[str]:
        """Where a value is not as a schema has it."""
        schema = {name: part for name, part in schema.items() if name != "description"}
        key = json.dumps(schema, sort_keys=True)
        if key not in self._validators:
            self._validators[key] = jsonschema_rs.Draft202012Validator(
                {**schema, "components": self.whole["components"]}
            )
        return [f"{error.instance_path}: {error.message[:600]}" for error in self._validators[key].iter_errors(value)]


def values(media_type: str, body: bytes) -> Iterator[Any]:
    """The JSON values of a body: one, one a line, or the data of each event."""
    if media_type == "text/event-stream":
        for record in body.decode().replace("\r\n", "\n").split("\n\n"):
            data = [
                line.removeprefix("data:").removeprefix(" ") for line in record.split("\n") if line.startswith("data:")
            ]
            if data and data != ["[DONE]"]:
                yield _value("\n".join(data))
    elif media_type == "application/x-ndjson":
        for line in body.splitlines():
            yield json.loads(line)
    else:
        yield json.loads(body)


def _value(data: str) -> Any:
    """What an event tells; one dialect's are plain text."""
    try:
        return json.loads(data)
    except ValueError:
        return data

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


def found(whole: Document, one: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to."""
    if "$ref" not in one:
        return one
    place: Any = whole
    for step in one["$ref"].removeprefix("#/").split("/"):
        place = place[step]
    return place


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

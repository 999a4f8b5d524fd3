"""A listener's OpenAPI document: the operations of its dialects, at the paths where it serves them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any

import msgspec
from msgspec import Struct, structs

from gateway.settings import Mounted
from gateway.web.crossroads import CROSSROADS
from gateway.web.described import crossroads, health, own
from gateway.web.described.dialects import DESCRIBED
from gateway.web.described.operation import ALWAYS, JSON, Described, Form, Operation, Parameter
from gateway.web.described.schemas import Schema, Schemas, any_of

OPENAPI = "3.1.0"

MEANINGS = {
    400: "The request is wrong: its body, a field, a limit.",
    401: "A key is needed, or this one is wrong.",
    403: "The caller may not: a foreign origin, an unknown host name, a key that may only use models.",
    404: "There is no such model, or no such object.",
    408: "The request came too slowly.",
    409: "The state of things forbids it.",
    413: "The body is too large.",
    415: "The body comes in an encoding that is not accepted.",
    422: "The model's own server refuses the request.",
    429: "The model's own server has no room for more requests now.",
    431: "The request's head is too large.",
    500: "The gateway failed.",
    501: "This gateway, or the model's server, does not have this feature; or a part of it is not installed.",
    502: "The model's own server failed, or cannot be reached.",
    503: "No room: the queue is full, the model does not fit into memory, or the gateway is ending.",
    504: "The model's own server took too long.",
    507: "It cannot be stored.",
}
_FIELD = re.compile(r"\{(\w+)(?::\w+)?\}")
_RETRY = {"Retry-After": {"description": "Seconds until it is worth another try.", "schema": {"type": "integer"}}}
_WISHES = {
    "Strict": Parameter(
        "Dragoman-Strict", "header", str, "`true`: a field that would be dropped for this model is an error instead."
    ),
    "Report": Parameter(
        "Dragoman-Report",
        "header",
        str,
        "`header` or `body`: where the answer says what became of each field of the request.",
    ),
}


class Told(Struct, frozen=True):
    """An operation, and whose it is."""

    dialect: str
    described: Described
    operation: Operation


def document(mounts: Sequence[Mounted], *, keys: bool) -> bytes:
    """The OpenAPI document of a listener, as JSON. ``keys``: whether one is needed."""
    return msgspec.json.encode(_Document(mounts, keys=keys).whole())


def path_of(route: str) -> str:
    """A route's path as OpenAPI has it: ``/v1/models/{model:path}`` is ``/v1/models/{model}``."""
    return _FIELD.sub(r"{\1}", route)


class _Document:
    def __init__(self, mounts: Sequence[Mounted], *, keys: bool) -> None:
        self._mounts = mounts
        self._keys = keys
        self._schemas = Schemas(_label_of)
        self._responses: dict[str, Schema] = {}

    def whole(self) -> dict[str, Any]:
        paths: dict[str, dict[str, Any]] = {}
        for route, told in self._routes():
            for method in sorted({method for one in told.values() for method in one}):
                owners = [one[method] for one in told.values() if method in one]
                owners = _together(route, method, owners)
                if owners:
                    shown = (route[0], owners[0].operation.shown or route[1])
                    one = self._operation(shown, route[1], method, owners)
                    paths.setdefault(path_of("".join(shown)), {})[method.lower()] = one
        found: dict[str, Any] = {
            "openapi": OPENAPI,
            "info": {
                "title": "dragoman",
                "version": version("dragoman"),
                "description": "What this port of the gateway serves, made from what its routes read and write.",
                "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            },
            "servers": [{"url": "/"}],
            "tags": self._tags(),
            "paths": dict(sorted(paths.items())),
            "components": {
                "schemas": self._schemas.components(),
                "responses": dict(sorted(self._responses.items())),
                "parameters": {name: self._parameter(wish) for name, wish in _WISHES.items()},
            },
        }
        if self._keys:
            found["components"]["securitySchemes"] = {
                "bearer": {"type": "http", "scheme": "bearer"},
                "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            }
            found["security"] = [{"bearer": []}, {"key": []}]
        return found

    def _routes(self) -> Iterator[tuple[tuple[str, str], dict[str, dict[str, Told]]]]:
        """Each path with its prefix, and who says what of its methods."""
        claims: dict[tuple[str, str], dict[str, dict[str, Told]]] = {}
        for mounted in self._mounts:
            described = DESCRIBED[mounted.name]
            for path, methods in described.operations.items():
                told = {method: Told(mounted.name, described, operation) for method, operation in methods.items()}
                claims.setdefault((mounted.prefix, path), {})[mounted.name] = told
        voice = DESCRIBED[self._mounts[0].name]
        for path, methods in {**own.DESCRIBED, **health.DESCRIBED}.items():
            if ("", path) not in claims:
                claims["", path] = {"gateway": {name: Told("gateway", voice, one) for name, one in methods.items()}}
        yield from claims.items()

    def _tags(self) -> list[dict[str, str]]:
        names = dict.fromkeys(mounted.name for mounted in self._mounts)
        told = [{"name": name, "description": f"{DESCRIBED[name].title}. {DESCRIBED[name].words}"} for name in names]
        return [*told, {"name": "gateway", "description": "What every listener has."}]

    def _operation(self, route: tuple[str, str], claimed: str, method: str, owners: Sequence[Told]) -> dict[str, Any]:
        operations = [told.operation for told in owners]
        names = "_".join(dict.fromkeys(told.dialect for told in owners))
        words = [operation.words for operation in operations if operation.words]
        if len(owners) > 1:
            words.append(crossroads.HOW[claimed])
        found: dict[str, Any] = {
            "operationId": re.sub(r"\W+", "_", f"{names}_{method.lower()}{path_of(route[0] + route[1])}").strip("_"),
            "tags": list(dict.fromkeys(told.dialect for told in owners)),
            "summary": "; or: ".join(dict.fromkeys(operation.summary for operation in operations)),
        }
        if words:
            found["description"] = "\n\n".join(words)
        parameters = self._parameters(route[1], operations)
        if parameters:
            found["parameters"] = parameters
        bodies = [operation for operation in operations if operation.body is not None]
        if bodies:
            found["requestBody"] = {
                "content": self._bodies(bodies),
                "required": not any(operation.may_lack_body or operation.body is None for operation in operations),
            }
        found["responses"] = self._replies(owners, empty=method == "HEAD")
        if self._keys and any(operation.open for operation in operations):
            found["security"] = []
        return found

    def _parameters(self, route: str, operations: Sequence[Operation]) -> list[Schema]:
        named = {parameter.name: parameter for operation in operations for parameter in operation.parameters}
        for name, kind in re.findall(r"\{(\w+):?(\w*)\}", route):
            words = "May have slashes in it, as they are." if kind == "path" else ""
            given = named.pop(name, Parameter(name, "path", words=words))
            named[name] = structs.replace(given, place="path", required=True)
        found = [self._parameter(parameter) for parameter in named.values()]
        if any(operation.asks for operation in operations):
            found += [{"$ref": f"#/components/parameters/{name}"} for name in _WISHES]
        return found

    def _parameter(self, parameter: Parameter) -> Schema:
        found: Schema = {"name": parameter.name, "in": parameter.place, "schema": self._schemas.request(parameter.type)}
        if parameter.required:
            found["required"] = True
        if parameter.words:
            found["description"] = parameter.words
        return found

    def _bodies(self, operations: Sequence[Operation]) -> dict[str, Schema]:
        found: dict[str, list[Schema]] = {}
        for operation in operations:
            if isinstance(operation.body, Form):
                form = operation.body
                found.setdefault(form.media_type, []).extend(
                    [self._schemas.request(type) for type in form.types] or [{}]
                )
            else:
                found.setdefault(JSON, []).append(self._schemas.request(operation.body, operation.needs))
            for form in operation.forms:
                found.setdefault(form.media_type, []).extend(map(self._schemas.request, form.types))
        return {media: {"schema": any_of(schemas)} for media, schemas in found.items()}

    def _replies(self, owners: Sequence[Told], *, empty: bool) -> dict[str, Schema]:
        found: dict[str, Schema] = {}
        for told in owners:
            for status, reply in told.operation.replies.items():
                one = found.setdefault(str(status), {"description": reply.words})
                if reply.words not in one["description"]:
                    one["description"] += f" Or: {reply.words}"
                for name in reply.headers:
                    one.setdefault("headers", {})[name] = {"schema": {"type": "string"}}
                for form in () if empty else reply.forms:
                    _add(one.setdefault("content", {}), form.media_type, self._form(form))
        errors = sorted({status for told in owners for status in (*ALWAYS, *told.operation.errors)})
        for status in errors:
            if str(status) not in found:
                found[str(status)] = self._failure(owners, status, empty=empty)
        return dict(sorted(found.items()))

    def _form(self, form: Form) -> Schema:
        if form.types:
            schema = self._schemas.reply(form.types)
        elif form.media_type.startswith("text/"):
            schema = {"type": "string"}
        else:
            return {}
        if form.words:
            schema = {**schema, "description": form.words}
        return {"schema": schema}

    def _failure(self, owners: Sequence[Told], status: int, *, empty: bool) -> Schema:
        if empty:
            return {"description": MEANINGS[status]}
        types = dict.fromkeys(told.operation.error or told.described.error for told in owners)
        streamed = [told.operation.failure for told in owners if told.operation.failure is not None]
        name = "".join(_label_of(kind.__module__) + kind.__name__ for kind in types) + ("Told" if streamed else "")
        if name not in self._responses:
            content = {JSON: {"schema": self._schemas.reply(types)}}
            for form in streamed:
                _add(content, form.media_type, self._form(form))
            self._responses[name] = {
                "description": "It failed, and says why.",
                "headers": _RETRY,
                "content": content,
            }
        return {"$ref": f"#/components/responses/{name}", "description": MEANINGS[status]}


def _add(content: dict[str, Schema], media_type: str, form: Schema) -> None:
    if media_type in content and form:
        content[media_type] = {"schema": any_of([content[media_type]["schema"], form["schema"]])}
    else:
        content[media_type] = form


def _together(route: tuple[str, str], method: str, owners: Sequence[Told]) -> list[Told]:
    """Owners of one path and method; those that answer together are one."""
    prefix, path = route
    merged = crossroads.MERGED.get(path)
    names = [told.dialect for told in owners]
    if merged is None or method not in merged.methods or sum(name in merged.of for name in names) < 2:
        assert len(owners) < 2 or path in CROSSROADS, f"{prefix}{path} has several owners"
        return list(owners)
    if names[0] in merged.alone:
        return [owners[0]]
    rest = [told for told in owners if told.dialect not in merged.of]
    first = next(told for told in owners if told.dialect in merged.of)
    return [structs.replace(first, operation=merged.methods[method]), *rest]


def _label_of(module: str) -> str:
    """What the names of a module's structs begin with: the label of its dialect."""
    parts = module.split(".")
    name = parts[-1] if "described" in parts else parts[1]
    return LABELS.get(name, name.title().replace("_", ""))


LABELS = {
    **{name: described.label for name, described in DESCRIBED.items()},
    "responses": "Responses",
    "own": "Gateway",
    "health": "Gateway",
    "crossroads": "Shared",
    "errors": "",
    "brenda_translation": "Brenda",
    "brenda_pictures": "Brenda",
    "openai_images": "OpenAI",
}

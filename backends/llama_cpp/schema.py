"""Which JSON Schemas an engine's grammars really hold. What they would silently ignore is refused.

Both engines turn a schema into a grammar by the first keyword that they know in a fixed order, and drop the rest without
a word. A constraint that cannot be honoured must be refused, not ignored, so the same order is followed here.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

from msgspec import Raw

from backends.llama_cpp.patterns import rewrite
from canonical.errors import InvalidRequest, Unsupported

_NOTES = frozenset(
    {"title", "description", "default", "examples", "example", "$schema", "$id", "$comment", "deprecated"}
    | {"readOnly", "writeOnly", "$defs", "definitions", "discriminator", "strict", "externalDocs", "$anchor"}
    | {"contentEncoding", "contentMediaType"}
)
"""Say nothing about the value itself."""
_RANGES = frozenset({"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"})
_FORMATS = frozenset({"date", "time", "date-time", "uuid", "uuid1", "uuid2", "uuid3", "uuid4", "uuid5"})
_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "object": dict,
    "array": list,
}
_BY_TYPE = {
    "object": frozenset({"properties", "required", "additionalProperties", "allOf"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems"}),
    "string": frozenset({"pattern", "format", "minLength", "maxLength"}),
    "number": frozenset[str](),
    "boolean": frozenset[str](),
    "null": frozenset[str](),
}


_SHAPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("$ref", "format", "pattern"), str),
    **dict.fromkeys(("oneOf", "anyOf", "allOf", "prefixItems", "enum", "required"), list),
    **dict.fromkeys(("properties", "$defs", "definitions"), dict),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), (int, float)),
    "items": (dict, list, bool),
    "additionalProperties": (dict, bool),
    "type": (str, list),
}


def check_held(schema: Raw | bytes, engine: str, *, param: str) -> None:
    """Refuse a schema of which a part would not be enforced by ``engine``.

    Raises:
        Unsupported: names the keyword.
        InvalidRequest: this is no JSON Schema.
    """
    root: Any = json.loads(bytes(schema))
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, bool) or node == {}:
            continue
        if not isinstance(node, dict):
            raise Unsupported("a schema must be an object", param=param)
        _check_shape(node, param)
        ignored = _ignored(node, engine)
        if ignored:
            raise Unsupported(f"the schema's {ignored} cannot be enforced by this model's engine", param=param)
        if engine != "xllamacpp" and node.get("$ref") == "#":
            raise Unsupported("a schema that refers to its own root is not supported by this engine", param=param)
        pending.extend(_below(node))


def with_patterns(schema: Raw) -> Raw:
    """The schema as the engines hold it: with its patterns rewritten, those excepted that cannot be."""
    if b'"pattern"' not in bytes(schema):
        return schema
    root: Any = json.loads(bytes(schema))
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            if isinstance(node.get("pattern"), str):
                with contextlib.suppress(ValueError):
                    node["pattern"] = rewrite(node["pattern"])
            pending.extend(_below(node))
    return Raw(json.dumps(root, ensure_ascii=False).encode())


def _check_shape(node: dict[str, Any], param: str) -> None:
    """Refuse keywords whose values are not what JSON Schema says."""
    for word, kinds in _SHAPES.items():
        if word in node and not isinstance(node[word], kinds):
            raise InvalidRequest(f"the schema's {word!r} has a value of the wrong type", param=param)
    named = node.get("type")
    names = [named] if isinstance(named, str) else named
    for name in [*(names or ()), *node.get("required", ())]:
        if not isinstance(name, str):
            raise InvalidRequest("the schema's 'type' and 'required' are made of strings", param=param)


def _ignored(node: dict[str, Any], engine: str) -> str:
    """The first keyword without effect, or empty."""
    keys = {key for key in node.keys() - _NOTES if not key.startswith("x-")}  # a vendor's own notes
    kind = node.get("type")
    if "$ref" in keys:
        return _rest(keys, {"$ref"})
    for word in ("oneOf", "anyOf"):
        if word in keys:
            return _rest(keys, {word}) or (
                "oneOf with overlapping choices" if word == "oneOf" and _overlap(node[word]) else ""
            )
    if isinstance(kind, list):
        return _rest(keys, {"type"})
    for word in ("const", "enum"):
        if word in keys:
            values = [node["const"]] if word == "const" else node["enum"]
            fits = kind is None or (isinstance(values, list) and all(_fits(value, kind) for value in values))
            return _rest(keys, {"type", word}) if fits else f"{word} beside type"
    if kind is None:
        kind = next((name for name, words in _BY_TYPE.items() if keys & words), None)
    if kind in {"integer", "number"}:
        # Whole numbers have ranges in one engine's grammars only; fractions in none.
        allowed = _RANGES if kind == "integer" and engine == "xllamacpp" else frozenset[str]()
        return _rest(keys, {"type"} | allowed)
    if kind not in _BY_TYPE:
        return _rest(keys, {"type"}) or f"type {kind!r}"
    left = _rest(keys, {"type"} | _BY_TYPE[kind])
    if left:
        return left
    return _mixed(node, kind)


def _mixed(node: dict[str, Any], kind: str) -> str:
    """Keywords of one type of which only one is looked at."""
    if kind == "object":
        if "allOf" in node and ("properties" in node or "additionalProperties" in node):
            return "allOf beside properties"
        if "required" in node and not set(node["required"]) <= set(node.get("properties", {})) and "allOf" not in node:
            return "required names outside properties"
    elif kind == "string":
        used = [word for word in ("pattern", "format") if word in node]
        if len(used) > 1 or (used and ("minLength" in node or "maxLength" in node)):
            return f"{used[0]} beside other bounds"
        if "format" in node and node["format"] not in _FORMATS:
            return f"format {node['format']!r}"
        pattern = node.get("pattern")
        if isinstance(pattern, str):
            if not (pattern.startswith("^") and pattern.endswith("$")):
                return "pattern without ^ and $"
            try:
                rewrite(pattern)
            except ValueError as error:
                return f"pattern {pattern[:64]!r} ({error})"
    elif kind == "array" and ("prefixItems" in node or isinstance(node.get("items"), list)):
        return "minItems beside a tuple" if "minItems" in node or "maxItems" in node else ""
    elif kind == "array" and "items" not in node and ("minItems" in node or "maxItems" in node):
        return "minItems without items"
    return ""


def _rest(keys: set[str], known: set[str]) -> str:
    left = sorted(keys - known)
    return repr(left[0]) if left else ""


def _fits(value: Any, kind: str) -> bool:
    if isinstance(value, bool):
        return kind == "boolean"
    return isinstance(value, _TYPES.get(kind, object))


def _overlap(choices: Any) -> bool:
    """Whether a value might fit two choices: they are told apart by their types or by a constant property."""
    if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
        return True
    kinds = [choice.get("type") for choice in choices]
    if all(isinstance(kind, str) for kind in kinds) and len(set(kinds)) == len(kinds):
        return {"integer", "number"} <= set(kinds)
    constants = [
        {
            name: json.dumps(one.get("const"))
            for name, one in _properties(choice)
            if isinstance(one, dict) and "const" in one and name in _required(choice)
        }
        for choice in choices
    ]
    shared = set.intersection(*map(set, constants)) if constants else set()
    return not any(len({constant[name] for constant in constants}) == len(constants) for name in shared)


def _properties(choice: dict[str, Any]) -> list[tuple[str, Any]]:
    found = choice.get("properties")
    return list(found.items()) if isinstance(found, dict) else []


def _required(choice: dict[str, Any]) -> list[Any]:
    found = choice.get("required")
    return found if isinstance(found, list) else []


def _below(node: dict[str, Any]) -> Iterator[Any]:
    """The schemas inside a schema."""
    for word in ("properties", "$defs", "definitions"):
        if isinstance(node.get(word), dict):
            yield from node[word].values()
    for word in ("oneOf", "anyOf", "allOf", "prefixItems"):
        if isinstance(node.get(word), list):
            yield from node[word]
    items = node.get("items")
    if isinstance(items, list):
        yield from items
    elif isinstance(items, dict):
        yield items
    if isinstance(node.get("additionalProperties"), dict):
        yield node["additionalProperties"]

"""Types -> JSON Schema, as msgspec reads and writes them.

msgspec's own ``schema_components`` does nearly this. It refuses what is only written (a list of structs of two kinds, JSON
that is passed on unread and may be missing), names structs of two modules by their paths, and calls a field optional that we
always send.
"""

from __future__ import annotations

import inspect
import re
import types
from collections import abc
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from msgspec import NODEFAULT, UNSET, Meta, Raw, Struct, UnsetType
from msgspec.structs import FieldInfo

Schema = dict[str, Any]

PLACE = "#/components/schemas/"
_PLAIN: dict[Any, Schema] = {
    Any: {},
    Raw: {},
    object: {},
    None: {"type": "null"},
    types.NoneType: {"type": "null"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": "string"},
    bytes: {"type": "string", "contentEncoding": "base64"},
    dict: {"type": "object"},
    list: {"type": "array"},
}
_LIMITS = {
    "ge": "minimum",
    "gt": "exclusiveMinimum",
    "le": "maximum",
    "lt": "exclusiveMaximum",
    "multiple_of": "multipleOf",
    "pattern": "pattern",
    "title": "title",
    "description": "description",
    "examples": "examples",
}
_LENGTHS = {
    "string": ("minLength", "maxLength"),
    "array": ("minItems", "maxItems"),
    "object": ("minProperties", "maxProperties"),
}
_LISTS = (list, set, frozenset, abc.Sequence)
_MAPS = (dict, abc.Mapping)


class Schemas:
    """The schemas of one document. Each struct is a component, under its dialect's label and its own name."""

    def __init__(self, label_of: Callable[[str], str]) -> None:
        """``label_of``: the module of a struct -> what its name begins with."""
        self._label_of = label_of
        self._names: dict[type[Struct], str] = {}
        self._read: set[type[Struct]] = set()
        self._needed: dict[type[Struct], tuple[str, ...]] = {}

    def request(self, kind: Any, needs: tuple[str, ...] = ()) -> Schema:
        """The schema of what is read. ``needs``: its fields that must be there, though the struct has defaults for them."""
        self._read.update(structs_in(kind))
        if needs:
            self._needed[kind] = needs
        return self._schema(kind)

    def reply(self, kinds: Iterable[Any]) -> Schema:
        """The schema of what is written: any of the types."""
        return any_of(map(self._schema, kinds))

    def components(self) -> dict[str, Schema]:
        """All structs that were met, by their names."""
        done: dict[str, Schema] = {}
        while len(done) < len(self._names):  # a component may name others
            for struct, name in list(self._names.items()):
                if name not in done:
                    done[name] = self._struct(struct)
        return dict(sorted(done.items()))

    def _named(self, struct: type[Struct]) -> Schema:
        if struct not in self._names:
            module, own = struct.__module__, struct.__name__.lstrip("_")
            name = self._label_of(module) + own
            if name in self._names.values():
                name = f"{self._label_of(module)}{module.rpartition('.')[2].title()}{own}"
            assert name not in self._names.values(), f"two structs have the name {name}"
            self._names[struct] = re.sub(r"[^A-Za-z0-9._-]", "_", name)
        return {"$ref": PLACE + self._names[struct]}

    def _schema(self, kind: Any) -> Schema:
        if is_struct(kind):
            return self._named(kind)
        origin, args = get_origin(kind), get_args(kind)
        if origin is Annotated:
            schema = self._schema(args[0])
            for meta in args[1:]:
                schema = {**schema, **_limits(meta, schema)}
            return schema
        if origin in {Union, types.UnionType}:
            return self._union([member for member in args if member is not UnsetType])
        if origin is Literal:
            kinds = {type(value) for value in args}
            return {**(_PLAIN[kinds.pop()] if len(kinds) == 1 else {}), "enum": list(args)}
        if origin is tuple and args[-1:] != (...,):
            items = [self._schema(arg) for arg in args]
            several = {"prefixItems": items} if any(item != items[0] for item in items) else {}
            return {"type": "array", "items": any_of(items), "minItems": len(args), "maxItems": len(args), **several}
        if origin in _LISTS or origin is tuple:
            return {"type": "array", "items": self._schema(args[0])}
        if origin in _MAPS:
            return {"type": "object", "additionalProperties": self._schema(args[1])}
        return dict(_PLAIN[kind])

    def _union(self, kinds: list[Any]) -> Schema:
        schema = any_of(map(self._schema, kinds))
        tags = {kind: kind.__struct_config__ for kind in kinds if is_struct(kind)}
        if len(tags) > 1 and all(config.tag is not None for config in tags.values()):
            mapping = {str(config.tag): PLACE + self._names[kind] for kind, config in tags.items()}
            field = next(iter(tags.values())).tag_field
            if len(tags) == len(kinds):
                schema["discriminator"] = {"propertyName": field, "mapping": mapping}
        return schema

    def _struct(self, struct: type[Struct]) -> Schema:
        config = struct.__struct_config__
        needed = self._needed.get(struct, ())
        always = struct not in self._read and not config.omit_defaults
        properties: dict[str, Schema] = {}
        required: list[str] = []
        if config.tag is not None:
            properties[str(config.tag_field)] = {"type": "string", "const": config.tag}
            required.append(str(config.tag_field))
        for field in msgspec.structs.fields(struct):
            name = field.encode_name
            schema = self._schema(field.type)
            if name in needed:
                schema = _without_null(schema)
            elif _says_more(field):
                schema = {**schema, "default": field.default}
            properties[name] = schema
            if field.required or name in needed or (always and field.default is not UNSET):
                required.append(name)
        words = words_of(struct)
        return {
            **({"description": words} if words else {}),
            "type": "object",
            "properties": properties,
            **({"required": required} if required else {}),
            **({"additionalProperties": False} if config.forbid_unknown_fields else {}),
        }


def is_struct(kind: Any) -> bool:
    """Whether a type is a struct."""
    return isinstance(kind, type) and issubclass(kind, Struct)


def structs_in(kind: Any, found: set[type[Struct]] | None = None) -> set[type[Struct]]:
    """All structs in a type."""
    found = set() if found is None else found
    inner: Iterator[Any]
    if is_struct(kind):
        if kind in found:
            return found
        found.add(kind)
        inner = (field.type for field in msgspec.structs.fields(kind))
    else:
        inner = iter(get_args(kind))
    for one in inner:
        structs_in(one, found)
    return found


def any_of(schemas: Iterable[Schema]) -> Schema:
    """A schema for what is any of these."""
    members: list[Schema] = []
    for schema in schemas:
        inner = schema["anyOf"] if set(schema) == {"anyOf"} else [schema]
        members.extend(member for member in inner if member not in members)
    if not all(members):
        return {}
    return {"anyOf": members} if len(members) > 1 else dict(*members)


def words_of(thing: Any) -> str:
    """What a docstring says, in Markdown."""
    return inspect.cleandoc(thing.__doc__ or "").replace("``", "`")


def _limits(meta: Any, schema: Schema) -> Schema:
    if not isinstance(meta, Meta):
        return {}
    lengths = zip(_LENGTHS.get(schema.get("type", ""), ()), (meta.min_length, meta.max_length), strict=False)
    found = [(shown, getattr(meta, name)) for name, shown in _LIMITS.items()]
    said = {shown: value for shown, value in (*found, *lengths) if value is not None}
    return {**said, **(meta.extra_json_schema or {})}


def _says_more(field: FieldInfo) -> bool:
    """Whether a default says more than that the field may be missing."""
    default = field.default
    return default is not NODEFAULT and isinstance(default, bool | int | float | str) and default != ""


def _without_null(schema: Schema) -> Schema:
    if "anyOf" not in schema:
        return schema
    rest = [member for member in schema["anyOf"] if member != {"type": "null"}]
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **any_of(rest)}

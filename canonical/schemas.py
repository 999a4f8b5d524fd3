"""What following a JSON Schema costs the engine: choices that multiply, and recursion that doubles them.

An engine turns a schema into a grammar, and keeps every way in which the text so far may go on. A choice between two
objects that both begin with the same recursive property is one way more with every level: forty levels stop the machine.

    {"anyOf": [{"properties": {"a": {"$ref": "#/$defs/n"}, "b": …}}, {"properties": {"a": {"$ref": "#/$defs/n"}, "c": …}}]}
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

from canonical.errors import InvalidRequest
from canonical.grammars import WAYS
from canonical.recursion import PAIRS, components

Node = dict[str, object]


def check_choices(root: object, *, param: str) -> None:
    """Refuse a JSON Schema whose choices multiply through references, or whose references lead round in a circle.

    A reference that leads back through a property or an item is a tree, and is fine.

    Raises:
        InvalidRequest: see there.
    """
    ways: dict[int, int] = {}
    pending = [root]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            pending.extend(node.values())
            _choose(node, root, ways, param)
        elif isinstance(node, list):
            pending.extend(node)


def _choose(node: dict[str, object], root: object, ways: dict[int, int], param: str) -> None:
    path = [node]
    following = {id(node)}
    while path:
        node = path[-1]
        below = list(_choices(node, root))
        unknown = next((one for one in below if id(one) not in ways), None)
        if unknown is None:
            ways[id(node)] = total = max(1, sum(ways[id(one)] for one in below))
            if total > WAYS:
                raise InvalidRequest(f"the schema's choices multiply to more than {WAYS}", param=param)
            following.discard(id(node))
            path.pop()
        elif id(unknown) in following:
            raise InvalidRequest("the schema's references lead round in a circle", param=param)
        else:
            following.add(id(unknown))
            path.append(unknown)


def _choices(node: dict[str, object], root: object) -> Iterator[dict[str, object]]:
    """The schemas that stand for this one as a whole, or for a choice of it."""
    target = node.get("$ref")
    if isinstance(target, str) and target.startswith("#"):
        found: object = root
        for step in target[1:].split("/")[1:]:
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if isinstance(found, dict):
            yield found
    for word in ("anyOf", "oneOf", "allOf"):
        listed = node.get(word)
        if isinstance(listed, list):
            yield from (one for one in listed if isinstance(one, dict))


def check_recursion(root: object, *, param: str) -> None:
    """Refuse a choice between alternatives that lead back to it before they can be told apart.

    What tells two objects apart is the name of a property, or a constant, that comes before any that leads back; engines
    write the required properties first, in the order of ``properties``.

    Raises:
        InvalidRequest: see there.
    """
    nodes = {id(node): node for node in _nodes(root)}
    below = {
        key: [id(one) for one in (*_parts(node), *_choices(node, root)) if id(one) in nodes]
        for key, node in nodes.items()
    }
    pairs = 0
    for circle in components(below):
        for key in circle:
            leaves = [leaf for leaf in _leaves(nodes[key], root) if id(leaf) in circle]
            for one, other in combinations(leaves, 2):
                pairs += 1
                if pairs > PAIRS or _alike(one, other, root, circle):
                    raise InvalidRequest(
                        "the schema can be followed in too many ways: two alternatives that lead back to their choice "
                        "begin with the same property; let a constant or another property come first",
                        param=param,
                    )


def _nodes(root: object) -> Iterator[Node]:
    pending = [root]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            yield value
            pending.extend(value.values())
        elif isinstance(value, list):
            pending.extend(value)


def _parts(node: Node) -> Iterator[Node]:
    """The schemas of what stands inside this value."""
    yield from (one.part for one in _properties(node))
    for word in ("items", "additionalProperties"):
        part = node.get(word)
        if isinstance(part, dict):
            yield part
    listed = node.get("prefixItems")
    if isinstance(listed, list):
        yield from (part for part in listed if isinstance(part, dict))


class _Property(NamedTuple):
    name: str
    part: Node
    required: bool


def _properties(node: Node) -> list[_Property]:
    """In the order in which engines write them."""
    found = node.get("properties")
    if not isinstance(found, dict):
        return []
    listed = node.get("required")
    required = {name for name in listed if isinstance(name, str)} if isinstance(listed, list) else set()
    all_of_them = [_Property(name, part, name in required) for name, part in found.items() if isinstance(part, dict)]
    return sorted(all_of_them, key=lambda one: not one.required)


def _leaves(node: Node, root: object) -> list[Node]:
    """The alternatives of a choice, through references and choices within; one that is none has itself."""
    leaves: dict[int, Node] = {}
    seen: set[int] = set()
    pending = [node]
    while pending:
        one = pending.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        choices = list(_choices(one, root))
        pending.extend(choices)
        if not choices:
            leaves[id(one)] = one
    return list(leaves.values())


def _alike(one: Node, other: Node, root: object, circle: frozenset[int]) -> bool:
    def leads_back(part: object) -> bool:
        return isinstance(part, dict) and id(part) in circle

    if any(map(leads_back, _elements(one))) and any(map(leads_back, _elements(other))):
        return True  # both are lists
    mine, theirs = _properties(one), _properties(other)
    for a, b in zip(mine, theirs, strict=False):
        if not (a.required and b.required):
            break
        if a.name != b.name:
            return False
        if leads_back(a.part) or leads_back(b.part):
            break
        values, their_values = _constants(a.part, root), _constants(b.part, root)
        if values and their_values and values.isdisjoint(their_values):
            return False
    any_name, their_any_name = (leads_back(node.get("additionalProperties")) for node in (one, other))
    back = {a.name for a in mine if leads_back(a.part)}
    their_back = {b.name for b in theirs if leads_back(b.part)}
    return bool(back & their_back or (any_name and (their_any_name or their_back)) or (their_any_name and back))


def _elements(node: Node) -> list[object]:
    listed = node.get("prefixItems")
    return [node.get("items"), *(listed if isinstance(listed, list) else [])]


def _constants(node: Node, root: object) -> set[str]:
    """The only values a schema allows, as texts; empty: it allows more than a list of them."""
    found: set[str] = set()
    for leaf in _leaves(node, root):
        values = [leaf["const"]] if "const" in leaf else leaf.get("enum")
        if not isinstance(values, list):
            return set()
        found |= {repr(value) for value in values}
    return found

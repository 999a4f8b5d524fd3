"""YAML without its dangers: no tags, no name twice in one mapping, aliases only as far as they stay small.

An alias costs what its anchor holds, however the document is read later: ten lines of nested aliases can stand for
billions of values.
"""

from __future__ import annotations

from typing import Any

import yaml

SIZE_LIMIT = 256 * 1024
"""Bytes of a document."""
VALUE_LIMIT = 20_000
"""Values of a document, with each alias counted as all that it stands for."""
DEPTH_LIMIT = 64
"""Lists and mappings within each other."""


class YamlError(Exception):
    """Not YAML, or not of this strict kind; the message gives the line and quotes no value."""


def read_yaml(text: bytes, *, size: int = SIZE_LIMIT, values: int = VALUE_LIMIT) -> Any:
    """One document -> plain values.

    Raises:
        YamlError: it cannot be read.
    """
    if len(text) > size:
        raise YamlError(f"larger than {size} bytes")
    try:
        loader = _Loader(text, values)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()  # type: ignore[no-untyped-call]  # untyped in its stubs
    except yaml.constructor.ConstructorError as error:
        raise YamlError(f"tags and keys that are not plain are not accepted{_line(error.problem_mark)}") from error
    except yaml.composer.ComposerError as error:
        what = (
            "more than one document" if "document" in (error.context or "") else "an alias or anchor in the wrong place"
        )
        raise YamlError(f"not YAML: {what}{_line(error.problem_mark)}") from error
    except yaml.MarkedYAMLError as error:
        raise YamlError(f"not YAML: {error.problem}{_line(error.problem_mark)}") from error
    except yaml.reader.ReaderError as error:
        raise YamlError(f"not YAML: {error.reason}, position {error.position}") from error
    except RecursionError as error:
        raise YamlError("nested too deeply") from error
    except ValueError as error:  # numbers and dates that look like some and are none
        raise YamlError("not YAML: a value that is no number or date of its form") from error


def _line(mark: yaml.Mark | None) -> str:
    return f", line {mark.line + 1}" if mark else ""


class _Loader(yaml.SafeLoader):
    def __init__(self, stream: bytes, limit: int) -> None:
        super().__init__(stream)
        self._limit = limit
        self._values = 0
        self._depth = 0
        self._weight: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        before = self._values
        alias: bool = self.check_event(yaml.AliasEvent)  # type: ignore[no-untyped-call]  # untyped in its stubs
        line = self.peek_event().start_mark.line + 1  # type: ignore[no-untyped-call]  # the same
        self._depth += 1
        if self._depth > DEPTH_LIMIT:  # long before Python's own limit: its scanner takes the square of the depth
            raise YamlError("nested too deeply")
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias:
            weight = self._weight.get(id(node))
            if weight is None:
                raise YamlError(f"an alias inside its own anchor, line {line}")
            self._values += weight
        else:
            self._values += 1
            self._weight[id(node)] = self._values - before
            if isinstance(node, yaml.MappingNode):
                _check_names(node)
        if self._values > self._limit:
            raise YamlError(f"more than {self._limit} values, line {line}")
        return node


def _check_names(node: yaml.MappingNode) -> None:
    names: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in names:
                raise YamlError(f"{key.value[:80]!r} stands twice in one mapping, line {key.start_mark.line + 1}")
            names.add(key.value)

"""All tables: a dialect's rows beside each SDK that speaks it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import partial

from tests.matrix import (
    anthropic_rows,
    javascript,
    ollama_prompt_rows,
    ollama_rows,
    openai_completion_rows,
    openai_rows,
    openai_vector_rows,
    responses_rows,
)
from tests.matrix.python_clients import CLIENTS
from tests.matrix.rows import Client, Rows
from tests.matrix.run import Table
from tests.matrix.world import Backend, World

ROWS: tuple[Rows, ...] = (
    openai_rows.row + openai_completion_rows.row + openai_vector_rows.row,
    responses_rows.row,
    ollama_rows.row + ollama_prompt_rows.row,
    anthropic_rows.row,
)

Tables = list[tuple[Table, Callable[[], Client]]]
"""Each with what makes its clients."""


@contextlib.contextmanager
def tables(world: World, backends: list[Backend]) -> Iterator[Tables]:
    """Every table, to be filled before the block ends."""
    with contextlib.ExitStack() as stack:
        node = None
        if javascript.available():
            node = javascript.Node(world.url)
            stack.callback(node.close)
        found: Tables = []
        for rows in ROWS:
            mine = list(rows.rows)
            ways = [backend for backend in backends if not backend.relay or backend.kind == rows.dialect]
            found.append((Table(rows.dialect, "Python", mine, ways), partial(CLIENTS[rows.dialect], world.url)))
            if node is not None:
                make = partial(javascript.JavaScript, node, rows.dialect)
                found.append((Table(rows.dialect, "JavaScript", mine, ways), make))
        yield found

"""Goes through all cells: tables one after the other, a table's cells a few at a time."""

from __future__ import annotations

import contextlib
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from tests.matrix.judge import Cell, compare, judge
from tests.matrix.rows import Client, Row, Way
from tests.matrix.world import INSIDE, Backend, World

WORKERS = 3
AGAIN = 5
"""Times that a cell is asked again where its latency is looked at."""


class Table(Struct):
    """One client SDK's cells: rows x backends."""

    dialect: str
    language: str
    rows: list[Row]
    backends: list[Backend]
    cells: dict[tuple[str, str], Cell] = {}
    """By names of row and backend."""

    @property
    def name(self) -> str:
        """``openai, Python``."""
        return f"{self.dialect}, {self.language}"

    def failures(self) -> list[tuple[str, str, Cell]]:
        """Row, backend and cell of each that failed."""
        return [(row, backend, cell) for (row, backend), cell in self.cells.items() if cell.outcome == "FAIL"]


class Clients:
    """One client a thread, as each remembers the last answer's report."""

    def __init__(self, make: Callable[[], Client]) -> None:
        self._make = make
        self._mine = threading.local()
        self._all: list[Client] = []

    def get(self) -> Client:
        """This thread's."""
        if not hasattr(self._mine, "client"):
            self._mine.client = self._make()
            self._all.append(self._mine.client)
        client: Client = self._mine.client
        return client

    def close(self) -> None:
        """Let go of them all."""
        for client in self._all:
            client.close()


@contextlib.contextmanager
def clients(make: Callable[[], Client]) -> Iterator[Clients]:
    """The clients of one table, closed in the end."""
    found = Clients(make)
    try:
        yield found
    finally:
        found.close()


def fill(table: Table, own: Clients, world: World) -> None:
    """Ask every cell of ``table``, then hold the remote ones against those of the engine inside."""

    def cell(row: Row, backend: Backend) -> None:
        table.cells[row.name, backend.name] = judge(row, Way(own.get(), backend, world))

    for backend in table.backends:  # models load and connections open before anything is timed
        judge(table.rows[0], Way(own.get(), backend, world))
    with ThreadPoolExecutor(WORKERS) as threads:
        for done in [threads.submit(cell, row, backend) for row in table.rows for backend in table.backends]:
            done.result()
    for row in table.rows:
        inside = table.cells.get((row.name, INSIDE.name))
        for backend in table.backends:
            if backend.remote and inside is not None:
                place = row.name, backend.name
                table.cells[place] = compare(table.cells[place], inside)


class Slow(Struct):
    """What a cell takes longer through a remote backend than inside: the median of a few, asked in turns."""

    table: str
    row: str
    backend: str
    added: float
    """Seconds a request."""
    inside: float
    """Seconds that a request takes inside."""
    requests: int
    """Of the cell."""


def added_latency(table: Table, own: Clients, world: World, *, keep: int) -> list[Slow]:
    """The ``keep`` cells of ``table`` that seem to lose most by their remote backend, measured again in quiet."""

    def measured(row: Row, backend: Backend) -> tuple[float, int]:
        way = Way(own.get(), backend, world)
        began = time.perf_counter()
        row.ask(way)
        return (time.perf_counter() - began) / way.asked, way.asked

    guesses: list[tuple[float, Row, Backend]] = []
    for row in table.rows:
        inside = table.cells.get((row.name, INSIDE.name))
        for backend in table.backends:
            remote = table.cells[row.name, backend.name]
            if backend.remote and inside is not None and remote.outcome == inside.outcome == "pass":
                guesses.append(((remote.seconds - inside.seconds) / remote.requests, row, backend))
    guesses.sort(key=lambda guess: -guess[0])
    found: list[Slow] = []
    for _, row, backend in guesses[:keep]:
        pairs = [(measured(row, INSIDE), measured(row, backend)) for _ in range(AGAIN)]
        inside_time = statistics.median(one[0] for one, _ in pairs)
        added = statistics.median(two[0] for _, two in pairs) - inside_time
        found.append(Slow(table.name, row.name, backend.name, added, inside_time, pairs[0][0][1]))
    return found

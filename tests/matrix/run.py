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
ROUNDS = 3
"""Times that a cell is asked again where its latency is measured."""


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


def measure(table: Table, own: Clients, world: World) -> None:
    """Ask again what passed inside and through a remote backend, one after the other, and note what the way adds.

    It is the difference of medians of a few rounds, in which the backends take turns.
    """
    for row in table.rows:
        if row.chance or table.cells[row.name, INSIDE.name].outcome != "pass":
            continue
        passed = [backend for backend in table.backends if table.cells[row.name, backend.name].outcome == "pass"]
        ways = [backend for backend in passed if backend.remote or backend is INSIDE]
        try:
            rounds = [[_seconds(row, Way(own.get(), backend, world)) for backend in ways] for _ in range(ROUNDS)]
        except Exception as error:  # noqa: BLE001  # it passed before, whatever it is
            table.cells[row.name, INSIDE.name] = Cell("FAIL", f"asked again, it does not pass: {error}")
            continue
        medians = [statistics.median(times) for times in zip(*rounds, strict=True)]
        inside = medians[ways.index(INSIDE)]
        for backend, median in zip(ways, medians, strict=True):
            if backend.remote:
                table.cells[row.name, backend.name].added = median - inside


def _seconds(row: Row, way: Way) -> float:
    """A request's, on the average of the row's."""
    began = time.perf_counter()
    row.ask(way)
    return (time.perf_counter() - began) / max(1, way.asked)

"""Prints the matrix; its exit status is 1 where a cell fails."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.matrix.run import Slow, Table, added_latency, clients, fill
from tests.matrix.table import EXPECTED, HEAD, write
from tests.matrix.tables import tables
from tests.matrix.world import INSIDE, columns, world

_SLOW = 2
"""Cells of each table whose added latency is measured again in quiet."""


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser("python -m tests.matrix", description=__doc__)
    parser.add_argument("--only", metavar="TABLE", default="", help="tables whose name has this in it: openai, Python")
    parser.add_argument("--row", metavar="NAME", default="", help="rows whose name has this in it")
    parser.add_argument("--backend", metavar="NAME", help="this column, beside the one inside")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write all cells, with their seconds")
    parser.add_argument("--write", action="store_true", help="remember the outcomes as those that the tests expect")
    asked = parser.parse_args()
    if asked.write and (asked.only or asked.row or asked.backend):
        parser.error("--write remembers the whole matrix")
    backends = [backend for backend in columns() if backend is INSIDE or asked.backend in {None, backend.name}]
    found: list[Table] = []
    slow: list[Slow] = []
    began = time.perf_counter()
    with world() as running, tables(running, backends) as every:
        for table, make in every:
            table.rows = [row for row in table.rows if asked.row in row.name]
            if asked.only not in table.name or not table.rows:
                continue
            print(f"{table.name}: {len(table.rows)} abilities, {len(backends)} backends", file=sys.stderr)
            with clients(make) as own:
                fill(table, own, running)
                slow += added_latency(table, own, running, keep=_SLOW)
            found.append(table)
    text = write(found)
    print(text)
    _sum_up(found, slow, time.perf_counter() - began)
    if asked.json is not None:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(_plain(found)), indent=1))
    if asked.write:
        EXPECTED.write_text(f"{HEAD}\n{text}")
    return 1 if any(table.failures() for table in found) else 0


def _sum_up(found: list[Table], slow: list[Slow], seconds: float) -> None:
    outcomes = [cell.outcome for table in found for cell in table.cells.values()]
    counts = [f"{outcomes.count(kind)} {kind}" for kind in ("pass", "approximated", "dropped", "refused", "FAIL")]
    print(f"{len(outcomes)} cells in {seconds:.0f} s: {', '.join(counts)}")
    for table in found:
        for row, backend, cell in table.failures():
            print(f"FAIL {table.name} | {row} | {backend}: {cell.why}")
    if slow:
        worst = max(slow, key=lambda cell: cell.added)
        print(
            f"Slowest through a remote backend: {worst.table} | {worst.row} | {worst.backend}: "
            f"{worst.added * 1e3:.1f} ms a request over the {worst.inside * 1e3:.1f} ms inside"
        )


def _plain(found: list[Table]) -> list[dict[str, Any]]:
    """Rows of the file for machines; ``added`` is against the engine inside, each asked once."""
    lines: list[dict[str, Any]] = []
    for table in found:
        remote = {backend.name for backend in table.backends if backend.remote}
        for (row, backend), cell in table.cells.items():
            inside = table.cells[row, INSIDE.name]
            line = {"table": table.name, "row": row, "backend": backend, "outcome": cell.outcome, "why": cell.why}
            line.update(seconds=round(cell.seconds, 4), requests=cell.requests)
            if backend in remote:
                line["added"] = round(cell.seconds - inside.seconds, 4)
            lines.append(line)
    return lines


if __name__ == "__main__":
    sys.exit(main())

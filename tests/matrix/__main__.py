"""Prints the matrix; its exit status is 1 where a cell fails."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from tests.matrix.run import Table, clients, fill, measure
from tests.matrix.table import EXPECTED, HEAD, write
from tests.matrix.tables import tables
from tests.matrix.world import INSIDE, columns, world


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
    began = time.perf_counter()
    with world() as running, tables(running, backends) as every:
        for table, make in every:
            table.rows = [row for row in table.rows if asked.row in row.name]
            if asked.only not in table.name or not table.rows:
                continue
            print(f"{table.name}: {len(table.rows)} abilities, {len(backends)} backends", file=sys.stderr)
            with clients(make) as own:
                fill(table, own, running)
                if table.language == "Python":  # another client adds nothing to know about the way behind it
                    measure(table, own, running)
            found.append(table)
    text = write(found)
    print(text)
    _sum_up(found, time.perf_counter() - began)
    if asked.json is not None:
        asked.json.write_bytes(msgspec.json.format(msgspec.json.encode(_plain(found)), indent=1))
    if asked.write:
        EXPECTED.write_text(f"{HEAD}\n{text}")
    return 1 if any(table.failures() for table in found) else 0


def _sum_up(found: list[Table], seconds: float) -> None:
    outcomes = [cell.outcome for table in found for cell in table.cells.values()]
    counts = [f"{outcomes.count(kind)} {kind}" for kind in ("pass", "approximated", "dropped", "refused", "FAIL")]
    print(f"{len(outcomes)} cells in {seconds:.0f} s: {', '.join(counts)}")
    for table in found:
        for row, backend, cell in table.failures():
            print(f"FAIL {table.name} | {row} | {backend}: {cell.why}")
    added = sorted(
        (cell.added, f"{table.name} | {row} | {backend}")
        for table in found
        for (row, backend), cell in table.cells.items()
        if cell.added is not None
    )
    if added:
        middle, (most, place) = added[len(added) // 2][0], added[-1]
        print(
            f"A remote backend adds {middle * 1e3:.1f} ms to a request (median of {len(added)} cells), at most", end=" "
        )
        print(f"{most * 1e3:.1f} ms: {place}")


def _plain(found: list[Table]) -> list[dict[str, Any]]:
    """Rows of the file for machines; ``added`` is what a request takes longer than inside."""
    lines: list[dict[str, Any]] = []
    for table in found:
        for (row, backend), cell in table.cells.items():
            line = {"table": table.name, "row": row, "backend": backend, "outcome": cell.outcome, "why": cell.why}
            line.update(seconds=round(cell.seconds, 4), requests=cell.requests)
            if cell.added is not None:
                line["added"] = round(cell.added, 5)
            lines.append(line)
    return lines


if __name__ == "__main__":
    sys.exit(main())

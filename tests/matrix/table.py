"""The matrix as text: a Markdown table a client, and below it why a cell is not simply a pass."""

from __future__ import annotations

import re
from pathlib import Path

from tests.matrix.run import Table

EXPECTED = Path(__file__).parent / "README.md"
"""What the last ``--write`` found, and the tests expect."""
HEAD = """# What is carried

Every client dialect x every backend x every ability, asked with the official SDKs and checked by what is answered. Two
gateways run on the demo models: the second has them inside, and the first reaches it as an OpenAI-compatible, an Ollama and
an Anthropic server, beside its own two engines and `echo`, which knows nothing and repeats its question. `lmstudio` is a
stand-in for LM Studio with the second gateway's models, which loads, passes over and refuses as LM Studio does. A column is
called relayed where `relay: true` lets the bytes of a dialect pass unread to a server of the same one.

    make matrix                                     # all of it; the exit status is 1 where a cell fails
    python -m tests.matrix --only ollama --backend anthropic --row tool
    python -m tests.matrix --json cells.json        # for machines, with seconds
    python -m tests.matrix --write                  # writes this file, with which the tests compare

| outcome | means |
|---|---|
| pass | carried: the answer shows it, and through a remote backend it is the answer of the same engine inside |
| approximated | answered, and the report (`Dragoman-Report: header`) says what is done instead |
| dropped | answered without it, and the report names the field; with `Dragoman-Strict: true` an error instead |
| refused | an error in the dialect's own form, 4xx or 501, whose message names what cannot be done |
| FAIL | a wrong answer, a loss that nothing reports, another 5xx, or an exception that no SDK documents |
"""

Outcomes = dict[tuple[str, str, str], str]
"""Table, row, backend -> outcome."""

_ADDRESS = re.compile(r"127\.0\.0\.1:\d+")
_LONG = 160
_HEADING = re.compile(r"## (.+) \((.+)\)$")


def write(tables: list[Table]) -> str:
    """The tables and their reasons; one table for all clients of a dialect that met with the same."""
    written: dict[tuple[str, str], list[str]] = {}
    for table in tables:
        written.setdefault((table.dialect, _body(table)), []).append(table.language)
    return "\n".join(
        f"## {dialect} ({', '.join(languages)})\n\n{body}" for (dialect, body), languages in written.items()
    )


def _body(table: Table) -> str:
    names = [backend.name for backend in table.backends]
    lines = ["| ability | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    reasons: dict[str, list[str]] = {}
    for row in table.rows:
        cells = [table.cells[row.name, name] for name in names]
        lines.append(f"| {row.name} | " + " | ".join(cell.outcome for cell in cells) + " |")
        for name, cell in zip(names, cells, strict=True):
            if cell.why:
                reasons.setdefault(f"{row.name}: {cell.outcome}: {_short(cell.why)}", []).append(name)
    lines.append("")
    lines.extend(f"* {reason} ({', '.join(where)})" for reason, where in reasons.items())
    return "\n".join(lines) + "\n"


def read(text: str) -> Outcomes:
    """The outcomes in what ``write`` wrote."""
    found: Outcomes = {}
    tables: list[str] = []
    names: list[str] = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("| ") else []
        if heading := _HEADING.match(line):
            tables = [f"{heading[1]}, {language}" for language in heading[2].split(", ")]
        elif cells[:1] == ["ability"]:
            names = cells[1:]
        elif cells:
            for table in tables:
                found.update(((table, cells[0], name), cell) for name, cell in zip(names, cells[1:], strict=True))
    return found


def outcomes(tables: list[Table]) -> Outcomes:
    """Those of a run."""
    return {
        (table.name, row, backend): cell.outcome for table in tables for (row, backend), cell in table.cells.items()
    }


def differences(told: Outcomes, expected: Outcomes) -> list[str]:
    """What a run found otherwise than was written down. Backends and clients that this machine lacks are passed over."""
    columns = {(table, backend) for table, _, backend in told}
    lines: list[str] = []
    for place in sorted(told.keys() | {place for place in expected if (place[0], place[2]) in columns}):
        now, then = told.get(place, "gone"), expected.get(place, "new")
        if now != then:
            lines.append(f"{' | '.join(place)}: {now}, expected {then}")
    return lines


def _short(why: str) -> str:
    """Reasons on one line, without what differs from run to run."""
    why = " ".join(_ADDRESS.sub("127.0.0.1", why).split())
    return why if len(why) <= _LONG else why[: _LONG - 1] + "…"

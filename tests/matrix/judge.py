"""What became of a cell: the ability was carried, or something said honestly that it was not, or it failed."""

from __future__ import annotations

import time
from typing import Any, Literal

from msgspec import Struct

from tests.matrix.rows import Body, Near, Refused, Row, Way

Outcome = Literal["pass", "approximated", "dropped", "refused", "FAIL"]


class Cell(Struct):
    """One row through one backend."""

    outcome: Outcome
    why: str = ""
    told: Any = None
    """What the row returned."""
    seconds: float = 0
    requests: int = 1
    """Those that the row took."""
    added: float | None = None
    """Seconds that a request takes longer than inside, where that was measured."""


def judge(row: Row, way: Way) -> Cell:
    """Ask, and say what became of it."""
    cell = _judge(row, way)
    cell.requests = max(1, way.asked)
    return cell


def _judge(row: Row, way: Way) -> Cell:
    began = time.perf_counter()
    told: Any = None
    wrong = ""
    try:
        told = row.ask(way)
    except Refused as refused:
        return _refused(row, refused)
    except Near as near:
        return Cell("approximated", str(near), seconds=time.perf_counter() - began)
    except AssertionError as error:
        wrong = str(error).strip().splitlines()[0] if str(error) else "an assertion failed"
    except Exception as error:  # noqa: BLE001  # whatever an SDK raises is what its user would see
        return Cell("FAIL", f"{type(error).__name__}: {error}")
    seconds = time.perf_counter() - began
    fate, why = _fate(row, way.told)
    if fate == "dropped":
        wrong = _strictly(row, way)
        return Cell("FAIL", wrong) if wrong else Cell("dropped", why, seconds=seconds)
    if wrong:
        said = {"": "nothing is reported", "honoured": "reported as honoured"}.get(fate, f"reported as {fate}")
        return Cell("FAIL", f"{wrong} ({said})" if row.fields else wrong, told, seconds)
    if fate == "approximated":
        return Cell("approximated", why, told, seconds)
    if row.fields and not fate:
        return Cell("FAIL", f"no report names {' or '.join(row.fields)}: {way.told[-1:]}", told, seconds)
    return Cell("pass", "", told, seconds)


def compare(cell: Cell, inside: Cell) -> Cell:
    """A remote cell beside the same engine's inside: over one more hop it must say the very same."""
    if cell.outcome == inside.outcome == "pass" and cell.told != inside.told:
        return Cell("FAIL", f"got {cell.told!r}, inside {inside.told!r}", cell.told, cell.seconds)
    return cell


def _refused(row: Row, refused: Refused) -> Cell:
    message = refused.message
    if not (400 <= refused.status < 500 or refused.status == 501):
        return Cell("FAIL", f"status {refused.status}: {message}")
    names = {part for field in row.fields for part in (field, field.rpartition(".")[2])} | set(row.words)
    if not any(name.lower() in message.lower() for name in names):
        return Cell("FAIL", f"refused ({refused.status}) without a name for it: {message}")
    return Cell("refused", f"{refused.status} {message}")


def _strictly(row: Row, way: Way) -> str:
    """What is wrong when the same is asked of a gateway that may drop nothing; empty: it refuses, and says why."""
    names = {field for report in way.told for field in report["dropped"]}
    try:
        row.ask(Way(way.client, way.backend, way.world, strict=True))
    except Refused as refused:
        named = any(name in refused.message for name in names)
        return "" if named and refused.status == 400 else f"strict: {refused.status} {refused.message}"
    except Exception as error:  # noqa: BLE001  # an answer was judged wrong, or an SDK failed: it was answered either way
        return f"strict, and dropped all the same ({error})"
    return "strict, and dropped all the same"


def _fate(row: Row, reports: list[Body]) -> tuple[str, str]:
    """The worst that any report says of the row's fields, and its words."""
    honoured = False
    near: dict[str, str] = {}
    for report in reports:
        for field in row.fields:
            if field in report["dropped"]:
                return "dropped", f"the report names {field}"
            if field in report["approximated"]:
                near[field] = report["approximated"][field]
            honoured = honoured or field in report["honoured"]
    if near:
        return "approximated", "; ".join(f"{field}: {note}" for field, note in near.items())
    return ("honoured" if honoured else ""), ""

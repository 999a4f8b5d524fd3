"""What commands print: tables, bars, facts. Texts of models and servers never steer the terminal."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from gateway.probe.safe import line, shown

FOREVER = 100 * 365 * 86_400
"""Seconds ahead from which on a model never expires."""


def bytes_of(size: int) -> str:
    """``1.4 MB``."""
    value = float(size)
    for unit in ("B", "KB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def table(heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """Columns without lines, so that other programs can cut them."""
    found = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 3, 0, 0))
    for head in heads:
        found.add_column(head, no_wrap=True, overflow="fold")
    for row in rows:
        found.add_row(*(Text(line(cell)) for cell in row))
    return found


def models(rows: list[dict[str, Any]], now: dt.datetime) -> Table:
    """The models of ``/api/tags``."""
    return table(
        ("NAME", "ID", "SIZE", "MODIFIED"),
        ((row["name"], row["digest"][:12], bytes_of(row["size"]), ago(row["modified_at"], now)) for row in rows),
    )


def running(rows: list[dict[str, Any]], now: dt.datetime) -> Table:
    """The models of ``/api/ps``."""
    return table(
        ("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"),
        (
            (
                row["name"],
                row["digest"][:12],
                bytes_of(row["size"]),
                processor(row["size"], row["size_vram"]),
                str(row.get("context_length", "")),
                until(row["expires_at"], now),
            )
            for row in rows
        ),
    )


def processor(size: int, vram: int) -> str:
    """Where a model's memory is: ``100% CPU``, ``40%/60% CPU/GPU``."""
    if not vram or not size:
        return "100% CPU"
    share = min(round(100 * vram / size), 100)
    return "100% GPU" if share == 100 else f"{100 - share}%/{share}% CPU/GPU"


def ago(text: str, now: dt.datetime) -> str:
    """How long ago a time was."""
    return f"{span((now - _time(text)).total_seconds())} ago"


def until(text: str, now: dt.datetime) -> str:
    """How far ahead a time is."""
    ahead = (_time(text) - now).total_seconds()
    if ahead > FOREVER:
        return "for ever"
    return f"{span(ahead)} from now" if ahead > 0 else "stopping"


def span(seconds: float) -> str:
    """The largest unit that fits: ``5 minutes``."""
    for unit, length in (
        ("year", 365 * 86_400),
        ("month", 30 * 86_400),
        ("day", 86_400),
        ("hour", 3600),
        ("minute", 60),
    ):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    count = max(int(seconds), 0)
    return f"{count} second{'s' if count != 1 else ''}"


def details(name: str, told: dict[str, Any], console: Console) -> None:
    """What ``/api/show`` says of a model."""
    facts = told.get("details") or {}
    info = told.get("model_info") or {}
    family = info.get("general.architecture", "")
    rows = [
        ("architecture", str(family or facts.get("family", ""))),
        ("parameters", str(facts.get("parameter_size", ""))),
        ("context length", str(info.get(f"{family}.context_length", ""))),
        ("embedding length", str(info.get(f"{family}.embedding_length", ""))),
        ("quantization", str(facts.get("quantization_level", ""))),
        ("capabilities", ", ".join(told.get("capabilities") or [])),
    ]
    console.print(Text(line(name), style="bold"))
    console.print(table(("", ""), ((f"  {key}", value) for key, value in rows if value)))
    for head in ("parameters", "system", "license"):
        text = str(told.get(head) or "").strip()
        if text:
            first = "\n".join(f"  {each}" for each in shown(text).splitlines()[:12])
            console.print(Text(f"\n{head}", style="bold"))
            console.print(Text(first))


class Bars:
    """Progress of a pull, a push or a creation: a bar a blob where somebody watches, else a line a step."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}
        self._said = ""

    def follow(self, steps: Iterable[dict[str, Any]]) -> None:
        """Show each step, to the last."""
        watched = self._console.is_terminal
        if watched:
            self._progress.start()
        try:
            for step in steps:
                status, digest = line(str(step.get("status", ""))), str(step.get("digest", ""))
                if watched and step.get("total"):
                    self._bar(digest or status, status, step)
                elif status != self._said:
                    self._said = status
                    self._console.print(Text(status))
        finally:
            if watched:
                self._progress.stop()

    def _bar(self, of: str, status: str, step: dict[str, Any]) -> None:
        if of not in self._tasks:
            self._tasks[of] = self._progress.add_task(status, total=step["total"])
        self._progress.update(self._tasks[of], completed=step.get("completed", 0), total=step["total"])


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)

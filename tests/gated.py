"""A painting model for processes of their own: echo's stripes, a step each time that a file says it may. For test_job_kills.

In its folder stand ``log``, a line for each thing that any process did, and for each prompt how many steps it may take; where
nothing is said, as many as it wants.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

from backends.base import Section
from backends.echo import EchoBackend, EchoModel
from backends.echo_painting import painted_echo
from canonical.painting import Paint, Painted, Step


class GateSettings(Section, frozen=True):
    folder: str


class GatedBackend(EchoBackend):
    Settings: Any = GateSettings  # type: ignore[assignment]

    def __init__(self, name: str, settings: GateSettings, base: Path = Path()) -> None:
        super().__init__(name, settings, base)  # type: ignore[arg-type]
        self._folder = Path(settings.folder)

    async def open(self, *_: Any) -> EchoModel:
        return GatedModel(self._info, self._folder)


class GatedModel(EchoModel):
    def __init__(self, info: Any, folder: Path) -> None:
        super().__init__(info)
        self._folder = folder

    async def paint(self, request: Paint) -> AsyncGenerator[Step | Painted, None]:
        self._say("begin", request)
        ended = False
        try:
            for event in painted_echo(request):
                if isinstance(event, Step):
                    done = event.index * event.total + event.done
                    while done > self._may(request):  # noqa: ASYNC110  another process says so
                        await asyncio.sleep(0.01)
                    self._say(f"step-{done}", request)
                yield event
            ended = True
        finally:
            self._say("end" if ended else "stopped", request)

    def _may(self, request: Paint) -> int:
        try:
            return int((self._folder / request.prompt).read_text())
        except (FileNotFoundError, ValueError):
            return 10**9

    def _say(self, what: str, request: Paint) -> None:
        log = os.open(self._folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(log, f"{what} {request.prompt} {os.getpid()}\n".encode())
        os.close(log)


class Gate:
    """The test's side of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()

    def let(self, prompt: str, steps: int = 10**9) -> None:
        part = self.folder / "part"
        part.write_text(str(steps))
        part.rename(self.folder / prompt)

    def done(self, what: str, prompt: str) -> list[int]:
        """Which processes did that, in their order."""
        log = self.folder / "log"
        lines = [line.split(" ") for line in log.read_text().splitlines()] if log.exists() else []
        return [int(pid) for one, of, pid in lines if (one, of) == (what, prompt)]

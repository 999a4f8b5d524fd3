"""A backend whose every move a test makes: its one model, ``puppet``, asks a socket of the test what to do next.

The model calls 127.0.0.1 on the configured port, says ``generate`` or ``close``, and obeys the lines that come back:
``say TEXT``, ``finish``, ``break``. When it is stopped its connection closes, and the test sees that.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from backends.base import Section, Tell, tell_nobody
from canonical.errors import BackendError
from canonical.events import Event, Finished, Started, TextDelta, Usage
from canonical.models import LoadedModel, ModelDetails, ModelInfo
from canonical.report import Honours
from canonical.requests import AS_CONFIGURED, Generate, LoadOptions


class Settings(Section, frozen=True):
    port: int
    slots: int = 0
    asks_to_close: bool = False


class PuppetBackend:
    Settings = Settings

    def __init__(self, name: str, settings: Settings, base: Path) -> None:
        self._settings = settings
        self._info = ModelInfo(id="puppet", backend=name)

    async def models(self) -> list[ModelInfo]:
        return [self._info]

    async def details(self, name: str) -> ModelDetails:
        return ModelDetails(info=self._info)

    async def open(self, name: str, options: LoadOptions = AS_CONFIGURED, tell: Tell = tell_nobody) -> Puppet:
        return Puppet(self._info, self._settings)

    async def close(self) -> None:
        pass


class Puppet:
    honours = Honours()

    def __init__(self, info: ModelInfo, settings: Settings) -> None:
        self.info, self.slots, self._settings = info, settings.slots, settings

    def loaded(self) -> LoadedModel:
        return LoadedModel(info=self.info)

    async def close(self) -> None:
        if self._settings.asks_to_close:
            reader, writer = await asyncio.open_connection("127.0.0.1", self._settings.port)
            writer.write(b"close\n")
            await reader.readline()

    async def generate(self, request: Generate) -> AsyncGenerator[Sequence[Event], None]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._settings.port)
        try:
            writer.write(b"generate\n")
            yield [Started("puppet")]
            said = 0
            while line := (await reader.readline()).decode().rstrip("\n"):
                match line.partition(" "):
                    case "say", _, text:
                        said += 1
                        yield [TextDelta(text)]
                    case "finish", _, _:
                        yield [Finished("stop", Usage(1, said))]
                    case _:
                        raise BackendError("the puppet broke")
        finally:
            writer.close()


class Strings:
    """The test's side: waits for the puppet's calls."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(20)
        self.port: int = self._socket.getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._socket.close()

    def call(self) -> String:
        """The next call of the puppet."""
        connection, _ = self._socket.accept()
        return String(connection)


class String:
    """One call: ``wants`` is what the puppet does."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(20)
        self._connection = connection
        self._file = connection.makefile("rw", encoding="utf-8", newline="\n")
        self.wants = self._file.readline().strip()

    def tell(self, *lines: str) -> None:
        self._file.write("".join(f"{line}\n" for line in lines))
        self._file.flush()

    def cut(self) -> None:
        """The puppet is left alone; it reads the end."""
        self._file.close()
        self._connection.close()

    def stopped(self) -> bool:
        """Wait until the puppet has let go."""
        try:
            return self._file.readline() == ""
        except ConnectionResetError:
            return True

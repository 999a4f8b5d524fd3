"""What a row of the matrix is: one ability of a dialect, asked of every backend in the same words."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from typing import Any, Protocol

from msgspec import Struct

from tests.matrix.world import Backend, World

Body = dict[str, Any]


class Answer(Struct):
    """What an SDK gave: one object, or the objects of a stream; and the gateway's report on the request's fields."""

    items: list[Body]
    report: Body | None = None


class Refused(Exception):
    """The SDK's own exception for a status; anything else that it raises is a failure."""

    def __init__(self, status: int, message: str, kind: str) -> None:
        super().__init__(f"{status} {message}")
        self.status, self.message, self.kind = status, message, kind


class Near(Exception):
    """The answer itself shows that a part of what was asked could not be told: honest, and less than a pass."""


class Client(Protocol):
    """An SDK of one dialect."""

    def call(self, method: str, body: Body, *, stream: bool, strict: bool) -> Answer:
        """``method`` as the SDK spells it (``chat.completions.create``); ``strict`` forbids to drop. Raises Refused."""


class Way:
    """One client's way to one backend, for the length of one cell."""

    def __init__(self, client: Client, backend: Backend, world: World, *, strict: bool = False) -> None:
        self.client, self.backend, self.world, self.strict = client, backend, world, strict
        self.asked = 0
        """Requests so far."""
        self.told: list[Body] = []
        """The report on every request that was answered."""

    @property
    def echoes(self) -> bool:
        """Whether what answers knows nothing and repeats its question."""
        return self.backend.kind == "echo"

    def model(self, name: str = "pip") -> str:
        """The public name of a demo model behind this backend."""
        return self.backend.model(name)

    @property
    def answers_as(self) -> str:
        """What the answer calls the model: a relayed one has its own server's word."""
        return "pip" if self.backend.relay else self.model()

    def call(self, method: str, /, **body: Any) -> Body:
        """The whole answer."""
        (item,) = self._call(method, body, stream=False)
        return item

    def stream(self, method: str, /, **body: Any) -> list[Body]:
        """The answer's pieces."""
        return self._call(method, body, stream=True)

    def says(self, answer: str, question: str) -> str:
        """What is right: a model's answer, or the question again."""
        return question if self.echoes else answer

    def honoured(self, field: str) -> bool:
        """Whether the last answer's report says that ``field`` is honoured."""
        return bool(self.told) and field in self.told[-1]["honoured"]

    def loaded(self) -> list[Body]:
        """The models in the memory that the gateway knows of which runs them, or has them run."""
        here = self.backend.loads or not self.backend.remote
        with urllib.request.urlopen((self.world.url if here else self.world.behind) + "/api/ps") as told:
            rows: list[Body] = json.load(told)["models"]
            return rows

    def _call(self, method: str, body: Body, *, stream: bool) -> list[Body]:
        self.asked += 1
        answer = self.client.call(method, body, stream=stream, strict=self.strict)
        if answer.report is not None:
            self.told.append(answer.report)
        return answer.items


Ask = Callable[[Way], Any]


class Row(Struct, frozen=True):
    """One ability."""

    name: str
    ask: Ask
    """Asks, asserts what shows the ability, and returns what must not depend on the way (None: nothing)."""
    fields: tuple[str, ...] = ()
    """The client's names for it, of which a report must give one."""
    words: tuple[str, ...] = ()
    """One of these stands in the message of a refusal, beside the fields."""
    chance: bool = False
    """Whether its answers are drawn, each of another length: then no times are compared."""


class Rows:
    """A dialect's rows, in order."""

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self.rows: list[Row] = []

    def __call__(
        self, name: str, *fields: str, words: tuple[str, ...] = (), chance: bool = False
    ) -> Callable[[Ask], Ask]:
        """Make a row of a function; the names of ``Row``."""

        def add(ask: Ask) -> Ask:
            assert name not in {row.name for row in self.rows}, name
            self.rows.append(Row(name, ask, fields, words, chance))
            return ask

        return add

    def __add__(self, more: Rows) -> Rows:
        """All rows of two files about one dialect."""
        assert self.dialect == more.dialect
        both = Rows(self.dialect)
        for row in (*self.rows, *more.rows):
            both(row.name, *row.fields, words=row.words, chance=row.chance)(row.ask)
        return both


def right(told: object, wanted: object, what: str = "") -> None:
    """Raises AssertionError, in words, unless ``told`` is ``wanted``."""
    assert told == wanted, f"{what + ': ' if what else ''}wanted {wanted!r}, got {told!r}"

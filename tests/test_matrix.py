"""The matrix: what each client's ability becomes behind each backend, held to what was written down; M3, M4, M5.

And the judge of it: a loss that nobody reports must be a failure, or the matrix would be worth nothing.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.matrix.judge import Cell, compare, judge
from tests.matrix.questions import RAW
from tests.matrix.rows import Answer, Body, Near, Refused, Row, Way, right
from tests.matrix.run import Table, clients, fill
from tests.matrix.table import EXPECTED, differences, outcomes, read, write
from tests.matrix.tables import ROWS, tables
from tests.matrix.tokens import token, tokens
from tests.matrix.world import BACKENDS, INSIDE, World, columns, world

NOWHERE = World("", "")


class Told:
    """A client whose answers are given: bodies with a report, or refusals."""

    def __init__(self, *answers: Answer | Refused, strictly: Answer | Refused | None = None) -> None:
        self.answers = list(answers)
        self.strictly = strictly

    def call(self, method: str, body: Body, *, stream: bool, strict: bool) -> Answer:
        answer = self.strictly if strict else self.answers.pop(0)
        assert answer is not None
        if isinstance(answer, Refused):
            raise answer
        return answer


def report(fate: str, field: str) -> Body:
    found: Body = {"honoured": [], "approximated": {}, "dropped": []}
    if fate == "approximated":
        found[fate][field] = "nearly"
    elif fate:
        found[fate].append(field)
    return found


def seven(fate: str, said: int = 7) -> Answer:
    return Answer([{"said": said}], report(fate, "seed"))


def ask(way: Way) -> Any:
    told = way.call("any")["said"]
    right(told, 7)
    return told


ROW = Row("seed", ask, ("seed",), ("chance",))
NAMED = Refused(400, "cannot honour 'seed'", "Error")


@pytest.mark.parametrize(
    ("outcome", "client"),
    [
        ("pass", Told(seven("honoured"))),
        ("approximated", Told(seven("approximated"))),
        ("dropped", Told(seven("dropped"), strictly=NAMED)),
        ("dropped", Told(seven("dropped", said=8), strictly=NAMED)),
        ("refused", Told(Refused(400, "no chance here", "Error"))),
        ("refused", Told(Refused(501, "no seed", "Error"))),
    ],
)
def test_m3_what_is_said_about_a_field_makes_the_outcome(outcome: str, client: Told) -> None:
    assert judge(ROW, Way(client, INSIDE, NOWHERE)).outcome == outcome


@pytest.mark.parametrize(
    ("why", "client"),
    [
        ("wanted 7, got 8 (reported as honoured)", Told(seven("honoured", said=8))),
        ("wanted 7, got 8 (reported as approximated)", Told(seven("approximated", said=8))),
        ("wanted 7, got 8 (nothing is reported)", Told(seven("", said=8))),
        ("no report names seed", Told(seven(""))),
        ("no report names seed", Told(Answer([{"said": 7}]))),
        ("strict, and dropped all the same", Told(seven("dropped"), strictly=seven("honoured"))),
        ("strict: 500", Told(seven("dropped"), strictly=Refused(500, "seed", "Error"))),
        ("strict: 400", Told(seven("dropped"), strictly=Refused(400, "something", "Error"))),
        ("refused (400) without a name", Told(Refused(400, "no", "Error"))),
        ("status 500", Told(Refused(500, "seed", "Error"))),
        ("ValueError", Told(Answer([]))),
    ],
)
def test_m3_silence_is_a_failure(why: str, client: Told) -> None:
    cell = judge(ROW, Way(client, INSIDE, NOWHERE))
    assert cell.outcome == "FAIL"
    assert cell.why.startswith(why)


def test_m3_an_answer_that_shows_what_it_lacks_is_near() -> None:
    def lacks(_: Way) -> None:
        raise Near("half of it")

    cell = judge(Row("half", lacks), Way(Told(), INSIDE, NOWHERE))
    assert (cell.outcome, cell.why) == ("approximated", "half of it")


def test_m3_a_remote_answer_is_the_one_of_the_engine_inside() -> None:
    one, other = Cell("pass", told=1), Cell("pass", told=2)
    assert compare(other, one).outcome == "FAIL"
    assert compare(one, Cell("pass", told=1)) is one
    assert compare(refused := Cell("refused", told=2), one) is refused


def test_tables_are_read_as_they_are_written() -> None:
    dialect = [Row("a", ask), Row("b, twice", ask)]
    found = [Table("openai", language, dialect, list(BACKENDS[:2]), {}) for language in ("Python", "JavaScript")]
    for number, table in enumerate(found):
        for row in dialect:
            for backend in table.backends:
                table.cells[row.name, backend.name] = Cell("refused", f"no | way {number}")
    written = outcomes(found)
    assert len(written) == 8
    assert read(write(found)) == written
    found[1].cells["a", "llama_cpp"] = Cell("pass")
    again = outcomes(found)
    assert read(write(found)) == again
    (line,) = differences(again, written)
    assert line == "openai, JavaScript | a | llama_cpp: pass, expected refused"
    assert not differences({place: cell for place, cell in written.items() if place[2] == "llama_cpp"}, written)


def test_every_row_has_a_check_that_can_fail() -> None:
    """An answer of nothing is no pass: neither with a report that honours nothing, nor with none."""

    class Nothing:
        def call(self, method: str, body: Body, *, stream: bool, strict: bool) -> Answer:
            return Answer([{}], report("", ""))

    for table in ROWS:
        for row in table.rows:
            cell = judge(row, Way(Nothing(), INSIDE, NOWHERE))
            assert cell.outcome == "FAIL", f"{table.dialect}: {row.name}"


def test_the_vocabulary_is_the_models() -> None:
    assert token("The") != token(" the")
    assert len(tokens(RAW)) < len(RAW) / 2


@pytest.mark.timeout(600)
def test_m3_m4_m5_the_matrix() -> None:
    """Nothing fails, and what became of each cell is what was written down: ``python -m tests.matrix --write``."""
    found: list[Table] = []
    with world() as running, tables(running, columns()) as every:
        for table, make in every:
            with clients(make) as own:
                fill(table, own, running)
            found.append(table)
    assert not [(table.name, *failure) for table in found for failure in table.failures()]
    assert not differences(outcomes(found), read(EXPECTED.read_text()))
    assert sum(len(table.cells) for table in found) > 900

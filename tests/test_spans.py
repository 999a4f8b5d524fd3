"""Which bytes are there: against a set of numbers, and on disk."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from backends.fetching.ledger import Ledger, ledger_of
from backends.fetching.spans import Spans, split

SIZE = 40
spans = st.lists(st.tuples(st.integers(0, SIZE), st.integers(0, SIZE)), max_size=12)


@given(spans, st.integers(0, SIZE))
def test_spans_are_a_set_of_bytes(added: list[tuple[int, int]], size: int) -> None:
    found, known = Spans(), set[int]()
    for start, end in added:
        found.add(start, end)
        known |= set(range(start, end))
    assert found.total == len(known)
    assert {byte for a, b in found for byte in range(a, b)} == known
    missing = found.gaps(size)
    assert {byte for a, b in missing for byte in range(a, b)} == set(range(size)) - known
    assert all(b < c for (_, b), (c, _) in itertools.pairwise(missing))
    assert set(range(found.frontier)) <= known
    assert found.frontier not in known


@given(spans, st.integers(1, 50))
def test_split_keeps_every_byte_once(added: list[tuple[int, int]], longest: int) -> None:
    gaps = Spans(added).gaps(SIZE)
    parts = split(gaps, longest)
    assert [byte for a, b in parts for byte in range(a, b)] == [byte for a, b in gaps for byte in range(a, b)]
    assert all(0 < b - a <= longest for a, b in parts)


def opened(partial: Path, there: int = 1000) -> Ledger:
    ledger = Ledger(partial)
    ledger.open(there)
    return ledger


def test_what_was_noted_is_there_after_any_end(tmp_path: Path) -> None:
    partial = tmp_path / "x"
    ledger = opened(partial)
    assert (ledger.size, list(ledger.spans)) == (0, [])
    ledger.begin(1000, "")
    ledger.tag('"one"')
    ledger.note(0, 100)
    ledger.note(500, 600)
    # No close: the process was killed. And once more, in the middle of a line.
    with ledger_of(partial).open("ab") as file:
        file.write(b"600 70")
    again = opened(partial)
    assert (again.size, again.etag, list(again.spans)) == (1000, '"one"', [(0, 100), (500, 600)])
    again.note(700, 800)
    assert list(opened(partial).spans) == [(0, 100), (500, 600), (700, 800)]


def test_a_ledger_never_tells_of_bytes_that_are_not_there(tmp_path: Path) -> None:
    ledger = opened(tmp_path / "x")
    ledger.begin(1000, "")
    ledger.note(0, 900)
    assert list(opened(tmp_path / "x", there=300).spans) == [(0, 300)]


def test_what_is_no_ledger_is_none(tmp_path: Path) -> None:
    for content in (b"", b"\n", b"{}\n0 10\n", b"\xff\xfe\n", b"[" * 10_000 + b"\n", os.urandom(500), b'{"size":-1}'):
        ledger_of(tmp_path / "x").write_bytes(content)
        assert opened(tmp_path / "x").spans.total == 0
    ledger_of(tmp_path / "x").write_bytes(b'{"size":100}\n5 900\n50 10\n-5 7\n7\n9999999999999999999 1\n{"size":7}\n')
    assert list(opened(tmp_path / "x").spans) == [(5, 100)]

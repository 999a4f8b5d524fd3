"""Framing: any split of the bytes gives the same records."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.framing import RECORD_LIMIT, LineReader, SseReader, encode_line
from canonical.errors import BackendError

EVENTS = [
    (b'data: {"a":1}\n\n', [(b"", b'{"a":1}')]),
    (b'data:{"a":1}\r\n\r\n', [(b"", b'{"a":1}')]),
    (b": ping\n\n", []),
    (b"data: one\ndata: two\n\n", [(b"", b"one\ntwo")]),
    (b"event: error\ndata: {}\n\n", [(b"error", b"{}")]),
    (b'error: {"code":500}\n\n', [(b"error", b'{"code":500}')]),
    (b"event: ping\n\n", []),
    (b"retry: 1000\n\nid: 7\n\n", []),
    (b"data:\n\n", []),
    (b"data: \n\n", []),
    (b"data: \n\ndata: x\n\n", [(b"", b"x")]),
    (b"event: ping\ndata:\n\ndata: x\n\n", [(b"", b"x")]),
    (b"event: error\ndata:\n\n", [(b"error", b"")]),
    ("data: a\u2028b\u0085c\rd\n\n".encode(), [(b"", "a\u2028b\u0085c\rd".encode())]),
    (b"\n\n\n", []),
    (b"data: x\n\ndata: y\n\n", [(b"", b"x"), (b"", b"y")]),
]


@given(st.lists(st.sampled_from(EVENTS)), st.lists(st.integers(min_value=1, max_value=40)))
def test_sse_in_any_slices(events: list[tuple[bytes, list[tuple[bytes, bytes]]]], cuts: list[int]) -> None:
    data = b"".join(text for text, _ in events)
    reader, read = SseReader(), []
    for cut in cuts:
        read += reader.feed(data[:cut])
        data = data[cut:]
    read += reader.feed(data)
    assert read == [event for _, found in events for event in found]


@pytest.mark.parametrize("tail", [b"data: x", b"data: x\n", b"data: x\r\n"])
def test_a_half_frame_is_never_passed_on(tail: bytes) -> None:
    reader = SseReader()
    assert reader.feed(b"data: whole\n\n" + tail) == [(b"", b"whole")]


def test_a_name_belongs_to_its_own_event_only() -> None:
    reader = SseReader()
    assert reader.feed(b"event: error\n") == []
    assert reader.feed(b"data: x\n\ndata: y\n\n") == [(b"error", b"x"), (b"", b"y")]


@pytest.mark.parametrize("piece", [b"x" * 65_000, b"data: " + b"x" * 65_000 + b"\n", b"data:\n" * 11_000])
def test_an_endless_event_is_refused(piece: bytes) -> None:
    reader = SseReader()
    for _ in range(RECORD_LIMIT // 66_000):
        reader.feed(piece)
    with pytest.raises(BackendError, match="more than"):
        reader.feed(piece * 4)


@given(st.text(), st.lists(st.integers(min_value=1, max_value=9)))
def test_lines_in_any_slices(text: str, cuts: list[int]) -> None:
    data = text.encode()
    reader, lines = LineReader(), []
    for cut in cuts:
        lines += reader.feed(data[:cut])
        data = data[cut:]
    lines += reader.feed(data)
    assert lines == text.encode().split(b"\n")[:-1]
    assert reader.pending is bool(text.encode().split(b"\n")[-1])


@given(st.text())
def test_no_reader_of_lines_can_cut_a_text(text: str) -> None:
    data = encode_line(text)
    assert json.loads(data) == text
    assert len(data.decode().splitlines()) == 1
    assert SseReader().feed(b"data: " + data + b"\n\n") == [(b"", data)]

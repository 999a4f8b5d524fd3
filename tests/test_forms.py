"""Forms in parts: of any client, whole or refused, and never more work than their size."""

from __future__ import annotations

import contextlib
import gc
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adapters.forms import BOUNDARY, HEAD, HEADS, PARTS, Part, is_form, read_form
from canonical.errors import InvalidRequest

KIND = b"multipart/form-data; boundary=x"
PICTURE = bytes(range(256))


def form(*parts: tuple[str, bytes], boundary: bytes = b"x", end: bytes = b"--\r\n") -> bytes:
    pieces = [
        b"--%b\r\nContent-Disposition: form-data; name=%b\r\n\r\n%b\r\n"
        % (boundary, b'"' + name.encode() + b'"' if name else b"", data)
        for name, data in parts
    ]
    return b"".join(pieces) + b"--" + boundary + end


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        (b'multipart/form-data; boundary="x"', b'Content-Disposition: form-data; name="image"'),
        (b"Multipart/Form-Data;boundary=x; charset=utf-8", b'content-disposition: form-data; name="image"'),
        (b"multipart/form-data; charset=UTF-8; BOUNDARY=x", b"Content-Disposition: form-data; name=image"),
        (
            KIND,
            b'Content-Disposition: form-data; name="image"; filename="..\\\\..\\\\a.exe"\r\nContent-Type: text/html',
        ),
        (KIND, b'Content-Disposition: form-data; filename="\xc3\xa9.png"; filename*=UTF-8\'\'%C3%A9.png; name="image"'),
    ],
)
def test_parts_are_read_however_they_are_written(kind: bytes, head: bytes) -> None:
    body = b"--x\r\n" + head + b"\r\n\r\n" + PICTURE + b"\r\n--x--\r\n"
    assert is_form(kind)
    assert read_form(kind, body) == [Part("image", PICTURE)]
    assert read_form(kind, b"a preamble\r\n" + body + b"an epilogue") == [Part("image", PICTURE)]


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"multipart/form-data", form(("a", b"b"))),
        (b"multipart/form-data; boundary=", form(("a", b"b"))),
        (b"multipart/form-data; boundary=" + b"x" * (BOUNDARY + 1), form(("a", b"b"), boundary=b"x" * (BOUNDARY + 1))),
        (KIND, b""),
        (KIND, b"{}"),
        (KIND, form(("a", b"b"), boundary=b"y")),
        (KIND, form(("a", b"b"), end=b"")),  # broken off
        (KIND, form(("a", b"b"), end=b"-")),
        (KIND, form(("a", b"b")).replace(b"\r\n", b"\n")),
        (KIND, form(*[("a", b"b")] * (PARTS + 1))),
        (KIND, b"--x\r\n" + b"A" * (2 * HEAD) + b": b\r\n\r\n\r\n--x--"),
        (KIND, b"--x\r\n" + b"A: b\r\n" * (HEADS + 1) + b"\r\n\r\n--x--"),
        (KIND, b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\na\r\n--x--'),
    ],
)
def test_what_is_no_whole_form_is_refused(kind: bytes, body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        read_form(kind, body)


@pytest.mark.parametrize(
    "body",
    [
        form(("a", b"b"), end=b""),
        form(*[("a", b"b")] * (PARTS + 1)),
        b"--x\r\n" + b"A" * (2 * HEAD) + b": b\r\n\r\n\r\n--x--",
        b"--x\r\n" * 2,
        b'--x\r\nContent-Disposition: form-data; name="\xff"\r\n\r\na\r\n--x--',
    ],
)
def test_nothing_of_a_form_that_is_refused_stays_in_memory(body: bytes) -> None:
    gc.collect()
    with contextlib.suppress(InvalidRequest):
        read_form(KIND, body)
    assert gc.collect() == 0  # a circle would hold the body until the next full collection, which is hours away


def test_a_part_without_a_name_is_none() -> None:
    assert read_form(KIND, form(("", b"b"), ("a", b"b"))) == [Part("a", b"b")]


@given(st.lists(st.tuples(st.sampled_from(["image", "é", "a b"]), st.binary(max_size=60)), max_size=5))
def test_any_bytes_come_out_as_they_went_in(parts: list[tuple[str, bytes]]) -> None:
    boundary = b"never-in-60-bytes-that-hypothesis-finds"
    read = read_form(b"multipart/form-data; boundary=" + boundary, form(*parts, boundary=boundary))
    assert [(part.name, part.data) for part in read] == parts


@given(st.binary(max_size=300))
def test_any_bytes_are_a_form_or_refused(body: bytes) -> None:
    for whole in (
        body,
        b"--x\r\n" + body,
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n' + body + b"\r\n--x--",
    ):
        with contextlib.suppress(InvalidRequest):
            read_form(KIND, whole)


@pytest.mark.parametrize(
    "body",
    [
        form(("a", b"\r\n--" * 1_000_000)),
        form(("a", b"\r" * 4_000_000)),
        b"--x\r\n" * 800_000,
        b"\r\n--x" * 800_000,
        b"-" * 4_000_000,
        b"--x\r\nContent-Disposition: form-data; name=" + b'"\\' * 2_000_000,
    ],
)
def test_four_hostile_megabytes_are_read_in_no_time(body: bytes) -> None:
    began = time.process_time()
    with contextlib.suppress(InvalidRequest):
        read_form(KIND, body)
    assert time.process_time() - began < 1

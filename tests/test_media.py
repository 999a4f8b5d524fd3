"""Media: the type is read off the bytes, and base64 goes both ways."""

from __future__ import annotations

import base64
import re
import struct
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canonical.errors import InvalidRequest
from canonical.media import (
    AUDIO_LIMIT,
    IMAGE_LIMIT,
    PICTURES,
    TOO_LARGE,
    Blob,
    audio_from_base64,
    audio_type,
    image_from_base64,
    image_size,
    image_type,
)

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (PNG, "image/png"),
        (b"\xff\xd8\xff\xe0", "image/jpeg"),
        (b"GIF87a", "image/gif"),
        (b"GIF89a", "image/gif"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image/webp"),
        (b"RIFF\0\0\0\0WAVE", None),
        (b"<svg>", None),
        (b"", None),
    ],
)
def test_image_type(data: bytes, kind: str | None) -> None:
    assert image_type(data) == kind


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"RIFF\0\0\0\0WAVE", "audio/wav"),
        (b"ID3\x04", "audio/mpeg"),
        (b"\xff\xfb\x90", "audio/mpeg"),
        (b"\xff\xf3", "audio/mpeg"),
        (b"\xff\xd8\xff", None),
        (b"\xff", None),
        (b"OggS", None),
    ],
)
def test_audio_type(data: bytes, kind: str | None) -> None:
    assert audio_type(data) == kind


@given(st.binary())
def test_images_go_both_ways(tail: bytes) -> None:
    blob = Blob(PNG + tail, "image/png")
    assert image_from_base64(blob.base64(), param="p") == blob
    assert image_from_base64(blob.data_url(), param="p") == blob


def test_a_claimed_type_is_not_believed() -> None:
    assert image_from_base64("data:image/jpeg;base64," + Blob(PNG, "").base64(), param="p").media_type == "image/png"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("%%%", "illegal base64"),
        ("aGkaG", "illegal base64"),
        ("aG ka", "illegal base64"),
        ("aG==aG==", "illegal base64"),
        ("ü", "illegal base64"),
        ("aGVsbG8=", "unknown image format"),
        ("", "unknown image format"),
        ("data:image/png,abc", "must be base64"),
        ("data:image/png;base64", "must be base64"),
        ("A" * (IMAGE_LIMIT * 4 // 3 + 8), "at most"),
    ],
)
def test_images_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidRequest, match=words) as caught:
        image_from_base64(text, param="here")
    assert caught.value.param == "here"


@given(data=st.binary(), width=st.integers(1, 100))
def test_base64_is_read_however_it_was_written(data: bytes, width: int) -> None:
    data = PNG + data
    plain = base64.b64encode(data).decode()
    lines = "\r\n".join(plain[at : at + width] for at in range(0, len(plain), width))
    quoted = "data:image/png;base64," + plain.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    for text in (
        lines,
        f" {lines}\n",
        base64.urlsafe_b64encode(data).decode(),
        plain.rstrip("="),
        quoted,
        f"DATA:;BASE64,{plain}",
        f"data:image/png;charset=utf-8;base64,\n{lines}",
    ):
        assert image_from_base64(text, param="p").data == data


def test_base64_in_a_million_lines_takes_no_more_memory_than_in_one() -> None:
    data = PNG + bytes([255]) * 600_000
    lines = "\n".join(re.findall("....?", base64.b64encode(data).decode()))
    tracemalloc.start()
    try:
        assert image_from_base64(lines, param="p").data == data
        assert tracemalloc.get_traced_memory()[1] < 6 * len(lines)
    finally:
        tracemalloc.stop()
    with pytest.raises(InvalidRequest, match="blanks within a line"):
        image_from_base64(lines.replace("\n", " \n", 5).replace("\n", " ", 1), param="p")


def test_a_limit_holds_for_the_bytes_and_not_for_how_they_are_written() -> None:
    data = PNG + bytes(range(251)) * 4
    lines = base64.encodebytes(data).decode()
    assert image_from_base64(lines, param="p", limit=len(data)).data == data
    for text in (lines, base64.b64encode(data).decode(), "A" * 10_000):
        with pytest.raises(InvalidRequest, match="at most 1011 bytes") as caught:
            image_from_base64(text, param="p", limit=len(data) - 1)
        assert caught.value.code == TOO_LARGE


def test_only_the_types_that_are_wanted_are_taken() -> None:
    with pytest.raises(InvalidRequest, match=r"GIF is not among .* PNG, JPEG and WebP are accepted"):
        image_from_base64(base64.b64encode(b"GIF89a").decode(), param="p", types=PICTURES)
    assert image_from_base64(base64.b64encode(PNG).decode(), param="p", types=PICTURES).data == PNG


def test_a_jpeg_of_many_passes_is_refused_before_anybody_decodes_it() -> None:
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10\x7f"
    for width, height, most in ((9, 7, 100), (7000, 7000, 20)):
        assert image_from_base64(base64.b64encode(_jpeg(width, height) + scan * most).decode(), param="p")
        with pytest.raises(InvalidRequest, match=f"at most {most} scans"):
            image_from_base64(base64.b64encode(_jpeg(width, height) + scan * (most + 1)).decode(), param="p")


def test_a_film_behind_a_photo_is_no_passes() -> None:
    film = b"\xff\xda\x91\x3c" * 500
    assert image_from_base64(base64.b64encode(_jpeg(4000, 3000) + film).decode(), param="p")


def test_an_image_that_is_all_length_is_refused() -> None:
    for width, height in ((65_536, 1), (1, 50_000_000)):
        data = PNG + b"\0\0\0\rIHDR" + struct.pack(">II", width, height)
        with pytest.raises(InvalidRequest, match="a side of an image may have at most 65535 pixels"):
            image_from_base64(base64.b64encode(data).decode(), param="p")


def test_sounds() -> None:
    wave = b"RIFF\0\0\0\0WAVE"
    assert audio_from_base64(base64.b64encode(wave).decode(), param="p") == Blob(wave, "audio/wav")
    for text, words in (("aGVsbG8=", "unknown audio"), ("!", "illegal base64"), ("A" * (AUDIO_LIMIT * 2), "at most")):
        with pytest.raises(InvalidRequest, match=words):
            audio_from_base64(text, param="p")


def _jpeg(width: int, height: int, before: bytes = b"") -> bytes:
    return (
        b"\xff\xd8\xff\xe0\x00\x04JF" + before + b"\xff\xc2\x00\x11\x08" + struct.pack(">HH", height, width) + b"\x03"
    )


@pytest.mark.parametrize(
    "data",
    [
        PNG + b"\0\0\0\rIHDR" + struct.pack(">II", 9000, 7000),
        b"GIF89a" + struct.pack("<HH", 9000, 7000),
        _jpeg(9000, 7000),
        _jpeg(9000, 7000, b"\xff\xff\xff\xdb\x00\x06\xff\xc0\x00\x01"),
        b"RIFF\0\0\0\0WEBPVP8X" + b"\0" * 8 + (8999).to_bytes(3, "little") + (6999).to_bytes(3, "little"),
        b"RIFF\0\0\0\0WEBPVP8L\0\0\0\0\x2f" + (8999 | 6999 << 14).to_bytes(4, "little") + b"\0" * 5,
        b"RIFF\0\0\0\0WEBPVP8 " + b"\0" * 10 + struct.pack("<HH", 9000, 7000),
    ],
    ids=["png", "gif", "jpeg", "jpeg with fillings", "webp", "webp lossless", "webp lossy"],
)
def test_an_image_of_more_pixels_than_allowed_is_refused_by_its_header(data: bytes) -> None:
    assert image_size(data) == (9000, 7000)
    with pytest.raises(InvalidRequest, match="pixels"):
        image_from_base64(base64.b64encode(data).decode(), param="images")


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8" + b"\xff" * 9_000_000,
        b"\xff\xd8" + b"\xff\x00" * 4_500_000,
        b"\xff\xd8" + b"\xff\xfe\x00\x02" * 2_000_000,
        _jpeg(9, 7) + b"\x00" * 9 + b"\xff\xfe\x00\x02" * 2_000_000,
        PNG + b"\0\0\0\0abCd\0\0\0\0" * 800_000,
    ],
    ids=["fillings", "marks", "comments", "comments behind its size", "chunks"],
)
def test_an_image_of_a_million_pieces_is_refused_before_anybody_looks_at_each(data: bytes) -> None:
    text = base64.b64encode(data).decode()
    began = time.process_time()
    with pytest.raises(InvalidRequest, match=r"a (PNG|JPEG) may have at most 20000"):
        image_from_base64(text, param="p")
    assert time.process_time() - began < 1


@given(st.binary(max_size=60), st.sampled_from([PNG, b"GIF89a", b"\xff\xd8\xff", b"RIFF\0\0\0\0WEBP"]))
def test_no_header_breaks_the_reading_of_sizes(rest: bytes, magic: bytes) -> None:
    assert image_size(magic + rest) >= (0, 0)

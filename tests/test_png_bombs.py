"""A small PNG that stands for far more than it says starts no job."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from canonical.png import SIGNATURE, chunk, is_bomb, pixel_bytes

END = chunk(b"IEND", b"")
BYTES = 300 * 1024 * 1024


def head(width: int, height: int) -> bytes:
    return SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))


def zeros(count: int) -> bytes:
    packing = zlib.compressobj(9)
    piece = bytes(1024 * 1024)
    return b"".join([packing.compress(piece) for _ in range(count // len(piece))] + [packing.flush()])


PACKED = zeros(BYTES)
BOMBS = {
    "pixels": head(64, 64) + chunk(b"IDAT", PACKED) + END,
    "pixels in many pieces": head(64, 64)
    + b"".join(chunk(b"IDAT", PACKED[at : at + 1000]) for at in range(0, len(PACKED), 1000))
    + END,
    "a text": head(64, 64) + chunk(b"zTXt", b"Comment\0\0" + PACKED) + END,
    "an international text": head(64, 64) + chunk(b"iTXt", b"Comment\0\1\0fr\0Commentaire\0" + PACKED) + END,
    "a profile of colours": head(64, 64) + chunk(b"iCCP", b"sRGB\0\0" + PACKED) + END,
}


@pytest.mark.parametrize("png", BOMBS.values(), ids=BOMBS)
def test_a_bomb_is_known_before_it_goes_off(png: bytes) -> None:
    assert is_bomb(png)


@given(
    st.sampled_from(["1", "L", "LA", "P", "RGB", "RGBA", "I;16"]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.booleans(),
)
def test_a_picture_is_none_whatever_its_form(mode: str, width: int, height: int, said: bool) -> None:
    out = io.BytesIO()
    image = Image.new(mode, (width, height))
    image.save(out, "PNG", icc_profile=bytes(5000) if said and mode == "RGB" else None)
    png = out.getvalue()
    assert not is_bomb(png)
    packed = b"".join(png[begin + 8 : end - 4] for kind, begin, end in _chunks(png) if kind == b"IDAT")
    assert len(zlib.decompress(packed)) == pixel_bytes(png)


def test_an_interlaced_picture_is_counted_pass_by_pass() -> None:
    """Its passes have 1, 1, 2, 4, 8, 16 and 32 pixels of an 8 x 8 picture, in 1, 1, 1, 2, 2, 4 and 4 rows."""
    interlaced = SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1))
    assert pixel_bytes(interlaced) == 64 + 15
    assert pixel_bytes(SIGNATURE + chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 1))) == 2


@given(st.binary(max_size=300))
def test_what_is_no_png_is_no_bomb(junk: bytes) -> None:
    assert not is_bomb(junk)
    assert not is_bomb(head(8, 8) + junk)
    assert not is_bomb(head(8, 8) + chunk(b"IDAT", junk) + chunk(b"iTXt", junk) + chunk(b"iCCP", junk))


def _chunks(png: bytes) -> list[tuple[bytes, int, int]]:
    from canonical.png import chunks

    return list(chunks(png))

"""Media in messages: bytes with a type that was read off the bytes, never off a claim."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Collection
from itertools import islice
from urllib.parse import unquote

from msgspec import Struct

from canonical.errors import InvalidRequest
from canonical.png import SIGNATURE, chunks

IMAGE_LIMIT = 20 * 1024 * 1024
"""Bytes of one encoded image."""
PIXELS = 50_000_000
"""Pixels of one image, by its header: a few hundred bytes can stand for gigabytes."""
SIDE = 65_535
"""Pixels of a side, as a JPEG can have: a picture of one pixel's width and all its pixels one below the other takes seconds."""
SCANS = 100
"""Passes over all pixels that a JPEG may ask of its decoder. Usual ones have 10; one of 1 MB could ask for 100,000."""
PASSED = 20 * PIXELS
"""Pixels that all its passes may go over: a kilobyte can stand for 100 passes over the largest picture, which take 5 s."""
PARTS = 20_000
"""Chunks of a PNG, and segments of a JPEG before its pixels: decoders look at each, and of empty ones 10 MB hold a million."""
TOO_LARGE = "media_too_large"
"""The code of an error about more bytes than are accepted: some dialects have a status for it."""
AUDIO_LIMIT = 20 * 1024 * 1024
"""Bytes of one encoded sound."""
IMAGE_TYPES = {"image/png": "PNG", "image/jpeg": "JPEG", "image/webp": "WebP", "image/gif": "GIF"}
"""What is known as an image, and what people call it."""
PICTURES = frozenset(IMAGE_TYPES) - {"image/gif"}
"""Images that stand still."""

_MAGIC = (
    (SIGNATURE, "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


_OTHER_ALPHABET = str.maketrans("-_", "+/", " \t\r\n\v\f")
_BLANK_WITHIN = re.compile(r"\S[^\S\r\n]+\S")
_SCAN = re.compile(rb"\xff\xda\x00(?:\x08\x01|\x0a\x02|\x0c\x03|\x0e\x04)")
"""Where a scan of a JPEG begins, and of how many colours it is: phones put films behind their pictures, with 0xFFDA in them."""
_START_OF_SCAN = 0xDA
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd9]")
"""Where a segment of a JPEG begins: not at fillings, nor at marks that stand alone."""
_BETWEEN = 64 * 1024
"""Bytes of fillings."""
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


class Blob(Struct, frozen=True):
    """Raw bytes and their media type."""

    data: bytes
    media_type: str

    def base64(self) -> str:
        """The bytes as standard base64, without a prefix."""
        return base64.b64encode(self.data).decode()

    def data_url(self) -> str:
        """The bytes as a ``data:`` URL."""
        return f"data:{self.media_type};base64,{self.base64()}"


def image_type(data: bytes) -> str | None:
    """The media type of PNG, JPEG, GIF or WebP bytes; None for anything else."""
    for magic, media_type in _MAGIC:
        if data.startswith(magic):
            return media_type
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    return None


def image_from_base64(text: str, *, param: str, limit: int = IMAGE_LIMIT, types: Collection[str] = IMAGE_TYPES) -> Blob:
    """Decode bare base64 or a ``data:`` URL into an image. What the URL says that it is counts for nothing.

    Raises:
        InvalidRequest: not base64, over ``limit`` (code ``TOO_LARGE``) or ``PIXELS``, or by its first bytes none of ``types``.
    """
    text = text.strip()
    if text[:5].lower() == "data:":
        head, comma, text = text.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise InvalidRequest("an image data URL must be base64: data:image/png;base64,...", param=param)
    return image_from_bytes(_decode(text, "an image", limit, param), param=param, types=types)


def image_from_bytes(data: bytes, *, param: str, types: Collection[str] = IMAGE_TYPES) -> Blob:
    """An image, by its bytes. Raises InvalidRequest: none of ``types`` by its first bytes, or too much work to decode."""
    media_type = image_type(data)
    if media_type not in types or media_type is None:
        *most, last = (name for type, name in IMAGE_TYPES.items() if type in types)
        what = (
            f"{IMAGE_TYPES[media_type]} is not among the image formats here" if media_type else "unknown image format"
        )
        raise InvalidRequest(f"{what}: {', '.join(most)} and {last} are accepted", param=param)
    if media_type == "image/png":
        _check_chunks(data, param)
    width, height = image_size(data)
    if width * height > PIXELS:
        raise InvalidRequest(f"an image may have at most {PIXELS} pixels, not {width} x {height}", param=param)
    if max(width, height) > SIDE:
        raise InvalidRequest(f"a side of an image may have at most {SIDE} pixels", param=param)
    if media_type == "image/jpeg":
        scans = min(SCANS, PASSED // max(1, width * height))
        if sum(1 for _ in islice(_SCAN.finditer(data), scans + 1)) > scans:
            raise InvalidRequest(f"a JPEG of {width} x {height} pixels may have at most {scans} scans", param=param)
    return Blob(data, media_type)


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height that an image's header claims; 0 and 0 where there is no such header to read.

    Raises:
        InvalidRequest: a JPEG in more pieces than any program makes.
    """
    match image_type(data):
        case "image/png" if data[12:16] == b"IHDR" and len(data) >= 24:
            width, height = struct.unpack_from(">II", data, 16)
        case "image/gif" if len(data) >= 10:
            width, height = struct.unpack_from("<HH", data, 6)
        case "image/jpeg":
            width, height = _jpeg_size(data)
        case "image/webp":
            width, height = _webp_size(data)
        case _:
            return 0, 0
    return width, height


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """From its first frame header, segment by segment up to the pixels, as decoders look for it."""
    size = (0, 0)
    at, between = 2, 0
    for _ in range(PARTS):
        found = _MARKER.search(data, at)
        between += (found.start() if found else len(data)) - at
        if between > _BETWEEN:
            break
        if found is None or found.end() + 7 > len(data):
            return size
        marker, at = data[found.end() - 1], found.end()
        if marker in _JPEG_FRAMES and size == (0, 0):
            height, width = struct.unpack_from(">HH", data, at + 3)
            size = (width, height)
        if marker == _START_OF_SCAN:
            return size
        at += max(2, int.from_bytes(data[at : at + 2], "big"))
    raise InvalidRequest(f"a JPEG may have at most {PARTS} segments, and nothing between them")


def _check_chunks(data: bytes, param: str) -> None:
    """Raises InvalidRequest for a PNG in more pieces than any program makes."""
    if sum(1 for _ in islice(chunks(data), PARTS + 1)) <= PARTS:
        return
    raise InvalidRequest(f"a PNG may have at most {PARTS} chunks", param=param)


def _webp_size(data: bytes) -> tuple[int, int]:
    kind, body = data[12:16], data[20:30]
    if len(body) < 10:
        return 0, 0
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", body, 6)
    return width & 0x3FFF, height & 0x3FFF


def audio_type(data: bytes) -> str | None:
    """The media type of WAV or MP3 bytes; None for anything else."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "audio/wav"
    # An ID3 tag, or the eleven set bits of a frame header with MPEG's layer III.
    if data.startswith(b"ID3") or (len(data) > 1 and data[0] == 0xFF and data[1] & 0xE6 == 0xE2):
        return "audio/mpeg"
    return None


def audio_from_base64(text: str, *, param: str) -> Blob:
    """Decode bare base64 into a sound.

    Raises:
        InvalidRequest: not base64, over ``AUDIO_LIMIT``, or neither WAV nor MP3 by its first bytes.
    """
    data = _decode(text, "a sound", AUDIO_LIMIT, param)
    media_type = audio_type(data)
    if media_type is None:
        raise InvalidRequest("unknown audio format: WAV and MP3 are accepted", param=param)
    return Blob(data, media_type)


def _decode(text: str, what: str, limit: int, param: str) -> bytes:
    if len(text) > 2 * limit:  # twice: there may be line breaks
        raise _too_large(what, limit, param)
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        data = _decode_loosely(text, what, param)
    if len(data) > limit:
        raise _too_large(what, limit, param)
    return data


def _too_large(what: str, limit: int, param: str) -> InvalidRequest:
    return InvalidRequest(f"{what} may have at most {limit} bytes", param=param, code=TOO_LARGE)


def _decode_loosely(text: str, what: str, param: str) -> bytes:
    """As other writers have it: in lines, of the alphabet for URLs, with ``%2B`` for a plus sign, without padding.

    No blanks within a line: they are what a careless form makes of plus signs.
    """
    if "%" in text:
        text = unquote(text)
    # Not line by line: there may be ten million of them.
    if _BLANK_WITHIN.search(text) is not None:
        raise InvalidRequest(f"illegal base64 data in {what}: there are blanks within a line", param=param)
    text = text.translate(_OTHER_ALPHABET).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"illegal base64 data in {what}: {error}", param=param) from error

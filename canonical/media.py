"""Media in messages: bytes with a type that was read off the bytes, never off a claim."""

from __future__ import annotations

import base64
import binascii
import struct

from msgspec import Struct

from canonical.errors import InvalidRequest

IMAGE_LIMIT = 20 * 1024 * 1024
"""Bytes of one encoded image."""
PIXELS = 50_000_000
"""Pixels of one image, by its header: a few hundred bytes can stand for gigabytes."""
AUDIO_LIMIT = 20 * 1024 * 1024
"""Bytes of one encoded sound."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


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


def image_from_base64(text: str, *, param: str) -> Blob:
    """Decode bare base64 or a ``data:`` URL into an image.

    Raises:
        InvalidRequest: not base64, over ``IMAGE_LIMIT`` or ``PIXELS``, or not an image by its first bytes.
    """
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidRequest("an image data URL must be base64: data:image/png;base64,...", param=param)
    return image_from_bytes(_decode(text, "an image", IMAGE_LIMIT, param), param=param)


def image_from_bytes(data: bytes, *, param: str) -> Blob:
    """An image, by its bytes. Raises InvalidRequest: over ``PIXELS``, or not an image by its first bytes."""
    media_type = image_type(data)
    if media_type is None:
        raise InvalidRequest("unknown image format: PNG, JPEG, WebP and GIF are accepted", param=param)
    width, height = image_size(data)
    if width * height > PIXELS:
        raise InvalidRequest(f"an image may have at most {PIXELS} pixels, not {width} x {height}", param=param)
    return Blob(data, media_type)


def image_size(data: bytes) -> tuple[int, int]:
    """Width and height that an image's header claims; 0 and 0 where there is no such header to read."""
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
    """From its first frame header, segment by segment, as decoders look for it."""
    at = 2
    while (at := data.find(b"\xff", at)) >= 0 and at + 9 <= len(data):
        marker = data[at + 1]
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker in {0x00, 0xFF} or 0xD0 <= marker <= 0xD9 or marker == 0x01:
            at += 1  # fillings, and marks that stand alone
        else:
            at += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
    return 0, 0


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
    if len(text) > limit * 4 // 3 + 4:
        raise InvalidRequest(f"{what} may have at most {limit} bytes", param=param)
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidRequest(f"illegal base64 data in {what}: {error}", param=param) from error

"""Media in messages: bytes with a type that was read off the bytes, never off a claim."""

from __future__ import annotations

import base64
import binascii

from msgspec import Struct

from canonical.errors import InvalidRequest

IMAGE_LIMIT = 20 * 1024 * 1024
"""Bytes of one encoded image."""
AUDIO_LIMIT = 20 * 1024 * 1024
"""Bytes of one encoded sound."""

_MAGIC = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)


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
        InvalidRequest: not base64, over ``IMAGE_LIMIT``, or not an image by its first bytes.
    """
    if text.startswith("data:"):
        head, comma, text = text.partition(",")
        if not comma or not head.endswith(";base64"):
            raise InvalidRequest("an image data URL must be base64: data:image/png;base64,...", param=param)
    data = _decode(text, "an image", IMAGE_LIMIT, param)
    media_type = image_type(data)
    if media_type is None:
        raise InvalidRequest("unknown image format: PNG, JPEG, WebP and GIF are accepted", param=param)
    return Blob(data, media_type)


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

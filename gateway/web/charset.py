"""UTF-8, which is JSON's encoding: bodies are brought into it where the request tells what they are in, and answers say it.

PowerShell writes files with a byte order mark, some of them in UTF-16, and until 7.4 sends a text without a ``charset`` in
Latin-1. Services in Python take the files; nobody takes the Latin-1, and people who write French meet it on their first day.
The one of Windows also reads as Latin-1 what does not say that it is JSON in UTF-8.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterable

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # which begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_CHARSET = re.compile(rb';\s*charset\s*=\s*"?([\w.:-]{1,40})', re.IGNORECASE)
_TEXTS = frozenset(
    ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be", "iso8859-1", "iso8859-15", "cp1252")
)
"""Encodings that are nothing else: Python knows others that compute."""


def in_utf8(body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """``body`` in UTF-8. What cannot be brought into it stays as it is: the dialect finds the words for that."""
    if body.isascii() and b"\0" not in body[:4]:  # nearly always
        return body
    for mark, encoding in _MARKS:
        if body.startswith(mark):
            return _recoded(body[len(mark) :], encoding) or body
    encoding = ""
    powershell = False
    for name, value in headers:
        if name == b"content-type":
            if value[:10].lower() == b"multipart/":  # its parts are texts and pictures, each in its own way
                return body
            if found := _CHARSET.search(value):
                encoding = found[1].decode()
        elif name == b"user-agent":
            powershell = b"PowerShell/" in value
    if not encoding and not powershell:
        return body
    wide = encoding and b"\0" in body[:4]
    if not wide and _recoded(body, "utf-8"):  # some say Latin-1 by habit, and send what JSON is in
        return body
    return _recoded(body, encoding or "iso8859-1") or body


def as_read(media_type: bytes, body: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The media type of an answer, with its ``charset`` for who asked by ``headers`` and would read another one."""
    if media_type != b"application/json" or body.isascii():
        return media_type
    windows = any(name == b"user-agent" and b"WindowsPowerShell/" in value for name, value in headers)
    return b"application/json; charset=utf-8" if windows else media_type


def _recoded(body: bytes, encoding: str) -> bytes:
    """Empty: it is not in ``encoding``, or that is none of those that are taken."""
    try:
        name = codecs.lookup(encoding).name
        if name == "utf-8":
            body.decode()
            return body
        return body.decode(name).encode() if name in _TEXTS else b""
    except (LookupError, UnicodeError):
        return b""

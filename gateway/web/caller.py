"""Who asks, and how: what the guard has read off a request's headers, for the exchange behind it.

Dragoman-Strict: true       a field that would be dropped is an error instead
Dragoman-Report: header     the answer's header Dragoman-Report says what became of each field
Dragoman-Report: body       so does the end of its body: a comment of SSE, a field of JSON and of the last line
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal, cast

from msgspec import Struct, structs

from canonical.report import Report

if TYPE_CHECKING:
    from collections.abc import Mapping

CALLER = "dragoman.caller"
"""The scope's extension under which the exchange finds its ``Caller``."""
HEADER = b"dragoman-report"
HEADER_LIMIT = 4096
"""Bytes of the report in a header; clients and proxies refuse larger ones. Longer reports end in a count."""
FIELD = b'"dragoman_report":'

Place = Literal["", "header", "body"]
_PLACES: dict[bytes, Place] = {b"header": "header", b"true": "header", b"1": "header", b"body": "body"}
_TRUE = frozenset((b"true", b"1"))


class Caller(Struct, frozen=True):
    """One request's sender."""

    owner: str = ""
    """Stands for the key it came with; empty where there are no keys. What is stored belongs to it."""
    strict: bool = False
    manage: bool = True
    """Whether it may change which models there are."""
    priority: int = 0
    """Its jobs go before those of callers with less."""
    report: Place = ""


ANYBODY = Caller()


def caller_of(scope: Mapping[str, Any]) -> Caller:
    """What the guard noted; nobody in particular where there was none."""
    return cast("Caller", (scope.get("extensions") or {}).get(CALLER, ANYBODY))


def with_wish(caller: Caller, name: bytes, value: bytes) -> Caller:
    """``caller`` with what one header of a request asks for."""
    value = value.strip().lower()
    if name == b"dragoman-strict":
        return structs.replace(caller, strict=caller.strict or value in _TRUE)
    return structs.replace(caller, report=_PLACES.get(value, ""))


def header_value(report: Report) -> bytes:
    """The report as one line of ASCII JSON, at most ``HEADER_LIMIT`` bytes."""
    whole = _json(report.honoured, report.approximated, report.dropped)
    if len(whole) <= HEADER_LIMIT:
        return whole
    counts = {"honoured": len(report.honoured), "approximated": len(report.approximated)}
    return json.dumps({"too_long_for_a_header": {**counts, "dropped": len(report.dropped)}}).encode()


def in_body(report: Report, frames: bytes, media_type: bytes) -> bytes:
    """The last bytes of an answer with the report in them: a comment of SSE, or a field of the last JSON object."""
    told = _json(report.honoured, report.approximated, report.dropped)
    if b"event-stream" in media_type:
        return frames + b": dragoman-report " + told + b"\n\n"
    end = frames.rstrip()
    if not end.endswith(b"}"):
        return frames
    return end[:-1] + b"," + FIELD + told + b"}" + frames[len(end) :]


def _json(honoured: tuple[str, ...], approximated: dict[str, str], dropped: tuple[str, ...]) -> bytes:
    return json.dumps({"honoured": honoured, "approximated": approximated, "dropped": dropped}).encode()

"""Bodies in parts (``multipart/form-data``): the fields and files of a form, whoever wrote it and however hostile it is.

What a part calls itself, its file name and its media type, counts for nothing: the bytes tell.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct
from multipart import (
    MultipartError,
    MultipartSegment,
    ParserLimitReached,
    PushMultipartParser,
    parse_options_header,
)

from canonical.errors import InvalidRequest

PARTS = 64
"""Of one form: pictures, and the fields beside them."""
HEAD = 4096
"""Bytes of one header of a part."""
HEADS = 16
"""Headers of a part; browsers send two."""
BOUNDARY = 200
"""Characters; the standard allows 70, and some clients think more of it."""

_KIND = b"multipart/form-data"


class Part(Struct, frozen=True):
    """One field or file."""

    name: str
    data: bytes

    def text(self) -> str:
        """Its text. Raises InvalidRequest: it is not UTF-8."""
        try:
            return self.data.decode()
        except UnicodeDecodeError as error:
            raise InvalidRequest(f"the field {self.name[:100]!r} is not UTF-8", param=self.name[:100]) from error


def is_form(content_type: bytes) -> bool:
    """Whether a body of this type comes in parts."""
    return content_type.partition(b";")[0].strip().lower() == _KIND


def read_form(content_type: bytes, body: bytes, *, parts: int = PARTS) -> list[Part]:
    """The parts in their order; those without a name are none.

    Raises:
        InvalidRequest: the form is broken off, malformed, or has more than ``parts`` of them.
    """
    _, options = parse_options_header(content_type.decode("latin-1")[: 2 * BOUNDARY + len(_KIND)])
    boundary = options.get("boundary", "")
    if not boundary:
        raise InvalidRequest("the form has no boundary in its Content-Type")
    if len(boundary) > BOUNDARY:
        raise InvalidRequest(f"the boundary of the form has more than {BOUNDARY} characters")
    try:
        return list(_parts(boundary.encode("latin-1"), body, parts))
    except (MultipartError, UnicodeError) as error:
        _let_go(error)
        if isinstance(error, ParserLimitReached):
            words = f"the form has more than {parts} parts, or a part with too long a head"
        else:
            words = f"the form cannot be read: {error}"
        raise InvalidRequest(words) from error


def _let_go(error: BaseException | None) -> None:
    """The parser keeps its error, and that its frames: a circle, in which the whole body would stay behind."""
    while error is not None:
        error.__traceback__ = None
        error = error.__context__


def _parts(boundary: bytes, body: bytes, most: int) -> Iterator[Part]:
    parser = PushMultipartParser(
        boundary, max_header_size=HEAD, max_header_count=HEADS, max_segment_count=most, header_charset="utf8"
    )
    name: str | None = None
    data = b""
    with parser:
        for event in parser.parse(body):
            if isinstance(event, MultipartSegment):
                name, data = event.name, b""
            elif event is None:
                if name:
                    yield Part(name, data)
            else:
                data = data + event if data else bytes(event)

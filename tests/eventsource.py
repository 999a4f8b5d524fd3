r"""The parser of event streams as the HTML standard words it, for what any ``EventSource`` would hear.

stream = [bom] *event;  lines end with \r\n, \n or \r;  one blank behind the colon is no part of a value;
several ``data`` lines are one text with \n between;  an event without text is none;  one that no blank line ends is none
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Heard(NamedTuple):
    event: str
    data: str


def heard(stream: bytes) -> list[Heard]:
    text = stream.decode("utf-8", "replace").removeprefix("\ufeff")
    found: list[Heard] = []
    name, data = "", ""
    *lines, _unfinished = re.split(r"\r\n|\n|\r", text)
    for line in lines:
        field, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                found.append(Heard(name or "message", data.removesuffix("\n")))
            name, data = "", ""
        elif field == "data":
            data += value + "\n"
        elif field == "event":
            name = value
    return found


def answer(stream: bytes) -> str:
    """The text of a whole answer of plain text, which ``[DONE]`` ends."""
    *pieces, last = heard(stream)
    assert last == ("message", "[DONE]")
    assert all(name == "message" for name, _ in pieces), pieces
    return "".join(data for _, data in pieces)

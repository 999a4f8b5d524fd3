"""What an engine tells beside the answer: how many of its tokens were thoughts, and which stop string ended it.

Asked for only where it matters, for it makes every chunk longer. xllamacpp counts the tokens so far in each chunk
(``timings_per_token``) and names the stop string in the last one (``verbose``); the other engine writes the same fields.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec
from msgspec import Struct, structs

from canonical.events import Event, Finished

# Inside a JSON string the quotes would be escaped, so neither is ever a part of the answer's text.
_THOUGHT = b'"reasoning_content":'
_ENDED = b'"stopping_word":'
_COUNT = re.compile(rb'"predicted_n":(\d+)')


class _Ended(Struct):
    stopping_word: str = ""


class _Last(Struct, rename={"verbose": "__verbose"}):
    verbose: _Ended = msgspec.field(default_factory=_Ended)


_last = msgspec.json.Decoder(_Last)


class Notes:
    """Taken from one answer's chunks."""

    __slots__ = ("_first", "_latest", "_stop")

    def __init__(self) -> None:
        self._first = self._latest = 0
        self._stop = ""

    def read(self, chunk: bytes) -> None:
        """Look at a chunk."""
        if _THOUGHT in chunk:
            found = _COUNT.search(chunk)
            if found:
                self._latest = int(found[1])
                self._first = self._first or self._latest
        if _ENDED in chunk:
            self._stop = _last.decode(chunk).verbose.stopping_word

    def add_to(self, events: Sequence[Event]) -> list[Event]:
        """``events`` with what was found in their ``Finished``."""
        return [self._added(event) if isinstance(event, Finished) else event for event in events]

    def _added(self, end: Finished) -> Finished:
        usage = end.usage
        if self._latest and usage is not None:
            # From the first token that became a thought to the last: the tags around them are not counted.
            usage = structs.replace(usage, reasoning=min(self._latest - self._first + 1, usage.completion))
        return structs.replace(end, usage=usage, stop_sequence=self._stop or None)

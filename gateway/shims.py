"""What the configuration lets the gateway do in the prompt and in the text for a model that lacks a word for it.

Nothing of it happens unasked: a model's entry says so (``shims``, ``inline_thinking``), or what was seen of it in a file
that the configuration names; and every report tells.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from functools import lru_cache

from msgspec import Struct, structs

from backends.base import Model, new_call_id
from backends.reading import Reads, reading
from canonical.events import Event
from canonical.features import Feature
from canonical.inline import InlineThoughts, reinlined
from canonical.models import Capability, ModelInfo
from canonical.prompted_calls import CallReader
from canonical.prompted_tools import Prompted, prompted
from canonical.report import DROPPED, HONOURED, Honours, Report, Verdict, approximated
from canonical.requests import Generate, Vocabulary, has_calls
from canonical.roles import without_system
from canonical.think import CLOSE, OPEN
from gateway.settings import ModelEntry

TOLD = approximated("told to the model in the prompt; calls are read from its text")
HELD = approximated("the tools are told in the prompt, and the answer is held to the form of a call")
WORDS = approximated("told to the model in words only")
FIRST = approximated("told to the model in words, and no call after the first is passed on")
TURNS = approximated("earlier calls and their results are told as text")
ERROR = approximated("the text begins with 'Error:'")
HEAD = approximated("stands at the head of the first user message")
USER = approximated("becomes part of the user's turn")
INLINE = approximated("stand in the text of their turn, between tags, as the model wrote them")
HIDDEN = approximated("the model's thoughts are left out of the answer; it may think nevertheless")

_THINKS = (Feature.THINK_MINIMAL, Feature.THINK_LEVEL, Feature.THINK_BUDGET)


class Shimmed(Struct, frozen=True):
    """A request as the model gets it, what reads the answer, and what the model makes of it all together."""

    request: Generate
    judged: Generate
    """What the client said, for the report: in its own words, but none of them travels as it came where that is changed."""
    readers: tuple[Reads, ...]
    honours: Honours
    turns: str = ""
    """The field of earlier calls and their results, if they are told as text."""

    def told(self, report: Report) -> Report:
        """The report, with what no feature stands for."""
        if not self.turns:
            return report
        return structs.replace(report, approximated={**report.approximated, self.turns: TURNS.note})

    def read(self, stream: AsyncGenerator[Sequence[Event], None]) -> AsyncGenerator[Sequence[Event], None]:
        """The answer that ``stream`` tells, read."""
        return reading(stream, *self.readers)


def shimmed(request: Generate, entry: ModelEntry | None, model: Model) -> Shimmed | None:
    """``request`` for the model of ``entry``; None where nothing is to be done, which costs nothing.

    Raises:
        InvalidRequest, Unsupported: see ``canonical.prompted_tools``.
    """
    if model.info.inline_thinking and (entry is None or not entry.inline_thinking):
        entry = _seen(entry, model.info)
    if entry is None or not (entry.shims or entry.inline_thinking) or request.prompt is not None:
        return None
    given, info, honours = request, model.info, model.honours
    readers: list[Reads] = []
    verdicts: dict[Feature, Verdict] = {}
    if entry.inline_thinking:
        opened, tags = _tags(entry)
        hidden = request.think == "off" or (request.think is None and request.origin.dialect == "anthropic")
        readers.append(InlineThoughts(tags, opened=opened, hidden=hidden))
        request = reinlined(request, tags)
        verdicts |= {Feature.THOUGHTS: INLINE, Feature.THINK_OFF: HIDDEN}
        if info.capabilities and Capability.REASONING not in info.capabilities:
            # Its backend would refuse the wish, and the model thinks anyway.
            request = structs.replace(request, think=None, think_budget=None)
            verdicts |= {Feature.THINK_ON: HONOURED, **dict.fromkeys(_THINKS, DROPPED)}
    turns = ""
    if "tools" in entry.shims and (request.tools or has_calls(request)):
        holds = honours.verdicts.get(Feature.SCHEMA, DROPPED) == HONOURED
        asked = prompted(request, holds=holds, stops=honours.verdicts.get(Feature.STOP, DROPPED) == HONOURED)
        if asked.names:
            readers.append(
                CallReader(
                    asked.names,
                    new_call_id,
                    single=request.parallel_tool_calls is False,
                    forced=asked.held,
                    stops=asked.stops,
                )
            )
        verdicts |= {Feature.TOOL_ERROR: ERROR, **_told(asked)}
        if has_calls(request):
            turns = "input" if "input" in request.origin.vocabulary.known else "messages"
        request = asked.request
    if "system" in entry.shims:
        request = without_system(request)
        verdicts |= {Feature.SYSTEM: HEAD, Feature.SYSTEM_LATER: USER}
    if request is given and not readers:
        return None
    origin = request.origin
    judged = structs.replace(given, origin=structs.replace(origin, vocabulary=_read(origin.vocabulary)))
    return Shimmed(request, judged, tuple(readers), _changed(honours, frozenset(verdicts.items())), turns)


def said_by(request: Generate, shim: Shimmed) -> Shimmed:
    """``shim``, made of what a model brings along too, for a report on what the client itself said in ``request``."""
    return structs.replace(shim, judged=structs.replace(request, origin=shim.judged.origin))


def with_shims(info: ModelInfo, entry: ModelEntry | None) -> ModelInfo:
    """What is known of a model, with what its entry adds. Where nothing is known, nothing is claimed."""
    added = gains(entry)
    if not added or not info.capabilities or Capability.CHAT not in info.capabilities:
        return info
    return structs.replace(info, capabilities=info.capabilities | added)


def gains(entry: ModelEntry | None) -> frozenset[Capability]:
    """The abilities that the shims of ``entry`` stand for."""
    if entry is None or not (entry.shims or entry.inline_thinking):
        return frozenset()
    found = {Capability.TOOLS} if "tools" in entry.shims else set()
    if entry.inline_thinking:
        found.add(Capability.REASONING)
    return frozenset(found)


@lru_cache(256)
def _read(words: Vocabulary) -> Vocabulary:
    """What is changed here counts as read, also where the backend gets the client's own words beside it."""
    return structs.replace(words, own=frozenset())


@lru_cache(1024)
def _changed(honours: Honours, verdicts: frozenset[tuple[Feature, Verdict]]) -> Honours:
    """Remembered, because reports are remembered by the honours they are made of."""
    changed = dict(verdicts)
    refuses = {feature: words for feature, words in honours.refuses.items() if feature not in changed}
    return structs.replace(honours, verdicts={**honours.verdicts, **changed}, refuses=refuses)


def _told(asked: Prompted) -> Mapping[Feature, Verdict]:
    """What becomes of the fields about tools."""
    if not asked.names:
        return dict.fromkeys((Feature.TOOLS, Feature.TOOL_NONE, Feature.TOOL_STRICT, Feature.PARALLEL_TOOLS), HONOURED)
    must = HELD if asked.held else WORDS
    return {
        Feature.TOOLS: TOLD,
        Feature.TOOL_STRICT: HONOURED if asked.held else DROPPED,
        Feature.TOOL_REQUIRED: must,
        Feature.TOOL_NAMED: must,
        Feature.PARALLEL_TOOLS: HONOURED if asked.held else FIRST,
    }


def _seen(entry: ModelEntry | None, info: ModelInfo) -> ModelEntry:
    """The entry with what was seen of the model: a file that the configuration names says so."""
    known = entry or ModelEntry(id=info.id, backend=info.backend)
    return structs.replace(known, inline_thinking=info.inline_thinking)


def _tags(entry: ModelEntry) -> tuple[bool, tuple[str, str]]:
    """Whether answers begin in a thought, and what stands around one."""
    if isinstance(entry.inline_thinking, tuple):
        before, after = entry.inline_thinking
        return not before, (before, after)
    return entry.inline_thinking == "opened", (OPEN, CLOSE)

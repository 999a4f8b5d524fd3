"""What one model of one engine makes of everything that can be said to it: the column of the table, made true for it."""

from __future__ import annotations

import re
from functools import lru_cache

from backends.honours import TABLE
from backends.llama_cpp.body import EXTRAS, Limits
from backends.llama_cpp.facts import Facts
from canonical.features import Feature
from canonical.models import Capability
from canonical.report import DROPPED, HONOURED, REFUSED, Honours, Verdict, approximated
from canonical.requests import LoadOptions

_SWITCH = re.compile(r"\b(?:enable_)?thinking\b")
_LEVELS = "reasoning_effort"

_USER = approximated("becomes part of the user's turn, as the model has no other place for it")
_MEASURE = approximated("the model knows no levels: it thinks to its own measure")
_CUT = approximated("the model always thinks: its thoughts are cut off before they begin")
_SINCE = approximated("those since the user's last message; earlier ones are not shown to the model")
_FORCED = approximated("held where the call is forced; else up to the model")

_WISHES = (Feature.THINK_ON, Feature.THINK_MINIMAL, Feature.THINK_LEVEL, Feature.THINK_BUDGET)
_TOOLS = (
    Feature.TOOLS,
    Feature.TOOL_STRICT,
    Feature.TOOL_REQUIRED,
    Feature.TOOL_NAMED,
    Feature.PARALLEL_TOOLS,
)


def has_switch(template: str) -> bool:
    """Whether a template can be told to leave thoughts out."""
    return _SWITCH.search(template) is not None


def has_levels(template: str) -> bool:
    """Whether a template tells its model how much to think."""
    return _LEVELS in template


def honours_of(able: frozenset[Capability], limits: Limits, facts: Facts, template: str) -> Honours:
    """What becomes of each thing that can be said to a model of these abilities, on the engine of ``limits``."""
    return _honours(able, limits, facts, has_switch(template), has_levels(template))


@lru_cache(256)
def _honours(able: frozenset[Capability], limits: Limits, facts: Facts, switch: bool, levels: bool) -> Honours:
    """Remembered, because reports are remembered by the honours they are made of: a model that comes and goes leaves no more."""
    verdicts: dict[Feature, Verdict] = dict(TABLE["llama_cpp"])
    python = limits.engine != "xllamacpp"
    if Capability.REASONING in able:
        if not switch:
            verdicts[Feature.THINK_OFF] = _CUT
        if not levels:
            verdicts[Feature.THINK_LEVEL] = verdicts[Feature.THINK_MINIMAL] = _MEASURE
        else:
            verdicts[Feature.THINK_LEVEL] = verdicts[Feature.THINK_MINIMAL] = HONOURED
        verdicts[Feature.THOUGHTS] = HONOURED if facts.thoughts else _SINCE if facts.thoughts_since else DROPPED
    else:
        verdicts.update(dict.fromkeys((*_WISHES, Feature.THOUGHTS), DROPPED))
    if not facts.system:
        verdicts[Feature.SYSTEM] = _USER
    if not facts.system_later:
        verdicts[Feature.SYSTEM_LATER] = _USER
    verdicts[Feature.MESSAGE_NAME] = HONOURED if facts.names else DROPPED
    if Capability.TOOLS not in able:
        verdicts.update(dict.fromkeys(_TOOLS, REFUSED))
    elif python:
        verdicts[Feature.TOOL_STRICT] = _FORCED
    if Capability.VISION in able:
        verdicts[Feature.PROMPT_TOKENS] = verdicts[Feature.SUFFIX] = REFUSED
    else:
        verdicts.update(
            dict.fromkeys((Feature.IMAGE, Feature.IMAGE_LINK, Feature.IMAGE_DETAIL, Feature.IMAGE_PLACE), REFUSED)
        )
        if limits.fill is None:
            verdicts[Feature.SUFFIX] = REFUSED
    return Honours(
        verdicts,
        extras={"openai": EXTRAS, "ollama": frozenset(f"options.{name}" for name in EXTRAS)},
        load=LoadOptions(context=limits.context),
    )

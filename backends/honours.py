"""What each kind of backend makes of everything that can be said to it: the one table, and the tests walk it.

A backend whose models differ starts from its column and changes it by what it knows of the model.
"""

from __future__ import annotations

from functools import lru_cache

from msgspec import structs

from canonical.features import Feature
from canonical.report import DROPPED, HONOURED, REFUSED, Honours, Verdict, approximated
from canonical.requests import LoadOptions

_YES, _NO, _400 = HONOURED, DROPPED, REFUSED
_WORDS = approximated("told to the model in words only")
_USER = approximated("becomes part of the user's turn")
_LOW = approximated("the nearest level that the backend knows")
_LEVEL = approximated("the nearest level stands for the budget")
_NAMELESS = approximated("the schema holds, its name is not told")
_HELD = approximated("the form is held in any case")
_SOME = approximated("the answer ends there; which text it was is not told")
_FIRST = approximated("images stand before the text of their message")
_ERROR = approximated("the text begins with 'Error:'")
_COOL = approximated("1, the highest that the backend knows")
_MEDIUM = approximated("a medium effort stands for the model's own measure")
_OBJECT = approximated("the schema of any object stands for it")
_FORCED = approximated("the tools are told in the prompt, and the answer is held to the form of a call")
_SINGLE = approximated("no call after the first is passed on, where one is wanted")
_ALONE = approximated("this tool alone is told, and a call is demanded")
_CUT = approximated("the vector's first numbers, made unit length again")
_GRAMMAR = approximated("arguments are held to it as far as the engine's grammars go")

BACKENDS = ("llama_cpp", "openai", "ollama", "anthropic", "lmstudio", "echo")
"""The columns."""

# fmt: off
_ROWS: dict[Feature, tuple[Verdict, ...]] = {
    #                          llama_cpp  openai     ollama     anthropic  lmstudio   echo
    Feature.TEMPERATURE:       (_YES,     _YES,      _YES,      _YES,      _YES,      _NO),
    Feature.TOP_P:             (_YES,     _YES,      _YES,      _YES,      _YES,      _NO),
    Feature.TOP_K:             (_YES,     _YES,      _YES,      _YES,      _YES,      _NO),
    Feature.MIN_P:             (_YES,     _YES,      _YES,      _NO,       _NO,       _NO),
    Feature.TYPICAL_P:         (_YES,     _YES,      _YES,      _NO,       _NO,       _NO),
    Feature.REPEAT_PENALTY:    (_YES,     _YES,      _YES,      _NO,       _YES,      _NO),
    Feature.REPEAT_LAST_N:     (_YES,     _YES,      _YES,      _NO,       _NO,       _NO),
    Feature.PRESENCE_PENALTY:  (_YES,     _YES,      _YES,      _NO,       _YES,      _NO),
    Feature.FREQUENCY_PENALTY: (_YES,     _YES,      _YES,      _NO,       _YES,      _NO),
    Feature.SEED:              (_YES,     _YES,      _YES,      _NO,       _YES,      _NO),
    Feature.MAX_TOKENS:        (_YES,     _YES,      _YES,      _YES,      _YES,      _YES),
    Feature.STOP:              (_YES,     _YES,      _YES,      _YES,      _YES,      _YES),
    Feature.LOGIT_BIAS:        (_YES,     _YES,      _NO,       _NO,       _YES,      _NO),
    Feature.HOT:               (_YES,     _YES,      _YES,      _COOL,     _YES,      _NO),
    Feature.STOP_BLANK:        (_YES,     _YES,      _YES,      _NO,       _YES,      _YES),
    Feature.STOP_TOLD:         (_YES,     _SOME,     _SOME,     _YES,      _SOME,     _YES),
    Feature.SYSTEM:            (_YES,     _YES,      _YES,      _YES,      _YES,      _NO),
    Feature.SYSTEM_LATER:      (_YES,     _YES,      _YES,      _USER,     _YES,      _NO),
    Feature.MESSAGE_NAME:      (_NO,      _YES,      _NO,       _NO,       _NO,       _NO),
    Feature.IMAGE:             (_YES,     _YES,      _YES,      _YES,      _YES,      _400),
    Feature.IMAGE_LINK:        (_YES,     _YES,      _YES,      _YES,      _YES,      _400),  # the gateway follows it
    Feature.IMAGE_DETAIL:      (_NO,      _YES,      _NO,       _NO,       _NO,       _400),
    Feature.IMAGE_PLACE:       (_YES,     _YES,      _FIRST,    _YES,      _YES,      _400),
    Feature.AUDIO:             (_400,     _YES,      _YES,      _400,      _400,      _400),
    Feature.THOUGHTS:          (_YES,     _YES,      _YES,      _YES,      _YES,      _NO),
    Feature.SIGNATURE:         (_NO,      _NO,       _NO,       _YES,      _NO,       _NO),
    Feature.TOOL_ERROR:        (_ERROR,   _ERROR,    _ERROR,    _YES,      _ERROR,    _NO),
    Feature.TOOLS:             (_YES,     _YES,      _YES,      _YES,      _YES,      _400),
    Feature.TOOL_STRICT:       (_GRAMMAR, _YES,      _NO,       _YES,      _NO,       _400),
    Feature.TOOL_NONE:         (_YES,     _YES,      _YES,      _YES,      _YES,      _400),
    Feature.TOOL_REQUIRED:     (_YES,     _YES,      _FORCED,   _YES,      _YES,      _400),
    Feature.TOOL_NAMED:        (_YES,     _YES,      _FORCED,   _YES,      _ALONE,    _400),
    Feature.PARALLEL_TOOLS:    (_YES,     _YES,      _SINGLE,   _YES,      _SINGLE,   _400),
    Feature.JSON:              (_YES,     _YES,      _YES,      _OBJECT,   _OBJECT,   _400),
    Feature.SCHEMA:            (_YES,     _YES,      _YES,      _YES,      _YES,      _400),
    Feature.SCHEMA_NAME:       (_NAMELESS, _YES,      _NAMELESS, _NAMELESS, _YES,      _400),
    Feature.SCHEMA_STRICT:     (_HELD,    _YES,      _HELD,     _HELD,     _YES,      _400),
    Feature.THINK_OFF:         (_YES,     _YES,      _YES,      _YES,      _YES,      _YES),
    Feature.THINK_ON:          (_YES,     _MEDIUM,   _YES,      _YES,      _MEDIUM,   _NO),
    Feature.THINK_MINIMAL:     (_WORDS,   _YES,      _LOW,      _LOW,      _LOW,      _NO),
    Feature.THINK_LEVEL:       (_WORDS,   _YES,      _YES,      _YES,      _YES,      _NO),
    Feature.THINK_BUDGET:      (_YES,     _LEVEL,    _LEVEL,    _LEVEL,    _LEVEL,    _NO),
    Feature.LOGPROBS:          (_YES,     _YES,      _YES,      _400,      _400,      _NO),
    Feature.CONTEXT_LENGTH:    (_NO,      _NO,       _YES,      _NO,       _NO,       _NO),
    Feature.BATCH:             (_NO,      _NO,       _YES,      _NO,       _NO,       _NO),
    Feature.THREADS:           (_NO,      _NO,       _YES,      _NO,       _NO,       _NO),
    Feature.GPU_LAYERS:        (_NO,      _NO,       _YES,      _NO,       _NO,       _NO),
    Feature.MAIN_GPU:          (_NO,      _NO,       _YES,      _NO,       _NO,       _NO),
    Feature.MMAP:              (_NO,      _NO,       _YES,      _NO,       _NO,       _NO),
    Feature.KEEP_ALIVE:        (_YES,     _NO,       _YES,      _NO,       _YES,      _NO),
    Feature.PROMPT:            (_YES,     _YES,      _YES,      _400,      _YES,      _YES),
    Feature.PROMPT_TOKENS:     (_YES,     _YES,      _400,      _400,      _400,      _400),
    Feature.SUFFIX:            (_YES,     _YES,      _YES,      _400,      _400,      _400),
    Feature.PROMPT_OUTPUT:     (_YES,     _400,      _YES,      _400,      _400,      _400),
    Feature.PROMPT_THINK:      (_NO,      _NO,       _YES,      _400,      _NO,       _NO),
    Feature.DIMENSIONS:        (_YES,     _YES,      _YES,      _400,      _CUT,      _YES),
    Feature.TRUNCATE:          (_YES,     _NO,       _YES,      _400,      _NO,       _NO),
    Feature.INPUT_TOKENS:      (_YES,     _YES,      _400,      _400,      _400,      _400),
    Feature.TOP_N:             (_YES,     _YES,      _400,      _400,      _400,      _YES),
}
# fmt: on

TABLE: dict[str, dict[Feature, Verdict]] = {
    backend: {feature: row[column] for feature, row in _ROWS.items()} for column, backend in enumerate(BACKENDS)
}
"""Backend's type -> feature -> what it makes of it."""


@lru_cache(1024)
def loaded_so(honours: Honours, load: LoadOptions | None) -> Honours:
    """Those of a model that is loaded like this. Remembered, because reports are remembered by the honours they are made of."""
    return structs.replace(honours, load=load)

"""What is asked of a model: for each feature the requests, and the judge of their answers. Data, but for the runs of it.

Requests are canonical: a backend puts them into its dialect's words. All are short; equal requests of several questions
are sent once, unless one question wants two answers. ``model`` is empty: who asks fills it in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct, structs

from backends.abilities import Found
from canonical.features import LOADS, Feature
from canonical.messages import Audio, Image, Message, Reasoning, Text, ToolCall, ToolResult
from canonical.requests import Embed, Embeddings, Generate, Output, Prompt, Rerank, Sampling, Tool, ToolChoice
from gateway.probe import judges, numbers
from gateway.probe.samples import solid, tone

ROOM = 96
"""Tokens that an answer may have; who thinks unasked gets more."""
THOUGHT = 512
"""Where thoughts may come before it."""
BUDGET = 1024
"""Tokens of thoughts, for servers that want to be told; the smallest that those take."""
SHORT = 24
"""The same, where a few words show it."""
WORDS = ("qorvex", "blimzu")
"""Made up: nobody says them unless held to."""
FIELD = "zantho"
BIASED = "500"
"""A token's id. Which one does not matter: favoured beyond measure, it changes any answer."""
TOKENS = (10, 11, 12)

NOT_ASKED = {
    Feature.REPEAT_LAST_N: "shows only in long answers",
    Feature.HOT: "said by the temperature",
    Feature.STOP_BLANK: "said by the texts to stop at",
    Feature.STOP_TOLD: "seen in each answer",
    Feature.IMAGE_LINK: "the gateway follows links",
    Feature.SIGNATURE: "only who made one knows it again",
    Feature.TOOL_ERROR: "nothing tells it from its text",
    Feature.SCHEMA_NAME: "changes nothing that can be seen",
    Feature.THINK_MINIMAL: "shown by other levels",
    Feature.THINK_BUDGET: "thoughts are shorter than any budget",
    **dict.fromkeys(LOADS, "makes a server load the model again"),
    Feature.KEEP_ALIVE: "changes what a server keeps in memory",
    Feature.PROMPT_OUTPUT: "shown by conversations",
    Feature.PROMPT_THINK: "shown by conversations",
    Feature.TRUNCATE: "needs a text beyond the model's length",
    Feature.TOP_N: "the gateway cuts the list itself",
}
"""What stays as the table of backends has it, and why."""


class Question(Struct, frozen=True):
    """What shows a feature."""

    feature: Feature
    asks: tuple[Generate, ...]
    judge: judges.Judge


class VectorQuestion(Struct, frozen=True):
    """The same, of a model that embeds; without a feature it shows the ability itself."""

    feature: Feature | None
    asks: tuple[Embed, ...]
    judge: Callable[[Sequence[Embeddings]], Found]


def chat(*messages: Message | str, **more: Any) -> Generate:
    """A conversation at temperature 0; a bare text is a user's turn."""
    drawn = {name: more.pop(name) for name in Sampling.__struct_fields__ if name in more}
    sampling = Sampling(**{"temperature": 0.0, "max_tokens": ROOM, **drawn})
    turns = tuple(Message("user", (Text(each),)) if isinstance(each, str) else each for each in messages)
    return Generate(model="", messages=turns, sampling=sampling, **more)


def tool(name: str, *arguments: str, words: Sequence[str] = (), strict: bool | None = None) -> Tool:
    """A function of texts; ``words`` are the only ones that it takes."""
    kind: dict[str, Any] = {"type": "string", **({"enum": words} if words else {})}
    schema = {
        "type": "object",
        "properties": dict.fromkeys(arguments, kind),
        "required": arguments,
        "additionalProperties": False,
    }
    what = "Get the current weather." if name == "get_weather" else "Get the current time."
    return Tool(name=name, description=what, parameters=_raw(schema), strict=strict)


def _raw(value: Any) -> Raw:
    return Raw(msgspec.json.encode(value))


def _says(role: Any, *parts: Any, name: str = "") -> Message:
    return Message(role, tuple(Text(part) if isinstance(part, str) else part for part in parts), name)


CAPITAL = "What is the capital of France?"
SUM = "What is 7 + 8?"
COUNT = "Count to 20"
STORY = "Tell me a story."
PLANET = "Invent a name for a new planet, and describe it."
"""Nobody knows the answer, so that every drawing of words gives another."""
IN_PARIS = "What is the weather in Paris?"
COLOUR = "What color is the image?"
SOUND = "What do you hear?"
GREETING = "Hello!"

FIRST = Generate(model="", messages=(_says("user", CAPITAL),), sampling=Sampling(max_tokens=THOUGHT))
"""Asked before all others, and as plain as can be: whoever does not answer this answers nothing."""
CALM = chat(CAPITAL)
LONG = chat(STORY, max_tokens=1000)
"""To be left."""
COUNTING = chat(COUNT)

_WEATHER, _TIME = tool("get_weather", "city"), tool("get_time", "city")
_ODD = tool("get_weather", "city", words=WORDS, strict=True)
_CALL = ToolCall("call_1", "get_weather", '{"city": "Paris"}')
_SCHEMA = _raw(
    {
        "type": "object",
        "properties": {FIELD: {"type": "string", "enum": WORDS}},
        "required": [FIELD],
        "additionalProperties": False,
    }
)
_WISH = f"Whatever you are asked, answer with the single word {WORDS[0].capitalize()} and nothing else, in every case."
_TALK = (_says("user", GREETING), _says("assistant", "Hello! How can I help you?"))

ANSWERS = chat(
    _says("user", IN_PARIS),
    _says("assistant", _CALL),
    _says("tool", ToolResult(_CALL.id, _CALL.name, "sunny")),
    tools=(_WEATHER,),
)
"""A tool's result, fed back."""


def questions(hot: float) -> tuple[Question, ...]:
    """All about conversations and prompts; ``hot`` is a high temperature that the dialect allows."""

    def drawn(seed: int | None, **more: Any) -> Generate:
        return chat(PLANET, temperature=hot, max_tokens=SHORT, seed=seed, **more)

    cold = chat(PLANET, max_tokens=SHORT)
    varied = (drawn(None), drawn(None))
    plain = (cold, cold, *varied)
    think = tuple(chat(SUM, think=each, max_tokens=THOUGHT) for each in (None, "on", "off"))
    as_text = Prompt(text=CAPITAL)
    before = "The capital of France is"
    gap = Prompt(text=before, suffix=" It is a city on the Seine, and it is very old.")
    return (
        Question(Feature.TEMPERATURE, plain, judges.hotter),
        Question(Feature.TOP_P, (*plain, *(drawn(None, top_p=0.01),) * 2), judges.narrower),
        Question(Feature.TOP_K, (*plain, *(drawn(None, top_k=1),) * 2), judges.narrower),
        Question(Feature.MIN_P, (*plain, *(drawn(None, min_p=1.0),) * 2), judges.narrower),
        Question(Feature.TYPICAL_P, (*varied, *(drawn(None, typical_p=0.01),) * 2), judges.steadier),
        Question(
            Feature.REPEAT_PENALTY, (COUNTING, COUNTING, chat(COUNT, repeat_penalty=2.0)), judges.changed(surely=False)
        ),
        Question(
            Feature.PRESENCE_PENALTY,
            (COUNTING, COUNTING, chat(COUNT, presence_penalty=2.0)),
            judges.changed(surely=False),
        ),
        Question(
            Feature.FREQUENCY_PENALTY,
            (COUNTING, COUNTING, chat(COUNT, frequency_penalty=2.0)),
            judges.changed(surely=False),
        ),
        Question(Feature.SEED, (drawn(7), drawn(7), drawn(8), drawn(9)), judges.seeded),
        Question(Feature.MAX_TOKENS, (COUNTING, chat(COUNT, max_tokens=5)), judges.cut_short),
        Question(Feature.STOP, (COUNTING, chat(COUNT, stop=("7",))), judges.stopped_before("7")),
        Question(
            Feature.LOGIT_BIAS,
            (*(chat(CAPITAL, max_tokens=4),) * 2, chat(CAPITAL, max_tokens=4, logit_bias={BIASED: 100.0})),
            judges.changed(surely=True),
        ),
        Question(Feature.SYSTEM, (CALM, chat(_says("system", _WISH), CAPITAL)), judges.longer(WORDS[0])),
        Question(
            Feature.SYSTEM_LATER,
            (chat(*_TALK, CAPITAL), chat(*_TALK, _says("system", _WISH), CAPITAL)),
            judges.longer(WORDS[0]),
        ),
        Question(
            Feature.MESSAGE_NAME,
            (chat(_says("user", GREETING)), chat(_says("user", GREETING, name="Zanthippus_the_Third"))),
            judges.longer(),
        ),
        Question(
            Feature.IMAGE,
            tuple(chat(_says("user", Image(solid(colour)), COLOUR)) for colour in ("red", "blue")),
            judges.saw("red", "blue"),
        ),
        Question(
            Feature.IMAGE_PLACE,
            tuple(chat(_says("user", COLOUR, Image(solid(colour)))) for colour in ("red", "blue")),
            judges.saw("red", "blue"),
        ),
        Question(
            Feature.IMAGE_DETAIL,
            tuple(chat(_says("user", Image(solid("red"), detail), COLOUR)) for detail in ("low", "high")),
            judges.other_prompt,
        ),
        Question(
            Feature.AUDIO,
            (chat(SOUND, max_tokens=SHORT), chat(_says("user", SOUND, Audio(tone())), max_tokens=SHORT)),
            judges.longer(),
        ),
        Question(
            Feature.THOUGHTS,
            (chat(_says("user", SUM), _says("assistant", Reasoning("I must add 7 and 8."), "7 + 8 = 15"), CAPITAL),),
            judges.accepted,
        ),
        Question(Feature.TOOLS, (chat(IN_PARIS, tools=(_WEATHER,)),), judges.calls("get_weather", "paris")),
        Question(Feature.TOOL_STRICT, (chat(IN_PARIS, tools=(_ODD,)),), judges.strict_arguments("city", WORDS)),
        Question(
            Feature.TOOL_NONE,
            (chat(IN_PARIS, tools=(_WEATHER,)), chat(IN_PARIS, tools=(_WEATHER,), tool_choice=ToolChoice("none"))),
            judges.no_call,
        ),
        Question(
            Feature.TOOL_REQUIRED,
            (chat(GREETING, tools=(_WEATHER,), tool_choice=ToolChoice("required")),),
            judges.forced("get_weather"),
        ),
        Question(
            Feature.TOOL_NAMED,
            (chat(IN_PARIS, tools=(_WEATHER, _TIME), tool_choice=ToolChoice("named", "get_time")),),
            judges.forced("get_time"),
        ),
        Question(
            Feature.PARALLEL_TOOLS,
            tuple(
                chat("What is the weather in Paris, and in Rome?", tools=(_WEATHER,), parallel_tool_calls=each)
                for each in (True, False)
            ),
            judges.at_most_one,
        ),
        Question(Feature.JSON, (chat(f"{CAPITAL} Use no JSON.", output=Output("json")),), judges.any_object),
        Question(Feature.SCHEMA, (chat(CAPITAL, output=Output("schema", _SCHEMA)),), judges.of_schema(FIELD, WORDS)),
        Question(
            Feature.SCHEMA_STRICT,
            (chat(CAPITAL, output=Output("schema", _SCHEMA, strict=True)),),
            judges.of_schema(FIELD, WORDS),
        ),
        Question(Feature.THINK_OFF, think, judges.thinks_off),
        Question(Feature.THINK_ON, think[1:2], judges.thinks_on),
        Question(
            Feature.THINK_LEVEL,
            tuple(chat(SUM, think=each, max_tokens=THOUGHT) for each in ("low", "high")),
            judges.thinks_longer,
        ),
        Question(Feature.LOGPROBS, (chat(CAPITAL, top_logprobs=2),), judges.likely),
        Question(Feature.PROMPT, (chat(CAPITAL, max_tokens=SHORT), _prompt(as_text)), judges.raw),
        Question(Feature.PROMPT_TOKENS, (_prompt(Prompt(tokens=TOKENS)),), judges.token_prompt(len(TOKENS))),
        Question(Feature.SUFFIX, (_prompt(Prompt(text=before)), _prompt(gap)), judges.longer()),
    )


def base_questions() -> tuple[Question, ...]:
    """All about prompts, for a model that knows no turns."""
    found = []
    for question in questions(1.0):
        if question.feature is Feature.PROMPT:
            found.append(structs.replace(question, asks=question.asks[-1:], judge=judges.went_on))
        elif question.feature in {Feature.PROMPT_TOKENS, Feature.SUFFIX}:
            found.append(question)
    return tuple(found)


def _prompt(prompt: Prompt) -> Generate:
    return Generate(model="", prompt=prompt, sampling=Sampling(temperature=0.0, max_tokens=SHORT))


_TEXTS = ("a red apple", "the capital of France", "seven times eight")
EMBEDS = VectorQuestion(None, (Embed(model="", inputs=_TEXTS[1:2]), Embed(model="", inputs=_TEXTS)), numbers.vectors)
"""The first question to a model that may embed."""


def vector_questions(length: int) -> tuple[VectorQuestion, ...]:
    """All about vectors, of a model whose own have ``length`` numbers."""
    half = max(1, length // 2)
    return (
        VectorQuestion(
            Feature.DIMENSIONS, (Embed(model="", inputs=_TEXTS[:1], dimensions=half),), numbers.dimensions(half)
        ),
        VectorQuestion(Feature.INPUT_TOKENS, (Embed(model="", inputs=(TOKENS,)),), numbers.some_vector),
    )


RERANKS = Rerank(model="", query="What is the capital of France?", documents=_TEXTS)


def settled(ask: Generate, *, off: bool, room: int, drawn: bool, budget: int | None = None) -> Generate:
    """``ask`` in the manner that a model wants.

    Args:
        ask: one of a question's.
        off: it thinks unless told not to: say so where the question says nothing of it.
        room: more tokens, for thoughts that cannot be turned off.
        drawn: False: it takes no temperature.
        budget: of thoughts, where they are asked for.
    """
    sampling = ask.sampling
    if room and sampling.max_tokens is not None:
        sampling = structs.replace(sampling, max_tokens=sampling.max_tokens + room)
    if not drawn:
        sampling = structs.replace(sampling, temperature=None)
    silent = off and ask.think is None and ask.prompt is None
    think = "off" if silent else ask.think
    return structs.replace(
        ask, sampling=sampling, think=think, think_budget=budget if think not in {None, "off"} else None
    )

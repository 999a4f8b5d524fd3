"""Answers -> what they show. Pure, and by content: that a server said 200 shows nothing.

A judge takes the answers to a question's requests, in their order. It says ``unknown`` wherever another cause is as
likely: a model that is sure of its words says the same at any temperature.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from typing import Any

from backends.abilities import Found
from canonical.events import Completion

Answers = Sequence[Completion]
Judge = Callable[[Answers], Found]

HONOURED = Found("honoured")
DROPPED = Found("dropped")
SURE = Found("unknown", "the model says the same in any case")
NO_REASONING = Found("unknown", "the model was not seen to reason")
UNSTEADY = Found("unknown", "two equal requests at temperature 0 were answered differently")


def answered(word: str) -> Judge:
    """Anything at all; ``word`` is what a model that knows things says."""

    def judge(answers: Answers) -> Found:
        (only,) = answers
        if word in only.text.casefold():
            return HONOURED
        said = "nothing" if not only.text else "something else"
        return Found("honoured", f"said {said} where {word!r} was expected")

    return judge


def hotter(answers: Answers) -> Found:
    """Cold, cold, hot, hot: the cold ones are equal, the hot ones are not."""
    cold, again, hot, other = (_said(answer) for answer in answers)
    if hot == other == cold:
        return SURE
    return HONOURED if cold == again else UNSTEADY


def narrower(answers: Answers) -> Found:
    """Cold, cold, hot, hot, then the hot ones cut down to the likeliest token: they say what the cold ones say."""
    cold, again, hot, other, first, second = (_said(answer) for answer in answers)
    if cold != again:
        return UNSTEADY
    if hot == other == cold:
        return SURE
    if first == second == cold:
        return HONOURED
    return Found("dropped", "the answers vary as much as without it")


def steadier(answers: Answers) -> Found:
    """Hot, hot, then hot with something that leaves little choice: these two are equal."""
    hot, other, first, second = (_said(answer) for answer in answers)
    if hot == other:
        return SURE
    return HONOURED if first == second else Found("unknown", "the answers vary with it, too")


def changed(*, surely: bool) -> Judge:
    """Without, without, with: the last one differs. ``surely``: so strong that no difference means no effect."""

    def judge(answers: Answers) -> Found:
        without, again, with_it = (_said(answer) for answer in answers)
        if with_it != without:
            return HONOURED if without == again else UNSTEADY
        return DROPPED if surely else Found("unknown", "it made no difference here")

    return judge


def seeded(answers: Answers) -> Found:
    """Two of one seed, two of others: the first are equal, the rest are not."""
    first, same, *others = (_said(answer) for answer in answers)
    if first != same:
        return Found("dropped", "the same seed gave two answers")
    return HONOURED if any(other != first for other in others) else SURE


def cut_short(answers: Answers) -> Found:
    """Without a limit, and with one."""
    whole, cut = answers
    if len(_said(cut)) < len(_said(whole)):
        return HONOURED if cut.reason == "length" else Found("honoured", f"the finish reason is {cut.reason!r}")
    return DROPPED


def stopped_before(word: str) -> Judge:
    """Without a stop word, and with it: the text ends before the word."""

    def judge(answers: Answers) -> Found:
        whole, cut = answers
        if word not in whole.text:
            return Found("unknown", f"the model never says {word!r}")
        return DROPPED if word in cut.text else HONOURED

    return judge


def longer(word: str = "") -> Judge:
    """Without something and with it: the answer obeys it (``word``), or the prompt has become longer."""

    def judge(answers: Answers) -> Found:
        without, with_it = answers
        if word and word in with_it.text.casefold():
            return HONOURED
        if without.usage is None or with_it.usage is None or not without.usage.prompt:
            return Found("unknown", "accepted, and nothing tells whether it was read")
        if with_it.usage.prompt > without.usage.prompt:
            return HONOURED
        if with_it.usage.prompt == without.usage.prompt:
            return Found("dropped", "the prompt has as many tokens as without it")
        return Found("unknown", "accepted, and the counted tokens do not tell")

    return judge


def accepted(answers: Answers) -> Found:
    """No more than that can be seen."""
    return Found("unknown", "accepted") if answers else DROPPED


def saw(*colours: str) -> Judge:
    """One picture a request: its colour is named, and no other one's."""

    def judge(answers: Answers) -> Found:
        right = sum(colour in answer.text.casefold() for answer, colour in zip(answers, colours, strict=True))
        if right == len(colours):
            return HONOURED
        if right and len({answer.text for answer in answers}) == len(answers):
            return Found("unknown", "some colours were right")
        return Found("dropped", "the colours that it names are not those of the pictures")

    return judge


def other_prompt(answers: Answers) -> Found:
    """The same prompt, said in two ways that should make it differently long."""
    one, other = (answer.usage.prompt if answer.usage else 0 for answer in answers)
    if not one or not other:
        return Found("unknown", "accepted, and the tokens are not counted")
    return HONOURED if one != other else Found("dropped", "the prompt has as many tokens either way")


def calls(name: str, argument: str) -> Judge:
    """An obvious need of a tool: a call comes, with its name and the right argument."""

    def judge(answers: Answers) -> Found:
        (only,) = answers
        call = next((call for call in only.tool_calls if call.name == name), None)
        if call is None:
            inline = any(mark in only.text for mark in ("<tool_call", "<function", '"arguments"', f"{name}("))
            return Found("dropped", "the call stands in the text" if inline else "no call came")
        if argument in call.arguments.casefold() and _object(call.arguments) is not None:
            return HONOURED
        return Found("honoured", "its arguments were not right")

    return judge


def no_call(answers: Answers) -> Found:
    """With free choice, and with none: no call in the second."""
    free, none = answers
    if none.tool_calls:
        return DROPPED
    return HONOURED if free.tool_calls else Found("unknown", "the model does not call in any case")


def forced(name: str) -> Judge:
    """A call must come, although another answer is more natural."""

    def judge(answers: Answers) -> Found:
        (only,) = answers
        return HONOURED if any(call.name == name for call in only.tool_calls) else DROPPED

    return judge


def at_most_one(answers: Answers) -> Found:
    """Several calls are natural: with free choice, and with at most one."""
    free, one = answers
    if len(free.tool_calls) < 2:
        return Found("unknown", "the model makes one call at a time")
    return HONOURED if len(one.tool_calls) < 2 else DROPPED


def strict_arguments(field: str, words: Sequence[str]) -> Judge:
    """A call whose natural argument its schema forbids."""

    def judge(answers: Answers) -> Found:
        (only,) = answers
        if not only.tool_calls:
            return Found("unknown", "no call came")
        found = _object(only.tool_calls[0].arguments)
        return HONOURED if found is not None and found.get(field) in words else DROPPED

    return judge


def any_object(answers: Answers) -> Found:
    """A JSON object, where plain words are natural."""
    (only,) = answers
    if _object(only.text) is not None:
        return HONOURED
    if only.reason == "length" and (not only.text.strip() or only.text.lstrip().startswith("{")):
        return Found("honoured", "the object was not finished within the limit")
    return DROPPED


def of_schema(field: str, words: Sequence[str]) -> Judge:
    """An object with just one field, whose value is one of some made-up words: nobody says that by chance."""

    def judge(answers: Answers) -> Found:
        (only,) = answers
        found = _object(only.text)
        return HONOURED if found is not None and set(found) == {field} and found[field] in words else DROPPED

    return judge


def thinks_off(answers: Answers) -> Found:
    """Not said, on, off."""
    free, on, off = answers
    if off.reasoning:
        return Found("dropped", "it thinks all the same")
    return HONOURED if free.reasoning or on.reasoning else NO_REASONING


def thinks_on(answers: Answers) -> Found:
    """On."""
    (on,) = answers
    return HONOURED if on.reasoning else NO_REASONING


def thinks_longer(answers: Answers) -> Found:
    """Low, high."""
    low, high = answers
    if not low.reasoning and not high.reasoning:
        return NO_REASONING
    longer = len(high.reasoning) > len(low.reasoning)
    return HONOURED if longer else Found("unknown", "it thinks as long at another level")


def likely(answers: Answers) -> Found:
    """Log probabilities of the text's own tokens, none above 0."""
    (only,) = answers
    if not only.logprobs:
        return DROPPED
    told = "".join(each.token for each in only.logprobs)
    plausible = all(each.logprob <= 0 or math.isclose(each.logprob, 0, abs_tol=1e-6) for each in only.logprobs)
    if plausible and only.text.strip() in told:
        return HONOURED
    return Found("approximated", "log probabilities that are not those of the text")


def raw(answers: Answers) -> Found:
    """The same words as a turn of a chat and as a prompt as it stands, which has no template around it."""
    chat, prompt = answers
    if not prompt.text and not (prompt.usage and prompt.usage.completion):
        return Found("dropped", "nothing came")
    if chat.usage and prompt.usage and prompt.usage.prompt and prompt.usage.prompt >= chat.usage.prompt:
        return Found("approximated", "the model's template stands around the prompt")
    return HONOURED


def went_on(answers: Answers) -> Found:
    """Anything, from a model that only goes on with texts."""
    (only,) = answers
    return HONOURED if only.text or (only.usage and only.usage.completion) else Found("dropped", "nothing came")


def token_prompt(count: int) -> Judge:
    """A prompt of so many token ids; servers may add one that begins a text."""

    def judge(answers: Answers) -> Found:
        (only,) = answers
        if only.usage is None or not only.usage.prompt:
            return Found("unknown", "accepted, and the tokens are not counted")
        if only.usage.prompt <= count + 1:
            return HONOURED
        return Found("dropped", f"{count} tokens became {only.usage.prompt}: the ids were read as text")

    return judge


# What no field asks for


def streamed(pieces: int) -> Found:
    """How many pieces of text a longer answer came in."""
    return HONOURED if pieces > 1 else Found("approximated", "the answer comes in one piece")


def same_whole(answers: Answers) -> Found:
    """Streamed, and whole: the same words."""
    streamed, whole = answers
    return HONOURED if streamed.text.strip() == whole.text.strip() else Found("unknown", "the words are others")


def counted(answers: Answers) -> Found:
    """Tokens of the prompt and of the answer, in each."""
    for answer in answers:
        if answer.usage is None or not answer.usage.completion:
            return Found("dropped", "no usage")
        if not answer.usage.prompt:
            return Found("approximated", "the tokens of the prompt are not counted")
    return HONOURED


def count_matches(count: int, answer: Completion) -> Found:
    """A count asked for, against the usage of the same request."""
    if answer.usage is None or not answer.usage.prompt or answer.usage.prompt == count:
        return HONOURED
    return Found("approximated", f"counted {count} where the answer's usage says {answer.usage.prompt}")


def free_again(before: float, after: float) -> Found:
    """Seconds of a short answer before a long one was left, and right after."""
    if after <= 3 * before + 2:
        return HONOURED
    return Found("dropped", f"the next answer took {after:.1f} s instead of {before:.1f}")


def _said(answer: Completion) -> str:
    return answer.reasoning + answer.text


def _object(text: str) -> dict[str, Any] | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None

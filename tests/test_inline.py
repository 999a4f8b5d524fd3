"""Thoughts that models write into their text: told apart in answers, put back in earlier turns."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from canonical.events import Event, Finished, ReasoningDelta, Started, TextDelta, TokenLogprob, ToolCallDelta, fold
from canonical.inline import InlineThoughts, reinlined
from canonical.messages import Image, Message, Reasoning, Text
from canonical.requests import Generate, Origin
from tests.cutting import cut

THINK = ("<think>", "</think>")
OTHER = ("[THINK]", "[/THINK]")
END = Finished("stop")
ANSWER = "<think>\nI must add.\n</think>\n\n15"


def told(*events: Event, tags: tuple[str, str] = THINK, **how: bool) -> list[Event]:
    reader = InlineThoughts(tags, **how)
    return [event for one in events for event in reader.feed([one])]


def answer(text: str, at: list[int], reason: Any = "stop", **how: Any) -> tuple[str, str]:
    pieces = [TextDelta(piece) for piece in cut(text, at)]
    whole = fold(told(Started("m"), *pieces, Finished(reason), **how))
    assert whole.reason == reason
    return whole.reasoning, whole.text


CUTS = st.lists(st.integers(0, 100), max_size=6)


@given(at=CUTS)
def test_m3_thoughts_are_told_apart_whatever_the_slices(at: list[int]) -> None:
    assert answer(ANSWER, at) == ("I must add.", "15")
    assert answer(ANSWER, at, hidden=True) == ("", "15")
    assert answer(ANSWER, at, opened=True) == ("I must add.", "15")
    assert answer("I must add.\n</think>\n15", at, opened=True) == ("I must add.", "15")
    assert answer("I must add.\n</think>\n15", at, opened=True, hidden=True) == ("", "15")
    assert answer("[THINK]so[/THINK] <think>", at, tags=OTHER) == ("so", "<think>")
    assert answer("so[/THINK]yes", at, tags=("", "[/THINK]"), opened=True) == ("so", "yes")
    assert answer("so", at, "length", opened=True, hidden=True) == ("", "")
    assert answer("<think>so", at, "length") == ("so", "")


@given(at=CUTS, text=st.text())
def test_text_without_thoughts_passes_unchanged(at: list[int], text: str) -> None:
    if not text.lstrip().startswith("<think>"):
        assert answer(text, at) == ("", text)


@given(at=CUTS)
def test_m3_an_answer_is_not_lost_where_a_thought_was_expected_and_unwanted(at: list[int]) -> None:
    """Who asked for none may have got none: then what comes first is the answer."""
    assert answer("  7 + 8 = 15 ", at, opened=True, hidden=True) == ("", "  7 + 8 = 15 ")
    assert answer("", at, opened=True, hidden=True) == ("", "")
    assert answer("  ", at, opened=True) == ("", "")


def test_m5_probabilities_stay_with_the_text() -> None:
    tokens = [TokenLogprob(word, -1.0) for word in ("<think>", "so", "</think>", "15", "!")]
    events = told(*(TextDelta(token.token, (token,)) for token in tokens), END)
    assert events == [ReasoningDelta("so"), TextDelta("15", (tokens[3],)), TextDelta("!", (tokens[4],)), END]
    whole = told(TextDelta("<think>so</think>15!", tuple(tokens)), END)
    assert whole == [ReasoningDelta("so"), TextDelta("15!", tuple(tokens[3:])), END]
    blank = TokenLogprob(" ", -1.0)
    assert told(TextDelta(" ", (blank,)), TextDelta("15", (tokens[3],)), END)[0] == TextDelta(" 15", (blank, tokens[3]))
    late = told(*(TextDelta(token.token, (token,)) for token in tokens[3:]), END, opened=True, hidden=True)
    assert late == [TextDelta("15!", tuple(tokens[3:])), END]


def test_other_events_pass() -> None:
    call = ToolCallDelta(0, "x", "f", "{}")
    assert told(Started("m"), ReasoningDelta("own"), call, END) == [Started("m"), ReasoningDelta("own"), call, END]
    assert told(ReasoningDelta("own"), call, END, hidden=True) == [call, END]
    batch = [TextDelta("a"), TextDelta("b"), END]
    reader = InlineThoughts(THINK)
    assert reader.feed(batch) == batch
    assert reader.feed(batch) is batch  # nothing is done once the text has begun


@pytest.mark.parametrize("tags", [THINK, OTHER])
def test_m3_earlier_thoughts_stand_in_their_turn_as_the_model_wrote_them(tags: tuple[str, str]) -> None:
    turn = Message("assistant", (Reasoning("so\n"), Text("yes"), Reasoning("and"), Reasoning("", "signed")))
    alone = Message("assistant", (Reasoning("so"), Image("https://x/y.png")))
    unsaid = Message("assistant", (Reasoning("", "signed"), Text("ok")))
    user = Message("user", (Text("hi"),))
    request = Generate(model="m", messages=(user, turn, alone, unsaid), origin=Origin(verbatim=True))
    found = reinlined(request, tags)
    assert [message.text for message in found.messages] == [
        "hi",
        f"{tags[0]}\nso\n\nand\n{tags[1]}\n\nyes",
        f"{tags[0]}\nso\n{tags[1]}\n\n",
        "ok",
    ]
    assert found.messages[2].parts[1] == Image("https://x/y.png")
    assert not found.origin.verbatim
    plain = Generate(model="m", messages=(user,))
    assert reinlined(plain, tags) is plain

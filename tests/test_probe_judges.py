"""The judges of the probe: no server, only answers."""

from __future__ import annotations

import io
import wave
import zlib

import pytest

from backends.abilities import Abilities, Able, Found
from canonical.events import Completion, TokenLogprob, Usage
from canonical.features import Feature
from canonical.media import audio_type, image_size
from canonical.messages import ToolCall
from canonical.models import Capability
from canonical.requests import Embeddings, Ranked, Ranking
from gateway.probe import inline, judges, numbers
from gateway.probe.samples import COLOURS, solid, tone
from gateway.probe.table import write_table


def says(text: str = "", reasoning: str = "", *, calls: tuple[ToolCall, ...] = (), **more) -> Completion:
    values = {"reason": "stop", "usage": None, "timings": None, "logprobs": (), **more}
    return Completion(model="m", text=text, reasoning=reasoning, tool_calls=calls, **values)


def prompt(tokens: int, text: str = "x") -> Completion:
    return says(text, usage=Usage(tokens, 1))


def call(name: str, arguments: str = "{}") -> Completion:
    return says(calls=(ToolCall("1", name, arguments),))


A, B, C = says("a"), says("b"), says("c")
WORDS = ("qorvex", "blimzu")
CASES = [
    (judges.answered("paris"), [says("It is PARIS.")], "honoured", ""),
    (judges.answered("paris"), [A], "honoured", "something else"),
    (judges.hotter, [A, A, B, C], "honoured", ""),
    (judges.hotter, [A, A, A, A], "unknown", "in any case"),
    (judges.hotter, [A, B, C, A], "unknown", "two equal requests"),
    (judges.narrower, [A, A, B, C, A, A], "honoured", ""),
    (judges.narrower, [A, A, B, C, A, B], "dropped", "vary as much"),
    (judges.narrower, [A, A, A, A, A, A], "unknown", "in any case"),
    (judges.narrower, [A, B, C, C, A, A], "unknown", "two equal requests"),
    (judges.steadier, [A, B, C, C], "honoured", ""),
    (judges.steadier, [A, B, A, C], "unknown", "vary"),
    (judges.steadier, [A, A, A, A], "unknown", "in any case"),
    (judges.changed(surely=True), [A, A, B], "honoured", ""),
    (judges.changed(surely=True), [A, A, A], "dropped", ""),
    (judges.changed(surely=False), [A, A, A], "unknown", "no difference"),
    (judges.changed(surely=True), [A, B, C], "unknown", "two equal requests"),
    (judges.seeded, [A, A, B, A], "honoured", ""),
    (judges.seeded, [A, B, C, C], "dropped", "the same seed"),
    (judges.seeded, [A, A, A, A], "unknown", "in any case"),
    (judges.cut_short, [says("long one"), says("lo", reason="length")], "honoured", ""),
    (judges.cut_short, [says("long one"), says("lo")], "honoured", "'stop'"),
    (judges.cut_short, [says("long one"), says("long one")], "dropped", ""),
    (judges.stopped_before("7"), [says("5, 6, 7, 8"), says("5, 6, ")], "honoured", ""),
    (judges.stopped_before("7"), [says("5, 6, 7, 8"), says("5, 6, 7")], "dropped", ""),
    (judges.stopped_before("7"), [says("no"), says("no")], "unknown", "never says"),
    (judges.longer("qorvex"), [A, says("Qorvex.")], "honoured", ""),
    (judges.longer("qorvex"), [prompt(5), prompt(9)], "honoured", ""),
    (judges.longer(), [prompt(5), prompt(5)], "dropped", "as many tokens"),
    (judges.longer(), [prompt(5), prompt(4)], "unknown", "do not tell"),
    (judges.longer(), [A, A], "unknown", "nothing tells"),
    (judges.accepted, [A], "unknown", "accepted"),
    (judges.saw("red", "blue"), [says("Red."), says("It is blue.")], "honoured", ""),
    (judges.saw("red", "blue"), [says("Red."), says("It is red.")], "unknown", "some"),
    (judges.saw("red", "blue"), [says("Red."), says("Red.")], "dropped", "not those"),
    (judges.saw("red", "blue"), [says("I see nothing"), says("I see nothing")], "dropped", "not those"),
    (judges.other_prompt, [prompt(5), prompt(9)], "honoured", ""),
    (judges.other_prompt, [prompt(5), prompt(5)], "dropped", "either way"),
    (judges.other_prompt, [A, prompt(5)], "unknown", "not counted"),
    (judges.calls("f", "paris"), [call("f", '{"city": "Paris"}')], "honoured", ""),
    (judges.calls("f", "paris"), [call("f", '{"city": "Paris"')], "honoured", "not right"),
    (judges.calls("f", "paris"), [call("g", '{"city": "Paris"}')], "dropped", "no call"),
    (judges.calls("f", "paris"), [says('<tool_call>{"name": "f"}')], "dropped", "in the text"),
    (judges.no_call, [call("f"), A], "honoured", ""),
    (judges.no_call, [call("f"), call("f")], "dropped", ""),
    (judges.no_call, [A, A], "unknown", "in any case"),
    (judges.forced("f"), [call("f")], "honoured", ""),
    (judges.forced("f"), [call("g")], "dropped", ""),
    (judges.at_most_one, [says(calls=(*call("f").tool_calls, *call("f").tool_calls)), call("f")], "honoured", ""),
    (judges.at_most_one, [call("f"), call("f")], "unknown", "one call at a time"),
    (judges.at_most_one, [says(calls=call("f").tool_calls * 2), says(calls=call("f").tool_calls * 2)], "dropped", ""),
    (judges.strict_arguments("city", WORDS), [call("f", '{"city": "qorvex"}')], "honoured", ""),
    (judges.strict_arguments("city", WORDS), [call("f", '{"city": "Paris"}')], "dropped", ""),
    (judges.strict_arguments("city", WORDS), [A], "unknown", "no call"),
    (judges.any_object, [says('{"a": 1}')], "honoured", ""),
    (judges.any_object, [says('  {"a": ', reason="length")], "honoured", "not finished"),
    (judges.any_object, [says("[1]")], "dropped", ""),
    (judges.any_object, [says("Paris.")], "dropped", ""),
    (judges.of_schema("zantho", WORDS), [says('{"zantho": "blimzu"}')], "honoured", ""),
    (judges.of_schema("zantho", WORDS), [says('{"zantho": "Paris"}')], "dropped", ""),
    (judges.of_schema("zantho", WORDS), [says('{"zantho": "blimzu", "more": 1}')], "dropped", ""),
    (judges.of_schema("zantho", WORDS), [says("The capital of France is Paris.")], "dropped", ""),
    (judges.thinks_off, [says("15", "I must"), A, says("15")], "honoured", ""),
    (judges.thinks_off, [A, says("15", "I must"), A], "honoured", ""),
    (judges.thinks_off, [A, A, says("15", "I must")], "dropped", "all the same"),
    (judges.thinks_off, [A, A, A], "unknown", "not seen to reason"),
    (judges.thinks_on, [says("15", "I must")], "honoured", ""),
    (judges.thinks_on, [A], "unknown", "not seen to reason"),
    (judges.thinks_longer, [says("15", "I"), says("15", "I must")], "honoured", ""),
    (judges.thinks_longer, [says("15", "I"), says("15", "I")], "unknown", "as long"),
    (judges.thinks_longer, [A, A], "unknown", "not seen to reason"),
    (judges.likely, [says("ab", logprobs=(TokenLogprob("a", -0.1), TokenLogprob("b", 0.0)))], "honoured", ""),
    (judges.likely, [says("ab", logprobs=(TokenLogprob("x", -0.1),))], "approximated", "not those"),
    (judges.likely, [says("ab", logprobs=(TokenLogprob("ab", 0.1),))], "approximated", "not those"),
    (judges.likely, [A], "dropped", ""),
    (judges.raw, [prompt(9), prompt(5)], "honoured", ""),
    (judges.raw, [prompt(9), prompt(9)], "approximated", "template"),
    (judges.raw, [A, says("")], "dropped", "nothing"),
    (judges.went_on, [A], "honoured", ""),
    (judges.went_on, [says("")], "dropped", "nothing"),
    (judges.token_prompt(3), [prompt(4)], "honoured", ""),
    (judges.token_prompt(3), [prompt(11)], "dropped", "read as text"),
    (judges.token_prompt(3), [A], "unknown", "not counted"),
    (judges.same_whole, [A, A], "honoured", ""),
    (judges.same_whole, [A, B], "unknown", "others"),
    (judges.counted, [prompt(3), prompt(3)], "honoured", ""),
    (judges.counted, [prompt(0)], "approximated", "prompt"),
    (judges.counted, [A], "dropped", "no usage"),
]  # fmt: skip


@pytest.mark.parametrize(("judge", "answers", "fate", "note"), CASES, ids=[f"{n}" for n in range(len(CASES))])
def test_a_judge(judge, answers, fate, note):
    found = judge(answers)
    assert found.fate == fate
    assert note in found.note
    assert bool(note) is bool(found.note)


def vectors(*rows: list[float]) -> Embeddings:
    return Embeddings(model="m", vectors=rows)


X, Y, Z = [1.0, 0.0], [0.0, 1.0], [0.6, 0.8]
VECTORS = [
    (numbers.vectors, [vectors(Y), vectors(X, Y, Z)], "honoured"),
    (numbers.vectors, [vectors(Y), vectors(Y, X, Z)], "approximated"),  # the order is another
    (numbers.vectors, [vectors(Y), vectors(X, Y)], "dropped"),
    (numbers.vectors, [vectors(Y), vectors(X, [float("nan"), 1.0], Z)], "dropped"),
    (numbers.vectors, [vectors([1.0]), vectors(X, Y, Z)], "approximated"),
    (numbers.vectors, [vectors([0.0, 0.0]), vectors([0.0, 0.0], [0.0, 0.0], [0.0, 0.0])], "approximated"),
    (numbers.vectors, [vectors(X), vectors(X, X, X)], "dropped"),
    (numbers.dimensions(1), [vectors([1.0])], "honoured"),
    (numbers.dimensions(1), [vectors(X)], "dropped"),
    (numbers.some_vector, [vectors(X)], "honoured"),
    (numbers.some_vector, [vectors(X, Y, Z)], "dropped"),  # a vector an id
]


@pytest.mark.parametrize(("judge", "answers", "fate"), VECTORS)
def test_a_judge_of_vectors(judge, answers, fate):
    assert judge(answers).fate == fate


def test_scores_counts_streams_and_leaving():
    ranking = Ranking(model="m", ranked=(Ranked(1, 0.5), Ranked(0, 0.1)))
    assert numbers.ranked(2)(ranking).fate == "honoured"
    assert numbers.ranked(3)(ranking).fate == "dropped"
    assert judges.streamed(2).fate == "honoured"
    assert judges.streamed(1).fate == "approximated"
    assert judges.count_matches(7, prompt(7)).fate == "honoured"
    assert judges.count_matches(7, prompt(9)).fate == "approximated"
    assert judges.free_again(0.1, 0.2).fate == "honoured"
    assert judges.free_again(0.1, 20).fate == "dropped"


@pytest.mark.parametrize(
    ("text", "reasoning", "rest", "begins"),
    [
        ("<think>\nI must.\n</think>\n\n15", "I must.", "15", True),
        ("I must.\n</think>\n\n15", "I must.", "15", False),
        ("<think>\nI must", "I must", "", True),
    ],
)
def test_thoughts_in_the_text_are_told_apart(text, reasoning, rest, begins):
    answer = says(text)
    assert inline.thinks_inline(answer)
    assert inline.begins_thought(answer) is begins
    found = inline.apart(answer)
    assert (found.reasoning, found.text) == (reasoning, rest)
    assert not inline.thinks_inline(found)
    assert not inline.thinks_inline(says("15"))


@pytest.mark.parametrize("colour", COLOURS)
def test_a_picture_is_a_png_of_one_colour(colour):
    blob = solid(colour, side=4)
    assert image_size(blob.data) == (4, 4)
    at = blob.data.index(b"IDAT")
    length = int.from_bytes(blob.data[at - 4 : at], "big")
    assert zlib.decompress(blob.data[at + 4 : at + 4 + length]) == (b"\0" + bytes(COLOURS[colour]) * 4) * 4


def test_a_sound_is_a_wav_of_its_length():
    with wave.open(io.BytesIO(tone(seconds=0.5).data)) as sound:
        assert (sound.getnchannels(), sound.getsampwidth(), sound.getframerate()) == (1, 2, 16_000)
        assert sound.getnframes() == 8000
    assert audio_type(tone().data) == tone().media_type


def test_the_table_says_what_and_why():
    features = {Feature.SEED: "honoured", Feature.JSON: Found("refused", "must be 'text'")}
    able = Able(
        capabilities={Capability.CHAT: True, Capability.VISION: False},
        inline_thinking=True,
        context_length=4096,
        asked_with={"thinking": "enabled"},
        features=features,
        also={"chat": "honoured"},
    )
    both = Abilities(openai={"m": able}, ollama={"m:latest": Able(features={Feature.SEED: "dropped"})})
    assert write_table(both).splitlines() == [
        "m",
        "  does: chat",
        "  writes its thoughts into the text (inline_thinking)",
        "  asked with `thinking: enabled`, which its backend's settings need",
        "  context: 4096 tokens",
        "        openai    ollama",
        "  chat  honoured  -",
        "  seed  honoured  dropped",
        "  json  refused   -",
        "",
        "  json (openai) refused: must be 'text'",
    ]

"""The second engine at work with the demo model, in this process: what is computed in which step is counted, not timed."""

from __future__ import annotations

import importlib.util
import json
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from backends.llama_cpp.engine import Start
from tests.test_llama_cpp import CITIES, ROOT

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("llama_cpp") is None, reason="the extra llama-cpp-python is compiled on install"
)
LONG = "Repeat: alpha. " + "the quick brown fox " * 30
PATIENCE = 20.0


@contextmanager
def engine(name: str = "pip", *, cells: int = 0, **start: Any) -> Iterator[Any]:
    from backends.llama_cpp.llama_cpp_python import LlamaCppPython

    given = {"slots": 4, "context": 512, "batch": 32, **start}
    made = LlamaCppPython(Start(path=str(ROOT / "models" / f"{name}.gguf"), **given), cells=cells)
    try:
        yield made
    finally:
        made.close()


class Talk:
    """One request in a thread of its own, as the worker serves it. ``left``: nobody listens any more."""

    def __init__(self, engine: Any, text: str, *, taking: Callable[[], object] = lambda: None, **body: Any) -> None:
        self.left = False
        self.chunks: list[dict[str, Any]] = []
        self.failure: BaseException | None = None
        self._taking = taking
        asked = {"messages": [{"role": "user", "content": text}], "temperature": 0, "max_tokens": 200, **body}
        self._thread = threading.Thread(target=self._run, args=(engine, json.dumps(asked).encode()))
        self._thread.start()

    def _run(self, engine: Any, body: bytes) -> None:
        try:
            engine.stream("chat", body, self._emit)
        except RuntimeError as error:
            self.failure = error

    def _emit(self, chunk: bytes) -> bool:
        if chunk and not self.left:
            self.chunks.append(json.loads(chunk))
            self._taking()
        return self.left

    def wait(self) -> Talk:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self

    @property
    def pieces(self) -> list[str]:
        deltas = [choice["delta"] for chunk in self.chunks for choice in chunk.get("choices", ())]
        return [delta["content"] for delta in deltas if delta.get("content")]

    @property
    def text(self) -> str:
        return "".join(self.wait().pieces)

    @property
    def reason(self) -> str:
        reasons = [choice["finish_reason"] for chunk in self.wait().chunks for choice in chunk.get("choices", ())]
        return next((reason for reason in reasons if reason), "")

    @property
    def usage(self) -> dict[str, Any]:
        found: dict[str, Any] = self.wait().chunks[-1]["usage"]
        return found

    @property
    def cached(self) -> int:
        return int(self.usage["prompt_tokens_details"]["cached_tokens"])


class Gate:
    """Holds the engine before a step until it is opened; and keeps what each step computes."""

    def __init__(self, loop: Any) -> None:
        self.steps: list[list[tuple[int, int, int]]] = []
        """Slot, first position and number of tokens of each piece."""
        self.reached, self._open = threading.Event(), threading.Event()
        self.watch: Callable[[int], None] = lambda _: None
        """Called before each step with its number."""
        loop.look = self._look

    def _look(self, pieces: list[Any]) -> None:
        self.reached.set()
        assert self._open.wait(PATIENCE)
        self.steps.append([(piece.slot.seq, piece.start, len(piece.tokens)) for piece in pieces])
        self.watch(len(self.steps))

    def open(self) -> None:
        self._open.set()


@contextmanager
def held(made: Any, gate: Gate | None = None) -> Iterator[Gate]:
    """The engine stands before a step, busy with something small, until the block is through."""
    gate = gate or Gate(made.loop)
    small = Talk(made, "Hello!", max_tokens=1)
    try:
        assert gate.reached.wait(PATIENCE)
        yield gate
    finally:
        gate.open()
    small.wait()


def waiting(made: Any, count: int) -> None:
    """Wait until so many requests have been put in."""
    done = threading.Event()
    for _ in range(2000):
        if len(made.loop._inbox) + len(made.loop._waiting) >= count:
            return
        done.wait(0.005)
    raise AssertionError("they do not come")


def test_answers_made_together_are_those_made_alone() -> None:
    questions = [f"What is the capital of {country}?" for country, _ in CITIES[:4]] + ["Count to 9", "What is 7 + 8?"]
    with engine() as alone:
        expected = [Talk(alone, question).text for question in questions]
    with engine(slots=6) as made:
        talks = [Talk(made, question) for question in questions * 2]
        assert [talk.text for talk in talks] == expected * 2
        assert made.loop.counts.ended == 12


def test_six_answers_take_the_steps_of_one() -> None:
    with engine(slots=8) as made:
        with held(made) as gate:
            talks = [Talk(made, "Count to 9", max_tokens=20, ignore_eos=True) for _ in range(6)]
            waiting(made, 6)
        for talk in talks:
            assert talk.wait().usage["completion_tokens"] == 20
        assert len(gate.steps) < 40
        assert max(len(pieces) for pieces in gate.steps) >= 6


def test_requests_with_one_prefix_that_come_at_once_compute_it_once() -> None:
    with engine(slots=8) as made:
        with held(made):
            talks = [Talk(made, f"{LONG} {number}", max_tokens=2) for number in range(6)]
            waiting(made, 6)
        prompts = [talk.usage["prompt_tokens"] for talk in talks]
        assert min(prompts) > 150
        assert sorted(talk.cached for talk in talks)[1] > min(prompts) - 12
        assert made.loop.counts.tokens < max(prompts) + 120


def test_a_prefix_comes_from_a_slot_that_is_still_answering() -> None:
    with engine() as made:
        gate = Gate(made.loop)
        talk: list[Talk] = []

        def join(step: int) -> None:
            if step == 12:  # the first is in the middle of its answer
                talk.append(Talk(made, "Tell me a story."))
                waiting(made, 1)

        gate.watch = join
        gate.open()
        first = Talk(made, "Tell me a story.")
        assert first.text == talk[0].text
        assert talk[0].cached == talk[0].usage["prompt_tokens"] - 1


def test_a_client_that_leaves_frees_its_slot_before_the_next_step() -> None:
    with engine() as made:
        gate = Gate(made.loop)
        leaving = 0

        def leave(step: int) -> None:
            nonlocal leaving
            if not leaving and len(pieces := gate.steps[-1]) == 2 and pieces[1][1] > 40:
                talks[1].left, leaving = True, step

        gate.watch = leave
        with held(made, gate):
            talks = [Talk(made, text, ignore_eos=True, max_tokens=90) for text in ("Count to 20", "Tell me a story.")]
            waiting(made, 2)
        for talk in talks:
            talk.wait()
        assert leaving
        assert len(gate.steps) > leaving + 20
        assert all(len(pieces) == 1 for pieces in gate.steps[leaving:])
        assert all(slot.task is None for slot in made.loop.slots)


def test_a_client_that_leaves_while_its_prompt_is_computed_costs_no_step_more() -> None:
    with engine() as made:
        gate = Gate(made.loop)
        gate.watch = lambda step: setattr(talk, "left", step == 2)
        talk = Talk(made, LONG)
        gate.open()
        talk.wait()
        assert len(gate.steps) == 2
        assert talk.chunks == []
        assert Talk(made, "Count to 3").text == "1, 2, 3"


def test_a_long_prompt_does_not_hold_up_the_answers_beside_it() -> None:
    with engine(batch=16, slots=4) as made:
        gate = Gate(made.loop)

        def join(step: int) -> None:
            if step == 10:
                late.append(Talk(made, LONG, max_tokens=2))
                waiting(made, 1)

        late: list[Talk] = []
        gate.watch = join
        gate.open()
        Talk(made, "Tell me a story.").wait()
        late[0].wait()
        mixed = [pieces for pieces in gate.steps[10:] if len(pieces) == 2]
        assert len(mixed) > 8  # as many steps as the prompt has pieces
        for pieces in mixed:
            assert min(count for _, _, count in pieces) == 1
            assert sum(count for _, _, count in pieces) <= 16 + 1
        assert not [pieces for pieces in gate.steps[10:20] if len(pieces) == 1 and pieces[0][2] > 1]


def test_a_slow_reader_waits_alone() -> None:
    from backends.llama_cpp.batching.task import LAG

    slow = threading.Event()
    with engine() as made:
        stuck = Talk(made, "Tell me a story.", ignore_eos=True, max_tokens=300, taking=lambda: slow.wait(PATIENCE))
        assert Talk(made, "Tell me a story.", ignore_eos=True, max_tokens=300).usage["completion_tokens"] == 300
        (busy,) = [slot for slot in made.loop.slots if slot.task is not None]
        assert busy.task.begun <= LAG + 3
        slow.set()
        assert stuck.usage["completion_tokens"] == 300


def test_a_slow_reader_that_leaves_frees_its_slot() -> None:
    slow = threading.Event()
    with engine(slots=1) as made:
        stuck = Talk(made, "Tell me a story.", ignore_eos=True, max_tokens=300, taking=lambda: slow.wait(PATIENCE))
        waiting_too = Talk(made, "Count to 3")
        stuck.left = True
        slow.set()
        stuck.wait()
        assert waiting_too.text == "1, 2, 3"


def test_prompt_and_answer_together_are_never_more_than_the_context() -> None:
    with engine(context=64) as made:
        talk = Talk(made, "Tell me a story.", ignore_eos=True, max_tokens=None)
        assert (talk.usage["total_tokens"], talk.reason) == (64, "length")


def test_a_memory_of_which_no_part_can_be_dropped_goes_on_where_it_stands_or_begins_anew() -> None:
    with engine(slots=1) as made:
        made.loop._partial = False  # as for recurrent models
        first = Talk(made, "Count to 5")
        assert (first.text, first.cached) == ("1, 2, 3, 4, 5", 0)
        turns = [{"role": "user", "content": "Count to 5"}, {"role": "assistant", "content": "1, 2, 3, 4, 5"}]
        on = Talk(made, "", messages=[*turns, {"role": "user", "content": "Count to 3"}])
        assert on.text == "1, 2, 3"
        assert on.cached == first.usage["total_tokens"] - 1  # the token that ended the answer was never computed
        assert Talk(made, "Count to 5").cached == 0


# A memory that is full


def test_idle_slots_forget_first() -> None:
    with engine(cells=256, context=250) as made:
        for number in range(6):
            assert Talk(made, f"{number} {'beta ' * 40}", max_tokens=4).reason
        assert made.loop.counts.evicted >= 1
        assert (made.loop.counts.cut, made.loop.counts.returned) == (0, 0)


def test_then_prompts_wait_until_an_answer_has_ended() -> None:
    with engine(cells=256, context=250) as made:
        with held(made):
            talks = [Talk(made, f"{number} {'word ' * 60}", ignore_eos=True, max_tokens=30) for number in range(4)]
            waiting(made, 4)
        for talk in talks:
            assert talk.usage["completion_tokens"] == 30
        assert made.loop.counts.returned >= 1
        assert made.loop.counts.cut == 0


def test_and_at_last_the_longest_answer_ends() -> None:
    with engine(cells=256, context=250) as made:
        with held(made):
            talks = [Talk(made, f"Count to {number}", ignore_eos=True, max_tokens=200) for number in (7, 8)]
            waiting(made, 2)
        ends = sorted((talk.usage["completion_tokens"], talk.reason) for talk in talks)
        assert made.loop.counts.cut == 1
        assert [reason for _, reason in ends] == ["length", "length"]
        assert ends[0][0] < 200 == ends[1][0]


def test_a_prompt_for_which_there_is_no_room_at_all_is_told_so() -> None:
    with engine(cells=256, context=512) as made:
        (chunk,) = Talk(made, "word " * 150).wait().chunks
        assert chunk["error"]["code"] == 503
        assert Talk(made, "Count to 3").text == "1, 2, 3"


def test_a_failed_step_fails_those_who_were_in_it_and_the_next_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_cpp.llama_cpp as native

    with engine() as made:
        assert Talk(made, "Count to 3").text == "1, 2, 3"
        with monkeypatch.context() as broken:
            broken.setattr(native, "llama_decode", lambda *_: -3)
            assert "-3" in str(Talk(made, "Count to 5").wait().failure)
        talk = Talk(made, "Count to 3")
        assert (talk.text, talk.cached) == ("1, 2, 3", 0)


def test_who_still_runs_when_the_model_is_closed_is_told() -> None:
    with engine() as made:
        with held(made):
            talk = Talk(made, "Tell me a story.", ignore_eos=True, max_tokens=400)
            waiting(made, 1)
        closing = made
    assert "closed" in str(talk.wait().failure)
    assert not closing.loop._thread.is_alive()


@pytest.mark.parametrize("seed", range(3))
def test_whatever_comes_the_memory_holds_what_the_slots_say(seed: int) -> None:
    """Many requests of three tenants in a memory too small for them: some leave, some are cut, all come to an end."""
    import llama_cpp.llama_cpp as native

    chance = random.Random(seed)
    with engine(cells=512, context=250, slots=5, batch=16) as made:
        wrong: list[str] = []
        talks: list[Talk] = []

        def look(pieces: list[Any]) -> None:
            for slot in made.loop.slots:
                last = native.llama_memory_seq_pos_max(made.loop._memory, slot.seq)
                if last != len(slot.held) - 1:
                    wrong.append(f"{slot} has {last + 1}")
            if len(pieces) > 5 or sum(len(piece.tokens) for piece in pieces) > 5 + 16:
                wrong.append(f"{len(pieces)} pieces are too much")
            if talks and chance.random() < 0.05:
                chance.choice(talks).left = True

        made.loop.look = look
        for number in range(60):
            text = f"{chance.choice(['Tell me a story.', 'Count to 9', LONG[:200], LONG[:400]])} {chance.randrange(4)}"
            more: dict[str, Any] = {"dragoman_tenant": chance.choice(["", "ada", "bob"])}
            if chance.random() < 0.2:
                more["grammar"] = "root ::= [a-z ]+"
            talks.append(Talk(made, text, ignore_eos=True, max_tokens=chance.randrange(1, 120), **more))
            if number >= 4:
                talks[-5].wait()
        for talk in talks:
            talk.wait()
            assert talk.failure is None
            assert talk.left or talk.reason == "length" or "error" in talk.chunks[0]
        assert wrong == []
        assert made.loop.counts.ended == 60
        assert all(slot.task is None for slot in made.loop.slots)


# Text, piece by piece


def test_no_piece_holds_half_a_character() -> None:
    text = "né ☃ 😀 ß"
    with engine() as made:
        talk = Talk(made, "Hello!", grammar=f'root ::= "{text}"')
        assert talk.text == text
        assert len(talk.pieces) < talk.usage["completion_tokens"]  # some of its characters are several tokens
        assert not any("\ufffd" in piece for piece in talk.pieces)


@pytest.mark.parametrize("stop", ["cdefgh", "c", "bcd", "hi"])
def test_a_stop_string_is_found_across_tokens_and_nothing_of_it_goes_out(stop: str) -> None:
    text = "abcdefghijk"
    with engine() as made:
        talk = Talk(made, "Hello!", grammar=f'root ::= "{text}"', stop=["zz", stop])
        assert talk.text == text.partition(stop)[0]
        assert talk.reason == "stop"
        assert talk.chunks[-1]["__verbose"]["stopping_word"] == stop


def test_a_grammar_is_asked_about_one_token_where_that_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from backends.llama_cpp import sampling

    filled = 0
    real = sampling.Candidates.of

    def count(self: Any, logits: Any) -> Any:
        nonlocal filled
        filled += 1
        return real(self, logits)

    monkeypatch.setattr(sampling.Candidates, "of", count)
    with engine() as made:
        free = Talk(made, "Count to 5", grammar="root ::= [0-9, ]+")
        assert free.text == "1, 2, 3, 4, 5"
        assert filled == free.usage["completion_tokens"]
        filled = 0
        bent = Talk(made, "Count to 5", grammar='root ::= "yes"')
        assert bent.text == "yes"
        assert filled > bent.usage["completion_tokens"]


def test_the_same_seed_gives_the_same_answer_among_others() -> None:
    drawn = {"temperature": 0.7, "seed": 11, "max_tokens": 60}
    with engine(slots=6) as made:
        alone = Talk(made, "Tell me a story.", **drawn).text
        with held(made):
            others = [Talk(made, "Count to 20", temperature=0.7, seed=number) for number in range(4)]
            again = Talk(made, "Tell me a story.", **drawn)
            waiting(made, 5)
        assert again.text == alone
        for other in others:
            other.wait()


def test_a_seed_gives_the_same_numbers_whatever_is_cached() -> None:
    drawn = {"temperature": 1.5, "seed": 5, "top_k": 0, "logprobs": True, "top_logprobs": 3, "max_tokens": 20}
    with engine(batch=128) as made:

        def told() -> list[Any]:
            chunks = Talk(made, f"{LONG} Go on.", **drawn).wait().chunks
            return [
                choice["logprobs"] for chunk in chunks for choice in chunk.get("choices", ()) if "logprobs" in choice
            ]

        first = told()
        assert len(first) > 10
        Talk(made, f"{LONG} Stop.").wait()
        assert told() == first
        assert Talk(made, f"{LONG} Go on.", **drawn).cached > 100


def test_a_prompt_that_is_not_to_be_cached_is_computed_anew() -> None:
    with engine() as made:
        Talk(made, "Count to 3").wait()
        assert Talk(made, "Count to 3").cached > 0
        assert Talk(made, "Count to 3", cache_prompt=False).cached == 0


# Vectors


def test_several_texts_become_vectors_in_one_go(monkeypatch: pytest.MonkeyPatch) -> None:
    import llama_cpp.llama_cpp as native

    calls = 0
    real = native.llama_decode

    def decode(*given: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*given)

    monkeypatch.setattr(native, "llama_decode", decode)
    texts = ["the red house", "seven quick numbers and more", "a", "the red house stands here"] * 3
    with engine("embed", embedding=True, batch=512) as made:

        def vectors(*texts: str) -> list[list[float]]:
            found = json.loads(made.embed(json.dumps({"input": texts}).encode()))
            return [row["embedding"] for row in found["data"]]

        together = vectors(*texts)
        assert calls == 1
        for text, vector in zip(texts, together, strict=True):
            assert vectors(text)[0] == pytest.approx(vector, abs=1e-5)

"""What is decided for every step of the second engine, for any requests: which slot, which prefix, which tokens. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from backends.llama_cpp.batching.prefix import choose, soon
from backends.llama_cpp.batching.slots import Slot
from backends.llama_cpp.batching.step import TURN, plan, steps_at_most
from backends.llama_cpp.common import common

TOKENS = st.lists(st.integers(0, 2), max_size=12)
TENANT = st.sampled_from(["ada", "bob"])


@dataclass
class Asked:
    prompt: list[int]
    order: int = 0
    lags: bool = False
    answer: int = 3
    computed: list[int] = field(default_factory=list)
    steps: int = 0


def slot_of(seq: int, tenant: str, held: list[int], asked: Asked | None, used: int) -> Slot[Asked]:
    slot: Slot[Asked] = Slot(seq)
    slot.tenant, slot.held, slot.task, slot.used = tenant, held, asked, used
    return slot


@st.composite
def slots(draw: st.DrawFn) -> list[Slot[Asked]]:
    found = []
    for seq in range(draw(st.integers(1, 5))):
        held, task = draw(TOKENS), None
        if draw(st.booleans()):
            task = Asked(held + draw(st.lists(st.integers(0, 2), min_size=1, max_size=6)), order=seq)
        found.append(slot_of(seq, draw(TENANT), held, task, draw(st.integers(0, 9))))
    return found


# A slot for a prompt


@given(TOKENS, TOKENS)
def test_a_common_prefix_is_the_longest(one: list[int], other: list[int]) -> None:
    length = common(one, other)
    assert one[:length] == other[:length]
    assert length == min(len(one), len(other)) or one[length] != other[length]


@given(slots(), st.lists(st.integers(0, 2), min_size=1, max_size=12), TENANT, st.booleans())
def test_a_prompt_gets_an_idle_slot_and_only_what_its_tenant_has_computed(
    given_slots: list[Slot[Asked]], prompt: list[int], tenant: str, partial: bool
) -> None:
    idle = [slot for slot in given_slots if slot.task is None]
    choice = choose(given_slots, prompt, tenant, partial=partial)
    if choice is None:
        assert not idle
        return
    assert choice.slot in idle
    assert 0 <= choice.keep < len(prompt)
    if choice.source is None:
        assert choice.keep == 0
        return
    assert choice.source.tenant == tenant
    assert choice.source.held[: choice.keep] == prompt[: choice.keep]
    if not partial:
        assert choice.source is choice.slot
        assert choice.keep == len(choice.slot.held)
        return
    for slot in given_slots:
        if slot.tenant == tenant:
            assert min(common(slot.held, prompt), len(prompt) - 1) <= choice.keep


def test_a_conversation_goes_on_in_its_own_slot_and_a_new_one_leaves_it_alone() -> None:
    long = list(range(100))
    mine, blank = slot_of(0, "ada", long, None, 5), slot_of(1, "", [], None, 0)
    on = choose([mine, blank], [*long, 7, 8], "ada", partial=True)
    assert on is not None
    assert (on.slot, on.source, on.keep) == (mine, mine, 100)
    aside = choose([mine, blank], [*long[:20], 7, 8], "ada", partial=True)
    assert aside is not None
    assert (aside.slot, aside.source, aside.keep) == (blank, mine, 20)
    other = choose([mine, blank], [*long, 7, 8], "bob", partial=True)
    assert other is not None
    assert (other.slot, other.source, other.keep) == (blank, None, 0)


def test_what_a_neighbour_is_computing_is_seen_within_a_tenant() -> None:
    prompt = list(range(50))
    busy = slot_of(0, "ada", [], Asked(prompt), 0)
    assert soon([busy], [*prompt[:40], 9], "ada") == 40
    assert soon([busy], [*prompt[:40], 9], "bob") == 0
    busy.next = 3  # it is answering: all of its prompt is held, and ``choose`` sees it
    assert soon([busy], [*prompt[:40], 9], "ada") == 0


# The tokens of a step


@given(
    prompts=st.lists(st.tuples(st.integers(1, 60), st.integers(0, 12), st.booleans()), min_size=1, max_size=8),
    places=st.integers(1, 4),
    chunk=st.integers(1, 16),
)
def test_every_token_is_computed_once_in_its_place_and_nobody_waits_too_long(
    prompts: list[tuple[int, int, bool]], places: int, chunk: int
) -> None:
    """Requests come one after the other (length, step of arrival), and each is answered with three tokens."""
    at = [slot_of(seq, "", [], None, 0) for seq in range(places)]
    waiting = [
        (arrival, Asked([index * 1000 + token for token in range(length)], order=index, lags=lags))
        for index, (length, arrival, lags) in enumerate(sorted(prompts, key=lambda row: row[1]))
    ]
    everybody = [asked for _, asked in waiting]
    turn = 0
    while waiting or any(slot.task for slot in at):
        for slot in at:
            if slot.task is None and waiting and waiting[0][0] <= turn:
                slot.task, slot.next, slot.held = waiting.pop(0)[1], None, []
        oldest = min((slot.task.order for slot in at if slot.prefills and slot.task), default=None)
        pieces = plan(at, chunk=chunk, turn=turn)
        prefilled = 0
        for slot, start, tokens, last in pieces:
            task = slot.task
            assert task is not None
            assert tokens
            assert start == len(slot.held)
            task.computed += tokens
            slot.held += tokens
            if slot.next is None:
                prefilled += len(tokens)
                assert last == (len(slot.held) == len(task.prompt))
            else:
                assert (list(tokens), last) == ([slot.next], True)
                task.answer -= 1
            if last:
                slot.next = -1 - task.answer
        assert len({piece.slot.seq for piece in pieces}) == len(pieces)
        assert prefilled == min(
            chunk, prefilled + sum(len(s.task.prompt) - len(s.held) for s in at if s.prefills and s.task)
        )
        answering = [slot for slot in at if slot.task is not None and slot.next is not None and not slot.task.lags]
        assert {slot.seq for slot in answering} <= {piece.slot.seq for piece in pieces}
        for slot in at:
            if slot.task is not None:
                if slot.prefills and slot.task.order == oldest:
                    slot.task.steps += 1
                    assert slot.task.steps <= steps_at_most(len(slot.task.prompt), chunk=chunk)
                if slot.task.lags and slot.next is not None:
                    slot.task.lags = False  # its reader has caught up
                elif slot.task.answer <= 0:
                    slot.task, slot.next = None, None
        turn += 1
        assert turn < 2000
    for asked in everybody:
        assert asked.computed[: len(asked.prompt)] == asked.prompt
        assert len(asked.computed) == len(asked.prompt) + 3


def test_a_short_question_does_not_wait_for_a_book_and_the_book_is_read_nevertheless() -> None:
    book = slot_of(0, "", [], Asked([0] * 1000, order=0), 0)
    question = slot_of(1, "", [], Asked([0] * 10, order=1), 0)
    first = plan([book, question], chunk=16, turn=1)
    assert [(piece.slot.seq, len(piece.tokens)) for piece in first] == [(1, 10), (0, 6)]
    turns = [
        plan([book, slot_of(1, "", [], Asked([0] * 500, order=turn), 0)], chunk=16, turn=turn) for turn in range(1, 41)
    ]
    assert sum(pieces[0].slot is book for pieces in turns) == 40 // TURN


# Texts that are computed together


@given(st.lists(st.integers(0, 50), max_size=40), st.integers(1, 60), st.integers(1, 8))
def test_texts_are_packed_in_their_order_and_within_the_room(lengths: list[int], room: int, most: int) -> None:
    packed = pytest.importorskip("backends.llama_cpp.batching.vectors", exc_type=ImportError).packed
    groups = packed(lengths, room=room, most=most)
    assert [at for group in groups for at in group] == list(range(len(lengths)))
    for group in groups:
        assert 0 < len(group) <= most
        assert len(group) == 1 or sum(lengths[at] for at in group) <= room

"""The pool in thousands of lives: no promise breaks, what would break one is found, and loads are as few as can be."""

from __future__ import annotations

import pytest

from gateway import scheduling
from gateway.residents import Phase, Resident, Rules, Terms
from gateway.room import Budget
from tests.simulation.__main__ import told
from tests.simulation.optimum import Crowd, fewest_loads
from tests.simulation.plan import Act, Kind, Plan, plan_of
from tests.simulation.shrink import shrunk
from tests.simulation.world import World, live

LIVES = 300
"""Here; ``make simulate`` lives 20,000."""
CAUGHT = 200


def first_broken(limit: int) -> tuple[Plan, World, str] | None:
    for seed in range(limit):
        plan = plan_of(seed)
        world, said = live(plan)
        if said:
            return plan, world, said
    return None


def test_no_promise_breaks() -> None:
    broken = first_broken(LIVES)
    assert broken is None, told(*shrunk(*broken))


def test_a_seed_always_tells_the_same_story() -> None:
    for seed in range(20):
        assert live(plan_of(seed))[0].story == live(plan_of(seed))[0].story


def test_a_pool_that_evicts_under_a_lease_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def ready(resident: Resident) -> bool:
        return resident.phase is Phase.READY and not resident.terms.pinned

    monkeypatch.setattr(scheduling, "_evictable", ready)
    broken = first_broken(CAUGHT)
    assert broken is not None
    assert "is closed with" in broken[2]


def test_a_pool_whose_requests_do_not_join_a_load_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling.Schedule, "_joined", lambda _self, _key: None)
    broken = first_broken(CAUGHT)
    assert broken is not None
    assert "is in memory twice" in broken[2]


def test_the_story_of_a_broken_promise_is_short_and_says_how_to_see_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scheduling.Schedule, "_joined", lambda _self, _key: None)
    broken = first_broken(CAUGHT)
    assert broken is not None
    plan, world, said = shrunk(*broken)
    assert len(plan.acts) <= min(len(broken[0].acts), 4)
    story = told(plan, world, said)
    assert "is in memory twice" in story
    assert "loads" in story
    assert f"--one {plan.seed}" in story


def crowded(
    *, switch_after: float, hold: float, slots: int = 1, clients: int = 50, models: int = 5, fit: int = 2
) -> World:
    """All clients come at once, for one model after the other, and only some models fit."""
    kinds = tuple(
        Kind(f"m{number}", 1, 0, 0, slots, Terms(keep_alive=300.0), 0.0, 2.0, 0.0, 0.5, deaf=False)
        for number in range(models)
    )
    acts = tuple(Act(0.0, "ask", number % models, hold) for number in range(clients))
    rules = Rules(switch_after=switch_after, waiting_time=10_000.0, budget=Budget(ram=fit))
    world, said = live(Plan(1, kinds, rules, acts, ((),) * models, None))
    assert not said
    assert len([text for _, text in world.story if text.endswith(" is done")]) == clients
    return world


@pytest.mark.parametrize("hold", [0.05, 0.4, 0.9])
@pytest.mark.parametrize("slots", [1, 4])
def test_fifty_clients_of_five_models_of_which_two_fit_take_five_loads(hold: float, slots: int) -> None:
    assert fewest_loads([Crowd(10, hold, slots)] * 5, fit=2, switch_after=10.0) == 5
    assert crowded(switch_after=10.0, hold=hold, slots=slots).loads == [1] * 5


@pytest.mark.parametrize(("hold", "switch_after"), [(1.0, 4.0), (3.0, 10.0), (0.5, 1.0), (1.0, 2.5)])
def test_where_nobody_may_be_held_back_for_so_long_loads_are_near_the_fewest(hold: float, switch_after: float) -> None:
    fewest = fewest_loads([Crowd(10, hold)] * 5, fit=2, switch_after=switch_after)
    assert fewest > 5
    assert sum(crowded(switch_after=switch_after, hold=hold).loads) <= 1.5 * fewest


def test_two_clients_in_turn_switch_no_more_often_than_the_bound_allows() -> None:
    """Each asks again as soon as it is answered: without damping every answer would take a load."""
    kinds = tuple(Kind(f"m{number}", 1, 0, 0, 1, Terms(), 0.0, 2.0, 0.0, 0.5, deaf=False) for number in range(2))
    acts = tuple(Act(0.01 * step + 0.3 * step, "ask", model, 0.25) for step in range(200) for model in range(2))
    rules = Rules(switch_after=10.0, waiting_time=10_000.0, budget=Budget(ram=1))
    world, said = live(Plan(1, kinds, rules, acts, ((), ()), None))
    assert not said
    assert sum(world.loads) <= 200 * 2 * 0.25 / 10.0 + 4

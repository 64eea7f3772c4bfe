"""How many denoising steps a machine gets."""

from __future__ import annotations

import pytest

from diamond_core.world.deadline import StepBudget


def settle(step_seconds: float, rest: float, frames: int = 400, slow: tuple[int, ...] = ()) -> list[int]:
    budget, history = StepBudget(15.0), []
    for i in range(frames):
        seconds = rest + step_seconds * budget.steps + (0.5 if i in slow else 0.0)
        budget.observe(budget.steps, seconds)
        history.append(budget.steps)
    return history


@pytest.mark.parametrize("step_seconds, rest", [(0.002, 0.005), (0.008, 0.008), (0.02, 0.005), (0.2, 0.02)])
def test_keeps_the_rate_where_it_can_and_settles(step_seconds, rest):
    history = settle(step_seconds, rest)
    steps = history[-1]
    assert len(set(history[-200:])) == 1, "it settles"
    assert steps == 1 or rest + step_seconds * steps <= 1 / 15
    if steps < 10:
        assert rest + step_seconds * (steps + 2) > 0.6 / 15, "it does not leave half of the time unused"


def test_a_world_has_its_least_steps():
    budget = StepBudget(15.0, 1, least=2)
    for _ in range(100):
        assert budget.steps == 2
        budget.observe(budget.steps, 0.9)


def test_one_slow_frame_changes_nothing():
    assert settle(0.008, 0.008, slow=(200,))[150:] == settle(0.008, 0.008)[150:]

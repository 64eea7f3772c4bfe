"""Timings are taken side by side, equal functions agree, and players are counted by the slow frames."""

from __future__ import annotations

import time

import pytest

from diamond_core.device import resolve
from diamond_core.evaluation.speed import Timing, difference_db, dreaming, imagination, players, side_by_side
from tests.conftest import EXACT


def test_side_by_side_calls_in_turn_and_forgets_the_first_call():
    calls: list[str] = []
    first = [True]

    def slow_at_first() -> None:
        calls.append("b")
        if first:
            first.clear()
            time.sleep(0.1)

    timings = side_by_side({"a": lambda: calls.append("a"), "b": slow_at_first}, resolve(EXACT), 0.0, burst=2, least=3)
    assert "".join(calls) == "ab" + "aabb" * 3
    assert len(timings["a"].seconds) == 6 and timings["b"].quantile(1.0) < 0.1
    assert set(timings["a"].to_json()) == {"median_ms", "p95_ms", "p99_ms", "calls"}


@pytest.mark.parametrize(("seconds", "made"), [(0.03, "abab"), (0.003, "ab")])
def test_a_call_longer_than_the_measurement_is_made_once_or_twice(seconds, made):
    calls: list[str] = []
    slow = {name: lambda name=name: (calls.append(name), time.sleep(0.04)) for name in "ab"}
    timings = side_by_side(slow, resolve(EXACT), seconds)
    assert "".join(calls) == made and len(timings["b"].seconds) == 1 and timings["b"].quantile(0.5) >= 0.04


def test_quantiles_are_in_milliseconds():
    timing = Timing([0.001 * i for i in range(101)])
    assert timing.to_json()["median_ms"] == pytest.approx(50) and timing.to_json()["p99_ms"] == pytest.approx(99)


def test_players_are_counted_by_their_slow_frames():
    fast, slow = Timing([0.01] * 100), Timing([0.01] * 90 + [0.1] * 10)
    assert players({1: fast, 2: fast, 4: slow}) == 2 and players({1: slow}) == 0


def test_a_world_agrees_with_itself_and_not_with_another(small_agent, monkeypatch):
    one, other = small_agent.world(runtime=EXACT), small_agent.world(runtime=EXACT)
    state = small_agent.dream(one)
    assert difference_db(one, other, state) == 99
    monkeypatch.setattr(other.engine, "denoise", lambda past, actions, sigmas: lambda x, sigma: x * 0)
    assert difference_db(one, other, state) < 30


def test_dreams_go_on_and_large_batches_end_the_measurement(small_agent):
    world = small_agent.world(runtime=EXACT)
    step = dreaming(world, small_agent.dream(world))
    assert step().steps.item() == 1 and step().steps.item() == 2
    told: list[str] = []
    found = imagination(world, small_agent.dream(world), (1, 2, 4), 0.0, told.append)
    assert list(found) == [1] and "1 dreams at once" in told[0]
    found = imagination(world, small_agent.dream(world), (1, 3), 0.5, told.append)
    assert list(found) == [1, 3]

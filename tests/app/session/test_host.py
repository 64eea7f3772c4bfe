"""The host: one batch for all who are due, none changed by its neighbours, none stopped by another's error."""

from __future__ import annotations

import threading
from collections import Counter

import numpy as np
import pytest
import torch

from app.session.clock import FakeClock
from app.session.host import Host
from app.session.session import Session
from app.session.view import View
from tests.app.session.conftest import Build, RowWorld


@pytest.fixture
def world(pong_agent) -> RowWorld:
    return RowWorld(pong_agent)


@pytest.fixture
def enter(pong_agent, world: RowWorld, clock: FakeClock):
    def session(seed: int = 0, **options: object) -> Session:
        return Session(pong_agent, world, **{"game": "Pong", "seed": seed, "clock": clock, "reality": False, **options})

    return session


def rounds(host: Host, clock: FakeClock, n: int) -> None:
    for _ in range(n):
        host.round()
        clock.advance(1 / 15)


def test_all_who_are_due_are_one_batch(enter, world: RowWorld, clock: FakeClock):
    host, seen = Host(clock), Counter()
    for seed in range(5):
        host.add(enter(seed), lambda view, seed=seed: seen.update([seed]))
    rounds(host, clock, 10)
    assert world.batches == [5] * 10 and set(seen.values()) == {10}


@pytest.mark.parametrize("by_host", [True, False])
def test_the_clock_waits_for_what_a_gpu_was_only_told_to_do(enter, world: RowWorld, clock: FakeClock, by_host):
    class Queued(torch.Tensor):
        def cpu(self):
            clock.advance(0.05)
            return self.as_subclass(torch.Tensor)

    step, session = world.step, enter()
    world.step = lambda *x: (made := step(*x))._replace(rewards=made.rewards.as_subclass(Queued))
    if by_host:
        host = Host(clock)
        host.add(session, lambda _: None)
        host.round()
    else:
        session.tick()
    assert session.view.milliseconds > 49


def test_who_comes_at_another_moment_joins_the_beat(enter, world: RowWorld, clock: FakeClock):
    host = Host(clock)
    for seed in range(3):
        host.add(enter(seed), lambda view: None)
        host.round()
        clock.advance(0.02)
    world.batches.clear()
    for _ in range(1000):
        host.round()
        clock.advance(0.002)
    assert Counter(world.batches[5:]).most_common()[0][0] == 3 and len(world.batches) == pytest.approx(30, abs=3)


def test_everybodys_speed_is_the_own(enter, world: RowWorld, clock: FakeClock):
    host, seen, speeds = Host(clock), Counter(), (1, 1, 0.25, 0.75, 2)
    for seed, speed in enumerate(speeds):
        session = enter(seed)
        session.speed = speed
        host.add(session, lambda view, seed=seed: seen.update([seed]))
    for _ in range(5000):
        host.round()
        clock.advance(0.002)
    assert [seen[seed] for seed in range(5)] == pytest.approx([150 * speed for speed in speeds], rel=0.03)


def test_groups_of_equal_knobs(enter, world: RowWorld, clock: FakeClock):
    host = Host(clock)
    for seed in range(6):
        session = enter(seed)
        session.set_knobs(steps=2 if seed % 3 else 5)
        host.add(session, lambda view: None)
    rounds(host, clock, 4)
    assert world.batches == [2, 4] * 4 and set(world.asked) == {2, 5}


def test_mates_never_change_a_session(enter, clock: FakeClock):
    def watch(n: int) -> list[bytes]:
        host, frames = Host(clock), []
        for seed in range(n):
            session = enter(seed)
            session.who = "random"
            host.add(session, (lambda view: frames.append(view.frame.tobytes())) if seed == 0 else lambda view: None)
        rounds(host, clock, 30)
        return frames

    alone = watch(1)
    assert alone == watch(4) and len(set(alone)) == 30


def test_a_real_network_is_changed_by_mates_in_rounding_only(build: Build, clock: FakeClock):
    def first(n: int) -> np.ndarray:
        host, seen = Host(clock), []
        for seed in range(n):
            host.add(build(seed=seed), seen.append if seed == 0 else lambda view: None)
        rounds(host, clock, 2)
        return np.stack([view.frame for view in seen[:2]]).astype(int)

    alone, together = first(1), first(5)
    assert np.abs(alone - together).max() <= 2 and (alone == together).mean() > 0.98


def test_slow_machines_are_slow_for_all_alike(enter, world: RowWorld, clock: FakeClock):
    host, seen = Host(clock), Counter()
    world.on_step = lambda: clock.advance(0.15)
    for seed in range(4):
        host.add(enter(seed), lambda view, seed=seed: seen.update([seed]))
    for _ in range(60):
        host.round()
        clock.advance(0.001)
    assert max(seen.values()) - min(seen.values()) <= 1 and host.rate == pytest.approx(1 / 0.151, rel=0.1)
    assert all(session.view.slipping for session in host.sessions)


def test_an_error_is_the_sessions_own(enter, world: RowWorld, clock: FakeClock):
    host, errors = Host(clock), []
    good, bad, ugly = enter(1), enter(2), enter(3)
    bad.listeners.append(lambda view: 1 / 0)
    seen: list[View] = []
    host.add(good, seen.append)
    host.add(bad, lambda view: None, errors.append)
    host.add(ugly, lambda view: {}["missing"], errors.append)
    rounds(host, clock, 5)
    assert host.sessions == [good] and len(seen) == 5
    assert {type(error) for error in errors} == {ZeroDivisionError, KeyError}


def test_a_batch_that_fails_is_tried_one_by_one(enter, world: RowWorld, clock: FakeClock):
    host, errors = Host(clock), []
    good, bad = enter(1), enter(2)
    world.poison = int(bad.dream.seeds[0])
    for session in (good, bad):
        host.add(session, lambda view: None, errors.append)
    rounds(host, clock, 5)
    assert host.sessions == [good] and good.view.age == 5 and len(errors) == 1


def test_calls_are_answered_and_their_views_are_shown(enter, clock: FakeClock):
    host, seen, session = Host(clock), [], enter()
    host.add(session, seen.append)
    rounds(host, clock, 2)
    done, wrong = host.call(session.reset), host.call(lambda: 1 / 0)
    host.round()
    assert done.result(0) in seen and isinstance(wrong.exception(0), ZeroDivisionError)
    assert host.sessions == [session]


def test_reality_on_its_way_back_stops_nobody(build: Build, clock: FakeClock):
    """A game of a minute is played again bit by bit; its player waits, the others do not."""
    host, seen, other = Host(clock), [], build(seed=1, reality=False)
    session, alone = build(), build()
    for one in (session, alone):
        for action in range(900):
            one.real.step(action % 6)
        one.real.go_to(one.real.mark())
    host.add(session, lambda view: None)
    host.add(other, seen.append)
    rounds(host, clock, 2)
    assert session.real.behind > 1 and session.view.age == 0 and len(seen) == 2
    host.round()
    while session.real.behind:
        # time stands still: nobody is due
        assert host.round() == 1 and session.view.reality is not None and len(seen) == 3
    clock.advance(1)
    host.round()
    np.testing.assert_array_equal(session.view.reality, alone.tick().reality)
    assert session.view.age == 1 and len(seen) == 4


def test_a_single_step_that_waited_is_not_taken_elsewhere(build: Build, clock: FakeClock):
    session, host = build(), Host(clock)
    for _ in range(6):
        session.tick()
    for action in range(500):
        session.real.step(action % 6)
    for _ in range(6):
        session.tick()
    host.add(session, lambda view: None)
    host.round()
    session.paused = True
    session.rewind_to(9)
    session.step_once()
    host.round()
    session.rewind_to(2)
    while session.real.behind:
        host.round()
    rounds(host, clock, 3)
    assert (session.timeline.cursor, session.timeline.last) == (2, 13)


def test_who_takes_over_while_reality_is_on_its_way_finds_both_at_one_moment(build: Build, clock: FakeClock):
    session = build()
    for _ in range(400):
        session.tick()
    session.start_tape()
    session.tick()
    session.rewind_to(350)
    session.paused = False
    session.tick()
    tape = session.stop_tape()
    host, follower = Host(clock), build(seed=5)
    follower.follow(tape)
    follower.real.settle()
    host.add(follower, lambda view: None)
    rounds(host, clock, 2)
    assert follower.real.behind > 1 and follower.view.led == (1, 2)
    follower.controls.press("up")
    follower.controls.release("up")
    while follower.guide is not None:
        rounds(host, clock, 1)
    follower.real.settle()
    ahead = len(session.real.trail().actions) - int(session.dream.steps)
    assert len(follower.real.trail().actions) - int(follower.dream.steps) == ahead


def test_a_tape_that_goes_back_stops_nobody(build: Build, clock: FakeClock):
    session = build()
    session.start_tape()
    session.tick()
    for action in range(900):
        session.real.step(action % 6)
    session.tick()
    tape = session.stop_tape()
    host, follower = Host(clock), build(seed=5)
    follower.follow(tape)
    host.add(follower, lambda view: None)
    rounds(host, clock, 2)
    assert follower.real.behind > 1 and follower.view.led == (1, 2)
    while follower.real.behind:
        host.round()
    clock.advance(1)
    host.round()
    assert follower.view.led == (2, 2)
    np.testing.assert_array_equal(follower.view.reality, session.view.reality)


def test_paused_sessions_cost_nothing(enter, world: RowWorld, clock: FakeClock):
    host, session, seen = Host(clock), enter(), []
    host.add(session, seen.append)
    rounds(host, clock, 1)
    host.call(lambda: setattr(session, "paused", True))
    rounds(host, clock, 3)
    before = len(seen)
    assert seen[-1].paused
    rounds(host, clock, 20)
    assert len(seen) == before and world.batches == [1] and host.round() == 0
    host.call(session.step_once)
    rounds(host, clock, 2)
    assert seen[-1].age == 2


def test_an_open_fan_grows_a_step_a_round(enter, clock: FakeClock):
    host, session, seen = Host(clock), enter(), []
    host.add(session, seen.append)
    host.call(lambda: session.open_fan(0.2))
    rounds(host, clock, 2)
    assert len(session.fan.steps) == 2 and not session.fan.done
    rounds(host, clock, 2)
    assert session.fan.done and session.fan.frames.shape[:2] == (6, 3)


def test_who_left_hears_nothing(enter, clock: FakeClock):
    host, session, seen = Host(clock), enter(), []
    host.add(session, seen.append)
    rounds(host, clock, 2)
    host.remove(session)
    rounds(host, clock, 2)
    assert len(seen) == 2 and host.sessions == []


def test_the_thread(pong_agent, world: RowWorld):
    """Real time: it steps, answers calls in its own thread, and ends."""
    threads, played = set(), threading.Event()

    def on_view(view: View) -> None:
        threads.add(threading.current_thread().name)
        if view.age == 3:
            played.set()

    with Host() as host:
        host.add(Session(pong_agent, world, game="Pong", reality=False), on_view)
        assert played.wait(20)
        assert host.call(lambda: threading.current_thread().name).result(10) == "host"
    assert threads == {"host"} and not [t for t in threading.enumerate() if t.name == "host"]
    assert host.call(lambda: None).cancelled()
    assert torch.is_tensor(world.last)

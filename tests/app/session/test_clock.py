"""The pacer holds the beat, and slips without a burst when it is late."""

from __future__ import annotations

import pytest

from app.session.clock import FakeClock, Meter, Pacer, RealClock


def beats(pacer: Pacer, clock: FakeClock, seconds: float, tick: float = 0.001) -> int:
    count = 0
    for _ in range(round(seconds / tick)):
        count += pacer.due()
        clock.advance(tick)
    return count


@pytest.mark.parametrize("speed, expected", [(1, 30), (2, 60), (0.25, 8), (9, 120)])
def test_steps_a_second(speed: float, expected: int):
    clock = FakeClock()
    pacer = Pacer(clock)
    pacer.speed = speed
    assert beats(pacer, clock, 2) == pytest.approx(expected, abs=1)
    assert not pacer.slipping


def test_jitter_keeps_the_beat():
    clock = FakeClock()
    pacer = Pacer(clock)
    assert beats(pacer, clock, 2, tick=0.025) == pytest.approx(30, abs=1)


def test_who_is_late_slips_and_makes_no_burst():
    clock = FakeClock()
    pacer = Pacer(clock)
    beats(pacer, clock, 1)
    clock.advance(0.5)
    assert pacer.due() and not pacer.due()
    assert pacer.slipping
    assert beats(pacer, clock, 1.1) == pytest.approx(16, abs=1)
    assert not pacer.slipping


def test_slow_steps_show_in_the_rate():
    clock = FakeClock()
    pacer = Pacer(clock)
    for _ in range(20):
        assert pacer.due()
        clock.advance(0.1)
    assert pacer.rate == pytest.approx(10) and pacer.slipping


def test_waiting_and_rest():
    clock = FakeClock()
    pacer = Pacer(clock)
    assert pacer.due()
    pacer.wait()
    assert clock.now() == pytest.approx(1 / 15) and pacer.due()
    clock.advance(60)
    pacer.rest()
    assert pacer.due() and not pacer.slipping


def test_a_meter_begins_anew_after_a_break():
    clock = FakeClock()
    meter = Meter(clock)
    assert meter.rate == 0
    for wait in (0.1, 0.1, 30, 0.05, 0.05):
        meter.note()
        clock.advance(wait)
    assert meter.rate == pytest.approx(20)


def test_the_real_clock_goes_on():
    clock = RealClock()
    before = clock.now()
    clock.sleep(0.002)
    clock.sleep(-1)
    assert 0.002 <= clock.now() - before < 1

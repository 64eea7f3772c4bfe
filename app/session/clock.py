"""Time for a session: a clock that is passed in, and a pacer that says when the next step is due. Our own."""

from __future__ import annotations

import time
from collections import deque
from typing import Protocol

from app.session.look import STEPS_A_SECOND

SLOWEST, FASTEST = 0.25, 4.0
"""Speeds of slow and fast motion."""


class Clock(Protocol):
    """What tells the time."""

    def now(self) -> float:
        """Seconds since some moment; never goes back."""

    def sleep(self, seconds: float) -> None:
        """Waits so long; not at all where seconds are 0 or fewer."""


class RealClock:
    """The machine's."""

    def now(self) -> float:
        """Seconds."""
        return time.perf_counter()

    def sleep(self, seconds: float) -> None:
        """Waits."""
        if seconds > 0:
            time.sleep(seconds)


class FakeClock:
    """Stands still until it is told to go on; for tests."""

    def __init__(self, now: float = 0.0) -> None:
        self._now = now

    def now(self) -> float:
        """Seconds."""
        return self._now

    def sleep(self, seconds: float) -> None:
        """Passes at once."""
        self.advance(max(seconds, 0.0))

    def advance(self, seconds: float) -> None:
        """So much later."""
        self._now += seconds


class Meter:
    """Counts events a second over the last few of them."""

    def __init__(self, clock: Clock, window: int = 16) -> None:
        self._clock = clock
        self._times: deque[float] = deque(maxlen=window)

    def note(self) -> None:
        """One happened now. After a break of two seconds counting begins anew."""
        now = self._clock.now()
        if self._times and now - self._times[-1] > 2:
            self._times.clear()
        self._times.append(now)

    @property
    def rate(self) -> float:
        """Events a second; 0 until there are two."""
        if len(self._times) < 2:
            return 0.0
        return (len(self._times) - 1) / max(self._times[-1] - self._times[0], 1e-9)


class Pacer:
    """Says when a step is due. Who is late goes on from now, and no burst of steps makes up for it."""

    def __init__(self, clock: Clock, rate: float = STEPS_A_SECOND) -> None:
        self.clock = clock
        self._rate = rate
        self._speed = 1.0
        self._next = clock.now()
        self._slipped: float | None = None
        self._meter = Meter(clock)

    @property
    def speed(self) -> float:
        """1 is the game's own speed; slow and fast motion from 0.25 to 4."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._speed = min(max(speed, SLOWEST), FASTEST)

    @property
    def period(self) -> float:
        """Seconds between two steps."""
        return 1 / (self._rate * self._speed)

    @property
    def rate(self) -> float:
        """Steps a second that really were taken, over the last second or so."""
        return self._meter.rate

    @property
    def slipping(self) -> bool:
        """Whether, within the last second, a step came so late that the beat was lost."""
        return self._slipped is not None and self.clock.now() - self._slipped < 1

    @property
    def left(self) -> float:
        """Seconds until the next step is due; 0 when it is."""
        # speed may have changed since the beat was set
        return max(min(self._next - self.clock.now(), self.period), 0.0)

    def due(self, early: float = 0.0) -> bool:
        """Whether to step now. True once a beat; `early` joins others who are due up to so many seconds sooner, and
        keeps their beat from then on."""
        now = self.clock.now()
        if self.left > early:
            return False
        late = now - self._next
        # less than half a beat is jitter: the beat is kept
        if late < 0:
            self._next = now + self.period
        elif late > self.period / 2:
            if self._meter.rate and late < 2:
                self._slipped = now
            self._next = now + self.period
        else:
            self._next = max(self._next + self.period, now)
        self._meter.note()
        return True

    def wait(self) -> None:
        """Sleeps until the next step is due."""
        self.clock.sleep(self.left)

    def rest(self) -> None:
        """Begins the beat anew, as after a pause: the next step is due now and nothing was late."""
        self._next = self.clock.now()
        self._slipped = None

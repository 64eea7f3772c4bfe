"""A deadline, not a step count: how many denoising steps fit between two frames. Our own."""

from __future__ import annotations

from collections import deque
from statistics import median

MOST_STEPS = 10
SHARE = 0.65
"""Of the time between two frames that dreaming may take as a rule. The slowest of a hundred frames takes half as long
again on a shared machine, and has to be in time as well."""
MEMORY = 15
"""Frames that the estimate looks back on: a second."""


class StepBudget:
    """Chooses the denoising steps that keep a frame rate, from what frames have cost so far.

    Fewer at once when a second was too slow, one more only when the estimate leaves room for it and a half: a count
    that flickers would be seen.
    """

    def __init__(self, rate: float = 15.0, steps: int = 3, least: int = 1) -> None:
        self.steps = max(steps, least)
        self.least = least
        self._budget = SHARE / rate
        self._costs: deque[float] = deque(maxlen=MEMORY)

    def observe(self, steps: int, seconds: float) -> None:
        """A frame of so many steps took so long."""
        self._costs.append(seconds / (steps + 1))  # what comes with a frame costs about as much as one step more
        if len(self._costs) < MEMORY:
            return
        cost = median(self._costs)
        if (self.steps + 1) * cost > self._budget and self.steps > self.least:
            self._change(max(self.least, min(MOST_STEPS, int(self._budget / cost) - 1)))
        elif (self.steps + 2.5) * cost < self._budget and self.steps < MOST_STEPS:
            self._change(self.steps + 1)

    def _change(self, steps: int) -> None:
        self.steps = steps
        self._costs.clear()

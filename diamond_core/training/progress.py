"""How far a run is, and an honest time to its end: measured seconds per unit of work times the units left."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass

from tqdm import tqdm


@dataclass
class Position:
    """Where a run stands: about to do `step` of `phase` in `epoch`."""

    epoch: int = 1
    phase: int = 0
    """Index into the trainer's phases."""
    step: int = 0


class Pace:
    """Seconds per unit of each kind of work, as measured; recent work counts more."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def measured(self, kind: str, seconds: float, units: int) -> None:
        """Adds a measurement."""
        one = seconds / max(1, units)
        self.seconds[kind] = one if kind not in self.seconds else 0.95 * self.seconds[kind] + 0.05 * one

    def left(self, units: dict[str, int]) -> str:
        """The time that the remaining units take; says so where a kind was not measured yet."""
        known = sum(n * self.seconds[kind] for kind, n in units.items() if kind in self.seconds)
        unknown = any(n and kind not in self.seconds for kind, n in units.items())
        return f"over {clock(known)} left" if unknown else f"{clock(known)} left"


class Bar:
    """One line of progress for one phase. Without a terminal it prints seldom, on lines of their own."""

    def __init__(self, label: str, total: int, start: int, pace: Pace, kind: str, later: dict[str, int],
                 shown: bool) -> None:
        """`later`: the units of each kind that come after this phase."""
        terminal = sys.stderr.isatty()
        self._bar = tqdm(total=total, initial=start, desc=label, disable=not shown, leave=False, dynamic_ncols=True,
                         mininterval=0.2 if terminal else 60, bar_format="{desc} {bar:20} {n_fmt}/{total_fmt}{postfix}")
        self._pace, self._kind, self._later = pace, kind, later
        self._left = total - start
        self._last = time.perf_counter()

    def advance(self, units: int = 1, note: str = "") -> None:
        """Some units are done."""
        now = time.perf_counter()
        self._pace.measured(self._kind, now - self._last, units)
        self._last = now
        self._left = max(0, self._left - units)
        left = {**self._later, self._kind: self._later.get(self._kind, 0) + self._left}
        self._bar.set_postfix_str(f" {note} {self._pace.left(left)}", refresh=False)
        self._bar.update(units)

    def __enter__(self) -> Bar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def clock(seconds: float) -> str:
    """Seconds as 42s, 12m30s or 5h07m."""
    s = round(seconds)
    if s < 60:
        return f"{s}s"
    return f"{s // 60}m{s % 60:02d}s" if s < 3600 else f"{s // 3600}h{s % 3600 // 60:02d}m"

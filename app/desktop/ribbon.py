"""The timeline's numbers for drawing, kept while a session plays: each step adds one, a jump counts anew. Our own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from app.desktop.strip import Marks

if TYPE_CHECKING:
    from app.session.timeline import Timeline
    from app.session.view import Facts

ROOM = 1024
"""Steps that arrays are made longer by."""
REMEMBERED = 150
"""Newest values of the agent that its curve shows."""


class Ribbon:
    """Belongs to one thread; what it gives away is never changed behind its end."""

    def __init__(self) -> None:
        self._first = self._length = 0
        self._newest: Facts | None = None
        self._make(ROOM)

    def _make(self, room: int) -> None:
        self._rewards, self._apart, self._values = (np.full(room, np.nan, np.float32) for _ in range(3))
        self._ends, self._lived = (np.zeros(room, bool) for _ in range(2))

    def of(self, timeline: Timeline) -> Marks:
        """All moments that are remembered."""
        grown = self._follows(timeline)
        if not grown:
            self._first, self._length, self._newest = timeline.first, 0, None
            self._make(len(timeline) + ROOM)
        for number in range(timeline.first + self._length, timeline.last + 1):
            self._add(timeline[number].facts)
        n = self._length
        return Marks(self._rewards[:n], self._ends[:n], self._apart[:n], timeline.cursor - self._first, self._lived[:n])

    def values(self) -> tuple[float, ...]:
        """What the agent expected lately, oldest first."""
        lately = self._values[max(self._length - REMEMBERED, 0):self._length]
        return tuple(lately[~np.isnan(lately)].tolist())

    def _follows(self, timeline: Timeline) -> bool:
        """Whether nothing changed but that moments were added."""
        last = self._first + self._length - 1
        return (timeline.first == self._first and self._length > 0 and timeline.last >= last
                and timeline[last].facts is self._newest and len(timeline) <= len(self._ends))

    def _add(self, facts: Facts) -> None:
        i = self._length
        self._rewards[i] = facts.reality_reward if facts.lived else facts.reward
        self._apart[i] = np.nan if facts.divergence is None else facts.divergence
        self._values[i] = np.nan if facts.value is None else facts.value
        self._lived[i], self._ends[i] = facts.lived, facts.end
        if self._newest is not None and facts.game_number != self._newest.game_number:
            self._ends[i - 1] = True
        self._length, self._newest = i + 1, facts

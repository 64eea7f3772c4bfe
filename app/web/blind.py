"""The blind test: a clip of the dream and one of the real game under the same actions; which one is real? Our own."""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from app.session.host import Host
from app.session.session import Session
from app.web.again import on
from app.web.protocol import webp
from app.web.shelf import Loaded

LENGTHS = (5, 15, 30, 60)
"""Steps of a clip: a third of a second to four."""
WAITING = 4
"""Who may wait for a question."""
KEPT = 64
"""Questions that wait for their answer."""


class BlindError(ValueError):
    """A question that cannot be asked or answered."""


@dataclass(frozen=True)
class Question:
    """Two clips."""

    films: tuple[bytes, bytes]
    """Left and right, as WebP."""
    real: int
    """Which one is: 0 or 1."""
    steps: int


class Blind:
    """Asks, and remembers what the answers are."""

    def __init__(self) -> None:
        self._questions: OrderedDict[str, Question] = OrderedDict()
        self._asking, self._waiting = asyncio.Lock(), 0

    async def ask(self, host: Callable[[], Host], loaded: Loaded, steps: int) -> str:
        """A new question about a game; its name. Raises BlindError."""
        if steps not in LENGTHS:
            raise BlindError(f"a clip has {', '.join(map(str, LENGTHS))} steps, got {steps}")
        if self._waiting >= WAITING:
            raise BlindError("several others wait for a question already: try again in a moment")
        self._waiting += 1
        try:
            # one at a time: those who play come first
            async with self._asking:
                both = await clips(host(), loaded, steps)
                # this thread sends everybody's pictures
                dream, reality = [await asyncio.to_thread(webp, frames) for frames in both]
        finally:
            self._waiting -= 1
        real = secrets.randbelow(2)
        films = (reality, dream) if real == 0 else (dream, reality)
        name = secrets.token_urlsafe(12)
        self._questions[name] = Question(films, real, steps)
        while len(self._questions) > KEPT:
            self._questions.popitem(last=False)
        return name

    def film(self, name: str, side: int) -> bytes:
        """One of the two clips. Raises BlindError."""
        return self._question(name).films[side]

    def answer(self, name: str) -> int:
        """Which one was real; the question is gone after that. Raises BlindError."""
        real = self._question(name).real
        del self._questions[name]
        return real

    def _question(self, name: str) -> Question:
        if name not in self._questions:
            raise BlindError("this question is gone: take the next one")
        return self._questions[name]


async def clips(host: Host, loaded: Loaded, steps: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """So many frames (h, w, 3) of a dream and of reality after the same start and actions. Raises BlindError."""
    def begin() -> Session:
        return Session(loaded.agent, loaded.world, seed=secrets.randbelow(2**24))

    session = await on(host, begin)
    if session.real is None:
        raise BlindError("only Atari games have a real one beside the dream: choose another")
    session.who = "random"
    views = [session.view]
    for _ in range(steps):
        view = await on(host, session.tick)
        if view.over:
            break
        views.append(view)
    return [view.frame for view in views], [view.reality for view in views]

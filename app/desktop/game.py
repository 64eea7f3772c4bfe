"""A session in the worker's hands: loads it, steps it in time, and publishes what there is to draw. Our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from app.desktop.knobs import Settings
from app.desktop.orders import rescue
from app.desktop.ribbon import Ribbon
from app.desktop.strip import Marks
from app.desktop.worker import Worker
from app.session.controls import Controls

if TYPE_CHECKING:
    from app.session.session import Session
    from app.session.view import View

SLEEP = 0.03
"""Seconds between two looks at a paused session whose emulator is still on its way."""
SELDOM = 5
"""Steps after which the denoising is shown anew on a machine that has no time for it."""


@dataclass(frozen=True)
class Futures:
    """All actions' futures as far as they are dreamt."""

    frames: np.ndarray
    """(A, steps, h, w, 3) uint8."""
    rewards: np.ndarray
    """(A, steps) float32."""
    ends: np.ndarray
    """(A, steps) bool."""
    length: int
    """Steps when all is dreamt."""


@dataclass(frozen=True)
class Snapshot:
    """All that the window draws from, of one instant; made by the worker, never changed."""

    view: View
    marks: Marks
    first: int
    """The moment at the left end of the marks."""
    settings: Settings
    values: tuple[float, ...] = ()
    """What the agent expected lately."""
    futures: Futures | None = None
    denoising: tuple[np.ndarray, ...] = ()
    arrived: float = 0.0
    """When, on the performance counter."""


class Game:
    """What the scene of play knows of the session. Everything that touches it is left to the worker."""

    def __init__(self, worker: Worker, title: str, load: Callable[[Callable[[str], None]], Session]) -> None:
        """`load` makes the session, on the worker; it is given a function that says what it is at, then and later."""
        self.worker, self.title = worker, title
        self.newest: Snapshot | None = None
        self.controls: Controls | None = None
        self.names: tuple[str, ...] = ()
        self.watching = False
        """Whether the denoising is wanted."""
        self.tape_over = False
        """Whether a tape that led has come to its end, until somebody takes note."""
        self._session: Session | None = None
        self._denoising: tuple[np.ndarray, ...] = ()
        self._watched = -SELDOM
        self._ribbon = Ribbon()
        self._closed = False
        worker.ask(f"Loading {title}", lambda: self._begin(load))

    def _begin(self, load: Callable[[Callable[[str], None]], Session]) -> None:
        if self._closed:
            return
        session = load(self.say)
        self._session, self.names = session, tuple(session.action_names)
        self.controls = session.controls
        self.publish()
        session.pacer.rest()
        self.worker.beat_with(self.beat)

    def say(self, words: str) -> None:
        """A line for the person, from any thread: on the loading screen, or over the picture; none after the end."""
        if self._closed:
            return
        if self._session is None:
            self.worker.report(words)
        else:
            self.ask("", lambda session: session.say(words))

    def close(self) -> None:
        """Stops stepping; the session is forgotten as soon as the worker is free."""
        self._closed = True
        self.worker.beat_with(None)
        self.worker.ask("Closing", self._forget, must=True)

    def _forget(self) -> None:
        session, self._session = self._session, None
        if session is not None and session.search is not None:
            session.search.stop()  # the next game wants the processor
        if session is not None and session.recorder is not None:
            # nobody stopped the tape, and nobody wants to lose it
            rescue(session)

    def ask(self, words: str, job: Callable[[Session], Any], key: str = "") -> None:
        """Something to do with the session; what it changed is published at once."""
        self.worker.ask(words, lambda: self._do(job), key)

    def _do(self, job: Callable[[Session], Any]) -> None:
        session = self._session
        # a request may have waited behind a load that failed
        if session is not None:
            job(session)
            if session.paused:
                session.tick()
            self.publish()

    def beat(self) -> float | None:
        """A step when it is due. -> seconds until the next one, None for none until somebody asks."""
        session = self._session
        if session is None or self._closed:
            return None
        try:
            return self._step(session)
        except Exception:
            # a world that cannot be stepped is not tried again fifteen times a second
            session.paused = True
            raise

    def _step(self, session: Session) -> float | None:
        if session.fan is not None and not session.fan.done:
            session.grow_fan()
            self.publish()
            return 0.0
        if session.paused:
            if not (session.view.message or (session.real is not None and session.real.behind)):
                return None
            session.tick()
            self.publish()
            return SLEEP
        if session.pacer.due():
            session.tick()
            self.publish()
        return session.pacer.left

    def publish(self) -> None:
        """Makes the newest instant visible."""
        session = self._session
        if session is None:
            return
        marks = self._ribbon.of(session.timeline)
        # the window does not see every instant
        led = None if self.newest is None else self.newest.view.led
        if led is not None and led[0] == led[1] and session.view.led is None and session.view.paused:
            self.tape_over = True
        self.newest = Snapshot(session.view, marks, session.timeline.first, settings_of(session),
                               self._ribbon.values(), futures_of(session), self._denoising, perf_counter())
        self.worker.wake()
        self._watch(session)

    def _watch(self, session: Session) -> None:
        """The denoising of the newest frame, where it is wanted and there is time: it costs as much as a step."""
        moment = session.view.moment
        late = session.pacer.left < session.view.milliseconds / 1000
        if not self.watching or self.newest is None or moment == self._watched or (
                late and not session.paused and 0 <= moment - self._watched < SELDOM):
            return
        self._watched, self._denoising = moment, tuple(session.denoising())
        self.newest = replace(self.newest, denoising=self._denoising)
        self.worker.wake()


def settings_of(session: Session) -> Settings:
    """Where the knobs stand."""
    k = session.knobs
    return Settings(k.steps, k.order, k.churn, k.temperature, k.seed, session.resync_every, session.horizon,
                    session.speed)


def futures_of(session: Session) -> Futures | None:
    """What the open fan shows."""
    fan = session.fan
    if fan is None:
        return None
    if not fan.steps:
        none = np.zeros((len(fan.action_names), 0))
        return Futures(fan.frames, none, none.astype(bool), fan.length)
    return Futures(fan.frames, fan.rewards, fan.ends, fan.length)

"""Many sessions on one device: one thread owns the models and dreams for all who are due in one batch. Our own.

Whoever is due at a tick is stepped together, batched by world and knobs; where the machine is too slow all are slow
evenly, because none is stepped twice before the others were. Nobody else may touch a session: `call` runs a function in
this thread between two steps, so sessions need no locks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

import torch

from app.session.clock import Clock, Meter, RealClock
from app.session.session import Session
from app.session.view import Ask, View
from diamond_core.config import SamplerConfig
from diamond_core.world.dream import DreamState, DreamStep, World

T = TypeVar("T")
OnView = Callable[[View], None]
OnError = Callable[[Exception], None]
LARGEST = 64
"""Dreams in one batch; more are stepped in several."""
NAP = 0.25
"""Seconds that the thread sleeps at most; a call wakes it."""
CALLS = 0.02
"""Seconds that calls may take between two steps, so that nobody's wishes stop everybody's play."""


class Guest:
    """A session, and who is told of it."""

    def __init__(self, session: Session, on_view: OnView, on_error: OnError | None) -> None:
        self.session, self.on_view, self.on_error = session, on_view, on_error
        self.shown: View | None = None


class Host:
    """Steps all its sessions at their pace. Usable as a context manager."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Asleep until `start`."""
        self.clock = clock or RealClock()
        self._guests: dict[int, Guest] = {}
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._meter = Meter(self.clock)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="host", daemon=True)

    def start(self) -> Host:
        """Begins to work."""
        self._thread.start()
        return self

    def close(self) -> None:
        """Ends the thread; calls that still wait are cancelled."""
        self._closing.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._calls.put((lambda: None, Future()))
            self._thread.join()
        while not self._calls.empty():
            self._calls.get()[1].cancel()

    def __enter__(self) -> Host:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def add(self, session: Session, on_view: OnView, on_error: OnError | None = None) -> Future[None]:
        """Takes a session in. `on_view` hears of every new view, `on_error` of an error in this session, which leaves;
        both in the host's thread, so they must be quick."""
        def enter() -> None:
            session.pacer.rest()
            self._guests[id(session)] = Guest(session, on_view, on_error)

        return self.call(enter)

    def remove(self, session: Session) -> Future[None]:
        """Lets it go; its callbacks are not called any more once this is done."""
        def leave() -> None:
            self._guests.pop(id(session), None)

        return self.call(leave)

    def call(self, job: Callable[[], T]) -> Future[T]:
        """Runs a function in this thread, soon. Its result or its error is in the future. A session that it changed
        shows its new view."""
        future: Future[T] = Future()
        if self._closing.is_set():
            future.cancel()
        else:
            self._calls.put((job, future))
        return future

    @property
    def sessions(self) -> list[Session]:
        """Who is here."""
        return [guest.session for guest in list(self._guests.values())]

    @property
    def rate(self) -> float:
        """Rounds a second: what each gets when the machine is too slow for all."""
        return self._meter.rate

    def round(self) -> int:
        """One turn: waiting calls, then a step of all who are due and of all open fans, else a slice of somebody's way
        back; returns how many those were. The thread does this over and over; a test may do it by hand."""
        self._answer_calls()
        due = self._due()
        groups: dict[tuple[int, SamplerConfig], list[tuple[Guest, Ask]]] = {}
        for guest in due:
            ask = self._guarded(guest, guest.session.ask)
            if ask is None:
                self._show(guest, self._guarded(guest, partial(guest.session.answer, None)))
            else:
                groups.setdefault((id(guest.session.world), ask.sampler), []).append((guest, ask))
        for members in groups.values():
            for first in range(0, len(members), LARGEST):
                self._step(members[first:first + LARGEST])
        if groups:
            self._meter.note()
        return len(due) + self._grow_fans() or self._fetch_reality()

    def _fetch_reality(self) -> int:
        """A moment in which nobody is due belongs to an emulator on its way back."""
        for guest in self._guests.values():
            if guest.session.real is not None and guest.session.real.behind:
                self._show(guest, self._guarded(guest, partial(guest.session.answer, None)))
                return 1
        return 0

    def _grow_fans(self) -> int:
        """One step of every open fan."""
        growing = [guest for guest in self._guests.values() if guest.session.fan and not guest.session.fan.done]
        for guest in growing:
            self._guarded(guest, guest.session.grow_fan)
            self._show(guest, guest.session.view)
        return len(growing)

    def _due(self) -> list[Guest]:
        """Who is to be stepped now; who rests costs nothing. Half a beat early is near enough to join others of
        the same speed: from then on they are due together."""
        awake = [guest for guest in self._guests.values() if not guest.session.resting]
        beats = {guest.session.pacer.period for guest in awake if guest.session.pacer.left <= 0}
        return [guest for guest in awake if guest.session.pacer.due(
            guest.session.pacer.period / 2 if guest.session.pacer.period in beats else 0.0)]

    def _step(self, members: list[tuple[Guest, Ask]]) -> None:
        """One batch of the same world and knobs. Where it fails as a whole, one by one, to find whose fault it is."""
        members = [(guest, ask) for guest, ask in members if id(guest.session) in self._guests]
        if not members:
            return
        began = self.clock.now()
        try:
            step = dreamt(members[0][0].session.world, [ask for _, ask in members])
        except Exception as error:
            if len(members) == 1:
                self._lose(members[0][0], error)
            else:
                for member in members:
                    self._step([member])
            return
        seconds = self.clock.now() - began
        for row, (guest, _) in enumerate(members):
            self._show(guest, self._guarded(guest, partial(guest.session.answer, step.row(row), seconds, len(members))))

    def _answer_calls(self) -> None:
        until = self.clock.now() + CALLS
        while not self._calls.empty() and self.clock.now() <= until:
            self._answer(*self._calls.get())

    def _answer(self, job: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        try:
            result = job()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(result)
        for guest in list(self._guests.values()):
            if guest.shown is not None and guest.session.view is not guest.shown:
                self._show(guest, guest.session.view)

    def _show(self, guest: Guest, view: View | None) -> None:
        if view is not None and id(guest.session) in self._guests and view is not guest.shown:
            guest.shown = view
            self._guarded(guest, partial(guest.on_view, view))

    def _guarded(self, guest: Guest, job: Callable[[], T]) -> T | None:
        """An error in one session is that session's alone."""
        try:
            return job()
        except Exception as error:
            self._lose(guest, error)
            return None

    def _lose(self, guest: Guest, error: Exception) -> None:
        self._guests.pop(id(guest.session), None)
        if guest.on_error is not None:
            guest.on_error(error)

    def _run(self) -> None:
        while not self._closing.is_set():
            if self.round() == 0:
                self._rest()

    def _rest(self) -> None:
        """Sleeps until someone is due or calls."""
        left = min((guest.session.pacer.left for guest in self._guests.values() if not guest.session.resting),
                   default=NAP)
        try:
            self._answer(*self._calls.get(timeout=max(min(left, NAP), 1e-4)))
        except Empty:
            return


def dreamt(world: World, asks: list[Ask]) -> DreamStep:
    """What several sessions ask for, of the same knobs, in one batch."""
    if world.sampler != asks[0].sampler:
        world.set_sampler(asks[0].sampler)
    state = asks[0].state if len(asks) == 1 else DreamState.cat([ask.state for ask in asks])
    step = world.step(state, torch.tensor([ask.action for ask in asks]))
    step.rewards.cpu()  # as in `Play.tick`
    return step

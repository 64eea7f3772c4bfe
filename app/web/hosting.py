"""One thread that owns the models: all sessions that are due are stepped together, one batch a world and its knobs."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from queue import Empty, SimpleQueue
from typing import Any

import torch

from app.session.session import Session
from app.session.view import View
from diamond_core.world.dream import DreamState, DreamStep

LOG = logging.getLogger(__name__)


class Host:
    """Stopgap."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = SimpleQueue()
        self._sessions: dict[Session, tuple[Callable[[View], None], Callable[[BaseException], None]]] = {}
        self._stop = False
        self._thread = threading.Thread(target=self._run, name="host", daemon=True)
        self._thread.start()

    def add(self, session: Session, on_view: Callable[[View], None], on_error: Callable[[BaseException], None]) -> None:
        self.call(lambda: self._sessions.__setitem__(session, (on_view, on_error)))

    def remove(self, session: Session) -> None:
        self.call(lambda: self._sessions.pop(session, None))

    def call(self, job: Callable[[], Any]) -> Future[Any]:
        future: Future[Any] = Future()
        self._calls.put((job, future))
        return future

    def close(self) -> None:
        self._stop = True
        self.call(lambda: None)
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop:
            left = min((s.pacer.left for s in self._sessions), default=0.2)
            self._answer_calls(left)
            due = [s for s in list(self._sessions) if s.pacer.due()]
            if due:
                self._step(due)

    def _answer_calls(self, left: float) -> None:
        until = time.monotonic() + left
        while True:
            wait = until - time.monotonic()
            try:
                job, future = self._calls.get(timeout=wait) if wait > 0 else self._calls.get_nowait()
            except Empty:
                return
            try:
                future.set_result(job())
            except BaseException as error:
                future.set_exception(error)
            if job and self._sessions:
                until = min(until, time.monotonic() + min(s.pacer.left for s in self._sessions))

    def _step(self, due: list[Session]) -> None:
        groups: dict[Any, list[tuple[Session, Any]]] = {}
        for s in due:
            ask = s.ask()
            groups.setdefault(None if ask is None else (id(s.world), ask.sampler), []).append((s, ask))
        for key, members in groups.items():
            if key is None:
                for s, _ in members:
                    self._sessions[s][0](s.answer(None))
                continue
            world, began = members[0][0].world, time.perf_counter()
            world.set_sampler(members[0][1].sampler)
            step = world.step(DreamState.cat([a.state for _, a in members]), torch.tensor([a.action for _, a in members]))
            seconds = time.perf_counter() - began
            for i, (s, _) in enumerate(members):
                row = DreamStep(step.state[i], *(x[i:i + 1] for x in step[1:]))
                self._sessions[s][0](s.answer(row, seconds, len(members)))

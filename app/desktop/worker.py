"""The one thread that owns the model: it does what it is asked for in order, and beats in between. Our own.

The window only leaves requests here and reads what was published; it never waits for the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from threading import Condition, Thread
from time import monotonic

LOG = logging.getLogger(__name__)
PATIENCE = 10.0
"""Seconds that closing waits for a step under way."""


@dataclass(frozen=True)
class Doing:
    """Something that takes time."""

    words: str
    since: float
    """On the monotonic clock."""
    share: float | None = None
    """Done so far, 0 to 1; None where nobody knows."""


@dataclass(frozen=True)
class _Request:
    words: str
    job: Callable[[], None]
    key: str
    must: bool


class Worker:
    """Runs requests one after the other, and `beat` whenever it is due."""

    def __init__(self, wake: Callable[[], None] = lambda: None) -> None:
        """`wake` is called, on this worker's thread, after anything that a person should see."""
        self.wake = wake
        self.doing: Doing | None = None
        self.trouble = ""
        """What went wrong last, in one line; whoever shows it clears it."""
        self._requests: list[_Request] = []
        self._beat: Callable[[], float | None] | None = None
        self._changed = Condition()
        self._closing = False
        self._thread = Thread(target=self._run, name="model", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the thread still runs."""
        return self._thread.is_alive()

    def ask(self, words: str, job: Callable[[], None], key: str = "", *, must: bool = False) -> None:
        """Leaves a request; `words` say what it is. Of several with the same key only the newest is done; one that
        `must` be done is done even when the worker is being closed."""
        with self._changed:
            if key:
                self._requests = [r for r in self._requests if r.key != key]
            self._requests.append(_Request(words, job, key, must))
            self._changed.notify()

    def beat_with(self, beat: Callable[[], float | None] | None) -> None:
        """What to do between requests; it returns the seconds until it wants to be called again, None: when asked."""
        with self._changed:
            self._beat = beat
            self._changed.notify()

    def report(self, words: str, share: float | None = None) -> None:
        """A request's own word on how far it is."""
        since = self.doing.since if self.doing else monotonic()
        self.doing = Doing(words, since, share)
        self.wake()

    def close(self, patience: float = PATIENCE) -> None:
        """Drops what is waiting and need not be done, lets what is under way end, and joins the thread."""
        with self._changed:
            self._closing = True
            self._requests = [request for request in self._requests if request.must]
            self._changed.notify()
        self._thread.join(patience)

    def _run(self) -> None:
        rest: float | None = None
        while True:
            with self._changed:
                if not self._requests and not self._closing:
                    self._changed.wait(rest)
                if self._closing and not self._requests:
                    return
                request = self._requests.pop(0) if self._requests else None
                beat = self._beat
            if request is not None:
                self._do(request)
                rest = 0.0
            else:
                rest = self._once(beat) if beat is not None else None

    def _do(self, request: _Request) -> None:
        self.doing = Doing(request.words, monotonic())
        self.wake()
        try:
            request.job()
        except Exception as error:  # a person sees a line, the log has the rest
            self._failed(error)
        finally:
            self.doing = None
            self.wake()

    def _once(self, beat: Callable[[], float | None]) -> float | None:
        try:
            return beat()
        except Exception as error:  # as above; it rests until somebody asks for something
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        LOG.debug("in the model's thread", exc_info=error)
        self.trouble = " ".join(str(error).split()) or type(error).__name__
        self.wake()

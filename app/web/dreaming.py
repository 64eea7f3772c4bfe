"""One player's dream on the host's thread: carries out what the page wants, passes on what is to be seen. Our own."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from app.session.controls import directions, legend
from app.session.fork import Fan
from app.session.host import Host
from app.session.session import Session
from app.session.tape import Tape
from app.session.timeline import Packed
from app.session.view import NumSteps, View
from app.web import protocol as say
from app.web.again import on
from app.web.retold import Retold, query_of
from app.web.shelf import Loaded
from app.web.shot import Mark, Shot, mark_of
from app.web.tapes import MOST_STEPS, Seen, new_name
from diamond_core.diffusion.noise import schedule

LOG = logging.getLogger(__name__)
MOST_WAITING = 64
"""Wishes of one player that may wait for the thread."""
OF_REALITY = ("wake", "sleep", "resync")
"""Plain wishes that need reality where it should be."""
LOOK_AGAIN = 0.15
"""Seconds between two looks at futures that are still being dreamt."""


class Audience(Protocol):
    """Who is shown what is dreamt. Called on the event loop."""

    def show(self, shot: Shot) -> None:
        """A new instant."""

    def tell(self, t: str, **fields: Any) -> None:
        """An event for the player."""

    def sheet(self, fields: dict[str, Any], sheet: np.ndarray) -> None:
        """Many frames in one picture."""

    def recorded(self, tape: Tape, seen: Sequence[Seen], title: str, name: str) -> None:
        """A tape is full, or over; its name was told when it began."""

    def failed(self, error: Exception) -> None:
        """The dream cannot go on."""


class Dreaming:
    """A session, and the way to it. Public methods belong to the event loop, the others to the host's thread."""

    def __init__(self, host: Host, loaded: Loaded, session: Session, audience: Audience) -> None:
        self.host, self.loaded, self.session, self.audience = host, loaded, session, audience
        self._own = session.knobs
        self._loop = asyncio.get_running_loop()
        self._echo: int | None = None
        self._screen = False
        self._scrubbing: bool | None = None
        self._newest: View | None = None
        self._wishes: deque[say.Message] = deque()
        self._waiting, self._ended, self._looking = 0, False, False
        self._film: list[Seen] = []
        self._twin, self._tape = False, ""
        session.listeners.append(self._filmed)
        self.hold(False)

    @staticmethod
    async def begin(host: Host, loaded: Loaded, opening: say.Open, audience: Audience, steps: NumSteps,
                    tape: Tape | None = None) -> Dreaming:
        """A new dream, or on from a tape's step. Raises ValueError for actions that are not the game's."""
        def make() -> Session:
            """The session, on the thread that owns the models."""
            session = Session(loaded.agent, loaded.world, seed=opening.seed, nth=opening.nth)
            session.set_knobs(steps=steps)
            trail = None if tape is None else tape.trail(opening.at)
            if session.real is not None and trail is not None:
                session.real.restore(trail)
            elif opening.actions:
                session.controls = Retold(session, opening.actions, opening.drawn)
            return session

        session = await asyncio.wrap_future(host.call(make))
        if tape is not None:
            # a long game is played again between others' steps
            while session.real is not None and await on(host, session.real.catch_up):
                pass
            go_on = session.follow if opening.at < len(tape) else session.go_on_from
            await on(host, lambda: go_on(tape, opening.at))
        return Dreaming(host, loaded, session, audience)

    def hold(self, held: bool) -> None:
        """Lets the dream wait, or go on, without the person's pause."""
        # whoever comes back may do so before the old line is known to be cut, and holds nothing any more
        self.host.call(self.session.controls.release_all)
        if held:
            self.host.remove(self.session)
        else:
            self.host.add(self.session, self._seen, self._failed)
            self.host.call(lambda: self._seen(self.session.view))

    def end(self) -> None:
        """For good. Nobody stopped the tape, and nobody wants to lose it."""
        self._ended = True
        self.host.call(lambda: self._record(False))
        self.host.remove(self.session)

    def do(self, message: say.Message) -> bool:
        """Carries out what the page wants, when the thread comes to it; False if too much waits already."""
        if self._waiting >= MOST_WAITING:
            return False
        self._waiting += 1
        self.host.call(lambda: self._granted(message))
        return True

    async def opened(self) -> dict[str, Any]:
        """What a page must know of this dream."""
        fields: dict[str, Any] = await asyncio.wrap_future(self.host.call(self._opened))
        return fields

    def again(self) -> None:
        """Shows the newest instant once more, to a page that came later."""
        def show() -> None:
            self._newest = None
            self._seen(self.session.view)

        self.host.call(show)

    # on the host's thread

    def _opened(self) -> dict[str, Any]:
        s, card = self.session, self.loaded.card
        c, keys = self.loaded.agent.config, directions(s.action_names)
        return {
            "name": self.loaded.name, "title": self.loaded.title, "game": card.game, "actions": list(card.action_names),
            "directions": keys, "legend": legend(keys), "reality": s.real is not None,
            "width": c.image_size[1], "height": c.image_size[0], "seed": s.knobs.seed, "knobs": vars(s.knobs),
            "own": vars(self._own), "most": c.sampler.num_steps, "speed": s.speed, "resync": s.resync_every,
            "moment": s.timeline.cursor, "marks": self._marks(), "sha256": self.loaded.sha256[:12]}

    def _marks(self) -> list[Mark]:
        first = self.session.timeline.first
        return [mark_of(first + i, facts) for i, facts in enumerate(self.session.timeline.facts())]

    def _seen(self, view: View) -> None:
        """A new instant; pages that are slow are shown the newest only."""
        moved = self._newest is None or view.moment != self._newest.moment
        if self._newest is not None and is_same(self._newest, view):
            return
        self._newest = view
        echo, self._echo = (self._echo, None) if moved else (None, self._echo)
        shot = Shot(view, self.session.timeline.last, echo, self._screen)
        self._loop.call_soon_threadsafe(self.audience.show, shot)

    def _failed(self, error: Exception) -> None:
        self.host.remove(self.session)
        LOG.error("a dream of %s failed", self.loaded.name, exc_info=error)
        self._loop.call_soon_threadsafe(self.audience.failed, error)

    def _tell(self, t: str, **fields: Any) -> None:
        self._loop.call_soon_threadsafe(lambda: self.audience.tell(t, **fields))

    def _granted(self, message: say.Message) -> None:
        """Keys count when they are pressed; other wishes wait behind one that must wait, for the order matters."""
        if isinstance(message, say.Press | say.Release) or (isinstance(message, say.Plain) and message.t == "blur"):
            self._carry_out(message)
            return
        self._wishes.append(message)
        if len(self._wishes) == 1:
            self._go_on()

    def _go_on(self) -> None:
        while self._wishes:
            try:
                must_wait = self._must_wait(self._wishes[0])
            except Exception as error:
                self._failed(error)
                return
            if must_wait:  # a slice of reality's way was gone; others' steps come first
                self.host.call(self._go_on)
                return
            self._carry_out(self._wishes[0])
            self._wishes.popleft()

    def _carry_out(self, message: say.Message) -> None:
        try:
            # what was wished for before the end is not granted after it
            if not self._ended:
                self._do(message)
        except ValueError as error:
            self._tell("note", text=str(error))
        except Exception as error:
            self._failed(error)
        finally:
            self._waiting -= 1

    def _must_wait(self, message: say.Message) -> bool:
        """Whether it needs reality, which is still on its way, also after one more slice of that."""
        s = self.session
        needs = isinstance(message, say.Branch) or (isinstance(message, say.Plain) and message.t in OF_REALITY) or (
            isinstance(message, say.Show) and (message.view != "dream" or s.awake))
        return needs and not self._ended and s.real is not None and s.real.catch_up() > 0

    def _do(self, m: say.Message) -> None:
        s = self.session
        if isinstance(m, say.Press):
            if self._echo is None:
                self._echo = m.n
            s.controls.press(m.key)
        elif isinstance(m, say.Release):
            s.controls.release(m.key)
        elif isinstance(m, say.Plain):
            self._looking = self._looking and m.t != "step"
            self._plain(m.t)
        elif isinstance(m, say.Pause):
            s.paused, self._looking = m.on, False
        elif isinstance(m, say.Who):
            s.who = m.who
        elif isinstance(m, say.Show):
            s.show = m.view
        elif isinstance(m, say.Resync):
            s.resync_every = m.steps
        elif isinstance(m, say.Speed):
            s.speed = m.x
        elif isinstance(m, say.Wanted):
            self._want(m)
        elif isinstance(m, say.Record):
            self._record(m.on)
        else:
            self._change(m)

    def _record(self, on: bool) -> None:
        s = self.session
        if on and s.recorder is None:
            self._film, self._twin = [], s.show == "twin"
            s.start_tape()
            # who goes away meanwhile will look for it by this name
            self._tape = new_name()
            self._tell("recording", id=self._tape)
        elif not on and s.recorder is not None:
            tape, film, self._film = s.stop_tape(), self._film, []
            self._loop.call_soon_threadsafe(self.audience.recorded, tape, film, self.loaded.title, self._tape)

    def _filmed(self, view: View) -> None:
        """A step, while a tape runs."""
        if self.session.recorder is None:
            return
        real = None if view.reality is None else Packed.of(view.reality)
        if real is not None and (self._twin or view.show != "reality"):
            self._film.append((Packed.of(view.frame), real if self._twin else None))
        else:
            self._film.append((real or Packed.of(view.frame), None))
        if len(self._film) >= MOST_STEPS:
            self._record(False)

    def _change(self, m: say.Message) -> None:
        s = self.session
        if isinstance(m, say.Reset):
            s.reset(m.seed)
        elif isinstance(m, say.Rewind):
            self._rewind(m)
        elif isinstance(m, say.Branch):
            s.take_branch(m.action)
            s.paused = self._looking = False
        elif isinstance(m, say.SetKnobs):
            s.set_knobs(**m.model_dump(exclude={"t"}, exclude_none=True))
        elif isinstance(m, say.Paint):
            s.paint(m.path, m.radius, m.rgb, new=m.new)

    def _plain(self, t: str) -> None:
        s = self.session
        acts: dict[str, Callable[[], Any]] = {
            "blur": s.controls.release_all, "step": s.step_once, "sleep": s.fall_asleep, "wake": s.wake_up,
            "resync": s.resync, "unpaint": s.paint_undo, "fork": self._fork, "unfork": self._unfork,
            "denoise": self._denoise, "link": self._link}
        if t in acts:
            acts[t]()

    def _want(self, m: say.Wanted) -> None:
        if m.t == "mind":
            self.session.mind_wanted = m.on
        else:
            self._screen, self._newest = m.on, None

    def _rewind(self, m: say.Rewind) -> None:
        s = self.session
        if self._scrubbing is None:
            self._scrubbing = s.paused
        s.paused = True
        s.rewind_to(m.moment)
        if m.done:
            s.paused, self._scrubbing = self._scrubbing, None

    def _unfork(self) -> None:
        """Whatever was looked at is closed, and play goes on if it did before."""
        self.session.close_fan()
        if self._looking:
            self.session.paused = self._looking = False

    def _fork(self) -> None:
        if self.session.awake:
            raise ValueError("you are awake: fall asleep to see what the dream would bring")
        self._looking = self._looking or not self.session.paused
        fan = self.session.open_fan()
        self._loop.call_soon_threadsafe(self._wait_for, fan)

    def _wait_for(self, fan: Fan) -> None:
        """The host grows a fan a step at a time, between others' steps; when it is full grown it is shown."""
        if self._ended or fan is not self.session.fan:
            return
        if not fan.done:
            self.audience.tell("note", text=f"dreaming all futures: {len(fan.steps)} of {fan.length} steps")
            self._loop.call_later(LOOK_AGAIN, self._wait_for, fan)
            return
        a, t, h, w, c = fan.frames.shape
        fields = {"what": "fan", "actions": fan.action_names, "steps": t, "width": w, "height": h, "seconds": 1}
        self.audience.tell("note", text="")
        self.audience.sheet(fields, fan.frames.transpose(0, 2, 1, 3, 4).reshape(a * h, t * w, c))

    def _denoise(self) -> None:
        s = self.session
        if s.awake:
            raise ValueError("you are awake: fall asleep to see how a frame is drawn")
        frames = s.denoising()
        if not frames:
            raise ValueError("there is no dreamt frame yet: go on for a step")
        self._looking = self._looking or not s.paused
        s.paused = True
        levels: list[float | None] = [*schedule(s.drawn_by)[:len(frames)]]
        # the guess at the lowest level is the frame itself, but for Heun's last correction
        levels[-1] = None
        frames[-1] = s.view.frame
        fields = {"what": "denoising", "sigmas": levels, "width": frames[0].shape[1], "height": frames[0].shape[0]}
        self._loop.call_soon_threadsafe(self.audience.sheet, fields, np.concatenate(frames, axis=1))

    def _link(self) -> None:
        try:
            self._tell("link", query=query_of(self.loaded.name, self.session.timeline))
        except ValueError as error:
            self._tell("unlinked", why=str(error))


def is_same(one: View, other: View) -> bool:
    """Whether there is nothing new to see; a session that stands still publishes one view after the other."""
    def words(view: View) -> dict[str, Any]:
        return {name: x for name, x in vars(view).items() if not isinstance(x, np.ndarray)}

    return one.frame is other.frame and words(one) == words(other)

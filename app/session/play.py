"""A person in front of a stage: who plays, what must be dreamt for a step, what is seen. Our own.

It knows neither screen nor wall clock. Each step it asks for one dreamt frame (`ask`), is given it (`answer`) and shows
what is to be seen (`view`). One player calls `tick`; a host answers many sessions from one batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, get_args

import numpy as np
import torch

from app.session.clock import Clock, Meter, Pacer, RealClock
from app.session.controls import Controls
from app.session.guide import Guide
from app.session.recorder import Made
from app.session.saved import require_fit
from app.session.stage import SPOKEN, Stage
from app.session.view import Ask, Show, View, Who
from diamond_core.config import SamplerConfig
from diamond_core.training.agent import Agent
from diamond_core.world.dream import DreamStep, World

IDLE = 1.0
"""Seconds without a key after which the agent helps."""


class Pending(NamedTuple):
    """A step that was asked for and not yet answered."""

    action: int
    pressed: float | None
    """When the key that it carries went down."""
    sampler: SamplerConfig


class Play(Stage):
    """Who plays, and what is seen of it."""

    def __init__(self, agent: Agent, world: World, *, game: str | None = None, seed: int = 0,
                 nth: int = 0, clock: Clock | None = None, reality: bool = True, controls: Controls | None = None
                 ) -> None:
        """The nth game of a seed; `game` is the checkpoint's own where none is given. Raises ValueError where nothing
        can be begun from."""
        super().__init__(agent, world, game, seed, nth, clock or RealClock(), reality)
        self.controls = controls or Controls(self.action_names, clock=self.clock)
        self.pacer = Pacer(self.clock)
        self._who: Who = "you"
        self._show: Show = "dream"
        self.listeners: list[Callable[[View], None]] = []
        """Told of every step."""
        self._paused = self._single = self._helping = False
        self._pending: Pending | None = None
        self._meter = Meter(self.clock)
        self._active_at = self._running_since = self.clock.now()
        self._milliseconds = 0.0
        self._latency: float | None = None
        self._publish()

    # play

    def ask(self) -> Ask | None:
        """What must be dreamt for this step; None where nothing must: paused, over, awake, or while reality is still
        on its way to where this step begins."""
        self._pending = None
        if (self._paused and not self._single) or self._behind:
            return None
        if self.guide is not None:
            return self._led(self.guide)
        single, self._single = self._single, False
        if self._hold_until is not None:
            self._wait_for_next(single)
            return None
        action, pressed = self._decide()
        self._pending = Pending(action, pressed, self.sampler)
        if self.awake:
            return None
        return Ask(self.dream, action, self._pending.sampler)

    def answer(self, step: DreamStep | None, seconds: float = 0.0, mates: int = 1) -> View:
        """Takes what was asked for, one row, dreamt in `seconds` in a batch of `mates`; moves reality too."""
        pending, self._pending = self._pending, None
        if pending is None:
            if self.real is not None:
                self.real.catch_up()
            return self._publish()
        self.fan = None  # its futures begin at an instant that is past now
        if step is None:
            self._live(pending.action)
        else:
            self._milliseconds = seconds * 1000
            self._budget.observe(pending.sampler.num_steps, seconds)
            self._dreamt(step.row(0), pending.action, Made(pending.sampler, step.path, mates))
            if self._hold_until is None:
                self._resync_if_due()
        self._meter.note()
        if self.guide is not None:
            frame = self._picture if step is not None else self._reality()
            if frame is not None and not self.guide.compare(frame):
                other = self.agent.card is not None and self.agent.card.sha256 != self.guide.tape.origin.sha256
                self.say(f"from step {self.guide.number - 1} on this differs from the tape: "
                         f"{'other weights dream' if other else 'another path dreams'} it")
        if pending.pressed is not None:
            self._latency = self.clock.now() - pending.pressed
        return self._tell()

    def tick(self) -> View:
        """One step of one player."""
        ask = self.ask()
        if ask is None and self.real is not None and self._behind and (self._single or not self._paused):
            # nobody else waits meanwhile
            self.real.settle()
            ask = self.ask()
        if ask is None:
            return self.answer(None)
        began, own = self.clock.now(), self.world.engine
        self._use(ask.sampler)
        lent = self.guide.engine if self.guide is not None else None
        self.world.engine = lent or own
        step = self.world.step(ask.state, torch.tensor([ask.action]))
        step.rewards.cpu()  # a GPU was only told what to do: the clock goes on until it has done it
        if lent is not None and self.world.engine is lent:  # else a faster one has come meanwhile
            self.world.engine = own
        return self.answer(step, self.clock.now() - began)

    def _led(self, guide: Guide) -> Ask | None:
        """The tape's next step; a key takes over."""
        if self.controls.pressed or guide.over:
            self.guide, self._single = None, False
            self._paused = not self.controls.pressed
            self.say(f"you took over at step {guide.number}" if self.controls.pressed else
                     "the tape is over: go on from here yourself")
            return self.ask()
        # dream and reality go there together: whoever takes over while reality is on its way finds them at one moment
        trail, value = guide.before(self.world)
        if value is not None:
            require_fit(value, self.dream)
        # an older tape does not tell
        total, real_total = (guide.tape.returns_before(guide.number) if guide.tape.returns is not None else
                             (self._facts.total, self.real.total if self.real else 0.0))
        if trail is not None and self.real is not None:
            self.real.restore(trail, real_total)
        if value is not None:
            self._put(value, replace(self._facts, total=total, reality_total=real_total, age=int(value.steps),
                                     steps_agreed=0, agreement=True))
            self.guide = guide
        if self._behind:
            return None
        self._single = False
        lead = guide.lead()
        if lead.lived != self.awake:
            self.awake = lead.lived and self.real is not None
            self._show = "reality" if self.awake else "dream"
        self._pending = Pending(lead.action, None, lead.sampler or self.sampler)
        return None if self.awake else Ask(self.dream, lead.action, self._pending.sampler)

    @property
    def resting(self) -> bool:
        """Whether a tick would change nothing: paused, nothing to say, and the emulator where it should be."""
        return self._paused and not self._single and not self._view.message and not self._behind

    @property
    def _behind(self) -> bool:
        """Whether reality is still on its way to this instant."""
        return self.real is not None and self.real.behind > 0

    def _decide(self) -> tuple[int, float | None]:
        """Who plays chooses an action; the time of the key press that it carries."""
        action, pressed = self.controls.take()
        if action is not None:
            self._active_at = self.clock.now()
        self._helping = self.who == "help" and self.clock.now() - self._active_at >= IDLE
        if self.who == "agent" or self._helping:
            return self._think().action, None
        if self.who == "random":
            return self.mind.random(self.instant, self._seen()), None
        if action is None:
            idle = self.controls.idle_action
            last = self._facts.action
            action = idle if idle is not None else last if last is not None else 0
        # a key pressed while time stood still was not late: it waits for time, not for a frame
        return action, None if pressed is None else max(pressed, self._running_since)

    def reset(self, seed: int | None = None) -> View:
        """A new game; with a seed, that seed's first."""
        if seed is None:
            self._games += 1
        else:
            self.knobs, self._games = replace(self.knobs, seed=seed), 0
        self._begin()
        return self._publish()

    def _wait_for_next(self, at_once: bool) -> None:
        """Goes on after the hold, or earlier at a new key."""
        _, pressed = self.controls.take()
        assert self._hold_until is not None
        if not at_once and pressed is None and self.clock.now() < self._hold_until:
            return
        if not self.awake and self.real is not None and not self.real.over:
            self._follow_reality()
            self.say("a new dream, of where reality is now")
        else:
            self.reset()

    @property
    def who(self) -> Who:
        """Who plays; may change at any moment."""
        return self._who

    @who.setter
    def who(self, who: Who) -> None:
        if who not in get_args(Who):
            raise ValueError(f"who must be {', '.join(get_args(Who))}, got {who!r}")
        self._who, self._active_at, self._helping = who, self.clock.now(), False
        self._publish()

    @property
    def mind_wanted(self) -> bool:
        """Whether the agent's probabilities and value are computed at every step."""
        return self._mind_wanted

    @mind_wanted.setter
    def mind_wanted(self, wanted: bool) -> None:
        self._mind_wanted = wanted
        self._publish()

    # worlds

    @property
    def show(self) -> Show:
        """What is to be seen."""
        return self._show

    @show.setter
    def show(self, show: Show) -> None:
        """Raises ValueError for what cannot be shown in any game; says so where this game has no reality."""
        if show not in get_args(Show):
            raise ValueError(f"show must be {', '.join(get_args(Show))}, got {show!r}")
        if show != "dream" and self.real is None:
            self.say(f"there is no reality of {self.game or 'this world'} to look at: only Atari games have one")
        else:
            if self.awake and show != "reality":
                self.fall_asleep()
            self._show = show
        self._publish()

    def cycle(self) -> Show:
        """Dream, reality, both, dream ..."""
        order = get_args(Show)
        self.show = order[(order.index(self._show) + 1) % len(order)]
        return self._show

    def wake_up(self) -> View:
        """Leaves the dream and goes on in reality, where the same actions led."""
        if self.real is None:
            self.say(f"there is no reality of {self.game or 'this world'} to wake up in: only Atari games have one")
        elif not self.awake:
            was_over = self.real.over
            if was_over:
                self.reset()
            self.real.settle()
            self.awake, self._show = True, "reality"
            self._jump()
            self.say("reality's game was over: you are awake in a new one" if was_over else
                     "you are awake: this is where the same actions led")
        return self._publish()

    def fall_asleep(self) -> View:
        """A new dream of reality's newest frames, and on in the dream."""
        if self.real is None:
            self.say("you are dreaming already: this world has no reality")
        elif self.awake:
            self.awake = False
            self._show = "dream" if self._show == "reality" else self._show
            if self.real.over:
                self.reset()
            else:
                self._follow_reality()
            self.say("you fell asleep: the dream goes on from here")
        return self._publish()

    def resync(self) -> View:
        """The dream goes on from reality's newest frames."""
        if self.real is None:
            self.say("there is no reality to begin from again: only Atari games have one")
        elif self.real.over:
            self.say("reality's game is over: nothing to begin from; reset for a new one")
        elif not self.awake:
            self._follow_reality()
            self.say("the dream is reality's newest frames again")
        return self._publish()

    # what is to be seen

    @property
    def view(self) -> View:
        """The newest instant."""
        return self._view

    def _publish(self) -> View:
        """Puts together what is to be seen now."""
        facts, real = self._facts, self.real
        thought = self._thought if self._mind_wanted else None
        if self._mind_wanted and thought is None and not (self.awake and self._behind):
            thought = self._think()
        shown = replace(facts, value=thought.value) if thought else facts
        name = "" if facts.action is None else self.action_names[facts.action]
        speaking = self.clock.now() - self._said_at < SPOKEN
        self._view = View(
            **vars(shown), frame=self._picture, reality=self._real_frame(), screen=real.screen if real else None,
            action_name=name, who=self.who, show=self._show, helping=self._helping, paused=self._paused,
            awake=self.awake, over=self._hold_until is not None, moment=self.timeline.cursor,
            probabilities=thought.probabilities if thought else None,
            milliseconds=self._milliseconds, rate=self._meter.rate, slipping=self.pacer.slipping, latency=self._latency,
            steps=(self.drawn_by if self.guide else self.sampler).num_steps,
            path=self.world.path,
            recording=self.recorder.steps if self.recorder else None,
            led=(self.guide.number, len(self.guide.tape)) if self.guide else None,
            message=self._message if speaking else "")
        return self._view

    def _tell(self) -> View:
        """Publishes a step, and tells the listeners of it."""
        view = self._publish()
        for listener in self.listeners:
            listener(view)
        return view

    def _real_frame(self) -> np.ndarray | None:
        """Reality at this instant; from the timeline while the emulator is still on its way there."""
        if self.real is None:
            return None
        kept = self.timeline[self.timeline.cursor].reality
        return kept.open() if self.real.behind and kept else self.real.frame


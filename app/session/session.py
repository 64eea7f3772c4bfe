"""A session: one person's play, and all that a person can do with time, with what if and with the knobs. Our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from app.session.fork import Fan, Place, painted
from app.session.guide import Guide
from app.session.look import STEPS_A_SECOND
from app.session.play import Play
from app.session.recorder import Made, Recorder
from app.session.saved import SavedDream, require_fit
from app.session.tape import Tape
from app.session.twin import rgb
from app.session.view import Facts, Knobs, View
from diamond_core.pixels import nearest_bytes
from diamond_core.world.accelerate import Acceleration
from diamond_core.world.deadline import StepBudget
from diamond_core.world.dream import reseeded
from diamond_core.world.engine import Engine


class Session(Play):
    """One person's play, with time, forks, paint and knobs. Not to be used by two threads at once: see `Host.call`."""

    search: Acceleration | None = None
    """What looks for a faster engine for its world, where the world is its own."""

    # time

    @property
    def paused(self) -> bool:
        """Whether time stands still."""
        return self._paused

    @paused.setter
    def paused(self, paused: bool) -> None:
        self._paused, self._single = paused, False
        self._running_since = self.clock.now()
        self.pacer.rest()
        self._publish()

    @property
    def speed(self) -> float:
        """Slow and fast motion, 0.25 to 4; 1 is the true speed."""
        return self.pacer.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self.pacer.speed = speed
        self._budget = StepBudget(STEPS_A_SECOND * self.pacer.speed, self._budget.steps, self._budget.least)

    def step_once(self) -> None:
        """One step at the next tick, then time stands still."""
        self.paused, self._single = True, True

    def rewind_to(self, number: int) -> View:
        """To a moment of the timeline, back or forth; what came after stays until the next step. Pause while scrubbing.

        The emulator follows when it is next needed.
        """
        self._single = False  # a single step that still waited for reality was wanted elsewhere
        moment = self.timeline.go_to(number)
        number = self.timeline.cursor
        self.dream = self.timeline.state(number).to(self.world.runtime.device)
        self._picture = self.timeline.picture(number)
        self._facts = moment.facts
        was_awake, self.awake = self.awake, moment.facts.lived and self.real is not None
        if was_awake != self.awake:
            self._show = "reality" if self.awake else "dream"
        if self.real is not None and moment.mark is not None:
            self.real.go_to(moment.mark)
        self._jump()
        return self._publish()

    def save(self, path: Path) -> None:
        """Writes the dream of this instant, and where reality stands, to a small file."""
        trail = self.real.trail() if self.real else None
        total = self.real.total if self.real else 0.0
        sha256 = self.agent.card.sha256 if self.agent.card else ""
        SavedDream(self.dream, self.game, sha256, self._facts.total, trail, total).save(path)
        self.say(f"saved as {Path(path).name}")
        self._publish()

    def load(self, path: Path) -> View:
        """Goes on from a saved dream. Raises ValueError for a file that is none, or of another world."""
        saved = SavedDream.load(path)
        require_fit(saved.state, self.dream)
        if saved.game != self.game:
            raise ValueError(f"{path} is a dream of {saved.game or 'another world'}, this is {self.game}")
        self._enter(saved)
        sha256 = self.agent.card.sha256 if self.agent.card else ""
        self.say("loaded" if saved.sha256 == sha256 else "loaded; it was dreamt by other weights")
        return self._publish()

    def _enter(self, saved: SavedDream) -> None:
        """A dream from elsewhere, and reality where it stood."""
        if self.real is not None and saved.trail is not None:
            self.real.restore(saved.trail, saved.reality_total)
            self.real.settle()
        self.awake = False
        self._show = "dream" if self._show == "reality" else self._show
        self._facts = Facts(total=saved.total, age=int(saved.state.steps), reality_total=saved.reality_total,
                            game_number=self._facts.game_number, played=self._facts.played)
        self.dream = saved.state.to(self.world.runtime.device)
        self._picture = rgb(self.dream.frames[0, -1])
        self._jump()
        self.timeline.put(self._facts, self.dream, self._reality(), self._mark())

    # what if

    def open_fan(self, seconds: float = 1.0) -> Fan:
        """All actions from this instant, each held for so long; empty until `grow_fan`. Time stands still meanwhile."""
        self.paused = True
        length = max(1, round(seconds * STEPS_A_SECOND))
        self.fan = Fan(self.dream, self.action_names, length, self.sampler)
        return self.fan

    def grow_fan(self) -> Fan | None:
        """One more step of all branches; none where no fan is open."""
        if self.fan is not None:
            self.fan.grow(self.world)
            self._publish()
        return self.fan

    def fan_out(self, seconds: float = 1.0) -> Fan:
        """The whole fan at once: as many frames as actions times steps, in one batch a step."""
        fan = self.open_fan(seconds)
        while not fan.done:
            fan.grow(self.world)
        return fan

    def take_branch(self, action: int, steps: int | None = None) -> View:
        """Goes on from the end of a branch, or from its n-th step, exactly as it was shown; reality takes the same
        actions."""
        if self.fan is None or not self.fan.steps:
            raise ValueError("no fan is open: fan out first")
        if not 0 <= action < len(self.action_names):
            raise ValueError(f"expected an action from 0 to {len(self.action_names) - 1}, got {action}")
        fan = self.fan
        if self.awake:
            self.awake, self._show = False, "dream"
        self.guide = None
        if self._hold_until is not None:
            # what was over goes on as a dream that begins here
            self._hold_until, self._facts = None, replace(self._facts, age=0, steps_agreed=0)
        for step in fan.branch(action)[:steps]:
            self._dreamt(step, action, Made(fan.sampler, step.path, len(self.action_names)))
            self._tell()
            if self._hold_until is not None:
                break
        self.fan = None
        return self._publish()

    def close_fan(self) -> None:
        """Forgets it."""
        self.fan = None

    # paint

    def paint(self, path: Sequence[Place], radius: float, colour: tuple[int, int, int], *, deep: bool = False,
              new: bool = True) -> View:
        """A disc drawn over the newest frame from place to place; time stands still. `deep` paints all frames that the
        dream still sees, as suits a thing that does not move. What is not `new` belongs to the stroke before, and is
        taken back with it."""
        self._paused = True
        undo = [*self._undo, self.dream][-64:] if new or not self._undo else list(self._undo)
        self._put(painted(self.dream, path, radius, colour, deep=deep), self._facts)
        self._undo = undo
        return self._publish()

    def paint_undo(self) -> View:
        """Takes back the newest stroke."""
        if self._undo:
            undo = self._undo[:-1]
            self._put(self._undo[-1], self._facts)
            self._undo = undo
        return self._publish()

    # knobs

    def set_knobs(self, **changes: Any) -> Knobs:
        """Turns some knobs: steps, order, churn, seed, temperature. Raises ValueError for what cannot be."""
        unknown = set(changes) - {f.name for f in fields(Knobs)}
        if unknown:
            raise ValueError(f"no knob is called {', '.join(sorted(unknown))}: there are "
                             f"{', '.join(f.name for f in fields(Knobs))}")
        before, self.knobs = self.knobs, replace(self.knobs, **changes)
        if self.knobs.seed != before.seed:
            self._put(reseeded(self.dream, self._seeds()), self._facts)
        self._publish()
        return self.knobs

    def denoising(self) -> list[np.ndarray]:
        """The newest dreamt frame as it came to be: the clean frame guessed at each denoising step of `drawn_by`, each
        (h, w, 3); empty where the newest frame was not dreamt. Costs as much as a step."""
        now = self.timeline.cursor
        moment = self.timeline[now]
        if moment.memory is None or moment.facts.action is None:
            return []
        state = self.timeline.state(now - 1).to(self.world.runtime.device)
        self._use(self.drawn_by)
        taken = state.actions.clone()
        taken[:, -1] = moment.facts.action
        guesses: list[torch.Tensor] = []
        self.world.next_frames(state, taken, watch=lambda _, clean: guesses.append(nearest_bytes(clean.float())))
        return [rgb(guess[0]) for guess in guesses]

    # tapes

    def start_tape(self) -> None:
        """Records from here on; a tape that runs already begins anew."""
        self.recorder, self._recorded = Recorder(self.agent, self.game, self.action_names), None
        self._publish()

    def stop_tape(self) -> Tape:
        """What was recorded. Raises ValueError where no tape runs."""
        if self.recorder is None:
            raise ValueError("no tape is running: start one first")
        tape, self.recorder = self.recorder.tape(), None
        self._publish()
        return tape

    def go_on_from(self, tape: Tape, number: int) -> View:
        """Goes on where step `number` of a tape begins, up to its length: the dream, and reality where it has one."""
        state = tape.state(number, self.world)
        require_fit(state, self.dream)
        total, reality_total = tape.returns_before(number)
        self._enter(SavedDream(state, tape.origin.game, tape.origin.sha256, total, tape.trail(number), reality_total))
        self.say(f"on from step {number} of the tape")
        return self._publish()

    def follow(self, tape: Tape, number: int = 0, engines: Mapping[str, Engine] | None = None) -> View:
        """Plays a tape again from a step on; a key takes over. The numbers begin at 0 there. `engines`, by name, dream
        what they dreamt on the tape."""
        if number >= len(tape):
            raise ValueError(f"this tape has {len(tape)} steps: choose one from 0 to {len(tape) - 1}")
        if tape.lived.all():
            raise ValueError("nothing was dreamt on this tape: make a film of it (--render), or data (diamond tapes)")
        if tape.lived[:number + 1].all():
            raise ValueError("this tape begins in reality: choose a step that was dreamt")
        self.go_on_from(tape, number)
        self.resync_every, self.horizon, self.guide = 0, None, Guide(tape, number, engines)
        self.say("a tape is being played again: any key takes over")
        return self._publish()

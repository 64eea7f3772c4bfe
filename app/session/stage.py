"""A dream and the reality beside it, with their past: steps, comparison, beginnings and ends. Knows no person. Our own.

When the world that is played in ends, its last frame stays for a second or until a new key. Then a dream whose reality
lives goes on as a new dream of reality's newest frames; otherwise a new game begins.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from app.session.clock import Clock
from app.session.fork import Fan
from app.session.guide import Guide
from app.session.look import STEPS_A_SECOND
from app.session.mind import Mind, Thought
from app.session.recorder import Made, Recorder
from app.session.timeline import Timeline
from app.session.twin import Mark, Reality, compare, has_reality, rgb
from app.session.view import Facts, Knobs
from diamond_core.config import SamplerConfig
from diamond_core.envs import Trail
from diamond_core.envs import action_names as names_of
from diamond_core.evaluation.metrics import PSNR_CAP
from diamond_core.training.agent import Agent
from diamond_core.world.deadline import StepBudget
from diamond_core.world.dream import DreamState, DreamStep, World, reseeded

HOLD = 1.0
"""Seconds for which the last frame of a world that ended stays."""
SPOKEN = 3.0
"""Seconds for which a message stays."""

START = Facts(psnr=PSNR_CAP, ssim=1.0, divergence=0.0)
"""Of a dream that has just seen real frames."""


class Stage:
    """Two worlds under the same actions. `awake` tells whether only reality moves."""

    dream: DreamState
    """The dream at this instant, one row."""
    _facts: Facts

    def __init__(self, agent: Agent, world: World, game: str | None, seed: int, nth: int, clock: Clock, reality: bool
                 ) -> None:
        self.agent, self.world, self.clock = agent, world, clock
        self.game = game or (agent.card.game if agent.card else "")
        self.action_names = names(agent, self.game)
        base = agent.config.sampler
        self.knobs = Knobs(base.num_steps, base.order, base.s_churn, seed, base.temperature)
        self.mind = Mind(agent, world.runtime, seed)
        self._mind_wanted = False
        self.awake = False
        self.resync_every = 0
        """Steps after which the dream begins again from reality's newest frames; 0 = never."""
        self.horizon: int | None = None
        """Steps after which a dream is over; none = never."""
        self.timeline = Timeline()
        self.fan: Fan | None = None
        self.guide: Guide | None = None
        """The tape that is being played again."""
        self.recorder: Recorder | None = None
        self._recorded: Mark | None = None
        self.real: Reality | None = None
        self._has_reality = reality and has_reality(self.game) and len(names_of(self.game)) == agent.num_actions
        self._budget = StepBudget(STEPS_A_SECOND, base.num_steps, base.least_steps)
        self._thought: Thought | None = None
        self._hold_until: float | None = None
        self._undo: list[DreamState] = []
        self.instant = 0
        """Counts the steps; a value that no step led to counts twice."""
        self._games = nth
        self._message, self._said_at = "", clock.now() - SPOKEN
        self._begin()

    @property
    def sampler(self) -> SamplerConfig:
        """How the next frame is to be drawn, by the knobs."""
        return self.knobs.sampler(self.agent.config.sampler, self._budget.steps)

    @property
    def drawn_by(self) -> SamplerConfig:
        """How the newest dreamt frame was drawn, which the knobs may tell otherwise by now."""
        return self._facts.sampler or self.sampler

    def _use(self, sampler: SamplerConfig) -> None:
        if self.world.sampler != sampler:
            self.world.set_sampler(sampler)

    # steps

    def _dreamt(self, step: DreamStep, action: int, made: Made) -> None:
        """The dream and reality one step on."""
        before, state, mark = self._facts, self.dream, self._mark()
        self.dream = step.state
        self._picture = rgb(step.frames[0])
        age = before.age + 1
        over = bool(step.ends) or (self.horizon is not None and age >= self.horizon)
        lose, draw, win = step.reward_probabilities[0].tolist()
        facts = replace(before, reward=float(step.rewards), end=bool(step.ends), reward_probabilities=(lose, draw, win),
                        end_probability=float(step.end_probabilities), total=before.total + float(step.rewards),
                        age=age, action=action, sampler=made.sampler, lived=False, played=before.played + 1)
        self._facts = self._compared(self._moved(facts, action))
        self.instant += 1
        self._undo.clear()
        self._think_if_wanted()
        self.timeline.step(self._facts, self.dream, self._reality(), self._mark())
        if self.recorder is not None:
            self.recorder.dreamt(state, before, step, action, made, self._trail_of(mark))
            self.recorder.saw(self._facts)
        if over:
            self._end("this dream is over" if step.ends else f"this dream reached its horizon of {self.horizon} steps")

    def _resync_if_due(self) -> None:
        if self.resync_every and self.real and not self.real.over and self._facts.age >= self.resync_every:
            self._resync()

    def _moved(self, facts: Facts, action: int) -> Facts:
        """Reality one step on."""
        if self.real is None:
            return facts
        was_over = self.real.over
        tick = self.real.step(action)
        if self.real.over and not was_over and not facts.lived:
            self.say("reality's game is over; the dream goes on")
        return replace(facts, reality_reward=tick.reward, reality_end=tick.end, reality_total=self.real.total)

    def _compared(self, facts: Facts) -> Facts:
        """Dream against reality, in numbers."""
        if self.real is None or (self.real.over and self._facts.reality_end):
            return replace(facts, psnr=None, ssim=None, divergence=None)
        frame = self.real.frame
        assert frame is not None
        likeness = compare(self._picture, frame)
        lost = self.real.life_lost or self.real.over
        agreement = facts.agreement and np.sign(facts.reality_reward) == facts.reward and facts.end == lost
        still = facts.steps_agreed == facts.age - 1 and agreement and likeness.agrees
        return replace(facts, psnr=likeness.psnr, ssim=likeness.ssim, divergence=likeness.divergence,
                       agreement=bool(agreement), steps_agreed=facts.steps_agreed + still)

    def _live(self, action: int) -> None:
        """Reality alone one step on."""
        assert self.real is not None
        mark = self.real.mark()
        facts = replace(self._facts, action=action, sampler=None, lived=True, psnr=None, ssim=None, divergence=None,
                        reward=0.0, end=False, played=self._facts.played + 1)
        self._facts = self._moved(facts, action)
        self.instant += 1
        self._think_if_wanted()
        self.timeline.step(self._facts, None, self._reality(), self._mark())
        if self.recorder is not None:
            frame = self.real.frame
            assert frame is not None
            self.recorder.lived(action, self._facts, frame, self._trail_of(mark))
        if self.real.over:
            self._end("the game is over")

    def _trail_of(self, mark: Mark | None) -> Trail | None:
        """Where reality stood before the step just recorded, unless the recorded step before left it there."""
        known, self._recorded = self._recorded, self._mark()
        if mark is None or self.real is None:
            return None
        left_there = known is not None and known.actions is mark.actions and known.length == mark.length
        return None if left_there else self.real.trail(mark)

    # beginnings and ends

    def _begin(self) -> None:
        """A new game from an emulator's moment, or a dream from the checkpoint's starting frames."""
        number = (self.knobs.seed << 16) + self._games
        self._facts = replace(START if self._has_reality else Facts(), game_number=self._games, seed=self.knobs.seed,
                              lived=self.awake)
        c, *size = self.agent.config.frame_shape
        if self._has_reality:
            if self.real is None:
                self.real = Reality(self.game, self.world.num_conditioning_frames, (size[0], size[1]), c == 1,
                                    self.agent.config.noop_max)
            self.real.renew(number, self.mind.fresh(number))
            self.dream = self._dream_of_reality()
        else:
            self.dream = reseeded(self.agent.dream(self.world, number), self._seeds())
        self._picture = rgb(self.dream.frames[0, -1])
        self._jump()
        self._think_if_wanted()
        self.timeline.put(self._facts, self.dream, self._reality(), self._mark())

    def _dream_of_reality(self) -> DreamState:
        assert self.real is not None
        frames, actions = self.real.context()
        return self.world.start(frames, actions, self._seeds(), self.real.since)

    def _seeds(self) -> torch.Tensor:
        """Luck for a dream that begins here: a function of the seed, the game and the step."""
        return torch.tensor([(self.knobs.seed << 32) + (self._facts.game_number << 18) + self._facts.played])

    def _end(self, words: str) -> None:
        """The world that is played in is over: hold its last frame. A tape knows by itself what came then."""
        if self.guide is not None:
            return
        self._hold_until = self.clock.now() + HOLD
        self.say(f"{words}: a new one begins at your next key, or in a moment")

    def _jump(self) -> None:
        """After a value that no step led to: what depended on the old one is dropped."""
        self.instant += 2
        self._hold_until = self.fan = self.guide = self._thought = None
        self._undo.clear()

    # values from outside

    def _follow_reality(self) -> None:
        """The dream is reality's newest frames, and goes on from there."""
        assert self.real is not None
        facts = replace(START, total=self.real.total, reality_total=self.real.total, action=self._facts.action,
                        game_number=self._facts.game_number, played=self._facts.played)
        self._put(self._dream_of_reality(), facts)

    def _resync(self) -> None:
        """The same as a matter of routine: the frame just dreamt stays in view."""
        assert self.real is not None
        self.dream = self._dream_of_reality()
        self._facts = replace(self._facts, total=self.real.total, age=0, agreement=True, steps_agreed=0, seed=None)
        self.timeline.resync(self._facts, self.dream)
        if self.recorder is not None and self.recorder.steps:
            self.recorder.saw(self._facts)

    def _put(self, state: DreamState, facts: Facts) -> None:
        """Another value in place of this instant's."""
        was_over, facts = self._hold_until is not None, replace(facts, seed=None)
        self.dream, self._facts = state, facts
        self._picture = rgb(state.frames[0, -1])
        self._jump()
        if was_over:
            # the end stays on the timeline; this is a beginning after it
            self.timeline.put(facts, state, self._reality(), self._mark())
        else:
            self.timeline.amend(facts, state, self._mark())

    def say(self, words: str) -> None:
        """One short line for the person, for a few seconds."""
        self._message, self._said_at = words, self.clock.now()

    def _reality(self) -> np.ndarray | None:
        return self.real.frame if self.real else None

    def _mark(self) -> Mark | None:
        return self.real.mark() if self.real else None

    def _seen(self) -> torch.Tensor:
        """The newest k frames of the world that is played in, (1, k, c, h, w)."""
        return self.real.context()[0] if self.awake and self.real else self.dream.frames

    def _think(self) -> Thought:
        self._thought = self.mind.look(self.instant, self._seen())
        return self._thought

    def _think_if_wanted(self) -> None:
        """Looks at the new instant, so that its value stands on the timeline."""
        self._thought = None
        if self._mind_wanted:
            self._facts = replace(self._facts, value=self._think().value)
        elif self._facts.value is not None:
            self._facts = replace(self._facts, value=None)


def names(agent: Agent, game: str) -> list[str]:
    """What the actions are called."""
    if agent.card is not None:
        return list(agent.card.action_names)
    known = names_of(game) if game else []
    return known if len(known) == agent.num_actions else [f"ACTION {i}" for i in range(agent.num_actions)]

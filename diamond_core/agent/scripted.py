"""A player that goes where the ball will be, by its colour, with lapses: random play wins no points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diamond_core.agent.policies import LEANS, MIXED, MixPolicy, RandomPolicy
from diamond_core.diffusion.noise import uniform
from diamond_core.types import KeptPolicy, Start, Step

LUCK_STREAM = 19
"""This policy's random numbers, beside those of `policies`."""
LAPSES = (0.0, 0.1, 0.25, 0.5)
"""Shares of time in which a world's player presses keys at random: from attentive to absent-minded."""
LAPSE_STEPS, AIM_STEPS = 15, 25
"""Mean length of a lapse, and steps between two choices of the paddle's spot that shall meet the ball."""
GLIDE = (0.0, 0.265, 0.804, 0.95, 0.993, 1.0)
"""How much of the way of one press the paddle has gone after so many steps: it is on a knob, and lags behind. Fitted to
3,500 steps of Pong."""
LATE = 3
"""Presses so few steps before the meeting are still under way then: with them the paddle comes to stand, for a moment,
where no press leaves it."""
FAR = 12
"""Presses are planned no further ahead."""
COSTS = (0.05, 0.1, 0.1)
"""What a press costs, a late one, and a step that is waited with it, in 64ths of a miss."""
HURRY = 0.2
"""What a miss costs while the ball goes away, of what it costs else."""
NEVER = 1e6
"""The cost of what cannot be done."""
DOUBT = 0.3
"""By so much more, in 64ths of a miss, a button is pressed e times less often by a player who may choose."""
SLOW = 0.3
"""A ball that nears the paddle by less in a step, in 64ths, is not taken to be coming."""
LEAP = 12.0
"""What moves further in a step is not the same ball."""
HIDDEN = 2.6
"""So near a wall, in 64ths, the ball is half hidden, and is taken to be where it was going."""
NEAR = 9
"""So near the line where the paddle meets it, in 64ths, the ball is about to be met, or just was."""
AWAY = 4
"""A ball that comes after so many frames without one has been served."""
LONG = 12
"""After so many frames without a ball nothing comes of the last one any more."""
ANOTHER = 6.0
"""By so much a pixel differs on average, in byte levels, between one digit and the next."""
DUE = 6
"""Frames before a life is taken in which a dream takes it too early."""
MIN_COLOUR = 5.0
"""How far a pixel must stand out, in byte levels: a quarter of the ball covers its pixel."""


@dataclass(frozen=True)
class Thing:
    """How to find something in a picture: a window, in 64ths of its sides, and a colour."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    colour: tuple[float, float, float]
    """Weights of red, green and blue, chosen so that the thing is bright and all else in the window is not."""
    background: float
    """What the window's background adds up to under these weights."""
    without: int | None = None
    """A row inside the window, in 64ths, that looks like the thing: there it is only where it is above and below."""

    def light(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (n, h', w') float32: how much each pixel of the window stands out, 0 where little."""
        h, top = frames.shape[2], self.rows[0]
        window = cut(frames, self.rows, self.columns).float()
        light = torch.einsum("nchw,c->nhw", window, torch.tensor(self.colour, device=frames.device)) - self.background
        if self.without is not None:
            row = self.without * h // 64 - top * h // 64
            light[:, row] = torch.minimum(light[:, row - 1], light[:, row + 1])
        return light * (light > MIN_COLOUR)

    def seen(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (n,) bool."""
        return self.light(frames).flatten(1).any(1)

    def find(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (n, 2): row and column in 64ths, NaN where it is not seen."""
        h, w = frames.shape[2:]
        light = self.light(frames)
        mass = light.sum((1, 2))
        rows = torch.arange(light.shape[1], device=frames.device) * 64 / h + self.rows[0] + 0.5
        columns = torch.arange(light.shape[2], device=frames.device) * 64 / w + self.columns[0] + 0.5
        return torch.stack([light.sum(2) @ rows, light.sum(1) @ columns], dim=1) / mass[:, None].where(
            mass[:, None] > 0, torch.nan)


def cut(frames: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """(n, c, h, w) -> the window (n, c, h', w') of these rows and columns in 64ths."""
    h, w = frames.shape[2:]
    (top, bottom), (left, right) = rows, columns
    return frames[:, :, top * h // 64:bottom * h // 64, left * w // 64:right * w // 64]


@dataclass(frozen=True)
class Rules:
    """What a paddle game looks like, and which buttons move the paddle."""

    ball: Thing
    paddle: Thing
    axis: int
    """The paddle moves along 0 = rows, 1 = columns."""
    back: tuple[str, ...]
    """Buttons towards the smaller coordinate."""
    forth: tuple[str, ...]
    """Buttons towards the larger one."""
    stay: tuple[str, ...]
    serve: tuple[str, ...]
    """Buttons where no ball is seen."""
    aims: tuple[float, float]
    """Where, from the ball, the paddle's middle may be when they meet, in 64ths: where that is best, and the other end
    of what is tried."""
    meets: float
    """The row or column, in 64ths, where the paddle meets the ball."""
    walls: tuple[float, float]
    """Between which places along the paddle's way the ball bounces, in 64ths."""
    knob: tuple[float, float]
    """Where the knob stops, in 64ths: beyond what the paddle shows."""
    shown: tuple[float, float]
    """Where the paddle stops."""
    press: float
    """How far one press of a button moves the paddle in the end, in 64ths."""
    lead: float = 0.0
    """Steps by which the ball is met later than a straight line says."""
    strides: tuple[float, float] | None = None
    """The ball moves by multiples of these along rows and columns in a step, in 64ths: seen places are less exact."""
    lives: tuple[tuple[int, int], tuple[int, int]] | None = None
    """Rows and columns, in 64ths, of the digit that counts lives."""
    middle: float | None = None
    """So near the paddle's middle, in 64ths, hardly a ball gets past it; none where that is not known."""

    def meetings(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (m,) int64, the frames whose ball is near the player's paddle's line."""
        ball, line = self.ball, int(self.meets) - NEAR
        near = replace(ball, rows=(line, ball.rows[1])) if self.axis else replace(ball, columns=(line, ball.columns[1]))
        return near.seen(frames).nonzero()[:, 0]

    def serves(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (m,) int64, the frames with a ball after some without."""
        seen = self.ball.seen(frames)
        served = seen & (torch.arange(len(seen), device=seen.device) >= AWAY)
        for ago in range(1, AWAY + 1):
            served[ago:] &= ~seen[:-ago]
        return served.nonzero()[:, 0]

    def losses(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (m,) int64, the frames from which on there is no ball, and before was one near the
        player's paddle's line."""
        gone = self.meetings(frames[:-1]) + 1
        seen = F.pad(self.ball.seen(frames), (0, AWAY)).unfold(0, AWAY, 1)
        return gone[~seen[gone].any(1)]

    def waits(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (m,) int64, the frames without a ball after many without one."""
        seen = F.pad(self.ball.seen(frames), (LONG, 0), value=True).unfold(0, LONG + 1, 1)
        return (~seen.any(1)).nonzero()[:, 0]

    def lives_lost(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (m,) int64, the frames in which the digit that counts lives is another."""
        if self.lives is None:
            return torch.empty(0, dtype=torch.int64)
        digit = cut(frames, *self.lives).float().mean(1)
        return 1 + (digit.diff(dim=0).abs().mean((1, 2)) > ANOTHER).nonzero()[:, 0]

    def lives_due(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (m,) int64, the frames shortly before those, in which it must not change yet."""
        due = (self.lives_lost(frames) - torch.arange(1, DUE + 1)[:, None]).flatten()
        return due[due > 0].unique()


RULES = {
    "Pong": Rules(
        # on brown ground the ball adds more blue than green, either paddle less
        ball=Thing((11, 59), (0, 64), (0.0, -1.1, 1.0), 17 - 1.1 * 72),
        paddle=Thing((11, 59), (54, 60), (-1.0, 1.0, 0.0), 72 - 144),
        axis=0, back=("RIGHT", "RIGHTFIRE"), forth=("LEFT", "LEFTFIRE"), stay=("NOOP", "FIRE"),
        serve=("NOOP", "FIRE"),
        # the paddle's lower edge sends the ball off so steeply that the other player misses it
        aims=(-1.95, 1.0), meets=55.85, walls=(9.9, 59.25), knob=(2.5, 60.6), shown=(10.5, 59.6), press=6.99, lead=0.1,
        strides=(1.2148, 1.5912)),
    "Breakout": Rules(
        ball=Thing((29, 57), (4, 60), (1.0, -1.0, 0.0), 0.0),
        paddle=Thing((57, 59), (3, 61), (1.0, -1.0, 0.0), 0.0),
        axis=1, back=("LEFT",), forth=("RIGHT",), stay=("NOOP",), serve=("FIRE", "NOOP"), aims=(0.0, 1.0), meets=56.0,
        walls=(4.0, 60.0), knob=(6.7, 80.5), shown=(8.4, 59.3), press=8.9, lead=0.3,
        lives=((1, 5), (40, 45)), middle=3.0)}
"""The games that can be played so."""


class ScriptedPolicy:
    """Brings the paddle to where the ball will be, with a changing aim and with lapses: world i by
    `lapses[i % len(lapses)]`.

    A press turns a knob that the paddle follows over four steps, so the player keeps account of the presses.
    """

    def __init__(self, game: str, action_names: Sequence[str], num_envs: int, seed: int,
                 lapses: Sequence[float] = LAPSES, aim: float | None = None) -> None:
        """`aim` is kept, from 0 = where it is best to 1 = the other end; without one it wanders.

        Raises ValueError for a game that it does not know.
        """
        if game not in RULES:
            raise ValueError(f"no scripted player for {game}: use one of {', '.join(RULES)}, or another policy")
        self.rules = RULES[game]
        self.wanders = aim is None
        buttons = (self.rules.stay, self.rules.back, self.rules.forth, self.rules.serve)
        self._buttons = [torch.tensor([list(action_names).index(name) for name in names]) for names in buttons]
        self._ways = torch.zeros(len(action_names))
        self._ways[self._buttons[1]], self._ways[self._buttons[2]] = -1.0, 1.0
        self.lapses = torch.tensor([lapses[i % len(lapses)] for i in range(num_envs)])
        self.seeds = (seed << 20) + torch.arange(num_envs)
        self._absent = RandomPolicy(len(action_names), num_envs, seed, (0.8,))
        self._step = 0
        self._kept = {"lapsed": torch.zeros(num_envs, dtype=torch.bool),
                      "aim": self._aim(torch.full((num_envs,), aim or 0.0)),
                      "knob": torch.full((num_envs,), torch.nan), "presses": torch.zeros(num_envs, len(GLIDE) - 1),
                      "ball": torch.full((num_envs, 2), torch.nan), "speed": torch.zeros(num_envs, 2)}

    def advice(self, frames: Tensor) -> Tensor:
        """frames (n, 3, h, w) uint8, the next of every world -> (n, A) float32: the chance of every action, by what it
        costs: much where it decides, evenly where it does not."""
        kinds = torch.zeros(4, len(self._ways))
        for kind, buttons in enumerate(self._buttons):
            kinds[kind, buttons] = 1 / len(buttons)
        return (-self.wanted(frames) / DOUBT).softmax(1) @ kinds

    def _aim(self, share: Tensor) -> Tensor:
        best, other = self.rules.aims
        return best + (other - best) * share

    def reset(self, start: Start) -> None:
        """Forgets the ball and the knob."""
        self._forget(torch.ones(len(self.seeds), dtype=torch.bool))

    def _forget(self, worlds: Tensor) -> None:
        for name, value in (("knob", torch.nan), ("ball", torch.nan), ("speed", 0.0), ("presses", 0.0)):
            self._kept[name] = self._kept[name].clone()
            self._kept[name][worlds] = value

    def act(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (n,) int64."""
        self._step += 1
        kept = self._kept
        u = uniform(self.seeds, torch.full_like(self.seeds, self._step), LUCK_STREAM, 4)
        # in and out of lapses at rates that make the wanted share of time
        leaves = 1 / LAPSE_STEPS
        enters = leaves * self.lapses / (1 - self.lapses)
        kept["lapsed"] = torch.where(kept["lapsed"], u[:, 0] >= leaves, u[:, 0] < enters)
        if self.wanders:  # half of the time the best aim
            kept["aim"] = torch.where(u[:, 1] < 1 / AIM_STEPS, self._aim((2 * u[:, 2] - 1).clamp(min=0)), kept["aim"])
        kinds = self.wanted(frames).argmin(1)
        choices = torch.stack([buttons[(u[:, 3] * len(buttons)).long()] for buttons in self._buttons])
        wanted = choices[kinds, torch.arange(len(kinds))]
        actions = torch.where(kept["lapsed"], self._absent.act(frames).cpu(), wanted)
        self.pressed(actions)
        return actions.to(frames.device)

    def pressed(self, actions: Tensor) -> None:
        """Is told what was pressed (n,), by whomever."""
        ways, kept = self._ways[actions], self._kept
        kept["knob"] = (kept["knob"] + self.rules.press * ways).clamp(*self.rules.knob)
        kept["presses"] = torch.cat([ways[:, None], kept["presses"][:, :-1]], dim=1)

    def wanted(self, frames: Tensor) -> Tensor:
        """frames (n, 3, h, w) uint8, the next of every world -> (n, 4) float32, the cost of every kind of button in
        64ths of a miss: stay, back, forth, serve."""
        rules, kept, frames = self.rules, self._kept, frames.cpu()
        paddle = rules.paddle.find(frames)[:, rules.axis]
        # a paddle that is out of sight is taken for one in the middle
        paddle = paddle.nan_to_num(nan=35.0)
        # at an end of its way the paddle does not show where the knob is
        low, high = rules.shown
        shows = (kept["presses"] == 0).all(1) & (paddle > low + HIDDEN) & (paddle < high - HIDDEN)
        kept["knob"] = torch.where(shows | kept["knob"].isnan(), paddle, kept["knob"])
        goal, steps, comes = self._meeting(rules.ball.find(frames))
        costs = self._costs(goal, (steps + rules.lead).clamp(max=FAR), torch.where(comes, 1.0, HURRY))
        lost = kept["ball"][:, :1].isnan()
        return torch.cat([torch.where(lost, NEVER, costs), torch.where(lost, 0.0, NEVER)], dim=1)

    def _costs(self, goal: Tensor, steps: Tensor, weight: Tensor) -> Tensor:
        """(n, 3): of the best plan to be at the goal in so many steps that begins with no press, one back, one forth.

        A plan is so many presses one way, at once or a step later, and late ones; a miss counts by its weight.
        """
        rules, knob = self.rules, self._kept["knob"]
        whole = steps.floor().long()
        early = torch.arange(-FAR, FAR + 1.0)
        late = torch.cartesian_prod(*[torch.tensor([0.0, -1.0, 1.0])] * LATE)
        left = whole[:, None] - torch.arange(LATE - 1, -1, -1)  # when each late press is due
        pending = (self._kept["presses"] * (1 - glide(steps[:, None] + torch.arange(1, len(GLIDE))))).sum(1)
        knobs = (knob[:, None] + rules.press * early).clamp(*rules.knob) - rules.press * pending[:, None]
        ends = knobs[:, :, None] + rules.press * (glide(steps[:, None] - left) @ late.T)[:, None]
        costs = weight[:, None, None] * (ends.clamp(*rules.shown) - goal[:, None, None]).abs()
        costs += COSTS[0] * early.abs()[:, None] + COSTS[1] * late.abs().sum(1)
        too_late = ((left < 0).float() @ late.abs().T) > 0
        room = (whole - LATE + 1).clamp(min=0)[:, None]
        due = late.T[(LATE - 1 - whole).clamp(min=0)]  # (n, plans): the late press of now, if one is
        due = torch.where((whole < LATE)[:, None], due, 0.0)
        found = []
        for way in (0.0, -1.0, 1.0):
            waits = (early.abs() < room) if way == 0 else (early.sign() == way) & (early.abs() <= room)
            now = torch.where((early == 0)[:, None], (due == way)[:, None], waits[:, :, None])
            wait = COSTS[2] * ((early != 0) & (way == 0))[:, None]
            found.append((costs + wait + NEVER * (~now | too_late[:, None])).flatten(1).amin(1))
        return torch.stack(found, dim=1)

    def _meeting(self, ball: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """ball (n, 2) as it is seen -> where on the paddle's way to meet it, in how many steps, and whether it comes;
        where it goes away, beside it and some time."""
        rules, kept = self.rules, self._kept
        (low, high), axis = rules.walls, rules.axis
        self._follow(ball)
        ball, speed = kept["ball"], kept["speed"]
        along, comes = ball[:, axis], speed[:, 1 - axis] > SLOW
        steps = (rules.meets - ball[:, 1 - axis]).clamp(min=0) / speed[:, 1 - axis].clamp(min=SLOW)
        # walls are mirrors
        way = (along + speed[:, axis] * steps - low).remainder(2 * (high - low))
        there = low + torch.minimum(way, 2 * (high - low) - way)
        goal = torch.where(comes, there, along) + kept["aim"]
        return goal.nan_to_num(), torch.where(comes, steps, len(GLIDE) - 1).nan_to_num(), comes

    def _follow(self, seen: Tensor) -> None:
        """Keeps the ball's place and speed: as they are seen, near a wall as they must be."""
        rules, kept = self.rules, self._kept
        (low, high), axis = rules.walls, rules.axis
        was, before = kept["ball"], kept["speed"]
        expected, turned = was + before, before.clone()
        over = (expected[:, axis] < low) | (expected[:, axis] > high)
        expected[:, axis] = torch.where(expected[:, axis] < low, 2 * low, 2 * high).where(
            over, 0.0) + torch.where(over, -1, 1) * expected[:, axis]
        turned[:, axis] *= torch.where(over, -1, 1)
        speed = (seen - was).nan_to_num()
        speed[(speed.abs() >= LEAP).any(1)] = 0.0
        if rules.strides is not None:
            strides = torch.tensor(rules.strides)
            speed = (speed / strides).round() * strides
        away = (seen - expected).abs()
        is_near = over | (expected[:, axis] < low + HIDDEN) | (expected[:, axis] > high - HIDDEN)
        flies = (expected[:, 1 - axis] < rules.meets) & (before[:, 1 - axis].abs() > SLOW)
        is_it = seen[:, 0].isnan() | ((away[:, axis] < HIDDEN) & (away[:, 1 - axis] < HIDDEN / 2))
        reckoned = is_near & flies & is_it
        place = seen.clone()
        place[:, axis] = expected[:, axis]
        place = torch.where(seen.isnan(), expected, place)
        kept["ball"] = torch.where(reckoned[:, None], place, seen)
        kept["speed"] = torch.where(reckoned[:, None], turned, speed)

    def observe(self, step: Step) -> None:
        """Forgets the worlds that begin anew."""
        self._forget(step.dones.cpu())

    def state_dict(self) -> dict[str, Any]:
        """The step, what is kept of each world, and the random keys of the lapses."""
        return {"step": self._step, **self._kept, "absent": self._absent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._step = state["step"]
        # the state of an older script had neither ball nor knob, and both are soon known again
        self._kept |= {name: state[name] for name in self._kept if name in state}
        self._absent.load_state_dict(state["absent"])


def glide(steps: Tensor) -> Tensor:
    """How much of a press's way the paddle has gone after so many steps, which need not be whole; before it, none."""
    steps = steps.clamp(0, len(GLIDE) - 1)
    table = torch.tensor([*GLIDE, 1.0])
    return torch.lerp(table[steps.long()], table[steps.long() + 1], steps.frac())


def mixed_play(game: str, action_names: Sequence[str], num_envs: int, seed: int) -> KeptPolicy:
    """Random players of several kinds, with changing preferences; where the game is known, two of three worlds (or
    episodes, where there are fewer worlds) are played by the script instead."""
    if game not in RULES:
        return RandomPolicy(len(action_names), num_envs, seed, MIXED, LEANS)
    random = RandomPolicy(len(action_names), num_envs, seed, MIXED)
    return MixPolicy([random, *(ScriptedPolicy(game, action_names, num_envs, seed + i) for i in (1, 2))])

"""A player that goes where the ball will be, by its colour, with lapses: random play wins no points."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
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
GLIDE = (0.0, 0.32, 0.78, 0.95, 1.0)
"""How much of the way of one press the paddle has gone after so many steps: it is on a knob, and lags behind."""
LEAD = 0.3
"""Steps by which the ball is met later than a straight line says: the paddle is thick."""
SLOW = 0.3
"""A ball that nears the paddle by less in a step, in 64ths, is not taken to be coming."""
LEAP = 12.0
"""What moves further in a step is not the same ball."""
WORTH = 0.5
"""A press must bring the paddle so much nearer, in 64ths."""
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

    def light(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (n, h', w') float32: how much each pixel of the window stands out, 0 where little."""
        h, w = frames.shape[2:]
        (top, bottom), (left, right) = self.rows, self.columns
        window = frames[:, :, top * h // 64:bottom * h // 64, left * w // 64:right * w // 64].float()
        light = torch.einsum("nchw,c->nhw", window, torch.tensor(self.colour, device=frames.device)) - self.background
        return light * (light > MIN_COLOUR)

    def find(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (n, 2): row and column in 64ths, NaN where it is not seen."""
        h, w = frames.shape[2:]
        light = self.light(frames)
        mass = light.sum((1, 2))
        rows = torch.arange(light.shape[1], device=frames.device) * 64 / h + self.rows[0] + 0.5
        columns = torch.arange(light.shape[2], device=frames.device) * 64 / w + self.columns[0] + 0.5
        return torch.stack([light.sum(2) @ rows, light.sum(1) @ columns], dim=1) / mass[:, None].where(
            mass[:, None] > 0, torch.nan)


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
    reach: float
    """How far from the paddle's middle the ball may be meant to be met, in 64ths: the aim changes within that."""
    middle: float
    """Where the ball is met best, from the paddle's middle, in 64ths."""
    meets: float
    """The row or column, in 64ths, where the paddle meets the ball."""
    walls: tuple[float, float]
    """Between which places along the paddle's way the ball bounces, in 64ths."""
    press: float
    """How far one press of a button moves the paddle in the end, in 64ths."""


RULES = {
    "Pong": Rules(
        # on brown ground the ball adds more blue than green, either paddle less
        ball=Thing((11, 59), (0, 64), (0.0, -1.1, 1.0), 17 - 1.1 * 72),
        paddle=Thing((11, 59), (54, 60), (-1.0, 1.0, 0.0), 72 - 144),
        axis=0, back=("RIGHT", "RIGHTFIRE"), forth=("LEFT", "LEFTFIRE"), stay=("NOOP", "FIRE"),
        serve=("NOOP", "FIRE"), reach=1.0, middle=-0.75, meets=55.5, walls=(11.0, 58.5), press=6.7),
    "Breakout": Rules(
        ball=Thing((29, 57), (4, 60), (1.0, -1.0, 0.0), 0.0),
        paddle=Thing((57, 59), (3, 61), (1.0, -1.0, 0.0), 0.0),
        axis=1, back=("LEFT",), forth=("RIGHT",), stay=("NOOP",), serve=("FIRE", "NOOP"), reach=1.0, middle=0.0,
        meets=56.0, walls=(4.0, 60.0), press=8.9)}
"""The games that can be played so."""


class ScriptedPolicy:
    """Keeps the paddle where the ball will be, with a changing aim and with lapses: world i by
    `lapses[i % len(lapses)]`.

    A press turns a knob that the paddle follows over four steps, so the player keeps account of the knob.
    """

    def __init__(self, game: str, action_names: Sequence[str], num_envs: int, seed: int,
                 lapses: Sequence[float] = LAPSES) -> None:
        """Raises ValueError for a game that it does not know."""
        if game not in RULES:
            raise ValueError(f"no scripted player for {game}: use one of {', '.join(RULES)}, or another policy")
        self.rules = RULES[game]
        buttons = (self.rules.stay, self.rules.back, self.rules.forth, self.rules.serve)
        self._buttons = [torch.tensor([list(action_names).index(name) for name in names]) for names in buttons]
        self._ways = torch.zeros(len(action_names))
        self._ways[self._buttons[1]], self._ways[self._buttons[2]] = -1.0, 1.0
        self.lapses = torch.tensor([lapses[i % len(lapses)] for i in range(num_envs)])
        self.seeds = (seed << 20) + torch.arange(num_envs)
        self._absent = RandomPolicy(len(action_names), num_envs, seed, (0.8,))
        self._step = 0
        self._kept = {"lapsed": torch.zeros(num_envs, dtype=torch.bool), "aim": torch.zeros(num_envs),
                      "knob": torch.full((num_envs,), torch.nan), "rest": torch.zeros(num_envs),
                      "ball": torch.full((num_envs, 2), torch.nan), "speed": torch.zeros(num_envs, 2)}

    def reset(self, start: Start) -> None:
        """Forgets the ball and the knob."""
        self._forget(torch.ones(len(self.seeds), dtype=torch.bool))

    def _forget(self, worlds: Tensor) -> None:
        for name, value in (("knob", torch.nan), ("ball", torch.nan), ("speed", 0.0)):
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
        kept["aim"] = torch.where(u[:, 1] < 1 / AIM_STEPS, (2 * u[:, 2] - 1) * self.rules.reach, kept["aim"])
        kinds = self._wanted(frames.cpu())
        choices = torch.stack([buttons[(u[:, 3] * len(buttons)).long()] for buttons in self._buttons])
        wanted = choices[kinds, torch.arange(len(kinds))]
        actions = torch.where(kept["lapsed"], self._absent.act(frames).cpu(), wanted)
        ways = self._ways[actions]
        kept["knob"] = (kept["knob"] + self.rules.press * ways).clamp(*self.rules.walls)
        kept["rest"] = torch.where(ways == 0, kept["rest"] + 1, 0.0)
        return actions.to(frames.device)

    def _wanted(self, frames: Tensor) -> Tensor:
        """(n,) int64: 0 stay, 1 back, 2 forth, 3 serve."""
        rules, kept = self.rules, self._kept
        ball, paddle = rules.ball.find(frames), rules.paddle.find(frames)[:, rules.axis]
        # a paddle that is out of sight is taken for one in the middle
        paddle = paddle.nan_to_num(nan=35.0)
        rests = (kept["rest"] >= len(GLIDE) - 1) | kept["knob"].isnan()
        kept["knob"] = torch.where(rests, paddle, kept["knob"])
        goal, steps = self._meeting(ball)
        done = torch.tensor([*GLIDE, 1.0])
        steps = (steps + LEAD).clamp(max=len(GLIDE) - 1)
        share = torch.lerp(done[steps.long()], done[steps.long() + 1], steps.frac())
        # where the paddle will be by then if nothing is pressed, or one way, or the other
        knobs = (kept["knob"][:, None] + rules.press * torch.tensor([0.0, -1.0, 1.0])).clamp(*rules.walls)
        misses = (torch.lerp(paddle[:, None], knobs, share[:, None]) - goal[:, None]).abs()
        misses[:, 0] -= WORTH
        return torch.where(ball[:, 0].isnan(), 3, misses.argmin(1))

    def _meeting(self, ball: Tensor) -> tuple[Tensor, Tensor]:
        """ball (n, 2) -> where on the paddle's way to meet it, and in how many steps; where it goes away, beside it
        and some time."""
        rules, kept = self.rules, self._kept
        (low, high), axis = rules.walls, rules.axis
        speed = (ball - kept["ball"]).nan_to_num()
        leapt = (speed.abs() >= LEAP).any(1)
        speed[leapt] = 0.0
        before, along = torch.where(leapt, 0.0, kept["speed"][:, axis]), ball[:, axis]
        # in the step of a bounce the ball goes both ways: it will be as fast as it was
        fast = torch.maximum(speed[:, axis].abs(), before.abs())
        bounced = torch.where((along - low < fast) & (speed[:, axis] > before), fast, speed[:, axis])
        speed[:, axis] = torch.where((high - along < fast) & (speed[:, axis] < before), -fast, bounced)
        kept["ball"], kept["speed"] = ball, speed
        comes = speed[:, 1 - axis] > SLOW
        steps = (rules.meets - ball[:, 1 - axis]).clamp(min=0) / speed[:, 1 - axis].clamp(min=SLOW)
        # walls are mirrors
        way = (along + speed[:, axis] * steps - low).remainder(2 * (high - low))
        there = low + torch.minimum(way, 2 * (high - low) - way)
        goal = torch.where(comes, there, along) + rules.middle + kept["aim"]
        return goal.nan_to_num(), torch.where(comes, steps, len(GLIDE))

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


def mixed_play(game: str, action_names: Sequence[str], num_envs: int, seed: int) -> KeptPolicy:
    """Random players of several kinds, with changing preferences; where the game is known, two of three worlds are
    played by the script instead."""
    if game not in RULES:
        return RandomPolicy(len(action_names), num_envs, seed, MIXED, LEANS)
    random = RandomPolicy(len(action_names), num_envs, seed, MIXED)
    return MixPolicy([random, *(ScriptedPolicy(game, action_names, num_envs, seed + i) for i in (1, 2))])

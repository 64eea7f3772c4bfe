"""A player that follows the ball by its colour, with lapses: random play has no rallies and wins no points."""

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
    """Half of the paddle, in 64ths: the ball is met up to so far from its middle."""


RULES = {
    "Pong": Rules(
        # on brown ground the ball adds more blue than green, either paddle less
        ball=Thing((11, 59), (0, 64), (0.0, -1.1, 1.0), 17 - 1.1 * 72),
        paddle=Thing((11, 59), (54, 60), (-1.0, 1.0, 0.0), 72 - 144),
        axis=0, back=("RIGHT", "RIGHTFIRE"), forth=("LEFT", "LEFTFIRE"), stay=("NOOP", "FIRE"),
        serve=("NOOP", "FIRE"), reach=2.0),
    "Breakout": Rules(
        ball=Thing((29, 57), (4, 60), (1.0, -1.0, 0.0), 0.0),
        paddle=Thing((57, 59), (3, 61), (1.0, -1.0, 0.0), 0.0),
        axis=1, back=("LEFT",), forth=("RIGHT",), stay=("NOOP",), serve=("FIRE", "NOOP"), reach=3.5)}
"""The games that can be played so."""


class ScriptedPolicy:
    """Keeps the paddle at the ball, with a changing aim and with lapses: world i by `lapses[i % len(lapses)]`."""

    def __init__(self, game: str, action_names: Sequence[str], num_envs: int, seed: int,
                 lapses: Sequence[float] = LAPSES) -> None:
        """Raises ValueError for a game that it does not know."""
        if game not in RULES:
            raise ValueError(f"no scripted player for {game}: use one of {', '.join(RULES)}, or another policy")
        self.rules = RULES[game]
        buttons = (self.rules.stay, self.rules.back, self.rules.forth, self.rules.serve)
        self._buttons = [torch.tensor([list(action_names).index(name) for name in names]) for names in buttons]
        self.lapses = torch.tensor([lapses[i % len(lapses)] for i in range(num_envs)])
        self.seeds = (seed << 20) + torch.arange(num_envs)
        self._absent = RandomPolicy(len(action_names), num_envs, seed, (0.8,))
        self._step = 0
        self._lapsed = torch.zeros(num_envs, dtype=torch.bool)
        self._aim = torch.zeros(num_envs)

    def reset(self, start: Start) -> None:
        """Nothing is remembered but the lapse and the aim."""

    def act(self, frames: Tensor) -> Tensor:
        """(n, 3, h, w) uint8 -> (n,) int64."""
        self._step += 1
        u = uniform(self.seeds, torch.full_like(self.seeds, self._step), LUCK_STREAM, 4)
        # in and out of lapses at rates that make the wanted share of time
        leaves = 1 / LAPSE_STEPS
        enters = leaves * self.lapses / (1 - self.lapses)
        self._lapsed = torch.where(self._lapsed, u[:, 0] >= leaves, u[:, 0] < enters)
        self._aim = torch.where(u[:, 1] < 1 / AIM_STEPS, (2 * u[:, 2] - 1) * self.rules.reach, self._aim)
        kinds = self._wanted(frames.cpu())
        choices = torch.stack([buttons[(u[:, 3] * len(buttons)).long()] for buttons in self._buttons])
        wanted = choices[kinds, torch.arange(len(kinds))]
        return torch.where(self._lapsed, self._absent.act(frames).cpu(), wanted).to(frames.device)

    def _wanted(self, frames: Tensor) -> Tensor:
        """(n,) int64: 0 stay, 1 back, 2 forth, 3 serve."""
        axis = self.rules.axis
        ball = self.rules.ball.find(frames)[:, axis]
        paddle = self.rules.paddle.find(frames)[:, axis]
        # a paddle that is out of sight is taken for one in the middle
        gap = ball + self._aim - paddle.nan_to_num(nan=35.0)
        moves = (gap < -1).long() + 2 * (gap > 1).long()
        return torch.where(ball.isnan(), 3, moves)

    def observe(self, step: Step) -> None:
        """Reads the frames only."""

    def state_dict(self) -> dict[str, Any]:
        """The step, lapses and aims, and the random keys of the lapses."""
        return {"step": self._step, "lapsed": self._lapsed, "aim": self._aim, "absent": self._absent.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._step, self._lapsed, self._aim = state["step"], state["lapsed"], state["aim"]
        self._absent.load_state_dict(state["absent"])


def mixed_play(game: str, action_names: Sequence[str], num_envs: int, seed: int) -> KeptPolicy:
    """Random players of several kinds, with changing preferences; where the game is known, two of three worlds are
    played by the script instead."""
    if game not in RULES:
        return RandomPolicy(len(action_names), num_envs, seed, MIXED, LEANS)
    random = RandomPolicy(len(action_names), num_envs, seed, MIXED)
    return MixPolicy([random, *(ScriptedPolicy(game, action_names, num_envs, seed + i) for i in (1, 2))])

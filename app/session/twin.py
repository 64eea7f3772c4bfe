"""Reality beside the dream: the emulator with its newest frames, its past as a trail, and how alike two frames are.

Our own. An emulator goes back by playing again from the start of its game, so that is put off until it is needed.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diamond_core.envs import Emulator, Tick, Trail
from diamond_core.envs import action_names as names_of
from diamond_core.evaluation import metrics
from diamond_core.pixels import to_chw, to_hwc
from diamond_core.types import Policy, Start

SLICE = 0.015
"""Seconds that an emulator on its way back may take at once, where others wait."""
WARMUP = 20
"""Real steps before a dream begins; in most games play has begun by then."""
SAME, OTHER = 40.0, 20.0
"""dB at which two frames count as the same, and as pictures of different worlds."""
MISPLACED = 60.0
"""Byte levels from which on something is somewhere else, or not there: in shipped dreams things that are within a pixel
of their real place differ by less in nine of ten frames, others by more."""


def has_reality(game: str | None) -> bool:
    """Whether the emulator can be stepped beside a dream of this game: an Atari game it knows."""
    if game is None or game == "toy" or game.startswith("gym:"):
        return False
    try:
        names_of(game)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Mark:
    """A place in a real game. Cheap: it shares the list of actions with its neighbours."""

    noops: int
    actions: list[int]
    """Of the episode; only the first `length` count."""
    length: int
    total: float
    lives: int
    over: bool


class Reality:
    """One real game that can be gone back in."""

    def __init__(self, game: str, k: int, image_size: tuple[int, int] = (64, 64), grayscale: bool = False,
                 noop_max: int = 30) -> None:
        self.game = game
        self._k = k
        self._emulator = Emulator(game, image_size=image_size, grayscale=grayscale, noop_max=noop_max)
        self._noops, self._actions = -1, list[int]()
        self._behind: deque[int] = deque()
        self._restart: int | None = None
        self._frames: deque[Tensor] = deque(maxlen=k)
        self._lives: deque[int] = deque(maxlen=k)
        self.total, self.lives, self.over = 0.0, 0, False
        self.life_lost = False
        """Whether the newest step cost a life."""

    @staticmethod
    def begin(game: str, seed: int, policy: Policy, *, k: int = 4, image_size: tuple[int, int] = (64, 64),
              grayscale: bool = False, warmup: int = WARMUP) -> Reality:
        """A new game that `policy` has played for a moment; its score counts from there."""
        reality = Reality(game, k, image_size, grayscale)
        reality.renew(seed, policy, warmup)
        return reality

    def renew(self, seed: int, policy: Policy, warmup: int = WARMUP) -> None:
        """Another new game."""
        for attempt in range(8):
            self._open(self._emulator.reset(seed + attempt))
            policy.reset(Start(self._frames[-1][None], self._frames[-1][None, None][:, :0]))
            for _ in range(max(warmup, self._k - 1)):
                self.step(int(policy.act(self._frames[-1][None])[0]))
                if self.over:
                    break
            if not self.over:
                break
        self.total = 0.0

    def _open(self, frame: Tensor) -> None:
        """A game at its first frame."""
        trail = self._emulator.save()
        self._noops, self._actions = trail.noops, list(trail.actions)
        self._behind.clear()
        self._restart = None
        self._begin(frame)
        self.total, self.lives, self.over, self.life_lost = 0.0, 0, False, False

    def step(self, action: int) -> Tick:
        """The same action in reality. After the end nothing moves."""
        self.settle()
        if self.over:
            self.life_lost = False
            return Tick(self._frames[-1], 0.0, True, self.lives)
        tick = self._emulator.step(action)
        self._actions.append(action)
        self.total += tick.reward
        self.life_lost = tick.lives < self.lives
        self._see(tick)
        return tick

    def _begin(self, frame: Tensor) -> None:
        self._frames.clear()
        self._lives.clear()
        self._frames.append(frame)
        self._lives.append(0)

    def _see(self, tick: Tick) -> None:
        self._frames.append(tick.frame)
        self._lives.append(tick.lives)
        self.lives, self.over = tick.lives, tick.end

    def context(self) -> tuple[Tensor, Tensor]:
        """The newest k frames (1, k, c, h, w) and the k - 1 actions between them, for `World.start`."""
        self.settle()
        k = self._k
        # a game younger than k frames is one that stood still before
        frames = [self._frames[0]] * (k - len(self._frames)) + list(self._frames)
        actions = [0] * (k - 1) + self._actions
        return torch.stack(frames)[None], torch.tensor([actions[len(actions) - (k - 1):]], dtype=torch.int64)

    @property
    def since(self) -> int:
        """The first of the newest k frames that is of this life: to a reward model, a lost one is an episode's end."""
        self.settle()
        fewer = [i for i, (before, now) in enumerate(pairwise(self._lives), 1) if now < before]
        return self._k - len(self._lives) + fewer[-1] if fewer else 0

    @property
    def frame(self) -> np.ndarray | None:
        """What an agent sees, (h, w, 3); none while the emulator is still on its way to an earlier moment."""
        return None if self.behind else rgb(self._frames[-1])

    @property
    def newest(self) -> Tensor:
        """The same as (c, h, w) uint8."""
        self.settle()
        return self._frames[-1]

    @property
    def screen(self) -> np.ndarray | None:
        """What a person sees, (210, 160, 3) or a little higher; none while on its way."""
        return None if self.behind else self._emulator.screen()

    @property
    def behind(self) -> int:
        """Actions still to be played again."""
        return len(self._behind) + (self._restart is not None)

    def mark(self) -> Mark:
        """Where the game stands."""
        return Mark(self._noops, self._actions, len(self._actions), self.total, self.lives, self.over)

    def trail(self, mark: Mark | None = None) -> Trail:
        """Where the game stands, or stood, as plain values."""
        mark = mark or self.mark()
        trail = self._emulator.save()
        return Trail(trail.rom, trail.frame_skip, mark.noops, tuple(mark.actions[:mark.length]))

    def go_to(self, mark: Mark) -> None:
        """To an earlier moment; played again at the next step, or bit by bit by `catch_up`."""
        self._noops, self._actions = mark.noops, mark.actions[:mark.length]
        self.total, self.lives, self.over = mark.total, mark.lives, mark.over
        self._behind = deque(self._actions)
        self._restart = mark.noops

    def restore(self, trail: Trail, total: float = 0.0) -> None:
        """To a moment that was saved; who stands there already, or is on the way there, goes on. Raises ValueError for
        another game's."""
        here = self._emulator.save()
        if (trail.rom, trail.frame_skip) != (here.rom, here.frame_skip):
            raise ValueError(f"expected a moment of {here.rom}, got one of {trail.rom}: load it in that game")
        if not all(0 <= action < self._emulator.num_actions for action in trail.actions) or trail.noops < 0:
            raise ValueError(f"expected actions from 0 to {self._emulator.num_actions - 1}, the file holds others")
        if trail == self.trail():
            self.total = total
        else:
            self.go_to(Mark(trail.noops, list(trail.actions), len(trail.actions), total, 0, False))

    def settle(self) -> None:
        """Plays again all that is still to be played: about a second for 4,000 actions."""
        self.catch_up(float("inf"))

    def catch_up(self, seconds: float = SLICE) -> int:
        """Plays again for so long at most; returns how many actions are left."""
        if not self.behind:
            return 0
        until = time.perf_counter() + seconds
        if self._restart is not None:
            self._begin(self._emulator.reset(0, noops=self._restart))
            self._restart = None
        while self._behind and time.perf_counter() < until:
            tick = self._emulator.step(self._behind.popleft())
            self._see(tick)
        return len(self._behind)


class Likeness(NamedTuple):
    """How alike two frames are."""

    psnr: float
    """dB, at most 60."""
    ssim: float
    apart: float = 0.0
    """Byte levels by which they differ, at most, where no shift by a pixel explains it."""

    @property
    def divergence(self) -> float:
        """0 = the same, 1 = another world."""
        return min(max((SAME - self.psnr) / (SAME - OTHER), 0.0), 1.0)

    @property
    def agrees(self) -> bool:
        """Whether the dream still counts as true."""
        return self.apart <= MISPLACED


def compare(dream: np.ndarray, reality: np.ndarray) -> Likeness:
    """Of two (h, w, 3) uint8 images."""
    x, y = to_chw(dream)[None], to_chw(reality)[None]
    return Likeness(float(metrics.psnr(x, y)[0]), float(metrics.ssim(x, y)[0]), float(metrics.apart(x, y)[0]))


def difference(dream: np.ndarray, reality: np.ndarray) -> np.ndarray:
    """Where two (h, w, 3) uint8 images differ and how much: (h, w) float32 from 0 to 1."""
    return np.abs(dream.astype(np.int16) - reality).max(-1).astype(np.float32) / 255


def rgb(frame: Tensor) -> np.ndarray:
    """(c, h, w) uint8, grey or colour -> (h, w, 3)."""
    image = to_hwc(frame)
    return np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))

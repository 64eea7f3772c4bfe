"""What real environments share: checked actions, a seed for every episode, resets at once, and the way back.

Our own. An environment is where its seed and its actions lead: a world's place is the seed of its episode and the
actions since, and to restore it is to play them again. That is as slow as playing was but exact in every game, which
ALE's snapshots are not: they leave out how sprites are being drawn, and go astray in Qbert, RoadRunner and Tetris.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diamond_core.pixels import to_chw
from diamond_core.types import Start, Step, checked


class Moved(NamedTuple):
    """What n worlds answer to their actions, before any reset."""

    frames: np.ndarray
    """(n, h, w, c) uint8."""
    rewards: np.ndarray
    """(n,) numbers."""
    ends: np.ndarray
    """(n,) bool: to be learned as an end."""
    truncs: np.ndarray
    """(n,) bool: cut off."""
    over: np.ndarray
    """(n,) bool: cannot go on without a restart; a lost life, for one, ends without being over."""


class Worlds(ABC):
    """A `VectorEnv` over n worlds that know two things only: to start from a seed and to move by an action."""

    def __init__(self, num_envs: int, num_actions: int, frame_shape: tuple[int, int, int]) -> None:
        self.num_envs = num_envs
        self.num_actions = num_actions
        self.frame_shape = frame_shape
        self._started = False

    @abstractmethod
    def _restart(self, worlds: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        """Starts some worlds (indices) from seeds, one each, and leaves the others; (n, h, w, c) frames of all."""

    @abstractmethod
    def _move(self, actions: np.ndarray) -> Moved:
        """Takes one action per world, (n,) int64."""

    def close(self) -> None:
        """Frees what the worlds hold; they cannot be stepped any more."""
        self._started = False

    def reset(self, seed: int) -> Start:
        """Starts every world anew; each episode's seed follows from `seed`, the world and the episode's number."""
        return self._go(seed, [0] * self.num_envs, [[] for _ in range(self.num_envs)])

    def step(self, actions: Tensor) -> Step:
        """Takes one action per world, (n,) int64; worlds that are over begin their next episode at once."""
        taken = self._checked(actions)
        for log, action in zip(self._actions, taken.tolist(), strict=True):
            log.append(action)
        moved = self._move(taken)
        final = frames = to_chw(moved.frames)
        if moved.over.any():
            frames = to_chw(self._next_episodes(np.flatnonzero(moved.over)))
        rewards = torch.from_numpy(moved.rewards.astype(np.float32))
        ends, truncs = torch.from_numpy(moved.ends), torch.from_numpy(moved.truncs)
        return Step(frames, rewards, ends, truncs, final, self._no_context())

    def state_dict(self) -> dict[str, Any]:
        """The seed of `reset`, and per world the number of its episode and the actions it took in it."""
        self._expect_start()
        actions = [torch.tensor(log, dtype=torch.int16) for log in self._actions]
        return {"seed": self._seed, "episodes": list(self._episodes), "actions": actions}

    def load_state_dict(self, state: dict[str, Any]) -> Start:
        """Goes to where `state_dict` was taken by playing again, which takes as long as the longest episode did."""
        if len(state["actions"]) != self.num_envs:
            raise ValueError(
                f"expected the state of {self.num_envs} worlds, got one of {len(state['actions'])}: "
                "build the environment with as many worlds as were saved"
            )
        return self._go(state["seed"], list(state["episodes"]), [log.tolist() for log in state["actions"]])

    def _go(self, seed: int, episodes: list[int], actions: list[list[int]]) -> Start:
        """Plays the actions of every world's episode. Short episodes begin late, so that all arrive together."""
        self._seed, self._episodes, self._actions, self._started = seed, episodes, actions, True
        lengths = np.array([len(log) for log in actions])
        total = int(lengths.max())
        tape = np.zeros((total, self.num_envs), np.int64)
        for world, log in enumerate(actions):
            tape[total - len(log) :, world] = log
        over = np.ones(self.num_envs, bool)
        for t in range(total + 1):
            due = np.flatnonzero(over | (lengths == total - t))
            if len(due):
                frames = self._restart(due, self._seeds(due))
            if t < total:
                frames, *_, over = self._move(tape[t])
        return Start(to_chw(frames), self._no_context())

    def _next_episodes(self, worlds: np.ndarray) -> np.ndarray:
        for world in worlds:
            self._episodes[world] += 1
            self._actions[world] = []
        return self._restart(worlds, self._seeds(worlds))

    def _seeds(self, worlds: np.ndarray) -> np.ndarray:
        keys = [(self._seed, int(world), self._episodes[world]) for world in worlds]
        # 31 bits: ALE reads a negative seed as "none".
        return np.array([np.random.SeedSequence(key).generate_state(1)[0] >> 1 for key in keys], np.int64)

    def _checked(self, actions: Tensor) -> np.ndarray:
        self._expect_start()
        return checked(actions, self).cpu().numpy()

    def _expect_start(self) -> None:
        if not self._started:
            raise RuntimeError("expected worlds that have started: call reset(seed) first")

    def _no_context(self) -> Tensor:
        return torch.empty((self.num_envs, 0, *self.frame_shape), dtype=torch.uint8)


def shrink(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(H, W, c) uint8 -> (h, w, c) uint8 by area interpolation, bit for bit as ALE does it."""
    import cv2  # a seventh of a second, and dreams alone do without

    small = cv2.resize(image, size[::-1], interpolation=cv2.INTER_AREA)
    return small.reshape(*size, image.shape[-1])

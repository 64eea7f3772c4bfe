"""The dream as a vector environment: what the agent is trained in. Source: SPEC 6."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diamond_core.types import Start, Step, checked
from diamond_core.world.dream import DreamState, World

Starts = Callable[[int], tuple[Tensor, Tensor]]
"""starts(i): the i-th draw of real frames (m, k, c, h, w) and actions (m, k) to begin dreams from; m is constant."""


def in_any_order(frames: Tensor, actions: Tensor, seed: int) -> Starts:
    """Draws of all these (m, k, ...), each in an order of its own by the seed."""
    def starts(draw: int) -> tuple[Tensor, Tensor]:
        order = torch.from_numpy(np.random.default_rng((seed, draw)).permutation(len(frames)))
        return frames[order], actions[order]

    return starts


class ImaginedEnv:
    """n dreamt worlds; each is reset on its own when it ends or reaches the horizon.

    The r-th dream since `reset` begins from row r of the stream of starts and has the seed (seed, r): both are
    functions of a counter, so the environment is saved as one `DreamState` and that counter.
    """

    def __init__(self, world: World, starts: Starts, num_envs: int, horizon: int | None) -> None:
        self.world = world
        self.starts = starts
        self.num_envs = num_envs
        self.num_actions = world.num_actions
        self.horizon = horizon
        frames, _ = starts(0)
        c, h, w = frames.shape[2:]
        self.frame_shape = (c, h, w)
        self._draw_size = len(frames)
        self._pool: tuple[int, DreamState] | None = None

    def reset(self, seed: int) -> Start:
        """Begins n dreams."""
        self._seed, self._used = seed, 0
        self._pool = None
        self._state = self._next_dreams(self.num_envs)
        return self._start()

    def step(self, actions: Tensor) -> Step:
        """Dreams one frame on, then replaces the dreams that are over."""
        dreamt = self.world.step(self._state, checked(actions, self))
        truncs = torch.zeros_like(dreamt.ends) if self.horizon is None else dreamt.state.steps >= self.horizon
        dones = dreamt.ends | truncs
        self._state = dreamt.state
        if dones.any():
            self._replace(dones.nonzero()[:, 0])
        start = self._start()
        return Step(start.frames, dreamt.rewards, dreamt.ends, truncs, dreamt.frames, start.context)

    def state_dict(self) -> dict[str, Any]:
        """The dreams as a value, the seed and the counter."""
        return {"seed": self._seed, "used": self._used, "dreams": self._state.tensors()}

    def load_state_dict(self, state: dict[str, Any]) -> Start:
        """Goes on from what `state_dict` returned, given the same stream of starts."""
        self._seed, self._used = state["seed"], state["used"]
        self._pool = None
        self._state = DreamState(**state["dreams"]).to(self.world.runtime.device)
        return self._start()

    def close(self) -> None:
        """Nothing to free."""

    def _start(self) -> Start:
        return Start(self._state.frames[:, -1], self._state.frames[:, :-1])

    def _replace(self, index: Tensor) -> None:
        fresh = self._next_dreams(len(index))
        self._state = DreamState(**{
            name: x.index_copy(0, index, getattr(fresh, name)) for name, x in self._state.tensors().items()})

    def _next_dreams(self, n: int) -> DreamState:
        """The next n rows of the stream of starts, as dreams."""
        rows = []
        while n > 0:
            draw, row = divmod(self._used, self._draw_size)
            rows.append(self._drawn(draw)[row:row + n])
            self._used += len(rows[-1])
            n -= len(rows[-1])
        return DreamState.cat(rows)

    def _drawn(self, draw: int) -> DreamState:
        """Draw number `draw` of starts, burnt in. Kept until the next draw is asked for."""
        if self._pool is None or self._pool[0] != draw:
            frames, actions = self.starts(draw)
            rows = torch.arange(draw * self._draw_size, (draw + 1) * self._draw_size)
            seeds = (self._seed << 32) + rows
            self._pool = draw, self.world.start(frames, actions, seeds)
        return self._pool[1]

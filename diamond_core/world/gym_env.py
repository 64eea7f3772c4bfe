"""The dream as a standard Gymnasium environment, single and vectorised, so that any library's agent can train in it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from torch import Tensor

from diamond_core.pixels import to_hwc
from diamond_core.world.dream import DreamState, World
from diamond_core.world.imagination import ImaginedEnv, in_any_order


def frame_space(frame_shape: tuple[int, int, int]) -> Box:
    """(c, h, w) -> the space of (h, w, c) uint8 images."""
    c, h, w = frame_shape
    return Box(0, 255, (h, w, c), np.uint8)


class DreamEnv(gymnasium.Env[np.ndarray, np.int64]):
    """One dream. Begins from one of the given real moments; ends when the reward model says so, or at the horizon."""

    metadata = {  # noqa: RUF012 as in the base class
        "render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(self, world: World, starts: dict[str, Tensor], horizon: int | None = None,
                 render_mode: str | None = None) -> None:
        """`starts` holds real `frames` (m, k, c, h, w) uint8 and `actions` (m, k)."""
        self.world, self.starts, self.horizon, self.render_mode = world, starts, horizon, render_mode
        c, h, w = starts["frames"].shape[2:]
        self.observation_space = frame_space((c, h, w))
        self.action_space = Discrete(world.num_actions)
        self.state: DreamState | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[np.ndarray, dict[str, Any]]:
        """A new dream; its beginning and its luck follow from the seed."""
        super().reset(seed=seed)
        row = int(self.np_random.integers(len(self.starts["frames"])))
        luck = torch.tensor([int(self.np_random.integers(2**31))])
        self.state = self.world.start(self.starts["frames"][row:row + 1], self.starts["actions"][row:row + 1], luck)
        return self._observation(), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """One dreamt frame on."""
        if self.state is None:
            raise gymnasium.error.ResetNeeded("reset() comes before step()")
        if not self.action_space.contains(action):
            raise ValueError(f"expected an action from 0 to {self.world.num_actions - 1}, got {action!r}")
        dreamt = self.world.step(self.state, torch.tensor([int(action)]))
        self.state = dreamt.state
        truncated = self.horizon is not None and int(dreamt.state.steps) >= self.horizon
        info = {"end_probability": float(dreamt.end_probabilities)}
        return self._observation(), float(dreamt.rewards), bool(dreamt.ends), truncated, info

    def render(self) -> np.ndarray | None:
        """The newest frame, (h, w, 3) uint8."""
        if self.render_mode != "rgb_array" or self.state is None:
            return None
        frame = self._observation()
        return np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame

    def _observation(self) -> np.ndarray:
        assert self.state is not None
        return to_hwc(self.state.frames[0, -1])


class DreamVectorEnv(gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]):
    """Many dreams in one batch; those that are over are reset in the same step, their last frame is in `final_obs`."""

    metadata = {  # noqa: RUF012 as in the base class
        "autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(self, world: World, starts: dict[str, Tensor], num_envs: int = 1, horizon: int | None = 15,
                 render_mode: str | None = None) -> None:
        if num_envs < 1:
            raise ValueError(f"expected one dream or more, got num_envs={num_envs}")
        self.render_mode = render_mode
        self._newest: Tensor | None = None
        self._starts = starts["frames"], starts["actions"]
        self.env = ImaginedEnv(world, in_any_order(*self._starts, seed=0), num_envs, horizon)
        self.num_envs, self._begun = num_envs, False
        self.single_observation_space = frame_space(self.env.frame_shape)
        self.single_action_space = Discrete(world.num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None
              ) -> tuple[np.ndarray, dict[str, Any]]:
        """New dreams; all that follows is a function of the seed and the actions."""
        super().reset(seed=seed)
        drawn = int(self.np_random.integers(2**31))
        self.env.starts = in_any_order(*self._starts, drawn)
        self._begun = True
        self._newest = self.env.reset(drawn).frames
        return to_hwc(self._newest), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One dreamt frame on, everywhere."""
        if not self._begun:
            raise gymnasium.error.ResetNeeded("reset() comes before step()")
        step = self.env.step(torch.as_tensor(actions, dtype=torch.int64))
        done = step.dones.cpu().numpy()
        info: dict[str, Any] = {}
        if done.any():
            final = np.empty(self.num_envs, dtype=object)
            for i in done.nonzero()[0]:
                final[i] = to_hwc(step.final_frames[i])
            info = {"final_obs": final, "_final_obs": done}
        rewards, ends, truncs = (x.cpu().numpy() for x in (step.rewards, step.ends, step.truncs))
        self._newest = step.frames
        return to_hwc(step.frames), rewards.astype(np.float64), ends, truncs, info

    def render(self) -> tuple[np.ndarray, ...] | None:
        """The newest frame of each dream, (h, w, 3) uint8."""
        if self.render_mode != "rgb_array" or self._newest is None:
            return None
        return tuple(np.broadcast_to(frame, (*frame.shape[:2], 3)) for frame in to_hwc(self._newest))

"""Any Gymnasium environment with a discrete choice of actions and a picture of itself, as n worlds.

Our own, on Gymnasium's API. A frame is what `render` draws, shrunk by area interpolation; what the environment
itself calls an observation is not used.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

import gymnasium
import numpy as np
from gymnasium.error import DependencyNotInstalled
from gymnasium.spaces import Discrete

from diamond_core.envs.base import Moved, Worlds, shrink


def action_names(env_id: str) -> tuple[str, ...]:
    """The environment's own names for its actions where it has them, else 'ACTION 0', 'ACTION 1', ..."""
    env = _make(env_id)
    meanings = getattr(env.unwrapped, "get_action_meanings", None)
    names = meanings() if meanings else [f"ACTION {i}" for i in range(_choices(env).n)]
    env.close()
    return tuple(names)


class GymVector(Worlds):
    """n worlds of one Gymnasium environment, stepped one after the other."""

    def __init__(self, env_id: str, num_envs: int = 1, *, image_size: tuple[int, int] = (64, 64)) -> None:
        self._envs = [_make(env_id) for _ in range(num_envs)]
        self._images = np.zeros((num_envs, *image_size, 3), np.uint8)
        choices = _choices(self._envs[0])
        self._first_action = int(choices.start)
        super().__init__(num_envs, int(choices.n), (3, *image_size))

    def close(self) -> None:
        """Closes every environment."""
        super().close()
        for env in self._envs:
            env.close()

    def _restart(self, worlds: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        for world, seed in zip(worlds, seeds, strict=True):
            self._envs[world].reset(seed=int(seed))
        return self._look(worlds)

    def _move(self, actions: np.ndarray) -> Moved:
        steps = [env.step(self._first_action + action) for env, action in zip(self._envs, actions, strict=True)]
        rewards, ends, truncs = (np.array(column) for column in list(zip(*steps, strict=True))[1:4])
        return Moved(self._look(range(self.num_envs)), rewards, ends, truncs & ~ends, ends | truncs)

    def _look(self, worlds: Any) -> np.ndarray:
        """Draws some worlds afresh; (n, h, w, 3) of all."""
        self._images = self._images.copy()
        for world in worlds:
            self._images[world] = shrink(self._envs[world].render(), self.frame_shape[1:])
        return self._images


def _make(env_id: str) -> gymnasium.Env:
    """An environment that has been seen to draw itself."""
    _do_without_screen()
    try:
        env = gymnasium.make(env_id, render_mode="rgb_array", disable_env_checker=True)
        _choices(env)
        env.reset(seed=0)
        picture = env.render()
    except DependencyNotInstalled as error:
        raise ImportError(f"{env_id} needs a package that is missing: {error}") from error
    except gymnasium.error.Error as error:
        raise ValueError(f"Gymnasium has no {env_id!r} to offer: {error} See gymnasium.pprint_registry().") from error
    kind = f"{picture.dtype} {picture.shape}" if isinstance(picture, np.ndarray) else type(picture).__name__
    if not re.fullmatch(r"uint8 \(\d+, \d+, 3\)", kind):
        raise ValueError(f"expected a picture as uint8 (height, width, 3) of render(), got {kind} of {env_id}: let it "
                         "draw bytes in three colours")
    return env


def _choices(env: gymnasium.Env) -> Discrete:
    """The action space of an environment that fits."""
    if not isinstance(env.action_space, Discrete):
        raise ValueError(f"expected a Discrete action space, got {env.action_space} of {env}: wrap it to offer choices")
    modes = env.metadata.get("render_modes", [])
    if "rgb_array" not in modes:
        raise ValueError(f"expected the render mode 'rgb_array', got {modes} of {env}: let render() return a picture")
    return env.action_space


def _do_without_screen() -> None:
    """Lets pygame draw where there is no screen. With one, SDL is left alone, since a player may want a window."""
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    if sys.platform.startswith("linux") and not {"DISPLAY", "WAYLAND_DISPLAY"} & set(os.environ):
        os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

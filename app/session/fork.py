"""What if: all actions from one instant as a fan of futures in one batch, and paint on a frozen frame. Our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from app.session.twin import rgb
from diamond_core.config import SamplerConfig
from diamond_core.world.dream import DreamState, DreamStep, World


class Fan:
    """One dream's futures, each with one action held: row i holds action i. Grows a step at a time."""

    def __init__(self, state: DreamState, action_names: Sequence[str], length: int, sampler: SamplerConfig) -> None:
        self.action_names = list(action_names)
        self.length = length
        """Steps when it is full grown."""
        self.sampler = sampler
        self.steps: list[DreamStep] = []
        self._state = DreamState.cat([state] * len(action_names))
        self._actions = torch.arange(len(action_names))

    @property
    def done(self) -> bool:
        """Whether it is full grown."""
        return len(self.steps) >= self.length

    @property
    def frames(self) -> np.ndarray:
        """(A, steps so far, h, w, 3) uint8."""
        if not self.steps:
            h, w = self._state.frames.shape[-2:]
            return np.zeros((len(self.action_names), 0, h, w, 3), np.uint8)
        return rgb_all(torch.stack([step.frames for step in self.steps], dim=1))

    @property
    def rewards(self) -> np.ndarray:
        """(A, steps so far) float32."""
        return np.stack([step.rewards.cpu().numpy() for step in self.steps], axis=1)

    @property
    def ends(self) -> np.ndarray:
        """(A, steps so far) bool; what a branch shows after its end has no meaning."""
        return np.stack([step.ends.cpu().numpy() for step in self.steps], axis=1)

    def grow(self, world: World) -> None:
        """One more step of all branches, in one batch."""
        if self.done:
            return
        if world.sampler != self.sampler:
            world.set_sampler(self.sampler)
        self.steps.append(world.step(self._state, self._actions))
        self._state = self.steps[-1].state

    def branch(self, action: int) -> list[DreamStep]:
        """The steps of one row, up to its end."""
        rows = [step.row(action) for step in self.steps]
        over = [bool(row.ends) for row in rows]
        return rows[:over.index(True) + 1] if True in over else rows


def rgb_all(frames: torch.Tensor) -> np.ndarray:
    """(a, t, c, h, w) uint8 -> (a, t, h, w, 3)."""
    return np.stack([np.stack([rgb(frame) for frame in row]) for row in frames])


Place = tuple[float, float]
"""Column and row in pixels."""


def painted(state: DreamState, path: Sequence[Place], radius: float, colour: tuple[int, int, int], *,
            deep: bool = False) -> DreamState:
    """The same dream with a disc in its newest frame that was drawn from place to place, without gaps; radius 0 is one
    pixel wide.

    `deep` paints all frames that the dream still sees, as suits a thing that stands still.
    """
    frames = state.frames.clone()
    c, h, w = frames.shape[-3:]
    rows, columns = np.mgrid[:h, :w].astype(np.float64)
    under = np.zeros((h, w), bool)
    for (x, y), (to_x, to_y) in zip(path, path[1:] or path, strict=False):
        along, down = to_x - x, to_y - y
        # of the way to the next place, as far as a pixel lies beside it
        share = ((columns - x) * along + (rows - y) * down) / max(along**2 + down**2, 1e-9)
        share = share.clip(0, 1)
        away = (columns - x - share * along) ** 2 + (rows - y - share * down) ** 2
        under |= away <= max(radius, 0.5) ** 2 + 1e-9
    disc = torch.from_numpy(under).to(frames.device)
    # ITU-R BT.601 luma, where the frames are grey
    values = colour if c == 3 else (round(0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]),)
    ink = torch.tensor(values, dtype=torch.uint8, device=frames.device)[:, None, None]
    part = frames[:, :] if deep else frames[:, -1:]
    part.copy_(torch.where(disc, ink, part))
    return replace(state, frames=frames)

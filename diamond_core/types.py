"""The words in which the rooms of the house speak to each other: steps, batches, rollouts and two protocols.

Shape legend, used everywhere: n worlds, b batch, t time, k conditioning frames, c h w one image, A actions.
Outside the networks an image is always a uint8 tensor, CHW; `pixels` turns it into [-1, 1] and back.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor


@dataclass(frozen=True)
class Start:
    """What a vector environment shows first: the newest frame of each world and what was seen before it."""

    frames: Tensor
    """(n, c, h, w) uint8."""
    context: Tensor
    """(n, m, c, h, w) uint8: the m frames before `frames`, oldest first; m = 0 where a world has no past."""


@dataclass(frozen=True)
class Step:
    """What a vector environment answers to one action per world.

    A world that ended or was truncated has already been reset: `frames` and `context` then belong to the new
    episode, and the last frame of the old one is in `final_frames`.
    """

    frames: Tensor
    """(n, c, h, w) uint8: what the policy sees next."""
    rewards: Tensor
    """(n,) float32, as the environment gives them (not clipped)."""
    ends: Tensor
    """(n,) bool: the episode is over by the rules of the game."""
    truncs: Tensor
    """(n,) bool: the episode was cut off; its value goes on."""
    final_frames: Tensor
    """(n, c, h, w) uint8: the frame that the action led to, before any reset; equals `frames` where nothing ended."""
    context: Tensor
    """(n, m, c, h, w) uint8: as in `Start`; meant for burning in a recurrent state after a reset."""

    def of(self, worlds: slice) -> Step:
        """The same, of some worlds only."""
        return Step(*(getattr(self, field.name)[worlds] for field in fields(self)))

    @property
    def dones(self) -> Tensor:
        """(n,) bool: ended or truncated."""
        return self.ends | self.truncs


@dataclass(frozen=True)
class Batch:
    """Segments of t consecutive steps; step i is (frame i, action i) -> reward i, end i, frame i + 1."""

    frames: Tensor
    """(b, t, c, h, w) uint8; zero before an episode's start and after its final frame."""
    actions: Tensor
    """(b, t) int64."""
    rewards: Tensor
    """(b, t) float32, not clipped."""
    ends: Tensor
    """(b, t) bool."""
    truncs: Tensor
    """(b, t) bool."""
    mask: Tensor
    """(b, t) bool: True where the step was really taken. The frame after an episode's last step is its final
    observation: it stands in `frames` but is not a step, so its mask is False."""

    def __len__(self) -> int:
        return len(self.frames)

    def map(self, f: Any) -> Batch:
        """A batch with `f` applied to every tensor, as in `batch.map(lambda x: x.to(device))`."""
        return Batch(**{field.name: f(getattr(self, field.name)) for field in fields(self)})

    def to(self, device: torch.device) -> Batch:
        """On a device, which may still be copying."""
        return self.map(lambda x: x.to(device, non_blocking=True))


@dataclass(frozen=True)
class Taken:
    """t steps of a policy in n worlds, without gradients."""

    actions: Tensor
    """(n, t) int64."""
    log_probs: Tensor
    """(n, t) float32: of the actions, when they were drawn."""
    rewards: Tensor
    """(n, t) float32."""
    ends: Tensor
    """(n, t) bool."""
    truncs: Tensor
    """(n, t) bool."""
    bootstraps: Tensor
    """(n, t) float32: V(x_{t+1}) before any reset."""


@dataclass(frozen=True)
class Rollout(Taken):
    """With what the policy thinks at each step."""

    logits: Tensor
    """(n, t, A) float32: the policy, with gradients."""
    values: Tensor
    """(n, t) float32: V(x_t), with gradients."""


@runtime_checkable
class VectorEnv(Protocol):
    """n worlds that are stepped together: the emulator, a Gymnasium environment, the toy game or the dream."""

    num_envs: int
    num_actions: int
    frame_shape: tuple[int, int, int]
    """(c, h, w)."""

    def reset(self, seed: int) -> Start:
        """Starts every world anew. The same seed and the same actions give the same steps."""

    def step(self, actions: Tensor) -> Step:
        """Takes one action per world, (n,) int64; worlds that are over are reset by themselves."""

    def state_dict(self) -> dict[str, Any]:
        """Where the worlds stand, as plain values and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> Start:
        """Goes to where `state_dict` was taken; the steps that follow are the same as they were there."""

    def close(self) -> None:
        """Frees what the worlds hold."""


def checked(actions: Tensor, env: VectorEnv) -> Tensor:
    """The actions, if there is one for each world and all of them exist. Raises ValueError."""
    if actions.shape != (env.num_envs,) or actions.dtype != torch.int64:
        raise ValueError(f"expected one int64 action per world, shape ({env.num_envs},), got {actions.dtype} of shape "
                         f"{tuple(actions.shape)}: use torch.tensor([...])")
    if actions.min() < 0 or actions.max() >= env.num_actions:
        raise ValueError(f"expected actions from 0 to {env.num_actions - 1}, got {actions.tolist()}: "
                         "see action_names(game)")
    return actions


class Policy(Protocol):
    """Somebody who acts in n worlds. What a policy remembers of them is its own affair."""

    def reset(self, start: Start) -> None:
        """Forgets everything: all worlds start anew."""

    def act(self, frames: Tensor) -> Tensor:
        """(n, c, h, w) uint8 -> (n,) int64 actions."""

    def observe(self, step: Step) -> None:
        """Learns what the actions led to, so that the memory of worlds that were reset is renewed."""


class KeptPolicy(Policy, Protocol):
    """A policy whose state can be saved, so that play goes on as if it had never stopped."""

    def state_dict(self) -> dict[str, Any]:
        """Plain values and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""

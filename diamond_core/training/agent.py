"""The three networks together: what is trained, saved, loaded and played in."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from diamond_core.agent.actor_critic import ActorCritic
from diamond_core.agent.policies import ALL, AgentPolicy
from diamond_core.config import AgentConfig, RuntimeConfig, SamplerConfig
from diamond_core.device import Runtime, resolve
from diamond_core.training.convolutions import look_swiftly
from diamond_core.world.denoiser import Denoiser
from diamond_core.world.dream import DreamState, World
from diamond_core.world.reward_end import RewardEndModel
from diamond_core.world.winograd_steps import NotHere

if TYPE_CHECKING:
    from diamond_core.training.checkpoint import Card

PUBLISHED_NAMES = {"denoiser": "denoiser", "reward_end": "rew_end_model", "actor_critic": "actor_critic"}
"""Our names of the three networks -> theirs in a published state dict."""


class Agent(nn.Module):
    """A denoiser, a reward and end model and an actor-critic for one game."""

    card: Card | None = None
    """What the checkpoint it came from says of it."""
    starts: dict[str, Tensor] | None = None
    """Real `frames` (m, k, c, h, w) uint8 and `actions` (m, k) from which dreams begin."""

    def __init__(self, config: AgentConfig, denoiser: Denoiser, reward_end: RewardEndModel, actor_critic: ActorCritic
                 ) -> None:
        super().__init__()
        self.config = config
        self.denoiser = denoiser
        self.reward_end = reward_end
        self.actor_critic = actor_critic

    @staticmethod
    def from_config(config: AgentConfig, num_actions: int) -> Agent:
        """Fresh weights from torch's generator."""
        return Agent(config, Denoiser(config.denoiser, num_actions, config.image_channels),
                     RewardEndModel(config.reward_end, num_actions, config.frame_shape),
                     ActorCritic(config.actor_critic, num_actions, config.frame_shape))

    @property
    def num_actions(self) -> int:
        """Size of the action set."""
        return self.denoiser.num_actions

    def published_state_dict(self) -> dict[str, Tensor]:
        """All weights under their published names; the tensors are the agent's own."""
        return {f"{theirs}.{key}": p for ours, theirs in PUBLISHED_NAMES.items()
                for key, p in getattr(self, ours).state_dict().items()}

    def world(self, sampler: SamplerConfig | None = None, runtime: RuntimeConfig = RuntimeConfig()) -> World:
        """The world of this agent, on the device that suits the machine (or that `runtime` names)."""
        resolved = resolve(runtime)
        resolved.place(self)
        return World(self.denoiser, self.reward_end, sampler or self.config.sampler, resolved)

    def policy(self, num_envs: int, seed: int, runtime: Runtime, epsilon: float = 0.0, worlds: slice = ALL
               ) -> AgentPolicy:
        """The agent as a player of so many worlds, or of some of them in a mix; it looks in C where it can."""
        if runtime.swift:
            try:
                look_swiftly(self.actor_critic)
            except NotHere as error:
                print(error, file=sys.stderr)  # what is printed may be JSON
        return AgentPolicy(self.actor_critic, runtime, num_envs, seed, epsilon, worlds)

    def dream(self, world: World, seed: int = 0, num: int = 1) -> DreamState:
        """`num` dreams from this checkpoint's own starting frames, chosen by the seed."""
        if self.starts is None:
            raise ValueError("this checkpoint carries no starting frames: pass real frames to World.start instead")
        generator = torch.Generator().manual_seed(seed)
        rows = torch.randint(len(self.starts["frames"]), (num,), generator=generator)
        seeds = (seed << 16) + torch.arange(num)
        return world.start(self.starts["frames"][rows], self.starts["actions"][rows], seeds)

"""What all tests share: no screen, threads that wait without spinning, the same rounding everywhere, small networks."""

from __future__ import annotations

import os

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# MKL chooses kernels by address and processor; two processes could differ in the last bit
os.environ.setdefault("MKL_CBWR", "COMPATIBLE")

import pytest
import torch

from diamond_core.config import (
    ActorCriticConfig,
    AgentConfig,
    DenoiserConfig,
    RewardEndConfig,
    RuntimeConfig,
)
from diamond_core.training.agent import Agent
from diamond_core.world.dream import World

SMALL = AgentConfig(
    image_size=(16, 16),
    denoiser=DenoiserConfig(cond_channels=16, channels=(8, 8), depths=(1, 1), attention=(False, False)),
    reward_end=RewardEndConfig(cond_channels=8, channels=(8, 8), depths=(1, 1), attention=(False, False), lstm_dim=16),
    actor_critic=ActorCriticConfig(channels=(8, 8), lstm_dim=16))
EXACT = RuntimeConfig(device="cpu", precision="float32", channels_last="off", compile="off", convolutions="torch")


@pytest.fixture
def small_agent() -> Agent:
    """Random weights with nothing left at zero, so that every input matters."""
    torch.manual_seed(0)
    agent = Agent.from_config(SMALL, num_actions=3)
    with torch.no_grad():
        for p in agent.parameters():
            if not p.any():
                p.normal_(std=0.2)
    frames = torch.randint(0, 256, (6, 4, 3, 16, 16), dtype=torch.uint8)
    agent.starts = {"frames": frames, "actions": torch.randint(0, 3, (6, 4))}
    return agent.eval()


@pytest.fixture
def small_world(small_agent: Agent) -> World:
    return small_agent.world(runtime=EXACT)

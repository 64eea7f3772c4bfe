"""DIAMOND: diffusion world models of games, and agents trained inside them (Alonso et al., NeurIPS 2024)."""

from __future__ import annotations

import gymnasium

from diamond_core.agent.losses import lambda_returns
from diamond_core.config import AgentConfig, RuntimeConfig, SamplerConfig, TrainConfig
from diamond_core.diffusion.sampler import sample
from diamond_core.envs import make_env
from diamond_core.training.agent import Agent
from diamond_core.training.library import load
from diamond_core.world.dream import DreamState, World

__all__ = ["Agent", "AgentConfig", "DreamState", "RuntimeConfig", "SamplerConfig", "TrainConfig", "World",
           "lambda_returns", "load", "make_env", "sample"]

gymnasium.register("diamond/Dream-v0", entry_point="diamond_core.training.library:dream_env",
                   vector_entry_point="diamond_core.training.library:dream_vector_env")

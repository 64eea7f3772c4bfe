"""DIAMOND: diffusion world models of games, and agents trained inside them (Alonso et al., NeurIPS 2024)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

import gymnasium

if TYPE_CHECKING:
    from diamond_core.agent.losses import lambda_returns
    from diamond_core.config import AgentConfig, RuntimeConfig, SamplerConfig, TrainConfig
    from diamond_core.diffusion.sampler import sample
    from diamond_core.envs import make_env
    from diamond_core.training.agent import Agent
    from diamond_core.training.library import load
    from diamond_core.world.dream import DreamState, World

__all__ = ["Agent", "AgentConfig", "DreamState", "RuntimeConfig", "SamplerConfig", "TrainConfig", "World",
           "lambda_returns", "load", "make_env", "sample"]

ROOMS = {"Agent": "training.agent", "AgentConfig": "config", "DreamState": "world.dream", "RuntimeConfig": "config",
         "SamplerConfig": "config", "TrainConfig": "config", "World": "world.dream", "lambda_returns": "agent.losses",
         "load": "training.library", "make_env": "envs", "sample": "diffusion.sampler"}
"""Where each name lives."""

gymnasium.register("diamond/Dream-v0", entry_point="diamond_core.training.library:dream_env",
                   vector_entry_point="diamond_core.training.library:dream_vector_env")


def __getattr__(name: str) -> Any:
    """A name when it is first asked for: a window shall open before torch, which takes seconds, is imported."""
    if name not in ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{ROOMS[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The presets: the numbers of `config.py` for a purpose. Source of `paper`: SPEC 7; the others are our own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from diamond_core.config import (
    ActingConfig,
    ActorCriticConfig,
    AgentConfig,
    CollectionConfig,
    DenoiserConfig,
    DenoisingConfig,
    EvaluationConfig,
    ImaginationConfig,
    LearnerConfig,
    ReturnsConfig,
    RewardEndConfig,
    RuntimeConfig,
    SamplerConfig,
    TrainConfig,
)


def paper(game: str) -> TrainConfig:
    """Exactly SPEC 7."""
    return TrainConfig(game, "paper", runtime=RuntimeConfig(precision="float32"))


def playground(game: str) -> TrainConfig:
    """A world worth playing on a modest machine: mixed play first, then the world, then the agent in it.

    A smaller network, small batches at a higher learning rate, weights averaged, noise on the past against drift, and
    a loss in which what moves or stands out counts: a plain mean over pixels forgets the ball.
    """
    def learner(updates: int, learning_rate: float = 3e-4, **numbers: Any) -> LearnerConfig:
        return LearnerConfig(first_updates=updates, updates=updates, learning_rate=learning_rate, **numbers)

    return TrainConfig(
        game, "playground",
        agent=AgentConfig(
            denoiser=DenoiserConfig(channels=(32, 32, 64, 64), depths=(1, 1, 1, 1)),
            sampler=SamplerConfig(least_steps=2),
            reward_end=RewardEndConfig(channels=(16, 16, 32, 32), depths=(1, 1, 1, 1), lstm_dim=256,
                                       begins_with_change=True),
            actor_critic=ActorCriticConfig(lstm_dim=256)),
        collection=CollectionConfig(num_envs=16, first_policy="mix", first_min_steps=50_000, first_max_steps=50_000,
                                    steps=0),
        sampling_weights=None,
        denoising=DenoisingConfig(log_sigma_mean=0.2, motion_weight=8.0, error_weight=16.0, context_noise=0.1,
                                  final_frames=True),
        reward_segment=8,
        imagination=ImaginationConfig(engine="fast", denoising_steps=1),
        denoiser=learner(250, batch_size=8, event_share=0.15, ema_decay=0.995, last_epoch=40),
        reward_end=learner(100, batch_size=16, event_share=0.5, ema_decay=0.99, max_gradient_norm=100.0, last_epoch=40),
        actor_critic=ActingConfig(first_updates=100, updates=100, learning_rate=1e-3, batch_size=16, event_share=0.7,
                                  warmup=10, ema_decay=0.95, weight_decay=0.0, max_gradient_norm=100.0,
                                  first_epoch=41),
        final_epochs=60,
        evaluation=EvaluationConfig(every=5, final_episodes=20))


def tiny(game: str) -> TrainConfig:
    """All parts of the pipeline in about a minute on two cores: the toy game, or a first look at another one."""
    toy = game == "toy"
    channels, flat = ((16, 32), (False, False)) if toy else ((16, 16, 32), (False,) * 3)
    return TrainConfig(
        game, "tiny",
        agent=AgentConfig(
            image_size=(8, 8) if toy else (64, 64),
            denoiser=DenoiserConfig(cond_channels=64, channels=channels, depths=(1,) * len(flat), attention=flat),
            reward_end=RewardEndConfig(cond_channels=32, channels=channels, depths=(1,) * len(flat), attention=flat,
                                       lstm_dim=32),
            actor_critic=ActorCriticConfig(channels=(16, 32) if toy else (16, 16, 32, 32), lstm_dim=32)),
        collection=CollectionConfig(num_envs=8, first_policy="mix", first_min_steps=4_000, first_max_steps=4_000,
                                    steps=400, total_steps=4_400),
        sampling_weights=None,
        denoising=DenoisingConfig(motion_weight=10.0),
        returns=ReturnsConfig(value_weight=0.05),
        denoiser=LearnerConfig(first_updates=450 if toy else 60, updates=30 if toy else 5,
                               batch_size=32 if toy else 8, learning_rate=1e-3, ema_decay=0.98),
        # fewer, or slower, and the dreams of another game are over at once
        reward_end=LearnerConfig(first_updates=200 if toy else 40, updates=25 if toy else 4,
                                 batch_size=16 if toy else 4, learning_rate=1e-3 if toy else 3e-3,
                                 warmup=100 if toy else 10, max_gradient_norm=100.0),
        actor_critic=ActingConfig(first_updates=50 if toy else 2, updates=35 if toy else 1,
                                   batch_size=32 if toy else 8, learning_rate=4e-3, warmup=10, weight_decay=0.0,
                                   max_gradient_norm=100.0),
        final_epochs=1,
        evaluation=EvaluationConfig(every=0, final_episodes=40 if toy else 2, max_steps=1_000),
        # networks this small gain nothing from bfloat16, and lose by sharing their work among threads
        runtime=RuntimeConfig(precision="float32", threads=1 if toy else 0))


PRESETS: dict[str, Callable[[str], TrainConfig]] = {"paper": paper, "playground": playground, "tiny": tiny}
"""Name -> the numbers for a game."""

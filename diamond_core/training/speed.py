"""What one update of each model costs, and the emulator's speed. Our own."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from diamond_core.config import TrainConfig
from diamond_core.device import Runtime, keep_memory
from diamond_core.envs import make_env
from diamond_core.training.agent import Agent
from diamond_core.training.build import learners_of, rollouts_of
from diamond_core.types import Batch
from diamond_core.world.accelerate import accelerate
from diamond_core.world.dream import World
from diamond_core.world.imagination import ImaginedEnv

PAPER_IMAGINED = 32 / 20.4e-3
"""Imagined steps a second there: 32 dreams take 20.4 ms a step (SPEC 7)."""
PAPER_MS = {"denoiser": 88.0, "reward_end": 115.0, "actor_critic": 340.0}
"""An update's milliseconds in the paper, on an RTX 4090 (appendix on training time)."""


def updates(config: TrainConfig, names: list[str], runtime: Runtime, is_plain: bool
            ) -> dict[str, Callable[[], object]]:
    """A function for each model that makes one update on made-up play of the right shapes; plain, or with what
    `diamond train` does for speed."""
    torch.manual_seed(0)
    learners = learners_of(config, names, runtime, 1, None)
    copies = (runtime.place(copy.deepcopy(learners[name].averaged)) for name in learners)
    agent = Agent(config.agent, *copies)  # type: ignore[arg-type]
    world = World(agent.denoiser, agent.reward_end, config.agent.sampler, runtime)
    if not is_plain:
        accelerate(world, config.agent.frame_shape, num_dreams=config.actor_critic.batch_size).wait()
    k = config.agent.denoiser.num_conditioning_frames

    def starts(_: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch = made_up(config, names, config.actor_critic.batch_size, k)
        return batch.frames, batch.actions

    env = ImaginedEnv(world, starts, config.actor_critic.batch_size, config.imagination.horizon)
    rollouts = rollouts_of(config, env, runtime)
    rollouts.begin(learners["actor_critic"].model, 0)  # type: ignore[arg-type]
    lengths = {"denoiser": config.segment_length, "reward_end": config.reward_segment}
    batches: dict[str, Iterator[Any]] = {
        name: endless(made_up(config, names, getattr(config, name).batch_size, length).map(
            lambda x: x.to(runtime.device))) for name, length in lengths.items()}
    batches["actor_critic"] = rollouts.stream(learners["actor_critic"].model)  # type: ignore[arg-type]

    def update(name: str) -> object:
        keep_memory(not is_plain)
        return learners[name].update(batches[name])

    return {name: lambda name=name: update(name) for name in learners}  # type: ignore[misc]


def endless(x: Any) -> Iterator[Any]:
    """The same batch, again and again."""
    while True:
        yield x


def made_up(config: TrainConfig, names: list[str], size: int, length: int) -> Batch:
    """Segments of noise."""
    never = torch.zeros(size, length, dtype=torch.bool)
    frames = torch.randint(0, 256, (size, length, *config.agent.frame_shape), dtype=torch.uint8)
    return Batch(frames, torch.randint(0, len(names), (size, length)), torch.zeros(size, length), never, never, ~never)


def agent_plays(agent: Agent, game: str, runtime: Runtime, num_envs: int) -> Callable[[], object]:
    """A function that has an agent take a step in each of so many real games, which go on."""
    env = make_env(game, num_envs, image_size=agent.config.image_size)
    policy = runtime.place(copy.deepcopy(agent)).policy(num_envs, 0, runtime)  # type: ignore[operator]
    begun = env.reset(0)
    policy.reset(begun)
    frames = begun.frames

    def play() -> None:
        nonlocal frames
        step = env.step(policy.act(frames).cpu())
        policy.observe(step)
        frames = step.frames

    return play


def emulator_steps_a_second(game: str, num_envs: int = 32, seconds: float = 3.0) -> float:
    """How fast the real game runs, `num_envs` of it at once, with frames made for an agent."""
    env = make_env(game, num_envs)
    env.reset(0)
    actions = torch.zeros(num_envs, dtype=torch.int64)
    env.step(actions)
    started, steps = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        env.step(actions)
        steps += num_envs
    rate = steps / (time.perf_counter() - started)
    env.close()
    return rate

"""A small Pong whose ends are told by the test, and sessions of it under a fake clock."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from app.session.clock import FakeClock
from app.session.session import Session
from app.session.view import View
from diamond_core.config import AgentConfig
from diamond_core.device import resolve
from diamond_core.diffusion.noise import random_words
from diamond_core.training.agent import Agent
from diamond_core.world.dream import DreamState, DreamStep, World
from tests.conftest import EXACT, SMALL

Build = Callable[..., Session]


class ToldWorld(World):
    """A dream that is over at the ages in `over` and at no others."""

    over: frozenset[int] = frozenset()

    def step(self, state: DreamState, actions: Tensor) -> DreamStep:
        dreamt = super().step(state, actions)
        return dreamt._replace(ends=torch.tensor([int(age) in self.over for age in dreamt.state.steps]))


class RowWorld(World):
    """A cheap stand-in: exactly a function of each row, whatever shares the batch. Notes what it was asked."""

    def __init__(self, agent: Agent) -> None:
        super().__init__(agent.denoiser, agent.reward_end, agent.config.sampler, resolve(EXACT))
        self.batches: list[int] = []
        self.asked: list[int] = []
        self.on_step: Callable[[], None] = lambda: None
        self.poison: int | None = None
        self.shape = agent.config.frame_shape
        self.dim = agent.config.reward_end.lstm_dim

    def start(self, frames: Tensor, actions: Tensor, seeds: Tensor) -> DreamState:
        memory = torch.zeros(len(frames), self.dim)
        blank = torch.zeros(len(frames), 1, dtype=torch.int64)
        return DreamState(frames, torch.cat([actions[:, :3], blank], dim=1), memory, memory, seeds,
                          torch.zeros_like(seeds))

    def step(self, state: DreamState, actions: Tensor) -> DreamStep:
        if self.poison is not None and self.poison in state.seeds:
            raise RuntimeError("one of them cannot be dreamt")
        self.batches.append(len(actions))
        self.asked.append(self.sampler.num_steps)
        self.on_step()
        noise = random_words(state.seeds, state.steps, 0, math.prod(self.shape)).view(-1, *self.shape)
        frames = ((state.frames[:, -1] >> 1) + actions.view(-1, 1, 1, 1) + (noise & 127)).to(torch.uint8)
        taken = torch.cat([state.actions[:, :-1], actions[:, None]], dim=1)
        after = DreamState(torch.cat([state.frames[:, 1:], frames[:, None]], dim=1),
                           torch.cat([taken[:, 1:], taken[:, :1] * 0], dim=1), state.hx + 1, state.cx, state.seeds,
                           state.steps + 1)
        self.last = frames
        rewards = (noise[:, 0, 0, 0] % 3 - 1).float()
        nothing = torch.zeros(len(actions))
        return DreamStep(after, frames, rewards, nothing.bool(), torch.full((len(actions), 3), 1 / 3), nothing,
                         self.path)


@pytest.fixture(scope="session")
def pong_agent() -> Agent:
    return with_random_weights(SMALL)


def with_random_weights(config: AgentConfig) -> Agent:
    """An agent with the buttons of Pong and nothing left at zero."""
    torch.manual_seed(0)
    agent = Agent.from_config(config, num_actions=6)
    agent.starts = {"frames": torch.randint(0, 256, (3, 4, *config.frame_shape), dtype=torch.uint8),
                    "actions": torch.randint(0, 6, (3, 4))}
    with torch.no_grad():
        for p in agent.parameters():
            if not p.any():
                p.normal_(std=0.2)
    return agent.eval()


@pytest.fixture
def pong_world(pong_agent: Agent) -> ToldWorld:
    return ToldWorld(pong_agent.denoiser, pong_agent.reward_end, SMALL.sampler, resolve(EXACT))


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


@pytest.fixture
def build(pong_agent: Agent, pong_world: ToldWorld, clock: FakeClock) -> Build:
    def session(**options: object) -> Session:
        return Session(pong_agent, pong_world, **{"game": "Pong", "clock": clock, **options})

    return session


@pytest.fixture
def session(build: Build) -> Session:
    return build()


def play(session: Session, keys: str) -> list[View]:
    """A step for each letter: u and d hold an arrow, f taps fire, . holds nothing. Time passes at the true speed."""
    views = []
    for letter in keys:
        key = {"u": "up", "d": "down", "f": "space"}.get(letter)
        if key:
            session.controls.press(key)
        views.append(session.tick())
        if key:
            session.controls.release(key)
        session.clock.sleep(1 / 15)
    return views

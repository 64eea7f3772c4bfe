"""A small Pong whose ends are told by the test, and sessions of it under a fake clock."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from app.session.clock import FakeClock
from app.session.session import Session
from app.session.view import View
from diamond_core.config import AgentConfig
from diamond_core.device import resolve
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


@pytest.fixture(scope="session")
def pong_agent() -> Agent:
    return with_random_weights(SMALL)


def with_random_weights(config: AgentConfig) -> Agent:
    """An agent with the buttons of Pong and nothing left at zero."""
    torch.manual_seed(0)
    agent = Agent.from_config(config, num_actions=6)
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

"""Who else may play: the trained agent, whose thoughts can be looked at, and random play. Our own."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from diamond_core.agent.policies import MIXED, AgentPolicy, RandomPolicy
from diamond_core.device import Runtime
from diamond_core.training.agent import Agent
from diamond_core.types import Start


class Thought(NamedTuple):
    """What the agent makes of an instant."""

    action: int
    """What it would do."""
    probabilities: tuple[float, ...]
    value: float
    """What it expects to gain from here."""


class Mind:
    """The agent and its memory of one session, and a random player."""

    def __init__(self, agent: Agent, runtime: Runtime, seed: int) -> None:
        self._agent = AgentPolicy(agent.actor_critic, runtime, 1, seed)
        self._random = RandomPolicy(agent.num_actions, 1, seed, MIXED[2:3])
        self._instant: int | None = None
        self._thought: Thought | None = None
        self._choice: tuple[int, int] | None = None

    def fresh(self, seed: int) -> AgentPolicy:
        """The same agent with luck of its own, to warm up a game; it leaves this session's memory alone."""
        return AgentPolicy(self._agent.actor_critic, self._agent.runtime, 1, seed)

    def look(self, instant: int, frames: Tensor) -> Thought:
        """At frames (1, k, c, h, w) uint8. Instants that follow each other share a memory; after a jump it begins
        anew with these k frames. The same instant is thought about once."""
        if instant == self._instant and self._thought is not None:
            return self._thought
        if self._instant is None or instant != self._instant + 1:
            self._agent.reset(Start(frames[:, -1], frames[:, :-1]))
        action = int(self._agent.act(frames[:, -1])[0])
        probabilities = tuple(self._agent.probabilities[0].tolist())
        self._instant, self._thought = instant, Thought(action, probabilities, float(self._agent.values[0]))
        return self._thought

    def random(self, instant: int, frames: Tensor) -> int:
        """A random action that likes to be held on to; one for each instant."""
        if self._choice is None or self._choice[0] != instant:
            self._choice = instant, int(self._random.act(frames[:, -1])[0])
        return self._choice[1]

"""Who acts: the trained agent, random, sticky random, or a mix of them. Source: SPEC 5 and 7.

Luck is a function of (seed, step), so a policy's whole state is its step, its memory and what it did last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diamond_core.agent.actor_critic import ActorCritic, Memory
from diamond_core.device import Runtime
from diamond_core.diffusion.noise import uniform
from diamond_core.pixels import to_unit
from diamond_core.types import KeptPolicy, Start, Step

ACTION_STREAM, COIN_STREAM, RANDOM_STREAM, LEAN_STREAM = 16, 17, 18, 20
"""Independent uses of a policy's random numbers."""
STICKY = (0.8,)
MIXED = (0.0, 0.5, 0.8, 0.95)
"""Chances of holding on to an action: from restless to one that leans on the key."""
LEANS = (0.0, 0.0, 0.0, 0.0, 0.5, 0.5, 0.5, 0.5, 0.9, 0.9, 0.9, 0.9)
"""Shares of an action that is preferred for a while, beside each of `MIXED`: what needs a purpose is done too."""
ALL = slice(None)
LEAN_STEPS = 128
"""Steps between two choices of the preferred action."""


class RandomPolicy:
    """Uniformly random actions, each held on to with a probability: world i by `sticks[i % len(sticks)]`. With the
    probability `leans[i % len(leans)]` a fresh action is the one that the world prefers for the time being."""

    def __init__(self, num_actions: int, num_envs: int, seed: int, sticks: Sequence[float] = (0.0,),
                 leans: Sequence[float] = (0.0,)) -> None:
        self.num_actions = num_actions
        self.sticks = torch.tensor([sticks[i % len(sticks)] for i in range(num_envs)])
        self.leans = torch.tensor([leans[i % len(leans)] for i in range(num_envs)])
        self.seeds = (seed << 20) + torch.arange(num_envs)
        self._step = 0
        self._last = torch.zeros(num_envs, dtype=torch.int64)

    def reset(self, start: Start) -> None:
        """Nothing is remembered but the last action."""

    def act(self, frames: Tensor) -> Tensor:
        """(n, c, h, w) uint8 -> (n,) int64."""
        self._step += 1
        steps = torch.full_like(self.seeds, self._step)
        u = uniform(self.seeds, steps, RANDOM_STREAM, 4)
        fresh = (u[:, 0] * self.num_actions).long()
        preferred = (uniform(self.seeds, steps // LEAN_STEPS, LEAN_STREAM, 1)[:, 0] * self.num_actions).long()
        fresh = torch.where(u[:, 2] < self.leans, preferred, fresh)
        self._last = torch.where(u[:, 1] < self.sticks, self._last, fresh)
        return self._last.to(frames.device)

    def observe(self, step: Step) -> None:
        """Blind to everything."""

    def state_dict(self) -> dict[str, Any]:
        """The step and the last actions."""
        return {"step": self._step, "last": self._last}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._step, self._last = state["step"], state["last"]


class AgentPolicy:
    """Samples from an actor-critic; with probability epsilon (one coin for all worlds) acts at random instead.

    In a mix it need look at those `worlds` only that it plays; it presses 0 in the others.
    """

    def __init__(self, actor_critic: ActorCritic, runtime: Runtime, num_envs: int, seed: int, epsilon: float = 0.0,
                 worlds: slice = ALL) -> None:
        self.actor_critic = actor_critic
        self.runtime = runtime
        self.epsilon = epsilon
        self.worlds = worlds
        self.seeds = ((seed << 20) + torch.arange(num_envs))[worlds]
        self._step = 0
        self.memory: Memory = actor_critic.initial_memory(len(self.seeds))
        self.values = torch.zeros(len(self.seeds))
        self.probabilities = torch.full((len(self.seeds), actor_critic.num_actions), 1 / actor_critic.num_actions)

    def reset(self, start: Start) -> None:
        """A fresh memory, burnt in on the context."""
        context = start.context[self.worlds].to(self.runtime.device)
        self.memory = burn_in(self.actor_critic, context, self.runtime)

    @torch.no_grad()
    def act(self, frames: Tensor) -> Tensor:
        """(n, c, h, w) uint8 -> (n,) int64, on the frames' device. Values and probabilities can be looked at after."""
        with self.runtime.autocast():
            seen = to_unit(frames[self.worlds].to(self.runtime.device))
            prediction = self.actor_critic(seen, self.memory)
        self.memory = prediction.memory
        self.values = prediction.values
        self.probabilities = prediction.logits.softmax(-1)
        self._step += 1
        steps = torch.full_like(self.seeds, self._step)
        luck = uniform(self.seeds, steps, ACTION_STREAM, 1).to(self.runtime.device)
        actions = (luck > self.probabilities.cumsum(-1)[:, :-1]).sum(-1)
        if uniform(self.seeds[:1], steps[:1], COIN_STREAM, 1).item() < self.epsilon:
            actions = (uniform(self.seeds, steps, RANDOM_STREAM, 1)[:, 0] * self.actor_critic.num_actions).long()
        pressed = torch.zeros(len(frames), dtype=torch.int64, device=frames.device)
        pressed[self.worlds] = actions.to(frames.device)
        return pressed

    def observe(self, step: Step) -> None:
        """Renews the memory of worlds that were reset."""
        self.memory = renewed(self.actor_critic, self.memory, step.of(self.worlds), self.runtime)

    def state_dict(self) -> dict[str, Any]:
        """The step and the memory."""
        return {"step": self._step, "memory": self.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._step = state["step"]
        hx, cx = state["memory"]
        self.memory = hx.to(self.runtime.device), cx.to(self.runtime.device)


class MixPolicy:
    """World i is played by policy i modulo their number: unusual play beside competent play in one dataset. In fewer
    worlds than policies these take turns, an episode each."""

    def __init__(self, policies: Sequence[KeptPolicy]) -> None:
        self.policies = policies
        self._turns = torch.zeros(1, dtype=torch.int64)
        """By how many policies each world has moved on."""

    def reset(self, start: Start) -> None:
        """Resets all."""
        self._turns = torch.zeros(len(start.frames), dtype=torch.int64)
        for policy in self.policies:
            policy.reset(start)

    def act(self, frames: Tensor) -> Tensor:
        """(n, c, h, w) uint8 -> (n,) int64."""
        choices = torch.stack([policy.act(frames) for policy in self.policies])
        world = torch.arange(len(frames))
        return choices[(world + self._turns) % len(self.policies), world]

    def observe(self, step: Step) -> None:
        """Tells all."""
        for policy in self.policies:
            policy.observe(step)
        if len(step.dones) < len(self.policies):
            self._turns = self._turns + len(step.dones) * step.dones.cpu()

    def state_dict(self) -> dict[str, Any]:
        """Those of all, and whose turn it is."""
        return {"policies": [policy.state_dict() for policy in self.policies], "turns": self._turns}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        # in an older state nobody took turns
        self._turns = state.get("turns", torch.zeros(1, dtype=torch.int64))
        for policy, its in zip(self.policies, state["policies"], strict=True):
            policy.load_state_dict(its)


@torch.no_grad()
def burn_in(actor_critic: ActorCritic, context: Tensor, runtime: Runtime) -> Memory:
    """A fresh memory after seeing context (n, m, c, h, w) uint8."""
    memory = actor_critic.initial_memory(len(context))
    with runtime.autocast():
        for t in range(context.shape[1]):
            memory = actor_critic(to_unit(context[:, t]), memory).memory
    return memory


def renewed(actor_critic: ActorCritic, memory: Memory, step: Step, runtime: Runtime) -> Memory:
    """`memory` with the rows of finished worlds replaced by fresh ones, burnt in on the new context."""
    if not step.dones.any():
        return memory
    dones = step.dones.to(runtime.device)
    fresh = burn_in(actor_critic, step.context.to(runtime.device)[dones], runtime)
    index = dones.nonzero()[:, 0]
    hx, cx = (old.index_copy(0, index, new.to(old.dtype)) for old, new in zip(memory, fresh, strict=True))
    return hx, cx

"""Act n steps in any vector environment, then think of all of them again for the loss. Source: SPEC 5.

Acting has no gradients. The loss is a function of what was played and of the network alone, so what was played can be
learned from more than once, and a GPU can replay how.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Categorical

from diamond_core.agent.actor_critic import ActorCritic, Memory, unrolled
from diamond_core.agent.policies import burn_in, renewed
from diamond_core.device import Runtime
from diamond_core.graphs import Replays
from diamond_core.pixels import to_unit
from diamond_core.types import Rollout, Start, Step, Taken, VectorEnv


class Carry(NamedTuple):
    """What goes on from one rollout to the next."""

    frames: Tensor
    """(n, c, h, w) uint8 on the agent's device."""
    memory: Memory


@dataclass(frozen=True)
class Played(Taken):
    """With all else that learning from them needs beside the network."""

    looks: Tensor
    """What the actions answered: (n, t, c, h, w) uint8, or where the encoder rests what it saw, (n, t, features)."""
    hx: Tensor
    """(n, lstm_dim): the memory before the first step."""
    cx: Tensor
    """(n, lstm_dim)."""
    later_hx: Tensor
    """(n, t, lstm_dim): the memory behind every step, a fresh one where the world was over."""
    later_cx: Tensor
    """(n, t, lstm_dim)."""

    def of(self, worlds: Tensor) -> Played:
        """The same of some of the worlds."""
        return Played(**{name: x[worlds] for name, x in vars(self).items()})


def begin(actor_critic: ActorCritic, start: Start, runtime: Runtime) -> Carry:
    """The first carry, the memory burnt in on the context."""
    context = start.context.to(runtime.device)
    return Carry(start.frames.to(runtime.device), burn_in(actor_critic, context, runtime))


@torch.no_grad()
def play(actor_critic: ActorCritic, env: VectorEnv, carry: Carry, length: int, runtime: Runtime,
         replays: Replays | None = None) -> tuple[Played, Carry]:
    """`length` steps without gradients; actions come from torch's generator.

    The value of the frame that an action led to is that of the final frame where the world was reset, else that of
    the next step.
    """
    def think(frames: Tensor, *memory: Tensor) -> tuple[Tensor, ...]:
        with runtime.autocast():
            seen = actor_critic.see(to_unit(frames))
            prediction = actor_critic.remember(seen, memory)  # type: ignore[arg-type]
        return seen.float(), prediction.logits, prediction.values, *prediction.memory

    thoughts = partial(replays, think, actor_critic) if replays else think
    frames, memory = carry
    steps = []
    for _ in range(length):
        seen, logits, values, *thought = thoughts(frames, *memory)
        policy = Categorical(logits=logits)
        actions = policy.sample()
        step = on(env.step(actions), runtime)
        before = thought[0], thought[1]
        memory = renewed(actor_critic, before, step, runtime)
        steps.append((seen if actor_critic.encoder_rests else frames, actions, policy.log_prob(actions),
                      step.rewards, step.ends, step.truncs, values, final_values(actor_critic, before, step, runtime),
                      *memory))
        frames = step.frames
    beyond = thoughts(frames, *memory)[2]
    looks, actions, log_probs, rewards, ends, truncs, values, last_values, hx, cx = (
        torch.stack(x, dim=1) for x in zip(*steps, strict=True))
    next_values = torch.cat([values[:, 1:], beyond[:, None]], dim=1)
    bootstraps = torch.where(ends | truncs, last_values, next_values)
    return Played(actions, log_probs, rewards, ends, truncs, bootstraps, looks, *carry.memory, hx, cx
                  ), Carry(frames, memory)


def thought_of(actor_critic: ActorCritic, played: Played) -> Rollout:
    """What the network thinks of all steps, with gradients through the memory; a renewed memory stops them."""
    n, t = played.actions.shape
    seen = played.looks
    if not actor_critic.encoder_rests:  # all frames are one batch
        seen = actor_critic.see(to_unit(seen.flatten(0, 1))).unflatten(0, (n, t))
    dones = played.ends | played.truncs

    def renew(t: int, memory: Memory) -> Memory:
        hx, cx = (torch.where(dones[:, t, None], new[:, t], old)
                  for new, old in zip((played.later_hx, played.later_cx), memory, strict=True))
        return hx, cx

    logits, values = actor_critic.judge(unrolled(actor_critic.lstm, seen, (played.hx, played.cx), renew))
    return Rollout(**{field.name: getattr(played, field.name) for field in fields(Taken)}, logits=logits, values=values)


def final_values(actor_critic: ActorCritic, memory: Memory, step: Step, runtime: Runtime) -> Tensor:
    """(n,) value of the final frame of worlds that are done; 0 elsewhere."""
    values = torch.zeros(len(step.rewards), device=runtime.device)
    if step.dones.any():
        rows = step.dones.nonzero()[:, 0]
        with runtime.autocast():
            values[rows] = actor_critic(to_unit(step.final_frames[rows]), (memory[0][rows], memory[1][rows])).values
    return values


def on(step: Step, runtime: Runtime) -> Step:
    """A step with its tensors on the agent's device."""
    return Step(**{name: x.to(runtime.device) for name, x in vars(step).items()})


class Rollouts:
    """An endless run of rollouts in one environment; each goes on where the last one stopped."""

    def __init__(self, env: VectorEnv, length: int, runtime: Runtime, passes: int = 1, parts: int = 1) -> None:
        """What was played is gone through so many times, each time in so many parts of the worlds."""
        self.env = env
        self.length = length
        self.runtime = runtime
        self.passes, self.parts = passes, parts
        self._replays = Replays(1) if runtime.records else None
        self._carry: Carry | None = None
        self._played: Played | None = None
        self._left: list[Tensor] = []
        """The worlds of the parts that are still to come."""

    def begin(self, actor_critic: ActorCritic, seed: int) -> None:
        """Resets the environment and the memory."""
        self._carry = begin(actor_critic, self.env.reset(seed), self.runtime)

    def next(self, actor_critic: ActorCritic) -> Played:
        """The next part of what was played; where none is left, after the next `length` steps."""
        if self._carry is None:
            raise RuntimeError("begin() comes before next()")
        if not self._left:
            self._played, self._carry = play(actor_critic, self.env, self._carry, self.length, self.runtime,
                                             self._replays)
            worlds = self.env.num_envs
            order = [torch.randperm(worlds) if self.parts > 1 else torch.arange(worlds) for _ in range(self.passes)]
            self._left = [part for worlds in order for part in worlds.tensor_split(self.parts)]
        assert self._played is not None
        return self._played.of(self._left.pop(0).to(self.runtime.device))

    def stream(self, actor_critic: ActorCritic) -> Iterator[Played]:
        """`next` without an end."""
        while True:
            yield self.next(actor_critic)

    def state_dict(self) -> dict[str, Any]:
        """The environment's state, the memory, and what is still to be learned from."""
        return {"env": self.env.state_dict(), "memory": None if self._carry is None else self._carry.memory,
                "played": vars(self._played) if self._left else None, "left": self._left}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        start = self.env.load_state_dict(state["env"])
        hx, cx = (x.to(self.runtime.device) for x in state["memory"])
        self._carry = Carry(start.frames.to(self.runtime.device), (hx, cx))
        self._left = list(state.get("left", []))
        if self._left:
            self._played = Played(**{name: x.to(self.runtime.device) for name, x in state["played"].items()})

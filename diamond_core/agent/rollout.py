"""Act n steps in any vector environment and keep what the loss needs. Source: SPEC 5."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.distributions import Categorical

from diamond_core.agent.actor_critic import ActorCritic, Memory
from diamond_core.agent.policies import burn_in, renewed
from diamond_core.device import Runtime
from diamond_core.pixels import to_unit
from diamond_core.types import Rollout, Start, Step, VectorEnv


class Carry(NamedTuple):
    """What goes on from one rollout to the next."""

    frames: Tensor
    """(n, c, h, w) uint8 on the agent's device."""
    memory: Memory


def begin(actor_critic: ActorCritic, start: Start, runtime: Runtime) -> Carry:
    """The first carry, the memory burnt in on the context."""
    context = start.context.to(runtime.device)
    return Carry(start.frames.to(runtime.device), burn_in(actor_critic, context, runtime))


def rollout(actor_critic: ActorCritic, env: VectorEnv, carry: Carry, length: int, runtime: Runtime
            ) -> tuple[Rollout, Carry]:
    """`length` steps with gradients through the memory; actions come from torch's generator.

    The value of the frame that an action led to is that of the final frame where the world was reset, else that of
    the next step; none of them carries gradients.
    """
    frames, memory = carry
    logits, values, actions, steps, last_values = [], [], [], [], []
    for _ in range(length):
        with runtime.autocast():
            prediction = actor_critic(to_unit(frames), memory)
        action = Categorical(logits=prediction.logits.detach()).sample()
        step = on(env.step(action), runtime)
        logits.append(prediction.logits)
        values.append(prediction.values)
        actions.append(action)
        steps.append(step)
        last_values.append(final_values(actor_critic, prediction.memory, step, runtime))
        frames, memory = step.frames, renewed(actor_critic, prediction.memory, step, runtime)
    with torch.no_grad(), runtime.autocast():
        beyond = actor_critic(to_unit(frames), memory).values
    next_values = torch.stack([*[v.detach() for v in values[1:]], beyond], dim=1)
    dones = torch.stack([s.dones for s in steps], dim=1)
    bootstraps = torch.where(dones, torch.stack(last_values, dim=1), next_values)
    record = Rollout(torch.stack(logits, 1), torch.stack(values, 1), torch.stack(actions, 1),
                     torch.stack([s.rewards for s in steps], 1), torch.stack([s.ends for s in steps], 1),
                     torch.stack([s.truncs for s in steps], 1), bootstraps)
    return record, Carry(frames, (memory[0].detach(), memory[1].detach()))


@torch.no_grad()
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
    """An endless run of rollouts in one environment; every call goes on where the last one stopped."""

    def __init__(self, env: VectorEnv, length: int, runtime: Runtime) -> None:
        self.env = env
        self.length = length
        self.runtime = runtime
        self._carry: Carry | None = None

    def begin(self, actor_critic: ActorCritic, seed: int) -> None:
        """Resets the environment and the memory."""
        self._carry = begin(actor_critic, self.env.reset(seed), self.runtime)

    def next(self, actor_critic: ActorCritic) -> Rollout:
        """The next `length` steps."""
        if self._carry is None:
            raise RuntimeError("begin() comes before next()")
        record, self._carry = rollout(actor_critic, self.env, self._carry, self.length, self.runtime)
        return record

    def state_dict(self) -> dict[str, Any]:
        """The environment's state and the memory."""
        return {"env": self.env.state_dict(), "memory": None if self._carry is None else self._carry.memory}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        start = self.env.load_state_dict(state["env"])
        hx, cx = (x.to(self.runtime.device) for x in state["memory"])
        self._carry = Carry(start.frames.to(self.runtime.device), (hx, cx))

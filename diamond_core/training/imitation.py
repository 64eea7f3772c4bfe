"""The agent begins as the player of the recordings. Our own.

Its eye is at rest, so every frame is looked at only once. Memory, policy and value then see seventy times as many
frames in a second as they would through the eye.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from diamond_core.agent.actor_critic import ActorCritic
from diamond_core.config import ReturnsConfig
from diamond_core.device import Runtime
from diamond_core.pixels import to_unit
from diamond_core.replay import Dataset

FRAMES = 256
"""How many are looked at at once."""
FORESIGHT = 200
"""Steps before the cut of an episode whose returns are not known well enough."""


@dataclass(frozen=True)
class Watched:
    """Recorded play as an encoder sees it: one episode, or segments of several."""

    features: Tensor
    """(..., t, features); float16 where it is kept."""
    actions: Tensor
    """(..., t) int64."""
    returns: Tensor
    """(..., t) float32: the discounted sum of the signs of rewards; NaN where the episode was cut soon after."""


class Imitation(nn.Module):
    """All of an actor-critic but its encoder."""

    def __init__(self, actor_critic: ActorCritic) -> None:
        super().__init__()
        self.lstm = actor_critic.lstm
        self.actor_linear, self.critic_linear = actor_critic.actor_linear, actor_critic.critic_linear

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(b, t, features) -> logits (b, t, A) and values (b, t)."""
        memory = None
        kept = []
        for seen in features.unbind(1):
            memory = self.lstm(seen, memory)
            kept.append(memory[0])
        memories = torch.stack(kept, dim=1)
        return self.actor_linear(memories).float(), self.critic_linear(memories).squeeze(-1).float()


def imitation_loss(model: Imitation, batch: Watched, config: ReturnsConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of what was pressed, and the squared error of the values of known returns."""
    logits, values = model(batch.features.float())
    loss_actions = cross_entropy(logits.flatten(0, 1), batch.actions.flatten())
    known = ~batch.returns.isnan()
    loss_values = ((values - batch.returns.nan_to_num()).square() * known).sum() / known.sum().clamp(min=1)
    loss = loss_actions + config.value_weight * loss_values
    right = (logits.detach().argmax(-1) == batch.actions).float().mean()
    return loss, {"loss": loss.detach(), "loss_actions": loss_actions.detach(), "loss_values": loss_values.detach(),
                  "share_right": right}


def watch(actor_critic: ActorCritic, dataset: Dataset, config: ReturnsConfig, runtime: Runtime) -> Iterator[Watched]:
    """Every episode of a dataset through the encoder, once."""
    for i in range(dataset.num_episodes):
        episode = dataset[i]
        with torch.no_grad(), runtime.autocast():
            features = torch.cat([actor_critic.encoder(to_unit(frames.to(runtime.device))).half()
                                  for frames in episode.frames[:-1].split(FRAMES)])
        returns = discounted(episode.rewards, config.gamma)
        if not episode.ends[-1]:
            returns[-FORESIGHT:] = torch.nan
        yield Watched(features, episode.actions.to(runtime.device), returns.to(runtime.device))


def discounted(rewards: Tensor, gamma: float) -> Tensor:
    """rewards (t,) -> (t,) float32: of each step, what comes from there on."""
    total = 0.0
    sums = []
    for reward in rewards.sign().flip(0).tolist():
        total = reward + gamma * total
        sums.append(total)
    return torch.tensor(sums[::-1])


def segments(watched: list[Watched], length: int, batch_size: int, *key: int) -> Watched:
    """A batch of segments, each equally likely, drawn by the key. Raises ValueError where all episodes are shorter."""
    chances = np.array([max(0, len(w.actions) - length + 1) for w in watched], dtype=float)
    if not chances.any():
        raise ValueError(f"no episode of the dataset has {length} steps: set --imitation.segment to fewer")
    luck = np.random.default_rng(key)
    drawn = luck.choice(len(watched), batch_size, p=chances / chances.sum())
    first = luck.integers(chances[drawn].astype(int))
    parts = [(watched[i], slice(t, t + length)) for i, t in zip(drawn, first.tolist(), strict=True)]
    return Watched(*(torch.stack([getattr(w, name)[part] for w, part in parts])
                     for name in ("features", "actions", "returns")))

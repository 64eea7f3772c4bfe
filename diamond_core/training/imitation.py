"""The agent begins as the player of the recordings. Our own.

Its eye is at rest, so every frame is looked at only once. Memory, policy and value then see seventy times as many
frames in a second as they would through the eye.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from diamond_core.agent.actor_critic import ActorCritic
from diamond_core.config import ReturnsConfig, WatchingConfig
from diamond_core.device import Runtime
from diamond_core.pixels import to_unit
from diamond_core.replay import Dataset

FRAMES = 256
"""How many are looked at at once."""
UNKNOWN = 0.05
"""Where an episode was cut, returns count as known if what came after weighs less."""


@dataclass(frozen=True)
class Watched:
    """Recorded play as an encoder sees it: one episode, or segments of several."""

    features: Tensor
    """(..., t, features); float16 where it is kept."""
    actions: Tensor
    """(..., t) int64; -100 behind an episode's end, which is what cross-entropy ignores."""
    returns: Tensor
    """(..., t) float32: the discounted sum of the signs of rewards; NaN where the episode was cut soon
    after, and behind its end."""


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
            hx, cx = self.lstm(seen, memory)
            memory = hx.float(), cx.float()
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
    right = (logits.detach().argmax(-1) == batch.actions).sum() / (batch.actions >= 0).sum()
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
            returns[-foresight(config.gamma):] = torch.nan
        yield Watched(features, episode.actions.to(runtime.device), returns.to(runtime.device))


def foresight(gamma: float) -> int:
    """How many steps ahead a reward weighs as little as UNKNOWN."""
    return math.ceil(math.log(UNKNOWN) / math.log(gamma)) if 0 < gamma < 1 else 1 if gamma == 0 else sys.maxsize


def discounted(rewards: Tensor, gamma: float) -> Tensor:
    """rewards (t,) -> (t,) float32: of each step, what comes from there on."""
    total = 0.0
    sums = []
    for reward in rewards.sign().flip(0).tolist():
        total = reward + gamma * total
        sums.append(total)
    return torch.tensor(sums[::-1])


def draws(watched: list[Watched], config: WatchingConfig, batch_size: int, seed: Callable[[], int]
          ) -> Iterator[Watched]:
    """Batches without end; the seed is asked for at every one."""
    while True:
        for part in range(config.accumulation):
            yield segments(watched, config.segment, batch_size, seed(), part)


def segments(watched: list[Watched], length: int, batch_size: int, *key: int) -> Watched:
    """A batch of segments, each equally likely, drawn by the key; episodes that are shorter are padded."""
    places = np.array([max(1, len(w.actions) - length + 1) for w in watched])
    luck = np.random.default_rng(key)
    drawn = luck.choice(len(watched), batch_size, p=places / places.sum())
    first = luck.integers(places[drawn])
    parts = [segment(watched[i], t, length) for i, t in zip(drawn, first.tolist(), strict=True)]
    return Watched(*(torch.stack([getattr(part, name) for part in parts])
                     for name in ("features", "actions", "returns")))


def segment(watched: Watched, first: int, length: int) -> Watched:
    """`length` steps of an episode, padded behind its end."""
    part = slice(first, first + length)
    missing = max(0, first + length - len(watched.actions))
    return Watched(pad(watched.features[part], (0, 0, 0, missing)),
                   pad(watched.actions[part], (0, missing), value=-100),
                   pad(watched.returns[part], (0, missing), value=torch.nan))

"""The agent begins as the player of the recordings. Our own.

Its eye is at rest, so every frame is looked at only once. Memory, policy and value then see seventy times as many
frames in a second as they would through the eye.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot, pad

from diamond_core.agent.actor_critic import ActorCritic, unrolled
from diamond_core.agent.scripted import ScriptedPolicy
from diamond_core.config import ReturnsConfig, WatchingConfig
from diamond_core.device import Runtime
from diamond_core.pixels import to_unit
from diamond_core.replay import Dataset, Episode

FRAMES = 256
"""How many are looked at at once."""
TOGETHER = 32
"""Episodes that a teacher watches at once."""
Teacher = Callable[[int], ScriptedPolicy]
"""A player for so many worlds."""
UNKNOWN = 0.05
"""Where an episode was cut, returns count as known if what came after weighs less."""


@dataclass(frozen=True)
class Watched:
    """Recorded play as an encoder sees it: one episode, or segments of several."""

    features: Tensor
    """(..., t, features); float16 where it is kept."""
    actions: Tensor
    """(..., t, A) float32: the chance of every action; zero behind an episode's end."""
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
        memories = unrolled(self.lstm, features)
        return self.actor_linear(memories).float(), self.critic_linear(memories).squeeze(-1).float()


def imitation_loss(model: Imitation, batch: Watched, config: ReturnsConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of what was pressed or should have been, and the squared error of the values of known returns."""
    logits, values = model(batch.features.float())
    steps = batch.actions.sum().clamp(min=1)
    loss_actions = -(batch.actions * log_softmax(logits, -1)).sum() / steps
    known = ~batch.returns.isnan()
    loss_values = ((values - batch.returns.nan_to_num()).square() * known).sum() / known.sum().clamp(min=1)
    loss = loss_actions + config.value_weight * loss_values
    likeliest = logits.detach().argmax(-1, keepdim=True)
    right = (batch.actions.gather(-1, likeliest) >= 0.99 * batch.actions.amax(-1, keepdim=True))
    right = (right[..., 0] * batch.actions.sum(-1)).sum() / steps
    return loss, {"loss": loss.detach(), "loss_actions": loss_actions.detach(), "loss_values": loss_values.detach(),
                  "share_right": right}


def watch(actor_critic: ActorCritic, dataset: Dataset, config: ReturnsConfig, runtime: Runtime,
          teacher: Teacher | None = None) -> Iterator[Watched]:
    """Every episode of a dataset through the encoder, once; with a teacher, what it would have pressed."""
    for first in range(0, dataset.num_episodes, TOGETHER):
        episodes = [dataset[i] for i in range(first, min(first + TOGETHER, dataset.num_episodes))]
        actions = ([one_hot(e.actions, actor_critic.num_actions).float() for e in episodes] if teacher is None else
                   taught(teacher(len(episodes)), episodes))
        for episode, chances in zip(episodes, actions, strict=True):
            with torch.no_grad(), runtime.autocast():
                features = torch.cat([actor_critic.encoder(to_unit(frames.to(runtime.device))).half()
                                      for frames in episode.frames[:-1].split(FRAMES)])
            returns = discounted(episode.rewards, config.gamma)
            if not episode.ends[-1]:
                returns[-foresight(config.gamma):] = torch.nan
            yield Watched(features, chances.to(runtime.device), returns.to(runtime.device))


def taught(player: ScriptedPolicy, episodes: Sequence[Episode]) -> list[Tensor]:
    """What the player would have pressed in its worlds' episodes, of which it saw each frame, whoever played them: of
    each (t, A) float32, the chance of every action."""
    lengths = [len(episode.actions) for episode in episodes]
    advice = []
    for t in range(max(lengths)):
        now = [(e, min(t, n - 1)) for e, n in zip(episodes, lengths, strict=True)]
        advice.append(player.advice(torch.stack([e.frames[i] for e, i in now])))
        player.pressed(torch.stack([e.actions[i] for e, i in now]))
    chances = torch.stack(advice)
    return [chances[:n, i] for i, n in enumerate(lengths)]


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
                   pad(watched.actions[part], (0, 0, 0, missing)),
                   pad(watched.returns[part], (0, missing), value=torch.nan))

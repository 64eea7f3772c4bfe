"""The agent learns to see before it learns to act: to say where ball and paddle are, as the script reads them. Our own.

What pays in a paddle game is a relation of two things of a few pixels. A policy's gradient finds it after many
thousand updates; where each of them is takes a few hundred, and from there the relation is near.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diamond_core.agent.actor_critic import ActorCritic, unrolled
from diamond_core.agent.scripted import Rules
from diamond_core.pixels import to_unit
from diamond_core.types import Batch


class Sight(nn.Module):
    """An actor-critic whose memory says where things are."""

    def __init__(self, actor_critic: ActorCritic, rules: Rules) -> None:
        super().__init__()
        # not its heads: processes that share gradients wait for every parameter to get one
        self.encoder, self.lstm = actor_critic.encoder, actor_critic.lstm
        self.rules = rules
        self.head = nn.Linear(actor_critic.config.lstm_dim, 3)
        nn.init.zeros_(self.head.weight)

    def forward(self, frames: Tensor) -> Tensor:
        """frames (b, t, c, h, w) in [-1, 1] -> (b, t, 3), as in `places`."""
        b, t = frames.shape[:2]
        seen = self.encoder(frames.flatten(0, 1)).view(b, t, -1)
        return self.head(unrolled(self.lstm, seen)).float()


def places(rules: Rules, frames: Tensor) -> Tensor:
    """frames (b, t, 3, h, w) uint8 -> (b, t, 3) from -2 to 2: the ball's row and column and the paddle's place on its
    way; NaN where a thing is not seen."""
    flat = frames.flatten(0, 1)
    ball, paddle = rules.ball.find(flat), rules.paddle.find(flat)[:, rules.axis:rules.axis + 1]
    return (torch.cat([ball, paddle], dim=1) / 16 - 2).view(*frames.shape[:2], 3)


def sight_loss(sight: Sight, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of the places of what is seen, each thing's mean; padding does not count."""
    with torch.autocast(batch.frames.device.type, enabled=False):  # in bfloat16 a place is off by half a pixel
        target = places(sight.rules, batch.frames)
    known = ~target.isnan() & batch.mask[:, :, None]
    error = (sight(to_unit(batch.frames)) - target.nan_to_num()).square() * known
    errors = error.sum((0, 1)) / known.sum((0, 1)).clamp(min=1)
    loss = errors.sum()
    names = ("loss", "error_ball_row", "error_ball_column", "error_paddle")
    return loss, dict(zip(names, torch.cat([loss[None], errors]).detach(), strict=True))

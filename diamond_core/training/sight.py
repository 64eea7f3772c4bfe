"""The agent learns by watching before it learns to act: where ball and paddle are, as the script reads them, and what
the recorded player presses. Our own.

What pays in a paddle game is a relation of two things of a few pixels. A policy's gradient finds it after many
thousand updates; where each of them is takes a few hundred, and from there the relation is near.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from diamond_core.agent.actor_critic import ActorCritic
from diamond_core.agent.scripted import Rules
from diamond_core.pixels import to_unit
from diamond_core.types import Batch


class Sight(nn.Module):
    """An actor-critic whose memory says where things are, and what to press."""

    def __init__(self, actor_critic: ActorCritic, rules: Rules | None, imitation_weight: float = 0.0) -> None:
        """Where things are needs rules; imitation does not."""
        super().__init__()
        self.encoder, self.lstm = actor_critic.encoder, actor_critic.lstm
        self.rules, self.imitation_weight = rules, imitation_weight
        # no head that is not used: processes that share gradients wait for every parameter to get one
        if rules is not None:
            self.head = nn.Linear(actor_critic.config.lstm_dim, 3)
            nn.init.zeros_(self.head.weight)
        if imitation_weight:
            self.actor_linear = actor_critic.actor_linear

    def forward(self, frames: Tensor) -> Tensor:
        """frames (b, t, c, h, w) in [-1, 1] -> the memory (b, t, lstm_dim) after each."""
        b, t = frames.shape[:2]
        seen = self.encoder(frames.flatten(0, 1)).view(b, t, -1)
        memory = None
        kept = []
        for i in range(t):
            memory = self.lstm(seen[:, i], memory)
            kept.append(memory[0])
        return torch.stack(kept, dim=1)


def places(rules: Rules, frames: Tensor) -> Tensor:
    """frames (b, t, 3, h, w) uint8 -> (b, t, 3) from -2 to 2: the ball's row and column and the paddle's place on its
    way; NaN where a thing is not seen."""
    flat = frames.flatten(0, 1)
    ball, paddle = rules.ball.find(flat), rules.paddle.find(flat)[:, rules.axis:rules.axis + 1]
    return (torch.cat([ball, paddle], dim=1) / 16 - 2).view(*frames.shape[:2], 3)


def sight_loss(sight: Sight, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Squared error of the places of what is seen, each thing's mean, and the cross-entropy of what was pressed;
    padding does not count."""
    memory = sight(to_unit(batch.frames))
    numbers: dict[str, Tensor] = {}
    loss = torch.zeros((), device=memory.device)
    if sight.rules is not None:
        target = places(sight.rules, batch.frames)
        known = ~target.isnan() & batch.mask[:, :, None]
        error = (sight.head(memory).float() - target.nan_to_num()).square() * known
        errors = error.sum((0, 1)) / known.sum((0, 1)).clamp(min=1)
        loss = loss + errors.sum()
        numbers |= dict(zip(("error_ball_row", "error_ball_column", "error_paddle"), errors.detach(), strict=True))
    if sight.imitation_weight:
        logits = sight.actor_linear(memory).float()[batch.mask]
        pressed = batch.actions[batch.mask]
        imitation = cross_entropy(logits, pressed)
        loss = loss + sight.imitation_weight * imitation
        numbers |= {"loss_imitation": imitation.detach(),
                    "chance_of_pressed": logits.detach().softmax(-1).gather(1, pressed[:, None]).mean()}
    return loss, {"loss": loss.detach(), **numbers}

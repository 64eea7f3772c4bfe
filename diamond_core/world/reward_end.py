"""The reward and termination model: an encoder of (frame, action, next frame) and a memory. Source: SPEC 4."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diamond_core.config import RewardEndConfig
from diamond_core.nn.blocks import ResBlocks, conv3x3, init_lstm
from diamond_core.nn.unet import check_levels, down_blocks, downsamples
from diamond_core.pixels import to_unit
from diamond_core.types import Batch

NUM_REWARDS = 3
"""Classes -1, 0, +1."""
Memory = tuple[Tensor, Tensor]
"""LSTM state (hx, cx), each (1, b, lstm_dim)."""


class Encoder(nn.Module):
    """The U-Net's down half, then two blocks with attention."""

    def __init__(self, c_in: int, config: RewardEndConfig) -> None:
        super().__init__()
        channels, cond = config.channels, config.cond_channels
        check_levels(channels, config.depths, config.attention)
        self.conv_in = conv3x3(c_in, channels[0])
        self.blocks = down_blocks(channels, config.depths, cond, config.attention)
        self.blocks.append(ResBlocks([channels[-1]] * 2, [channels[-1]] * 2, cond, True))
        self.downsamples = downsamples(channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (b, c_in, h, w), cond (b, cond_channels) -> (b, channels[-1], h', w')."""
        x = self.conv_in(x)
        for i, block in enumerate(self.blocks):
            x = self.downsamples[i](x) if i < len(self.downsamples) else x
            x, _ = block(x, cond)
        return x


class RewardEndModel(nn.Module):
    """Predicts the sign of the reward and the end of the episode."""

    def __init__(self, config: RewardEndConfig, num_actions: int, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config
        c, h, w = frame_shape
        halvings = len(config.channels) - 1
        size = config.channels[-1] * math.prod(-(-side // 2**halvings) for side in (h, w))
        self.encoder = Encoder(2 * c, config)
        self.act_emb = nn.Embedding(num_actions, config.cond_channels)
        self.lstm = nn.LSTM(size, config.lstm_dim, batch_first=True)
        self.head = nn.Sequential(nn.Linear(config.lstm_dim, config.lstm_dim), nn.SiLU(),
                                  nn.Linear(config.lstm_dim, NUM_REWARDS + 2, bias=False))
        init_lstm(self.lstm)
        if config.begins_with_change:
            with torch.no_grad():
                self.encoder.conv_in.weight[:, :c] = -self.encoder.conv_in.weight[:, c:]

    def forward(self, frames: Tensor, actions: Tensor, next_frames: Tensor, memory: Memory | None = None
                ) -> tuple[Tensor, Tensor, Memory]:
        """frames and next_frames (b, t, c, h, w) in [-1, 1], actions (b, t) -> reward logits (b, t, 3), end logits
        (b, t, 2), memory. No memory means a fresh one."""
        b, t = actions.shape
        x = torch.cat([frames, next_frames], dim=2).flatten(0, 1)
        x = self.encoder(x, self.act_emb(actions.flatten()))
        x, memory = self.lstm(x.reshape(b, t, -1), memory)
        logits = self.head(x).float()
        return logits[..., :NUM_REWARDS], logits[..., NUM_REWARDS:], memory


def reward_end_loss(model: RewardEndModel, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of reward sign plus that of end, over the real steps among the first t - 1 of a segment."""
    frames = to_unit(batch.frames)
    reward_logits, end_logits, _ = model(frames[:, :-1], batch.actions[:, :-1], frames[:, 1:])
    mask = batch.mask[:, :-1]
    rewards = (batch.rewards[:, :-1].sign() + 1).long()
    reward_loss = masked_cross_entropy(reward_logits, rewards, mask)
    end_loss = masked_cross_entropy(end_logits, batch.ends[:, :-1].long(), mask)
    loss = reward_loss + end_loss
    return loss, {"loss": loss.detach(), "loss_reward": reward_loss.detach(), "loss_end": end_loss.detach()}


def masked_cross_entropy(logits: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean over the entries of mask (b, t) that are True; logits (b, t, classes), target (b, t)."""
    per_step = F.cross_entropy(logits.flatten(0, 1), target.flatten(), reduction="none")
    return (per_step * mask.flatten()).sum() / mask.sum().clamp(min=1)

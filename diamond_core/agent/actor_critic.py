"""The policy and value network. Source: SPEC 5."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from diamond_core.config import ActorCriticConfig
from diamond_core.nn.blocks import SmallResBlock, conv3x3, init_lstm, zeroed

Memory = tuple[Tensor, Tensor]
"""LSTM state (hx, cx), each (n, lstm_dim)."""


class Prediction(NamedTuple):
    """What the network thinks of n frames."""

    logits: Tensor
    """(n, A) float32."""
    values: Tensor
    """(n,) float32."""
    memory: Memory


def unrolled(lstm: nn.LSTMCell, features: Tensor, memory: Memory | None = None,
             renew: Callable[[int, Memory], Memory] = lambda t, memory: memory) -> Tensor:
    """features (b, t, features) -> (b, t, lstm_dim) float32: what a memory makes of them, step by step; a fresh one, if
    none is given. `renew` may put another in its place behind step t.

    What comes in is one product for all steps, only what is remembered is one a step.
    """
    incoming = linear(features, lstm.weight_ih, lstm.bias_ih + lstm.bias_hh)
    fresh = features.new_zeros(len(features), lstm.hidden_size, dtype=torch.float32)
    hx, cx = memory or (fresh, fresh)
    kept = []
    for t, gates in enumerate(incoming.unbind(1)):
        i, f, g, o = (gates + linear(hx, lstm.weight_hh)).float().chunk(4, dim=1)
        cx = f.sigmoid() * cx + i.sigmoid() * g.tanh()
        hx = o.sigmoid() * cx.tanh()
        kept.append(hx)
        hx, cx = renew(t, (hx, cx))
    return torch.stack(kept, dim=1)


class Encoder(nn.Module):
    """Stages of one small residual block and a halving."""

    def __init__(self, config: ActorCriticConfig, image_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [conv3x3(image_channels, config.channels[0])]
        for c_in, c_out in zip([config.channels[0], *config.channels[:-1]], config.channels, strict=True):
            layers += [SmallResBlock(c_in, c_out), nn.MaxPool2d(2)]
        self.encoder = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) in [-1, 1] -> (n, features)."""
        return self.encoder(x).flatten(1)


class ActorCritic(nn.Module):
    """A recurrent policy and its value."""

    def __init__(self, config: ActorCriticConfig, num_actions: int, frame_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.config = config
        self.num_actions = num_actions
        self.encoder_rests = False
        """Whether the encoder is kept from learning by what is predicted here."""
        c, h, w = frame_shape
        halvings = len(config.channels)
        if min(h, w) < 2**halvings:
            raise ValueError(f"{halvings} stages need images of at least {2**halvings} pixels, got {h}x{w}")
        self.encoder = Encoder(config, c)
        self.lstm = nn.LSTMCell(config.channels[-1] * (h >> halvings) * (w >> halvings), config.lstm_dim)
        self.critic_linear = zeroed(nn.Linear(config.lstm_dim, 1))
        self.actor_linear = zeroed(nn.Linear(config.lstm_dim, num_actions))
        init_lstm(self.lstm)

    def forward(self, frames: Tensor, memory: Memory) -> Prediction:
        """frames (n, c, h, w) in [-1, 1] -> logits, values and the new memory."""
        return self.remember(self.see(frames), memory)

    def see(self, frames: Tensor) -> Tensor:
        """frames (n, c, h, w) in [-1, 1] -> (n, features)."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.encoder_rests):
            return self.encoder(frames)

    def remember(self, seen: Tensor, memory: Memory) -> Prediction:
        """The same from features (n, features)."""
        hx, cx = self.lstm(seen, memory)
        # the memory stays float32 under autocast: rounding would pile up over an episode
        memory = hx.float(), cx.float()
        return Prediction(*self.judge(hx), memory)

    def judge(self, hx: Tensor) -> tuple[Tensor, Tensor]:
        """hx (..., lstm_dim) -> logits (..., A) and values (...), float32."""
        return self.actor_linear(hx).float(), self.critic_linear(hx).squeeze(-1).float()

    def initial_memory(self, n: int) -> Memory:
        """A fresh memory for n worlds."""
        weight = self.lstm.weight_hh
        return weight.new_zeros(n, self.config.lstm_dim), weight.new_zeros(n, self.config.lstm_dim)

"""Does the dream do what it is told? A classifier reads the action off a few frames, real ones and dreamt ones.

Our own. It learns from real play only; what it cannot tell apart in real play (NOOP and FIRE in Pong) does not count
against the dream, because the dream's accuracy is divided by reality's.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diamond_core.pixels import to_unit
from diamond_core.replay import Dataset, SegmentSampler

STACK = 4
"""The frame before the action, the frame it was taken at, and two after: Pong's paddle answers a frame late."""
BATCH = 64
LEARNING_RATE = 1e-3
NOISE = 0.02
"""Of the frames it learns from, about two byte levels: a dream's faint grain must not decide."""
MOTION = 5.0
"""Weight of the differences between frames: what moves is small and says more than what is there."""


class InverseDynamics(nn.Module):
    """Consecutive frames -> which action was taken at the second of them."""

    def __init__(self, num_actions: int, frame_shape: tuple[int, int, int], width: int = 32) -> None:
        super().__init__()
        c, h, w = frame_shape
        self.layers = nn.Sequential(
            *_halving(STACK * c, width), *_halving(width, width), *_halving(width, 2 * width),
            nn.Flatten(), nn.Linear(2 * width * -(-h // 8) * -(-w // 8), num_actions))

    def forward(self, x: Tensor) -> Tensor:
        """(n, STACK, c, h, w) in [-1, 1] -> logits (n, A)."""
        return self.layers(torch.cat([x[:, 1:2], MOTION * x.diff(dim=1)], dim=1).flatten(1, 2))


def _halving(c_in: int, c_out: int) -> tuple[nn.Module, ...]:
    return nn.Conv2d(c_in, c_out, kernel_size=3, stride=2, padding=1), nn.GroupNorm(8, c_out), nn.ReLU()


def train_inverse_dynamics(dataset: Dataset, updates: int, seed: int, device: torch.device,
                           watch: Callable[[int], None] = lambda done: None) -> InverseDynamics:
    """Learns from real play, every step as likely as any other."""
    sampler = SegmentSampler(dataset, STACK, BATCH, weights=None, past_end=False, seed=seed)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        model = InverseDynamics(len(dataset.info.action_names), dataset.info.frame_shape).to(device)
        optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
        for update in range(updates):
            batch = sampler.batch(update).map(lambda x: x.to(device))
            x = to_unit(batch.frames)
            error = F.cross_entropy(model(x + NOISE * torch.randn_like(x)), batch.actions[:, 1], reduction="none")
            # rows that begin before their episode show nothing where the first frame should be
            whole = batch.mask[:, 0]
            loss = (error * whole).sum() / whole.sum().clamp(min=1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            watch(update + 1)
    return model.eval()


@torch.no_grad()
def recognised(model: InverseDynamics, frames: Tensor, actions: Tensor) -> Tensor:
    """frames (n, t + STACK - 1, c, h, w) uint8; actions (n, t), taken at the second frame and on -> (n, t) bool: where
    the classifier names the action."""
    device = next(model.parameters()).device
    return torch.stack([model(to_unit(frames[:, j:j + STACK].to(device))).argmax(-1).cpu() == actions[:, j]
                        for j in range(actions.shape[1])], dim=1)

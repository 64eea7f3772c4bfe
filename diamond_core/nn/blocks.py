"""The small parts of all networks: norms, attention, residual blocks, Fourier features. Source: SPEC 2, 4, 5.

Module and parameter names are those of the published checkpoints, so that a state dict needs no translation.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP_SIZE = 32
"""Channels that are normalised together."""
GROUP_NORM_EPSILON = 1e-5
HEAD_DIM = 8
"""Channels of one attention head."""


def num_groups(channels: int) -> int:
    """Groups of a group norm over `channels` channels."""
    return max(1, channels // GROUP_SIZE)


def conv1x1(c_in: int, c_out: int) -> nn.Conv2d:
    """A 1x1 convolution."""
    return nn.Conv2d(c_in, c_out, kernel_size=1)


def conv3x3(c_in: int, c_out: int, stride: int = 1) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size (or halves it, rounding up, with stride 2)."""
    return nn.Conv2d(c_in, c_out, kernel_size=3, stride=stride, padding=1)


def zeroed(module: nn.Module, names: tuple[str, ...] = ("weight", "bias")) -> nn.Module:
    """`module` with the named parameters set to zero."""
    for name in names:
        nn.init.zeros_(getattr(module, name))
    return module


def init_lstm(lstm: nn.LSTM | nn.LSTMCell) -> None:
    """Input weights Xavier uniform, recurrent weights orthogonal, biases zero with forget-gate bias 1."""
    for name, p in lstm.named_parameters():
        if "weight_ih" in name:
            nn.init.xavier_uniform_(p.data)
        elif "weight_hh" in name:
            nn.init.orthogonal_(p.data)
        else:
            p.data.zero_()
            if "bias_ih" in name:
                p.data[lstm.hidden_size:2 * lstm.hidden_size] = 1


class GroupNorm(nn.Module):
    """Group norm with a learned scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(num_groups(channels), channels, eps=GROUP_NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same shape."""
        return self.norm(x)


class AdaGroupNorm(nn.Module):
    """Group norm whose scale and shift are a linear function of a condition."""

    def __init__(self, channels: int, cond_channels: int) -> None:
        super().__init__()
        self.num_groups = num_groups(channels)
        if channels % self.num_groups:
            raise ValueError(f"{channels} channels, where a skip connection joins, cannot be normalised in "
                             f"{self.num_groups} groups: choose widths that are multiples of {GROUP_SIZE}")
        self.linear = nn.Linear(cond_channels, 2 * channels)

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (b, c, h, w), cond (b, cond_channels) -> (b, c, h, w)."""
        x = F.group_norm(x, self.num_groups, eps=GROUP_NORM_EPSILON)
        scale, shift = self.linear(cond)[:, :, None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift


class SelfAttention2d(nn.Module):
    """Self-attention over the pixels, in heads of 8 channels, added to its normalised input.

    The published weights expect the residual behind the norm, not before it; the golden values tell the two apart.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.num_heads = max(1, channels // HEAD_DIM)
        if channels % self.num_heads:
            raise ValueError(f"attention needs a multiple of {HEAD_DIM} channels, got {channels}")
        self.temperature = (channels // self.num_heads) ** 0.5
        self.norm = GroupNorm(channels)
        self.qkv_proj = conv1x1(channels, 3 * channels)
        self.out_proj = zeroed(conv1x1(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same shape."""
        b, c, h, w = x.shape
        x = self.norm(x)
        qkv = self.qkv_proj(x)
        # channels are laid out as [q k v] x heads x head_dim
        q, k, v = qkv.reshape(b, 3, self.num_heads, c // self.num_heads, h * w).transpose(-1, -2).unbind(1)
        # plain products: on CPUs the fused kernel is many times slower at 64 tokens and 8 channels a head
        y = (q @ k.transpose(-1, -2) / self.temperature).softmax(-1) @ v
        return x + self.out_proj(y.transpose(-1, -2).reshape(b, c, h, w))


class FourierFeatures(nn.Module):
    """[cos, sin] of a number at fixed random frequencies."""

    weight: Tensor

    def __init__(self, cond_channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.randn(1, cond_channels // 2))

    def forward(self, x: Tensor) -> Tensor:
        """(b,) -> (b, cond_channels)."""
        angle = 2 * math.pi * x[:, None] @ self.weight
        return torch.cat([angle.cos(), angle.sin()], dim=-1)


class Downsample(nn.Module):
    """Halves the size (rounding up) with a learned, orthogonally initialised convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels, stride=2)
        nn.init.orthogonal_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, ceil(h/2), ceil(w/2))."""
        return self.conv(x)


class Upsample(nn.Module):
    """Doubles the size by repeating pixels, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> (b, c, 2h, 2w)."""
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class ResBlock(nn.Module):
    """Two normalised convolutions added to their input, under a condition; attention behind them where asked."""

    def __init__(self, c_in: int, c_out: int, cond_channels: int, attention: bool) -> None:
        super().__init__()
        self.proj = conv1x1(c_in, c_out) if c_in != c_out else nn.Identity()
        self.norm1 = AdaGroupNorm(c_in, cond_channels)
        self.conv1 = conv3x3(c_in, c_out)
        self.norm2 = AdaGroupNorm(c_out, cond_channels)
        self.conv2 = zeroed(conv3x3(c_out, c_out))
        self.attn = SelfAttention2d(c_out) if attention else nn.Identity()

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (b, c_in, h, w), cond (b, cond_channels) -> (b, c_out, h, w)."""
        r = self.proj(x)
        x = self.conv1(F.silu(self.norm1(x, cond)))
        x = self.conv2(F.silu(self.norm2(x, cond)))
        return self.attn(x + r)


class ResBlocks(nn.Module):
    """A run of residual blocks; each may first take in a skip connection."""

    def __init__(self, c_ins: list[int], c_outs: list[int], cond_channels: int, attention: bool) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            ResBlock(c_in, c_out, cond_channels, attention) for c_in, c_out in zip(c_ins, c_outs, strict=True))

    def forward(self, x: Tensor, cond: Tensor, skips: list[Tensor] | None = None) -> tuple[Tensor, list[Tensor]]:
        """Returns the last output and the list of all outputs; `skips` holds one tensor per block."""
        outputs = []
        for i, block in enumerate(self.resblocks):
            x = block(x if skips is None else torch.cat([x, skips[i]], dim=1), cond)
            outputs.append(x)
        return x, outputs


class SmallResBlock(nn.Module):
    """Norm, SiLU and one convolution, added to the input."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.f = nn.Sequential(GroupNorm(c_in), nn.SiLU(), conv3x3(c_in, c_out))
        self.skip_projection = conv1x1(c_in, c_out) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(b, c_in, h, w) -> (b, c_out, h, w)."""
        return self.skip_projection(x) + self.f(x)

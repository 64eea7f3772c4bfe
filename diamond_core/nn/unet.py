"""The U-Net, and its down half as an encoder. Source: SPEC 2 and 4."""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from diamond_core.nn.blocks import Downsample, ResBlocks, Upsample


def check_levels(channels: Sequence[int], depths: Sequence[int], attention: Sequence[bool]) -> None:
    """Raises ValueError unless the three describe the same number of levels, at least one."""
    if not len(channels) == len(depths) == len(attention) >= 1:
        raise ValueError(
            f"channels, depths and attention need one entry per level, got {len(channels)}, {len(depths)} and "
            f"{len(attention)} entries")


def down_blocks(channels: Sequence[int], depths: Sequence[int], cond_channels: int,
                attention: Sequence[bool]) -> nn.ModuleList:
    """One run of residual blocks per level; the first block of a level takes the width of the level above."""
    above = [channels[0], *channels[:-1]]
    return nn.ModuleList(
        ResBlocks([c1] + [c2] * (depth - 1), [c2] * depth, cond_channels, attn)
        for c1, c2, depth, attn in zip(above, channels, depths, attention, strict=True))


def downsamples(channels: Sequence[int]) -> nn.ModuleList:
    """What comes before each level: nothing, then halvings."""
    return nn.ModuleList([nn.Identity(), *(Downsample(c) for c in channels[:-1])])


class UNet(nn.Module):
    """Levels of residual blocks down and up again with skip connections, attention at the bottom."""

    def __init__(self, channels: Sequence[int], depths: Sequence[int], cond_channels: int,
                 attention: Sequence[bool]) -> None:
        super().__init__()
        check_levels(channels, depths, attention)
        above = [channels[0], *channels[:-1]]
        levels = list(zip(above, channels, depths, attention, strict=True))
        self.d_blocks = down_blocks(channels, depths, cond_channels, attention)
        self.u_blocks = nn.ModuleList(
            ResBlocks([2 * c2] * depth + [c1 + c2], [c2] * depth + [c1], cond_channels, attn)
            for c1, c2, depth, attn in reversed(levels))
        self.mid_blocks = ResBlocks([channels[-1]] * 2, [channels[-1]] * 2, cond_channels, True)
        self.downsamples = downsamples(channels)
        self.upsamples = nn.ModuleList([nn.Identity(), *(Upsample(c) for c in reversed(channels[:-1]))])

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        """x (b, channels[0], h, w), cond (b, cond_channels) -> (b, channels[0], h, w)."""
        h, w = x.shape[-2:]
        multiple = 2 ** (len(self.downsamples) - 1)
        x = F.pad(x, (0, -w % multiple, 0, -h % multiple))
        skips = []
        for down, block in zip(self.downsamples, self.d_blocks, strict=True):
            x_down = down(x)
            x, outputs = block(x_down, cond)
            skips.append([x_down, *outputs])
        x, _ = self.mid_blocks(x, cond)
        for up, block, skip in zip(self.upsamples, self.u_blocks, reversed(skips), strict=True):
            x, _ = block(up(x), cond, skip[::-1])
        return x[..., :h, :w]

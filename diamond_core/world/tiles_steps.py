"""The world's networks as lists of steps for `tiles.c`: what convolutions read is bfloat16. Our own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diamond_core.nn.blocks import AdaGroupNorm, GroupNorm, SelfAttention2d
from diamond_core.world.winograd_steps import Image, Layer, Writer, pad_channels, rounded

SIDE, CHUNK, WIDE, FEW = 16, 32, 32, 256
"""As in the source: rows of a tile, its channels, pixels of a block, and those of a small image."""


class TileWriter(Writer):
    """Writes networks down for the matrix units.

    An image lies in float32 as a convolution left it, or in bfloat16 with a border as the next one reads it.
    """

    def bordered(self, c: int, h: int, w: int) -> Image:
        """A new one for convolutions to read."""
        c = rounded(c, CHUNK)
        return Image(c, h, w, c * (h + 2) * (w + 2) // 2)

    def read(self, c: int, h: int, w: int) -> Image:
        """See `Writer`."""
        out = self.bordered(c, h, w)
        self.add("read", out, {}, c_in=c)
        return out

    def statistics(self, x: Image) -> Image:
        """The convolution that makes an image gathers them, strip by strip."""
        if x.statistics is None:
            x.statistics = Image(x.c, x.h // strip_height(x.h, x.w), 3, 3 * x.c * (x.h // strip_height(x.h, x.w)))
            _, numbers, places = next(step for step in self.steps if step[2]["out"] is x)
            numbers["counts"], places["statistics"] = 1, x.statistics
        return x.statistics

    def prepare(self, xs: Sequence[Image], norm: AdaGroupNorm | GroupNorm | None = None, silu: bool = False,
                doubled: bool = False, border: bool = True, raw: Image | None = None) -> Image:
        """See `Writer`; `raw` becomes the same without the norm."""
        out = self.bordered(sum(x.c for x in xs), xs[0].h << doubled, xs[0].w << doubled)
        places, numbers = self.inputs(xs, norm)
        self.add("prepare", out, {**places, "raw": raw}, silu=int(silu), doubled=int(doubled),
                 has_raw=int(raw is not None), **numbers)
        return out

    def conv3(self, x: Image, conv: Layer, residual: Image | None = None, joined: Image | None = None,
              projection: Layer = None) -> Image:
        """See `Writer`; the sums of a 1x1 projection of the image `joined` may join."""
        out = self.image(conv.out_channels, x.h // conv.stride[0], x.w // conv.stride[0])
        weight = pad_channels(conv.weight, x.c, out.c).permute(2, 3, 1, 0).flatten(0, 2)
        bias, c = conv.bias, x.c
        if joined is not None:
            weight = torch.cat([weight, pad_channels(projection.weight, joined.c, out.c)[..., 0, 0].T])
            bias, c = conv.bias + projection.bias, x.c + joined.c
        self.add("conv3" if conv.stride[0] == 1 else "halve", out,
                 {"source": x, "source2": joined or x, "residual": residual}, c_in=c, c_first=x.c, c_out=out.c,
                 adds=int(residual is not None), weight=self.keep(in_tiles(weight)), bias=self.bias(bias, out.c))
        return out

    def conv1(self, xs: Sequence[Image], weight: Tensor, bias: Tensor | None, residual: Image | None = None) -> Image:
        """See `Writer`; of one image."""
        x, = xs
        out = self.image(len(weight), x.h, x.w)
        self.add("conv1", out, {"source": x, "source2": x, "residual": residual}, c_in=x.c, c_first=x.c, c_out=out.c,
                 adds=int(residual is not None), bias=self.bias(bias, out.c),
                 weight=self.keep(in_tiles(pad_channels(weight, x.c, out.c)[..., 0, 0].T)))
        return out

    def res_block(self, xs: Sequence[Image], block: Layer) -> Image:
        """See `ResBlock`; two images are its concatenated input."""
        projects = isinstance(block.proj, nn.Conv2d)
        raw = self.bordered(sum(x.c for x in xs), xs[0].h, xs[0].w) if projects else None
        x = self.conv3(self.prepare(xs, block.norm1, silu=True, raw=raw), block.conv1)
        x = self.conv3(self.prepare([x], block.norm2, silu=True), block.conv2, residual=None if projects else xs[0],
                       joined=raw, projection=block.proj)
        return self.attention(x, block.attn) if isinstance(block.attn, SelfAttention2d) else x

    def normalised(self, x: Image, norm: GroupNorm) -> tuple[Image, Image]:
        """See `Writer`; what is added to stays float32."""
        places, numbers = self.inputs([x], norm)
        exact = self.image(x.c, x.h, x.w)
        self.add("normalise", exact, places, **numbers)
        return self.prepare([x], norm), exact

    def readable(self, x: Image) -> Image:
        """See `Writer`."""
        return self.prepare([x])


def strip_height(h: int, w: int) -> int:
    """As in the source."""
    least = 4 * WIDE if h * w > FEW else WIDE
    return next((rows for rows in range(1, h) if rows * w >= least and h % rows == 0), h)


def in_tiles(weight: Tensor) -> Tensor:
    """(k, c_out) -> the bits of bfloat16 as the products read them: two tiles of outputs side by side, all k."""
    tiles = weight.detach().to(torch.bfloat16).reshape(len(weight) // CHUNK, CHUNK // 2, 2, -1, SIDE)
    tiles = tiles.permute(3, 0, 1, 4, 2).flatten(2)
    paired = [pair.transpose(0, 1).flatten() for pair in tiles.split(2)]
    return torch.cat(paired).view(torch.float32)

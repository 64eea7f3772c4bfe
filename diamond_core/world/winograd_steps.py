"""The world's networks as lists of steps for the engines in C, written by walking the torch modules. Our own."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diamond_core.nn.blocks import AdaGroupNorm, Downsample, GroupNorm, SelfAttention2d, Upsample
from diamond_core.world.denoiser import InnerModel
from diamond_core.world.engine import ada_norms
from diamond_core.world.reward_end import Encoder

LANES, COLUMNS, BLOCK, GAP, TILE, POSITIONS = 16, 16, 24, 32, 4, 36
"""As in the source; LANES are the widest that it is compiled for."""
Layer = Any
"""A module whose kind is known; torch's annotations of what modules hold know only `Module`."""
KINDS = ("read", "statistics", "prepare", "conv3", "halve", "conv1", "attend", "write", "normalise", "pool")
SMALL = ("h", "w", "c_in", "c_out", "c_first", "groups", "modulated", "silu", "doubled", "border", "adds", "heads",
         "has_raw", "counts")
PLACES = ("source", "source2", "out", "residual", "work", "raw", "statistics", "statistics2")
LEARNED = ("weight", "bias", "scale", "shift")
KERNELS = torch.tensor([[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6], [1 / 24, 1 / 12, 1 / 6],
                        [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]], dtype=torch.float64)
"""What transforms three taps into six for F(4, 3) at the points 0, 1, -1, 2, -2 and infinity."""


class NotHere(RuntimeError):
    """This network or this machine is not for this path; the message says why, in one line."""


class CStep(ctypes.Structure):
    """`Step` of the source."""

    _fields_ = [("kind", ctypes.c_int), *((name, ctypes.c_int) for name in SMALL),
                *((name, ctypes.c_ssize_t) for name in PLACES + LEARNED)]


@dataclass(eq=False)
class Image:
    """A piece of memory between steps, with what is known of it."""

    c: int
    h: int
    w: int
    size: int
    """Floats, its border included."""
    statistics: Image | None = None


@dataclass
class Program:
    """Steps over one image, and the weights they use."""

    steps: list[tuple[str, dict[str, int], dict[str, Image | None]]] = field(default_factory=list)
    learned: list[Tensor] = field(default_factory=list)
    num_learned: int = 0
    out_shape: tuple[int, int, int] = (0, 0, 0)
    """(c, h, w) of the output."""

    def add(self, kind: str, out: Image | None, places: dict[str, Image | None], **numbers: int) -> None:
        """A step; `h` and `w` are the output's unless they are named."""
        if out is not None:
            numbers = {"h": out.h, "w": out.w, **numbers}
        self.steps.append((kind, numbers, {**places, "out": out}))

    def keep(self, weights: Tensor) -> int:
        """Where these weights lie."""
        first = self.num_learned
        self.learned.append(weights.detach().float().flatten().cpu())
        self.num_learned += weights.numel()
        return first

    def placed(self, threads: int) -> tuple[ctypes.Array[CStep], int]:
        """The steps with every image at a place in memory, and the memory's size in floats. Places are used again."""
        uses: dict[int, int] = {}
        for i, (_, _, places) in enumerate(self.steps):
            uses.update({id(x): i for x in places.values() if x is not None})
        at: dict[int, tuple[int, int]] = {}
        """Image -> first and behind the last float, of those that are still needed."""
        size = 0
        steps = (CStep * len(self.steps))()
        for i, (kind, numbers, places) in enumerate(self.steps):
            for x in places.values():
                if x is not None and id(x) not in at:
                    needed = x.size * threads if places.get("work") is x else x.size
                    first = first_gap(at.values(), needed)
                    at[id(x)] = first, first + needed
                    size = max(size, first + needed)
            steps[i] = CStep(KINDS.index(kind), **numbers,
                             **{name: at[id(x)][0] for name, x in places.items() if x is not None})
            at = {x: place for x, place in at.items() if uses[x] > i}
        return steps, size


def first_gap(taken: Iterable[tuple[int, int]], size: int) -> int:
    """The lowest place where `size` floats fit between those that are taken."""
    behind = 0
    for first, end in sorted(taken):
        if first - behind >= size:
            break
        behind = max(behind, end)
    return behind


class Writer(Program):
    """Writes networks down, step by step, for `winograd.c`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self._modulation: dict[AdaGroupNorm, int] = {}
        size = 0
        for norm in ada_norms(model):
            self._modulation[norm] = size
            size += norm.linear.out_features

    def image(self, c: int, h: int, w: int, border: bool = False) -> Image:
        """A new one; its channels are rounded up."""
        c = rounded(c, LANES if border else COLUMNS)
        return Image(c, h, w, c * (padded(h) * padded(w) if border else h * w))

    def read(self, c: int, h: int, w: int) -> Image:
        """The input, with a border."""
        out = self.image(c, h, w, border=True)
        self.add("read", out, {}, c_in=c, c_out=out.c)
        return out

    def write(self, x: Image, c: int) -> None:
        """The first c channels are the output."""
        self.out_shape = c, x.h, x.w
        self.add("write", None, {"source": x}, h=x.h, w=x.w, c_in=x.c, c_out=c)

    def statistics(self, x: Image) -> Image:
        """Of every channel, once an image."""
        if x.statistics is None:
            x.statistics = Image(x.c, 1, 3, 3 * x.c)
            self.add("statistics", None, {"source": x, "statistics": x.statistics}, h=x.h, w=x.w, c_in=x.c)
        return x.statistics

    def prepare(self, xs: Sequence[Image], norm: AdaGroupNorm | GroupNorm | None = None, silu: bool = False,
                doubled: bool = False, border: bool = True) -> Image:
        """One or two images beside each other, normalised, with a border for a convolution of 3x3."""
        c, h, w = sum(x.c for x in xs), xs[0].h << doubled, xs[0].w << doubled
        places, numbers = self.inputs(xs, norm)
        out = self.image(c, h, w, border)
        self.add("prepare", out, places, silu=int(silu), doubled=int(doubled), border=int(border), **numbers)
        return out

    def inputs(self, xs: Sequence[Image], norm: AdaGroupNorm | GroupNorm | None
               ) -> tuple[dict[str, Image | None], dict[str, int]]:
        """Places and numbers of a step that reads one or two images through a norm."""
        c = sum(x.c for x in xs)
        places: dict[str, Image | None] = {"source": xs[0], "source2": xs[-1]}
        numbers = {"c_in": c, "c_first": xs[0].c}
        if norm is not None:
            places |= {"statistics": self.statistics(xs[0]), "statistics2": self.statistics(xs[-1])}
        if isinstance(norm, AdaGroupNorm):
            first = self._modulation[norm]
            numbers |= {"groups": norm.num_groups, "modulated": 1, "scale": first, "shift": first + c}
        elif norm is not None:
            numbers |= {"groups": norm.norm.num_groups, "scale": self.keep(norm.norm.weight),
                        "shift": self.keep(norm.norm.bias)}
        return places, numbers

    def conv3(self, x: Image, conv: Layer, residual: Image | None = None) -> Image:
        """A 3x3 convolution of an image with a border, of stride 1 or 2."""
        out = self.image(conv.out_channels, x.h // conv.stride[0], x.w // conv.stride[0])
        weight = pad_channels(conv.weight, x.c, out.c).double()
        places: dict[str, Image | None] = {"source": x, "residual": residual}
        if conv.stride[0] == 1:
            taps = torch.einsum("ia,ocab,jb->ijoc", KERNELS, weight, KERNELS)
            places["work"] = Image(0, 0, 0, POSITIONS * (BLOCK * (x.c + out.c) + 2 * GAP))
        else:
            taps = weight.permute(2, 3, 0, 1)
        self.add("conv3" if conv.stride[0] == 1 else "halve", out, places, c_in=x.c, c_out=out.c,
                 adds=int(residual is not None), weight=self.keep(packed(taps)), bias=self.bias(conv.bias, out.c))
        return out

    def conv1(self, xs: Sequence[Image], weight: Tensor, bias: Tensor | None, residual: Image | None = None) -> Image:
        """A 1x1 convolution of one or two images; weight (c_out, c_in, 1, 1)."""
        c = sum(x.c for x in xs)
        out = self.image(len(weight), xs[0].h, xs[0].w)
        self.add("conv1", out, {"source": xs[0], "source2": xs[-1], "residual": residual}, c_in=c, c_out=out.c,
                 c_first=xs[0].c, adds=int(residual is not None), bias=self.bias(bias, out.c),
                 weight=self.keep(packed(pad_channels(weight, c, out.c)[None, None, ..., 0, 0])))
        return out

    def bias(self, bias: Tensor | None, c: int) -> int:
        """Where the bias of a convolution lies, for c channels."""
        whole = torch.zeros(c)
        if bias is not None:
            whole[:len(bias)] = bias.detach()
        return self.keep(whole)

    # the blocks of the networks, each as in torch

    def res_block(self, xs: Sequence[Image], block: Layer) -> Image:
        """See `ResBlock`; two images are its concatenated input."""
        if isinstance(block.proj, nn.Conv2d):
            r = self.conv1(xs, block.proj.weight, block.proj.bias)
        else:
            r, = xs  # a block that keeps its width has one input
        x = self.conv3(self.prepare(xs, block.norm1, silu=True), block.conv1)
        x = self.conv3(self.prepare([x], block.norm2, silu=True), block.conv2, residual=r)
        return self.attention(x, block.attn) if isinstance(block.attn, SelfAttention2d) else x

    def res_blocks(self, x: Image, blocks: Layer, skips: Sequence[Image] = ()) -> tuple[Image, list[Image]]:
        """See `ResBlocks`."""
        outputs = []
        for i, block in enumerate(blocks.resblocks):
            x = self.res_block([x, skips[i]] if skips else [x], block)
            outputs.append(x)
        return x, outputs

    def attention(self, x: Image, attention: Layer) -> Image:
        """See `SelfAttention2d`."""
        read, x = self.normalised(x, attention.norm)
        # queries come out of the product divided by the temperature
        scale = torch.ones(3 * x.c)
        scale[:x.c] /= attention.temperature
        qkv, out = attention.qkv_proj, attention.out_proj
        y = self.conv1([read], qkv.weight * scale[:, None, None, None], None if qkv.bias is None else qkv.bias * scale)
        mixed = self.image(x.c, x.h, x.w)
        work = Image(0, 0, 0, x.h * x.w * (1 + 2 * x.c // attention.num_heads))
        self.add("attend", mixed, {"source": y, "work": work}, c_out=x.c, heads=attention.num_heads)
        return self.conv1([self.readable(mixed)], out.weight, out.bias, residual=x)

    def normalised(self, x: Image, norm: GroupNorm) -> tuple[Image, Image]:
        """What a 1x1 convolution reads, and what its output is added to."""
        x = self.prepare([x], norm, border=False)
        return x, x

    def readable(self, x: Image) -> Image:
        """The same for a 1x1 convolution to read."""
        return x

    def down(self, x: Image, down: Layer) -> Image:
        """See `Downsample`; anything else does nothing."""
        return self.conv3(self.prepare([x]), down.conv) if isinstance(down, Downsample) else x

    def small_block(self, x: Image, block: Layer) -> Image:
        """See `SmallResBlock`."""
        norm, _, conv = block.f
        skip = block.skip_projection
        r = self.conv1([x], skip.weight, skip.bias) if isinstance(skip, nn.Conv2d) else x
        return self.conv3(self.prepare([x], norm, silu=True), conv, residual=r)

    def pool(self, x: Image) -> Image:
        """The largest of two by two pixels."""
        out = self.image(x.c, x.h // 2, x.w // 2)
        self.add("pool", out, {"source": x}, c_in=x.c, c_out=x.c)
        return out

    def unet(self, x: Image, unet: Layer) -> Image:
        """See `UNet`."""
        skips = []
        for down, blocks in zip(unet.downsamples, unet.d_blocks, strict=True):
            x_down = self.down(x, down)
            x, outputs = self.res_blocks(x_down, blocks)
            skips.append([x_down, *outputs])
        x, _ = self.res_blocks(x, unet.mid_blocks)
        for up, blocks, skip in zip(unet.upsamples, unet.u_blocks, reversed(skips), strict=True):
            if isinstance(up, Upsample):
                x = self.conv3(self.prepare([x], doubled=True), up.conv)
            x, _ = self.res_blocks(x, blocks, skip[::-1])
        return x


def body(inner: InnerModel, size: tuple[int, int], kind: type[Writer] = Writer) -> Writer:
    """The denoiser's network: past frames and the noisy one, one behind the other -> F."""
    check(inner, size)
    writer = kind(inner)
    x = writer.unet(writer.conv3(writer.read(inner.conv_in.in_channels, *size), inner.conv_in), inner.unet)
    x = writer.conv3(writer.prepare([x], inner.norm_out, silu=True), inner.conv_out)
    writer.write(x, inner.conv_out.out_channels)
    return writer


def encoder(model: Encoder, size: tuple[int, int], kind: type[Writer] = Writer) -> Writer:
    """The reward model's encoder: two frames, one behind the other -> features."""
    check(model, size)
    writer = kind(model)
    x = writer.conv3(writer.read(model.conv_in.in_channels, *size), model.conv_in)
    for i, blocks in enumerate(model.blocks):
        x = writer.down(x, model.downsamples[i]) if i < len(model.downsamples) else x
        x, _ = writer.res_blocks(x, blocks)
    writer.write(x, x.c)
    return writer


def eye(layers: nn.Sequential, size: tuple[int, int]) -> Writer:
    """The agent's encoder: a frame -> features."""
    if any(side % (TILE << sum(isinstance(layer, nn.MaxPool2d) for layer in layers)) for side in size) or any(
            layer.out_channels % COLUMNS for layer in layers.modules() if isinstance(layer, nn.Conv2d)):
        raise NotHere("the agent's encoder has sizes that the engine in C does not know")
    writer = Writer(layers)
    conv: Layer
    conv, *others = layers
    x = writer.conv3(writer.read(conv.in_channels, *size), conv)
    for layer in others:
        x = writer.pool(x) if isinstance(layer, nn.MaxPool2d) else writer.small_block(x, layer)
    writer.write(x, x.c)
    return writer


def check(model: nn.Module, size: tuple[int, int]) -> None:
    """Raises NotHere for sizes that the steps do not know."""
    halvings = sum(isinstance(m, Downsample) for m in model.modules())
    if any(side % (TILE << halvings) for side in size):
        raise NotHere(f"the engines in C need images whose sides divide by {TILE << halvings}")
    if any(norm.linear.out_features % (2 * COLUMNS) for norm in ada_norms(model)):
        raise NotHere(f"the engines in C need layers whose width divides by {COLUMNS}")


def rounded(n: int, to: int) -> int:
    """n, rounded up to a multiple."""
    return -(-n // to) * to


def padded(side: int) -> int:
    """Of an image with its border."""
    return rounded(side, TILE) + 2


def pad_channels(weight: Tensor, c_in: int, c_out: int) -> Tensor:
    """(o, i, h, w) -> (c_out, c_in, h, w), with zeros."""
    out = weight.new_zeros(c_out, c_in, *weight.shape[2:], device="cpu")
    out[:weight.shape[0], :weight.shape[1]] = weight.detach().cpu()
    return out


def packed(weight: Tensor) -> Tensor:
    """(a, b, c_out, c_in) -> (a, b, c_out / COLUMNS, c_in, COLUMNS), as the products read them."""
    return weight.unflatten(2, (-1, COLUMNS)).transpose(3, 4).contiguous()

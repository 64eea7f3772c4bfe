"""3x3 convolutions and their gradients by Winograd's algorithm, for CPUs without bfloat16: thrice as fast. Our own.

They are most of an update there. An agent's encoder that only looks runs in C as a whole. The source is that of the
world's engine, `world/winograd.c`.
"""

from __future__ import annotations

from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from diamond_core.agent.actor_critic import Encoder
from diamond_core.world import winograd
from diamond_core.world.winograd_steps import BLOCK, COLUMNS, GAP, KERNELS, POSITIONS, TILE, NotHere, eye, padded

NETWORKS: WeakKeyDictionary[Encoder, tuple[Any, winograd.Network | None]] = WeakKeyDictionary()
"""Beside the modules, which are copied and saved as they are; with the state of the weights they were written for."""


def prepare(model: nn.Module) -> None:
    """Has the model's 3x3 convolutions computed so, in place. Raises NotHere, as without a C compiler.

    The model stays what it was: the same parameters under the same names.
    """
    winograd.library()
    for module in model.modules():
        if (type(module) is nn.Conv2d and module.kernel_size == (3, 3) and module.padding == (1, 1)
                and module.stride == module.dilation == (1, 1) and module.groups == 1
                and module.padding_mode == "zeros" and module.bias is not None):
            module.__class__ = Conv3
    look_swiftly(model)
    # torch's annotation forgets the memory format
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def look_swiftly(model: nn.Module) -> None:
    """Has an agent's encoder run in C where it does not learn, in place. Raises NotHere."""
    winograd.library()
    for module in model.modules():
        if type(module) is Encoder:
            module.__class__ = SwiftEncoder


class SwiftEncoder(Encoder):
    """An agent's encoder that takes a third of the time where nothing is learned; sizes that the engine does not know
    take torch's way."""

    def forward(self, x: Tensor) -> Tensor:
        """See `Encoder`."""
        network = None
        if not torch.is_grad_enabled() and x.dtype == torch.float32 and len(x):
            network = network_of(self, (x.shape[2], x.shape[3]))
        return super().forward(x) if network is None else network(x, x.new_zeros(len(x), 0)).flatten(1)


def network_of(encoder: Encoder, size: tuple[int, int]) -> winograd.Network | None:
    """Written anew whenever the weights have changed; None where the engine does not know the sizes."""
    now = size, *((p.data_ptr(), p._version) for p in encoder.parameters())
    if encoder not in NETWORKS or NETWORKS[encoder][0] != now:
        try:
            NETWORKS[encoder] = now, winograd.Network(eye(encoder.encoder, size))
        except NotHere:
            NETWORKS[encoder] = now, None
    return NETWORKS[encoder][1]


class Conv3(nn.Conv2d):
    """A convolution of stride 1; widths and sizes that the algorithm does not know take torch's way."""

    def forward(self, x: Tensor) -> Tensor:
        """(n, c_in, h, w) -> (n, c_out, h, w)."""
        assert self.bias is not None
        if torch.jit.is_tracing() or not len(x) or not x.dtype == self.weight.dtype == torch.float32 or any(
                n % multiple for n, multiple in ((self.in_channels, COLUMNS), (self.out_channels, COLUMNS),
                                                 (x.shape[2], TILE), (x.shape[3], TILE))):
            return super().forward(x)
        return Convolve.apply(x, self.weight, self.bias)


class Convolve(torch.autograd.Function):
    """y = x * weight + bias, with a border of zeros."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """x (n, c_in, h, w), weight (c_out, c_in, 3, 3), bias (c_out,)."""
        x = x.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(x, weight)
        return convolved(x, weight, bias, transposed=False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Of x, weight and bias, those that are asked for."""
        x, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        of_x, of_weight, of_bias = ctx.needs_input_grad
        nothing = gradient.new_zeros(weight.shape[1])
        return (convolved(gradient, weight, nothing, transposed=True) if of_x else None,
                weight_gradient(x, gradient) if of_weight else None,
                gradient.sum(dim=(0, 2, 3)) if of_bias else None)


def convolved(x: Tensor, weight: Tensor, bias: Tensor, transposed: bool) -> Tensor:
    """x (n, c_in, h, w) in channels-last; with `transposed`, weight is that of the convolution whose gradient x is."""
    n, c_in, h, w = x.shape
    c_out = weight.shape[1 if transposed else 0]
    taps = x.new_empty(POSITIONS * c_out * c_in)
    weight = weight.contiguous()
    functions = winograd.library()
    functions.transform_weights(weight.data_ptr(), c_out, c_in, int(transposed), taps.data_ptr())
    y = torch.empty(n, c_out, h, w, memory_format=torch.channels_last)
    size = padded(h) * padded(w) * c_in + POSITIONS * (BLOCK * (c_in + c_out) + 2 * GAP)
    threads = torch.get_num_threads()
    memory = x.new_empty(size * threads)
    functions.convolve_batch(n, h, w, c_in, c_out, x.data_ptr(), taps.data_ptr(), bias.data_ptr(), y.data_ptr(),
                             memory.data_ptr(), size, threads)
    return y


def weight_gradient(x: Tensor, gradient: Tensor) -> Tensor:
    """x (n, c_in, h, w) and the output's gradient (n, c_out, h, w), both in channels-last -> (c_out, c_in, 3, 3)."""
    n, c_in, h, w = x.shape
    c_out = gradient.shape[1]
    sums = x.new_empty(POSITIONS, c_in * c_out)
    size = (POSITIONS * c_in * c_out + padded(h) * padded(w) * c_in
            + POSITIONS * (BLOCK * (c_in + c_out) + 2 * GAP))
    threads = torch.get_num_threads()
    memory = x.new_empty(size * threads)
    winograd.library().gather_batch(n, h, w, c_in, c_out, x.data_ptr(), gradient.data_ptr(), sums.data_ptr(),
                                    memory.data_ptr(), size, threads)
    taps = torch.kron(KERNELS, KERNELS).to(sums.dtype)
    return (taps.T @ sums).reshape(3, 3, c_in, c_out).permute(3, 2, 0, 1)

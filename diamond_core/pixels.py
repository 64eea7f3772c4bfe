"""The only place where bytes become [-1, 1] and back, and where HWC becomes CHW and back. Source: SPEC 2."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_unit(frames: Tensor) -> Tensor:
    """uint8 images -> float32 in [-1, 1], any leading shape."""
    return frames.float().div(255).mul(2).sub(1)


def to_bytes(x: Tensor) -> Tensor:
    """Float images in [-1, 1] (clamped) -> uint8. Truncates, as the published models were trained with."""
    return x.clamp(-1, 1).add(1).div(2).mul(255).byte()


def quantize(x: Tensor) -> Tensor:
    """Float images -> the nearest lower of the 256 byte levels, as floats in [-1, 1]."""
    return to_unit(to_bytes(x))


def nearest_bytes(x: Tensor) -> Tensor:
    """Float images that stand on byte levels up to float rounding -> those bytes."""
    return x.clamp(-1, 1).add(1).mul(127.5).round().byte()


def to_chw(images: np.ndarray) -> Tensor:
    """(..., h, w, c) uint8 array -> (..., c, h, w) contiguous uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, -3)))


def to_hwc(frames: Tensor) -> np.ndarray:
    """(..., c, h, w) uint8 tensor -> (..., h, w, c) contiguous uint8 array."""
    return np.ascontiguousarray(np.moveaxis(frames.detach().cpu().numpy(), -3, -1))

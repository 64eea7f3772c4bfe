"""EDM preconditioning with offset noise. Source: Karras et al. 2022, table 1; SPEC 2."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Conditioners(NamedTuple):
    """The four scalars of a noise level, each (b,)."""

    c_in: Tensor
    c_out: Tensor
    c_skip: Tensor
    c_noise: Tensor


def conditioners(sigma: Tensor, sigma_data: float, sigma_offset_noise: float) -> Conditioners:
    """sigma (b,) -> the scalars of D(x) = c_skip x + c_out F(c_in x, c_noise). Offset noise adds to the variance."""
    s = (sigma**2 + sigma_offset_noise**2).sqrt()
    c_in = 1 / (s**2 + sigma_data**2).sqrt()
    c_skip = sigma_data**2 / (s**2 + sigma_data**2)
    c_out = s * c_skip.sqrt()
    c_noise = s.log() / 4
    return Conditioners(c_in, c_out, c_skip, c_noise)


def per_image(x: Tensor) -> Tensor:
    """(b,) -> (b, 1, 1, 1), so that it multiplies images."""
    return x[:, None, None, None]

"""The sampler: from noise to an image in a few calls of a denoiser. Source: Karras et al. 2022, algorithm 2; SPEC 3."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

Denoise = Callable[[Tensor, float], Tensor]
"""denoise(x, sigma): x (b, c, h, w) at one noise level -> the clean image (b, c, h, w)."""
Noise = Callable[[int], Tensor]
"""noise(i): fresh standard normal numbers for the i-th churn of a frame, (b, c, h, w)."""
MOST_STEPS = 50


def check_num_steps(num_steps: int) -> int:
    """Raises ValueError unless 1 <= num_steps <= MOST_STEPS."""
    if not 1 <= num_steps <= MOST_STEPS:
        raise ValueError(f"denoising steps must be 1 to {MOST_STEPS}, got {num_steps}")
    return num_steps


@torch.no_grad()
def sample(denoise: Denoise, x: Tensor, sigmas: Sequence[float], *, order: int = 1, s_churn: float = 0.0,
           s_tmin: float = 0.0, s_tmax: float = math.inf, s_noise: float = 1.0, noise: Noise | None = None,
           watch: Callable[[int, Tensor], None] | None = None) -> Tensor:
    """Euler (order 1) or Heun (order 2) along `sigmas` (falling, the last 0), with churn.

    x (b, c, h, w) is standard normal noise, not scaled by the first sigma: the models were trained and are used so.
    `watch` sees the clean image that each step predicts.
    """
    gamma_max = min(s_churn / (len(sigmas) - 1), math.sqrt(2) - 1)
    for i, (sigma, next_sigma) in enumerate(pairwise(sigmas)):
        gamma = gamma_max if s_tmin <= sigma <= s_tmax else 0.0
        sigma_hat = sigma * (1 + gamma)
        if gamma > 0:
            if noise is None:
                raise ValueError("churn needs noise: pass noise=, a function of the step's number")
            x = x + math.sqrt(sigma_hat**2 - sigma**2) * s_noise * noise(i)
        denoised = denoise(x, sigma)
        if watch is not None:
            watch(i, denoised)
        d = (x - denoised) / sigma_hat
        dt = next_sigma - sigma_hat
        if order == 1 or next_sigma == 0:
            x = x + d * dt
        else:
            x_2 = x + d * dt
            d_2 = (x_2 - denoise(x_2, next_sigma)) / next_sigma
            x = x + (d + d_2) / 2 * dt
    return x

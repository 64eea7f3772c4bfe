"""Noise levels and noise: the Karras schedule, the training distribution, and noise as a pure function of a seed.

Sources: Karras et al. 2022, eq. 5 and table 1; SPEC 2 and 3. Philox-4x32-10: Salmon et al. 2011, "Parallel random
numbers: as easy as 1, 2, 3". A counter-based generator gives every world its own stream in one vectorised call, the
same bits on every device, whatever shares the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from diamond_core.config import SamplerConfig
from diamond_core.diffusion.sampler import MOST_STEPS

MASK32 = 0xFFFFFFFF
PHILOX_M = (0xD2511F53, 0xCD9E8D57)
PHILOX_W = (0x9E3779B9, 0xBB67AE85)
PHILOX_ROUNDS = 10
MOST_TEMPERATURE = 10.0
"""Of a sampler."""


def karras_sigmas(num_steps: int, sigma_min: float, sigma_max: float, rho: float, device: torch.device | str = "cpu"
                  ) -> Tensor:
    """(num_steps + 1,) falling noise levels, the last 0 (eq. 5)."""
    i = torch.linspace(0, 1, num_steps, device=device)
    inv_rho = 1 / rho
    sigmas = (sigma_max**inv_rho + i * (sigma_min**inv_rho - sigma_max**inv_rho)) ** rho
    return torch.cat([sigmas, sigmas.new_zeros(1)])


def schedule(config: SamplerConfig) -> list[float]:
    """The noise levels of a sampler, falling, the last 0. Raises ValueError where they would not fall."""
    c = config
    if not 0 < c.sigma_min < c.sigma_max or not 0 <= c.two_step_sigma < c.sigma_max or c.temperature < 0:
        raise ValueError(f"noise levels must fall from {c.sigma_max} and stay above 0, and the temperature must not be "
                         f"negative; got {c.sigma_min}, {c.two_step_sigma} and {c.temperature}")
    if not (1 <= c.least_steps <= MOST_STEPS and c.temperature <= MOST_TEMPERATURE):
        raise ValueError(f"expected 1 to {MOST_STEPS} denoising steps at least, and a temperature up to "
                         f"{MOST_TEMPERATURE:g}; got {c.least_steps} and {c.temperature:g}")
    if not 0 < c.rho < math.inf:
        raise ValueError(f"expected a rho above 0, got {c.rho:g}")
    if config.num_steps == 2 and config.two_step_sigma:
        return [config.sigma_max, config.two_step_sigma, 0.0]
    return karras_sigmas(config.num_steps, config.sigma_min, config.sigma_max, config.rho).tolist()


def training_sigmas(normal: Tensor, mean: float, std: float, sigma_min: float, sigma_max: float) -> Tensor:
    """Standard normal numbers (b,) -> the noise levels of a training batch: log-normal, clipped."""
    return (normal * std + mean).exp().clip(sigma_min, sigma_max)


def philox(key: tuple[Tensor, Tensor], counter: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, ...]:
    """Philox-4x32-10. Key and counter words, and the four words returned, are int64 tensors in [0, 2**32)."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(PHILOX_ROUNDS):
        # int64 wraps modulo 2**64, so both halves of the 64-bit product come out right
        p0, p1 = c0 * PHILOX_M[0], c2 * PHILOX_M[1]
        c0, c1, c2, c3 = (p1 >> 32 & MASK32) ^ c1 ^ k0, p1 & MASK32, (p0 >> 32 & MASK32) ^ c3 ^ k1, p0 & MASK32
        k0, k1 = (k0 + PHILOX_W[0]) & MASK32, (k1 + PHILOX_W[1]) & MASK32
    return c0, c1, c2, c3


def random_words(seeds: Tensor, steps: Tensor, stream: int, size: int) -> Tensor:
    """(n, size) int64 random words in [0, 2**32), one row per (seed, step); `stream` tells independent uses apart."""
    index = torch.arange(-(-size // 4), device=seeds.device)[None]
    seeds, steps = seeds[:, None], steps[:, None]
    zero = torch.zeros_like(index + steps)
    key = (zero + (seeds & MASK32), zero + (seeds >> 32 & MASK32))
    words = philox(key, (zero + index, zero + stream, zero + (steps & MASK32), zero + (steps >> 32 & MASK32)))
    return torch.stack(words, dim=-1).flatten(1)[:, :size]


def uniform(seeds: Tensor, steps: Tensor, stream: int, size: int) -> Tensor:
    """(n, size) float32 in [0, 1)."""
    return (random_words(seeds, steps, stream, size) >> 8).float() * 2**-24


def gaussian(seeds: Tensor, steps: Tensor, stream: int, shape: Sequence[int]) -> Tensor:
    """(n, *shape) float32 standard normal numbers, by Box and Muller."""
    size = math.prod(shape)
    half = -(-size // 2)
    words = random_words(seeds, steps, stream, 2 * half)
    # u in (0, 1], so that its logarithm is finite
    u = ((words[:, :half] >> 8) + 1).float() * 2**-24
    angle = (words[:, half:] >> 8).float() * (2 * math.pi * 2**-24)
    radius = (-2 * u.log()).sqrt()
    normal = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return normal[:, :size].reshape(len(seeds), *shape)

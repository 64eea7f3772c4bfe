"""Preconditioning, schedules, noise and sampler against what theory says of them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import tensor

from diamond_core.diffusion.noise import gaussian, karras_sigmas, philox, training_sigmas, uniform
from diamond_core.diffusion.precondition import conditioners
from diamond_core.diffusion.sampler import check_num_steps, sample


def test_preconditioning_keeps_unit_variance():
    """Inputs and targets of the network have variance 1 at every noise level (Karras et al. 2022, appendix B.6)."""
    torch.manual_seed(0)
    sigma_data, offset = 0.5, 0.3
    x = sigma_data * torch.randn(200_000)
    for sigma in (0.01, 0.3, 1.0, 10.0):
        s = math.sqrt(sigma**2 + offset**2)
        noisy = x + s * torch.randn_like(x)
        c = conditioners(tensor([sigma]), sigma_data, offset)
        assert (c.c_in * noisy).var().item() == pytest.approx(1, rel=0.02)
        assert ((x - c.c_skip * noisy) / c.c_out).var().item() == pytest.approx(1, rel=0.02)


def test_karras_schedule():
    sigmas = karras_sigmas(3, 2e-3, 5.0, 7.0)
    torch.testing.assert_close(sigmas, tensor([5.0, 0.2831, 0.002, 0.0]), atol=1e-4, rtol=0)
    torch.testing.assert_close(karras_sigmas(1, 2e-3, 5.0, 7.0), tensor([5.0, 0.0]))
    assert (karras_sigmas(50, 2e-3, 5.0, 7.0).diff() < 0).all()


def test_training_sigmas_are_clipped_log_normal():
    sigmas = training_sigmas(tensor([0.0, 1.0, -100.0, 100.0]), -0.4, 1.2, 2e-3, 20.0)
    torch.testing.assert_close(sigmas, tensor([math.exp(-0.4), math.exp(0.8), 2e-3, 20.0]))


@pytest.mark.parametrize("order, steps", [(1, 50), (2, 18)])
def test_sampler_draws_the_right_distribution(order, steps):
    """With the exact denoiser of a Gaussian the samples have its mean and variance.

    The start here is scaled by sigma_max, as the theory wants; the models are used without (SPEC 3).
    """
    torch.manual_seed(0)
    mean, std = 0.3, 0.5
    sigmas = karras_sigmas(steps, 2e-3, 5.0, 7.0).tolist()

    def denoise(x, sigma):
        s = sigma**2
        return (std**2 * x + s * mean) / (std**2 + s)

    x = sample(denoise, 5 * torch.randn(64, 3, 16, 16) + mean, sigmas, order=order)
    assert x.mean().item() == pytest.approx(mean, abs=0.02)
    assert x.std().item() == pytest.approx(std, rel=0.05)


def test_churn_needs_noise_and_uses_it_only_in_its_range():
    asked: list[int] = []

    def noise(i):
        asked.append(i)
        return torch.zeros(1, 1, 2, 2)

    x = torch.ones(1, 1, 2, 2)
    sample(lambda x, sigma: x * 0, x, [5.0, 1.0, 0.1, 0.0], s_churn=1.0, s_tmin=0.5, s_tmax=2.0, noise=noise)
    assert asked == [1]
    with pytest.raises(ValueError, match="noise="):
        sample(lambda x, sigma: x, x, [5.0, 0.0], s_churn=1.0)


def test_watch_sees_every_prediction():
    seen = []
    sample(lambda x, sigma: x * 0 + sigma, torch.ones(1, 1, 2, 2), [5.0, 1.0, 0.0],
           watch=lambda i, image: seen.append((i, image.mean().item())))
    assert seen == [(0, 5.0), (1, 1.0)]


@pytest.mark.parametrize("steps", [0, 51, -1])
def test_number_of_steps_is_bounded(steps):
    with pytest.raises(ValueError, match="1 to 50"):
        check_num_steps(steps)


@pytest.mark.parametrize("key, counter, words", [
    ((0, 0), (0, 0, 0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((0xFFFFFFFF,) * 2, (0xFFFFFFFF,) * 4, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ((0xA4093822, 0x299F31D0), (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), "d16cfe09 94fdcceb 5001e420 24126ea1"),
])
def test_philox_known_answers(key, counter, words):
    """The published test vectors of Philox-4x32-10."""
    ours = philox(tuple(map(tensor, key)), tuple(map(tensor, counter)))
    assert " ".join(f"{w.item():08x}" for w in ours) == words


def test_noise_is_normal_and_a_function_of_seed_step_and_stream():
    seeds, steps = tensor([1, 1, 2]), tensor([5, 6, 5])
    z = gaussian(seeds, steps, 0, (3, 64, 64))
    assert z.mean().abs() < 0.02 and (z.std() - 1).abs() < 0.02 and z.isfinite().all()
    assert (z[0] * z[1]).mean().abs() < 0.05 and (z[0] * z[2]).mean().abs() < 0.05
    alone = gaussian(seeds[1:2], steps[1:2], 0, (3, 64, 64))
    assert torch.equal(alone[0], z[1])
    assert not torch.equal(gaussian(seeds, steps, 1, (3, 64, 64)), z)
    assert not torch.equal(gaussian(seeds + 2**40, steps, 0, (3, 64, 64)), z)


def test_uniform_stays_below_one():
    u = uniform(tensor([3]), tensor([0]), 0, 100_000)
    assert u.min() >= 0 and u.max() < 1 and (u.mean() - 0.5).abs() < 0.01

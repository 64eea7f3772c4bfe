"""The denoiser's training: noise on the past is of the asked strength, and off it changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diamond_core.config import DenoisingConfig
from diamond_core.diffusion.precondition import per_image
from diamond_core.types import Batch
from diamond_core.world.denoiser import (
    GUESSED_AT,
    Denoiser,
    DenoisingNoise,
    blotched,
    denoising_loss,
    faded,
    pixel_weights,
)
from tests.conftest import SMALL


def test_noise_on_the_past_has_one_strength_a_sample():
    torch.manual_seed(0)
    frames = torch.rand(200, 4, 3, 20, 24)
    strengths = (blotched(frames, 0.1) - frames).flatten(1).std(1)
    # pixels and interpolated blotches together have a deviation of about 1.2 times the strength
    assert 0.1 < strengths.max() < 0.15 and strengths.min() < 0.01 and abs(strengths.mean() - 0.06) < 0.01


def test_the_loss_sees_noise_on_the_past_and_the_guess_only_when_asked(small_agent):
    torch.manual_seed(0)
    b, k = 2, small_agent.denoiser.config.num_conditioning_frames
    frames = torch.randint(0, 256, (b, k + 2, 3, 16, 16), dtype=torch.uint8)
    no = torch.zeros(b, k + 2, dtype=torch.bool)
    batch = Batch(frames, torch.zeros(b, k + 2, dtype=torch.int64), no.float(), no, no, ~no)
    noise = [DenoisingNoise(torch.randn(b), torch.randn(b, 3, 1, 1), torch.randn(b, 3, 16, 16)) for _ in range(2)]

    def loss(seed: int, **levels: float) -> float:
        torch.manual_seed(seed)
        config = replace(DenoisingConfig(), **levels)
        return denoising_loss(small_agent.denoiser, batch, config, noise)[0].item()

    assert loss(1) == loss(2)
    for level in ({"context_noise": 0.1}, {"guess_share": 0.8}):
        assert loss(1, **level) != loss(2, **level) and loss(1, **level) == loss(1, **level)


def test_a_final_observation_is_learned_only_when_asked(small_agent):
    torch.manual_seed(0)
    b, k = 2, small_agent.denoiser.config.num_conditioning_frames
    frames = torch.randint(0, 256, (b, k + 1, 3, 16, 16), dtype=torch.uint8)
    no = torch.zeros(b, k + 1, dtype=torch.bool)
    mask = ~no
    mask[0, k] = False  # behind the end: what its last step led to
    noise = [DenoisingNoise(torch.randn(b), torch.randn(b, 3, 1, 1), torch.randn(b, 3, 16, 16))]

    def loss(rows: slice, mask: torch.Tensor, final: bool) -> float:
        batch = Batch(frames, torch.zeros(b, k + 1, dtype=torch.int64), no.float(), no, no, mask)
        z = DenoisingNoise(*(x[rows] for x in noise[0]))
        return denoising_loss(small_agent.denoiser, batch.map(lambda x: x[rows]), DenoisingConfig(final_frames=final),
                              [z])[0].item()

    both, first, second = slice(0, 2), slice(0, 1), slice(1, 2)
    assert loss(first, mask, False) == 0 and loss(first, mask, True) == pytest.approx(loss(first, ~no, False))
    assert loss(both, mask, False) == pytest.approx(loss(second, mask, False))
    assert loss(both, mask, True) == pytest.approx(loss(both, ~no, False))
    mask[0, k - 1] = False  # nothing led to it
    assert loss(first, mask, True) == 0


def test_a_noisy_image_is_on_its_way_to_the_guess(small_agent):
    torch.manual_seed(0)
    denoiser, b = small_agent.denoiser, 64
    k = denoiser.config.num_conditioning_frames
    past, target = torch.rand(b, k, 3, 16, 16) - 0.5, torch.rand(b, 3, 16, 16) - 0.5
    actions = torch.zeros(b, k, dtype=torch.int64)
    torch.manual_seed(1)
    clean = faded(denoiser, target, past, actions, 0.8)
    torch.manual_seed(1)
    guess = denoiser(GUESSED_AT * torch.randn_like(target), torch.full((b,), GUESSED_AT), past, actions)
    far = (guess - target).abs() > 0.1
    shares = ((clean - target) / (guess - target)).masked_fill(~far, torch.nan).flatten(1)
    each = shares.nanmean(1)
    torch.testing.assert_close(shares.nan_to_num(), each[:, None].where(far.flatten(1), 0.0), atol=1e-4, rtol=1e-3)
    assert 0 <= each.min() < 0.1 and 0.7 < each.max() <= 0.8 and not clean.requires_grad


def test_what_moves_and_what_stands_out_count_more():
    frames = torch.zeros(5, 6, 3, 16, 16)
    frames[0, 3:, :, 2, 2] = 1.0  # moves: it comes into sight
    frames[1, :, :, 12, 12] = 1.0  # is at rest, and in one of five places
    frames[:, :, :, 8, 8] = 1.0  # is there in all
    taken = torch.ones(5, 6, dtype=torch.bool)
    w = pixel_weights(frames, taken, motion=8.0, objects=2.0)
    assert (w[0, 0, 1:4, 1:4] == 11).all() and w[0, 0, 12, 12] == 1
    assert (w[1, 0, 11:14, 11:14] == 3).all() and w[1, 0, 2, 2] == 1
    assert torch.equal(w[:, :, 8, 8], w[:, :, 0, 0]) and torch.equal(w[2:], torch.ones(3, 1, 16, 16))
    # segments that reach beyond an episode, to both sides: black frames come and go, and are nothing that moves
    beyond, taken = frames + 1, taken.clone()
    taken[:, 0] = taken[2, 4:] = taken[0, 5] = False
    beyond[:, 0] = beyond[2, 5] = -1
    assert torch.equal(pixel_weights(beyond, taken, motion=8.0, objects=2.0), w), "the final frame is there, too"


class Constant(Denoiser):
    """Thinks that the next frame is black with one square of this brightness, whatever the past."""

    def __init__(self, brightness: float) -> None:
        super().__init__(SMALL.denoiser, 2)
        self.frame = torch.full((1, 3, 16, 16), -1.0)
        self.frame[:, :, 6:9, 6:9] = brightness

    def model_output(self, x, c, frames, actions):
        return (self.frame - per_image(c.c_skip) * x) / per_image(c.c_out)


def best_brightness(config: DenoisingConfig) -> float:
    """With which the loss is lowest where a square, at 1, is in one of four next frames and else is not, at -1."""
    frames = torch.zeros(4, SMALL.denoiser.num_conditioning_frames + 1, 3, 16, 16, dtype=torch.uint8)
    frames[0, -1, :, 6:9, 6:9] = 255
    steps = torch.zeros(frames.shape[:2], dtype=torch.int64)
    batch = Batch(frames, steps, steps.float(), steps > 0, steps > 0, steps == 0)
    noise = [DenoisingNoise(torch.zeros(4), torch.zeros(4, 3, 1, 1), torch.randn(4, 3, 16, 16))]
    levels = torch.linspace(-1, 1, 41).tolist()
    return min(levels, key=lambda level: denoising_loss(Constant(level), batch, config, noise)[0].item())


def test_a_weight_on_motion_leans_towards_painting_and_one_on_errors_does_not():
    plain = DenoisingConfig(log_sigma_mean=3.0)
    assert best_brightness(plain) == pytest.approx(-0.5), "the mean of what may come"
    assert best_brightness(replace(plain, error_weight=8.0)) == pytest.approx(-0.5)
    assert best_brightness(replace(plain, motion_weight=8.0)) > 0

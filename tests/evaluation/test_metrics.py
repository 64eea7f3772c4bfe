"""Likeness against known noise and scikit-image, average precision against a count by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diamond_core.evaluation.metrics import PSNR_CAP, average_precision, curve, psnr, ssim


def images(n: int, seed: int = 0, size: int = 32) -> torch.Tensor:
    """Smooth pictures with a little grain."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (n, 3, size // 8, size // 8)).repeat(8, axis=2).repeat(8, axis=3)
    return torch.from_numpy((coarse + rng.integers(-20, 20, coarse.shape)).astype(np.uint8))


def test_psnr_of_known_noise():
    x = torch.full((2, 3, 8, 8), 100, dtype=torch.uint8)
    y = x.clone()
    y[0] += 10
    y[1, :, :4] += 10
    assert psnr(x, y).tolist() == pytest.approx([20 * np.log10(25.5), 20 * np.log10(25.5) + 10 * np.log10(2)], abs=1e-3)


def test_equal_frames_have_the_capped_psnr():
    x = images(3)
    assert (psnr(x, x) == PSNR_CAP).all() and (ssim(x, x) == 1).all()


def test_ssim_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    x, y = images(4, 0), images(4, 1)
    y[:2] = (x[:2].float() * 0.8 + y[:2].float() * 0.2).byte()
    like_wang = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    theirs = [metrics.structural_similarity(a, b, channel_axis=0, **like_wang)
              for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    assert ssim(x, y).tolist() == pytest.approx(theirs, abs=1e-4)
    assert theirs[0] > 0.5 > theirs[2]


def test_ssim_of_small_images_takes_a_smaller_window():
    x = images(1, size=8)
    assert ssim(x, x).item() == pytest.approx(1)
    assert ssim(x, images(1, size=8) // 2).item() < 0.9


def test_average_precision_by_hand():
    """Ranked: hit, miss, hit, miss, hit -> (1/1 + 2/3 + 3/5) / 3."""
    scores = np.array([0.1, 0.9, 0.5, 0.7, 0.3])
    events = np.array([True, True, True, False, False])
    assert average_precision(scores, events) == pytest.approx((1 + 2 / 3 + 3 / 5) / 3)


def test_average_precision_of_one_score_is_the_base_rate():
    assert average_precision(np.full(8, 0.5), np.arange(8) < 2) == 0.25


def test_average_precision_without_events_is_unknown():
    assert average_precision(np.array([0.3, 0.4]), np.array([False, False])) is None


def test_average_precision_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    scores, events = rng.integers(0, 30, 500) / 30, rng.random(500) < 0.2
    assert average_precision(scores, events) == pytest.approx(metrics.average_precision_score(events, scores))


def test_curve_leaves_out_what_is_masked():
    values = torch.tensor([[1.0, 5.0, 7.0], [3.0, 9.0, 7.0]])
    its = curve(values, torch.tensor([[True, True, False], [True, False, False]]))
    assert its.mean == [2.0, 5.0, None]
    # the standard error of 1 and 3 is 1
    assert its.low == [pytest.approx(2 - 1.96), None, None] and its.high == [pytest.approx(2 + 1.96), None, None]

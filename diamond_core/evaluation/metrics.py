"""How alike two frames are, how well rare events are told, and means with intervals: pure functions.

Sources: Wang et al. 2004, "Image quality assessment" (SSIM, its Gaussian window and constants); average precision as in
information retrieval, AP = sum_i (R_i - R_{i-1}) P_i over falling thresholds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

PSNR_CAP = 60.0
"""dB: equal frames have no finite PSNR, and a mean needs one. One pixel of 64x64 that is 16 levels off is here."""
WINDOW, WINDOW_STD = 11, 1.5
"""SSIM's Gaussian window, in pixels; a smaller image has a smaller window."""
C1, C2 = 0.01**2, 0.03**2
"""SSIM's constants for images in [0, 1]."""


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB of uint8 images (..., c, h, w) -> (...), at most `PSNR_CAP`."""
    error = (x.float() - y.float()).square().mean(dim=(-3, -2, -1))
    return (10 * torch.log10(255**2 / error)).clamp(max=PSNR_CAP)


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity of uint8 images (n, c, h, w) -> (n,), 1 = the same; the mean over channels."""
    a, b = x.float() / 255, y.float() / 255
    # one call for all five: a person waits for this at every step of a twin
    mu_a, mu_b, aa, bb, ab = _blurred(torch.cat([a, b, a * a, b * b, a * b])).chunk(5)
    var_a, var_b, cov = aa - mu_a**2, bb - mu_b**2, ab - mu_a * mu_b
    similarity = (2 * mu_a * mu_b + C1) * (2 * cov + C2) / ((mu_a**2 + mu_b**2 + C1) * (var_a + var_b + C2))
    return similarity.mean(dim=(1, 2, 3))


def apart(x: Tensor, y: Tensor) -> Tensor:
    """By how many byte levels uint8 images (n, c, h, w) differ at most -> (n,), where a pixel counts as the same that
    lies between the darkest and the brightest of the other's 3 x 3 pixels there: a thing moved by one pixel is no
    difference, one that is missing is."""
    images = torch.stack([x, y]).float()
    padded = F.pad(images.flatten(0, 1), (1, 1, 1, 1), mode="replicate")

    def nearby(extreme: Callable[[Tensor, Tensor], Tensor]) -> Tensor:  # a pooling takes ten times as long
        rows = extreme(extreme(padded[..., :-2, :], padded[..., 1:-1, :]), padded[..., 2:, :])
        return extreme(extreme(rows[..., :-2], rows[..., 1:-1]), rows[..., 2:]).view_as(images).flip(0)

    return torch.maximum(images - nearby(torch.maximum), nearby(torch.minimum) - images).flatten(2).amax(2).amax(0)


def _blurred(x: Tensor) -> Tensor:
    """(n, c, h, w) under the Gaussian window, where it fits."""
    side = min(WINDOW, *(s - 1 + s % 2 for s in x.shape[-2:]))
    at = torch.arange(side, device=x.device) - side // 2
    w = torch.exp(-at.float() ** 2 / (2 * WINDOW_STD**2))
    w = (w / w.sum()).view(1, 1, -1, 1)
    n, c, *size = x.shape
    y = F.conv2d(F.conv2d(x.reshape(n * c, 1, *size), w), w.mT)
    return y.view(n, c, *y.shape[-2:])


def average_precision(scores: np.ndarray, events: np.ndarray) -> float | None:
    """Area under precision and recall of scores (n,) for events (n,) bool; none where nothing happened."""
    if not events.any():
        return None
    order = np.argsort(-scores, kind="stable")
    # equal scores share one threshold
    last = np.flatnonzero(np.diff(scores[order], append=-np.inf))
    hits = events[order].cumsum()[last]
    return float((np.diff(hits, prepend=0) * hits / (last + 1)).sum() / hits[-1])


@dataclass(frozen=True)
class Curve:
    """A mean by step with its 95% interval; none where nothing was measured, or one thing only."""

    mean: list[float | None]
    low: list[float | None]
    high: list[float | None]


def curve(values: Tensor, mask: Tensor) -> Curve:
    """Means of values (n, t) over the rows where mask (n, t) is True, plus and minus 1.96 standard errors."""
    rows = [column[known].double() for column, known in zip(values.T.cpu(), mask.T.cpu(), strict=True)]
    mean = [x.mean().item() if len(x) else None for x in rows]
    wide = [1.96 * x.std().item() / len(x) ** 0.5 if len(x) > 1 else None for x in rows]
    low, high = ([None if w is None or m is None else m + sign * w for m, w in zip(mean, wide, strict=True)]
                 for sign in (-1, 1))
    return Curve(mean, low, high)

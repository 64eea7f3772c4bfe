"""The fidelity report as one dark picture: frames, curves and bars, the dream in violet and reality in teal. Our own.

All places are pixels from the lower left corner.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator
from matplotlib.transforms import IdentityTransform

from diamond_core.pixels import to_hwc

if TYPE_CHECKING:
    from diamond_core.evaluation.fidelity import FidelityReport, Likeness

DREAM, REALITY = "#a78bfa", "#2dd4bf"
BACKGROUND, PANEL, LINES, TEXT, MUTED = "#0b0d12", "#141821", "#232a36", "#e6e9ef", "#8b94a7"
WIDTH, HEIGHT, DPI = 1800, 1760, 200
"""A README shows it half as wide."""
LARGE, SMALL = 15.0, 8.5
"""Points."""
LEFT, RIGHT, SECOND = 140, 1772, 1010
"""Left edge, right edge, and left edge of the right half."""
TILE, GAP = 320, 8


def draw(report: FidelityReport, path: Path) -> None:
    """Writes the picture, whole or not at all."""
    figure = Figure(figsize=(WIDTH / DPI, HEIGHT / DPI), dpi=DPI, facecolor=BACKGROUND)
    FigureCanvasAgg(figure)
    _title(figure, report)
    _strip(figure, report, top=1580)
    _curves(figure, LEFT, "PSNR in dB, by step", report.psnr, report.horizons)
    _curves(figure, SECOND, "SSIM, by step", report.ssim, report.horizons)
    _following(figure, report)
    _precision(figure, report)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _write(figure: Figure, x: float, y: float, words: str, colour: str = MUTED, size: float = SMALL, **more: Any
           ) -> None:
    figure.text(x / WIDTH, y / HEIGHT, words, color=colour, fontsize=size, **more)


def _title(figure: Figure, report: FidelityReport) -> None:
    _write(figure, LEFT, 1682, f"{report.game}: how true the dream is", TEXT, LARGE)
    _write(figure, RIGHT, 1700, f"{report.rollouts} dreams from held-out play, its actions replayed", ha="right")
    _write(figure, RIGHT, 1664, f"{report.sampler['num_steps']} denoising steps a frame, bands are 95% intervals",
           ha="right")


def _strip(figure: Figure, report: FidelityReport, top: int) -> None:
    """The true frames above the dreamt ones, in whole multiples of their size."""
    strip = report.strip
    room = (RIGHT - LEFT + GAP) // len(strip.steps) - GAP
    scale = max(1, min(TILE, room) // max(strip.truth.shape[-2:]))
    height, width = (scale * side for side in strip.truth.shape[-2:])
    for row, (word, colour, frames) in enumerate((("reality", REALITY, strip.truth), ("dream", DREAM, strip.dream))):
        y = top - (row + 1) * (height + GAP)
        _write(figure, LEFT - 24, y + height / 2, word, colour, ha="right", va="center")
        for i, image in enumerate(to_hwc(frames)):
            x = LEFT + i * (width + GAP)
            large = image.repeat(scale, 0).repeat(scale, 1)
            figure.figimage(np.broadcast_to(large, (*large.shape[:2], 3)), x, y)
            figure.add_artist(Rectangle((x, y), width, height, fill=False, edgecolor=colour, linewidth=1,
                                        transform=IdentityTransform()))
            if row == 0:
                _write(figure, x, top + 8, f"step {strip.steps[i]}" if i == 0 else str(strip.steps[i]))


def _panel(figure: Figure, left: int, bottom: int, width: int, height: int, title: str) -> Axes:
    axes = figure.add_axes((left / WIDTH, bottom / HEIGHT, width / WIDTH, height / HEIGHT), facecolor=BACKGROUND)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=SMALL, labelcolor=MUTED)
    _write(figure, left, bottom + height + 28, title, TEXT)
    return axes


def _curves(figure: Figure, left: int, title: str, likeness: Likeness, horizons: list[int]) -> None:
    axes = _panel(figure, left, 540, 580, 270, title)
    steps = np.arange(1, len(likeness.dream.mean) + 1)
    ends = []
    for colour, its in ((MUTED, likeness.copy_last), (DREAM, likeness.dream)):
        mean, low, high = (np.array(x, dtype=float) for x in (its.mean, its.low, its.high))
        axes.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        axes.plot(steps, mean, color=colour, linewidth=1.6, solid_capstyle="round")
        ends.append(mean[~np.isnan(mean)][-1])
    axes.set_xscale("log")
    axes.set_xlim(1, max(2, steps[-1]))
    axes.set_xticks(horizons, [str(h) for h in horizons])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.grid(axis="y", color=LINES, linewidth=0.8)
    axes.locator_params(axis="y", nbins=5)
    axes.set_axisbelow(True)
    _name_ends(axes, ends)


def _name_ends(axes: Axes, ends: list[float]) -> None:
    """Words where the two curves end, kept a line apart."""
    low, high = axes.get_ylim()
    places = [(y - low) / (high - low) for y in ends]
    middle, apart = sum(places) / 2, max(0.13, abs(places[1] - places[0])) / 2
    sign = 1 if places[1] >= places[0] else -1
    for word, colour, side in (("copy last", MUTED, -sign), ("dream", DREAM, sign)):
        axes.text(1.03, middle + side * apart, word, color=colour, fontsize=SMALL, va="center",
                  transform=axes.transAxes)


def _bars(figure: Figure, left: int, width: int, title: str) -> Axes:
    """A panel for lying bars from 0 to 1; y counts rows downwards."""
    axes = _panel(figure, left, 60, width, 350, title)
    axes.set(xlim=(0, 1), ylim=(8.2, -0.2), xticks=[], yticks=[])
    return axes


def _bar(axes: Axes, y: float, value: float | None, colour: str, word: str) -> None:
    axes.barh(y, 1, height=0.62, color=PANEL)
    axes.barh(y, value or 0, height=0.62, color=colour)
    words, shade = ("unknown", MUTED) if value is None else (f"{value:.2f} {word}", colour)
    axes.text(1.03, y, words, color=shade, fontsize=SMALL, va="center")


def _baseline(axes: Axes, top: float, bottom: float, value: float, word: str) -> None:
    axes.plot([value, value], [top, bottom], color=TEXT, linewidth=1.2)
    axes.text(value, bottom + 0.35, word, color=MUTED, fontsize=SMALL, va="center", ha="left")


def _following(figure: Figure, report: FidelityReport) -> None:
    its, held_out = report.following, report.coverage
    axes = _bars(figure, LEFT, 460, "Actions read off the frames")
    _write(figure, LEFT, 76, f"Held-out play: {held_out.episodes} episodes, {held_out.steps:,} steps, "
           f"{sum(map(bool, held_out.actions.values()))} of {len(held_out.actions)} actions")
    if its is None:
        axes.text(0, 0.8, "not measured: nothing to learn it from", color=MUTED, fontsize=SMALL, va="center")
        return
    _bar(axes, 0.4, its.real, REALITY, "reality")
    _bar(axes, 1.2, its.dream, DREAM, "dream")
    _baseline(axes, 0, 1.6, its.most_frequent, "commonest action")
    if its.ratio is not None:
        axes.text(0, 4.3, f"{its.ratio:.2f}", color=DREAM, fontsize=LARGE, va="center")
        axes.text(0.24, 4.3, "dream over reality: 1 = it obeys as visibly", color=MUTED, fontsize=SMALL, va="center")


def _precision(figure: Figure, report: FidelityReport) -> None:
    axes = _bars(figure, SECOND, RIGHT - SECOND - 170, "Average precision of events")
    rows = ("reward +", "reward_positive"), ("reward \N{MINUS SIGN}", "reward_negative"), ("end", "end")
    for i, (word, name) in enumerate(rows):
        its, y = report.precision[name], 2.8 * i
        _bar(axes, y + 0.4, its.real, REALITY, "reality")
        _bar(axes, y + 1.2, its.dream, DREAM, "dream")
        if its.events:
            _baseline(axes, y, y + 1.6, its.base_rate, "chance")
        for down, words, colour in ((0.4, word, TEXT), (1.2, f"{its.events} seen", MUTED)):
            axes.text(-0.03, y + down, words, color=colour, fontsize=SMALL, va="center", ha="right")

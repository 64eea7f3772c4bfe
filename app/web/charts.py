"""Small curves as SVG: labels at the lines, the baseline always drawn, in the colours of the two worlds. Our own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 440, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 84, 12, 28
"""Room for the numbers on the left, the labels on the right, the axis below."""
MOST_POINTS = 280
"""A curve of more points is thinned to the means of neighbours; nobody sees more."""


@dataclass(frozen=True)
class Curve:
    """A line with its name."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str = "var(--dream)"
    ink: str = "var(--dream-ink)"
    dashed: bool = False


def chart(title: str, curves: Sequence[Curve], x_label: str, *, baselines: Sequence[tuple[str, float]] = (),
          log: bool = False, empty: str = "no numbers yet") -> str:
    """One plot. Where values are all positive it may be logarithmic."""
    drawn = [(curve, thinned([p for p in curve.points if math.isfinite(p[1])])) for curve in curves]
    drawn = [(curve, points) for curve, points in drawn if points]
    head = f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
    if not drawn:
        return f'{head}<p class="none">{escape(empty)}</p></figure>'
    ys = [y for _, points in drawn for _, y in points] + [y for _, y in baselines]
    log = log and min(ys) > 0
    low, high = (math.log10(min(ys)), math.log10(max(ys))) if log else (min(ys), max(ys))
    levels = sorted({low, high})
    if high - low < 1e-9:
        levels, low, high = [low], low - 0.5, high + 0.5
    first, last = min(p[0][0] for _, p in drawn), max(p[-1][0] for _, p in drawn)

    def x_of(x: float) -> float:
        return LEFT + (x - first) / (last - first or math.inf) * (WIDTH - LEFT - RIGHT)

    def y_of(y: float) -> float:
        y = math.log10(y) if log else y
        return HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">']
    for y in (10**level if log else level for level in levels):
        parts.append(_line(LEFT, y_of(y), WIDTH - RIGHT, y_of(y), "grid"))
        parts.append(_text(LEFT - 8, y_of(y) + 4, number(y), "end"))
    if last > first:
        parts.append(_text(LEFT, HEIGHT - 8, number(first), "start"))
    parts.append(_text(WIDTH - RIGHT, HEIGHT - 8, f"{number(last)} {x_label}", "end"))
    labels = [(y_of(points[-1][1]), curve.label, curve.ink) for curve, points in drawn if last > first]
    for label, y in baselines:
        parts.append(_line(LEFT, y_of(y), WIDTH - RIGHT, y_of(y), "base"))
        labels.append((y_of(y), label, "var(--muted)"))
    for curve, points in drawn:
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in points)
        dash = ' stroke-dasharray="3 4"' if curve.dashed else ""
        if len(points) == 1:
            parts.append(f'<circle cx="{x_of(points[0][0]):.1f}" cy="{y_of(points[0][1]):.1f}" r="3" '
                         f'fill="{curve.colour}"/>')
            if last == first:
                parts.append(_text(x_of(first) + 8, y_of(points[0][1]) + 4, curve.label, "start", curve.ink))
        parts.append(f'<polyline points="{path}" stroke="{curve.colour}"{dash}/>')
    parts += [_text(WIDTH - RIGHT + 8, y + 4, label, "start", ink) for y, label, ink in apart(labels)]
    return f'{head}{"".join(parts)}</svg></figure>'


def apart(labels: Sequence[tuple[float, str, str]], least: float = 16) -> list[tuple[float, str, str]]:
    """Labels moved down, and up again at the end, until none covers another."""
    placed: list[tuple[float, str, str]] = []
    for y, label, ink in sorted(labels):
        placed.append((max(y, placed[-1][0] + least) if placed else y, label, ink))
    over = placed[-1][0] - (HEIGHT - BOTTOM) if placed else 0
    return [(y - max(0.0, over), label, ink) for y, label, ink in placed]


def thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most so many points, each the mean of its neighbourhood."""
    size = -(-len(points) // MOST_POINTS) if points else 1
    groups = [points[i:i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in g) / len(g), sum(y for _, y in g) / len(g)) for g in groups]


def number(x: float) -> str:
    """Short: 0.0123, 12.3, 450, 12k."""
    if abs(x) >= 10_000:
        return f"{x / 1000:.0f}k"
    if x == int(x):
        return str(int(x))
    return f"{x:.3g}"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, words: str, anchor: str, ink: str = "var(--muted)") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{ink}">{escape(words)}</text>'

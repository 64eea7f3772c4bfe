"""The timeline under the picture: rewards as ticks, ends as gaps, divergence as heat; drag it to go back. Our own."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pygame
from pygame import Rect

from app.desktop.pen import Pen
from app.session.look import BACKGROUND, DREAM, LINE, MUTED, PANEL, REALITY, STEPS_A_SECOND, TEXT, heat

SHORTEST = 60 * STEPS_A_SECOND
"""Steps that the strip is wide at first: a minute."""


@dataclass(frozen=True)
class Marks:
    """What a timeline shows, one entry a step, oldest first."""

    rewards: np.ndarray
    """(n,) float."""
    ends: np.ndarray
    """(n,) bool."""
    divergence: np.ndarray
    """(n,) float, 0 to 1; nan where nothing was compared."""
    at: int
    """The step that is shown."""
    lived: np.ndarray | None = None
    """(n,) bool: steps in reality only."""
    fixed: bool = False
    """Whether it is as wide as its n steps and does not grow."""

    def __len__(self) -> int:
        return len(self.rewards)

    def is_lived(self, step: int) -> bool:
        """Whether a step was taken in reality only."""
        return self.lived is not None and 0 <= step < len(self) and bool(self.lived[step])

    @property
    def span(self) -> int:
        """Steps from the left end to the right."""
        return max(len(self), 1) if self.fixed else max(len(self), SHORTEST)


def bar_of(strip: Rect, pen: Pen) -> Rect:
    """The part of the strip that is drawn on and dragged."""
    label = pen.width("00:00", mono=True) + pen.px(12)
    return Rect(strip.left + label, strip.top + pen.px(5), strip.width - 2 * label, pen.px(16))


def step_at(bar: Rect, x: int, marks: Marks) -> int:
    """The step under a mouse position, kept inside."""
    return int(min(max((x - bar.left) * marks.span // max(bar.width, 1), 0), max(len(marks) - 1, 0)))


def x_of(bar: Rect, step: int, marks: Marks) -> int:
    """Where a step lies."""
    return bar.left + step * bar.width // marks.span


def clock(steps: int) -> str:
    """Steps as minutes and seconds of play."""
    seconds = steps // STEPS_A_SECOND
    return f"{seconds // 60:02d}:{seconds % 60:02d}"


def draw(pen: Pen, strip: Rect, marks: Marks, *, hover: int | None = None) -> None:
    """The strip; `hover` is the x of the mouse over it."""
    bar = bar_of(strip, pen)
    middle = bar.centery
    pen.text(clock(marks.at), (strip.left, middle), MUTED, mono=True)
    pen.text(clock(len(marks)), (strip.right, middle), MUTED, anchor="midright", mono=True)
    pygame.draw.rect(pen.surface, PANEL, bar, border_radius=pen.px(3))
    _heat(pen, bar, marks)
    for step in np.flatnonzero(marks.ends):
        x = x_of(bar, int(step) + 1, marks)
        pygame.draw.rect(pen.surface, BACKGROUND, (x - 1, bar.top - 1, max(3, pen.px(3)), bar.height + 2))
    for step in np.flatnonzero(marks.rewards):
        _tick(pen, bar, x_of(bar, int(step), marks), up=marks.rewards[step] > 0)
    if hover is not None and len(marks):
        x = x_of(bar, step_at(bar, hover, marks), marks)
        pygame.draw.line(pen.surface, MUTED, (x, bar.top - pen.px(3)), (x, bar.bottom + pen.px(2)))
    colour = REALITY if marks.is_lived(min(marks.at, len(marks) - 1)) else DREAM
    cursor = Rect(x_of(bar, marks.at, marks) - 1, bar.top - pen.px(4), max(2, pen.px(3)), bar.height + pen.px(8))
    pygame.draw.rect(pen.surface, colour, cursor, border_radius=2)


def _heat(pen: Pen, bar: Rect, marks: Marks) -> None:
    """Played time a little brighter than what is to come, and how far apart the worlds were, in the lower half."""
    played = Rect(bar.left, bar.top, x_of(bar, len(marks), marks) - bar.left, bar.height)
    pygame.draw.rect(pen.surface, LINE, played, border_radius=pen.px(3))
    half = bar.height // 2
    columns = np.arange(played.width) * marks.span // max(bar.width, 1)
    for i, step in enumerate(columns[columns < len(marks)]):
        value = marks.divergence[step]
        if marks.is_lived(step) or not np.isnan(value):
            colour = REALITY if marks.is_lived(step) else heat(float(value))
            pygame.draw.line(pen.surface, colour, (bar.left + i, bar.top + half + 1), (bar.left + i, bar.bottom - 2))


def _tick(pen: Pen, bar: Rect, x: int, *, up: bool) -> None:
    half = bar.height // 2
    pygame.draw.rect(pen.surface, TEXT if up else MUTED, (x, bar.top if up else bar.top + half // 2, max(2, pen.px(2)),
                                                           half if up else half // 2))

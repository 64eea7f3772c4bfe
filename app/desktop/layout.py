"""Where everything stands in the window of play: pure geometry, whole multiples of pixels only. Our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pygame import Rect

from app.desktop.pen import unit

HEAD, FOOT, STRIP, CAPTION, MARGIN, GAP, PANEL_WIDTH = 48, 30, 40, 28, 20, 20, 276
"""At 1280 x 800, in pixels."""


@dataclass(frozen=True)
class Layout:
    """Boxes in window pixels; those of height or width 0 are not shown."""

    head: Rect
    foot: Rect
    strip: Rect
    pictures: tuple[Rect, ...]
    """The worlds, all by the same factor."""
    screen: Rect | None
    """The emulator's full picture, where there is room for it."""
    captions: int
    """Height of the line above each picture."""
    left: Rect | None
    right: Rect | None
    """Panels."""

    def world_at(self, place: tuple[int, int]) -> int | None:
        """Which picture is under the mouse."""
        return next((i for i, box in enumerate(self.pictures) if box.collidepoint(place)), None)


def lay_out(size: tuple[int, int], pictures: Sequence[tuple[int, int]], *, screen: tuple[int, int] | None = None,
            left: bool = False, right: bool = False, bare: bool = False) -> Layout:
    """Places pictures (w, h), and panels at the sides where asked for; `bare`: nothing but pictures."""
    k, (width, height) = unit(size), size
    margin, gap = round(MARGIN * k), round(GAP * k)
    head, foot, strip = (0 if bare else round(x * k) for x in (HEAD, FOOT, STRIP))
    captions = 0 if bare or len(pictures) + (screen is not None) < 2 else round(CAPTION * k)
    edge = max(2, round(2 * k)) if bare else margin
    panel = min(round(PANEL_WIDTH * k), width // 3)
    sides = [panel + margin if wanted else 0 for wanted in (left, right)]
    room = Rect(edge + sides[0], head + captions, width - 2 * edge - sum(sides),
                height - head - foot - strip - captions - (2 * edge if bare else round(10 * k)))
    boxes, full = _pictures(room, Rect(0, 0, width, height), pictures, screen, gap, captions)
    if bare:
        boxes, full = tuple(b.move(0, edge) for b in boxes), full and full.move(0, edge)
    between = height - head - foot - strip - round(10 * k)
    panels = [Rect(x, head, panel, between) for x in (margin, width - margin - panel)]
    return Layout(Rect(margin, 0, width - 2 * margin, head),
                  Rect(margin, height - strip - foot, width - 2 * margin, foot),
                  Rect(margin, height - strip, width - 2 * margin, strip), boxes, full, captions,
                  panels[0] if left else None, panels[1] if right else None)


def _pictures(room: Rect, window: Rect, pictures: Sequence[tuple[int, int]], screen: tuple[int, int] | None, gap: int,
              captions: int) -> tuple[tuple[Rect, ...], Rect | None]:
    """The boxes in a row or, where that lets them be larger, in a column; in the middle of the window if they fit
    there, else in the middle of the room. The room begins below the first caption."""
    widths, heights, more = [w for w, _ in pictures], [h for _, h in pictures], len(pictures) - 1
    row = min((room.width - gap * more) // sum(widths), room.height // max(heights))
    column = min(room.width // max(widths), (room.height - (gap + captions) * more) // sum(heights))
    factor, stacked = max(1, row, column), more > 0 and column > max(row, 0)
    boxes, x, y = [], 0, 0
    for w, h in pictures:
        boxes.append(Rect(x, y, w * factor, h * factor))
        x, y = (x, y + h * factor + gap + captions) if stacked else (x + w * factor + gap, y)
    full = None
    if screen is not None and not stacked:
        beside = min((room.width - x) // screen[0], room.height // screen[1])
        full = Rect(x, 0, screen[0] * beside, screen[1] * beside) if beside > 0 else None
    group = boxes[0].unionall([*boxes[1:], *([full] if full else [])])
    place = group.copy()
    place.center = (window.centerx, room.centery)
    if place.left < room.left or place.right > room.right:
        place.centerx = room.centerx
    return tuple(box.move(place.topleft) for box in boxes), full and full.move(place.topleft)

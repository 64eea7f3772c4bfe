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
    boxes, full = _pictures(room, Rect(0, 0, width, height), pictures, screen, gap)
    if bare:
        boxes, full = tuple(b.move(0, edge) for b in boxes), full and full.move(0, edge)
    between = height - head - foot - strip - round(10 * k)
    panels = [Rect(x, head, panel, between) for x in (margin, width - margin - panel)]
    return Layout(Rect(margin, 0, width - 2 * margin, head),
                  Rect(margin, height - strip - foot, width - 2 * margin, foot),
                  Rect(margin, height - strip, width - 2 * margin, strip), boxes, full, captions,
                  panels[0] if left else None, panels[1] if right else None)


def _pictures(room: Rect, window: Rect, pictures: Sequence[tuple[int, int]], screen: tuple[int, int] | None, gap: int
              ) -> tuple[tuple[Rect, ...], Rect | None]:
    """The boxes side by side, in the middle of the window if they fit there, else in the middle of the room."""
    native, tallest = sum(w for w, _ in pictures), max(h for _, h in pictures)
    between = gap * (len(pictures) - 1)
    factor = max(1, min((room.width - between) // native, room.height // tallest))
    widths = [w * factor for w, _ in pictures]
    beside = 0
    if screen is not None:
        left_over = room.width - sum(widths) - between - gap
        beside = max(0, min(left_over // screen[0], max(tallest * factor, room.height) // screen[1]))
    total = sum(widths) + between + (gap + screen[0] * beside if screen is not None and beside else 0)
    group = Rect(0, 0, total, max(tallest * factor, screen[1] * beside if screen is not None else 0))
    group.center = (window.centerx, room.centery)
    if group.left < room.left or group.right > room.right:
        group.centerx = room.centerx
    boxes, x = [], group.left
    for (_, h), w in zip(pictures, widths, strict=True):
        boxes.append(Rect(x, group.top, w, h * factor))
        x += w + gap
    full = None
    if screen is not None and beside:
        full = Rect(x, group.top, screen[0] * beside, screen[1] * beside)
    return tuple(boxes), full

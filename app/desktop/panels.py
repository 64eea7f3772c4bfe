"""Panels beside the picture: what the agent thinks, how the frame is drawn, the knobs, the paint box. Our own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pygame
from pygame import Rect

from app.desktop.knobs import KNOBS, Settings, words
from app.desktop.pen import Colour, Hot, Pen, multiple
from app.session.look import BACKGROUND, DREAM, LINE, MUTED, TEXT, spoken

BRUSHES = (0, 1, 2, 4)
"""Radii in pixels of the game; 0 is a single one."""
SWATCHES = 12


def frame(pen: Pen, area: Rect, title: str, key: str, close: Hot) -> Rect:
    """An empty panel with its name, and the key that closes it; a click on that means `close`. -> the room inside."""
    pad = pen.px(14)
    pen.box(area)
    cap = pen.key(key, (area.right - pad, area.top + pen.px(22)), anchor="midright")
    pen.hot.append((cap, close))
    pen.text(title, (area.left + pad, area.top + pen.px(22)), room=cap.left - area.left - 2 * pad)
    return Rect(area.left + pad, area.top + pen.px(44), area.width - 2 * pad, area.height - pen.px(44) - pad)


def mind(pen: Pen, room: Rect, names: Sequence[str], probabilities: Sequence[float] | None, chosen: int | None,
         values: Sequence[float]) -> None:
    """Bars of the agent's policy, and the curve of what it expects, oldest value first."""
    if probabilities is None:
        pen.text("thinking…", room.topleft, MUTED, anchor="topleft")
        return
    high, above = pen.px(72), pen.px(44)
    row = min(pen.px(24), (room.height - high - above) // max(len(names), 1))
    curve = Rect(room.left, room.top + row * len(names) + above, room.width, high)
    label = max(pen.width(spoken(name)) for name in names) + pen.px(10)
    number = pen.width("100%", mono=True) + pen.px(6)
    for i, (name, p) in enumerate(zip(names, probabilities, strict=True)):
        y = room.top + i * row + row // 2
        colour = TEXT if i == chosen else MUTED
        pen.text(spoken(name), (room.left, y), colour)
        pen.bar(Rect(room.left + label, y - pen.px(3), room.width - label - number, max(4, pen.px(6))), p, colour)
        pen.text(f"{p:.0%}", (room.right, y), colour, anchor="midright", mono=True)
    _curve(pen, curve, values)


def _curve(pen: Pen, area: Rect, values: Sequence[float]) -> None:
    now = values[-1] if values else 0.0
    y = area.top - pen.px(14)
    pen.text("expects", (area.left, y), MUTED)
    pen.text(f"{now:+.2f}".replace("-", "−"), (area.right, y), TEXT, anchor="midright", mono=True)
    low, high = min([*values, 0.0]), max([*values, 0.0])
    spread = max(high - low, 0.1)
    level = [round(area.bottom - (v - low) / spread * area.height) for v in (0.0, *values)]
    pygame.draw.line(pen.surface, LINE, (area.left, level[0]), (area.right, level[0]))
    if len(values) > 1:
        step = area.width / max(len(values) - 1, 1)
        pygame.draw.lines(pen.surface, TEXT, False, [(area.left + i * step, v) for i, v in enumerate(level[1:])],
                          max(1, pen.px(1.5)))


def denoising(pen: Pen, room: Rect, frames: Sequence[np.ndarray]) -> None:
    """The clean picture that each denoising step guesses, the first one at the top."""
    if not frames:
        pen.lines("Nothing was dreamt yet: take a step.", room.topleft, room.width)
        return
    line, (h, w) = pen.height() + pen.px(4), frames[0].shape[:2]
    columns = 1
    while columns < 4 and -(-len(frames) // columns) * (h + line) > room.height:
        columns += 1
    rows, gap = -(-len(frames) // columns), pen.px(8)
    factor = multiple((w, h), ((room.width - (columns - 1) * gap) // columns, room.height // rows - line))
    left = room.centerx - (columns * (w * factor + gap) - gap) // 2
    for i, image in enumerate(frames[:columns * max(1, room.height // (h * factor + line))]):
        x = left + i % columns * (w * factor + gap)
        y = room.top + i // columns * (h * factor + line)
        pen.text(f"guess {i + 1} of {len(frames)}", (x, y + line // 2 - 1), MUTED, room=w * factor)
        box = Rect(x, y + line, w * factor, h * factor)
        pen.picture(image, box)
        pen.frame(box, DREAM if i == len(frames) - 1 else LINE, 1)


def knobs(pen: Pen, room: Rect, settings: Settings, chosen: str) -> None:
    """All knobs, one of them chosen; what it does stands below."""
    row = min(pen.px(34), (room.height - 5 * pen.height()) // len(KNOBS))
    wide = pen.width("150 steps", mono=True) + pen.px(16)
    side = pen.px(22)
    for i, knob in enumerate(KNOBS):
        line = Rect(room.left, room.top + i * row, room.width, row)
        pen.hot.append((line, ("choose", knob.name)))
        marked = knob.name == chosen
        if marked:
            pen.box(line.inflate(pen.px(12), -2), LINE, None, radius=4)
        pen.text(knob.label, (line.left, line.centery), TEXT if marked else MUTED)
        right = Rect(line.right - side, line.top, side, row)
        left = Rect(right.left - wide - side, line.top, side, row)
        for area, sign, by in ((left, "−", -1), (right, "+", 1)):
            pen.text(sign, area.center, TEXT if marked else MUTED, anchor="center", mono=True)
            pen.hot.append((area, ("turn", knob.name, by)))
        pen.text(words(knob.name, getattr(settings, knob.name)), (left.right + wide // 2, line.centery),
                 anchor="center", mono=True)
    y = room.top + len(KNOBS) * row + pen.px(10)
    y = pen.lines(next(knob.meaning for knob in KNOBS if knob.name == chosen), (room.left, y), room.width)
    if y + 3 * pen.height() < room.bottom:
        pen.lines("Arrows choose and turn; WASD plays on.", (room.left, y + pen.px(8)), room.width)


def palette(frame: np.ndarray) -> list[Colour]:
    """Colours worth painting with: white, black, and those of the frame that are least like one another."""
    pixels = frame.reshape(-1, 3)
    # shades that nobody can tell apart count as one
    own = pixels[np.unique(pixels // 8, axis=0, return_index=True)[1]].astype(np.int32)
    chosen: list[Colour] = [(255, 255, 255), (0, 0, 0)]
    distance = np.full(len(own), np.inf)
    while len(chosen) < SWATCHES:
        distance = np.minimum(distance, np.abs(own - np.array(chosen[-2:])[:, None]).sum(-1).min(0))
        best = int(distance.argmax())
        if distance[best] < 40:
            break
        red, green, blue = own[best]
        chosen.append((int(red), int(green), int(blue)))
    return chosen


def paint(pen: Pen, room: Rect, colours: Sequence[Colour], colour: Colour, brush: int) -> None:
    """Colours, brushes, and how to go on."""
    side, gap = pen.px(34), pen.px(8)
    columns = max(1, (room.width + gap) // (side + gap))
    for i, swatch in enumerate(colours):
        box = Rect(room.left + i % columns * (side + gap), room.top + i // columns * (side + gap), side, side)
        pen.box(box, swatch, TEXT if swatch == colour else LINE, thick=3 if swatch == colour else 1, radius=4)
        pen.hot.append((box, ("colour", swatch)))
    y = room.top + -(-len(colours) // columns) * (side + gap) + gap
    for i, radius in enumerate(BRUSHES):
        box = Rect(room.left + i * (side + gap), y, side, side)
        pen.box(box, BACKGROUND, TEXT if radius == brush else LINE, thick=2 if radius == brush else 1, radius=4)
        dot = (2 * radius + 1) * max(2, pen.px(2.4))
        pygame.draw.rect(pen.surface, colour, Rect(0, 0, dot, dot).move(box.centerx - dot // 2, box.centery - dot // 2))
        pen.hot.append((box, ("brush", radius)))
    y += side + 2 * gap
    for key, what in (("Drag", "paints"), ("Right click", "takes a colour"), ("Z", "undoes"), ("B", "dreams on")):
        cap = pen.key(key, (room.left, y + pen.height() // 2))
        pen.text(what, (cap.right + gap, cap.centery), MUTED)
        y += pen.height() + pen.px(10)

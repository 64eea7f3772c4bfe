"""The first thing one sees: all installed worlds as cards with a moving dream; a click or Enter goes in. Our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import TYPE_CHECKING

import numpy as np
import pygame
from pygame import Rect
from pygame.event import Event

from app.desktop import overlay
from app.desktop.gamepad import Gamepads
from app.desktop.keys import Keyboard, name_of
from app.desktop.pen import Pen
from app.desktop.player import Scene, leave
from app.desktop.worker import Worker
from app.session.look import DREAM, LINE, MUTED, STEPS_A_SECOND, TEXT, heat

if TYPE_CHECKING:
    from app.session.library import Entry

DOUBT = {"good": 0.0, "fair": 0.5, "poor": 1.0}
MOST = 5
"""Times that a thumbnail is enlarged at most."""
HINTS = (("Arrows", "choose", None), ("Enter", "play", None), ("Esc", "leave", None))
MOVES = {"left": (-1, 0), "a": (-1, 0), "right": (1, 0), "d": (1, 0), "up": (0, -1), "w": (0, -1), "down": (0, 1),
         "s": (0, 1)}


class Picker:
    """Cards in a grid; arrows or the mouse choose, all of them move."""

    def __init__(self, worker: Worker, look: Callable[[], Sequence[Entry]], enter: Callable[[str], Scene],
                 keyboard: Keyboard, pads: Gamepads, fill_screen: Callable[[], None]) -> None:
        """`look` finds the worlds, on the worker; `enter` makes the scene in which one is played."""
        self._worker, self._enter, self._fill_screen = worker, enter, fill_screen
        self._keyboard, self._pads = keyboard, pads
        self.entries: Sequence[Entry] | None = None
        self.chosen = 0
        self.trouble = ""
        self._columns, self._top, self._kept = 1, 0, 0
        """Cards in a row, the uppermost row in view, and the card that stays in view: chosen by key or wheel."""
        self._next: Scene | None = None
        self._began = monotonic()
        worker.ask("Looking for dreams", lambda: self._found(look()))

    def _found(self, entries: Sequence[Entry]) -> None:
        self.entries = entries

    @property
    def moving(self) -> bool:
        """Cards move."""
        return True

    def shown(self) -> None:
        """Nothing is measured."""

    def close(self) -> None:
        """Nothing is held."""

    def update(self) -> Scene | None:
        """The game, once one is chosen."""
        if self._worker.trouble:
            self.trouble, self._worker.trouble = self._worker.trouble, ""
            self.entries = self.entries or ()
        return self._next

    def handle(self, event: Event) -> None:
        """Keys, wheel and mouse."""
        if event.type in (pygame.KEYDOWN, pygame.MOUSEBUTTONDOWN):
            self.trouble = ""  # it was read
        if event.type == pygame.KEYDOWN and self._keyboard.command_of(event) == "fullscreen":
            self._fill_screen()
        elif event.type == pygame.KEYDOWN:
            self._key(name_of(event))
        elif event.type == pygame.MOUSEWHEEL and self.entries:
            self._choose(min(max(self.chosen - event.y * self._columns, 0), len(self.entries) - 1))
        elif event.type in (pygame.MOUSEMOTION, pygame.MOUSEBUTTONDOWN):
            under = next((i for i, box in self._boxes if box.collidepoint(event.pos)), None)
            self.chosen = self.chosen if under is None else under
            if under is not None and event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
                self._go_in()
        for heard in self._pads.hear(event):
            if heard == ("press", "FIRE"):
                self._go_in()
            elif heard.kind == "press":
                self._key(heard.word.lower())

    _boxes: Sequence[tuple[int, Rect]] = ()
    """Where the cards were drawn last."""

    def _key(self, key: str) -> None:
        if key == "escape":
            leave()
        elif key in ("return", "enter", "space", "keypad enter"):
            self._go_in()
        elif key in MOVES and self.entries:
            across, down = MOVES[key]
            self._choose(self.chosen + across + down * self._columns)

    def _choose(self, wanted: int) -> None:
        if self.entries and 0 <= wanted < len(self.entries):
            self.chosen = self._kept = wanted

    def _go_in(self) -> None:
        if self.entries:
            self._next = self._enter(str(self.entries[self.chosen].path))

    def draw(self, pen: Pen) -> None:
        """Title, hints, cards."""
        margin = pen.px(20)
        window = Rect((0, 0), pen.size)
        y = pen.px(24)
        x = pen.text("Choose a dream", (margin, y), large=True).right
        pen.hints(HINTS, (window.right - margin, y),
                  window.right - margin - x)
        room = Rect(margin, pen.px(56), window.width - 2 * margin, window.height - pen.px(56) - margin)
        if self.entries is None:
            doing = self._worker.doing
            if doing is not None:
                overlay.waiting(pen, room, doing)
        elif not self.entries:
            pen.text(self.trouble or "No dream is installed: train one with diamond train --game Pong --run runs/Pong",
                     room.center, MUTED, anchor="center", room=room.width)
        else:
            self._cards(pen, room, self.entries)
            if self.trouble:
                overlay.news(pen, room, self.trouble, wrong=True)

    def _cards(self, pen: Pen, room: Rect, entries: Sequence[Entry]) -> None:
        h, w = entries[0].poster.shape[:2]
        pad, below, gap = pen.px(12), 2 * pen.height() + pen.px(24), pen.px(20)
        factor, columns = fit(len(entries), (w, h), room.size, (2 * pad + gap, pad + below + gap))
        self._columns = columns
        wide, high = w * factor + 2 * pad, h * factor + pad + below
        rows = -(-len(entries) // columns)
        group = Rect(0, 0, columns * (wide + gap) - gap, rows * (high + gap) - gap)
        group.center = room.center
        group.top = max(group.top, room.top)
        # only keys and the wheel move the cards: under a hovering mouse each stays where it is
        row, whole = self._kept // columns, max(1, (room.height + gap) // (high + gap))
        self._top = max(0, min(max(self._top, row - whole + 1), row, rows - whole))
        boxes = []
        for i, entry in enumerate(entries[self._top * columns:], self._top * columns):
            box = Rect(group.left + i % columns * (wide + gap), group.top + (i // columns - self._top) * (high + gap),
                       wide, high)
            if box.top < room.bottom:
                boxes.append((i, box))
                self._card(pen, box, entry, pad, below, i == self.chosen)
        self._boxes = boxes

    def _card(self, pen: Pen, box: Rect, entry: Entry, pad: int, below: int, chosen: bool) -> None:
        pen.box(box, border=DREAM if chosen else LINE, thick=2 if chosen else 1, radius=8)
        area = Rect(box.left + pad, box.top + pad, box.width - 2 * pad, box.height - pad - below)
        at = int((monotonic() - self._began) * STEPS_A_SECOND)
        _picture(pen, area, entry.frames[at % len(entry.frames)] if entry.frames else entry.poster)
        y = area.bottom + pen.px(12) + pen.height() // 2
        line, level = entry.standing
        if level is not None:
            radius = pen.px(4)
            # smooth where this pygame can
            circle = getattr(pygame.draw, "aacircle", pygame.draw.circle)
            circle(pen.surface, heat(DOUBT[level]), (area.right - radius, y), radius)
        pen.text(entry.name, (area.left, y), TEXT, room=area.width - pen.px(16))
        pen.text(line, (area.left, y + pen.height()), MUTED, room=area.width)


def _picture(pen: Pen, area: Rect, image: np.ndarray) -> None:
    """In the middle of an area, by a whole factor; of one that is larger, every second or third pixel and so on."""
    h, w = image.shape[:2]
    apart = max(1, -(-w // area.width), -(-h // area.height))
    image = image[::apart, ::apart]
    h, w = image.shape[:2]
    factor = min(area.width // w, area.height // h)
    box = Rect(0, 0, w * factor, h * factor)
    box.center = area.center
    pen.picture(image, box)


def fit(count: int, image: tuple[int, int], room: tuple[int, int], around: tuple[int, int]) -> tuple[int, int]:
    """The largest factor at which all cards are in view, else 2 with as many columns as fit. -> factor, columns."""
    for factor in range(MOST, 2, -1):
        wide, high = image[0] * factor + around[0], image[1] * factor + around[1]
        columns, rows = room[0] // wide, room[1] // high
        if columns and columns * rows >= count:
            return factor, min(columns, count)
    factor = max(1, min(2, (room[0] - around[0]) // image[0]))
    return factor, max(1, min(count, room[0] // (image[0] * factor + around[0])))

"""Looking at recorded play: a list at the left, the picture, and a timeline to scrub. Our own."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import numpy as np
import pygame
from pygame import Rect
from pygame.event import Event

from app.desktop import overlay, strip
from app.desktop.keys import Keyboard, name_of
from app.desktop.layout import Layout, lay_out
from app.desktop.pen import Pen
from app.desktop.player import Scene, leave
from app.desktop.reels import Reel, Shelf
from app.desktop.screen import Field, numbers, signed
from app.desktop.strip import Marks
from app.desktop.worker import Worker
from app.session.look import DREAM, LINE, MUTED, REALITY, RED, STEPS_A_SECOND, TEXT, spoken

HINTS = (("Space", "play", None), ("← →", "step", None), ("↑ ↓", "episode", None), ("Esc", "leave", None))
REPEAT_AFTER, REPEAT = 0.3, 1 / 30
"""Seconds until a held arrow goes on, and between its steps."""


class Browse:
    """One shelf of reels. Each is read when it is chosen."""

    def __init__(self, worker: Worker, open_shelf: Callable[[], Shelf], keyboard: Keyboard,
                 fill_screen: Callable[[], None]) -> None:
        """`open_shelf` runs on the worker."""
        self._worker, self._keyboard, self._fill_screen = worker, keyboard, fill_screen
        self.shelf: Shelf | None = None
        self.reel: Reel | None = None
        self.chosen = self.at = 0
        self.playing = False
        self._due = 0.0
        self._held: tuple[int, float] | None = None
        self._dragging = False
        self._trouble = ""
        self._pen: Pen | None = None
        self._layout: Layout | None = None
        self._arrived: tuple[int, Reel] | None = None
        self._found: Shelf | None = None
        self.briefs: dict[int, tuple[int, float] | None] = {}
        """Reel -> steps and return, as far as they are known; None where it cannot be read."""
        worker.ask("Looking at what is there", lambda: self._look(open_shelf))

    def _look(self, open_shelf: Callable[[], Shelf]) -> None:
        self._found = shelf = open_shelf()
        if shelf.quick:
            self._worker.beat_with(lambda: self._brief(shelf))

    def _brief(self, shelf: Shelf) -> float | None:
        """Reads the next reel for its length and return, while nothing else is asked for."""
        number = len(self.briefs)
        if number == len(shelf.read):
            return None
        try:
            reel = shelf.read[number]()
            self.briefs[number] = len(reel), float(reel.rewards.sum())
        except (OSError, ValueError):  # said when it is chosen
            self.briefs[number] = None
        self._worker.wake()
        return 0.0

    def choose(self, number: int) -> None:
        """Another reel; it is read beside."""
        if self.shelf is None or not 0 <= number < len(self.shelf.names):
            return
        self.chosen, self.reel, self._trouble = number, None, ""
        read = self.shelf.read[number]
        self._worker.ask(f"Reading {self.shelf.names[number]}", lambda: self._read(number, read), key="read")

    def _read(self, number: int, read: Callable[[], Reel]) -> None:
        self._arrived = number, read()

    def _take_in(self) -> None:
        """What the worker brought; only here, so that a picture is drawn of one reel."""
        if self.shelf is None and self._found is not None:
            self.shelf = self._found
            self.choose(0)
        arrived, self._arrived = self._arrived, None
        # somebody may have gone on to another one meanwhile
        if arrived is not None and arrived[0] == self.chosen:
            self.reel, self.at, self.playing = arrived[1], 0, True

    @property
    def moving(self) -> bool:
        """While it plays, reads or steps."""
        return self.playing or self._held is not None or self._worker.doing is not None

    def shown(self) -> None:
        """Nothing is measured."""

    def close(self) -> None:
        """Reads no more."""
        self._worker.beat_with(None)

    def update(self) -> Scene | None:
        """The next frame, when it is due. Raises ValueError where there is nothing to look at."""
        now = monotonic()
        self._take_in()
        if self._worker.trouble:
            self._trouble, self._worker.trouble = self._worker.trouble, ""
            if self._found is None:
                raise ValueError(self._trouble)
        if self.playing and now >= self._due:
            self._due = now + 1 / STEPS_A_SECOND
            self.playing = self.go(self.at + 1)
        if self._held is not None and now >= self._held[1]:
            self._held = self._held[0], now + REPEAT
            self.go(self.at + self._held[0])
        return None

    def go(self, at: int) -> bool:
        """To a frame; False at the ends."""
        last = len(self.reel) if self.reel is not None else 0
        self.at = min(max(at, 0), last)
        return 0 <= at <= last and self.reel is not None

    def handle(self, event: Event) -> None:
        """Keys, wheel and mouse."""
        if event.type == pygame.KEYDOWN and self._keyboard.command_of(event) == "fullscreen":
            self._fill_screen()
        elif event.type == pygame.KEYDOWN:
            self._key(name_of(event))
        elif event.type == pygame.KEYUP:
            self._held = None
        elif event.type == pygame.MOUSEBUTTONDOWN and event.button == 1:
            self._click(event.pos)
        elif event.type == pygame.MOUSEMOTION and self._dragging:
            self._scrub(event.pos)
        elif event.type == pygame.MOUSEBUTTONUP:
            self._dragging = False
        elif event.type == pygame.MOUSEWHEEL:
            self.choose(self.chosen - event.y)

    def _key(self, key: str) -> None:
        steps = {"left": -1, ",": -1, "right": 1, ".": 1}
        if key == "escape":
            leave()
        elif key in ("space", "p"):
            self.playing = not self.playing
            if self.playing and self.reel is not None and self.at == len(self.reel):
                self.at = 0
        elif key in steps:
            self.playing = False
            self._held = steps[key], monotonic() + REPEAT_AFTER
            self.go(self.at + steps[key])
        elif key in ("up", "down"):
            self.choose(self.chosen + (1 if key == "down" else -1))
        elif key in ("home", "end"):
            self.go(0 if key == "home" else 1 << 30)

    def _click(self, place: tuple[int, int]) -> None:
        if self._pen is None or self._layout is None:
            return
        hot = self._pen.under(place)
        if hot is not None:
            self.choose(hot[1])
        elif strip.bar_of(self._layout.strip, self._pen).inflate(0, 30).collidepoint(place):
            self._dragging = True
            self._scrub(place)

    def _scrub(self, place: tuple[int, int]) -> None:
        if self._pen is not None and self._layout is not None and self.reel is not None:
            self.playing = False
            self.go(strip.step_at(strip.bar_of(self._layout.strip, self._pen), place[0], marks_of(self.reel, self.at)))

    def draw(self, pen: Pen) -> None:
        """List, picture, numbers, timeline."""
        shape = (64, 64) if self.reel is None else self.reel.frames.shape[2:0:-1]
        self._pen, self._layout = pen, lay_out(pen.size, [(shape[0], shape[1])], left=True)
        layout = self._layout
        title = self.shelf.title if self.shelf else "Diamond"
        x = pen.text(title, layout.head.midleft, large=True, room=layout.head.width // 2).right
        pen.hints(HINTS, layout.head.midright, layout.head.right - x)
        if self.shelf is not None and layout.left is not None:
            self._list(pen, layout.left, self.shelf)
        picture = layout.pictures[0]
        if self.reel is None:
            self._waiting(pen, picture)
            return
        pen.picture(self.reel.frames[self.at], picture)
        pen.frame(picture, REALITY if is_real(self.reel, self.at) else DREAM)
        self._foot(pen, layout.foot, self.reel)
        strip.draw(pen, layout.strip, marks_of(self.reel, self.at))

    def _waiting(self, pen: Pen, room: Rect) -> None:
        doing = self._worker.doing
        if self._trouble:
            pen.lines(self._trouble, (room.left, room.centery), room.width, RED)
        elif doing is not None:
            overlay.waiting(pen, room, doing)

    def _list(self, pen: Pen, area: Rect, shelf: Shelf) -> None:
        pen.box(area)
        row, pad = pen.height() + pen.px(8), pen.px(10)
        visible = max(1, (area.height - 2 * pad) // row)
        first = min(max(self.chosen - visible // 2, 0), max(len(shelf.names) - visible, 0))
        for i, name in enumerate(shelf.names[first:first + visible], first):
            line = Rect(area.left + pad, area.top + pad + (i - first) * row, area.width - 2 * pad, row)
            if i == self.chosen:
                pen.box(line, LINE, None, radius=4)
            colour = TEXT if i == self.chosen else MUTED
            right = line.right - pad
            if brief := self.briefs.get(i):
                steps, total = brief
                column = pen.width("−000", mono=True)
                pen.text(signed(total), (right, line.centery), TEXT if total else MUTED, anchor="midright", mono=True)
                right = pen.text(str(steps), (right - column, line.centery), MUTED, anchor="midright", mono=True).left
            pen.text(name, (line.left + pad, line.centery), colour, room=right - line.left - 2 * pad)
            pen.hot.append((line, ("reel", i)))

    def _foot(self, pen: Pen, foot: Rect, reel: Reel) -> None:
        step = min(self.at, len(reel) - 1)
        action = int(reel.actions[step]) if len(reel) else 0
        name = spoken(reel.names[action]) if action < len(reel.names) else str(action)
        longest = max((len(name) for name in reel.names), default=2)
        found = [Field("step", f"{self.at} of {len(reel)}", 2 * len(str(len(reel))) + 4),
                 Field("action", name, longest),
                 Field("reward", signed(float(reel.rewards[:self.at][-1:].sum())), 3),
                 Field("return", signed(float(reel.rewards[:self.at].sum())), 5),
                 Field("in all", signed(float(reel.rewards.sum())), 5),
                 *(Field(name, value, len(value)) for name, value in reel.facts)]
        numbers(pen, foot, found)


def is_real(reel: Reel, at: int) -> bool:
    """Whether a frame is the emulator's and not a dream's."""
    return reel.lived is None or (at > 0 and bool(reel.lived[at - 1]))


def marks_of(reel: Reel, at: int) -> Marks:
    """Its timeline."""
    lived = np.ones(len(reel), bool) if reel.lived is None else reel.lived
    return Marks(reel.rewards, reel.ends, np.full(len(reel), np.nan, np.float32), at, lived, fixed=True)

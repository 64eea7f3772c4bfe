"""The scene of play: shows the newest snapshot of a game and hands every event on. Our own."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic, perf_counter

import pygame
from pygame import Rect
from pygame.event import Event

from app.desktop import overlay, panels, screen, strip
from app.desktop.game import Game, Snapshot
from app.desktop.gamepad import Gamepads
from app.desktop.hands import AWAKE, SIDE, Hands
from app.desktop.keys import Keyboard
from app.desktop.layout import Layout
from app.desktop.pen import Hint, Pen
from app.desktop.player import Scene
from app.session.controls import directions, legend
from app.session.look import RED

NEWCOMER = (("view", "view"), ("back", "games"), ("help", "help"))
"""Commands whose keys are in sight, with a word each; the last one always."""
SPOKEN = 5.0
"""Seconds for which the window's own news stay."""
SLOW = 0.4
"""Seconds after which something under way is named."""


class Play:
    """One game. `go_back` makes the scene that Esc leads to."""

    def __init__(self, game: Game, keyboard: Keyboard, pads: Gamepads, go_back: Callable[[], Scene],
                 fill_screen: Callable[[], None], *, must_begin: bool = False) -> None:
        """With `must_begin`, a game that cannot be loaded raises ValueError instead of being shown as a line."""
        self._must_begin = must_begin
        self.game, self._go_back = game, go_back
        self.hands = Hands(game, keyboard, pads, leave=self._leave, fill_screen=fill_screen, tell=self.tell)
        self._news, self._wrong, self._until = "", False, 0.0
        self._next: Scene | None = None
        self._drawing = self._seen = 0.0
        self._opened: float | None = None

    def _leave(self) -> None:
        self._next = self._go_back()

    def handle(self, event: Event) -> None:
        """Whatever happened, as soon as it did."""
        self.hands.handle(event)

    # the loop

    @property
    def moving(self) -> bool:
        """While something loads, plays in a grid, or is held."""
        now = self.game.newest
        return (now is None or now.futures is not None or self.hands.busy or bool(self._news)
                or self.game.worker.doing is not None)

    def update(self) -> Scene | None:
        """News, held keys, and where to go on."""
        worker = self.game.worker
        if worker.trouble:
            trouble, worker.trouble = worker.trouble, ""
            if self._must_begin and self.game.newest is None:
                raise ValueError(trouble)
            self.tell(trouble, True)
        if monotonic() > self._until and self.game.newest is not None:
            self._news = ""
        self.hands.update()
        now = self.game.newest
        if now is not None and (now.futures is None) != (self._opened is None):
            self._opened = None if now.futures is None else monotonic()
        return self._next

    def close(self) -> None:
        """The session is let go."""
        self.game.close()

    def shown(self) -> None:
        """How long a new frame took from its arrival to the screen."""
        now = self.game.newest
        if now is not None and now.arrived != self._seen:
            self._seen = now.arrived
            self._drawing = 0.8 * self._drawing + 0.2 * (perf_counter() - now.arrived)

    def tell(self, words: str, wrong: bool) -> None:
        """A line of news."""
        self._news, self._wrong, self._until = words, wrong, monotonic() + SPOKEN

    # drawing

    def draw(self, pen: Pen) -> None:
        """Everything, from the newest snapshot."""
        hands, now = self.hands, self.game.newest
        if now is None:
            self._draw_waiting(pen, Rect((0, 0), pen.size))
            return
        said = "" if hands.played else self._legend()
        around = screen.Around(self.game.title, now.settings.speed, now.settings.resync_every, hands.difference,
                               hands.bare, hands.mind, bool(hands.side), self._hints(), said, self._drawing)
        layout = screen.layout_of(pen.size, now.view, around)
        hands.seen = pen, layout
        room = Rect(layout.head.left, layout.head.bottom, layout.head.width, layout.foot.top - layout.head.bottom)
        if now.futures is not None and self._opened is not None:
            whole = layout.head.union(layout.strip)
            self._draw_futures(pen, Rect(whole.left, 0, whole.width, whole.height - pen.px(16)), now)
        else:
            screen.draw(pen, layout, now.view, around)
            if not hands.bare:
                self._draw_strip(pen, layout, now)
            self._draw_panels(pen, layout, now)
        if hands.help:
            overlay.help_page(pen, room, hands.keyboard, hands.rebinding)
        foot = Rect(layout.foot)
        foot.width -= pen.width(said) + pen.px(24) if said else 0
        self._draw_news(pen, room if hands.bare else foot, now)

    def _hints(self) -> list[Hint]:
        return [(self.hands.keyboard.cap(command), word, ("do", command)) for command, word in NEWCOMER]

    def _legend(self) -> str:
        return "  ·  ".join(f"{keys} {what}" for keys, what in legend(directions(list(self.game.names))))

    def _draw_waiting(self, pen: Pen, window: Rect) -> None:
        y = pen.px(24)
        pen.text(self.game.title, (pen.px(20), y), large=True)
        pen.hints((("Esc", "games", None),), (window.right - pen.px(20), y), window.width // 2)
        doing = self.game.worker.doing
        if self._wrong:
            pen.text(self._news, window.center, RED, anchor="center", room=window.width - pen.px(80))
        elif doing is not None:
            overlay.waiting(pen, window, doing)

    def _draw_strip(self, pen: Pen, layout: Layout, now: Snapshot) -> None:
        bar = strip.bar_of(layout.strip, pen)
        mouse = pygame.mouse.get_pos()
        over = bar.inflate(0, bar.height).collidepoint(mouse) or self.hands.scrubber.held
        strip.draw(pen, layout.strip, now.marks, hover=mouse[0] if over else None)

    def _draw_panels(self, pen: Pen, layout: Layout, now: Snapshot) -> None:
        hands = self.hands
        if layout.left is not None:
            cap = hands.keyboard.cap("mind")
            room = panels.frame(pen, layout.left, "what the agent thinks", cap, ("do", "mind"))
            panels.mind(pen, room, self.game.names, now.view.probabilities, now.view.action, now.values)
        if layout.right is None:
            return
        room = panels.frame(pen, layout.right, SIDE[hands.side], hands.keyboard.cap(hands.side), ("do", hands.side))
        if now.view.awake and hands.side in AWAKE:
            pen.lines(f"{AWAKE[hands.side].capitalize()}.", room.topleft, room.width)
        elif hands.side == "knobs":
            panels.knobs(pen, room, now.settings, hands.knob)
        elif hands.side == "denoising":
            panels.denoising(pen, room, now.denoising)
        else:
            panels.paint(pen, room, panels.palette(now.view.frame), hands.brush.colour, hands.brush.radius)

    def _draw_futures(self, pen: Pen, room: Rect, now: Snapshot) -> None:
        assert now.futures is not None and self._opened is not None
        f = now.futures
        if not f.frames.shape[1]:
            overlay.waiting(pen, room, overlay.about("Dreaming all futures", self._opened))
            return
        notes = [screen.signed(float(x)) if x else "" for x in f.rewards.sum(1)]
        overlay.futures(pen, room, f.frames, self.game.names, notes, monotonic() - self._opened, f.length)

    def _draw_news(self, pen: Pen, room: Rect, now: Snapshot) -> None:
        doing = self.game.worker.doing
        if self._news:
            overlay.news(pen, room, self._news, wrong=self._wrong)
        elif doing is not None and monotonic() - doing.since > SLOW:
            overlay.news(pen, room, f"{doing.words} · {monotonic() - doing.since:.1f} s", wrong=False)
        elif now.view.message:
            overlay.news(pen, room, now.view.message, wrong=False)

"""The loop: events go to the scene at once, and what it shows is drawn whenever it changed. Our own."""

from __future__ import annotations

import contextlib
import sys
from time import perf_counter
from typing import Protocol

import pygame
from pygame.event import Event

from app.desktop.keys import IGNORED
from app.desktop.pen import Pen
from app.desktop.window import Window
from app.desktop.worker import Worker
from app.session.look import BACKGROUND

WAKE = pygame.event.custom_type()
"""Posted by the worker: there is something new to see."""
TURN = 1 / 60
"""Seconds between two looks at what moves by itself."""
REST = 0.25
"""Seconds between two looks at a window in which nothing moves."""


class Scene(Protocol):
    """What fills the window: the games to choose from, play, data."""

    def handle(self, event: Event) -> None:
        """An event, as soon as it comes."""

    def update(self) -> Scene | None:
        """Once a turn; another scene, to go on there."""

    def draw(self, pen: Pen) -> None:
        """On an empty surface."""

    @property
    def moving(self) -> bool:
        """Whether it changes by itself and must be drawn at each turn."""

    def shown(self) -> None:
        """What was drawn last is on the screen now."""

    def close(self) -> None:
        """It will not be seen again."""


class Player:
    """One window, one worker, one scene at a time."""

    def __init__(self, window: Window, worker: Worker, scene: Scene) -> None:
        self.window, self.worker, self.scene = window, worker, scene
        self.running = True
        worker.wake = wake
        self._pen: Pen | None = None
        self._drawn = 0.0

    def run(self) -> None:
        """Until the person leaves; the worker is joined whatever happens."""
        try:
            while self.running:
                self.turn()
        finally:
            self.close()

    def close(self) -> None:
        """Takes the window away first, then waits for the step under way."""
        self.worker.wake = lambda: None
        self.window.close()
        self.scene.close()
        self.worker.close()
        if self.worker.trouble:
            print(f"diamond: {self.worker.trouble}", file=sys.stderr)

    def turn(self) -> None:
        """Waits for something to happen, hears all of it, draws."""
        rest = max(TURN - (perf_counter() - self._drawn), 0.001) if self.scene.moving else REST
        first = pygame.event.wait(max(1, round(rest * 1000)))
        events = [event for event in (first, *pygame.event.get()) if event.type != pygame.NOEVENT]
        for event in events:
            self.hear(event)
        if not self.running:
            return
        following = self.scene.update()
        if following is not None:
            self.scene.close()
            self.scene = following
        if events or following is not None or self.scene.moving:
            self.draw()

    def hear(self, event: Event) -> None:
        """The window's own keys; everything else is the scene's."""
        if event.type in (pygame.KEYDOWN, pygame.MOUSEMOTION):
            # the pointer is in the way of whoever plays with keys
            pygame.mouse.set_visible(event.type == pygame.MOUSEMOTION)
        if event.type == pygame.QUIT:
            self.running = False
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_RETURN and event.mod & pygame.KMOD_ALT:
            self.window.toggle_full_screen()
        elif event.type == pygame.KEYDOWN and event.key == pygame.K_q and event.mod & IGNORED & ~pygame.KMOD_ALT:
            self.running = False
        else:
            self.scene.handle(event)

    def draw(self) -> None:
        """The scene, on the screen."""
        surface = self.window.surface
        if self._pen is None or self._pen.surface is not surface or self._pen.size != surface.get_size():
            self._pen = Pen(surface)
        self._pen.hot.clear()
        surface.fill(BACKGROUND)
        self.scene.draw(self._pen)
        pygame.display.flip()
        self.scene.shown()
        self._drawn = perf_counter()


def wake() -> None:
    """Ends the window's waiting; called from any thread."""
    # the window may be closing, or the queue full of other reasons to look
    with contextlib.suppress(pygame.error):
        pygame.event.post(Event(WAKE))


def leave() -> None:
    """Closes the window at the next turn."""
    pygame.event.post(Event(pygame.QUIT))

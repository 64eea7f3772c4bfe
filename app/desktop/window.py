"""The window itself: whether there can be one, its size, full screen, icon. Our own."""

from __future__ import annotations

import os
import sys

import pygame
from pygame import Surface

from app.session.look import BACKGROUND, DREAM, REALITY

SIZE = (1280, 800)
NO_SCREEN = ("dummy", "offscreen")
"""SDL drivers that show nothing."""


def display_missing() -> str | None:
    """Why no window can be opened here, in a few words; None where one can."""
    driver = os.environ.get("SDL_VIDEODRIVER", "")
    if driver in NO_SCREEN:
        return f"SDL_VIDEODRIVER is {driver}"
    desktop = sys.platform in ("win32", "cygwin", "darwin")
    if not desktop and not driver and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "neither DISPLAY nor WAYLAND_DISPLAY is set"
    try:
        pygame.display.init()
    except pygame.error as error:
        return str(error)
    if pygame.display.get_driver() in NO_SCREEN:
        # SDL falls back to one of these without a word
        pygame.display.quit()
        which = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY") or "of this machine"
        return f"the display {which} cannot be reached"
    return None


class Window:
    """One resizable window, which can fill the screen."""

    def __init__(self, title: str = "Diamond", size: tuple[int, int] = SIZE) -> None:
        pygame.display.init()
        pygame.font.init()
        screens = pygame.display.get_desktop_sizes() or [size]
        # a screen's bars and the title take some of it
        self._size = min(size[0], screens[0][0] * 19 // 20), min(size[1], screens[0][1] * 9 // 10)
        self.full = False
        pygame.display.set_icon(icon())
        pygame.display.set_caption(title)
        self._open()

    def _open(self) -> None:
        if self.full:
            pygame.display.set_mode((0, 0), pygame.FULLSCREEN)
        else:
            pygame.display.set_mode(self._size, pygame.RESIZABLE)

    @property
    def surface(self) -> Surface:
        """What is drawn on; a new one after each change of size."""
        surface = pygame.display.get_surface()
        assert surface is not None, "the window is closed"
        return surface

    def toggle_full_screen(self) -> None:
        """Fills the screen, or goes back to the size before."""
        if not self.full:
            self._size = self.surface.get_size()
        self.full = not self.full
        self._open()

    def close(self) -> None:
        """Takes the window from the screen."""
        pygame.display.quit()
        pygame.font.quit()


def icon() -> Surface:
    """Two worlds that overlap."""
    image = Surface((64, 64))
    image.fill(BACKGROUND)
    for colour, shift in ((REALITY, 7), (DREAM, -7)):
        x, y = 32 + shift, 32
        pygame.draw.polygon(image, colour, [(x, y - 22), (x + 22, y), (x, y + 22), (x - 22, y)], 5)
    return image

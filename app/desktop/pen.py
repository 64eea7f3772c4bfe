"""Drawing in the one look: words in two sizes, panels, key caps, and pictures as squares. Our own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pygame
from pygame import Rect, Surface

from app.session.look import BACKGROUND, LINE, MUTED, PANEL, TEXT

SANS = ("SFNS.ttf", "segoeui.ttf", "Inter-Regular.ttf", "Inter.ttc", "HelveticaNeue.ttc", "NotoSans-Regular.ttf",
        "Ubuntu-R.ttf", "Cantarell-VF.otf", "Roboto-Regular.ttf", "OpenSans-Regular.ttf", "LiberationSans-Regular.ttf",
        "arial.ttf")
MONO = ("SFNSMono.ttf", "CascadiaMono.ttf", "consola.ttf", "Menlo.ttc", "JetBrainsMono-Regular.ttf",
        "NotoSansMono-Regular.ttf", "UbuntuMono-R.ttf", "LiberationMono-Regular.ttf", "cour.ttf")
"""Files of the fonts that systems set their own words in, the nicest first."""
FONTS = ("/System/Library/Fonts", "/Library/Fonts", "C:/Windows/Fonts", "~/.local/share/fonts", "~/.fonts",
         "/usr/local/share/fonts", "/usr/share/fonts")
SMALL, LARGE = 15, 24
"""Heights of the two sizes of words at 1280 x 800, in pixels."""
Colour = tuple[int, int, int]
Hot = tuple[Any, ...]
"""What a click means: a word, and what goes with it."""
Hint = tuple[str, str, Hot | None]
"""A key, what it does in a word, and what a click on it means."""


def unit(size: tuple[int, int]) -> float:
    """How much larger than at 1280 x 800 words and gaps are in a window of this size."""
    return min(max(min(size[0] / 1280, size[1] / 800), 0.8), 3.0)


@lru_cache(maxsize=1)
def font_files() -> dict[str, str]:
    """All fonts of this system, by the names of their files. Asking its own tools takes seconds on a busy machine."""
    return {file: os.path.join(place, file) for folder in FONTS
            for place, _, files in os.walk(os.path.expanduser(folder)) for file in files}


def font_file(*, mono: bool) -> str | None:
    """The system's font for words, or for numbers, whose digits are equally wide; None is pygame's own."""
    there = font_files()
    for name in MONO if mono else SANS:
        if name in there:
            return there[name]
    # a font that is always there: plotting brings it along
    spec = find_spec("matplotlib")
    for folder in (spec.submodule_search_locations or []) if spec else []:
        path = f"{folder}/mpl-data/fonts/ttf/DejaVuSans{'Mono' if mono else ''}.ttf"
        if Path(path).is_file():
            return path
    return None


class Pen:
    """Draws on a surface. Sizes follow the surface's; rendered words are kept."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self.size = surface.get_size()
        self.k = unit(self.size)
        sizes = (max(12, round(SMALL * self.k)), round(LARGE * self.k))
        self._fonts = {(mono, large): pygame.font.Font(font_file(mono=mono), size * 9 // 10 if mono else size)
                       for mono in (False, True) for large, size in enumerate(sizes)}
        self._render = lru_cache(maxsize=1024)(self._rendered)
        self.hot: list[tuple[Rect, Hot]] = []
        """What was drawn to be clicked, and what a click on it means; later ones lie on top."""

    def px(self, length: float) -> int:
        """A length given for 1280 x 800, at this window's size, in pixels."""
        return round(length * self.k)

    def _rendered(self, words: str, colour: Colour, mono: bool, large: bool) -> Surface:
        return self._fonts[mono, large].render(words, True, colour)

    def width(self, words: str, *, mono: bool = False, large: bool = False) -> int:
        """Of a line of words, in pixels."""
        return self._fonts[mono, large].size(words)[0]

    def height(self, *, large: bool = False) -> int:
        """Of a line of words, in pixels."""
        return self._fonts[False, large].get_linesize()

    def fitted(self, words: str, room: int, *, mono: bool = False, large: bool = False) -> str:
        """The words, cut with an ellipsis where they are wider than the room."""
        if self.width(words, mono=mono, large=large) <= room:
            return words
        while words and self.width(words + "…", mono=mono, large=large) > room:
            words = words[:-1]
        return words.rstrip() + "…"

    def text(self, words: str, place: tuple[int, int], colour: Colour = TEXT, *, anchor: str = "midleft",
             mono: bool = False, large: bool = False, room: int | None = None) -> Rect:
        """One line; `anchor` is the point of its box that lies at `place`. -> the box."""
        if room is not None:
            words = self.fitted(words, room, mono=mono, large=large)
        image = self._render(words, colour, mono, large)
        box = image.get_rect(**{anchor: place})
        self.surface.blit(image, box)
        return box

    def lines(self, words: str, place: tuple[int, int], room: int, colour: Colour = MUTED) -> int:
        """A paragraph in as many lines as it needs, from its top left. -> the y below it."""
        x, y = place
        line = ""
        for word in [*words.split(), ""]:
            longer = f"{line} {word}".strip()
            if word and self.width(longer) <= room:
                line = longer
                continue
            self.text(line, (x, y), colour, anchor="topleft", room=room)
            y += self.height()
            line = word
        return y

    def box(self, area: Rect, fill: Colour | None = PANEL, border: Colour | None = LINE, *, thick: int = 1,
            radius: float = 6) -> None:
        """A panel with round corners."""
        rounding = self.px(radius)
        if fill is not None:
            pygame.draw.rect(self.surface, fill, area, border_radius=rounding)
        if border is not None:
            pygame.draw.rect(self.surface, border, area, thick, border_radius=rounding)

    def under(self, place: tuple[int, int]) -> Hot | None:
        """What a click there would mean."""
        return next((meaning for area, meaning in reversed(self.hot) if area.collidepoint(place)), None)

    def key(self, words: str, place: tuple[int, int], *, anchor: str = "midleft", bright: bool = False) -> Rect:
        """A key cap. -> its box."""
        height = self.height() + self.px(2)
        cap = Rect(0, 0, max(height, self.width(words) + self.px(12)), height)
        setattr(cap, anchor, place)
        self.box(cap, PANEL, TEXT if bright else LINE, radius=4)
        self.text(words, cap.center, TEXT, anchor="center")
        return cap

    def hint_width(self, hint: Hint) -> int:
        """Of a key cap with its word, in pixels."""
        cap, word, _ = hint
        return self.width(word) + self.px(7) + max(self.height(), self.width(cap) + self.px(12))

    def hints(self, hints: Sequence[Hint], right: tuple[int, int], room: int) -> None:
        """Key caps with a word each, up to the right end (x, y middle); as many as fit into the room."""
        x, y = right
        for cap, word, meaning in reversed(hints):
            wide = self.hint_width((cap, word, meaning))
            if right[0] - x + wide + self.px(18) > room:
                break
            if meaning is not None:
                self.hot.append((Rect(x - wide, y - self.height(), wide, 2 * self.height()), meaning))
            self.text(word, (x, y), MUTED, anchor="midright")
            self.key(cap, (x - self.width(word) - self.px(7), y), anchor="midright")
            x -= wide + self.px(18)

    def picture(self, image: np.ndarray, area: Rect) -> None:
        """(h, w, 3) uint8, nearest neighbour; `area` must be a whole multiple of it."""
        pygame.transform.scale(as_surface(image), area.size, self.surface.subsurface(area)) \
            if self.surface.get_rect().contains(area) else \
            self.surface.blit(pygame.transform.scale(as_surface(image), area.size), area)

    def frame(self, area: Rect, colour: Colour, thick: int | None = None) -> None:
        """A border outside an area."""
        width = thick or max(2, self.px(2))
        pygame.draw.rect(self.surface, colour, area.inflate(2 * width, 2 * width), width)

    def veil(self, area: Rect, strength: int = 200) -> None:
        """Darkens an area, 0 to 255."""
        shade = Surface(area.size)
        shade.fill(BACKGROUND)
        shade.set_alpha(strength)
        self.surface.blit(shade, area)

    def bar(self, area: Rect, share: float, colour: Colour) -> None:
        """A bar filled from the left, 0 to 1."""
        rounding = area.height // 2
        pygame.draw.rect(self.surface, LINE, area, border_radius=rounding)
        filled = Rect(area.topleft, (round(area.width * min(max(share, 0), 1)), area.height))
        if filled.width:
            pygame.draw.rect(self.surface, colour, filled, border_radius=rounding)


def as_surface(image: np.ndarray) -> Surface:
    """(h, w, 3) or (h, w, 1) uint8 -> a surface with memory of its own."""
    rgb = np.ascontiguousarray(np.broadcast_to(image, (*image.shape[:2], 3)))
    return pygame.image.frombuffer(rgb.tobytes(), rgb.shape[1::-1], "RGB").convert()


def multiple(image: tuple[int, int], room: tuple[int, int]) -> int:
    """The largest whole factor by which (w, h) fits into a room, at least 1."""
    return max(1, min(room[0] // image[0], room[1] // image[1]))

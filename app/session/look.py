"""One look for the window, the page and the videos: colours, words, and the heat of a divergence. Our own.

Two colours mean two worlds, everywhere: the dream is violet, reality is teal.
"""

from __future__ import annotations

import os
from pathlib import Path

Colour = tuple[int, int, int]

DREAM: Colour = (0xA7, 0x8B, 0xFA)
REALITY: Colour = (0x2D, 0xD4, 0xBF)
BACKGROUND: Colour = (0x0B, 0x0D, 0x12)
PANEL: Colour = (0x14, 0x18, 0x21)
LINE: Colour = (0x23, 0x2A, 0x36)
TEXT: Colour = (0xE6, 0xE9, 0xEF)
MUTED: Colour = (0x8B, 0x94, 0xA7)
AMBER: Colour = (0xFB, 0xBF, 0x24)
RED: Colour = (0xF8, 0x71, 0x71)
DIVERGENCE: tuple[Colour, Colour, Colour] = (MUTED, AMBER, RED)
"""From "the same" to "another world"."""

STEPS_A_SECOND = 15
"""The true speed of an Atari game: of 60 pictures every fourth is seen."""

WHO = {"you": "you", "agent": "agent", "random": "random", "help": "you, the agent helps"}
"""Who plays -> how a screen says it."""
VIEWS = {"dream": "dream", "reality": "reality", "twin": "twin"}
"""What is shown -> how a screen says it."""


def spoken(action_name: str) -> str:
    """What an action is called on a screen."""
    return "nothing" if action_name == "NOOP" else action_name.lower()


def called(path: str | Path) -> str:
    """What a folder or a file is called on a screen: by its own name, also where the way to it is `.`."""
    return os.path.basename(os.path.abspath(path))


def heat(x: float) -> Colour:
    """0 -> grey, 0.5 -> amber, 1 -> red, and what lies between."""
    x = min(max(x, 0.0), 1.0) * 2
    low, high = DIVERGENCE[:2] if x <= 1 else DIVERGENCE[1:]
    part = x if x <= 1 else x - 1
    red, green, blue = (round(a + (b - a) * part) for a, b in zip(low, high, strict=True))
    return red, green, blue


def hex_of(colour: Colour) -> str:
    """(167, 139, 250) -> '#a78bfa'."""
    return "#{:02x}{:02x}{:02x}".format(*colour)

"""Which key does what in the window, and the file in which a person changes it. Our own.

The keys that play (arrows, WASD, space) belong to `app.session.controls`; these are all others.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import pygame
from pygame.event import Event

from app.session.controls import KEYMAP, load_keymap, save_keymap
from diamond_core.files import write_whole

KeyMap = Mapping[str, tuple[str, ...]]
"""Command -> names of keys, each as pygame calls the key or as the character that it types."""
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "view": (("tab",), "dream, reality, twin"),
    "help": (("f1", "?"), "all keys"),
    "back": (("escape",), "back to the games"),
    "pause": (("p",), "pause, go on"),
    "step": ((".",), "one step"),
    "rewind": ((",",), "go back, hold to go on"),
    "reset": (("backspace",), "begin anew"),
    "slower": (("[", "-"), "slower"),
    "faster": (("]", "+", "="), "faster"),
    "who": (("h",), "who plays"),
    "wake": (("k",), "wake up, fall asleep"),
    "resync": (("l",), "dream from reality's frames"),
    "difference": (("g",), "show the difference"),
    "futures": (("f",), "all futures from here"),
    "paint": (("b",), "paint into the dream"),
    "denoising": (("v",), "how the frame is drawn"),
    "mind": (("n",), "what the agent thinks"),
    "knobs": (("m",), "knobs of the dream"),
    "record": (("r",), "record a tape"),
    "save": (("f5",), "save this dream"),
    "load": (("f9",), "load the saved dream"),
    "fullscreen": (("f11",), "full screen"),
    "hide": (("f2",), "hide all but the picture"),
}
"""Command -> its keys, and what it does in a few words."""
GROUPS = {
    "See": ("view", "difference", "mind", "denoising", "hide", "fullscreen"),
    "Time": ("pause", "step", "rewind", "slower", "faster", "reset"),
    "Worlds": ("wake", "resync", "futures", "paint", "knobs"),
    "Play": ("who", "record", "save", "load", "help", "back"),
}
"""The help page's groups, in its order."""
CAPS = {"escape": "Esc", "backspace": "Back", "return": "Enter", "left": "←", "right": "→", "up": "↑", "down": "↓"}
IGNORED = pygame.KMOD_ALT | pygame.KMOD_META | pygame.KMOD_CTRL
"""With one of these held, a key belongs to the system."""
MODIFIERS = {f"{side} {name}": getattr(pygame, f"KMOD_{side[0]}{name}".upper())
             for side in ("left", "right") for name in ("ctrl", "alt", "meta")}
"""Their keys by name."""


class Keyboard:
    """The keys as this person has them: `keys` for commands, `plays` for what plays (key -> button)."""

    def __init__(self, folder: Path | None = None) -> None:
        """Raises ValueError where a file in the folder cannot be understood."""
        folder = folder or config_folder()
        self._path, self._play_path = folder / "window-keys.json", folder / "play-keys.json"
        self.keys = load_keys(self._path)
        self.plays = load_keymap(self._play_path) if self._play_path.is_file() else dict(KEYMAP)

    def command_of(self, event: Event) -> str | None:
        """The command that a pressed key stands for."""
        if event.mod & IGNORED:
            return None
        pressed = {name_of(event), getattr(event, "unicode", "").lower()} - {""}
        return next((command for command, names in self.keys.items() if pressed & set(names)), None)

    def is_the_systems(self, event: Event) -> bool:
        """Whether a key is pressed together with one that belongs to the system, and that plays nothing."""
        playing = sum(its for name, its in MODIFIERS.items() if name in self.plays)
        return bool(event.mod & IGNORED & ~playing)

    def cap(self, command: str) -> str:
        """What stands on the first key of a command."""
        return cap(self.keys[command][0]) if self.keys[command] else ""

    def bind(self, command: str, key: str) -> None:
        """The key now means this command and no other; kept for the next time."""
        freed = {other: tuple(name for name in names if name != key) for other, names in self.keys.items()}
        self.keys = freed | {command: (key,)}
        save_keys(self._path, self.keys)

    def bind_play(self, button: str, key: str) -> None:
        """The key now presses this button of the game, beside those that do already."""
        self.plays = self.plays | {key: button}
        save_keymap(self._play_path, self.plays)

    def taken(self, key: str) -> str | None:
        """What a key does already, in words; None for a free one."""
        command = next((command for command, names in self.keys.items() if key in names), None)
        return COMMANDS[command][1] if command else f"play {self.plays[key].lower()}" if key in self.plays else None


def default_keys() -> dict[str, tuple[str, ...]]:
    """The keys as they come."""
    return {command: keys for command, (keys, _) in COMMANDS.items()}


def cap(key: str) -> str:
    """What stands on a key."""
    return CAPS.get(key) or (key.upper() if len(key) == 1 or key[1:].isdecimal() else key.title())


def name_of(event: Event) -> str:
    """A key's name, in lower case."""
    return pygame.key.name(event.key).lower()


def config_folder() -> Path:
    """Where this person's settings lie."""
    if sys.platform == "win32":
        base = Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return base / "diamond"


def load_keys(path: Path) -> dict[str, tuple[str, ...]]:
    """Command -> keys: the usual ones, changed by a JSON file where there is one. Raises ValueError."""
    if not path.is_file():
        return default_keys()
    hope = f'expected {{"pause": ["p"], ...}} with commands out of {", ".join(COMMANDS)}; delete it for the usual keys'
    try:
        changed = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no list of keys ({error}): {hope}") from error
    if not isinstance(changed, dict) or not set(changed) <= set(COMMANDS) or not all(
            isinstance(keys, list) and all(isinstance(key, str) for key in keys) for keys in changed.values()):
        raise ValueError(f"{path} is no list of keys: {hope}")
    return default_keys() | {command: tuple(key.lower() for key in keys) for command, keys in changed.items()}


def save_keys(path: Path, keys: KeyMap) -> None:
    """Writes what differs from the usual keys."""
    usual = default_keys()
    path.parent.mkdir(parents=True, exist_ok=True)
    changed = {command: list(names) for command, names in keys.items() if names != usual[command]}
    write_whole(path, (json.dumps(changed, indent=2) + "\n").encode())

"""Keys become actions: chords, taps shorter than a step, opposite directions, keys that can be changed. Our own.

An Atari action is named by its buttons, as in UPRIGHTFIRE. Games whose actions have no button names go by number.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from app.session.clock import Clock, RealClock
from diamond_core.files import write_whole

BUTTONS = ("UP", "DOWN", "LEFT", "RIGHT", "FIRE")
OPPOSITE = {"UP": "DOWN", "DOWN": "UP", "LEFT": "RIGHT", "RIGHT": "LEFT"}
KEYMAP = {
    "up": "UP", "down": "DOWN", "left": "LEFT", "right": "RIGHT", "space": "FIRE",
    "w": "UP", "s": "DOWN", "a": "LEFT", "d": "RIGHT",
}
"""Key -> button, until the person changes it."""
SIDEWAYS = {"UP": "RIGHT", "DOWN": "LEFT"}
"""In a game without up and down, Pong for one, they mean what a paddle does there."""
MOST_WAITING = 4
"""Taps that may wait for a later step; more would be heard too late."""


class Press(NamedTuple):
    """A key that went down and is not yet part of a step."""

    button: str
    time: float
    missed: bool = False
    """Whether a step had no action for it."""


class Controls:
    """Listens to keys and answers, once a step, with an action. Key names are lower-case: 'up', 'w', 'space'.

    One thread may press while another one takes.
    """

    def __init__(self, action_names: list[str] | tuple[str, ...], keymap: dict[str, str] | None = None, *,
                 clock: Clock | None = None) -> None:
        """Raises ValueError for a keymap that names buttons which do not exist."""
        self.action_names = tuple(action_names)
        self._clock = clock or RealClock()
        self._actions = {buttons: i for i, name in reversed(list(enumerate(action_names)))
                         if (buttons := buttons_of(name)) is not None}
        self.by_number = not any(self._actions)
        known = set().union(*self._actions)
        self._alias = SIDEWAYS if not known & {"UP", "DOWN"} and "LEFT" in known else {}
        self.keymap = checked_keymap(KEYMAP if keymap is None else keymap)
        self._lock = Lock()
        self.release_all()

    @property
    def idle_action(self) -> int | None:
        """What is done while nothing is pressed: the no-op, the middle of three; none: hold on to the last one."""
        if self.by_number:
            return 1 if len(self.action_names) == 3 else None if len(self.action_names) == 2 else 0
        return self._actions.get(frozenset())

    def press(self, key: str) -> None:
        """A key went down; a repeat of one that is down already says nothing."""
        key = key.lower()
        button = self._button(key)
        with self._lock:
            if button is None or key in self._held:
                return
            self._held[key] = button
            if len(self._waiting) < MOST_WAITING:
                self._waiting.append(Press(button, self._clock.now()))

    def release(self, key: str) -> None:
        """A key went up."""
        with self._lock:
            self._held.pop(key.lower(), None)

    def release_all(self) -> None:
        """As when the window loses the keyboard: nothing is held, nothing waits."""
        with self._lock:
            self._held: dict[str, str] = {}
            self._waiting: list[Press] = []

    @property
    def active(self) -> bool:
        """Whether anything is held or waits."""
        return bool(self._held or self._waiting)

    @property
    def pressed(self) -> bool:
        """Whether something was pressed that is not yet part of a step."""
        return bool(self._waiting)

    def take(self) -> tuple[int | None, float | None]:
        """The action of this step, None when nothing was pressed, and when its earliest new press happened."""
        if not self.active:
            return None, None
        chosen: dict[str, Press | None] = {}
        later = []
        with self._lock:
            for press in self._waiting:
                if press.button in chosen or OPPOSITE.get(press.button) in chosen:
                    later.append(press)
                else:
                    chosen[press.button] = press
            for button in reversed(self._held.values()):
                if OPPOSITE.get(button) not in chosen:
                    chosen.setdefault(button)
            due = next((press.button for press in self._waiting if press.missed), None)
            action, taken = self._action(list(chosen), due)
            # what no action has together with the others is taken next, if one has it alone
            missed = [press._replace(missed=True) for button, press in chosen.items() if press and button not in taken
                      and (self.by_number or frozenset({button}) in self._actions)]
            self._waiting = sorted(missed + later, key=lambda press: press.time)
        return action, min((press.time for button, press in chosen.items() if press and button in taken), default=None)

    def _action(self, buttons: list[str], due: str | None) -> tuple[int | None, frozenset[str]]:
        """The action with the most of these buttons, and which they are; between equals, the one with the earlier of
        them. One that is due is among them."""
        if self.by_number:
            return int(buttons[0]), frozenset(buttons[:1])
        fitting = [its for its in self._actions if its <= set(buttons) and (due is None or due in its)]
        if not fitting:
            return None, frozenset()
        best = max(fitting, key=lambda its: (len(its), [button in its for button in buttons]))
        return self._actions[best], best

    def _button(self, key: str) -> str | None:
        """What a key presses in this game. By number: the index as a word."""
        button, most = self.keymap.get(key), len(self.action_names) - 1
        if self.by_number:
            if key.isdecimal():
                return key if int(key) <= most else None
            return {"LEFT": "0", "RIGHT": str(most)}.get(button or "")
        return None if button is None else self._alias.get(button, button)


def buttons_of(action_name: str) -> frozenset[str] | None:
    """'UPRIGHTFIRE' -> its buttons, 'NOOP' -> none of them; None for a name that is no chord."""
    if action_name == "NOOP":
        return frozenset()
    found = re.fullmatch("(UP|DOWN)?(LEFT|RIGHT)?(FIRE)?", action_name)
    return frozenset(filter(None, found.groups())) if found and action_name else None


def checked_keymap(keymap: dict[str, str]) -> dict[str, str]:
    """With lower-case keys. Raises ValueError for a button that does not exist."""
    wrong = sorted({str(button) for button in keymap.values()} - set(BUTTONS))
    if wrong:
        raise ValueError(f"the keys press {', '.join(wrong)}: expected {', '.join(BUTTONS)}")
    return {key.lower(): button for key, button in keymap.items()}


def load_keymap(path: Path) -> dict[str, str]:
    """Key -> button from a JSON file. Raises ValueError for anything else."""
    try:
        keymap = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no keymap ({error}): delete it to have the usual keys back") from error
    if not isinstance(keymap, dict) or not all(isinstance(word, str) for pair in keymap.items() for word in pair):
        raise ValueError(f'{path} is no keymap: expected {{"key": "BUTTON"}}; delete it to have the usual keys back')
    return checked_keymap(keymap)


def save_keymap(path: Path, keymap: dict[str, str]) -> None:
    """Writes what `load_keymap` reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(checked_keymap(keymap), indent=2) + "\n").encode())


def directions(action_names: list[str]) -> list[str]:
    """The keys that mean something in this game: up, down, left, right, space."""
    found = []
    for key in ("up", "down", "left", "right", "space"):
        controls = Controls(action_names)
        controls.press(key)
        if controls.take()[0] not in (None, controls.idle_action):
            found.append(key)
    return found


def legend(keys: list[str]) -> list[tuple[str, str]]:
    """What a newcomer needs."""
    signs = {"left": "←", "up": "↑", "down": "↓", "right": "→"}
    arrows = " ".join(sign for key, sign in signs.items() if key in keys)
    words = [(arrows, "move")] if arrows else []
    return words + ([("space", "fire")] if "space" in keys else [])

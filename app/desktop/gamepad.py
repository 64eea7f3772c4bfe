"""Gamepads become the buttons that play and a few commands. Our own."""

from __future__ import annotations

from contextlib import suppress
from typing import NamedTuple

import pygame
from pygame._sdl2 import controller
from pygame.event import Event

DEAD_ZONE, BACK_ZONE = 0.5, 0.35
"""A stick counts as pushed beyond the first, as let go below the second."""
PLAY = {pygame.CONTROLLER_BUTTON_A: "FIRE", pygame.CONTROLLER_BUTTON_B: "FIRE",
        pygame.CONTROLLER_BUTTON_DPAD_UP: "UP", pygame.CONTROLLER_BUTTON_DPAD_DOWN: "DOWN",
        pygame.CONTROLLER_BUTTON_DPAD_LEFT: "LEFT", pygame.CONTROLLER_BUTTON_DPAD_RIGHT: "RIGHT"}
DO = {pygame.CONTROLLER_BUTTON_START: "pause", pygame.CONTROLLER_BUTTON_BACK: "view",
      pygame.CONTROLLER_BUTTON_X: "who", pygame.CONTROLLER_BUTTON_Y: "wake",
      pygame.CONTROLLER_BUTTON_LEFTSHOULDER: "rewind", pygame.CONTROLLER_BUTTON_RIGHTSHOULDER: "futures"}
STICKS = {pygame.CONTROLLER_AXIS_LEFTX: ("LEFT", "RIGHT"), pygame.CONTROLLER_AXIS_LEFTY: ("UP", "DOWN")}


class Heard(NamedTuple):
    """Something that a gamepad did."""

    kind: str
    """press, release, command, or uncommand: what was held for one is let go."""
    word: str
    """A button of the game, or a command."""


class Gamepads:
    """All gamepads that are or will be plugged in."""

    def __init__(self) -> None:
        pygame.joystick.init()
        controller.init()
        self._open: dict[int, object] = {}
        self._pushed: dict[tuple[int, int], str] = {}
        for index in range(pygame.joystick.get_count()):
            self._plug(index)

    def _plug(self, index: int) -> None:
        # one that was pulled out again meanwhile is nothing to play with
        with suppress(pygame.error):
            if controller.is_controller(index):
                pad = controller.Controller(index)
                self._open[pad.as_joystick().get_instance_id()] = pad
            else:
                stick = pygame.joystick.Joystick(index)
                self._open[stick.get_instance_id()] = stick

    def hear(self, event: Event) -> list[Heard]:
        """What an event means; nothing for one that is no gamepad's."""
        if event.type == pygame.JOYDEVICEADDED:
            self._plug(event.device_index)
        elif event.type == pygame.JOYDEVICEREMOVED:
            self._open.pop(event.instance_id, None)
            self._pushed = {at: word for at, word in self._pushed.items() if at[0] != event.instance_id}
            return [*(Heard("release", word) for word in ("UP", "DOWN", "LEFT", "RIGHT", "FIRE")),
                    Heard("uncommand", "rewind")]
        elif event.type in (pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP):
            return _button(event.button, down=event.type == pygame.CONTROLLERBUTTONDOWN)
        elif event.type == pygame.CONTROLLERAXISMOTION:
            return self._axis(event.instance_id, event.axis, event.value / 32768)
        elif self._plain(event):
            return self._unnamed(event)
        return []

    def _plain(self, event: Event) -> bool:
        """Whether an event comes from a stick whose buttons nobody has named; known pads report twice."""
        return isinstance(self._open.get(getattr(event, "instance_id", -1)), pygame.joystick.JoystickType)

    def _unnamed(self, event: Event) -> list[Heard]:
        if event.type == pygame.JOYAXISMOTION:
            return self._axis(event.instance_id, event.axis, event.value)
        if event.type in (pygame.JOYBUTTONDOWN, pygame.JOYBUTTONUP):
            return [Heard("press" if event.type == pygame.JOYBUTTONDOWN else "release", "FIRE")]
        if event.type == pygame.JOYHATMOTION:
            x, y = event.value
            return [*self._axis(event.instance_id, pygame.CONTROLLER_AXIS_LEFTX, x),
                    *self._axis(event.instance_id, pygame.CONTROLLER_AXIS_LEFTY, -y)]
        return []

    def _axis(self, pad: int, axis: int, value: float) -> list[Heard]:
        if axis not in STICKS:
            return []
        before = self._pushed.get((pad, axis))
        word = STICKS[axis][value > 0]
        now = word if abs(value) > (BACK_ZONE if before == word else DEAD_ZONE) else None
        if now == before:
            return []
        if now is None:
            del self._pushed[pad, axis]
        else:
            self._pushed[pad, axis] = now
        return [Heard(kind, its) for kind, its in (("release", before), ("press", now)) if its]


def _button(button: int, *, down: bool) -> list[Heard]:
    if button in PLAY:
        return [Heard("press" if down else "release", PLAY[button])]
    if button in DO and (down or DO[button] == "rewind"):
        return [Heard("command" if down else "uncommand", DO[button])]
    return []

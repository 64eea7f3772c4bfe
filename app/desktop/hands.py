"""What a person does in the scene of play: keys, mouse and gamepads ask things of the game or open panels. Our own."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

import pygame
from pygame.event import Event

from app.desktop import strip
from app.desktop.game import Game, Snapshot
from app.desktop.gamepad import Gamepads, Heard
from app.desktop.keys import IGNORED, Keyboard, cap, name_of
from app.desktop.knobs import KNOBS, turned
from app.desktop.layout import Layout
from app.desktop.orders import ORDERS, back, set_knob, take
from app.desktop.pen import Hot, Pen
from app.desktop.pointer import Brush, Scrubber
from app.session.controls import BUTTONS

BACKWARDS = 1 / 20
"""Seconds between two moments while the key that goes back is held."""
SIDE = {"knobs": "knobs", "denoising": "how this frame was drawn", "paint": "paint into the dream"}
"""Panels of which one at a time stands at the right, and their titles."""
AWAKE = {"denoising": "you are awake: fall asleep to see how a frame is drawn",
         "paint": "you are awake: fall asleep to paint"}
"""Why there is nothing on a panel of the dream meanwhile."""


class Hands:
    """What is open, held and chosen. Nothing here waits for the model."""

    def __init__(self, game: Game, keyboard: Keyboard, pads: Gamepads, *, leave: Callable[[], None],
                 fill_screen: Callable[[], None], tell: Callable[[str, bool], None]) -> None:
        """`tell` shows a line, and whether it is bad news."""
        self.game, self.keyboard, self._pads = game, keyboard, pads
        self._leave, self._fill_screen, self._tell = leave, fill_screen, tell
        self.side = ""
        self.mind = self.help = self.difference = self.bare = False
        self.played = False
        """Whether a key that plays was ever pressed."""
        self.rebinding: str | None = None
        self.knob = KNOBS[0].name
        self.scrubber, self.brush = Scrubber(game), Brush(game)
        self.seen: tuple[Pen, Layout] | None = None
        """What was drawn last, so that a click means what the person saw."""
        self._resume = self._helped = False
        self._rewinding: float | None = None
        self._rewinder: int | None = None
        """The key that is held meanwhile, whatever is pressed with it later."""

    @property
    def busy(self) -> bool:
        """Whether something is held that goes on by itself."""
        return self._rewinding is not None

    def update(self) -> None:
        """Goes on with what is held."""
        if self._rewinding is not None and monotonic() >= self._rewinding:
            self._rewinding, self._resume = monotonic() + BACKWARDS, True
            self.game.ask("Going back", back, key="back")

    def handle(self, event: Event) -> None:
        """Whatever happened, as soon as it did."""
        if self.game.tape_over:
            self.game.tape_over, self._resume = False, True
        if event.type == pygame.KEYDOWN:
            self._key_down(event)
        elif event.type == pygame.KEYUP:
            self._key_up(event)
        elif event.type in (pygame.WINDOWFOCUSLOST, pygame.WINDOWMINIMIZED):
            self._rewinding = None
            if self.game.controls is not None:
                self.game.controls.release_all()
        elif event.type in (pygame.MOUSEBUTTONDOWN, pygame.MOUSEMOTION, pygame.MOUSEBUTTONUP, pygame.MOUSEWHEEL):
            self._mouse(event)
        for heard in self._pads.hear(event):
            self._pad(heard)

    def _key_down(self, event: Event) -> None:
        name, command = name_of(event), self.keyboard.command_of(event)
        now = self.game.newest
        if self.rebinding is not None:
            self._rebind(name, bool(event.mod & IGNORED))
        elif now is not None and now.futures is not None:
            self._choose_future(name, command, len(now.futures.frames) if now.futures.rewards.size else 0)
        elif self.side == "knobs" and name in ("up", "down", "left", "right"):
            self._turn(name)
        elif self.side == "paint" and name == "z":
            self.brush.take_back()
        elif self.game.controls is not None and not self.keyboard.is_the_systems(event) and (
                name in self.game.controls.keymap or (name.isdecimal() and self.game.controls.by_number)):
            self._press(name)
        elif command is not None:
            self.do(command)
            if command == "rewind":
                self._rewinder = event.key

    def _key_up(self, event: Event) -> None:
        if event.key == self._rewinder:
            self._rewinding = self._rewinder = None
        if self.game.controls is not None:
            self.game.controls.release(name_of(event))

    def _pad(self, heard: Heard) -> None:
        if heard.kind == "command":
            self.do(heard.word)
        elif heard.kind == "uncommand":
            self._rewinding = None
        elif self.game.controls is not None:
            key = next((key for key, button in self.game.controls.keymap.items() if button == heard.word), None)
            if key is not None and heard.kind == "press":
                self._press(key)
            elif key is not None:
                self.game.controls.release(key)

    def _press(self, key: str) -> None:
        """A key that plays; after going back it also makes time go on. The game hears none while it is covered."""
        assert self.game.controls is not None
        now = self.game.newest
        if self.help or (now is not None and now.futures is not None):
            return
        self.played = True
        self.game.controls.press(key)
        if self._resume:
            self._go_on()

    def _go_on(self) -> None:
        self._resume = self._helped = False
        self.brush.forget()
        self.game.ask("Going on", lambda s: setattr(s, "paused", False))

    def _rebind(self, name: str, is_the_systems: bool) -> None:
        """The key that was waited for: for a command, or for a button of the game. A key means one thing only."""
        wanted, taken = self.rebinding, self.keyboard.taken(name)
        plays = wanted in BUTTONS
        if name != "escape" and wanted is not None:
            # a command may take a key from another one, never from the game
            if taken and (plays or name in self.keyboard.plays):
                self._tell(f"{cap(name)} is for: {taken}. Choose another key", True)
                return
            if is_the_systems and not plays:
                self._tell("Ctrl, Alt and what is pressed with them are the system's. Choose another key", True)
                return
            try:
                (self.keyboard.bind_play if plays else self.keyboard.bind)(wanted, name)
            except OSError as error:
                self._tell(f"the key holds until the window is closed: {error}", True)
            if plays and self.game.controls is not None:
                self.game.controls.keymap = dict(self.keyboard.plays)
        self.rebinding = None

    def _choose_future(self, name: str, command: str | None, count: int) -> None:
        if name.isdecimal() and (int(name) - 1) % 10 < count:
            self._take((int(name) - 1) % 10)
        elif command is not None:
            self.do(command)

    def _close_futures(self) -> None:
        self._resume = True
        self.game.ask("Staying here", lambda s: s.close_fan())

    def _take(self, action: int) -> None:
        self._resume = True
        self.game.ask("Going there", take(action))
        self._tell("here you are: press a key to play on", False)

    def _turn(self, name: str) -> None:
        names = [knob.name for knob in KNOBS]
        if name in ("up", "down"):
            self.knob = names[(names.index(self.knob) + (1 if name == "down" else -1)) % len(names)]
        else:
            self._set_knob(self.knob, 1 if name == "right" else -1)

    def _set_knob(self, name: str, by: int) -> None:
        now = self.game.newest
        if now is not None:
            self.game.ask("Turning a knob", set_knob(name, turned(now.settings, name, by)))

    # commands

    def do(self, command: str) -> None:
        """What a key, a button or a click asks for."""
        now = self.game.newest
        if now is not None and now.futures is not None and command != "fullscreen":
            if command in ("back", "futures"):
                self._close_futures()
            return
        own = {"mind": self._open_mind, "help": self._open_help, "rewind": self._rewind, "back": self._one_back,
               "fullscreen": self._fill_screen, "difference": self._show_difference, "hide": self._hide}
        if command in SIDE:
            self._open_side(command)
        elif command in own:
            own[command]()
        else:
            # a pause that was asked for ends when it is asked for
            self._resume = self._resume and command != "pause"
            self.game.ask(*ORDERS[command])

    def _show_difference(self) -> None:
        self.difference = not self.difference

    def _hide(self) -> None:
        self.bare = not self.bare

    def _open_side(self, name: str) -> None:
        now = self.game.newest
        if name != self.side and name in AWAKE and now is not None and now.view.awake:
            self._tell(AWAKE[name], True)
            return
        before, self.side = self.side, "" if self.side == name else name
        self.bare = False
        self.game.watching = self.side == "denoising"
        if self.side == "paint":
            self._resume = True
            self.game.ask("Pausing", lambda s: setattr(s, "paused", True))
        elif before == "paint":
            self._go_on()
        else:
            self.game.ask("Looking", lambda _: None)

    def _open_mind(self) -> None:
        self.mind = wanted = not self.mind
        self.bare = False
        self.game.ask("Asking the agent", lambda s: setattr(s, "mind_wanted", wanted))

    def _open_help(self) -> None:
        self.help = not self.help
        self.rebinding = None
        now = self.game.newest
        if self.help and now is not None and not now.view.paused:
            self._helped = True
            self.game.ask("Pausing", lambda s: setattr(s, "paused", True))
        elif not self.help and self._helped:
            self._go_on()

    def _rewind(self) -> None:
        self._rewinding = monotonic()
        self._resume = True

    def _one_back(self) -> None:
        """Closes what lies on top, or leaves."""
        if self.help:
            self._open_help()
        elif self.side:
            self._open_side(self.side)
        elif self.mind:
            self._open_mind()
        elif self.bare:
            self.bare = False
        else:
            self._leave()

    # mouse

    def _mouse(self, event: Event) -> None:
        now = self.game.newest
        if now is None or self.seen is None:
            return
        pen, layout = self.seen
        deep = bool(pygame.key.get_mods() & pygame.KMOD_SHIFT)
        if event.type == pygame.MOUSEWHEEL:
            if self.side == "knobs" and event.y:  # 0 where it was turned sideways
                self._set_knob(self.knob, 1 if event.y > 0 else -1)
        elif event.type == pygame.MOUSEBUTTONUP:
            self.scrubber.release()
            self.brush.release()
        elif event.type == pygame.MOUSEMOTION:
            if self.scrubber.held:
                self._resume |= self.scrubber.move(strip.bar_of(layout.strip, pen), event.pos, now)
            elif self.brush.held:
                self.brush.move(self.brush.pixel(layout.pictures[0], event.pos, now), deep=deep)
        elif event.button in (1, 3):
            self._click(event.pos, now, layout, pen, left=event.button == 1, deep=deep)

    def _click(self, place: tuple[int, int], now: Snapshot, layout: Layout, pen: Pen, *, left: bool, deep: bool
               ) -> None:
        hot = pen.under(place)
        if hot is not None and left:
            self._hit(hot)
        elif self.help or now.futures is not None:
            return
        elif left and self.scrubber.press(strip.bar_of(layout.strip, pen), place, now):
            self._resume = True
        elif (self.side == "paint" and not now.view.awake and now.view.show != "reality"
              and layout.pictures[0].collidepoint(place)):
            at = self.brush.pixel(layout.pictures[0], place, now)
            if left:
                self.brush.press(at, deep=deep)
            else:
                self.brush.pick(at, now)

    def _hit(self, hot: Hot) -> None:
        """Something that was drawn to be clicked."""
        word, *rest = hot
        if word == "turn":
            self.knob = rest[0]
            self._set_knob(*rest)
        elif word == "choose":
            self.knob = rest[0]
        elif word == "colour":
            self.brush.colour = rest[0]
        elif word == "brush":
            self.brush.radius = rest[0]
        elif word == "branch":
            self._take(rest[0])
        elif word == "rebind":
            self.rebinding = rest[0]
        elif word == "do":
            self.do(rest[0])

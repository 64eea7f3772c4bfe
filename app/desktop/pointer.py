"""The mouse: dragging through time on the strip, and painting. Our own."""

from __future__ import annotations

from pygame import Rect

from app.desktop import strip
from app.desktop.game import Game, Snapshot
from app.desktop.orders import scrub, stroke
from app.desktop.pen import Colour


class Scrubber:
    """Dragging on the timeline."""

    def __init__(self, game: Game) -> None:
        self._game = game
        self.held = False
        self.target: int | None = None

    def press(self, bar: Rect, place: tuple[int, int], now: Snapshot) -> bool:
        """Whether the strip was hit; if so time goes there."""
        if not bar.inflate(0, bar.height).collidepoint(place) or not len(now.marks):
            return False
        self.held = True
        self.move(bar, place, now)
        return True

    def move(self, bar: Rect, place: tuple[int, int], now: Snapshot) -> bool:
        """Time follows the mouse, and stands still there; only the newest place counts. -> whether it went."""
        target = now.first + strip.step_at(bar, place[0], now.marks)
        goes, self.target = target != self.target, target
        if goes:
            self._game.ask("Going back", scrub(target), key="scrub")
        return goes

    def release(self) -> None:
        """Let go."""
        self.held, self.target = False, None


class Brush:
    """Painting on the frozen frame: colour, width, strokes that can be taken back."""

    def __init__(self, game: Game) -> None:
        self._game = game
        self.colour: Colour = (255, 255, 255)
        self.radius = 1
        self._strokes = 0
        self._last: tuple[int, int] | None = None

    @property
    def held(self) -> bool:
        """Whether a stroke is under way."""
        return self._last is not None

    @staticmethod
    def pixel(box: Rect, place: tuple[int, int], now: Snapshot) -> tuple[int, int]:
        """Column and row of the frame under the mouse; outside the frame too."""
        h, w = now.view.frame.shape[:2]
        return (place[0] - box.left) * w // box.width, (place[1] - box.top) * h // box.height

    def press(self, at: tuple[int, int], *, deep: bool) -> None:
        """A stroke begins."""
        self._strokes += 1
        self._last = at
        self._draw([at], deep, new=True)

    def move(self, at: tuple[int, int], *, deep: bool) -> None:
        """The stroke goes on, without gaps."""
        if self._last is not None and at != self._last:
            self._draw([self._last, at], deep, new=False)
            self._last = at

    def release(self) -> None:
        """The stroke ends."""
        self._last = None

    def _draw(self, path: list[tuple[int, int]], deep: bool, *, new: bool) -> None:
        self._game.ask("Painting", stroke(path, self.radius, self.colour, deep, new=new))

    def take_back(self) -> None:
        """The newest stroke, also one that is under way."""
        self._last = None
        if self._strokes:
            self._strokes -= 1
            self._game.ask("Taking it back", lambda session: session.paint_undo())

    def forget(self) -> None:
        """A step was dreamt from the painted frame: strokes before it stay."""
        self._strokes = 0
        self._last = None

    def pick(self, at: tuple[int, int], now: Snapshot) -> None:
        """The colour of a pixel."""
        h, w = now.view.frame.shape[:2]
        red, green, blue = now.view.frame[min(max(at[1], 0), h - 1), min(max(at[0], 0), w - 1)]
        self.colour = int(red), int(green), int(blue)

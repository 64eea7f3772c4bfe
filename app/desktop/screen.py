"""The picture of play: worlds in the middle, one line above, one below. Draws a `View`, knows nothing else. Our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from pygame import Rect

from app.desktop.layout import Layout, lay_out
from app.desktop.pen import Colour, Hint, Pen
from app.session.look import AMBER, DREAM, MUTED, REALITY, RED, STEPS_A_SECOND, TEXT, VIEWS, WHO, heat

if TYPE_CHECKING:
    from app.session.view import View

MINUS = "\N{MINUS SIGN}"
STALE = 2.0
"""Seconds beyond which a key was pressed in a pause, so that it says nothing about the machine."""


@dataclass(frozen=True)
class Around:
    """What the window adds to a view."""

    title: str = ""
    """The game."""
    speed: float = 1.0
    resync_every: int = 0
    difference: bool = False
    bare: bool = False
    left: bool = False
    """Whether there is a panel at the left."""
    right: bool = False
    hints: Sequence[Hint] = ()
    """The keys that a newcomer needs."""
    legend: str = ""
    """How the game is played, while nobody has."""
    drawing: float = 0.0
    """Seconds from a frame's arrival to its being on the screen."""


class Field(NamedTuple):
    """A number with its name; `chars` keeps its place from jumping."""

    label: str
    value: str
    chars: int
    colour: Colour = TEXT


def signed(x: float) -> str:
    """+3, −2, 0; fractions where there are any."""
    words = f"{abs(x):.0f}" if float(x).is_integer() else f"{abs(x):.1f}"
    return f"{'+' if x > 0 else MINUS if x < 0 else ''}{words}"


def seconds(steps: int) -> str:
    """Steps as time of play."""
    return f"{steps / STEPS_A_SECOND:.1f} s"


def worlds(view: View) -> list[tuple[str, np.ndarray, Colour]]:
    """Which pictures are shown, from the left: name, frame, colour."""
    # while the emulator is on its way to an earlier moment, there is nothing to see of it
    real = view.reality if view.reality is not None else np.zeros_like(view.frame)
    pictures = {"dream": ("dream", view.frame, DREAM), "reality": ("reality", real, REALITY)}
    return [pictures[name] for name in (("dream", "reality") if view.show == "twin" else (view.show,))]


def layout_of(size: tuple[int, int], view: View, around: Around) -> Layout:
    """Where everything stands for this view."""
    shapes = [(image.shape[1], image.shape[0]) for _, image, _ in worlds(view)]
    screen = None if view.show == "dream" or view.screen is None else (view.screen.shape[1], view.screen.shape[0])
    return lay_out(size, shapes, screen=screen, left=around.left, right=around.right, bare=around.bare)


def draw(pen: Pen, layout: Layout, view: View, around: Around) -> None:
    """Pictures and the two lines; the caller adds timeline and panels."""
    _pictures(pen, layout, view, around)
    if not around.bare:
        _head(pen, layout.head, view, around)
        _foot(pen, layout.foot, view, around)


def _pictures(pen: Pen, layout: Layout, view: View, around: Around) -> None:
    for box, (name, image, colour) in zip(layout.pictures, worlds(view), strict=True):
        real = name == "reality" and view.reality is None
        if around.difference and view.reality is not None and (name == "reality" or view.show == "dream"):
            image = over(image, apart(view.frame, view.reality))
        pen.picture(image, box)
        pen.frame(box, colour)
        if real:
            pen.text("on its way", box.center, MUTED, anchor="center")
        if layout.captions:
            _caption(pen, layout, box, name, colour, view, around)
    if layout.screen is not None and view.screen is not None:
        pen.picture(view.screen, layout.screen)
        pen.frame(layout.screen, REALITY, 1)
        pen.text("the emulator's full picture", (layout.screen.left, layout.screen.top - layout.captions // 2), MUTED,
                 room=layout.screen.width)


def _caption(pen: Pen, layout: Layout, box: Rect, name: str, colour: Colour, view: View, around: Around) -> None:
    y = box.top - layout.captions // 2
    total = view.total if name == "dream" else view.reality_total
    words = name
    if around.difference and name == "reality":
        words += ", and where the dream differs"
    left = pen.text(words, (box.left, y), colour)
    value = signed(total)
    if box.right - left.right > pen.width("return −000"):
        right = pen.text(f"{value:>4}", (box.right, y), TEXT, anchor="midright", mono=True)
        pen.text("return", (right.left - pen.px(6), y), MUTED, anchor="midright")


def apart(dream: np.ndarray, reality: np.ndarray) -> np.ndarray:
    """How much two frames differ at each pixel, (h, w) from 0 to 1."""
    return np.abs(dream.astype(np.int16) - reality).max(-1).astype(np.float32) / 255


def over(image: np.ndarray, heat_map: np.ndarray) -> np.ndarray:
    """The picture, grey and dim, with the heat of the difference (h, w) from 0 to 1 over it."""
    grey = image.mean(-1, keepdims=True) * 0.35 + 12
    strength = np.clip(heat_map * 3, 0, 1)[..., None]
    ramp = np.array([heat(i / 255) for i in range(256)], np.float32)
    colours = ramp[(np.clip(heat_map * 2, 0, 1) * 255).astype(np.uint8)]
    return (grey * (1 - strength) + colours * strength).astype(np.uint8)


def _head(pen: Pen, head: Rect, view: View, around: Around) -> None:
    y = head.centery
    x = pen.text(around.title, (head.left, y), large=True, room=head.width // 3).right + pen.px(24)
    # the last hint, the way to all others, is always there
    room = head.right - x - sum(pen.hint_width(hint) + pen.px(18) for hint in around.hints[-1:])
    parts = _parts(view, around)
    shown = set()
    for rank, (label, value, _, _) in sorted(parts.items()):
        wide = (pen.width(label) + pen.px(7) if label else 0) + pen.width(value) + pen.px(22)
        if wide <= room:
            shown.add(rank)
            room -= wide
    for rank, (label, value, _, colour) in parts.items():
        if rank in shown:
            x = pen.text(label, (x, y), MUTED).right + pen.px(7) if label else x
            x = pen.text(value, (x, y), colour).right + pen.px(22)
    pen.hints(around.hints, (head.right, y), head.right - x)


def _parts(view: View, around: Around) -> dict[int, Field]:
    """Who plays in which world, and what is out of the ordinary, from the left; by rank: 0 goes last where there is too
    little room."""
    who = WHO[view.who] if not view.helping else "the agent, for you"
    colour = {"dream": DREAM, "reality": REALITY}.get(view.show, TEXT)
    parts = {4: Field("player", who, 0), 3: Field("world", VIEWS[view.show], 0, colour)}
    if view.paused:
        parts[1] = Field("", "paused", 0, AMBER)
    if around.speed != 1:
        parts[2] = Field("", f"×{around.speed:g}", 0, AMBER)
    if view.recording is not None:
        parts[0] = Field("", f"● tape {seconds(view.recording)}", 0, RED)
    if around.resync_every:
        parts[5] = Field("", f"falls asleep every {around.resync_every} steps", 0, MUTED)
    return parts


def fields(view: View, around: Around) -> list[Field]:
    """The numbers of the lower line, the most important first."""
    return [*(_twin_fields(view) if view.show == "twin" else _world_fields(view)), *_machine_fields(view, around)]


def _world_fields(view: View) -> list[Field]:
    real = view.show == "reality"
    reward = view.reality_reward if real else view.reward
    found = [Field("return", signed(view.reality_total if real else view.total), 4),
             Field("reward", signed(reward), 2, TEXT if reward else MUTED)]
    if not real:
        found += [Field("end", f"{view.end_probability:.0%}", 4), Field("age", seconds(view.age), 7)]
    return found


def _twin_fields(view: View) -> list[Field]:
    hot = heat(view.divergence or 0.0)
    psnr = "" if view.psnr is None else f"{view.psnr:.1f} dB"
    ssim = "" if view.ssim is None else f"{view.ssim:.3f}"
    return [Field("true for", f"{view.steps_agreed} steps", 9, hot), Field("PSNR", psnr, 7, hot),
            Field("SSIM", ssim, 5, hot),
            Field("rewards", "agree" if view.agreement else "differ", 6, TEXT if view.agreement else AMBER),
            Field("age", seconds(view.age), 7)]


def _machine_fields(view: View, around: Around) -> list[Field]:
    known = view.latency is not None and view.latency < STALE
    latency = f"{((view.latency or 0) + around.drawing) * 1000:.0f} ms" if known else "–"
    if view.awake:
        return [Field("rate", f"{view.rate:.1f}/s", 6, AMBER if view.slipping else TEXT),
                Field("key to frame", latency, 6)]
    return [Field("rate", f"{view.rate:.1f}/s", 6, AMBER if view.slipping else TEXT),
            Field("dreaming", f"{view.milliseconds:.0f} ms", 6), Field("denoising", f"{view.steps}", 2),
            Field("key to frame", latency, 6)]


def _foot(pen: Pen, foot: Rect, view: View, around: Around) -> None:
    words, shade = (around.legend, TEXT) if around.legend else (view.path, MUTED)
    room = Rect(foot.left, foot.top, foot.width - (pen.width(words) + pen.px(24) if around.legend else 0), foot.height)
    x = numbers(pen, room, fields(view, around))
    if words and x + pen.width(words) <= foot.right:
        pen.text(words, foot.midright, shade, anchor="midright")


def numbers(pen: Pen, foot: Rect, found: Sequence[Field]) -> int:
    """A line of numbers, as many as fit, each in its own fixed place. -> where the next one would begin."""
    x, digit = foot.left, pen.width("0", mono=True)
    for label, value, chars, colour in found:
        wide = pen.width(label) + pen.px(7) + chars * digit
        if x + wide > foot.right:
            break
        left = pen.text(label, (x, foot.centery), MUTED).right + pen.px(7)
        pen.text(value, (left + chars * digit, foot.centery), colour, anchor="midright", mono=True)
        x += wide + pen.px(24)
    return x

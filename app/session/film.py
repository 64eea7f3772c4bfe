"""A tape as a film: dreamt again and drawn bare, or framed and named with the numbers that a player sees. Our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from app.session.look import (
    BACKGROUND,
    DREAM,
    LINE,
    MUTED,
    REALITY,
    STEPS_A_SECOND,
    TEXT,
    Colour,
    heat,
)
from app.session.tape import Played, Tape, TapeError
from app.session.tapefile import embed
from app.session.twin import compare
from app.session.video import SCALE, VideoWriter, enlarged
from diamond_core.world.dream import World
from diamond_core.world.engine import Engine

Worlds = Literal["dream", "reality", "twin"]


@dataclass(frozen=True)
class Result:
    """What came of playing a tape again."""

    steps: int
    first_difference: int | None
    """The first step that came out otherwise than it was recorded; none where all are the same."""


def verify(tape: Tape, world: World, first: int = 0, *, engines: Mapping[str, Engine] | None = None,
           tell: Callable[[int], object] = lambda _: None) -> Result:
    """Plays a tape again and holds every frame, reward and end against it; `tell` hears of each step."""
    different = None
    for played in tape.replay(world, first, engines=engines):
        if different is None and not tape.check(played):
            different = played.number
        tell(1)
    return Result(len(tape) - first, different)


def render(tape: Tape, world: World, out: Path, *, show: Worlds | None = None, hud: bool = False, first: int = 0,
           scale: int = SCALE, overwrite: bool = False, engines: Mapping[str, Engine] | None = None,
           tell: Callable[[int], object] = lambda _: None) -> Result:
    """Plays a tape again into a film, an animation or a sheet; an MP4 carries the tape inside.

    `show` is the dream where none is given, and reality where it was lived. Raises TapeError for a reality that the
    tape does not have, ValueError and FileExistsError as `VideoWriter` does.
    """
    if show in ("reality", "twin") and not tape.has_reality:
        raise TapeError(f"this tape of {tape.origin.game} has no reality to show: leave out --show {show}")
    draw = Hud(tape, show, scale) if hud else bare(show, scale)
    different = None
    with VideoWriter(out, scale=1, overwrite=overwrite, finish=partial(carry, tape)) as video:
        for played in tape.replay(world, first, reality=show in ("reality", "twin"), engines=engines):
            video.add(draw(played))
            if different is None and not tape.check(played):
                different = played.number
            tell(1)
    return Result(len(tape) - first, different)


def carry(tape: Tape, film: Path) -> None:
    """Puts a tape into a film that can carry one, an MP4."""
    if film.suffix.lower() == ".mp4":
        embed(film, tape)


def bare(show: Worlds | None, scale: int) -> Callable[[Played], np.ndarray]:
    """Nothing but the picture, or the two side by side."""
    def draw(played: Played) -> np.ndarray:
        return enlarged(np.concatenate([image for image, *_ in pictures(played, show)], axis=1), scale)

    return draw


def pictures(played: Played, show: Worlds | None) -> list[tuple[np.ndarray, str, Colour]]:
    """What is to be seen of a step: images with their names and colours."""
    dream = played.frame, "dream", DREAM
    if played.reality is None:
        return [dream]
    reality = played.reality, "reality", REALITY
    if show == "twin":
        return [dream, reality]
    return [reality] if show == "reality" or played.lived else [dream]


class Hud:
    """Pictures framed in their colours, the numbers in fixed places below, and a strip of the whole tape."""

    def __init__(self, tape: Tape, show: Worlds | None, scale: int) -> None:
        h, w = (side * scale for side in tape.origin.frame_shape[1:])
        count = 2 if show == "twin" else 1
        self._tape, self._show, self._scale = tape, show, scale
        gap, line = 2 * scale, 4 * scale
        self._lefts = [gap + i * (w + gap) for i in range(count)]
        self._box = w, h
        self._top, self._gap, self._line = line + gap, gap, line
        width, height = gap + count * (w + gap), self._top + h + gap + 2 * line + gap
        self._blank = Image.new("RGB", (width + width % 2, height + height % 2), BACKGROUND)
        self._font = ImageFont.load_default(round(2.6 * scale))
        self._heat: float | None = None
        top = self._top + h + gap + line
        self._strip = top, top + line // 2
        ends = self._lefts[0], self._lefts[-1] + w
        self._edges = np.linspace(*ends, max(len(tape), 1) + 1).round().astype(int).tolist()
        ImageDraw.Draw(self._blank).rectangle((self._edges[0], top, self._edges[-1] - 1, self._strip[1]), LINE)
        self._total = self._real_total = 0.0

    def __call__(self, played: Played) -> np.ndarray:
        """One step, enlarged."""
        shown = pictures(played, self._show)
        if self._show == "twin" and not played.lived:
            self._heat = compare(shown[0][0], shown[1][0]).divergence
        self._mark(played.number)
        canvas = self._blank.copy()
        draw = ImageDraw.Draw(canvas)
        for left, (image, word, colour) in zip(self._lefts, shown, strict=True):
            x, y, (w, h), edge = left, self._top, self._box, max(1, self._scale // 3)
            draw.text((x, y - self._line / 2 - edge), word, colour, self._font, anchor="lm")
            draw.rectangle((x - edge, y - edge, x + w + edge - 1, y + h + edge - 1), colour)
            canvas.paste(Image.fromarray(enlarged(image, self._scale)), (x, y))
        self._numbers(draw, played, [colour for *_, colour in shown])
        here, (top, low) = self._edges[played.number + 1], self._strip
        draw.rectangle((here - 1, top - 3, here, low + 3), TEXT)
        return np.asarray(canvas)

    def _numbers(self, draw: ImageDraw.ImageDraw, played: Played, colours: Sequence[Colour]) -> None:
        """The return of each picture in its colour, time and action, each in its place."""
        if self._tape.returns is not None:
            self._total, self._real_total = self._tape.returns[played.number].tolist()
        else:
            self._total += 0.0 if played.lived else played.reward
            self._real_total += played.reality_reward
        y = self._top + self._box[1] + self._gap + self._line / 2
        left, right = self._lefts[0], self._lefts[-1] + self._box[0]
        middle = (left + right) / 2
        for place, colour in zip(self._lefts, colours, strict=True):
            total = self._real_total if colour == REALITY else self._total
            draw.text((place, y), f"return {total:+.0f}", colour, self._font, anchor="lm")
        if self._show != "twin":
            draw.text((middle, y), self._tape.origin.action_names[played.action], MUTED, self._font, anchor="mm")
        seconds = (played.number + 1) / STEPS_A_SECOND
        draw.text((right, y), f"{int(seconds) // 60}:{int(seconds) % 60:02d}", TEXT, self._font, anchor="rm")

    def _mark(self, number: int) -> None:
        """Adds a step to the strip: divergence as heat, a reward as a tick, an end as a gap."""
        draw, (a, b), (top, low) = ImageDraw.Draw(self._blank), self._edges[number:number + 2], self._strip
        draw.rectangle((a, top, max(b - 1, a), low), MUTED if self._heat is None else heat(self._heat))
        reward, colour = self._tape.rewards[number], REALITY if self._tape.lived[number] else DREAM
        if reward:
            draw.rectangle((a, top - 4, a + 1, top - 1) if reward > 0 else (a, low + 1, a + 1, low + 4), colour)
        if self._tape.ends[number]:
            draw.rectangle((b - 1, top, b, low), BACKGROUND)

"""What lies over the picture for a moment: the keys, all futures, a line of news, waiting. Our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import monotonic

import numpy as np
import pygame
from pygame import Rect

from app.desktop.keys import COMMANDS, GROUPS, Keyboard, KeyMap, cap
from app.desktop.pen import Pen, multiple
from app.desktop.worker import Doing
from app.session.controls import BUTTONS
from app.session.look import BACKGROUND, DREAM, LINE, MUTED, RED, TEXT, spoken

HOLD = 0.6
"""Seconds that the last frame of a future stays."""


def help_page(pen: Pen, room: Rect, keyboard: Keyboard, waiting: str | None) -> None:
    """All keys in groups; `waiting` is the command or the button for which a new key is awaited."""
    pen.veil(pen.surface.get_rect(), 160)
    pad = pen.px(24)
    rows = max(sum(len(GROUPS[name]) + 1 for name in list(GROUPS)[column::2]) for column in range(2))
    # a line for the keys that play, one for the advice, half a line above each group and at the end
    row = min(pen.height() + pen.px(9), (room.height - 2) * 2 // (2 * rows + 8))
    area = Rect(0, 0, min(room.width, pen.px(860)), row * (2 * rows + 8) // 2)
    area.center = room.center
    pen.box(area)
    pen.hot.append((pen.surface.get_rect(), ("do", "help")))
    pen.hot.append((area, ("stay",)))
    _play_row(pen, Rect(area.left + pad, area.top + row // 2, area.width - 2 * pad, row), keyboard.plays, waiting)
    wide = (area.width - pad) // 2
    for column in range(2):
        line = Rect(area.left + pad + column * wide, area.top + 2 * row, wide - pad, row)
        for group in list(GROUPS)[column::2]:
            pen.text(group, line.midleft, TEXT)
            for command in GROUPS[group]:
                line = line.move(0, row)
                _key_row(pen, line, command, keyboard.keys, waiting == command)
            line = line.move(0, row * 3 // 2)
    pen.text("Click a key to give it another one.", (area.centerx, area.bottom - row), MUTED, anchor="center")


def _play_row(pen: Pen, line: Rect, plays: Mapping[str, str], waiting: str | None) -> None:
    """The keys of each button, one after the other."""
    x = line.left
    for button in BUTTONS:
        left = x
        keys = [key for key, its in plays.items() if its == button]
        for key in [*keys[:1], *keys[-1:]] if len(keys) > 2 else keys:
            x = pen.key(cap(key), (x, line.centery)).right + pen.px(4)
        awaited = button == waiting
        x = pen.text("press a key" if awaited else button.lower(), (x + pen.px(3), line.centery),
                     DREAM if awaited else MUTED).right
        pen.hot.append((Rect(left, line.top, x - left, line.height), ("rebind", button)))
        x += pen.px(20)


def _key_row(pen: Pen, line: Rect, command: str, keys: KeyMap, waiting: bool) -> None:
    hovered = line.collidepoint(pygame.mouse.get_pos())
    if hovered or waiting:
        pen.box(line.inflate(pen.px(10), -2), LINE, None, radius=4)
    names = keys[command][:2] if keys[command] else ("none",)
    x = line.left
    if waiting:
        pen.text("press the new key", (x, line.centery), DREAM)
    else:
        for name in names:
            x = pen.key(cap(name), (x, line.centery)).right + pen.px(5)
        start = line.left + pen.px(100)
        pen.text(COMMANDS[command][1], (max(x + pen.px(4), start), line.centery), MUTED,
                 room=line.right - max(x, start))
    pen.hot.append((line, ("rebind", command)))


def futures(pen: Pen, room: Rect, frames: np.ndarray, names: Sequence[str], notes: Sequence[str], elapsed: float,
            rate: float) -> None:
    """(A, steps, h, w, 3): one moving picture an action, with its number; a click takes it."""
    line, gap = pen.height() + pen.px(8), pen.px(16)
    title = Rect(room.left, room.top, room.width, pen.px(48))
    _title(pen, title, len(frames))
    room = Rect(room.left, title.bottom, room.width, room.bottom - title.bottom)
    count, (h, w) = len(frames), frames.shape[2:4]
    factor, columns = _grid(count, (w, h), room, gap, line)
    rows = -(-count // columns)
    wide, high = columns * (w * factor + gap) - gap, rows * (h * factor + line + gap) - gap
    left, top = room.centerx - wide // 2, room.centery - high // 2
    length = frames.shape[1]
    at = min(int(elapsed * rate) % (length + int(HOLD * rate)), length - 1)
    for i in range(count):
        box = Rect(left + i % columns * (w * factor + gap), top + i // columns * (h * factor + line + gap) + line,
                   w * factor, h * factor)
        hot = box.collidepoint(pygame.mouse.get_pos())
        pen.picture(frames[i, at], box)
        pen.frame(box, DREAM if hot else LINE)
        x = box.left
        if i < 10:
            x = pen.key(str((i + 1) % 10), (x, box.top - line // 2), bright=hot).right + pen.px(8)
        pen.text(spoken(names[i]), (x, box.top - line // 2), TEXT if hot else MUTED, room=box.right - x)
        if notes[i]:
            pen.text(notes[i], (box.right, box.top - line // 2), TEXT, anchor="midright", mono=True)
        pen.hot.append((box, ("branch", i)))


def _grid(count: int, image: tuple[int, int], room: Rect, gap: int, line: int) -> tuple[int, int]:
    """The number of columns that lets the pictures be largest, and how large. -> factor, columns."""
    def factor(columns: int) -> int:
        rows = -(-count // columns)
        return multiple(image, ((room.width + gap) // columns - gap, (room.height + gap) // rows - gap - line))

    columns = max(range(1, count + 1), key=lambda c: (factor(c), -c))
    return factor(columns), columns


def _title(pen: Pen, area: Rect, count: int) -> None:
    x = pen.text("The next second, once for each action", (area.left, area.centery)).right
    keys = f"1\N{EN DASH}{min(count, 10) % 10}"
    hints = ((keys, "or click: go on in it", None), ("Esc", "stay here", ("do", "back")))
    pen.hints(hints, area.midright, area.right - x)


def news(pen: Pen, room: Rect, words: str, *, wrong: bool) -> None:
    """One line in place of what stands in the room, or at its lower end where it is higher."""
    words = pen.fitted(words, room.width - pen.px(40))
    box = Rect(0, 0, pen.width(words) + pen.px(28), pen.height() + pen.px(14))
    box.midbottom = room.midbottom
    if room.height > 2 * box.height:
        pen.box(box, BACKGROUND, RED if wrong else LINE)
    else:
        box.centery = room.centery
        pen.surface.fill(BACKGROUND, room)
    pen.text(words, box.center, RED if wrong else TEXT, anchor="center")


def about(words: str, since: float) -> Doing:
    """Something that has been going on for a while."""
    return Doing(words, since)


def waiting(pen: Pen, room: Rect, doing: Doing) -> None:
    """For what, for how long already, and something that moves."""
    passed = monotonic() - doing.since
    box = Rect(0, 0, min(room.width, pen.px(420)), pen.px(72))
    box.center = room.center
    pen.text(doing.words, (box.left, box.top + pen.px(20)), room=box.width - pen.px(80))
    pen.text(f"{passed:.1f} s", (box.right, box.top + pen.px(20)), MUTED, anchor="midright", mono=True)
    bar = Rect(box.left, box.top + pen.px(44), box.width, max(4, pen.px(5)))
    if doing.share is not None:
        pen.bar(bar, doing.share, DREAM)
        return
    pen.bar(bar, 0, DREAM)
    part = bar.width // 4
    # to and fro, one way in 1.2 seconds
    place = abs(passed / 1.2 % 2 - 1)
    pen.bar(Rect(bar.left + round(place * (bar.width - part)), bar.top, part, bar.height), 1, DREAM)

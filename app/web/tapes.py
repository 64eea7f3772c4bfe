"""Recordings on disk: the tape, the frames that were seen, and the films made of them when somebody wants one. Our own.

A recording is found by a secret name that only whoever made it knows; the owner sees all. Nothing in an uploaded tape
is ever run, and one that would take too long to dream again is refused.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
import struct
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import zstandard

from app.session.film import carry
from app.session.look import STEPS_A_SECOND
from app.session.recording import Beside
from app.session.tape import Tape, TapeError
from app.session.tapefile import load_tape, save_tape, to_bytes
from app.session.timeline import Packed
from app.session.video import SCALE, VideoWriter
from diamond_core.files import write_whole

LOG = logging.getLogger(__name__)
NAME = re.compile(r"[A-Za-z0-9_-]{8,40}")
MOST_STEPS = 10 * 60 * STEPS_A_SECOND
"""Of one recording: ten minutes."""
LOOPS, MOST_LOOPED = ("gif", "webp"), 60 * STEPS_A_SECOND
"""What is put together in memory from all pictures at once, and of how many: a minute, half of it for a twin."""
MOST_COST, MOST_REAL = 8 * 3 * MOST_STEPS, 2**21
"""Network evaluations, and steps of the real game, that playing a tape again may take: the latter some ten minutes, for
every rewind in a long game has its own."""
CONSOLE = 800
"""Steps of the real game that take as long as a new console does, a sixth of a second."""
MOST_AT_ONCE = 18 * 10 * 2
"""Network evaluations of a single step, for which all who play must wait: a future taken out of eighteen, with as many
steps of second order as the page offers."""
MOST_UPLOAD = 16 * 2**20
KEPT_OF_VISITORS = 100
"""Visitors' recordings on disk; of more the oldest go. The owner's stay."""
KEPT_OF_ONE = 20
"""Of these, how many may be one visitor's, so that nobody's push out all others'."""
FRAME = struct.Struct("<HHHI")
Seen = tuple[Packed, Packed | None]
"""A recorded instant: the one picture that was looked at, and the second one of a twin."""


class TapesError(ValueError):
    """A recording that cannot be had, in words for the person."""


@dataclass(frozen=True)
class Recording:
    """What is known of one."""

    id: str
    title: str
    game: str
    steps: int
    made: float
    """Unix time."""
    twin: bool
    has_film: bool
    sha256: str
    """Of the weights."""
    cuts: int
    """Values that were put in after the start."""
    by_visitor: bool = False
    whose: str = ""
    """A mark that all recordings of one player have in common; what was brought in has the empty one."""
    brought: bool = False
    """Its film came with it, and there are no frames to make others of."""

    @property
    def has_loop(self) -> bool:
        """Whether it can be had as a GIF or WebP, which grow with every picture."""
        return self.has_film and not self.brought and self.steps * (1 + self.twin) <= MOST_LOOPED


def new_name() -> str:
    """One that nobody guesses: a visitor who knows it may see the recording."""
    return secrets.token_urlsafe(12)


class Tapes:
    """All recordings in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._rendering = threading.Lock()

    def keep(self, tape: Tape, seen: Sequence[Seen], title: str, by_visitor: bool, name: str = "", whose: str = ""
             ) -> Recording:
        """Writes a recording, under a new name where none is given. Raises TapesError for an empty one."""
        if not len(tape):
            raise TapesError("nothing was recorded: play while it runs")
        return self._write(tape, seen, title, by_visitor, name or new_name(), whose)

    def bring(self, data: bytes, title: str, by_visitor: bool) -> Recording:
        """Takes in a tape, or a film that carries one. Raises TapeError, TapesError."""
        if len(data) > MOST_UPLOAD:
            raise TapesError(f"expected a tape of at most {MOST_UPLOAD >> 20} MiB: it is too large")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "upload"
            path.write_bytes(data)
            try:
                tape = load_tape(path)
            except TapeError as error:
                # where it lay for a moment is nothing to a visitor
                raise TapeError(str(error).removeprefix(f"{path}: ").replace(str(path), "this file")) from error
        costs = list(costs_of(tape))
        if len(tape) > MOST_STEPS or sum(costs) > MOST_COST or max(costs, default=0) > MOST_AT_ONCE:
            raise TapesError(f"this tape would take too long to dream again: expected at most {MOST_STEPS} steps")
        if real_steps_of(tape) > MOST_REAL:
            raise TapesError("this tape would take too long to play again: too many rewinds in too long a game")
        if not by_visitor:
            # the owner sees all recordings, and two that are one are one too many
            packed, alike = to_bytes(tape), [r for r in self.all() if r.sha256 == tape.origin.sha256]
            for known in alike:
                place = self._path(known.id, "tape")
                if known.steps == len(tape) and place.is_file() and place.read_bytes() == packed:
                    raise TapesError(f"this tape is here already: '{known.title}'")
        # a visitor's film could show anything
        film = data if not by_visitor and data[4:8] == b"ftyp" else b""
        return self._write(tape, [], cleaned(title) or "a tape", by_visitor, new_name(), film=film)

    def rename(self, name: str, title: str) -> str:
        """Gives a recording another title, unless that is empty; returns the one it has. Raises TapesError."""
        recording = self.get(name)
        recording = replace(recording, title=cleaned(title) or recording.title)
        write_whole(self._path(name, "json"), json.dumps(asdict(recording)).encode())
        return recording.title

    def all(self) -> list[Recording]:
        """Newest first."""
        found = [r for path in self.folder.glob("*.json") if (r := self._read(path))] if self.folder.is_dir() else []
        return sorted(found, key=lambda r: r.made, reverse=True)

    def own(self, game: str) -> list[Recording]:
        """The owner's, in which a game was played."""
        return [r for r in self.all() if r.game == game and not r.by_visitor]

    def get(self, name: str) -> Recording:
        """One by its name. Raises TapesError."""
        found = self._read(self._path(name, "json"))
        if found is None:
            raise TapesError("there is no such tape: it may have been deleted")
        return found

    def tape(self, name: str) -> Tape:
        """The tape of a recording. Raises TapesError, TapeError."""
        self.get(name)
        return load_tape(self._path(name, "tape"))

    def file(self, name: str, ending: str) -> Path:
        """A file to download: tape, webp, mp4 or gif; films are made when they are wanted first. Raises TapesError."""
        path = self.place(name, ending)
        if not path.is_file():
            with self._rendering:
                if not path.is_file():
                    self._render(self.get(name), path)
                    if not self._path(name, "json").is_file():
                        path.unlink(missing_ok=True)
                        raise TapesError("this tape was deleted meanwhile")
        return path

    def place(self, name: str, ending: str) -> Path:
        """Where such a file is, or will be once it was made. Raises TapesError where it cannot be had."""
        recording = self.get(name)
        if ending not in ("tape", "webp", "mp4", "gif"):
            raise TapesError(f"there is no {ending} of a tape: choose mp4, gif, webp or tape")
        path = self._path(name, ending)
        if ending != "tape" and not recording.has_film:
            raise TapesError("this tape has no film: dream it again, and record that")
        if ending in LOOPS and not recording.has_loop:
            raise TapesError(f"this film is too long for a {ending}: take the mp4, it is smaller too")
        return path

    def delete(self, name: str) -> None:
        """Removes a recording. Raises TapesError."""
        self.get(name)
        for ending in ("json", "mp4", "gif", "webp", "frames", "tape"):
            self._path(name, ending).unlink(missing_ok=True)

    def _path(self, name: str, ending: str) -> Path:
        if not NAME.fullmatch(name):
            raise TapesError("there is no such tape: it may have been deleted")
        return self.folder / f"{name}.{ending}"

    def _read(self, path: Path) -> Recording | None:
        try:
            return Recording(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _write(self, tape: Tape, seen: Sequence[Seen], title: str, by_visitor: bool, name: str, whose: str = "",
               film: bytes = b"") -> Recording:
        self.folder.mkdir(parents=True, exist_ok=True)
        recording = Recording(name, title, tape.origin.game, len(tape), time.time(),
                              any(second is not None for _, second in seen), bool(seen or film),
                              tape.origin.sha256, max(0, len(tape.values) - 1), by_visitor, whose, bool(film))
        save_tape(tape, self._path(name, "tape"))
        if seen:
            write_frames(seen, self._path(name, "frames"))
        if film:
            write_whole(self._path(name, "mp4"), film)
        # last: a recording is there when this file is
        write_whole(self._path(name, "json"), json.dumps(asdict(recording)).encode())
        if by_visitor:
            self._thin_out(whose)
        return recording

    def _thin_out(self, whose: str) -> None:
        """Makes room among visitors' recordings: first the oldest of whoever has too many."""
        theirs = [r for r in self.all() if r.by_visitor]
        gone = [r for r in theirs if r.whose == whose][KEPT_OF_ONE:]
        for old in gone + [r for r in theirs if r not in gone][KEPT_OF_VISITORS:]:
            self.delete(old.id)

    def _render(self, recording: Recording, path: Path) -> None:
        """Makes a film of the frames that were seen."""
        beside: Beside | None = None
        frames = read_frames(self._path(recording.id, "frames"))
        head = next(frames, None)
        if head is None:
            raise TapesError("the pictures of this tape are damaged")
        # small pictures are enlarged until they are as large as an Atari game's
        scale = max(1, 64 * SCALE // max(head[0].shape[:2]))
        carrying = partial(carry, self.tape(recording.id))
        try:
            with VideoWriter(path, scale=1 if recording.twin else scale, finish=carrying) as video:
                for first, second in chain([head], frames):
                    if recording.twin:
                        beside = beside or Beside(first.shape[0], first.shape[1], scale)
                        first = beside(first, first * 0 if second is None else second)
                    video.add(first)
        except OSError as error:
            LOG.error("the film %s", path, exc_info=error)
            raise TapesError("this film could not be made: the disk may be full") from error


def cleaned(title: str) -> str:
    """A title of one line, as long as a card has room for."""
    seen = "".join(sign if unicodedata.category(sign) not in ("Cc", "Cs") else " " for sign in title)
    return " ".join(seen.split())[:60].strip()


def write_frames(seen: Sequence[Seen], path: Path) -> None:
    """Every pixel as it was: each picture's shape and length, and its compressed bytes; a second one may be missing."""
    blank = Packed(b"", (0, 0, 0))
    packed = (picture for first, second in seen for picture in (first, second or blank))
    write_whole(path, b"".join(FRAME.pack(*picture.shape, len(picture.data)) + picture.data for picture in packed))


def read_frames(path: Path) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """What `write_frames` wrote: (h, w, 3) images. Raises TapesError for a damaged file."""
    def picture(head: bytes) -> np.ndarray | None:
        *shape, length = FRAME.unpack(head)
        return Packed(file.read(length), tuple(shape)).open() if length else None

    with path.open("rb") as file:
        try:
            while head := file.read(FRAME.size):
                first = picture(head)
                if first is None:
                    raise ValueError("a step without a picture")
                yield first, picture(file.read(FRAME.size))
        except (struct.error, ValueError, zstandard.ZstdError) as error:
            raise TapesError("the pictures of this tape are damaged") from error


def real_steps_of(tape: Tape) -> int:
    """Steps of the real game beside it and before it, and what a new console for each of its beginnings takes."""
    before = sum(CONSOLE + len(trail.actions) for trail in tape.trails.values())
    return before + (len(tape) if tape.has_reality else 0)


def costs_of(tape: Tape) -> Iterator[int]:
    """Network evaluations of each step."""
    each = 0
    for i in range(len(tape)):
        if i in tape.samplers:
            each = tape.samplers[i].num_steps * tape.samplers[i].order
        yield 0 if tape.lived[i] else each * int(tape.mates[i])

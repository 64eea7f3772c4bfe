"""What a command asks of the session, on the worker's thread. Our own."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any

from app.desktop.keys import config_folder

if TYPE_CHECKING:
    from app.session.session import Session
    from app.session.view import Who

WHO_ORDER: tuple[Who, ...] = ("you", "help", "agent", "random")
SPEEDS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)


def data_folder() -> Path:
    """Where saved dreams and tapes go."""
    if sys.platform in ("win32", "darwin"):
        return config_folder()
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "diamond"


def named(folder: str, game: str, ending: str) -> Path:
    """A new file for something of a game, by the time of day."""
    place = data_folder() / folder
    place.mkdir(parents=True, exist_ok=True)
    name = f"{as_file(game)}-{datetime.now():%Y%m%d-%H%M%S}"
    of_this_second = len(list(place.glob(f"{name}*")))
    return place / f"{name}{f'-{of_this_second + 1}' if of_this_second else ''}{ending}"


def as_file(game: str) -> str:
    """A game's name where files can have it: 'gym:ALE/Pong-v5' has signs that they cannot."""
    return re.sub(r"[^\w.-]", "-", game)


def place(path: Path) -> str:
    """Where a file is, in few words."""
    return f"~/{path.relative_to(Path.home()).as_posix()}" if path.is_relative_to(Path.home()) else str(path)


def pause(session: Session) -> None:
    """Time stands still, or goes on."""
    session.paused = not session.paused


def one_step(session: Session) -> None:
    """One step, then time stands still."""
    session.step_once()
    session.tick()


def next_player(session: Session) -> None:
    """You, you with help, the agent, random."""
    session.who = WHO_ORDER[(WHO_ORDER.index(session.who) + 1) % len(WHO_ORDER)]


def wake(session: Session) -> None:
    """Wakes up, or falls asleep again."""
    if session.awake:
        session.fall_asleep()
    else:
        session.wake_up()


def faster(session: Session, by: int = 1) -> None:
    """The next speed up or down."""
    beyond = [speed for speed in SPEEDS if (speed - session.speed) * by > 1e-6]
    session.speed = min(beyond, key=lambda speed: abs(speed - session.speed), default=session.speed)


def slower(session: Session) -> None:
    """The next speed down."""
    faster(session, -1)


def back(session: Session) -> None:
    """A moment back; time stands still."""
    session.paused = True
    session.rewind_to(session.timeline.cursor - 1)


def save(session: Session) -> None:
    """The dream of this instant, as a file."""
    path = named("dreams", session.game, ".safetensors")
    session.save(path)
    session.say(f"saved: {place(path)}")


def load(session: Session) -> None:
    """The newest saved dream of this game."""
    saved = sorted((data_folder() / "dreams").glob(f"{as_file(session.game)}-*.safetensors"))
    if not saved:
        raise ValueError(f"no dream of {session.game} was saved yet: F5 saves one")
    session.load(saved[-1])
    session.say(f"loaded: {saved[-1].name}")


def record(session: Session) -> None:
    """Begins a tape, or ends it and writes it."""
    if session.recorder is None:
        session.start_tape()
    elif not session.recorder.steps:
        session.stop_tape()
        session.say("nothing was recorded: no step was taken")
    else:
        from app.session.tapefile import ENDING, save_tape

        path = named("tapes", session.game, ENDING)
        save_tape(session.recorder.tape(), path)  # it runs on where it could not be written
        session.stop_tape()
        session.say(f"tape: {place(path)}")


def rescue(session: Session) -> None:
    """Keeps the tape of a session that ends while it runs, if not in its folder then in another. Raises OSError."""
    from app.session.tapefile import ENDING, save_tape

    try:
        record(session)
    except OSError as error:
        path = Path(mkdtemp(prefix="diamond-")) / f"{as_file(session.game)}{ENDING}"
        save_tape(session.stop_tape(), path)
        raise OSError(f"the tape is {path}, because its folder cannot be written to ({error})") from error


def open_futures(session: Session) -> None:
    """All actions from here; they are dreamt step by step while the grid shows them."""
    if session.awake:
        raise ValueError("you are awake: fall asleep to see what the dream would bring")
    session.open_fan()


ORDERS: dict[str, tuple[str, Callable[[Session], Any]]] = {
    "view": ("Changing the view", lambda s: s.cycle()),
    "pause": ("Pausing", pause),
    "step": ("Taking a step", one_step),
    "reset": ("Beginning anew", lambda s: s.reset()),
    "slower": ("Slowing down", slower),
    "faster": ("Speeding up", faster),
    "who": ("Changing the player", next_player),
    "wake": ("Going from one world to the other", wake),
    "resync": ("Dreaming from reality's frames", lambda s: s.resync()),
    "record": ("Recording", record),
    "save": ("Saving the dream", save),
    "load": ("Loading a dream", load),
    "futures": ("Dreaming all futures", open_futures),
}
"""Command -> what takes time about it, in words, and what is done."""


def set_knob(name: str, value: Any) -> Callable[[Session], None]:
    """Turns one of the panel's knobs."""
    def job(session: Session) -> None:
        if name in ("resync_every", "horizon", "speed"):
            setattr(session, name, value)
        else:
            session.set_knobs(**{name: value})
    return job


def scrub(moment: int) -> Callable[[Session], None]:
    """To a moment of the timeline; time stands still."""
    def job(session: Session) -> None:
        session.paused = True
        session.rewind_to(moment)
    return job


def stroke(path: list[tuple[int, int]], radius: int, colour: tuple[int, int, int], deep: bool, *, new: bool
           ) -> Callable[[Session], object]:
    """A new stroke of paint, or more of the newest one."""
    return lambda session: session.paint(path, radius, colour, deep=deep, new=new)


def take(action: int) -> Callable[[Session], None]:
    """Goes on at the end of one future; time stands still there."""
    def job(session: Session) -> None:
        session.take_branch(action)
        session.paused = True
    return job

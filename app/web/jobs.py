"""Trainings as children of nobody: `diamond train` in a session of its own, found again by what lies in its folder.

Our own. A run is a folder; `job.json` in it says which process trains there. Closing the page or the server ends
nothing; stopping is the signal that Ctrl-C sends, so everything is saved.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from app.web.progress import BAR, is_over, read_metrics
from diamond_core import envs
from diamond_core.config import TrainConfig
from diamond_core.files import write_whole
from diamond_core.presets import PRESETS
from diamond_core.training.checkpoint import read_card
from diamond_core.training.run import Run, RunError

State = Literal["training", "stopping", "stopped", "finished", "failed", "unreadable"]
NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,59}")
JOB, LOG = "job.json", "train.log"
MOST_SEED = 2**31 - 1
START = "import sys; from app.cli import main; main(sys.argv[1:])"
ASKED_TO_STOP: int = getattr(signal, "CTRL_BREAK_EVENT", signal.SIGTERM)
"""On Windows, which has the break key, SIGTERM ends a process at once, unsaved."""
FAILED = re.compile("^diamond:|Error")
"""The last word of a process that says why it fell."""
FRESH = 600.0
"""Seconds since the last line of metrics within which somebody else's training may still be under way."""


class JobError(ValueError):
    """Something that cannot be started or stopped, in words for the person."""


@dataclass(frozen=True)
class Order:
    """What somebody wants to train."""

    game: str
    preset: str = "playground"
    name: str = ""
    """Of the run; by default the game's and a number."""
    minutes: float | None = None
    """After which it stops cleanly; none = when it is done."""
    dataset: str | None = None
    """A folder of play to learn from instead of collecting."""
    initial: str | None = None
    """A checkpoint whose world training goes on from, of this game or another one; none = new weights."""
    seed: int = 0
    epochs: int | None = None
    """Epochs after the last collection; none = the preset's."""
    batch_size: int | None = None
    """Of the denoiser; none = the preset's."""
    learning_rate: float | None = None
    """Of the denoiser; none = the preset's."""


@dataclass(frozen=True)
class Status:
    """How a run is doing."""

    name: str
    config: TrainConfig
    state: State
    ours: bool
    """Whether it can be stopped from here: whoever started it in a terminal stops it there."""
    started: float | None
    """Unix time at which the process that trains now was started."""
    last_words: str
    """The last line of its log, where it failed."""
    until: float | None = None
    """Unix time at which it will stop, where a time was chosen."""


class Jobs:
    """All runs in one folder."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self._children: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, order: Order) -> str:
        """Begins a run and returns its name. Raises JobError."""
        arguments = arguments_of(order)
        name = order.name.strip() or self._free_name(order.game)
        if not NAME.fullmatch(name):
            raise JobError(f"a run's name is made of letters, digits, '.', '_' and '-', got '{name}'")
        folder = self.runs / name
        if folder.exists():
            raise JobError(f"there is a run '{name}' already: choose another name, or resume it")
        self._spawn(folder, arguments, order.minutes)
        return name

    def resume(self, name: str, minutes: float | None = None) -> None:
        """Goes on with a run as if it had never stopped. Raises JobError."""
        status = self.status(name)
        if status.state in ("training", "stopping"):
            raise JobError(f"{name} is being trained already")
        limit = [] if minutes is None else ["--time-limit", f"{max(minutes, 0.1) * 60:.0f}s"]
        self._spawn(self.runs / name, ["--resume", *limit], minutes)

    def stop(self, name: str) -> None:
        """Asks a run to save everything and end. Raises JobError."""
        status, job = self.status(name), self._job(name)
        if status.state == "stopping":
            return
        if status.state != "training":
            raise JobError(f"{name} is not being trained")
        if not status.ours:
            raise JobError(f"{name} was started elsewhere: press Ctrl-C there")
        try:
            os.kill(job["pid"], ASKED_TO_STOP)
        except ProcessLookupError:
            raise JobError(f"{name} has just ended by itself") from None
        write_whole(self.runs / name / JOB, json.dumps({**job, "asked": True}).encode())

    def delete(self, name: str) -> None:
        """Removes a run and everything in it. Raises JobError while it is trained."""
        if self.status(name).state in ("training", "stopping"):
            raise JobError(f"{name} is being trained: stop it first")
        folder = self._folder(name)
        gone = folder.with_name(f".{folder.name}.gone")
        try:
            # whoever trains in a terminal may not have said a word for long: the lock knows
            lock = Run(folder).lock()
        except RunError:
            raise JobError(f"{name} is being trained elsewhere: stop it there first") from None
        try:
            if os.name == "nt":
                # Windows moves no folder in which a file is open
                lock.release()
            os.replace(folder, gone)
        finally:
            lock.release()
        shutil.rmtree(gone)
        self._log(folder).unlink(missing_ok=True)

    def names(self) -> list[str]:
        """All runs, the newest first."""
        if not self.runs.is_dir():
            return []
        folders = [f for f in self.runs.iterdir() if f.is_dir() and not f.name.startswith(".")
                   and ((f / "config.json").is_file() or (f / JOB).is_file())]
        return [f.name for f in sorted(folders, key=lambda f: f.stat().st_mtime, reverse=True)]

    def status(self, name: str) -> Status:
        """How one run is doing. Raises JobError where there is none."""
        folder, job, wrong = self._folder(name), self._job(name), ""
        try:
            config = Run(folder).config()
        except RunError as error:
            # just begun, or failed before it could write its configuration; or another version's
            config = TrainConfig(job.get("game") or "?")
            wrong = str(error) if not job or Run(folder).exists else ""
        is_ours = bool(job) and self._lives(job["pid"], folder)
        state: State = "stopping" if job.get("asked") else "training"
        if not is_ours:
            state = "training" if self._is_held(folder) else "unreadable" if wrong else self._ended(folder, config)
        words = last_line(self._log(folder)) if state == "failed" else wrong
        if state == "failed" and not FAILED.search(words):
            words = "it ended without saving, perhaps for want of memory: Go on takes up what was saved before"
        started, minutes = job.get("started") if is_ours else None, job.get("minutes")
        return Status(name, config, state, is_ours, started, words,
                      None if started is None or minutes is None else started + 60 * minutes)

    def log(self, name: str, lines: int = 12) -> str:
        """The end of what a training said."""
        return "\n".join(tail(self._log(self._folder(name)))[-lines:])

    def _folder(self, name: str) -> Path:
        """Raises JobError: only names that were found can be used."""
        if name not in self.names():
            raise JobError(f"there is no run '{name}'")
        return self.runs / name

    @staticmethod
    def _log(folder: Path) -> Path:
        """What a training says: in its folder, or beside it where that could not be moved there."""
        return folder / LOG if (folder / LOG).exists() else folder.parent / f".{folder.name}.log"

    def _job(self, name: str) -> dict[str, Any]:
        try:
            job = json.loads((self.runs / name / JOB).read_text())
            return job if isinstance(job, dict) and isinstance(job.get("pid"), int) else {}
        except (OSError, ValueError):
            return {}

    def _spawn(self, folder: Path, arguments: list[str], minutes: float | None) -> None:
        folder.parent.mkdir(parents=True, exist_ok=True)
        where = self._log(folder)
        game = arguments[arguments.index("--game") + 1] if "--game" in arguments else None
        command = [sys.executable, "-c", START, "train", "--run", str(folder), *arguments]
        # the trainer wants an empty folder: its words wait beside it until it has made its own
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        with where.open("ab") as out:
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env=environment,
                                     start_new_session=True,
                                     creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0))
        self._children[child.pid] = child
        job = {"pid": child.pid, "started": time.time(), "game": game, "minutes": minutes}
        deadline = time.monotonic() + 60
        while not (folder / "config.json").exists():
            if child.poll() is not None or time.monotonic() > deadline:
                words = last_line(where) or "it did not begin within a minute"
                if child.poll() is None:
                    child.kill()
                    child.wait()
                if where != folder / LOG:
                    where.unlink(missing_ok=True)
                raise JobError(words.removeprefix("diamond: "))
            time.sleep(0.05)
        if os.name == "posix":
            # Windows moves no file that is open
            os.replace(where, folder / LOG)
        write_whole(folder / JOB, json.dumps(job).encode())

    def _free_name(self, game: str) -> str:
        stem = re.sub(r"\W+", "-", game.removeprefix("gym:")).strip("-") or "run"
        number = 1
        while (self.runs / f"{stem}-{number}").exists():
            number += 1
        return f"{stem}-{number}"

    def _lives(self, pid: int, folder: Path) -> bool:
        """Whether a process is still the one that trains this run."""
        child = self._children.get(pid)
        if child is not None:
            return child.poll() is None
        if sys.platform != "linux":
            # a process is not asked for its command there, and its number may belong to another one by now
            return self._is_locked(folder)
        try:
            process = Path(f"/proc/{pid}")
            words = os.fsdecode((process / "cmdline").read_bytes()).split("\0")
            return (process / "cwd" / words[words.index("--run") + 1]).resolve() == folder.resolve()
        except (OSError, ValueError, IndexError):
            return False

    def _is_held(self, folder: Path) -> bool:
        """Whether a process that was not started from here trains in this folder."""
        metrics = folder / "metrics.jsonl"
        # to ask is to hold the lock for a moment: only where somebody may be at work
        return metrics.exists() and time.time() - metrics.stat().st_mtime <= FRESH and self._is_locked(folder)

    @staticmethod
    def _is_locked(folder: Path) -> bool:
        if not (folder / ".lock").exists():
            return False
        try:
            with FileLock(folder / ".lock", timeout=0):
                return False
        except Timeout:
            return True

    @staticmethod
    def _ended(folder: Path, config: TrainConfig) -> State:
        words = last_line(Jobs._log(folder))
        # in a terminal it says so to nobody else
        if words.startswith("finished") or is_over(config, read_metrics(folder / "metrics.jsonl")):
            return "finished"
        # a bar is the last word of a process that was killed, unless the run went on in a terminal
        log, metrics = (path.stat().st_mtime if path.exists() else 0.0
                        for path in (Jobs._log(folder), folder / "metrics.jsonl"))
        return "failed" if FAILED.search(words) or (BAR.match(words) and metrics < log + FRESH) else "stopped"


def arguments_of(order: Order) -> list[str]:
    """An order as options of `diamond train`. Raises JobError for what cannot be."""
    if order.preset not in PRESETS:
        raise JobError(f"unknown preset '{order.preset}': use one of {', '.join(PRESETS)}")
    game = canonical(order.game)
    arguments = ["--game", game, "--preset", order.preset, "--seed", str(order.seed)]
    if order.minutes is not None and not 0 < order.minutes < 10**6:
        raise JobError(f"choose more than 0 minutes, or 0 to go on until it is done; got {order.minutes:g}")
    if not 0 <= order.seed <= MOST_SEED:
        raise JobError(f"choose a seed of 0 to {MOST_SEED}, got {order.seed:.6g}")
    if order.minutes is not None:
        arguments += ["--time-limit", f"{max(order.minutes, 0.1) * 60:.0f}s"]
    if order.dataset is not None:
        arguments += ["--dataset", order.dataset]
    numbers = {"--final-epochs": ("epochs", order.epochs, 10**6),
               "--denoiser.batch-size": ("a batch size", order.batch_size, 10**4),
               "--denoiser.learning-rate": ("a learning rate", order.learning_rate, 1)}
    for option, (what, value, most) in numbers.items():
        if value is not None:
            if not 0 < value <= most:
                raise JobError(f"choose {what} of more than 0 and at most {most}, or 0 for the preset's; got {value}")
            arguments += [option, str(value)]
    if order.initial is not None:
        # the player of another game has nothing to teach; a world has, and goes on to see as many frames as it did
        its = read_card(Path(order.initial)).config.denoiser
        arguments += ["--init", order.initial, "--initial-models", "denoiser", "reward_end",
                      "--agent.denoiser.num-conditioning-frames", str(its.num_conditioning_frames),
                      "--agent.denoiser.num-conditioning-actions", str(its.num_conditioning_actions)]
    return arguments


def canonical(game: str) -> str:
    """A game as it is spelled everywhere. Raises JobError for one that does not exist."""
    game = game.strip()
    try:
        return envs.canonical(game)
    except Exception as error:
        # gymnasium has errors of its own for ids that it does not know
        raise JobError(" ".join(str(error).split()) or f"there is no game '{game}'") from None


def tail(path: Path, size: int = 16 * 1024) -> list[str]:
    """The last lines of a file; of a progress bar only what it says in the end."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - size))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    text = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", text)
    return [line.rsplit("\r", 1)[-1].rstrip() for line in text.split("\n") if line.strip()]


def last_line(path: Path) -> str:
    """What was said last."""
    return (tail(path) or [""])[-1]

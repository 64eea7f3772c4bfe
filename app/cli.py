"""The command line, `diamond ...`: parse, build, hand over. Heavy imports wait until a command is chosen."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

COMMANDS = {
    "play": ("app.commands.play", "play", "step into a dream: play [GAME|CHECKPOINT]"),
    "train": ("app.commands.train", "train", "train a world and an agent: --game Pong --preset playground --run DIR"),
    "collect": ("app.commands.data", "collect", "gather a dataset: --game Pong --steps 100000 --out DIR"),
    "browse": ("app.commands.play", "browse", "look at recorded play: browse DATASET|RUN|TAPES"),
    "record": ("app.commands.play", "record", "a dream as a video: record CKPT --out dream.mp4 [--twin]"),
    "replay": ("app.commands.tape", "replay", "a tape again: replay TAPE [--verify] [--from 120] [--render dream.mp4]"),
    "tapes": ("app.commands.tape", "tapes", "tapes as training data: tapes TAPE... --out DIR"),
    "evaluate returns": ("app.commands.evaluate", "returns", "the agent's score in the real game"),
    "evaluate fidelity": ("app.commands.evaluate", "fidelity", "how true the dream is, on held-out episodes"),
    "evaluate free": ("app.commands.dreams", "free", "what becomes of dreams that are left alone"),
    "evaluate events": ("app.commands.dreams", "events", "do points and ends come to pass in the dream"),
    "evaluate chaos": ("app.commands.dreams", "chaos", "how well the game foretells itself, a pixel aside"),
    "evaluate schedules": ("app.commands.dreams", "schedules", "which noise levels serve few denoising steps best"),
    "evaluate aggregate": ("app.commands.evaluate", "aggregate", "scores over games, with intervals"),
    "bench": ("app.commands.bench", "bench", "how fast everything runs on this machine, beside the plain path"),
    "web": ("app.commands.web", "web", "the page: play, compare, train, record and share from a browser"),
    "import": ("app.commands.data", "import_", "bring in a published .pt checkpoint, from a file or the Hub"),
    "export": ("app.commands.data", "export", "a compact copy of a checkpoint or of a run's newest moment"),
    "export space": ("app.commands.web", "export_space", "a folder that runs as a Hugging Face Space"),
    "games": ("app.commands.data", "games", "list the games and the installed checkpoints"),
}

LARGEST_SCALE = 64
"""Pixels that a pixel may become in a film: an Atari game's are 4,096 a side then."""


def main(argv: list[str] | None = None) -> None:
    """Runs one command. Exit code 0, or 2 with one line where the input was wrong; --debug shows the traceback."""
    args = sys.argv[1:] if argv is None else argv
    debug = "--debug" in args
    args = [a for a in args if a != "--debug"]
    # a remark behind a command is one for bash, and an argument for the zsh that macOS comes with
    args = args[:args.index("#")] if "#" in args else args
    prepare()
    try:
        run(args)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # who reads has seen enough (`| head`); nothing more can be said, at Python's end neither
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except (ValueError, OSError, ImportError) as error:
        if debug:
            raise
        print(f"diamond: {explain(error)}", file=sys.stderr)
        sys.exit(2)


def prepare() -> None:
    """What torch must find in the environment when it is imported first."""
    # Idle threads that spin starve every other program: with one busy neighbour on two cores torch was 70 times slower
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # threads beyond what a container may use wait for each other at every layer: 32 on two cores took ten times as long
    if (cores := quota()) is not None:
        os.environ.setdefault("OMP_NUM_THREADS", str(cores))
    # MKL chooses kernels by memory address; a tape played again in another process must not differ in the last bit
    os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")


def run(args: list[str]) -> None:
    """Finds the command, parses what follows by its signature, and calls it."""
    if not args or args[0] in ("-h", "--help", "help"):
        print(overview())
        return
    name = " ".join(args[:2]) if " ".join(args[:2]) in COMMANDS else args[0]
    if name not in COMMANDS:
        parts = [c for c in COMMANDS if c.split()[0] == args[0]]
        if parts and args[1:2] in ([], ["--help"], ["-h"]):
            print(overview(parts))
            return
        raise ValueError(f"unknown command '{' '.join(args[:2]) if parts else args[0]}': "
                         f"use one of {', '.join(parts or COMMANDS)}")
    module, function, _ = COMMANDS[name]
    command: Callable[[list[str]], None] = getattr(importlib.import_module(module), function)
    command(args[len(name.split()):])


def overview(names: list[str] | None = None) -> str:
    """All commands, a line each."""
    lines = [f"  diamond {name:<19} {COMMANDS[name][2]}" for name in names or COMMANDS]
    return "\n".join(["Play Atari games inside a learned world model, and train your own.", "", *lines, "",
                      "  diamond COMMAND --help   its options;  --debug   show tracebacks"])


def quota(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Cores that this container may use at once; none where nobody says, or where there are no more."""
    try:
        used, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:  # the older kind
            used, period = ((root / f"cpu/cpu.cfs_{name}_us").read_text().strip() for name in ("quota", "period"))
        except OSError:
            return None
    if not used.isdecimal() or not period.isdecimal():  # max, or -1
        return None
    cores = max(1, -(-int(used) // int(period)))
    return cores if cores < (os.cpu_count() or 1) else None


def spread(paths: Iterable[Path]) -> list[Path]:
    """Each path, and for `*.tape` what it stands for: Windows leaves that to the program."""
    found = ((path, sorted(path.parent.glob(path.name)) if "*" in path.name else []) for path in paths)
    return [p for path, those in found for p in those or [path]]


def new_file(path: Path) -> Path:
    """A file that will be written when the work is done: its folder is made now. Raises ValueError for a folder."""
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give --out the name of a file")
    path.parent.mkdir(parents=True, exist_ok=True)
    return writable(path)


def new_files(folder: Path) -> Path:
    """A folder, made now, for files that will be written when the work is done. Raises ValueError for a file."""
    if folder.is_file():
        raise ValueError(f"{folder} is a file: give --out the name of a folder")
    folder.mkdir(parents=True, exist_ok=True)
    return writable(folder / "x").parent


def writable(path: Path) -> Path:
    """The same path. Raises ValueError where nothing may be written to it."""
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{path.parent} may not be written to: choose another place with --out")
    return path


def at_least(least: int, **counts: int) -> None:
    """Raises ValueError for an option that is less."""
    for name, count in counts.items():
        if count < least:
            raise ValueError(f"--{name.replace('_', '-')} must be {least} or more, got {count}")


def is_scale(scale: int) -> None:
    """Raises ValueError for pixels that cannot become so many."""
    if not 1 <= scale <= LARGEST_SCALE:
        raise ValueError(f"--scale must be from 1 to {LARGEST_SCALE}, got {scale}")


def is_seed(seed: int) -> None:
    """Raises ValueError for --seed where it is none: streams of numbers are told apart by the bits above."""
    if not 0 <= seed < 2**31:
        raise ValueError(f"--seed must be 0 to {2**31 - 1}, got {seed}")


def parse(target: Callable[..., Any], name: str, args: list[str], default: Any = None) -> Any:
    """tyro's parser, with errors as one line. `target` is a dataclass, or a function that is called."""
    import tyro

    options: dict[str, Any] = {} if default is None else {"default": default}
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(target, prog=f"diamond {name}", args=args, config=(tyro.conf.OmitArgPrefixes,)
                            if default is None else (), **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise ValueError(one_line(errors.getvalue())) from None


def one_line(message: str) -> str:
    """A parser's boxed message as one line."""
    text = re.sub("\x1b\\[[0-9;]*m|[\u2500-\u257f]|-{5,}", " ", message)
    text = re.sub(r"For full helptext.*", "", " ".join(text.split()))
    text = re.sub(r"^([A-Z][a-z ]+) (?=\1)", "", text)  # the box's title, said again inside
    return text.replace("Parsing error ", "", 1).strip() or "the options could not be read: see --help"


def explain(error: Exception) -> str:
    """An error in one line; a full disk by its name."""
    if isinstance(error, OSError) and error.errno == 28:
        where = f" while writing {error.filename}" if error.filename else ""
        return f"no space left on the disk{where}: free some, then go on"
    return " ".join(str(error).split()) or type(error).__name__

"""Recorded play as reels: episodes of a dataset, of a run, of a file, and tapes, read one at a time. Our own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from app.session.look import called

if TYPE_CHECKING:
    from diamond_core.training.run import Run

FILES = (".episode", ".tape", ".mp4")
"""What single files may end in; a film carries its tape."""


@dataclass(frozen=True)
class Reel:
    """T steps to look at."""

    frames: np.ndarray
    """(T + 1, h, w, 3) uint8."""
    actions: np.ndarray
    """(T,) int64."""
    rewards: np.ndarray
    """(T,) float32."""
    ends: np.ndarray
    """(T,) bool."""
    names: tuple[str, ...]
    """What the actions are called; empty where nobody said."""
    facts: tuple[tuple[str, str], ...]
    """Where it comes from: names and values."""
    lived: np.ndarray | None = None
    """(T,) bool: steps in reality only; None where all are."""

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(frozen=True)
class Shelf:
    """What can be looked at: names in order, and a way to read each."""

    title: str
    names: tuple[str, ...]
    read: tuple[Callable[[], Reel], ...]
    quick: bool = False
    """Whether reading one takes no longer than opening a file."""


def open_shelf(source: Path, checkpoint: str | None = None) -> Shelf:
    """Of a dataset, a run, an episode file, a tape or a folder of tapes. Raises ValueError for anything else."""
    from diamond_core.replay.dataset import INFO
    from diamond_core.training.run import Run

    if (source / INFO).is_file():
        return _dataset(source)
    if source.is_dir() and Run(source).exists:
        return _run(Run(source))
    if not source.exists():
        raise ValueError(f"{source} does not exist: check the path")
    files = [source] if source.is_file() else sorted(file for file in source.iterdir() if file.suffix in FILES)
    if not files or files[0].suffix not in FILES:
        raise ValueError(f"{source} is nothing to look at: expected a dataset (a folder with {INFO}), a run, or files "
                         f"that end in {', '.join(FILES)}")
    return Shelf(called(source), tuple(f.stem for f in files), tuple(partial(_file, f, checkpoint) for f in files))


def _dataset(folder: Path, title: str | None = None) -> Shelf:
    from diamond_core.replay import DatasetInfo

    names = DatasetInfo.load(folder).action_names
    files = sorted(file for file in folder.glob("*.episode") if file.stem.isdecimal())
    if not files:
        raise ValueError(f"{folder} holds no episode yet: collect some first")
    return Shelf(title or called(folder), tuple(f"episode {int(file.stem)}" for file in files),
                 tuple(partial(episode, file, names) for file in files), quick=True)


def _run(run: Run) -> Shelf:
    """The data of a run: its own, or what it was told to learn from."""
    told = run.config().dataset
    folder = run.dataset if told is None else Path(told)
    if not folder.is_dir():
        raise ValueError(f"{run.folder} has no data: expected it in {folder}")
    return _dataset(folder, called(run.folder))


def _file(file: Path, checkpoint: str | None) -> Reel:
    return episode(file, ()) if file.suffix == ".episode" else tape(file, checkpoint)


def episode(file: Path, names: tuple[str, ...]) -> Reel:
    """One episode file."""
    from diamond_core.pixels import to_hwc
    from diamond_core.replay import Episode

    its = Episode.load(file)
    images = to_hwc(its.frames)
    frames = np.ascontiguousarray(np.broadcast_to(images, (*images.shape[:3], 3)))
    facts = tuple((str(name), str(value)) for name, value in its.info.items())
    return Reel(frames, its.actions.numpy(), its.rewards.numpy(), (its.ends | its.truncs).numpy(), names, facts)


def tape(file: Path, checkpoint: str | None) -> Reel:
    """A tape, dreamt again by `checkpoint` or by the installed one that recorded it."""
    from app.session.library import dreamt_by
    from app.session.tapefile import load_tape
    from app.session.twin import rgb
    from diamond_core.training.library import load
    from diamond_core.world.accelerate import engines_of

    its = load_tape(file)
    agent = load(checkpoint or dreamt_by(its.origin.sha256, its.origin.game))
    world = agent.world()
    engines = engines_of(set(its.paths.values()), world, agent.config.frame_shape)
    played = list(its.replay(world, engines=engines))
    frames = [p.reality if p.lived and p.reality is not None else p.frame for p in played]
    first = rgb(its.state(0, world).frames[0, -1]) if 0 in its.values else frames[0]
    facts = (("game", its.origin.game), ("true to the tape", "yes" if all(map(its.check, played)) else "no"))
    return Reel(np.stack([first, *frames]), its.actions, its.rewards, its.ends, its.origin.action_names, facts,
                its.lived)

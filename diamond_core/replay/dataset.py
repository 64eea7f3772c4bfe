"""Everything that was ever played, in order of age: in RAM for speed and in a folder for tomorrow.

A folder holds `info.json` and one file an episode; the layout is our own.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from diamond_core.files import write_whole
from diamond_core.replay.episode import Episode

INFO = "info.json"
THREADS = min(8, os.cpu_count() or 1)


class DatasetError(ValueError):
    """A folder that is no dataset, or episodes that do not belong to it."""


@dataclass(frozen=True)
class DatasetInfo:
    """What all episodes of a dataset have in common; stands in `info.json`."""

    game: str
    action_names: tuple[str, ...]
    """A names; action i of an episode is the i-th."""
    frame_shape: tuple[int, int, int] = (3, 64, 64)
    """(c, h, w)."""
    policy: str = ""
    """Who played, in words; "human" for recorded play. May differ between datasets that go together."""

    @classmethod
    def load(cls, folder: Path) -> DatasetInfo:
        """Reads `info.json`; raises `DatasetError` where there is none or it cannot be read."""
        try:
            values = json.loads((folder / INFO).read_text(encoding="utf-8"))
            names, shape = tuple(values["action_names"]), tuple(values["frame_shape"])
            return cls(values["game"], names, shape, values["policy"])
        except (FileNotFoundError, NotADirectoryError):
            raise DatasetError(f"{folder}: expected a dataset, found no {INFO}; check the path") from None
        except (ValueError, KeyError, TypeError) as error:
            advice = "restore it from a copy, or write it anew with DatasetInfo.save"
            raise DatasetError(f"{folder / INFO}: expected what all episodes share ({error}); {advice}") from error

    def save(self, folder: Path) -> None:
        """Writes `info.json` in one step."""
        write_whole(folder / INFO, (json.dumps(asdict(self), indent=2) + "\n").encode())

    def require(self, other: DatasetInfo) -> None:
        """Raises `DatasetError` where the other's game, actions or image size differ."""
        for name in ("game", "action_names", "frame_shape"):
            here, there = getattr(self, name), getattr(other, name)
            if here != there:
                raise DatasetError(f"{name}: expected {there}, the dataset has {here}; choose another folder")


class _Entry(NamedTuple):
    number: int
    """The name of the file; it outlives the loss of other episodes."""
    episode: Episode
    stamp: tuple[int, int] | None
    """Which version of the file this is; None in RAM only."""


class Dataset:
    """Episodes in order of age. One process adds, replaces and rolls back; others may `refresh`."""

    def __init__(self, folder: Path | None, info: DatasetInfo) -> None:
        """What is in the folder, which is made where it is missing; without a folder, in RAM only and empty."""
        self.folder, self.info = folder, info
        self._entries: list[_Entry] = []
        if folder is not None:
            self._settle(folder)
            self.refresh()

    @classmethod
    def open(cls, folder: Path, info: DatasetInfo | None = None) -> Dataset:
        """An existing dataset, all of it in RAM; where `info` is given, game, actions and image size must agree."""
        stored = DatasetInfo.load(folder)
        return cls(folder, info or stored)

    def _settle(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / INFO).exists():
            self.info.save(folder)
        stored = DatasetInfo.load(folder)
        stored.require(self.info)
        self.info = stored

    def __getitem__(self, index: int) -> Episode:
        return self._entries[index].episode

    @property
    def num_episodes(self) -> int:
        """How many, the unfinished one included."""
        return len(self._entries)

    @property
    def num_steps(self) -> int:
        """The sum of their lengths."""
        return int(self.lengths.sum())

    @property
    def lengths(self) -> np.ndarray:
        """(num_episodes,) int64, oldest first."""
        return np.array([len(entry.episode) for entry in self._entries], dtype=np.int64)

    def counts_rewards(self) -> np.ndarray:
        """(3,) int64: how many rewards are negative, zero and positive."""
        return _count((entry.episode.rewards.sign().long() + 1 for entry in self._entries), 3)

    @property
    def num_rare_rewards(self) -> int:
        """Rewards of all signs but the most frequent one."""
        counts = self.counts_rewards()
        return int(counts.sum() - counts.max())

    def counts_ends(self) -> np.ndarray:
        """(2,) int64: how many steps went on and how many ended an episode."""
        return _count((entry.episode.ends.long() for entry in self._entries), 2)

    def add(self, episode: Episode) -> int:
        """Puts the newest episode at the end, on disk first; returns its index."""
        number = self._entries[-1].number + 1 if self._entries else 0
        if self.folder is not None and self._path(number).exists():
            raise DatasetError(f"{self._path(number)}: expected no such file, found one; refresh() before adding")
        self._entries.append(self._store(number, episode))
        return self.num_episodes - 1

    def replace(self, index: int, episode: Episode) -> None:
        """Puts an unfinished episode that has grown in its old place; its info stays, so that it can be rolled back."""
        number, old, _ = self._entries[index]
        if old.info != episode.info or not torch.equal(old.actions, episode.actions[: len(old)]):
            raise DatasetError(f"episode {index}: expected the same info, steps and more, got others; add() it instead")
        self._entries[index] = self._store(number, episode)

    def refresh(self) -> int:
        """Makes RAM equal to the folder, for what another process did there; returns how many episodes were read."""
        known = {entry.number: entry for entry in self._entries}
        found = {number: _stamp(self._path(number)) for number in self._numbers()}
        stale = [number for number in found if number not in known or known[number].stamp != found[number]]
        with ThreadPoolExecutor(THREADS) as pool:
            read = zip(stale, pool.map(self._load, stale), strict=True)
            known |= {number: _Entry(number, episode, found[number]) for number, episode in read}
        self._entries = [known[number] for number in found]
        return len(stale)

    def rollback(self, lengths: Sequence[int]) -> None:
        """Makes RAM and folder what they were when `self.lengths` was this, and clears away interrupted writes.

        Raises `DatasetError`, and changes nothing, where that state cannot be reached any more.
        """
        if self.folder is not None:
            self.refresh()
        kept = self._entries[: len(lengths)]
        whole = [entry.number for entry in kept] == list(range(len(lengths)))
        if not whole or any(len(entry.episode) < length for entry, length in zip(kept, lengths, strict=True)):
            expected = f"{len(lengths)} episodes and {sum(lengths)} steps"
            raise DatasetError(f"expected {expected} or more in {self.folder}, some are missing; restore them, or "
                               "begin another run with --dataset and what is left")
        self._discard(len(lengths))
        for index, (entry, length) in enumerate(zip(kept, lengths, strict=True)):
            if len(entry.episode) > length:
                self._entries[index] = self._store(entry.number, entry.episode.clip(length))

    def split(self, test: slice) -> tuple[Dataset, Dataset]:
        """(train, test): whole episodes, the same frames, in RAM only, as they stand now.

        `slice(-5, None)` holds out the five newest, `slice(9, None, 10)` every tenth.
        """
        held = set(range(self.num_episodes)[test])
        parts = Dataset(None, self.info), Dataset(None, self.info)
        for index, entry in enumerate(self._entries):
            parts[index in held]._entries.append(entry)
        return parts

    def oldest(self, lengths: Sequence[int]) -> Dataset:
        """What it was when it had these lengths, in RAM only. Raises `DatasetError` where it did not just grow."""
        if self.lengths[: len(lengths)].tolist() != list(lengths):
            raise DatasetError(f"expected {self.folder} to begin with the {len(lengths)} episodes and {sum(lengths)} "
                               "steps that were learned from, got others; restore them")
        return self.split(slice(len(lengths), None))[0]

    def _store(self, number: int, episode: Episode) -> _Entry:
        self._check(episode, f"episode {number}")
        if self.folder is None:
            return _Entry(number, episode.compact(), None)
        episode.save(self._path(number))
        return _Entry(number, episode.compact(), _stamp(self._path(number)))

    def _load(self, number: int) -> Episode:
        episode = Episode.load(self._path(number))
        self._check(episode, str(self._path(number)))
        return episode

    def _check(self, episode: Episode, name: str) -> None:
        shape, actions = tuple(episode.frames.shape[1:]), len(self.info.action_names)
        if shape != self.info.frame_shape:
            raise DatasetError(f"{name}: expected frames of {self.info.frame_shape}, got {shape}")
        if not len(episode) or not 0 <= int(episode.actions.min()) <= int(episode.actions.max()) < actions:
            raise DatasetError(f"{name}: expected one step or more and actions from 0 to {actions - 1}, got others")

    def _discard(self, first: int) -> None:
        """Deletes episodes, newest first so that what remains is a dataset at any moment, and temporary files."""
        if self.folder is not None:
            numbers = [entry.number for entry in self._entries[first:]]
            for path in [*self.folder.glob("*.tmp"), *map(self._path, reversed(numbers))]:
                path.unlink()
        del self._entries[first:]

    def _numbers(self) -> list[int]:
        names = os.listdir(self.folder)
        return sorted(int(name[:-8]) for name in names if re.fullmatch(r"\d{6,}\.episode", name))

    def _path(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"{number:06d}.episode"


def _count(classes: Iterable[torch.Tensor], num_classes: int) -> np.ndarray:
    return torch.cat([torch.zeros(0, dtype=torch.int64), *classes]).bincount(minlength=num_classes).numpy()


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_ino, status.st_mtime_ns

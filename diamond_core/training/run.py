"""A run's folder: its configuration, its whole state, its saved moments, its data and its metrics.

    config.json  state.pt  metrics.jsonl  tensorboard/  dataset/  checkpoints/epoch_0001/ ...

`state.pt` is replaced in one step, a moment appears in one step: a killed process leaves the one before.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cattrs
import torch
from filelock import FileLock, Timeout

from diamond_core.config import TrainConfig
from diamond_core.files import write_whole
from diamond_core.training.checkpoint import CONVERTER

MAY_CHANGE = ("runtime", "save_every", "keep_checkpoints")
"""Settings that do not change what is learned, so that a resumed run may differ in them."""


class RunError(ValueError):
    """A run folder that cannot be used."""


class Run:
    """The folder of one training run."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state_path = folder / "state.pt"
        self.checkpoints = folder / "checkpoints"
        self.dataset = folder / "dataset"
        self._config_path = folder / "config.json"

    @property
    def exists(self) -> bool:
        """Whether a run was ever begun here."""
        return self._config_path.exists()

    def begin(self, config: TrainConfig) -> None:
        """Creates the folder, or checks that it belongs to the same configuration. Raises RunError."""
        if self.exists and (self.state_path.exists() or self.moments() or self._has_data()):
            known = self.config()
            check_same(known, config, self.folder)
            if known.dataset != config.dataset:  # it was moved; what is in it is compared when it is opened
                self._write(dataclasses.replace(known, dataset=config.dataset))
            return
        # a command that was refused before anything was done leaves a configuration that binds nobody
        if not self.exists and self.folder.exists() and (
                not self.folder.is_dir() or any(p.name != ".lock" for p in self.folder.iterdir())):
            raise RunError(f"{self.folder} is not empty and holds no run: choose another folder or remove it first")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._write(config)

    def _write(self, config: TrainConfig) -> None:
        write_whole(self._config_path, json.dumps(CONVERTER.unstructure(config), indent=2).encode() + b"\n")

    def config(self) -> TrainConfig:
        """The configuration that the run was begun with."""
        try:
            return CONVERTER.structure(json.loads(self._config_path.read_text()), TrainConfig)
        except FileNotFoundError:
            raise RunError(f"{self.folder} holds no run: expected {self._config_path.name}; begin one without --resume"
                           ) from None
        except (json.JSONDecodeError, cattrs.BaseValidationError) as error:
            raise RunError(f"{self._config_path} is damaged, or another version wrote it: restore it, go on with "
                           "that version, or begin another run") from error

    def _has_data(self) -> bool:
        return self.dataset.is_dir() and any(self.dataset.glob("*.episode"))

    def lock(self) -> FileLock:
        """Held while a process trains here. Raises RunError if another one does."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunError(f"{self.folder} is being trained by another process: wait for it or stop it") from None
        return lock

    def save_state(self, state: dict[str, Any]) -> None:
        """Replaces the whole state in one step."""
        temporary = self.state_path.with_suffix(".tmp")
        try:
            with temporary.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, self.state_path)
        except BaseException as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, RuntimeError):  # torch's word for a write that fell short, as on a full disk
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.state_path)) from error
            raise

    def load_state(self) -> dict[str, Any] | None:
        """The newest whole state, or None if none was saved yet."""
        instead = f"restore it, or begin another run with what this one learned and played (--init {self.folder}" + (
            f" --dataset {self.dataset})" if self._has_data() else ")")
        if not self.state_path.exists():
            if self.moments():
                raise RunError(f"{self.state_path} is missing, and nothing goes on without it: {instead}")
            return None
        try:
            state: dict[str, Any] = torch.load(self.state_path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or not {"position", "learners", "episodes"} <= state.keys():
                raise ValueError("it is no state of a training")
            return state
        except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, TypeError) as error:
            raise RunError(f"{self.state_path} is damaged: {instead}") from error

    def moment(self, epoch: int) -> Path:
        """The folder of the agent as it was after an epoch."""
        return self.checkpoints / f"epoch_{epoch:04d}"

    def write_moment(self, epoch: int, write: Callable[[Path], object]) -> None:
        """What `write(folder)` puts there, in place of an older moment of this epoch, which stays until it is whole."""
        folder = self.moment(epoch)
        fresh = folder.with_name(f".{folder.name}.new")
        self.discard(fresh)
        write(fresh)
        self.discard(folder)
        os.replace(fresh, folder)

    @staticmethod
    def discard(folder: Path) -> None:
        """Removes a moment, if it is there; under another name first, so that no reader finds half of it."""
        if folder.exists():
            gone = folder.with_name(f".{folder.name}.{os.getpid()}.gone")
            shutil.rmtree(gone, ignore_errors=True)
            os.replace(folder, gone)
            # somebody may be reading it still
            shutil.rmtree(gone, ignore_errors=True)

    def moments(self) -> list[Path]:
        """All saved moments, oldest first."""
        if not self.checkpoints.is_dir():
            return []
        # what a person keeps beside them under a name of its own is none
        return sorted((m for m in self.checkpoints.iterdir() if re.fullmatch(r"epoch_\d+", m.name)), key=epoch_of)

    def thin_out(self, keep: int) -> None:
        """Removes moments until `keep` are left: first and last stay, the densest stretch loses one."""
        moments = self.moments()
        while len(moments) > max(2, keep):
            epochs = [epoch_of(m) for m in moments]
            gaps = [epochs[i + 1] - epochs[i - 1] for i in range(1, len(epochs) - 1)]
            self.discard(moments.pop(1 + gaps.index(min(gaps))))


def epoch_of(moment: Path) -> int:
    """After which a moment was saved."""
    return int(moment.name.removeprefix("epoch_"))


def check_same(old: TrainConfig, new: TrainConfig, folder: Path) -> None:
    """Raises RunError naming the first settings in which the two differ."""
    free = {name: getattr(new, name) for name in MAY_CHANGE}
    if old.dataset and new.dataset:
        free["dataset"] = new.dataset
    ours, theirs = flat(dataclasses.replace(old, **free)), flat(new)
    # how a phase is done is of no importance where nobody does it
    idle = tuple(f"{name}." for name in ("sight", "imitation")
                 if not (getattr(old, name).first_updates or getattr(new, name).first_updates))
    differences = [f"{name} is {x} there, {theirs[name]} here" for name, x in ours.items()
                   if x != theirs[name] and not name.startswith(idle)]
    if differences:
        raise RunError(f"{folder} holds a run of another configuration ({'; '.join(differences[:3])}): "
                       "choose another folder, or --resume to go on as it was begun")


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dataclasses as dotted names and values."""
    values: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        name = prefix + f.name
        values.update(flat(value, name + ".") if dataclasses.is_dataclass(value) else {name: value})
    return values

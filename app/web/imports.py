"""Checkpoints brought in and thrown out, by the owner: tensors are read, nothing is ever executed. Our own."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from app.commands.data import real_starts
from app.web.jobs import JobError, canonical
from diamond_core.envs import action_names
from diamond_core.training.checkpoint import (
    CARD,
    STARTS,
    WEIGHTS,
    CheckpointError,
    import_published,
    load_checkpoint,
    save_checkpoint,
)
from diamond_core.training.library import SHIPPED, WORLDS, load

NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,59}")
REPOSITORY = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")

FOLDER = re.compile(r"(?<!\S)\S*[/\\](?=\S)")
"""A path up to the file's own name."""


def bring_files(files: Sequence[Path], game: str, name: str, shelf: Path) -> Path:
    """A checkpoint from uploaded files: a published .pt or .safetensors, or the files of one of our folders. Raises
    CheckpointError, JobError."""
    named = {path.name: path for path in files}
    try:
        if {CARD, WEIGHTS} & set(named):
            return bring_folder(named, name, shelf)
        if len(files) == 1 and files[0].suffix in (".pt", ".pth", ".safetensors"):
            return bring_published(str(files[0]), game, name, shelf)
    except CheckpointError as error:
        # where an upload lay for a moment is nothing to a person
        raise CheckpointError(FOLDER.sub("", str(error))) from error
    raise CheckpointError(f"expected one .pt or .safetensors file, or {WEIGHTS} with {CARD} and {STARTS}")


def bring_folder(named: dict[str, Path], name: str, shelf: Path) -> Path:
    """Our own files, copied and read once to see that they belong together. Raises CheckpointError."""
    missing = {WEIGHTS, CARD, STARTS} - set(named)
    if missing:
        raise CheckpointError(f"missing {', '.join(sorted(missing))}: choose all files of the checkpoint together")
    shelf.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=shelf) as folder:
        copy = Path(folder) / "checkpoint"
        copy.mkdir()
        for file in (WEIGHTS, CARD, STARTS, "fidelity.json"):
            if file in named:
                shutil.copyfile(named[file], copy / file)
        agent = load_checkpoint(copy)
        assert agent.card is not None
        # what is wrong with the files comes before a name that is taken: another name would not help them
        target = free(shelf, name, agent.card.game)
        copy.rename(target)
    return target


def bring_published(source: str, game: str, name: str, shelf: Path) -> Path:
    """A published state dict: a file, or hub:OWNER/REPOSITORY. Raises CheckpointError, JobError."""
    if not game:
        raise CheckpointError("say which game it was trained on: these weights do not")
    game = canonical(game)
    agent, card = import_published(source, game, action_names(game))
    return save_checkpoint(free(shelf, name, game), agent, card, real_starts(game, agent), torch.float16)


def bring_from_hub(repository: str, game: str, name: str, shelf: Path) -> Path:
    """A published checkpoint from the Hub. Raises CheckpointError, JobError."""
    if not REPOSITORY.fullmatch(repository.strip()):
        raise CheckpointError(f"expected OWNER/REPOSITORY, as in eloialonso/diamond, got '{repository}'")
    if game:
        free(shelf, name, canonical(game))  # before much is fetched
    return bring_published(f"hub:{repository.strip()}", game, name, shelf)


def bring_moment(run_moment: Path, name: str, shelf: Path) -> Path:
    """A moment of a run as a checkpoint of its own. Raises CheckpointError."""
    agent = load(run_moment, "cpu")
    assert agent.card is not None
    return save_checkpoint(free(shelf, name, agent.card.game), agent, agent.card, agent.starts, torch.float16)


def own(shelf: Path) -> dict[str, Path]:
    """What was brought in, by name: in a checkout the shipped dreams lie on the same shelf, and stay."""
    kept = WORLDS if shelf.resolve() == SHIPPED else ()
    return {folder.name: folder for folder in sorted(shelf.iterdir() if shelf.is_dir() else [])
            if (folder / CARD).is_file() and not folder.is_symlink() and folder.name not in kept}


def throw_out(name: str, shelf: Path) -> None:
    """Removes a checkpoint that was brought in. Raises CheckpointError."""
    folder = own(shelf).get(name)
    if folder is None:
        raise CheckpointError(f"'{name}' was not brought in: what was shipped stays")
    gone = folder.with_name(f".{name}.gone")
    folder.rename(gone)
    shutil.rmtree(gone)


def free(shelf: Path, name: str, game: str) -> Path:
    """A new place on the shelf, by this name or the game's. Raises JobError."""
    name = name.strip() or re.sub(r"\W+", "-", game)
    if not NAME.fullmatch(name):
        raise JobError(f"a name is made of letters, digits, '.', '_' and '-', got '{name}'")
    shelf.mkdir(parents=True, exist_ok=True)
    if (shelf / name).exists():
        raise JobError(f"there is a '{name}' already: choose another name, or delete it first")
    return shelf / name

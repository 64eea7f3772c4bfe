"""Where checkpoints are found: by name in the shipped folder, by path, or as the newest moment of a run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from diamond_core.config import RuntimeConfig
from diamond_core.device import resolve
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import CARD, CheckpointError, load_checkpoint
from diamond_core.training.run import Run
from diamond_core.world.gym_env import DreamEnv, DreamVectorEnv

SHIPPED = Path(__file__).resolve().parents[2] / "checkpoints"
WORLDS = ("Breakout", "Freeway", "Pong")
"""What lies there from the beginning; in a checkout others may come to lie beside them."""


def shelves() -> list[Path]:
    """Folders whose subfolders are checkpoints by name: $DIAMOND_CHECKPOINTS, ./checkpoints, the shipped ones."""
    own = os.environ.get("DIAMOND_CHECKPOINTS")
    folders = ([Path(own)] if own else []) + [Path("checkpoints"), SHIPPED]
    return [folder for folder in folders if folder.is_dir()]


def installed() -> dict[str, Path]:
    """Every checkpoint that can be called by its name."""
    found: dict[str, Path] = {}
    for shelf in shelves():
        for card in sorted(shelf.glob(f"*/{CARD}")):
            found.setdefault(card.parent.name, card.parent)
    return found


def find(name_or_path: str | Path) -> Path:
    """The folder of a checkpoint. A path wins over a name; of a run it is the newest moment. Raises CheckpointError."""
    path = Path(name_or_path)
    if (path / CARD).is_file():
        return path
    if path.is_dir() and (run := Run(path)).exists:
        if not run.moments():
            raise CheckpointError(f"{path} has saved no moment yet: wait for the end of its first epoch")
        return run.moments()[-1]
    names = installed()
    by_name = {name.lower(): folder for name, folder in names.items()}
    if str(name_or_path).lower() in by_name:
        return by_name[str(name_or_path).lower()]
    if path.exists():
        raise CheckpointError(f"{path} is not a checkpoint: expected a folder with {CARD}; published .pt files are "
                              "read by `diamond import`")
    there = f"installed are {', '.join(names)}" if names else "none is installed"
    raise CheckpointError(f"no checkpoint '{name_or_path}': {there}; give a name, a checkpoint folder or a run")


def load(name_or_path: str | Path, device: str = "auto") -> Agent:
    """An agent ready for use, by name (`Pong`), checkpoint folder or run folder. Raises CheckpointError, ValueError."""
    return load_checkpoint(find(name_or_path), resolve(RuntimeConfig(device=device)).device)


def dream_env(checkpoint: str | Path, horizon: int | None = None, render_mode: str | None = None,
              device: str = "auto") -> DreamEnv:
    """`gymnasium.make("diamond/Dream-v0", checkpoint=...)`. In several processes (`vectorization_mode="async"`) with
    `vector_kwargs={"context": "spawn"}` only: torch does not outlive a fork. `dream_vector_env` needs none."""
    return DreamEnv(*_parts(checkpoint, device), horizon=horizon, render_mode=render_mode)


def dream_vector_env(checkpoint: str | Path, num_envs: int = 1, horizon: int | None = 15,
                     render_mode: str | None = None, device: str = "auto") -> DreamVectorEnv:
    """`gymnasium.make_vec("diamond/Dream-v0", num_envs=..., checkpoint=...)`."""
    return DreamVectorEnv(*_parts(checkpoint, device), num_envs=num_envs, horizon=horizon, render_mode=render_mode)


def _parts(checkpoint: str | Path, device: str) -> tuple[Any, Any]:
    agent = load(checkpoint, device)
    if agent.starts is None:
        raise CheckpointError(f"{checkpoint} carries no starting frames to dream from")
    return agent.world(runtime=RuntimeConfig(device=device)), agent.starts

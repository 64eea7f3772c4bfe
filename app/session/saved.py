"""A dream as a small file: the value, which weights dream it, and where its real game stands. Our own."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from diamond_core.envs import Trail
from diamond_core.envs.atari import MOST_NOOPS
from diamond_core.files import write_whole
from diamond_core.world.dream import DreamState

FORMAT = "diamond-dream-1"
MOST_BYTES = 64 * 2**20
MOST_ACTIONS = 2**19
"""Of a trail: ten hours of one game."""


@dataclass(frozen=True)
class SavedDream:
    """What stands in the file."""

    state: DreamState
    """One row, on the CPU."""
    game: str
    sha256: str
    """Of the weights that dreamt it; empty where they came from no checkpoint."""
    total: float = 0.0
    """The dream's return."""
    trail: Trail | None = None
    reality_total: float = 0.0

    def save(self, path: Path) -> None:
        """Writes about 60 KB."""
        facts = {"game": self.game, "sha256": self.sha256, "total": self.total, "reality_total": self.reality_total,
                 "trail": None if self.trail is None else asdict(self.trail)}
        tensors = {name: x.cpu().contiguous().clone() for name, x in self.state.tensors().items()}
        write_whole(Path(path), save(tensors, {"format": FORMAT, "facts": json.dumps(facts)}))

    @staticmethod
    def load(path: Path) -> SavedDream:
        """Reads what `save` wrote. Raises ValueError for anything else."""
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"{path} is no saved dream: expected at most {MOST_BYTES >> 20} MiB")
        try:
            with safe_open(path, "pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            if metadata.get("format") != FORMAT:
                raise ValueError(f"its format is {metadata.get('format')!r}, not {FORMAT!r}")
            facts = json.loads(metadata["facts"])
            return SavedDream(DreamState(**tensors), str(facts["game"]), str(facts["sha256"]), float(facts["total"]),
                              trail_of(facts["trail"]), float(facts["reality_total"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no saved dream ({error}): choose a file that was saved while playing") \
                from error


def trail_of(values: dict[str, object] | None) -> Trail | None:
    """A trail from JSON values. Raises ValueError for others."""
    if values is None:
        return None
    rom, actions = values["rom"], values["actions"]
    numbers = [values["frame_skip"], values["noops"], *actions] if isinstance(actions, list) else []
    whole = [n for n in numbers if type(n) is int and 0 <= n < 2**31]
    is_whole = len(numbers) == len(whole) <= MOST_ACTIONS + 2
    if not isinstance(rom, str) or not numbers or not is_whole or whole[1] > MOST_NOOPS:
        raise ValueError("it holds no trail of a game")
    return Trail(rom, whole[0], whole[1], tuple(whole[2:]))


def require_fit(state: DreamState, like: DreamState) -> None:
    """Raises ValueError unless a dream has the shapes of another, one row."""
    for name, x in state.tensors().items():
        its = getattr(like, name)
        if x.shape != its.shape or x.dtype != its.dtype:
            raise ValueError(f"this dream does not fit here: {name} is {tuple(x.shape)} {x.dtype}, expected "
                             f"{tuple(its.shape)} {its.dtype}; load it with the checkpoint that dreamt it")
    if int(state.steps) < 0 or not all(torch.isfinite(x).all() for x in (state.hx, state.cx)):
        raise ValueError("this dream is damaged: its memory holds no numbers")

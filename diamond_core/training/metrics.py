"""What a run says while it trains: metrics.jsonl for programs, TensorBoard for eyes.

A line is one JSON object with `epoch`, `phase`, `updates` and numbers; every key that ends in `seconds` is a time and
differs from run to run, all else is reproduced by a run with the same seed.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


class Diverged(ValueError):
    """What is learned from is no number any more, nor is what was learned."""


class Metrics:
    """Appends lines, and can go back to where a saved state stood."""

    def __init__(self, folder: Path, writes: bool = True) -> None:
        self.path = folder / "metrics.jsonl"
        self._board: Any = None
        self._folder = folder
        self._writes = writes
        self._sums: dict[str, Tensor] = {}
        self._count = 0

    def add(self, record: dict[str, Tensor]) -> None:
        """Adds one update's numbers to the running mean; nothing leaves the device yet."""
        for name, x in record.items():
            self._sums[name] = self._sums.get(name, torch.zeros((), device=x.device)) + x.float()
        self._count += 1

    def mean(self, gather: Callable[[Any], list[Any]] = lambda value: [value]) -> dict[str, float]:
        """The means since the last call, which ends the window, over all processes. Raises Diverged."""
        parts = gather({name: x.item() / self._count for name, x in self._sums.items()})
        self._sums, self._count = {}, 0
        return finite({name: sum(part[name] for part in parts) / len(parts) for name in parts[0]})

    def write(self, step: int, phase: str, **numbers: Any) -> None:
        """One line, flushed. `step` places it on TensorBoard's axis."""
        if not self._writes:
            return
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"phase": phase, **numbers}) + "\n")
        self._draw(step, phase, numbers)

    def _draw(self, step: int, phase: str, numbers: dict[str, Any]) -> None:
        for name, x in numbers.items():
            if isinstance(x, int | float) and name not in ("epoch", "updates"):
                self.board.add_scalar(f"{phase}/{name}", x, step)

    @property
    def board(self) -> Any:
        """The TensorBoard writer, opened on first use: importing it takes seconds."""
        if self._board is None:
            from torch.utils.tensorboard import SummaryWriter
            self._board = SummaryWriter(str(self._folder / "tensorboard"))
        return self._board

    def close(self) -> None:
        """Flushes TensorBoard."""
        if self._board is not None:
            self._board.close()

    def state_dict(self) -> dict[str, Any]:
        """The file's length and the open window. Raises Diverged: what was saved before is better than that."""
        sums = finite({name: x.item() for name, x in self._sums.items()})
        size = self.path.stat().st_size if self.path.exists() else 0
        return {"size": size, "sums": sums, "count": self._count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Forgets every line that was written after the state was taken."""
        self._sums = {name: torch.as_tensor(x) for name, x in state["sums"].items()}
        self._count = state["count"]
        # after a power cut the file may be shorter, and truncating would make it longer
        if self._writes and self.path.exists() and self.path.stat().st_size > state["size"]:
            os.truncate(self.path, state["size"])
            # TensorBoard cannot go back: its curves are drawn anew
            shutil.rmtree(self._folder / "tensorboard", ignore_errors=True)
            for line in self.path.read_text(encoding="utf-8").splitlines():
                numbers = json.loads(line)
                phase = numbers.pop("phase")
                self._draw(numbers.get("updates", numbers["epoch"]), phase, numbers)


def finite(numbers: dict[str, float]) -> dict[str, float]:
    """The same, if all of them are numbers. Raises Diverged."""
    if wrong := [name for name, x in numbers.items() if not math.isfinite(x)]:
        raise Diverged(f"the training has diverged ({' and '.join(wrong)}: no number any more); what was saved before "
                       "stays: begin another run from it with --init and lower learning rates")
    return numbers

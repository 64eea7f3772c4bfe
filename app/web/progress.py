"""What a training has to say so far, from its metrics: curves, how far it is, an honest time to the end. Our own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diamond_core.config import LearnerConfig, TrainConfig
from diamond_core.training.progress import Pace

MODELS = ("denoiser", "reward_end", "sight", "imitation", "actor_critic")
WORDS = {"collect": "collecting", "denoiser": "learning to draw frames", "reward_end": "learning rewards and ends",
         "sight": "learning to see", "imitation": "learning the player's moves",
         "actor_critic": "practising in the dream", "evaluate": "playing the real game"}
"""A phase -> what a person is told."""
BAR = re.compile(r"epoch (\d+)/(\d+) ([a-z ]*[a-z])\b[^\d]*(\d+)/(\d+)")
"""A line of `training.progress`."""
Points = list[tuple[float, float]]


@dataclass(frozen=True)
class Progress:
    """A run as its metrics tell it."""

    epoch: int = 0
    last_epoch: int | None = None
    """None where nobody can know yet."""
    phase: str = ""
    done: int = 0
    """Updates of all models."""
    total: int = 0
    """Updates of all models in the whole run, as far as that is known."""
    left: str = ""
    """Time to the end, or nothing where no update was timed yet."""
    losses: dict[str, Points] = field(default_factory=dict)
    """Model -> (updates, loss)."""
    scores: Points = field(default_factory=list)
    """(epoch, score in the real game)."""
    steps: int = 0
    """Of real play collected."""

    @property
    def share(self) -> float:
        """How much is done, 0 to 1."""
        return min(self.done / self.total, 1.0) if self.total else 0.0

    @property
    def words(self) -> str:
        """In a line."""
        if not self.phase:
            return "getting ready"
        of = f" of {self.last_epoch}" if self.last_epoch else ""
        return f"epoch {self.epoch}{of}, {WORDS.get(self.phase, self.phase)}"


def now_of(line: str) -> str:
    """What a trainer's bar says, which is newer than its metrics: 'epoch 1 of 60, collecting: 2,048 of 50,000'; nothing
    where the line is no bar."""
    found = BAR.match(line)
    if not found:
        return ""
    epoch, last, phase, done, of = found.groups()
    return (f"epoch {epoch} of {last}, {WORDS.get(phase.replace(' ', '_'), phase)}: "
            f"{int(done):,} of {int(of):,}")


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; one that is still being written is left out."""
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    lines = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        if isinstance(content, dict):
            lines.append(content)
    return lines


def progress_of(config: TrainConfig, lines: Iterable[dict[str, Any]]) -> Progress:
    """How far a run of this configuration is."""
    losses: dict[str, Points] = {}
    scores: Points = []
    done: dict[str, int] = dict.fromkeys(MODELS, 0)
    pace, epoch, steps, phase, full = Pace(), 0, 0, "", None
    for line in lines:
        phase, epoch = str(line.get("phase", "")), int(line.get("epoch", epoch))
        steps = int(line.get("steps", steps))
        if phase == "collect" and full is None and steps >= config.collection.total_steps:
            full = epoch
        if phase in MODELS and isinstance(line.get("loss"), int | float):
            done[phase] = int(line["updates"])
            losses.setdefault(phase, []).append((done[phase], float(line["loss"])))
            if isinstance(line.get("update_seconds"), int | float):
                pace.seconds[phase] = line["update_seconds"]
        if phase == "evaluate" and isinstance(line.get("score"), int | float):
            scores.append((epoch, float(line["score"])))
    last = last_epoch(config, max(epoch, 1), steps, full)
    totals = {name: updates_until(getattr(config, name), last) for name in models_of(config)}
    left = {name: max(0, totals[name] - done[name]) for name in totals}
    return Progress(epoch, last if epoch else None, phase, sum(done[name] for name in totals), sum(totals.values()),
                    pace.left(left) if pace.seconds and any(left.values()) else "", losses, scores, steps)


def is_over(config: TrainConfig, lines: Iterable[dict[str, Any]]) -> bool:
    """Whether a run of this configuration has come to its end, by its metrics."""
    p = progress_of(config, lines)
    was_scored = p.phase == "evaluate" or not config.evaluation.final_episodes
    return p.epoch == p.last_epoch and 0 < p.total <= p.done and was_scored


def models_of(config: TrainConfig) -> tuple[str, ...]:
    """Which models a run trains."""
    return ("actor_critic",) if config.model_free else MODELS


def last_epoch(config: TrainConfig, epoch: int, steps: int, full: int | None = None) -> int:
    """The epoch in which a run ends, as far as can be told in this one; `full` is when the last play was collected."""
    if config.is_static or config.model_free:
        return config.final_epochs
    if full is not None:
        return full + config.final_epochs
    c = config.collection
    missing = max(0, c.total_steps - max(steps, c.first_min_steps))
    return epoch + -(-missing // max(1, c.steps)) + config.final_epochs


def updates_until(config: LearnerConfig, last: int) -> int:
    """Updates of one model in the epochs 1 to last."""
    return sum(config.updates_in(epoch) for epoch in range(1, last + 1))

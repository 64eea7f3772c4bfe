"""Many evaluations as one statement: human-normalised mean, median, interquartile mean and optimality gap.

Source: Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice"; SPEC 8. The
intervals are percentiles of a bootstrap that resamples the runs of each game apart from those of the others.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from diamond_core.evaluation.returns import EpisodeResults, human_normalised
from diamond_core.files import write_whole

FORMAT = "diamond-returns-1"
RESAMPLES = 2_000
TRIM = 0.25
"""Share of runs that the interquartile mean drops at either end."""


@dataclass(frozen=True)
class Score:
    """One evaluation of one checkpoint, as `diamond evaluate returns` writes it."""

    game: str
    checkpoint: str
    seed: int
    max_steps: int | None
    """Where episodes were cut off."""
    returns: tuple[float, ...]
    lengths: tuple[int, ...]
    num_envs: int | None = None
    """Games side by side: which episodes they are depends on it."""
    sha256: str | None = None
    """Of the checkpoint's weights."""

    def to_json(self) -> dict[str, Any]:
        """What the file holds: the episodes, and what follows from them."""
        results = EpisodeResults(self.returns, self.lengths)
        return {"format": FORMAT, **asdict(self), "episodes": len(self.returns), "mean": results.mean,
                "std": results.std, "sem": results.sem,
                "human_normalised": human_normalised(self.game, results.mean)}

    def save(self, path: Path) -> None:
        """Writes the file in one step."""
        write_whole(path, (json.dumps(self.to_json(), indent=2, allow_nan=False) + "\n").encode())

    @staticmethod
    def load(path: Path) -> Score:
        """Reads what `save` wrote; any other file raises ValueError."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return _structured(content)
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror}): check the path") from error
        except (ValueError, KeyError, TypeError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise ValueError(f"{path}: expected a file of `diamond evaluate returns` ({reason}): write it anew"
                             ) from error


def _structured(content: Any) -> Score:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"it does not say {FORMAT}")
    returns, lengths = (tuple(content[name]) for name in ("returns", "lengths"))
    if not returns or len(returns) != len(lengths) or not all(map(math.isfinite, returns)):
        raise ValueError("its returns are not one finite number an episode")
    return Score(str(content["game"]), str(content["checkpoint"]), int(content["seed"]), content["max_steps"], returns,
                 lengths, content.get("num_envs"), content.get("sha256"))


def read_scores(paths: Iterable[Path]) -> dict[str, list[float]]:
    """Files of evaluations -> the mean scores of the runs by game, fit for `aggregate`. A run is its weights, however
    often they were evaluated. Raises ValueError."""
    runs: dict[str, dict[str, list[float]]] = {}
    seen: dict[Score, Path] = {}
    for path in paths:
        score = Score.load(path)
        score = replace(score, checkpoint=score.sha256 or score.checkpoint)  # one folder has many names
        if score in seen:
            raise ValueError(f"{path}: expected another run, got the same as {seen[score]}: name each run once")
        for other, its in seen.items():
            if other.max_steps != score.max_steps:
                raise ValueError(f"{path}: its episodes end at {score.max_steps} steps, those of {its} at "
                                 f"{other.max_steps}: expected one --max-steps")
        seen[score] = path
        its_runs = runs.setdefault(score.game, {})
        its_runs.setdefault(score.sha256 or str(path), []).extend(score.returns)
    return {game: [float(np.mean(returns)) for returns in of_game.values()] for game, of_game in runs.items()}


@dataclass(frozen=True)
class Estimate:
    """A number and its 95% interval."""

    value: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Aggregate:
    """Human-normalised scores over games and runs. Intervals stand where every game has two runs or more."""

    games: int
    runs: int
    mean: Estimate
    """Of the games' means."""
    median: Estimate
    """Of the games' means."""
    iqm: Estimate
    """Mean of the middle half of all runs."""
    optimality_gap: Estimate
    """How far runs stay below human play on average; a run above it counts as human."""

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def aggregate(scores: Mapping[str, Sequence[float]], seed: int = 0, resamples: int = RESAMPLES) -> Aggregate:
    """Game -> raw scores, one a run. Raises ValueError for a game without published scores."""
    runs = [_normalised(game, values) for game, values in scores.items()]
    if not runs:
        raise ValueError("expected the scores of one game or more, got none: evaluate a checkpoint first")
    values = _statistics(*runs)
    low = high = [None] * len(values)
    if min(map(len, runs)) > 1:
        # takes half a second to import, and playing never needs it
        from scipy.stats import bootstrap
        interval = bootstrap(runs, _statistics, vectorized=True, paired=False, method="percentile",
                             n_resamples=resamples, rng=np.random.default_rng(seed)).confidence_interval
        low, high = interval.low.tolist(), interval.high.tolist()
    return Aggregate(len(runs), sum(map(len, runs)), *map(Estimate, values.tolist(), low, high))


def _normalised(game: str, scores: Sequence[float]) -> np.ndarray:
    normalised = [human_normalised(game, score) for score in scores]
    if not normalised or None in normalised:
        raise ValueError(f"expected scores of a game of Atari 100k, got {len(scores)} of {game!r}: leave it out")
    return np.array(normalised, dtype=np.float64)


def _statistics(*runs: np.ndarray, axis: int = -1) -> np.ndarray:
    """One array (..., runs) a game -> (4, ...): mean, median, interquartile mean, optimality gap."""
    games = np.stack([x.mean(axis) for x in runs])
    every = np.sort(np.concatenate(runs, axis), axis)
    trimmed = int(TRIM * every.shape[axis])
    middle = np.take(every, np.arange(trimmed, every.shape[axis] - trimmed), axis)
    return np.stack([games.mean(0), np.median(games, axis=0), middle.mean(axis), (1 - every.clip(max=1)).mean(axis)])

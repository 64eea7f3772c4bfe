"""How true a dream is to the game: what it looks like, whether it obeys, whether it knows rewards and ends.

Our own choice of measures. All are taken on held-out play and reproduced by the same seed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diamond_core.evaluation.inverse_dynamics import recognised, train_inverse_dynamics
from diamond_core.evaluation.metrics import Curve, average_precision, curve, psnr, ssim
from diamond_core.evaluation.open_loop import OpenLoop, Watch, draw_windows, replay_actions
from diamond_core.evaluation.sprites import player_of
from diamond_core.files import write_whole
from diamond_core.replay import Dataset, DatasetError
from diamond_core.world.dream import World

FORMAT = "diamond-fidelity-1"
HORIZONS = (1, 5, 15, 50, 100)
TRACKED = 15


@dataclass(frozen=True)
class Likeness:
    """One measure of how alike frames are, by step."""

    dream: Curve
    copy_last: Curve
    """The baseline: the last real frame, held."""


@dataclass(frozen=True)
class Following:
    """How often the action is read off the frames that it led to."""

    real: float
    dream: float
    ratio: float | None
    """Dream over real: 1 = the dream obeys as visibly as the game does."""
    most_frequent: float
    """The baseline: always naming the commonest action."""
    transitions: int


@dataclass(frozen=True)
class Within:
    """How well one kind of event is foreseen up to a step of the dreams."""

    events: int
    dream: float | None
    """Average precision; none where there were no events."""


@dataclass(frozen=True)
class Precision:
    """How well one kind of event is foreseen."""

    events: int
    base_rate: float
    """The baseline: average precision of a coin."""
    real: float | None
    """Average precision on real frames (teacher forcing); none where there were no events."""
    dream: float | None
    """The same on the frames of the open-loop dream."""
    within: dict[int, Within]
    """The same in its first steps only, by horizon: what comes late depends on all that came before."""


@dataclass(frozen=True)
class Coverage:
    """What the held-out play contains."""

    episodes: int
    steps: int
    actions: dict[str, int]
    rewards: dict[str, int]
    ends: int


@dataclass(frozen=True)
class Strip:
    """One rollout to look at: the first of the longest."""

    steps: list[int]
    truth: Tensor
    """(m, c, h, w) uint8."""
    dream: Tensor


@dataclass(frozen=True)
class FidelityReport:
    """Everything measured of one world. Lists run over the steps 1, 2, ... of the dreams."""

    game: str
    seed: int
    rollouts: int
    horizons: list[int]
    sampler: dict[str, Any]
    n: list[int]
    """OpenLoop that had this step; shorter episodes drop out."""
    psnr: Likeness
    """dB, at most 60."""
    ssim: Likeness
    following: Following | None
    """None where there was no other play for the classifier to learn from, or no second step."""
    precision: dict[str, Precision]
    player_off: float | None
    """Share of the dreams in which what the player moves is more than 2 pixels (of 64) from where it is in reality, or
    is not there, after `TRACKED` steps of the same actions; none where the game is not known."""
    coverage: Coverage
    strip: Strip

    def to_json(self) -> dict[str, Any]:
        """All numbers, fit for JSON: rounded, and null for what is unknown."""
        numbers = {name: _plain(value) for name, value in vars(self).items() if name != "strip"}
        return {"format": FORMAT, **numbers}

    def save(self, folder: Path, **of: Any) -> None:
        """Writes `fidelity.json`, with what it is of, and `fidelity.png`."""
        # matplotlib takes a second to import
        from diamond_core.evaluation.picture import draw
        folder.mkdir(parents=True, exist_ok=True)
        numbers = json.dumps({**self.to_json(), **of}, indent=1, allow_nan=False)
        write_whole(folder / "fidelity.json", (numbers + "\n").encode())
        draw(self, folder / "fidelity.png")


def evaluate_fidelity(world: World, dataset: Dataset, horizons: Sequence[int] = HORIZONS, num_rollouts: int = 64,
                      seed: int = 0, train_dataset: Dataset | None = None, classifier_updates: int = 500,
                      watch: Watch = lambda *_: None) -> FidelityReport:
    """Measures a world on held-out episodes. `train_dataset` is other real play, for the classifier of actions to learn
    from; without it every second held-out episode serves. Raises DatasetError where dataset and world do not fit."""
    _check(world, dataset, horizons)
    learned, judged = _divided(dataset, train_dataset)
    windows = draw_windows(judged, world.num_conditioning_frames, max(horizons), num_rollouts, seed)
    rollouts = replay_actions(world, windows, seed, watch)
    following = _following(rollouts, learned, classifier_updates, seed, world.runtime.device, watch)
    return FidelityReport(
        dataset.info.game, seed, len(windows), sorted(horizons), asdict(world.sampler), rollouts.mask.sum(0).tolist(),
        _likeness(rollouts, psnr), _likeness(rollouts, ssim), following, _precision(rollouts, horizons),
        _player_off(rollouts, dataset.info.game), _coverage(judged), _strip(rollouts, horizons))


def _check(world: World, dataset: Dataset, horizons: Sequence[int]) -> None:
    names = dataset.info.action_names
    if len(names) != world.num_actions:
        raise DatasetError(f"expected play with {world.num_actions} actions, the dataset of {dataset.info.game} has "
                           f"{len(names)}: choose a dataset of the world's game")
    if not horizons or min(horizons) < 1:
        raise ValueError(f"expected horizons of 1 or more steps, got {list(horizons)}: try {list(HORIZONS)}")


def _divided(dataset: Dataset, train_dataset: Dataset | None) -> tuple[Dataset | None, Dataset]:
    """What the classifier learns from, and what is dreamt from."""
    if train_dataset is not None or dataset.num_episodes < 2:
        return train_dataset, dataset
    return dataset.split(slice(0, None, 2))


def _likeness(rollouts: OpenLoop, measure: Callable[[Tensor, Tensor], Tensor]) -> Likeness:
    last, truth, dream = rollouts.context[:, -1], rollouts.truth.unbind(1), rollouts.dream.unbind(1)
    dreamt = torch.stack([measure(x, y) for x, y in zip(truth, dream, strict=True)], dim=1)
    held = torch.stack([measure(x, last) for x in truth], dim=1)
    return Likeness(curve(dreamt, rollouts.mask), curve(held, rollouts.mask))


def _following(rollouts: OpenLoop, learned: Dataset | None, updates: int, seed: int, device: torch.device, watch: Watch
               ) -> Following | None:
    # an action shows one frame late in some games: the last one of a rollout cannot be judged, nor the first one where
    # the world sees one frame only
    before = rollouts.context[:, -2:]
    first = 2 - before.shape[1]
    actions, mask = rollouts.actions[:, first:-1], rollouts.mask[:, 1 + first:]
    if learned is None or not mask.any():
        return None
    model = train_inverse_dynamics(learned, updates, seed, device, lambda done: watch("classifying", done, updates))
    real, dream = (recognised(model, torch.cat([before, frames], dim=1), actions)[mask].double().mean().item()
                   for frames in (rollouts.truth, rollouts.dream))
    counts = actions[mask].bincount()
    most_frequent = (counts.max() / counts.sum()).item()
    return Following(real, dream, dream / real if real else None, most_frequent, int(counts.sum()))


def _precision(rollouts: OpenLoop, horizons: Sequence[int]) -> dict[str, Precision]:
    """By kind of event: whether it happened, and which columns of what was said announce it."""
    kinds = {"reward": (rollouts.rewards != 0, [0, 2]), "reward_positive": (rollouts.rewards > 0, [2]),
             "reward_negative": (rollouts.rewards < 0, [0]), "end": (rollouts.ends, [3])}
    precision = {}
    for name, (happened, columns) in kinds.items():
        real, dream = (said[..., columns].double().sum(2) for said in (rollouts.on_truth, rollouts.on_dream))
        within = {steps: Within(*_foreseen(dream, happened, rollouts.mask, steps)) for steps in sorted(horizons)}
        events, on_truth = _foreseen(real, happened, rollouts.mask, max(horizons))
        precision[name] = Precision(events, events / int(rollouts.mask.sum()), on_truth, within[max(horizons)].dream,
                                    within)
    return precision


def _foreseen(said: Tensor, happened: Tensor, mask: Tensor, steps: int) -> tuple[int, float | None]:
    """Of tensors (n, t): how many events the first steps have, and the average precision of what was said of them."""
    known = mask[:, :steps]
    events = happened[:, :steps][known].numpy()
    return int(events.sum()), average_precision(said[:, :steps][known].numpy(), events)


def _player_off(rollouts: OpenLoop, game: str) -> float | None:
    player = player_of(game)
    if player is None or rollouts.mask.shape[1] < TRACKED:
        return None
    truth, dream = (player.thing.find(frames[:, TRACKED - 1])[:, player.axis]
                    for frames in (rollouts.truth, rollouts.dream))
    known = rollouts.mask[:, TRACKED - 1] & ~truth.isnan()
    # what is not there is at no distance
    off = ~((dream - truth).abs() <= 2)
    return off[known].float().mean().item() if known.any() else None


def _coverage(dataset: Dataset) -> Coverage:
    actions = torch.cat([dataset[i].actions for i in range(dataset.num_episodes)])
    counts = actions.bincount(minlength=len(dataset.info.action_names)).tolist()
    rewards = dict(zip(("negative", "zero", "positive"), dataset.counts_rewards().tolist(), strict=True))
    return Coverage(dataset.num_episodes, dataset.num_steps, dict(zip(dataset.info.action_names, counts, strict=True)),
                    rewards, int(dataset.counts_ends()[1]))


def _strip(rollouts: OpenLoop, horizons: Sequence[int]) -> Strip:
    lengths = rollouts.mask.sum(1).numpy()
    row = int(np.argmax(lengths))
    steps = sorted(step for step in horizons if step <= lengths[row]) or [int(lengths[row])]
    at = torch.tensor(steps, dtype=torch.int64) - 1
    return Strip(steps, rollouts.truth[row, at], rollouts.dream[row, at])


def _plain(value: Any) -> Any:
    """Dataclasses, mappings and lists of numbers as JSON knows them."""
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(x) for x in value]
    return _plain(vars(value)) if hasattr(value, "__dataclass_fields__") else value

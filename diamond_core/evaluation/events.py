"""Do points and ends come to pass in the dream? Dreams that begin shortly before one, under the recorded actions.

Our own. Over whole rollouts events are too rare to count, and asking for the very step says little of a dream in which
the ball arrives a step later.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from diamond_core.evaluation.open_loop import OpenLoop, Watch, replay_actions
from diamond_core.replay import Dataset, collate
from diamond_core.world.dream import World

FORMAT = "diamond-events-1"
KINDS = ("reward -1", "reward 0", "reward +1", "end")
"""As the last dimension of what the reward and end model says."""
LATE = 4
"""Steps after the event that are still looked at."""


@dataclass(frozen=True)
class Events:
    """How often a kind of event is found in the windows around some of that kind."""

    windows: int
    real: int
    """In reality."""
    on_real_frames: float
    """Expected, by the reward and end model on real frames."""
    in_dream: float
    """Expected, in the dream."""


@dataclass(frozen=True)
class EventReport:
    """Rewards and ends that come to pass in dreams that begin 1 to `ahead` steps before one."""

    game: str
    seed: int
    ahead: int
    kinds: dict[str, Events]

    def to_json(self) -> dict[str, Any]:
        """All numbers, fit for JSON."""
        return {"format": FORMAT, **asdict(self)}


def evaluate_events(world: World, dataset: Dataset, ahead: int = 10, num: int = 64, seed: int = 0,
                    watch: Watch = lambda *_: None) -> EventReport:
    """Up to `num` windows for each kind of event but the most frequent reward. Raises ValueError where there is
    none."""
    rng, k = np.random.default_rng(seed), world.num_conditioning_frames
    places = happened(dataset)
    places.pop(max(KINDS[:3], key=lambda kind: len(places[kind])))
    kinds = {}
    for kind, those in places.items():
        # the first dreamt step is the one after k frames
        starts = [(i, int(t) - k + 1 - before) for (i, t), before in zip(those, rng.integers(0, ahead, len(those)),
                                                                         strict=True)]
        starts = [place for place in starts if place[1] >= 0]
        if not starts:
            continue
        chosen = rng.choice(len(starts), min(num, len(starts)), replace=False)
        windows = collate([(dataset[starts[j][0]], starts[j][1]) for j in chosen], k + ahead + LATE)
        found = replay_actions(world, windows, seed, partial(_of_kind, watch, kind))
        at = KINDS.index(kind)
        real = found.ends if kind == "end" else found.rewards.sign() == at - 1
        kinds[kind] = Events(len(chosen), int((real & found.mask).sum()),
                             (found.on_truth[..., at] * found.mask).sum().item(), in_dream(found, at))
    if not kinds:
        raise ValueError(f"no reward or end in this play has the {k} frames before it that a dream begins from: record "
                         "longer play")
    return EventReport(dataset.info.game, seed, ahead, kinds)


def in_dream(found: OpenLoop, at: int) -> float:
    """Expected events of the kind `at` in the dreams: until each ends itself, and where reality ends some steps longer
    than that."""
    ends = found.on_dream[..., KINDS.index("end")].double()
    alive = torch.cat([torch.ones_like(ends[:, :1]), (1 - ends).cumprod(1)[:, :-1]], dim=1)
    known = found.mask.clone()
    for ago in range(1, LATE + 1):
        known[:, ago:] |= found.mask[:, :-ago]
    return (found.on_dream[..., at] * alive * known).sum().item()


def _of_kind(watch: Watch, kind: str, _: str, done: int, total: int) -> None:
    watch(kind, done, total)


def happened(dataset: Dataset) -> dict[str, list[tuple[int, int]]]:
    """Kind -> (episode, step) of every event."""
    places: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
    for i in range(dataset.num_episodes):
        episode = dataset[i]
        for at, kind in enumerate(KINDS):
            flags = episode.ends if kind == "end" else episode.rewards.sign() == at - 1
            places[kind] += [(i, t) for t in flags.nonzero()[:, 0].tolist()]
    return places

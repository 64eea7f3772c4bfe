"""Which segments a training step sees, as a pure function of (seed, step), and batches prepared ahead of the learner.

Source: SPEC 7, "Batches".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from diamond_core.replay.dataset import Dataset
from diamond_core.replay.episode import Episode
from diamond_core.replay.segment import collate
from diamond_core.types import Batch

BY_AGE = (0.1, 0.1, 0.1, 0.7)


class SegmentSampler:
    """Draws batches of segments; the same seed, step and episodes give the same batch."""

    def __init__(
        self,
        dataset: Dataset,
        length: int,
        batch_size: int,
        *,
        weights: Sequence[float] | None = BY_AGE,
        past_end: bool,
        seed: int,
        event_share: float = 0.0,
        ahead: int = 0,
        late: int | None = None,
        beyond: int = 0,
        moments: Callable[[Episode], Mapping[str, Sequence[int]]] | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Segments of `length` steps, which may run past an episode's end where `past_end` says so.

        `weights` are the odds of the age groups, oldest first; None draws episodes by their length. `event_share` of
        the segments are drawn around a rare reward or an end instead, or around one of the `ahead` steps before it,
        each kind by the square root of its number; the steps of an episode that `moments` names are more kinds. With
        `late`, the step that was drawn is among the last `late` ones of a segment that does not run past the end. Else
        what follows an event is seen too often, and what comes later seems rare: after a point in Pong there is no ball
        for a second, then it is served. A segment that does not run past the end may go `beyond` the last step by that
        many: by one, to the final observation. Of the batch that all processes draw alike, rows rank,
        rank + world_size, ... are built.
        """
        if not 0 <= rank < world_size <= batch_size:
            raise ValueError(f"expected 0 <= rank < world_size <= batch_size, got {rank}, {world_size}, {batch_size}")
        self.dataset, self.length, self.batch_size = dataset, length, batch_size
        self.weights, self.past_end, self.seed = weights, past_end, seed
        self.event_share, self.ahead, self.late, self.beyond = event_share, ahead, late or length, beyond
        self.moments = moments or (lambda episode: {})
        self._events: tuple[tuple[int, int], list[np.ndarray]] = ((0, 0), [])
        self.rows = slice(rank, None, world_size)

    def batch(self, step: int) -> Batch:
        """(b, length) segments for this training step."""
        episodes, starts = self.draw(step)
        windows = zip(episodes[self.rows], starts[self.rows], strict=True)
        return collate([(self.dataset[int(episode)], int(start)) for episode, start in windows], self.length)

    def draw(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(batch_size,) episode indices and (batch_size,) starts, for all processes alike."""
        lengths = self.dataset.lengths
        if not len(lengths):
            raise ValueError("expected a dataset with episodes, got an empty one; collect first")
        rng = np.random.default_rng(np.random.SeedSequence([self.seed, step]))
        which, when, where = rng.random((3, self.batch_size))
        episodes = _pick(which, _odds(lengths, self.weights))
        steps, shifts = _below(when, lengths[episodes]), _below(where, self.length)
        if self.event_share and (events := self.events()):
            coin, kind, which, before = rng.random((4, self.batch_size))
            kinds = _pick(kind, np.sqrt([len(those) for those in events]))
            for i in np.flatnonzero(coin < self.event_share):
                chosen = events[kinds[i]]
                episodes[i], event = chosen[int(which[i] * len(chosen))]
                steps[i] = max(0, event - int(before[i] * (self.ahead + 1)))
                shifts[i] = int(where[i] * self.late)
        totals = lengths[episodes]
        if self.past_end:
            return episodes, steps - shifts
        return episodes, np.minimum(totals + self.beyond, steps + 1 + shifts) - self.length

    def events(self) -> list[np.ndarray]:
        """(m, 2) episode and step of every reward of a sign that is not the most frequent one, of every end and moment;
        one array a kind, none empty."""
        version = (self.dataset.num_episodes, self.dataset.num_steps)
        if self._events[0] != version:
            common = int(self.dataset.counts_rewards().argmax()) - 1
            kinds: dict[str, list[tuple[int, int]]] = {}
            for i in range(self.dataset.num_episodes):
                episode = self.dataset[i]
                for t in (episode.rewards.sign() != common).nonzero()[:, 0].tolist():
                    kinds.setdefault(f"reward {episode.rewards[t].sign():.0f}", []).append((i, t))
                for t in episode.ends.nonzero()[:, 0].tolist():
                    kinds.setdefault("end", []).append((i, t))
                for kind, steps in self.moments(episode).items():
                    kinds.setdefault(kind, []).extend((i, t) for t in steps)
            self._events = version, [np.array(kinds[kind]) for kind in sorted(kinds) if kinds[kind]]
        return self._events[1]


def _odds(lengths: np.ndarray, weights: Sequence[float] | None) -> np.ndarray:
    """(n,) how likely each episode is: its group's weight shared equally inside the group, or its length."""
    if weights is None or len(lengths) < len(weights):
        return lengths
    size = len(lengths) // len(weights)
    sizes = [size] * (len(weights) - 1) + [len(lengths) - size * (len(weights) - 1)]
    return np.repeat(np.divide(weights, sizes), sizes)


def _pick(uniform: np.ndarray, odds: np.ndarray) -> np.ndarray:
    """Uniform numbers in [0, 1) -> indices into `odds`, each as often as it says."""
    edges = np.cumsum(odds, dtype=np.float64)
    return np.asarray(np.searchsorted(edges / edges[-1], uniform, side="right"))


def _below(uniform: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """Uniform numbers in [0, 1) -> integers in [0, bound); one rule for every draw, the same in every numpy."""
    return (uniform * bound).astype(np.int64)


class Prefetcher:
    """Iterates over make(start), ..., make(stop - 1) in order, while one thread works `depth` steps ahead.

    What `make` raises comes out at its step and ends the iteration. Close it, or leave its `with`, to stop early.
    """

    def __init__(self, make: Callable[[int], Batch], start: int, stop: int, depth: int = 3) -> None:
        if depth < 1:
            raise ValueError(f"expected a depth of 1 or more, got {depth}; 2 to 4 is enough")
        self._make, self._steps = make, iter(range(start, stop))
        self._pool = ThreadPoolExecutor(1, "prefetch")
        self._ahead: deque[Future[Batch]] = deque()
        for _ in range(depth):
            self._order()

    def _order(self) -> None:
        step = next(self._steps, None)
        if step is not None:
            self._ahead.append(self._pool.submit(self._make, step))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        if not self._ahead:
            self.close()
            raise StopIteration
        future = self._ahead.popleft()
        self._order()
        try:
            return future.result()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Ends the thread, after the batch that it has begun."""
        self._ahead.clear()
        self._pool.shutdown(cancel_futures=True)

    def __enter__(self) -> Prefetcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

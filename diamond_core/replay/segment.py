"""A few consecutive steps cut out of an episode, padded where the window hangs over. Source: SPEC 2, 4 and 7."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diamond_core.replay.episode import Episode
from diamond_core.types import Batch


def segment(episode: Episode, start: int, length: int) -> Batch:
    """Steps start to start + length as a batch of one; the window may hang over at both ends."""
    return collate([(episode, start)], length)


def collate(windows: Sequence[tuple[Episode, int]], length: int) -> Batch:
    """One row of `length` steps per (episode, start); outside of the episode everything is zero and unmasked.

    There is one frame more than there are steps: where the window reaches the final observation, it stands unmasked.
    """
    shape = (len(windows), length)
    mask = np.zeros(shape, dtype=bool)
    rows = {name: np.zeros(shape + array.shape[1:], array.dtype) for name, array in windows[0][0].arrays().items()}
    for row, (episode, start) in enumerate(windows):
        mask[row, _overlap(start, length, len(episode))[0]] = True
        for name, array in episode.arrays().items():
            here, there = _overlap(start, length, len(array))
            rows[name][row, here] = array[there]
    return Batch(**{name: torch.from_numpy(array) for name, array in rows.items()}, mask=torch.from_numpy(mask))


def _overlap(start: int, length: int, total: int) -> tuple[slice, slice]:
    """Where a window and the range 0 to total meet: as a slice of the window, and of the range."""
    first = max(start, 0)
    last = max(min(start + length, total), first)
    return slice(first - start, last - start), slice(first, last)

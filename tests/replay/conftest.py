"""Episodes in which everything can be told from the step: frame i shows i, reward i is i, action i is i mod 4."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from diamond_core.replay import DatasetInfo, Episode

INFO = DatasetInfo("Counter", ("A", "B", "C", "D"), (1, 2, 2), "a test")


def counter(length: int, finished: bool = True, first: int = 0) -> Episode:
    """`length` steps that count on from `first`."""
    steps = torch.arange(first, first + length)
    frames = torch.arange(first, first + length + 1).to(torch.uint8).reshape(-1, 1, 1, 1).repeat(1, 1, 2, 2)
    ends = torch.zeros(length, dtype=torch.bool)
    ends[-1:] = finished
    info = {"game": "Counter", "policy": "human", "seed": 3}
    return Episode(frames, steps % 4, steps.float(), ends, torch.zeros_like(ends), info)


@pytest.fixture(name="counter")
def counter_fixture() -> Callable[..., Episode]:
    return counter


@pytest.fixture
def info() -> DatasetInfo:
    return INFO


@pytest.fixture
def same() -> Callable[[Episode, Episode], bool]:
    def same(a: Episode, b: Episode) -> bool:
        names = ("frames", "actions", "rewards", "ends", "truncs")
        pairs = [(getattr(a, name), getattr(b, name)) for name in names]
        return a.info == b.info and all(x.dtype == y.dtype and torch.equal(x, y) for x, y in pairs)

    return same

"""A segment of the counting game counts, and what hangs over is zero and unmasked."""

from __future__ import annotations

import pytest
import torch

from diamond_core.replay import collate, segment

TOTAL = 10


@pytest.mark.parametrize("length", [1, 4, 25])
@pytest.mark.parametrize("start", range(-30, 20))
def test_segments_count(counter, start, length):
    batch = segment(counter(TOTAL), start, length)
    steps = torch.arange(start, start + length)
    real, shown = (steps >= 0) & (steps < TOTAL), (steps >= 0) & (steps <= TOTAL)
    assert batch.frames.shape == (1, length, 1, 2, 2) and batch.frames.dtype == torch.uint8
    assert torch.equal(batch.frames[0], (steps * shown).to(torch.uint8).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2))
    assert torch.equal(batch.mask[0], real)
    assert torch.equal(batch.actions[0], steps * real % 4)
    assert torch.equal(batch.rewards[0], (steps * real).float())
    assert torch.equal(batch.ends[0], steps == TOTAL - 1)
    assert not batch.truncs.any()


def test_truncation_stands_where_it_was(counter):
    game = counter(TOTAL, finished=False)
    game.truncs[-1] = True
    assert segment(game, 7, 5).truncs.tolist() == [[False, False, True, False, False]]


def test_rows_do_not_touch_each_other_or_the_episode(counter):
    games = [counter(TOTAL), counter(3)]
    windows = [(games[0], 2), (games[1], -2), (games[0], 8)]
    batch = collate(windows, 6)
    assert len(batch) == 3
    for row, (game, start) in enumerate(windows):
        alone = segment(game, start, 6)
        assert all(torch.equal(getattr(batch, name)[row : row + 1], value) for name, value in vars(alone).items())
    batch.frames.fill_(99)
    assert games[0].frames[:, 0, 0, 0].tolist() == list(range(TOTAL + 1))

"""Catch by its rules: falling, moving, catching, missing, and the cut after twenty balls."""

from __future__ import annotations

import pytest
import torch

from diamond_core.envs import ToyVector, action_names, make_env
from diamond_core.envs.toy import BALL, CELLS, DROPS, PADDLE, PADDLE_CELLS

NOOP, LEFT, RIGHT = 0, 1, 2


def where(frame, colour):
    """(rows, columns) of the cells of a colour, seen at one pixel a cell."""
    side = frame.shape[-1] // CELLS
    return (
        (frame[:, ::side, ::side] == torch.tensor(colour, dtype=torch.uint8)[:, None, None])
        .all(0)
        .nonzero(as_tuple=True)
    )


def chase(frame):
    """The action of a perfect player, from the picture alone."""
    ball, paddle = where(frame, BALL)[1].item(), where(frame, PADDLE)[1]
    return LEFT if ball < paddle.min() else RIGHT if ball > paddle.max() else NOOP


def watch(frames):
    return torch.tensor([chase(frame) for frame in frames])


@pytest.mark.parametrize("side", [16, 32, 64])
def test_ball_and_paddle_are_cells_of_their_colours(side):
    frame = ToyVector(1, image_size=(side, side)).reset(0).frames[0]
    cell = (side // CELLS) ** 2
    pixels = frame.permute(1, 2, 0).reshape(-1, 3)
    for colour, cells in ((BALL, 1), (PADDLE, PADDLE_CELLS)):
        assert (pixels == torch.tensor(colour, dtype=torch.uint8)).all(1).sum() == cells * cell


def test_ball_falls_a_cell_a_step_and_paddle_obeys():
    env = make_env("toy", 3)
    frames = env.reset(3).frames
    paddles = torch.tensor([where(f, PADDLE)[1].min() for f in frames])
    step = env.step(torch.tensor([NOOP, LEFT, RIGHT]))
    moved = torch.tensor([where(f, PADDLE)[1].min() for f in step.frames])
    assert torch.equal(moved, (paddles + torch.tensor([0, -1, 1])).clamp(0, CELLS - PADDLE_CELLS))
    assert [where(f, BALL)[0].item() for f in step.frames] == [1, 1, 1]


def test_perfect_play_catches_all_and_is_cut_off():
    env = make_env("toy", 8)
    frames = env.reset(0).frames
    for _ in range(2):
        total = torch.zeros(8)
        for _ in range(DROPS * CELLS - 1):
            step = env.step(watch(frames))
            frames, total = step.frames, total + step.rewards
        assert step.truncs.all() and not step.ends.any()
        assert torch.equal(total, torch.full((8,), float(DROPS)))


def test_a_miss_costs_one_and_ends():
    env = make_env("toy", 16)
    start = env.reset(0)
    # The first ball decides: worlds whose ball falls beside the still paddle are over.
    steps = [env.step(torch.zeros(16, dtype=torch.int64)) for _ in range(CELLS - 1)]
    beside = torch.tensor([chase(frame) != NOOP for frame in start.frames])
    assert 0 < beside.sum() < 16
    assert torch.equal(steps[-1].ends, beside) and torch.equal(steps[-1].rewards, 1 - 2.0 * beside)
    assert not any(step.dones.any() or step.rewards.any() for step in steps[:-1])


def test_seeds_differ():
    env = make_env("toy", 16)
    assert not torch.equal(env.reset(0).frames, env.reset(1).frames)
    assert len({frame.numpy().tobytes() for frame in env.reset(0).frames}) > 4


def test_names_and_sizes():
    assert action_names("toy") == ["NOOP", "LEFT", "RIGHT"]
    with pytest.raises(ValueError, match="multiples of 4"):
        make_env("toy", image_size=(18, 18))

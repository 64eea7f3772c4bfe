"""What the player meets is seen in drawn frames."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diamond_core.evaluation.sprites import moments_of
from diamond_core.replay import Episode


def episode(frames: Tensor, actions: list[int]) -> Episode:
    zeros = torch.zeros(len(actions))
    return Episode(frames, torch.tensor(actions), zeros, zeros.bool(), zeros.bool())


def ground(length: int, *colour: int) -> Tensor:
    return torch.tensor(colour, dtype=torch.uint8).view(3, 1, 1).repeat(length, 1, 64, 64)


def test_pongs_ball_meets_the_players_paddle_only():
    frames = ground(8, 144, 72, 17)
    for frame, column in zip(frames, (10, 40, 44, 46, 52, 57, 30, 50), strict=True):
        frame[:, 30:32, column:column + 2] = 236
        frame[:, 20:28, 56:58] = torch.tensor([92, 186, 92]).view(3, 1, 1)
    near = moments_of("Pong", ["near"])(episode(frames, [0] * 7))["near"]
    assert near == [3, 4, 5], "the last frame has no action"


def test_breakouts_ball_meets_the_paddle_below():
    frames = ground(4, 0, 0, 0)
    for frame, row in zip(frames, (30, 44, 50, 55), strict=True):
        frame[0, row:row + 2, 20] = 200
    assert moments_of("Breakout", ["near", "serve"])(episode(frames, [0] * 3)) == {"near": [2], "serve": []}


def test_a_ball_after_four_frames_without_one_is_served():
    frames = ground(16, 0, 0, 0)
    frames[[4, 8, 9, 14], 0, 33:35, 20] = 200
    assert moments_of("Breakout", ["serve"])(episode(frames, [0] * 15)) == {"serve": [4, 14]}


def test_waiting_is_without_a_ball_for_long():
    frames = ground(30, 0, 0, 0)
    frames[[3, 29], 0, 33:35, 20] = 200
    assert moments_of("Breakout", ["wait"])(episode(frames, [0] * 29)) == {"wait": list(range(16, 29))}
    assert moments_of("Pong", ["wait"])(episode(ground(9, 144, 72, 17), [0] * 8)) == {"wait": []}


def test_a_ball_that_was_low_and_stays_away_is_lost_and_takes_a_life():
    frames = ground(16, 0, 0, 0)
    for step, row in enumerate((33, 50, 55, 0, 0, 0, 0, 0, 50, 0, 50, 33, 0, 0, 0, 0)):
        frames[step, 0, row:row + 2, 20] = 200
    frames[:7, :, 1:5, 40:42] = frames[7:, :, 1:5, 43:45] = 142  # one digit, and the next
    found = moments_of("Breakout", ["lost", "life", "due"])(episode(frames, [0] * 15))
    assert (found["lost"], found["life"]) == ([3], [7]), "one step away, or gone from above, is not lost"
    assert found["due"] == [1, 2, 3, 4, 5, 6]


def test_freeways_chicken_is_hit_where_it_begins_to_go_back_untold():
    rows = [50, 48, 50, 51, 53, 12, 50, 48, 50, 52, 53]
    frames = ground(len(rows), 142, 142, 142)
    frames[:, :, 31, 18:20] = torch.tensor([214, 214, 102]).view(3, 1)  # the line between the lanes
    for frame, row in zip(frames, rows, strict=True):
        frame[:, row:row + 2, 18:20] = torch.tensor([252, 252, 84]).view(3, 1, 1)
    # told at step 2, which shows for one more; from 12 to 50 it has crossed; from 8 on it goes on as it began at 7
    assert moments_of("Freeway", ["hit"])(episode(frames, [1, 1, 2, *[1] * 7])) == {"hit": [1, 7]}


def test_a_car_misses_freeways_chicken_where_it_is_close_and_nothing_goes_back():
    rows = [50] * 30
    rows[21:26] = [51, 52, 53, 54, 55]
    frames = ground(len(rows), 142, 142, 142)
    for frame, row in zip(frames, rows, strict=True):
        frame[:, row:row + 2, 18:20] = torch.tensor([252, 252, 84]).view(3, 1, 1)
    red = torch.tensor([200, 60, 60]).view(3, 1, 1)
    for step, row in ((5, 51), (6, 51), (8, 56), (20, 50)):  # two close by, one below, and one that hits it
        frames[step, :, row:row + 2, 22:25] = red
    frames[12, :, 50:52, 26:29] = red  # not there yet
    assert moments_of("Freeway", ["hit", "miss"])(episode(frames, [1] * 29)) == {"hit": [20], "miss": [5, 6]}


def test_freeways_clock_is_digits_that_change_their_colour_step_by_step():
    frames = ground(30, 142, 142, 142)
    frames[:, :, 2:4, 44:47] = 0
    frames[5:, :, 2:4, 44:46] = 142  # a point, and no more
    for step in range(12, 28):
        frames[step, :, 2:4, 46] = 200 * (step % 2)
    assert moments_of("Freeway", ["clock"])(episode(frames, [0] * 29)) == {"clock": [14, 22]}


def test_other_games_are_refused_in_one_line():
    with pytest.raises(ValueError, match=r"seen in Boxing \(none\), got near"):
        moments_of("Boxing", ["near"])
    with pytest.raises(ValueError, match=r"seen in Pong \(near, serve, lost, wait\), got near hit"):
        moments_of("Pong", ["near", "hit"])

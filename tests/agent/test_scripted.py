"""The scripted player sees ball and paddle by their colours, keeps the one at the other, and can be repeated."""

from __future__ import annotations

import math

import pytest
import torch

from diamond_core.agent.policies import RandomPolicy
from diamond_core.agent.scripted import RULES, ScriptedPolicy, mixed_play

PONG = ("NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE")
GROUND, WHITE, GREEN, ORANGE = (144, 72, 17), (236, 236, 236), (92, 186, 92), (213, 130, 74)


def pong(ball: float | None, paddle: int, size: int = 64) -> torch.Tensor:
    """A picture of Pong with the ball in a row, and the player's paddle five rows high from a row on."""
    frame = torch.tensor(GROUND, dtype=torch.uint8).reshape(3, 1, 1).repeat(1, 64, 64)
    def paint(rows: slice, columns: slice, colour: tuple[int, int, int]) -> None:
        frame[:, rows, columns] = torch.tensor(colour, dtype=torch.uint8).reshape(3, 1, 1)
    paint(slice(7, 10), slice(None), WHITE)
    paint(slice(59, 64), slice(None), WHITE)
    paint(slice(30, 35), slice(6, 8), ORANGE)
    paint(slice(paddle, paddle + 5), slice(55, 57), GREEN)
    if ball is not None:
        paint(slice(int(ball), int(ball) + 1), slice(40, 41), WHITE)
    return frame.repeat_interleave(size // 64, 1).repeat_interleave(size // 64, 2)


@pytest.mark.parametrize("size", [64, 128])
def test_ball_and_paddle_are_found(size):
    rules, frames = RULES["Pong"], torch.stack([pong(20, 40, size), pong(None, 12, size)])
    half_pixel = 0.5 - 32 / size
    ball, paddle = rules.ball.find(frames), rules.paddle.find(frames)
    assert ball[0].tolist() == pytest.approx([20.5 + half_pixel / 2, 40.5 + half_pixel / 2], abs=0.3)
    assert all(math.isnan(x) for x in ball[1].tolist())
    assert paddle[:, 0].tolist() == pytest.approx([42.5, 14.5], abs=0.3)


@pytest.mark.parametrize(("ball", "buttons"), [(15, {"RIGHT", "RIGHTFIRE"}), (55, {"LEFT", "LEFTFIRE"}),
                                               (42, {"NOOP", "FIRE"}), (None, {"NOOP", "FIRE"})])
def test_the_paddle_is_sent_to_the_ball(ball, buttons):
    policy = ScriptedPolicy("Pong", PONG, 8, 0, lapses=(0.0,))
    frames = pong(ball, 40).repeat(8, 1, 1, 1)
    pressed = {PONG[a] for a in torch.stack([policy.act(frames) for _ in range(4)]).flatten().tolist()}
    assert pressed == buttons


def test_lapses_take_their_share_of_the_time():
    policy = ScriptedPolicy("Pong", PONG, 64, 0, lapses=(0.0, 0.5))
    frames = pong(15, 40).repeat(64, 1, 1, 1)
    wrong = torch.stack([policy.act(frames) % 2 == 1 for _ in range(300)]).float().mean(0)
    # at random half of the buttons have odd numbers, the script presses RIGHT and RIGHTFIRE
    assert wrong[::2].max() == 0 and 0.18 < wrong[1::2].mean() < 0.32


def test_luck_repeats_and_goes_on():
    frames = pong(15, 40).repeat(4, 1, 1, 1)
    one, other = (ScriptedPolicy("Pong", PONG, 4, 3) for _ in range(2))
    first = [one.act(frames).tolist() for _ in range(40)]
    assert first == [other.act(frames).tolist() for _ in range(40)]
    fresh = ScriptedPolicy("Pong", PONG, 4, 3)
    fresh.load_state_dict(one.state_dict())
    assert [one.act(frames).tolist() for _ in range(40)] == [fresh.act(frames).tolist() for _ in range(40)]


def test_a_mix_is_scripted_where_the_game_is_known():
    assert isinstance(mixed_play("toy", ("LEFT", "STAY", "RIGHT"), 4, 0), RandomPolicy)
    frames = pong(15, 40).repeat(6, 1, 1, 1)
    policy = mixed_play("Pong", PONG, 6, 0)
    pressed = torch.stack([policy.act(frames) for _ in range(30)])
    up = ((pressed == 2) | (pressed == 4)).float().mean(0)
    assert up[1] > 0.6 and up[4] > 0.6 and up[0] < 0.6
    with pytest.raises(ValueError, match="Pong, Breakout"):
        ScriptedPolicy("Boxing", PONG, 1, 0)

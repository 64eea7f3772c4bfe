"""The scripted player sees ball and paddle by their colours, keeps the one at the other, and can be repeated."""

from __future__ import annotations

import math

import pytest
import torch

from diamond_core.agent.policies import MixPolicy, RandomPolicy
from diamond_core.agent.scripted import GLIDE, RULES, ScriptedPolicy, mixed_play
from diamond_core.envs import action_names, make_env
from diamond_core.types import Start, Step

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
    policy = ScriptedPolicy("Pong", PONG, 32, 0, lapses=(0.0,))
    assert {PONG[a] for a in policy.act(pong(ball, 40).repeat(32, 1, 1, 1)).tolist()} == buttons


def blend(frame: torch.Tensor, rows: tuple, columns: tuple, colour: tuple[int, int, int]) -> None:
    """Paints a rectangle whose edges may lie within pixels, as a shrunken picture has it."""
    cover = [(torch.minimum(torch.arange(64) + 1, high) - torch.maximum(torch.arange(64), low)).clamp(0, 1)
             for low, high in (rows, columns)]
    share = cover[0][:, None] * cover[1]
    frame[:] = torch.lerp(frame.float(), torch.tensor(colour).float().reshape(3, 1, 1), share).round().byte()


class Court:
    """Balls that fly at the paddle between two walls, and a paddle that lags behind its knob as in the real game."""

    def __init__(self, n: int, seed: int) -> None:
        g = torch.Generator().manual_seed(seed)
        rows, self.columns_a_step = RULES["Pong"].strides
        self.row, self.speed = 13 + 44 * torch.rand(n, generator=g), rows * torch.randint(-2, 3, (n,), generator=g)
        self.column = torch.full((n,), 10.0)
        self.knobs = [torch.full((n,), 35.0)] * len(GLIDE)

    @property
    def paddle(self) -> torch.Tensor:
        parts = torch.tensor(GLIDE).diff()
        return (torch.stack(self.knobs[::-1][1:]).T @ parts).clamp(*RULES["Pong"].shown)

    def frames(self) -> torch.Tensor:
        frames = torch.stack([pong(None, 64) for _ in self.row])
        for frame, row, column, paddle in zip(frames, self.row, self.column, self.paddle, strict=True):
            blend(frame, (row - 1, row + 1), (column - 1, column + 1), WHITE)
            blend(frame, (paddle - 2.5, paddle + 2.5), (torch.tensor(55.0), torch.tensor(57.0)), GREEN)
        return frames

    def step(self, actions: torch.Tensor) -> None:
        ways = torch.tensor([0.0, 0.0, -1.0, 1.0, -1.0, 1.0])[actions]
        rules = RULES["Pong"]
        self.knobs = [*self.knobs[1:], (self.knobs[-1] + rules.press * ways).clamp(*rules.knob)]
        low, high = rules.walls
        row = self.row + self.speed
        self.speed = torch.where((row < low) | (row > high), -self.speed, self.speed)
        self.row = torch.where(row < low, 2 * low - row, torch.where(row > high, 2 * high - row, row))
        self.column = self.column + self.columns_a_step


def test_the_ball_is_met_where_it_will_be_even_off_a_wall():
    court = Court(32, 0)
    policy = ScriptedPolicy("Pong", PONG, 32, 0, lapses=(0.0,))
    ever_bounced = torch.zeros(32, dtype=torch.bool)
    while court.column[0] < RULES["Pong"].meets - 1:
        before = court.speed
        court.step(policy.act(court.frames()))
        ever_bounced |= court.speed != before
    met = (court.row - court.paddle).abs() < 4.5
    assert ever_bounced.sum() > 8
    assert met.float().mean() > 0.9 and met[ever_bounced].float().mean() > 0.85


def test_lapses_take_their_share_of_the_time():
    policy = ScriptedPolicy("Pong", PONG, 64, 0, lapses=(0.0, 0.5))
    frames = pong(None, 40).repeat(64, 1, 1, 1)
    moved = torch.stack([policy.act(frames) > 1 for _ in range(300)]).float().mean(0)
    # the script waits for a ball; at random two thirds of the buttons move the paddle
    assert moved[::2].max() == 0 and 0.24 < moved[1::2].mean() < 0.43


def test_luck_repeats_and_goes_on():
    frames = pong(15, 40).repeat(4, 1, 1, 1)
    one, other = (ScriptedPolicy("Pong", PONG, 4, 3) for _ in range(2))
    first = [one.act(frames).tolist() for _ in range(40)]
    assert first == [other.act(frames).tolist() for _ in range(40)]
    fresh = ScriptedPolicy("Pong", PONG, 4, 3)
    fresh.load_state_dict(one.state_dict())
    assert [one.act(frames).tolist() for _ in range(40)] == [fresh.act(frames).tolist() for _ in range(40)]


def test_a_world_that_begins_anew_is_forgotten_and_an_older_state_will_do():
    frames = pong(15, 40).repeat(2, 1, 1, 1)
    policy = ScriptedPolicy("Pong", PONG, 2, 3, lapses=(0.0,))
    fresh = ScriptedPolicy("Pong", PONG, 2, 3, lapses=(0.0,))
    start = policy.state_dict()
    older = {name: start[name] for name in ("step", "lapsed", "aim", "absent")}
    for _ in range(6):
        policy.act(frames)
    done = torch.tensor([True, False])
    policy.observe(Step(frames, torch.zeros(2), done, ~done & done, frames, frames[:, None]))
    kept = policy.state_dict()
    assert kept["knob"].isnan().tolist() == kept["ball"].isnan().any(1).tolist() == [True, False]
    another = ScriptedPolicy("Pong", PONG, 2, 3, lapses=(0.0,))
    another.load_state_dict(older)
    assert another.act(frames).tolist() == fresh.act(frames).tolist()


def test_a_mix_is_scripted_where_the_game_is_known():
    assert isinstance(mixed_play("toy", ("LEFT", "STAY", "RIGHT"), 4, 0), RandomPolicy)
    frames = pong(None, 40).repeat(6, 1, 1, 1)
    policy = mixed_play("Pong", PONG, 6, 0)
    waits = torch.stack([policy.act(frames) < 2 for _ in range(60)]).float().mean(0)
    assert waits[1] > 0.8 and waits[4] > 0.8 and waits[0] < 0.6
    with pytest.raises(ValueError, match="Pong, Breakout"):
        ScriptedPolicy("Boxing", PONG, 1, 0)


@pytest.mark.parametrize("worlds", [1, 2, 3, 4])
def test_all_of_a_mix_play_even_in_few_worlds(worlds):
    """With fewer worlds than players these take turns, an episode each; else a world keeps its own."""
    class Says:
        def __init__(self, number: int) -> None:
            self.number = number

        def reset(self, start: Start) -> None:
            pass

        def act(self, frames: torch.Tensor) -> torch.Tensor:
            return torch.full((len(frames),), self.number)

        def observe(self, step: Step) -> None:
            pass

        def state_dict(self) -> dict:
            return {}

        def load_state_dict(self, state: dict) -> None:
            pass

    frames, none = torch.zeros(worlds, 3, 8, 8, dtype=torch.uint8), torch.zeros(worlds, dtype=torch.bool)
    def step(ends: torch.Tensor) -> Step:
        return Step(frames, torch.zeros(worlds), ends, none, frames, frames[:, None])
    policy = MixPolicy([Says(i) for i in range(3)])
    policy.reset(Start(frames, frames[:, None]))
    played = []
    for _ in range(3):
        played.append(policy.act(frames).tolist())
        policy.observe(step(none))
        assert policy.act(frames).tolist() == played[-1], "an episode is played by one"
        policy.observe(step(~none))
    if worlds < 3:
        assert all({row[i] for row in played} == {0, 1, 2} for i in range(worlds))
    else:
        assert played == [[0, 1, 2, 0][:worlds]] * 3
    # it goes on where it was, and an older state did not know of turns
    policy.observe(step(~none))
    fresh, older = MixPolicy(policy.policies), MixPolicy(policy.policies)
    fresh.load_state_dict(policy.state_dict())
    assert fresh.act(frames).tolist() == policy.act(frames).tolist()
    older.load_state_dict({"policies": [{}] * 3})
    assert older.act(frames).tolist() == [0, 1, 2, 0][:worlds]


def test_the_real_opponent_is_beaten():
    # a player whose ball comes off a wall two pixels beside its place loses by 43 to 26
    env = make_env("Pong", 8)
    policy = ScriptedPolicy("Pong", action_names("Pong"), 8, 5, lapses=(0.0,), aim=0.0)
    frames, points = env.reset(5).frames, []
    for _ in range(400):
        step = env.step(policy.act(frames))
        policy.observe(step)
        frames = step.frames
        points.append(step.rewards)
    env.close()
    won, lost = ((torch.stack(points) * sign > 0).sum().item() for sign in (1, -1))
    assert won >= 5 and won > 2 * lost

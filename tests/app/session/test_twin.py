"""Reality beside the dream: where it stands, how it goes back bit by bit, and how alike two frames are."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from app.session.twin import Reality, compare, difference, has_reality, rgb
from diamond_core.agent.policies import RandomPolicy
from diamond_core.envs import Emulator


@pytest.fixture
def reality() -> Reality:
    return Reality.begin("Pong", 3, RandomPolicy(6, 1, 0), image_size=(16, 16))


@pytest.mark.parametrize("game, has", [("Pong", True), ("ms_pacman", True), ("toy", False), ("gym:CartPole-v1", False),
                                       ("Nonsense", False), (None, False), ("", False)])
def test_which_games_have_one(game, has):
    assert has_reality(game) == has


def test_it_begins_in_the_middle_of_a_game(reality: Reality):
    frames, actions = reality.context()
    assert frames.shape == (1, 4, 3, 16, 16) and actions.shape == (1, 3) and reality.total == 0
    assert len(reality.trail().actions) == 20 and reality.trail().actions[-3:] == tuple(actions[0].tolist())


def test_the_same_seed_is_the_same_beginning():
    def begin(seed: int) -> tuple[int, tuple[int, ...]]:
        trail = Reality.begin("Pong", seed, RandomPolicy(6, 1, seed), image_size=(16, 16)).trail()
        return trail.noops, trail.actions

    assert begin(1) == begin(1) != begin(2)


def test_back_and_on_again(reality: Reality):
    for _ in range(5):
        reality.step(2)
    mark, context = reality.mark(), reality.context()
    first = [reality.step(3).frame for _ in range(6)]
    reality.go_to(mark)
    assert reality.behind and reality.frame is None and reality.screen is None
    assert all(torch.equal(a, b) for a, b in zip(reality.context(), context, strict=True))
    again = [reality.step(3).frame for _ in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


def test_an_older_branch_is_not_touched_by_a_newer_one(reality: Reality):
    mark = reality.mark()
    reality.step(1)
    later = reality.trail()
    reality.go_to(mark)
    reality.step(2)
    assert reality.trail().actions == (*later.actions[:-1], 2) and reality.trail(mark).actions == later.actions[:-1]


def test_it_catches_up_bit_by_bit(reality: Reality):
    for action in range(60):
        reality.step(action % 6)
    frame, left = reality.frame, []
    reality.go_to(reality.mark())
    while reality.behind:
        left.append(reality.catch_up(0.0005))
    assert len(left) > 2 and left == sorted(left, reverse=True) and left[-1] == 0
    np.testing.assert_array_equal(reality.frame, frame)


def test_who_is_on_the_way_there_does_not_begin_again(reality: Reality):
    for action in range(400):
        reality.step(action % 6)
    trail = reality.trail()
    reality.go_to(reality.mark())
    reality.catch_up(0.0005)
    left = reality.behind
    reality.restore(trail, 7.0)
    assert 0 < reality.behind == left and reality.total == 7


def test_it_is_what_the_emulator_shows(reality: Reality):
    emulator = Emulator("Pong", image_size=(16, 16))
    emulator.restore(reality.trail())
    tick, mine = emulator.step(2), reality.step(2)
    assert torch.equal(tick.frame, mine.frame)
    np.testing.assert_array_equal(reality.screen, emulator.screen())


def test_a_lost_life_and_the_end():
    reality = Reality.begin("Breakout", 0, RandomPolicy(4, 1, 0), image_size=(16, 16))
    lost = over = 0
    while not reality.over:
        # FIRE serves; nobody catches
        reality.step(1)
        lost += reality.life_lost
    assert lost == reality.lives or lost >= 4
    trail, frame = reality.trail(), reality.frame
    tick = reality.step(0)
    over += tick.end
    assert over and tick.reward == 0 and reality.trail() == trail and not reality.life_lost
    np.testing.assert_array_equal(reality.frame, frame)


def test_it_knows_which_of_its_frames_are_of_this_life():
    reality = Reality.begin("Breakout", 0, RandomPolicy(4, 1, 0), image_size=(16, 16))
    while not reality.life_lost:
        reality.step(1)
    found = [reality.since]
    for _ in range(4):
        reality.step(0)
        found.append(reality.since)
    assert found == [3, 2, 1, 0, 0], "the newest frame of four, and then it is past"
    young = Reality("Breakout", 40, (16, 16))
    young.renew(0, RandomPolicy(4, 1, 0), warmup=20)
    mark, since = young.mark(), young.since
    while not young.life_lost:
        young.step(1)
    assert young.since == 39
    young.go_to(mark)
    assert young.since == since


def test_another_games_moment_is_refused(reality: Reality):
    other = Reality.begin("Breakout", 0, RandomPolicy(4, 1, 0), image_size=(16, 16))
    with pytest.raises(ValueError, match="a moment of pong, got one of breakout"):
        reality.restore(other.trail())
    with pytest.raises(ValueError, match="actions from 0 to 5"):
        reality.restore(reality.trail().__class__("pong", 4, 0, (7,)))


def test_likeness():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    same = compare(image, image)
    assert same == (60, pytest.approx(1), 0) and same.divergence == 0 and same.agrees
    ball = np.zeros_like(image)
    ball[20:22, 30] = 236
    moved = compare(np.roll(ball, 9, axis=1), ball)
    assert 30 < moved.psnr < 40 and 0 < moved.divergence < 0.5 and not moved.agrees
    assert compare(np.roll(ball, 1, axis=1), ball).agrees and not compare(ball // 2, ball).agrees
    assert not compare(ball * 0, ball).agrees and not compare(ball, ball * 0).agrees
    assert compare(np.clip(ball.astype(int) + rng.integers(0, 30, ball.shape), 0, 255).astype(np.uint8), ball).agrees
    other = compare(image, rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
    assert other.divergence == 1 and not other.agrees


def test_where_they_differ():
    a = np.zeros((4, 4, 3), np.uint8)
    b = a.copy()
    b[1, 2] = 0, 255, 51
    d = difference(a, b)
    assert d.dtype == np.float32 and d[1, 2] == 1 and d.sum() == 1
    np.testing.assert_array_equal(difference(b, a), d)


def test_grey_frames_are_shown_in_grey():
    image = rgb(torch.arange(16, dtype=torch.uint8).view(1, 4, 4))
    assert image.shape == (4, 4, 3) and (image[..., 0] == image[..., 2]).all()

"""The game beside itself with something a pixel elsewhere: it is moved by that, and moving nothing changes nothing."""

import pytest
import torch

from diamond_core.agent.policies import RandomPolicy
from diamond_core.envs import action_names
from diamond_core.envs.atari import AtariVector, Emulator
from diamond_core.evaluation import chaos
from diamond_core.evaluation.chaos import MOVABLE, course, evaluate_chaos, forks
from diamond_core.evaluation.sprites import things_of


@pytest.fixture
def short(monkeypatch):
    monkeypatch.setattr(chaos, "BEGIN", (40, 60))
    monkeypatch.setattr(chaos, "WITHIN", (15, 30))
    monkeypatch.setattr(chaos, "SHOWN", (1, 30))


def random_play(game: str, n: int) -> RandomPolicy:
    return RandomPolicy(len(action_names(game)), n, 3, (0.5,))


@pytest.mark.parametrize("game", list(MOVABLE))
def test_a_nudge_moves_the_thing_by_a_pixel_along_one_axis(game):
    emulator, (name, places) = Emulator(game), MOVABLE[game]
    emulator.reset(0, 0)
    serve = action_names(game).index("FIRE") if "FIRE" in action_names(game) else 1
    for step in range(90):
        emulator.step(serve if step % 20 == 0 else 0)
        if step > 20 and things_of(game)[name].seen(emulator.frame()[None]):
            break
    # a console's pixel in 64ths of its 160 columns or 210 rows
    for place, (axis, pixel) in zip(places, [(0, 64 / 210)] if game == "Freeway" else [(1, 0.4), (0, 64 / 210)],
                                    strict=True):
        twins = [emulator.clone() for _ in range(2)]
        twins[1].nudge(place, 1)
        frames = torch.stack([twin.step(0).frame for twin in twins])
        moved = things_of(game)[name].find(frames).diff(dim=0)[0]
        # as well as colours tell it: the frame is the brighter of two, and the road shines through
        assert pixel / 2 < abs(moved[axis].item()) < 2 * pixel and abs(moved[1 - axis].item()) < 0.75 * pixel


def test_a_course_is_what_the_worlds_did(short):
    n, steps, seed = 3, 30, 5
    found = forks("Breakout", random_play("Breakout", n), n, steps, seed)
    env, policy = AtariVector("Breakout", n, life_loss_ends=True), random_play("Breakout", n)
    start = env.reset(seed)
    policy.reset(start)
    frames, seen = start.frames, []
    for _ in range(60 + steps):
        step = env.step(policy.act(frames))
        frames = step.frames
        seen.append(step)
    env.close()
    emulator = Emulator("Breakout")
    for w, (trail, actions) in enumerate(found):
        begin = len(trail.actions)
        there = seen[begin:begin + steps]
        real = course(emulator, trail, actions)
        assert 40 <= begin < 60 and len(actions) == steps
        assert torch.equal(real.frames, torch.stack([step.final_frames[w] for step in there]))
        assert real.rewards.tolist() == [bool(step.rewards[w]) for step in there]
        assert real.ends.tolist() == [bool(step.ends[w]) for step in there]


def test_who_moves_nothing_foresees_everything_and_who_moves_something_does_not(short):
    same = evaluate_chaos("Pong", random_play("Pong", 6), 6, pixels=256)
    moved = evaluate_chaos("Pong", random_play("Pong", 6), 6)
    assert same.psnr == {1: 60.0, 30: 60.0} and moved.psnr[1] < 55
    for within, x in same.precision["reward"].items():
        assert x.events == moved.precision["reward"][within].events
        assert (x.alone, x.together) == ((1.0, 1.0) if x.events else (None, None))
    late, at = moved.precision["reward"][30], moved.precision["end"][30]
    assert late.events and late.alone is not None and late.together is not None
    assert late.alone < 1 and late.alone <= late.together
    assert (at.events, at.alone) == (0, None)


def test_a_game_whose_memory_is_not_known_is_named_with_those_that_are():
    with pytest.raises(ValueError, match="where MsPacman keeps what moves: use one of Pong"):
        evaluate_chaos("MsPacman", random_play("MsPacman", 1), 1)

"""Free dreams: things are counted, runs are measured, the nearest real frame is found, and all of it in one report."""

from __future__ import annotations

import pytest
import torch

from app.commands.dreams import told
from diamond_core.agent.policies import RandomPolicy
from diamond_core.agent.scripted import RULES, Rules, Thing
from diamond_core.envs import make_env
from diamond_core.evaluation import evaluate_fidelity, evaluate_free, free
from diamond_core.evaluation.free import (
    WARMUP,
    count,
    lives_lost,
    longest,
    meetings,
    nearest_psnr,
    opened,
    played,
    references,
    things,
)
from diamond_core.evaluation.metrics import PSNR_CAP, psnr
from diamond_core.evaluation.sprites import player_of
from diamond_core.types import Start
from tests.conftest import EXACT
from tests.evaluation.test_fidelity import SIZE, Reality, dataset

BLOCK = Thing((16, 48), (0, 64), (1.0, 0.0, 0.0), 40.0)


@pytest.fixture
def drifting(monkeypatch):
    """The block of the test game is a thing that is known, both ball and paddle."""
    sides = (0.0, 64.0)
    monkeypatch.setitem(RULES, "Drift", Rules(BLOCK, BLOCK, 1, (), (), (), (), sides, 60.0, sides, sides, sides, 4.0))


def frames_with(*places: tuple[int, ...]) -> torch.Tensor:
    """(1, t, 3, h, w): one bright block two columns wide at each place, over a faint stain."""
    frames = torch.full((1, len(places), 3, SIZE, SIZE), 40, dtype=torch.uint8)
    for t, columns in enumerate(places):
        frames[0, t, :, 6:10, 0] = 60
        for x in columns:
            frames[0, t, :, 6:10, x:x + 2] = 250
    return frames


def test_pieces_are_counted_and_stains_are_not():
    assert count(BLOCK, frames_with((), (4,), (4, 9), (4, 6), (3, 8, 12)), 100.0).tolist() == [[0, 1, 2, 1, 3]]


def test_the_longest_run():
    flags = torch.tensor([[0, 1, 1, 0, 1, 1, 1], [0, 0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    assert longest(flags).tolist() == [3, 0, 7]
    cuts = torch.zeros(3, 7, dtype=torch.bool)
    cuts[0, 4], cuts[2, 1], cuts[2, 6] = True, True, True
    assert longest(flags, cuts).tolist() == [2, 0, 5]


def test_what_is_doubled_and_what_is_lost(drifting):
    rows = [frames_with(*[(4,)] * 20), frames_with(*[(4,)] * 5, *[()] * 15), frames_with(*[(4, 9)] * 3, *[(4,)] * 17)]
    frames = torch.cat(rows)
    counts = things("Drift", frames, torch.ones(3, 20, dtype=torch.bool), rows[0][0])["paddle"]
    assert (counts.none, counts.several) == (15 / 60, 3 / 60)
    assert counts.doubled == counts.lost == pytest.approx(1 / 3)
    mask = torch.ones(3, 20, dtype=torch.bool)
    mask[1, 19] = False
    assert things("Drift", frames, mask, rows[0][0])["paddle"].lost == 0
    assert things("Pitfall", frames, mask, rows[0][0]) == {}
    # what is missing at one dream's end and at the next one's beginning was not lost for so long
    dones = torch.zeros(3, 20, dtype=torch.bool)
    dones[1, 4] = True
    whole = torch.ones(3, 20, dtype=torch.bool)
    assert things("Drift", frames, whole, rows[0][0], dones)["paddle"].lost == pytest.approx(1 / 3)
    dones[1, 12] = True
    found = things("Drift", frames, whole, rows[0][0], dones)["paddle"]
    assert found.lost == 0 and found.none == counts.none


def test_lives_are_lost_where_the_digit_changes_and_not_where_something_new_begins(drifting):
    frames = torch.zeros(3, 6, 3, 64, 64, dtype=torch.uint8)
    frames[:2, :3, :, 1:5, 40:42] = 142
    frames[1, 4, :, 1:5, 43:45] = 142
    frames[2, 4:, :, 1:5, 40:42] = 142
    dones = torch.zeros(3, 6, dtype=torch.bool)
    dones[0, 3], dones[2, 3] = True, True
    lost = lives_lost("Breakout", frames, dones)
    assert lost is not None and lost.nonzero().tolist() == [[0, 3], [1, 3]], "the second in two frames"
    assert lives_lost("Drift", frames, dones) is None and lives_lost("Pitfall", frames, dones) is None


def test_a_ball_that_meets_the_middle_comes_back_or_gets_past():
    """One row a story: it comes back, it gets past, it meets the edge, the game is over first, it meets in another."""
    lost = [50, 53, 56, 0, 0, 0, 0]
    ways = [[50, 53, 56, 53, 50, 47, 44], lost, lost, [50, 53, 56, 0, 0, 40, 38], lost]
    frames = torch.zeros(5, 7, 3, 64, 64, dtype=torch.uint8)
    for n, rows in enumerate(ways):
        for t, row in enumerate(rows):
            frames[n, t, 0, 57:59, 26:36] = 200
            if row:
                frames[n, t, 0, row, 24 if n == 2 else 31] = 200
    none = torch.zeros(5, 7, dtype=torch.bool)
    dones, whole = none.clone(), ~none
    dones[3, 3], dones[4, 1] = True, True

    def found(mask=whole, several=none, t=7):
        both = meetings("Breakout", frames[:, :t], mask[:, :t], dones[:, :t], several[:, :t])
        assert both is not None
        return [those.nonzero().tolist() for those in both]

    assert found() == [[[0, 2], [1, 2], [3, 2]], [[1, 2], [3, 2]]]
    assert found(t=3) == [[], []], "nobody knows yet"
    stops = whole.clone()
    stops[1, 5:], stops[3, 4:] = False, False
    assert found(stops) == [[[0, 2], [3, 2]], [[3, 2]]], "what a recording that stops does not show; the other is over"
    two = none.clone()
    two[0, 3], two[1, 1], two[3, 4] = True, True, True
    assert found(several=two) == [[[3, 2]], [[3, 2]]], "which of two balls came back; the other is over before"
    assert all(meetings(game, frames, whole, dones, none) is None for game in ("Pong", "Pitfall"))


def test_the_nearest_frame():
    torch.manual_seed(0)
    real = torch.randint(0, 256, (7, 3, SIZE, SIZE), dtype=torch.uint8)
    near = (real[3].int() + 2).clamp(0, 255).to(torch.uint8)
    found = nearest_psnr(torch.stack([real[5], near])[None], real)
    assert found.shape == (1, 2) and found[0, 0] == PSNR_CAP
    assert found[0, 1] == pytest.approx(psnr(near, real[3]).item(), abs=0.05)


def test_references_are_from_all_over_a_large_dataset(monkeypatch):
    monkeypatch.setattr(free, "REFERENCES", 8)
    frames = references(dataset(*[3] * 24), seed=0)
    assert len(frames) == 8 and frames[:, 0, 0, 0].max() >= 12, "not of the oldest episodes alone"


def test_a_report_of_a_world_left_alone(small_agent, drifting):
    world = small_agent.world(runtime=EXACT)
    said = []
    reports = [evaluate_free(world, lambda n: RandomPolicy(3, n, 0), dataset(20, 30), steps=6, num_dreams=3, seed=1,
                             watch=lambda *x: said.append(x)) for _ in range(2)]
    assert reports[0] == reports[1] and said[-1] == ("dreaming", 6, 6)
    report = reports[0].to_json()
    assert report["dreams"] == 3 and report["reality"]["things"]["ball"]["none"] == 0
    assert 0 < report["nearest_psnr_worst"] <= report["nearest_psnr"] < PSNR_CAP
    assert report["dream"]["steps_seen"] == report["reality"]["steps_seen"] == 6


def test_a_report_says_how_much_was_seen_and_dreams_that_end_are_apart(small_agent, drifting, monkeypatch):
    """Reality is over with its episode; a dream that ends begins anew, and both parts of it count."""
    world = small_agent.world(runtime=EXACT)
    judge = world.judge
    def ends(*args):
        r, _, rp, ep, memory = judge(*args)
        return r, torch.ones_like(r, dtype=torch.bool), rp, ep, memory
    monkeypatch.setattr(world, "judge", ends)
    monkeypatch.setattr("diamond_core.evaluation.free.count", lambda thing, frames, bright: 0 * frames[:, :, 0, 0, 0])
    report = evaluate_free(world, lambda n: RandomPolicy(3, n, 0), dataset(20), steps=30, num_dreams=3)
    assert report.dream.steps_seen == 30 and report.reality.steps_seen == 20 - 3
    assert report.dream.things["ball"].none == report.reality.things["ball"].none == 1
    assert report.dream.things["ball"].lost == 0 and report.reality.things["ball"].lost == 1
    assert "  steps seen: 30.0 / 17.0" in told(report) and told(report)[0].endswith("; dream / held-out play")


def test_a_dream_that_ends_begins_anew_as_episodes_begin(small_agent, drifting, monkeypatch):
    """After a lost ball comes a serve: one that began again in the midst of play would have its ball at once."""
    data, began = dataset(20, 25, 30), []
    world = small_agent.world(runtime=EXACT)
    start, judge = world.start, world.judge
    def ends(*args):
        r, _, rp, ep, memory = judge(*args)
        return r, torch.ones_like(r, dtype=torch.bool), rp, ep, memory
    monkeypatch.setattr(world, "judge", ends)
    monkeypatch.setattr(world, "start", lambda frames, *args: began.append(frames) or start(frames, *args))
    evaluate_free(world, lambda n: RandomPolicy(3, n, 0), data, steps=5, num_dreams=4, seed=2)
    k = world.num_conditioning_frames
    firsts = [data[i].frames[:k] for i in range(3)]
    at_first = [[any(torch.equal(row, first) for first in firsts) for row in rows] for rows in began]
    assert not all(at_first[0]) and all(map(all, at_first[1:])) and len(at_first) == 6
    assert len({row.numpy().tobytes() for rows in began[1:] for row in rows}) == 3, "of all episodes"


def test_the_same_policy_plays_real_games_too(small_agent, drifting):
    """Held-out play may be another one's, who waits for other things."""
    env = make_env("toy", 5, image_size=(16, 16))
    asked = []
    def policy(n):
        asked.append(n)
        return RandomPolicy(3, n, 0)
    report = evaluate_free(small_agent.world(runtime=EXACT), policy, dataset(20), 6, 3, emulator=env)
    frames, rewards, dones = played(make_env("toy", 5, image_size=(16, 16)), RandomPolicy(3, 5, 0), WARMUP + 6, 0)
    assert asked == [3, 5] and frames.shape == (5, WARMUP + 6, 3, 16, 16) and dones.any()
    assert report.emulator.points == pytest.approx(100 * (rewards[:, WARMUP:] != 0).float().mean().item())
    assert report.emulator.steps_seen == 6 and "  steps seen: 6.0 / 6.0 / 6.0" in told(report)


def test_dreams_go_on_from_new_games_and_the_games_beside_them(small_agent, drifting, monkeypatch):
    """A person begins there: what goes wrong only in a game's first steps is in no window of held-out play."""
    def games(game="Pong"):
        return make_env(game, 5, image_size=(16, 16))
    def policy(n):
        return RandomPolicy(3, n, 0)
    def opener():
        return RandomPolicy(3, 5, 9)
    world, began = small_agent.world(runtime=EXACT), []
    k, start = world.num_conditioning_frames, world.start
    monkeypatch.setattr(world, "start", lambda frames, actions, *rest: began.append((frames, actions))
                        or start(frames, actions, *rest))
    report = evaluate_free(world, policy, dataset(20), 6, 3, emulator=games(), opening=(opener(), 7))
    env, who = games(), opener()
    first = played(env, who, 7, 0)[0]
    assert torch.equal(began[0][0], first[:, -k:])
    presses = opener()
    presses.reset(env.reset(0))
    assert torch.equal(began[0][1], torch.stack([presses.act(first[:, 0]) for _ in range(7)], dim=1)[:, 1 - k:])
    played(env, opener(), 7, 0)
    _, rewards, _ = played(env, policy(5), 6, 0, start=Start(first[:, -1], first[:, :-1]))
    assert report.emulator.points == pytest.approx(100 * (rewards != 0).float().mean().item()) and report.dreams == 5
    assert "from new games" in told(report)[0] and report.to_json()["begun"] == "new games"
    with pytest.raises(ValueError, match="need the emulator"):
        evaluate_free(world, policy, dataset(20), 6, 3, opening=(opener(), 7))
    with pytest.raises(ValueError, match="over within its first 3 steps"):
        evaluate_free(world, policy, dataset(20), 6, 3, emulator=games("toy"), opening=(opener(), 7))


def test_a_world_that_sees_one_frame_begins_in_new_games_too(small_agent):
    env = make_env("Pong", 2, image_size=(16, 16))
    (frames, actions), start = opened(env, RandomPolicy(3, 2, 0), 5, 1, seed=0)
    assert frames.shape == (2, 1, 3, 16, 16) and actions.shape == (2, 0) and start.context.shape[1] == 0


def test_the_player_is_tracked(drifting, small_agent):
    data = dataset(30, 40)
    assert evaluate_fidelity(Reality(data), data, (15,), 5, classifier_updates=1).player_off == 0
    assert evaluate_fidelity(small_agent.world(runtime=EXACT), data, (15,), 5, classifier_updates=1).player_off > 0.5
    assert evaluate_fidelity(Reality(data), data, (5,), 5, classifier_updates=1).player_off is None


def test_a_chicken_and_a_blue_car_are_known():
    frames = torch.full((1, 2, 3, 64, 64), 142)
    frames[:, :, :, 31, 18:20] = torch.tensor([214, 214, 102]).view(3, 1)  # no part of the chicken
    frames[0, 0, :, 40:43, 18:20] = torch.tensor([[[230]], [[230]], [[90]]])
    for t, column in ((0, 30), (1, 30), (1, 50)):
        frames[0, t, :, 29, column:column + 4] = torch.tensor([[60], [70], [160]])
    counts = things("Freeway", frames, torch.ones(1, 2, dtype=torch.bool), frames[0, :1])
    assert (counts["chicken"].none, counts["blue car"].several) == (0.5, 0.5)
    player = player_of("Freeway")
    assert player is not None and player.thing.find(frames[0])[0, player.axis] == 41.5 and player_of("Pitfall") is None

"""Fidelity of worlds that are known: one that is reality itself, one that stands still, one with random weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from diamond_core.config import RuntimeConfig, SamplerConfig
from diamond_core.device import resolve
from diamond_core.evaluation import FidelityReport, evaluate_fidelity
from diamond_core.evaluation.metrics import PSNR_CAP
from diamond_core.evaluation.open_loop import draw_windows, replay_actions
from diamond_core.replay import Dataset, DatasetError, DatasetInfo, Episode
from diamond_core.world.dream import DreamState, DreamStep, World

K, SIZE = 4, 16
INFO = DatasetInfo("Drift", ("STAY", "LEFT", "RIGHT"), (3, SIZE, SIZE))


def drift(number: int, length: int, columns: int = SIZE) -> Episode:
    """A block that goes where the action says, round and round; a corner tells the episode and the step."""
    rng = np.random.default_rng(number)
    actions = rng.integers(0, 3, length)
    at = (rng.integers(columns) + np.cumsum([0, *np.array([0, -2, 2])[actions]])) % columns
    frames = np.full((length + 1, 3, SIZE, SIZE), 40, np.uint8)
    for t, x in enumerate(at):
        frames[t, :, 6:10, x] = frames[t, :, 6:10, (x + 1) % SIZE] = 250
        frames[t, :2, 0, 0] = number, t
    rewards = torch.from_numpy((at[1:] < 4) * 1.0 - (at[1:] >= 14)).float()
    ends = torch.arange(length) == length - 1
    return Episode(torch.from_numpy(frames), torch.from_numpy(actions), rewards, ends, ends & False)


def dataset(*lengths: int, first: int = 0, columns: int = SIZE) -> Dataset:
    data = Dataset(None, INFO)
    for i, length in enumerate(lengths):
        data.add(drift(first + i, length, columns))
    return data


class Reality:
    """The world of a dataset, looked up: it dreams what happened and knows what is to come."""

    num_actions, num_conditioning_frames = 3, K
    sampler = SamplerConfig()
    runtime = resolve(RuntimeConfig("cpu", "float32", "off", "off"))

    def __init__(self, data: Dataset) -> None:
        self.data = data

    def start(self, frames: Tensor, actions: Tensor, seeds: Tensor) -> DreamState:
        zeros = torch.zeros(len(frames), 1)
        return DreamState(frames, torch.zeros(len(frames), K, dtype=torch.int64), zeros, zeros, seeds, seeds * 0)

    def step(self, state: DreamState, actions: Tensor) -> DreamStep:
        frames = self.next_frames(state)
        rewards, ends, reward_p, end_p, _ = self.judge(state, actions, frames)
        after = DreamState(torch.cat([state.frames[:, 1:], frames[:, None]], dim=1), state.actions, state.hx, state.cx,
                           state.seeds, state.steps + 1)
        return DreamStep(after, frames, rewards, ends, reward_p, end_p)

    def next_frames(self, state: DreamState) -> Tensor:
        return torch.stack([episode.frames[min(t + 1, len(episode))] for episode, t in self._places(state)])

    def judge(self, state: DreamState, actions: Tensor, next_frames: Tensor) -> tuple:
        places = [(episode, min(t, len(episode) - 1)) for episode, t in self._places(state)]
        rewards = torch.stack([episode.rewards[t] for episode, t in places])
        ends = torch.stack([episode.ends[t] for episode, t in places])
        reward_p = torch.eye(3)[rewards.long() + 1]
        return rewards, ends, reward_p, ends.float(), (state.hx, state.cx)

    def _places(self, state: DreamState) -> list[tuple[Episode, int]]:
        return [(self.data[episode], step) for episode, step in state.frames[:, -1, :2, 0, 0].tolist()]


class Frozen(Reality):
    """A world in which time has stopped."""

    def next_frames(self, state: DreamState) -> Tensor:
        return state.frames[:, -1]


@pytest.fixture(scope="module")
def held_out() -> Dataset:
    return dataset(60, 50, 12)


def measure(world: Reality | World, data: Dataset, updates: int = 150, horizons: tuple[int, ...] = (1, 5, 20),
            num: int = 12) -> FidelityReport:
    return evaluate_fidelity(world, data, horizons, num, seed=3, train_dataset=dataset(*[40] * 20, first=50),
                             classifier_updates=updates)


def test_a_world_that_sees_one_frame_is_measured_too():
    class OneFrame(Reality):
        num_conditioning_frames = 1

    data = dataset(30, 30, 30, 30)
    report = evaluate_fidelity(OneFrame(data), data, (5,), 5, classifier_updates=1)
    assert report.following is not None and report.following.ratio == 1


def test_reality_is_true_to_itself(held_out: Dataset):
    report = measure(Reality(held_out), held_out)
    assert set(report.psnr.dream.mean) == {PSNR_CAP} and set(report.ssim.dream.mean) == {1.0}
    assert max(report.psnr.copy_last.mean) < 40
    assert report.following.ratio == 1 and report.following.real > 0.98 > 0.5 > report.following.most_frequent
    for its in report.precision.values():
        assert its.events and its.real == its.dream == 1 and its.base_rate < 1
        assert list(its.within) == [1, 5, 20] and its.within[20].events == its.events > its.within[5].events


def test_a_frozen_world_is_the_baseline(held_out: Dataset):
    report = measure(Frozen(held_out), held_out)
    assert report.psnr.dream == report.psnr.copy_last and report.ssim.dream == report.ssim.copy_last
    assert report.following.dream < 0.6 < 0.9 < report.following.real
    assert report.precision["reward"].dream < report.precision["reward"].real == 1


def test_precision_within_a_horizon_knows_nothing_of_later_steps(held_out: Dataset):
    class Forgetful(Reality):
        """Says after five steps that everything happens."""

        def step(self, state: DreamState, actions: Tensor) -> DreamStep:
            step = super().step(state, actions)
            if step.state.steps.max() > 5:
                step = step._replace(reward_probabilities=torch.full_like(step.reward_probabilities, 1 / 3))
            return step

    its = measure(Forgetful(held_out), held_out).precision["reward"]
    assert its.within[5].dream == 1 > its.within[20].dream == its.dream


def test_windows_are_whole_where_they_can_be(held_out: Dataset):
    windows = draw_windows(held_out, K, 20, 40, seed=0)
    assert len(windows) == 40
    lengths = windows.mask[:, K - 1:-1].sum(1).tolist()
    assert sorted(set(lengths)) == [9, 20] and lengths.count(9) == 1
    corners = {tuple(corner) for corner in windows.frames[:, 0, :2, 0, 0].tolist()}
    assert len(corners) == 40
    assert windows.ends[:, K - 1:-1].any(1).sum() == 3


def test_all_windows_there_are_and_no_more(held_out: Dataset):
    assert len(draw_windows(held_out, K, 20, 1000, seed=0)) == 38 + 28 + 1


def test_no_episode_is_long_enough():
    with pytest.raises(ValueError, match="an episode of 4 steps or more"):
        draw_windows(dataset(3, 2), K, 5, 4, seed=0)


def test_rewards_and_frames_belong_to_their_actions(held_out: Dataset):
    windows = draw_windows(held_out, K, 6, 70, seed=1)
    its = replay_actions(Reality(held_out), windows, seed=0)
    row, j = 68, 2
    episode, t = (int(x) for x in windows.frames[row, 0, :2, 0, 0])
    at = t + K - 1 + j
    assert its.actions[row, j] == held_out[episode].actions[at] and its.rewards[row, j] == held_out[episode].rewards[at]
    assert torch.equal(its.truth[row, j], held_out[episode].frames[at + 1])
    assert torch.equal(its.dream[its.mask], its.truth[its.mask])
    assert torch.equal(its.on_truth[its.mask], its.on_dream[its.mask])


def test_short_episodes_drop_out_of_the_curves():
    data = dataset(8, 30)
    report = measure(Reality(data), data, updates=1, horizons=(5, 10, 60), num=100)
    assert report.rollouts == 2 and report.n[:28] == [2] * 5 + [1] * 22 + [0]
    assert report.psnr.dream.mean[26] == PSNR_CAP and report.psnr.dream.mean[27] is None
    assert report.psnr.dream.low[10] is None and report.strip.steps == [5, 10]
    assert report.following.transitions == 4 + 26


@pytest.fixture
def toy_play() -> Callable[[], Dataset]:
    return lambda: dataset(20, 20, 14, first=9)


def test_the_same_seed_gives_the_same_report(small_world: World, toy_play: Callable[[], Dataset]):
    reports = []
    for luck in range(2):
        torch.manual_seed(luck)
        reports.append(measure(small_world, toy_play(), updates=2, horizons=(1, 3), num=4).to_json())
    a, b = reports
    assert a == b
    other = evaluate_fidelity(small_world, toy_play(), (1, 3), 4, seed=4, classifier_updates=2).to_json()
    assert other["psnr"] != a["psnr"]


def test_luck_outside_is_left_alone(small_world: World, toy_play: Callable[[], Dataset]):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    measure(small_world, toy_play(), updates=2, horizons=(2,), num=2)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_other_play_half_of_the_episodes_teach(small_world: World, toy_play: Callable[[], Dataset]):
    report = evaluate_fidelity(small_world, toy_play(), (2,), 4, classifier_updates=2)
    assert report.following is not None and report.coverage.episodes == 2
    alone = evaluate_fidelity(small_world, dataset(20), (2,), 4, classifier_updates=2)
    assert alone.following is None and alone.coverage.episodes == 1
    assert evaluate_fidelity(small_world, toy_play(), (1,), 4).following is None


def test_progress_is_told(small_world: World, toy_play: Callable[[], Dataset]):
    told = []
    evaluate_fidelity(small_world, toy_play(), (3,), 4, classifier_updates=2, watch=lambda *x: told.append(x))
    assert told == [("dreaming", i, 3) for i in (1, 2, 3)] + [("classifying", i, 2) for i in (1, 2)]


def test_json_holds_no_nan_and_unknown_is_null(small_world: World, tmp_path: Path):
    """No block comes near column 14, so there is no negative reward; one rollout has no interval."""
    report = evaluate_fidelity(small_world, dataset(6, columns=8), (1, 30), 4)
    report.save(tmp_path / "report")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    content = json.loads((tmp_path / "report" / "fidelity.json").read_text(), parse_constant=refuse)
    unknown = {"events": 0, "dream": None}
    assert content["precision"]["reward_negative"] == {"base_rate": 0.0, "real": None, **unknown,
                                                       "within": {"1": unknown, "30": unknown}}
    assert content["following"] is None and content["psnr"]["dream"]["mean"][29] is None
    assert content["coverage"]["ends"] == 1 and sum(content["coverage"]["actions"].values()) == 6
    assert content["sampler"]["s_tmax"] is None


def test_the_picture(held_out: Dataset, tmp_path: Path):
    report = measure(Reality(held_out), held_out, updates=1)
    report.save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fidelity.json", "fidelity.png"]
    with Image.open(tmp_path / "fidelity.png") as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape == (1760, 1800, 3)
    for colour in (0xA78BFA, 0x2DD4BF, 0x8B94A7, 0x0B0D12):
        assert (pixels == [colour >> 16, colour >> 8 & 255, colour & 255]).all(-1).sum() > 1000, hex(colour)
    violet, teal = ((pixels[520:840] == colour).all(-1).sum() for colour in ([0xA7, 0x8B, 0xFA], [0x2D, 0xD4, 0xBF]))
    assert violet > 1000 and not teal, "the lower row is the dream's"
    # the strip's pixels are the frames', whole squares of them: the block is 2 x 4 pixels, twenty times enlarged
    assert (pixels == 250).all(-1).sum() == 2 * len(report.strip.steps) * 8 * 20 * 20


def test_horizons_beyond_all_play_have_a_picture_too(tmp_path: Path):
    data = dataset(6, columns=8)
    report = evaluate_fidelity(Reality(data), data, (30,), 4)
    report.save(tmp_path)
    assert report.strip.steps == [3] and (tmp_path / "fidelity.png").exists()


def test_play_of_another_game(small_world: World):
    data = Dataset(None, DatasetInfo("Pong", ("A", "B"), (3, SIZE, SIZE)))
    with pytest.raises(DatasetError, match="with 3 actions, the dataset of Pong has 2"):
        evaluate_fidelity(small_world, data)


def test_a_horizon_of_nothing(small_world: World, held_out: Dataset):
    with pytest.raises(ValueError, match="1 or more steps"):
        evaluate_fidelity(small_world, held_out, horizons=(0, 5))

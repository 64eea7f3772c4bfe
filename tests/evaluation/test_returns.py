"""Returns: fixed quotas, the step limit, and human-normalised scores."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diamond_core.agent.policies import RandomPolicy
from diamond_core.envs import make_env
from diamond_core.evaluation import human_normalised, play_episodes, reference
from diamond_core.types import Start, Step


class Clockwork:
    """World i ends after lengths[i] steps, never where that is None; every step is worth 2."""

    num_actions, frame_shape = 1, (1, 2, 2)

    def __init__(self, *lengths: int | None) -> None:
        self.lengths, self.num_envs = lengths, len(lengths)
        self.seeds: list[int] = []

    def reset(self, seed: int) -> Start:
        self.seeds.append(seed)
        self.age = [0] * self.num_envs
        return Start(self._frames(), self._frames()[:, None, :0])

    def step(self, actions: Tensor) -> Step:
        self.age = [age + 1 for age in self.age]
        ends = torch.tensor([age == length for age, length in zip(self.age, self.lengths, strict=True)])
        self.age = [0 if end else age for age, end in zip(self.age, ends, strict=True)]
        return Step(self._frames(), torch.full((self.num_envs,), 2.0), ends, ends & False, self._frames(),
                    self._frames()[:, None, :0])

    def _frames(self) -> Tensor:
        return torch.zeros(self.num_envs, *self.frame_shape, dtype=torch.uint8)


def play(env: Clockwork, episodes: int, max_steps: int | None = None) -> list[int]:
    results = play_episodes(env, RandomPolicy(1, env.num_envs, 0), episodes, 7, max_steps)
    assert results.returns == tuple(2.0 * length for length in results.lengths)
    return list(results.lengths)


def test_short_episodes_are_not_favoured():
    assert play(Clockwork(1, 50), 4) == [1, 1, 50, 50]
    assert play(Clockwork(1, 50, 3), 5) == [1, 1, 50, 50, 3]
    assert play(Clockwork(1, 50), 1) == [1]


def test_a_step_limit_ends_an_episode():
    env = Clockwork(None, None)
    assert play(env, 5, max_steps=4) == [4] * 5
    assert env.seeds == [7, 8, 9]


def test_a_world_that_was_cut_waits_for_its_game_to_end():
    env = Clockwork(6, 5)
    assert play(env, 4, max_steps=5) == [5, 5, 5, 5]
    assert env.seeds == [7]


def test_worlds_play_on_while_another_waits():
    env = Clockwork(None, 3)
    assert play(env, 4, max_steps=3) == [3, 3, 3, 3]
    assert env.seeds == [7, 8]


def test_every_counted_episode_is_told_of():
    told = []
    results = play_episodes(Clockwork(2, 3), RandomPolicy(1, 2, 0), 3, 0, watch=lambda *x: told.append(x))
    assert sorted(told) == sorted(zip(results.returns, results.lengths, strict=True))


def test_the_toy_game_is_reproduced():
    a, b = (play_episodes(make_env("toy", 3), RandomPolicy(3, 3, 0), 7, 5) for _ in range(2))
    assert a == b and len(a.returns) == 7 and -1 <= a.mean <= 20 and a.sem > 0


def test_nothing_to_play_is_an_error():
    with pytest.raises(ValueError, match="expected one episode"):
        play_episodes(Clockwork(1), RandomPolicy(1, 1, 0), 0, 0)


def test_one_episode_has_no_spread():
    assert play_episodes(Clockwork(1), RandomPolicy(1, 1, 0), 1, 0).std is None


@pytest.mark.parametrize("name", ["Pong", "pong", "PONG"])
def test_human_normalised_score(name: str):
    assert human_normalised(name, 20.4) == pytest.approx(41.1 / 35.3)
    assert human_normalised(name, -20.7) == 0 and human_normalised(name, 14.6) == 1


def test_games_by_any_spelling():
    assert reference("ms_pacman") == reference("MsPacman") and reference("UpNDown").human == 11693.2
    assert human_normalised("toy", 3.0) is None and reference("Tetris") is None

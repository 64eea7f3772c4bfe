"""Gymnasium environments: pictures, ends against truncations, and clear words where one does not fit."""

from __future__ import annotations

import os
import sys
from typing import ClassVar

import cv2
import gymnasium
import numpy as np
import pytest
import torch

from diamond_core.envs import GymVector, action_names, make_env


@pytest.fixture(autouse=True)
def no_screen(monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")


class Blind(gymnasium.Env):
    """Draws nothing."""

    metadata: ClassVar = {"render_modes": ["ansi"]}
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, render_mode=None):
        pass


class Counter(gymnasium.Env):
    """Shows how often it was stepped; its actions are 5 and 6, of which 6 ends."""

    metadata: ClassVar = {"render_modes": ["rgb_array"]}
    action_space = gymnasium.spaces.Discrete(2, start=5)

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        return 0, {}

    def step(self, action):
        self.count += 1
        return 0, 0.5 * action, action == 6, False, {}

    def render(self):
        return np.full((40, 60, 3), self.count, np.uint8)

    def get_action_meanings(self):
        return ["STAY", "END"]


@pytest.fixture
def registered():
    gymnasium.register("test/Counter-v0", entry_point=Counter, max_episode_steps=4)
    gymnasium.register("test/Blind-v0", entry_point=Blind)
    yield
    for name in ("test/Counter-v0", "test/Blind-v0"):
        del gymnasium.registry[name]


def test_frames_are_renders_shrunk_by_area():
    env = GymVector("CartPole-v1", image_size=(48, 64))
    frame = env.reset(0).frames[0]
    picture = env._envs[0].render()
    assert frame.shape == (3, 48, 64)
    assert np.array_equal(frame.permute(1, 2, 0), cv2.resize(picture, (64, 48), interpolation=cv2.INTER_AREA))


def test_ends_and_truncations_are_kept_apart(registered):
    env = make_env("gym:test/Counter-v0", 2)
    env.reset(0)
    steps = [env.step(torch.tensor([0, end])) for end in (0, 0, 1, 0)]
    assert [step.ends.tolist() for step in steps] == [[False, False]] * 2 + [[False, True], [False, False]]
    assert [step.truncs.tolist() for step in steps] == [[False, False]] * 3 + [[True, False]]
    assert torch.equal(steps[2].rewards, torch.tensor([2.5, 3.0]))
    # World 1 ended at its third step, world 0 was cut at its fourth; both begin again at 0.
    assert steps[2].final_frames[:, 0, 0, 0].tolist() == [3, 3] and steps[2].frames[:, 0, 0, 0].tolist() == [3, 0]
    assert steps[3].final_frames[:, 0, 0, 0].tolist() == [4, 1] and steps[3].frames[:, 0, 0, 0].tolist() == [0, 1]


def test_an_end_at_the_time_limit_is_an_end(registered):
    env = make_env("gym:test/Counter-v0", 1)
    env.reset(0)
    step = [env.step(torch.tensor([end])) for end in (0, 0, 0, 1)][-1]
    assert step.ends.all() and not step.truncs.any()


def test_action_names(registered):
    assert action_names("gym:CartPole-v1") == ["ACTION 0", "ACTION 1"]
    assert action_names("gym:test/Counter-v0") == ["STAY", "END"]


@pytest.mark.parametrize(("picture", "words"), [
    (None, "got NoneType"), (np.zeros((4, 4, 3)), r"got float64 \(4, 4, 3\)"),
    (np.zeros((4, 4, 4), np.uint8), r"got uint8 \(4, 4, 4\)"), (np.zeros((4, 4), np.uint8), r"got uint8 \(4, 4\)")])
def test_a_picture_of_another_kind_is_told_and_not_learned_from(registered, monkeypatch, picture, words):
    monkeypatch.setattr(Counter, "render", lambda _: picture)
    with pytest.raises(ValueError, match=words):
        make_env("gym:test/Counter-v0")


@pytest.mark.parametrize(
    ("env_id", "words"),
    [("Cartpole-v1", "CartPole"), ("Pendulum-v1", "Discrete"), ("no such/thing", "no such/thing")],
)
def test_what_does_not_fit_is_told_in_one_line(env_id, words):
    with pytest.raises(ValueError, match=words) as caught:
        make_env(f"gym:{env_id}")
    assert "\n" not in str(caught.value)


def test_an_environment_without_a_picture_is_told(registered):
    with pytest.warns(UserWarning, match="render_modes"), pytest.raises(ValueError, match="rgb_array"):
        make_env("gym:test/Blind-v0")


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere there always is a screen")
@pytest.mark.parametrize(("display", "driver"), [(None, "dummy"), (":0", None)])
def test_sdl_draws_without_a_screen_and_keeps_the_one_there_is(monkeypatch, display, driver):
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    if display:
        monkeypatch.setenv("DISPLAY", display)
    action_names("gym:FrozenLake-v1")
    assert os.environ.get("SDL_VIDEODRIVER") == driver


def test_missing_pygame_is_told_with_the_pip_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "pygame", None)
    with pytest.raises(ImportError, match=r'pip install "gymnasium\[classic[-_]control\]"'):
        make_env("gym:CartPole-v1")

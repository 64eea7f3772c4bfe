"""One contract for everything that is a `VectorEnv`. A new kind of environment is one more line in FACTORIES."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import Tensor

from diamond_core.envs import AtariVector, make_env
from diamond_core.training.agent import Agent
from diamond_core.types import Start, Step, VectorEnv
from diamond_core.world.imagination import ImaginedEnv
from tests.conftest import EXACT, SMALL

WORLDS = 2
PATIENCE = 400
"""Steps within which random play is sure to finish an episode in every factory's worlds."""


def dreamt() -> ImaginedEnv:
    """A dream of random networks, long enough to end by chance and short enough to be cut off."""
    torch.manual_seed(0)
    agent = Agent.from_config(SMALL, num_actions=3)
    draws = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (8, 4, *SMALL.frame_shape), dtype=torch.uint8, generator=draws)
    actions = torch.randint(0, 3, (8, 4), generator=draws)
    return ImaginedEnv(agent.world(runtime=EXACT), lambda draw: (frames, actions), WORLDS, horizon=9)


FACTORIES: dict[str, Callable[[], VectorEnv]] = {
    # The frame limit brings truncations, at different times since the no-ops differ.
    "atari": lambda: AtariVector("Pong", WORLDS, life_loss_ends=False, max_frames=200),
    "atari with lives": lambda: make_env("Breakout", WORLDS, life_loss_ends=True),
    "gym": lambda: make_env("gym:CartPole-v1", WORLDS),
    "toy": lambda: make_env("toy", WORLDS, image_size=(16, 16)),
    "dream": lambda: dreamt(),
}


@pytest.fixture(scope="module", autouse=True)
def no_screen() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SDL_VIDEODRIVER", "dummy")
        yield


@pytest.fixture(scope="module", params=FACTORIES)
def factory(request: pytest.FixtureRequest) -> Callable[[], VectorEnv]:
    return FACTORIES[request.param]


@pytest.fixture(scope="module")
def env(factory) -> Iterator[VectorEnv]:
    """Worlds to share: every test begins with a reset."""
    env = factory()
    yield env
    env.close()


@pytest.fixture(scope="module")
def other(factory) -> Iterator[VectorEnv]:
    """Worlds of the same kind that know nothing of `env`."""
    other = factory()
    yield other
    other.close()


def random_actions(env: VectorEnv, steps: int, seed: int = 0) -> Tensor:
    return torch.randint(env.num_actions, (steps, env.num_envs), generator=torch.Generator().manual_seed(seed))


def play(env: VectorEnv, actions: Tensor) -> list[Step]:
    return [env.step(a) for a in actions]


def play_until_done(env: VectorEnv) -> list[Step]:
    """Steps up to and including the first in which a world is done."""
    steps = []
    for actions in random_actions(env, PATIENCE):
        steps.append(env.step(actions))
        if steps[-1].dones.any():
            return steps
    raise AssertionError(f"no episode finished in {PATIENCE} steps")


def assert_same(a: Any, b: Any, worlds: slice = slice(None)) -> None:
    for field in fields(a):
        assert torch.equal(getattr(a, field.name)[worlds], getattr(b, field.name)[worlds]), field.name


def assert_images(x: Tensor, *shape: int) -> None:
    assert x.dtype == torch.uint8 and x.shape == shape and x.device.type == "cpu"


def assert_start(env: VectorEnv, start: Start | Step) -> None:
    assert_images(start.frames, env.num_envs, *env.frame_shape)
    assert_images(start.context, env.num_envs, start.context.shape[1], *env.frame_shape)


def test_shapes_and_types(env):
    assert isinstance(env, VectorEnv)
    assert env.num_envs == WORLDS and env.num_actions > 1 and len(env.frame_shape) == 3
    start = env.reset(0)
    assert_start(env, start)
    for step in play(env, random_actions(env, 5)):
        assert_start(env, step)
        assert_images(step.final_frames, WORLDS, *env.frame_shape)
        assert step.context.shape == start.context.shape
        for x, dtype in ((step.rewards, torch.float32), (step.ends, torch.bool), (step.truncs, torch.bool)):
            assert x.dtype == dtype and x.shape == (WORLDS,) and x.device.type == "cpu"


def test_same_seed_and_actions_give_the_same_steps(env, other):
    assert_same(env.reset(7), other.reset(7))
    actions = random_actions(env, 50)
    first = play(env, actions)
    for a, b in zip(first, play(other, actions), strict=True):
        assert_same(a, b)
    env.reset(7)
    for a, b in zip(first, play(env, actions), strict=True):
        assert_same(a, b)


def test_steps_are_values(env):
    env.reset(0)
    step = env.step(random_actions(env, 1)[0])
    before = {field.name: getattr(step, field.name).clone() for field in fields(step)}
    play(env, random_actions(env, 20))
    for name, value in before.items():
        assert torch.equal(getattr(step, name), value), name


def test_final_frames_are_what_the_action_led_to(env):
    env.reset(1)
    steps = play_until_done(env)
    for step in steps:
        running = ~step.dones
        assert torch.equal(step.final_frames[running], step.frames[running])


def test_worlds_go_on_after_their_end(env):
    env.reset(2)
    play_until_done(env)
    frames = [step.frames for step in play(env, random_actions(env, 20, seed=1))]
    assert any(not torch.equal(frame, frames[0]) for frame in frames[1:])


def test_a_world_is_blind_to_its_neighbours(env, other):
    env.reset(3), other.reset(3)
    ours = random_actions(env, 40, seed=1)
    theirs = ours.clone()
    theirs[:, 1:] = random_actions(env, 40, seed=2)[:, 1:]
    for a, b in zip(play(env, ours), play(other, theirs), strict=True):
        assert_same(a, b, slice(0, 1))


@pytest.mark.parametrize("finish_first", [False, True], ids=["first episode", "later episodes"])
def test_state_goes_on_exactly(env, other, finish_first):
    env.reset(4)
    if finish_first:
        play_until_done(env)
    last = play(env, random_actions(env, 9, seed=1))[-1]
    file = io.BytesIO()
    torch.save(env.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    actions = random_actions(env, 40, seed=2)
    future = play(env, actions)
    for restored in (other, env):
        start = restored.load_state_dict(state)
        assert torch.equal(start.frames, last.frames) and torch.equal(start.context, last.context)
        for a, b in zip(future, play(restored, actions), strict=True):
            assert_same(a, b)


def test_state_at_the_very_start(env, other):
    start = env.reset(5)
    assert_same(other.load_state_dict(env.state_dict()), start)
    actions = random_actions(env, 20)
    for a, b in zip(play(env, actions), play(other, actions), strict=True):
        assert_same(a, b)


@pytest.mark.parametrize(
    "wrong",
    [torch.zeros(WORLDS + 1, dtype=torch.int64), torch.zeros(WORLDS), torch.full((WORLDS,), -1), torch.tensor(0)],
    ids=["too many", "floats", "negative", "a scalar"],
)
def test_wrong_actions_are_told(env, wrong):
    env.reset(0)
    with pytest.raises(ValueError, match="expected"):
        env.step(wrong)


def test_actions_out_of_range_are_told_and_change_nothing(env, other):
    env.reset(6), other.reset(6)
    with pytest.raises(ValueError, match=f"0 to {env.num_actions - 1}"):
        env.step(torch.full((WORLDS,), env.num_actions))
    actions = random_actions(env, 1)[0]
    assert_same(env.step(actions), other.step(actions))
    assert_same(env.load_state_dict(env.state_dict()), other.load_state_dict(other.state_dict()))

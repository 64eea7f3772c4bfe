"""A dream is a value: determinism, independence of batch mates, saving, forking, imagination as an environment."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import gymnasium
import pytest
import torch
from gymnasium.utils.env_checker import check_env

from diamond_core.types import VectorEnv
from diamond_core.world.dream import DreamState, reseeded
from diamond_core.world.gym_env import DreamEnv, DreamVectorEnv
from diamond_core.world.imagination import ImaginedEnv
from tests.conftest import EXACT


def start(agent, world, n=3):
    frames, actions = agent.starts["frames"][:n], agent.starts["actions"][:n]
    return world.start(frames, actions, torch.arange(n) + 7)


def play(world, state, actions):
    frames = []
    for action in actions:
        dreamt = world.step(state, torch.as_tensor(action))
        state = dreamt.state
        frames.append(dreamt.frames)
    return state, torch.stack(frames)


def test_same_value_same_future_and_no_mutation(small_agent, small_world):
    state = start(small_agent, small_world)
    before = {name: x.clone() for name, x in state.tensors().items()}
    actions = [[0, 1, 2], [2, 2, 0], [1, 0, 1]]
    a, b = play(small_world, state, actions), play(small_world, state, actions)
    assert torch.equal(a[1], b[1]) and torch.equal(a[0].hx, b[0].hx)
    assert all(torch.equal(before[name], x) for name, x in state.tensors().items())
    assert a[0].steps.tolist() == [3, 3, 3]


def test_batch_mates_change_nothing_but_rounding(small_agent, small_world):
    """Each frame from the same state: a network of random weights makes more of a flipped byte from frame to frame."""
    state = start(small_agent, small_world)
    for _ in range(5):
        together = small_world.step(state, torch.tensor([0, 1, 2]))
        alone = small_world.step(state[1], torch.tensor([1]))
        off = (together.frames[1].int() - alone.frames[0].int()).abs()
        assert off.max() <= 1 and (off == 0).float().mean() > 0.98
        assert torch.allclose(together.state.hx[1], alone.state.hx[0], atol=0.01)
        state = together.state


def test_actions_seeds_and_frames_matter(small_agent, small_world):
    state = start(small_agent, small_world)
    _, a = play(small_world, state, [[0, 0, 0]])
    _, b = play(small_world, state, [[1, 1, 1]])
    _, c = play(small_world, reseeded(state, torch.tensor([99, 98, 97])), [[0, 0, 0]])
    assert not torch.equal(a, b) and not torch.equal(a, c) and not torch.equal(a[0, 0], a[0, 1])


def test_buffers_roll(small_agent, small_world):
    state = start(small_agent, small_world)
    dreamt = small_world.step(state, torch.tensor([2, 1, 0]))
    assert torch.equal(dreamt.state.frames[:, :-1], state.frames[:, 1:])
    assert torch.equal(dreamt.state.frames[:, -1], dreamt.frames)
    assert dreamt.state.actions[:, -2].tolist() == [2, 1, 0]
    assert torch.equal(dreamt.state.actions[:, :-2], state.actions[:, 1:-1])


def test_probabilities_are_sampled(small_agent, small_world):
    """Rewards and ends are drawn: their frequencies over many seeds are the probabilities."""
    frames = small_agent.starts["frames"][:1].repeat(400, 1, 1, 1, 1)
    actions = small_agent.starts["actions"][:1].repeat(400, 1)
    state = small_world.start(frames, actions, torch.arange(400))
    _, _, reward_p, end_p, _ = small_world.judge(state, torch.zeros(400, dtype=torch.int64), frames[:, 0])
    dreamt = small_world.judge(state, torch.zeros(400, dtype=torch.int64), frames[:, 0])
    for i, reward in enumerate((-1, 0, 1)):
        assert (dreamt[0] == reward).float().mean().item() == pytest.approx(reward_p[0, i].item(), abs=0.1)
    assert dreamt[1].float().mean().item() == pytest.approx(end_p[0].item(), abs=0.1)


def test_save_load_index_and_join(small_agent, small_world, tmp_path):
    state, _ = play(small_world, start(small_agent, small_world), [[0, 1, 2]])
    state.save(tmp_path / "dream.safetensors")
    again = DreamState.load(tmp_path / "dream.safetensors")
    assert torch.equal(play(small_world, again, [[1, 1, 1]])[1], play(small_world, state, [[1, 1, 1]])[1])
    joined = DreamState.cat([state[0], state[1], state[-1]])
    assert all(torch.equal(x, y) for x, y in zip(joined.tensors().values(), state.tensors().values(), strict=True))
    assert len(state[0]) == 1


def test_the_reward_models_memory_begins_with_the_episode(small_agent, small_world):
    """What it saw of an episode that is over would have it say over again."""
    frames, actions, seeds = small_agent.starts["frames"][:2], small_agent.starts["actions"][:2], torch.arange(2)
    other = frames.clone()
    other[:, :2] = 255 - other[:, :2]
    def memory(frames, since):
        state = small_world.start(frames, actions, seeds, since)
        return torch.stack([state.hx, state.cx])
    assert torch.equal(memory(frames, 2), memory(other, 2)) and not torch.equal(memory(frames, 0), memory(other, 0))
    assert memory(frames, 2).any() and not memory(frames, 3).any()


def test_wrong_start_is_refused(small_agent, small_world):
    with pytest.raises(ValueError, match="4 frames and 3 actions"):
        small_world.start(small_agent.starts["frames"][:, :2], small_agent.starts["actions"][:, :2], torch.arange(6))


def imagined(agent, world, n=5, horizon=4) -> ImaginedEnv:
    return ImaginedEnv(world, lambda draw: (agent.starts["frames"], agent.starts["actions"]), n, horizon)


def test_imagination_resets_one_by_one(small_agent, small_world):
    env = imagined(small_agent, small_world)
    assert isinstance(env, VectorEnv)
    first = env.reset(0)
    assert first.context.shape == (5, 3, 3, 16, 16)
    ages, resets = torch.zeros(5), 0
    for _ in range(12):
        step = env.step(torch.zeros(5, dtype=torch.int64))
        ages += 1
        assert (step.truncs == (ages >= 4)).all()
        untouched = ~step.dones
        assert torch.equal(step.frames[untouched], step.final_frames[untouched])
        for i in step.dones.nonzero()[:, 0]:
            assert any(torch.equal(step.frames[i], f) for f in small_agent.starts["frames"][:, -1])
            resets += 1
        ages[step.dones] = 0
    assert resets > 5


def test_gymnasium_env(small_agent, small_world):
    env = DreamEnv(small_world, small_agent.starts, horizon=5, render_mode="rgb_array")
    check_env(env, skip_render_check=True)
    env.reset(seed=1)
    assert env.render().shape == (16, 16, 3)
    with pytest.raises(ValueError, match=r"an action from 0 to \d+, got 99"):
        env.step(99)


def test_gymnasium_vector_env(small_agent, small_world):
    env = DreamVectorEnv(small_world, small_agent.starts, num_envs=4, horizon=3)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(env.action_space.sample())
    observations, _ = env.reset(seed=3)
    assert env.observation_space.contains(observations)
    finals = 0
    for _ in range(6):
        observations, rewards, ends, truncs, info = env.step(env.action_space.sample())
        assert env.observation_space.contains(observations) and rewards.shape == (4,)
        for i in (ends | truncs).nonzero()[0]:
            assert info["final_obs"][i].shape == (16, 16, 3)
            finals += 1
    assert finals >= 4 and env.render() is None
    env.render_mode = "rgb_array"
    assert [frame.shape for frame in env.render()] == [(16, 16, 3)] * 4
    with pytest.raises(ValueError, match="one dream or more, got num_envs=0"):
        DreamVectorEnv(small_world, small_agent.starts, num_envs=0)


def test_where_a_batch_of_dreams_begins_depends_on_the_seed(small_agent, small_world):
    env = DreamVectorEnv(small_world, small_agent.starts, num_envs=1)
    begun = [env.reset(seed=seed)[0] for seed in (1, 2, 3, 4, 5)] + [env.reset()[0] for _ in range(5)]
    assert len({frames.tobytes() for frames in begun}) > 1
    assert (env.reset(seed=3)[0] == begun[2]).all()
    assert len({frames.tobytes() for frames in [env.reset()[0] for _ in range(9)]}) > 1


def test_registered_by_name():
    assert "diamond/Dream-v0" in gymnasium.registry


def test_a_faster_engine_waits_for_the_step_that_is_being_dreamt(small_agent):
    world = small_agent.world(runtime=EXACT)
    plain, late = world.engine, SimpleNamespace(name="late")

    class Swapping:
        name = "plain"

        def denoise(self, *args: Any) -> Any:
            world.engine = late  # as another thread would, in the middle of a step
            return plain.denoise(*args)

        def judge(self, *args: Any) -> Any:
            return plain.judge(*args)

        def whole(self, *args: Any) -> Any:
            return plain.whole(*args)

    world.engine = Swapping()
    step = world.step(small_agent.dream(world), torch.tensor([1]))
    assert step.path == "plain" and world.path == "late"


def test_a_row_of_a_step_is_that_dreams_alone(small_agent):
    world = small_agent.world(runtime=EXACT)
    step = world.step(small_agent.dream(world, num=3), torch.tensor([0, 1, 2]))
    row = step.row(1)
    assert torch.equal(row.frames, step.frames[1:2]) and torch.equal(row.state.hx, step.state.hx[1:2])
    assert row.path == step.path and len(row.state) == 1
    step.frames.zero_()
    assert row.frames.any()


def test_dreams_of_other_numbers_share_no_batch(small_agent, small_world):
    """The numbers of one would become those of all."""
    state = small_agent.dream(small_world, 0)
    with pytest.raises(ValueError, match=r"frames are torch.float32 and torch.uint8"):
        DreamState.cat([state, replace(state, frames=state.frames.float())])

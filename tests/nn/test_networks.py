"""The networks work at other sizes than the published ones."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diamond_core.config import ActorCriticConfig, AgentConfig, DenoiserConfig, RewardEndConfig
from diamond_core.nn.unet import UNet
from diamond_core.training.agent import Agent
from diamond_core.world.reward_end import RewardEndModel

CONFIGS = {
    "not divisible by 8": AgentConfig(image_size=(50, 37)),
    "grey": AgentConfig(image_channels=1),
    "two frames, attention, uneven widths": AgentConfig(
        image_size=(32, 32),
        denoiser=DenoiserConfig(num_conditioning_frames=2, cond_channels=64, channels=(16, 32, 48), depths=(1, 2, 3),
                                attention=(False, True, True)),
        reward_end=RewardEndConfig(cond_channels=16, channels=(8, 16), depths=(2, 1), attention=(True, False),
                                   lstm_dim=32),
        actor_critic=ActorCriticConfig(channels=(8, 16, 24), lstm_dim=32)),
    "eight frames, three actions": AgentConfig(
        image_size=(16, 16),
        denoiser=DenoiserConfig(num_conditioning_frames=8, num_conditioning_actions=3, cond_channels=48, channels=(8,),
                                depths=(1,), attention=(False,))),
    "one level, one frame": AgentConfig(
        image_size=(16, 16),
        denoiser=DenoiserConfig(num_conditioning_frames=1, cond_channels=16, channels=(8,), depths=(1,),
                                attention=(False,)),
        reward_end=RewardEndConfig(cond_channels=8, channels=(8,), depths=(1,), attention=(False,), lstm_dim=8),
        actor_critic=ActorCriticConfig(channels=(8,), lstm_dim=8)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_other_sizes(config):
    agent = Agent.from_config(config, num_actions=5)
    c, h, w = config.frame_shape
    k = config.denoiser.num_conditioning_frames
    frames, actions = torch.randn(2, k, c, h, w).clamp(-1, 1), torch.randint(0, 5, (2, k))
    assert agent.denoiser(torch.randn(2, c, h, w), torch.tensor([0.1, 3.0]), frames, actions).shape == (2, c, h, w)
    rewards, ends, _ = agent.reward_end(frames, actions, frames)
    assert rewards.shape == (2, k, 3) and ends.shape == (2, k, 2)
    prediction = agent.actor_critic(frames[:, 0], agent.actor_critic.initial_memory(2))
    assert prediction.logits.shape == (2, 5) and prediction.values.shape == (2,)


def test_only_so_many_actions_are_asked_for():
    inner = Agent.from_config(CONFIGS["eight frames, three actions"], num_actions=5).denoiser.inner_model
    actions = torch.zeros(9, 8, dtype=torch.int64)
    actions[range(8), range(8)] = 1
    told = inner.act_emb(actions)
    assert [torch.equal(row, told[8]) for row in told[:8]] == [True] * 5 + [False] * 3


@pytest.mark.parametrize(("frames", "actions", "message"), [
    (4, 5, "1 to 4 conditioning actions"), (4, -1, "1 to 4"), (8, 3, "divide by the 3 conditioning actions")])
def test_impossible_numbers_of_actions_are_refused(frames, actions, message):
    config = AgentConfig(denoiser=DenoiserConfig(num_conditioning_frames=frames, num_conditioning_actions=actions))
    with pytest.raises(ValueError, match=message):
        Agent.from_config(config, num_actions=5)


def test_levels_must_match():
    with pytest.raises(ValueError, match="one entry per level"):
        UNet((8, 8), (1,), 16, (False, False))


def test_fresh_networks_are_neutral():
    """Zero initialisation: the U-Net's output, the policy and the value begin at zero."""
    agent = Agent.from_config(AgentConfig(), 4)
    frames, actions = torch.randn(1, 4, 3, 64, 64).clamp(-1, 1), torch.zeros(1, 4, dtype=torch.int64)
    c = agent.denoiser.conditioners(torch.tensor([1.0]))
    output = agent.denoiser.model_output(torch.randn(1, 3, 64, 64), c, frames, actions)
    torch.testing.assert_close(output, agent.denoiser.inner_model.conv_out.bias.view(1, 3, 1, 1).expand_as(output))
    prediction = agent.actor_critic(frames[:, 0], agent.actor_critic.initial_memory(1))
    assert not prediction.logits.any() and not prediction.values.any()
    forget = agent.reward_end.lstm.bias_ih_l0[512:1024]
    assert (forget == 1).all() and not agent.reward_end.lstm.bias_hh_l0.any()


def test_a_reward_model_that_begins_with_change_sees_nothing_in_a_still_picture():
    torch.manual_seed(0)
    config = RewardEndConfig(cond_channels=8, channels=(8,), depths=(1,), attention=(False,), lstm_dim=8)
    for begins, alike in ((True, True), (False, False)):
        model = RewardEndModel(replace(config, begins_with_change=begins), 3, (3, 8, 8))
        still = torch.rand(2, 1, 3, 8, 8).expand(2, 2, 3, 8, 8)
        logits, _, _ = model(still[:, :1], torch.ones(2, 1, dtype=torch.int64), still[:, 1:])
        assert torch.allclose(logits[0], logits[1], atol=1e-6) == alike

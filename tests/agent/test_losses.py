"""Lambda-returns against a double loop; the loss's gradients; rollouts keep what they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diamond_core.agent.actor_critic import ActorCritic
from diamond_core.agent.losses import actor_critic_loss, lambda_returns
from diamond_core.agent.policies import LEAN_STEPS, AgentPolicy, RandomPolicy
from diamond_core.agent.rollout import Rollouts, thought_of
from diamond_core.config import ActorCriticConfig, ReturnsConfig
from diamond_core.device import resolve
from diamond_core.envs import make_env
from diamond_core.pixels import to_unit
from diamond_core.replay import Dataset, DatasetInfo
from diamond_core.training.collect import Collector
from diamond_core.types import Start
from tests.conftest import EXACT


def returns_by_double_loop(rewards, ends, truncs, values, gamma, lambda_):
    """The definition: a lambda-weighted mean of all n-step returns, cut at ends and truncations."""
    n, t = rewards.shape
    result = torch.zeros(n, t)
    for i in range(n):
        for start in range(t):
            total, discount, weight = 0.0, 1.0, 1.0
            for j in range(start, t):
                reward = rewards[i, j].sign().item()
                over = bool(ends[i, j] or truncs[i, j] or j == t - 1)
                bootstrap = 0.0 if ends[i, j] else values[i, j].item()
                total += weight * discount * reward
                if over:
                    total += weight * discount * gamma * bootstrap
                    break
                total += weight * discount * gamma * (1 - lambda_) * bootstrap
                discount *= gamma
                weight *= lambda_
            result[i, start] = total
    return result


@pytest.mark.parametrize("gamma, lambda_", [(0.985, 0.95), (1.0, 1.0), (0.9, 0.0)])
def test_lambda_returns_equal_the_double_loop(gamma, lambda_):
    generator = torch.Generator().manual_seed(0)
    rewards = torch.randn(40, 12, generator=generator) * 3
    ends = torch.rand(40, 12, generator=generator) < 0.1
    truncs = (torch.rand(40, 12, generator=generator) < 0.1) & ~ends
    values = torch.randn(40, 12, generator=generator)
    torch.testing.assert_close(lambda_returns(rewards, ends, truncs, values, gamma, lambda_),
                               returns_by_double_loop(rewards, ends, truncs, values, gamma, lambda_))


@pytest.fixture
def actor_critic():
    torch.manual_seed(1)
    model = ActorCritic(ActorCriticConfig(channels=(8, 8), lstm_dim=16), 3, (3, 16, 16))
    torch.nn.init.normal_(model.actor_linear.weight)
    torch.nn.init.normal_(model.critic_linear.weight)
    return model


def test_rollout_shapes_gradients_and_carry(actor_critic):
    env = make_env("toy", 4, image_size=(16, 16))
    rollouts = Rollouts(env, 7, resolve(EXACT))
    rollouts.begin(actor_critic, seed=0)
    torch.manual_seed(0)
    record = thought_of(actor_critic, rollouts.next(actor_critic))
    assert record.logits.shape == (4, 7, 3) and record.values.shape == record.bootstraps.shape == (4, 7)
    assert record.values.requires_grad and not record.bootstraps.requires_grad
    loss, numbers = actor_critic_loss(record, ReturnsConfig())
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in actor_critic.parameters())
    assert {"loss", "entropy"} <= numbers.keys()
    # the carry holds no graph of the first rollout
    thought_of(actor_critic, rollouts.next(actor_critic)).logits.sum().backward()


def test_bootstraps_are_the_values_that_follow(actor_critic):
    env = make_env("toy", 3, image_size=(16, 16))
    rollouts = Rollouts(env, 40, resolve(EXACT))
    rollouts.begin(actor_critic, seed=0)
    record = thought_of(actor_critic, rollouts.next(actor_critic))
    going_on = ~(record.ends | record.truncs)[:, :-1]
    assert not going_on.all(), "the toy game should have ended somewhere"
    torch.testing.assert_close(record.bootstraps[:, :-1][going_on], record.values.detach()[:, 1:][going_on])
    assert not torch.equal(record.bootstraps[:, :-1][~going_on], record.values.detach()[:, 1:][~going_on])


class Noted:
    """An environment whose final frames are kept; with `cut`, games that are over were cut off."""

    def __init__(self, env, cut: bool = False) -> None:
        self.env, self.cut, self.steps = env, cut, []

    def __getattr__(self, name):
        return getattr(self.env, name)

    def step(self, actions):
        step = self.env.step(actions)
        if self.cut:
            step = replace(step, ends=torch.zeros_like(step.ends), truncs=step.dones)
        self.steps.append(step)
        return step


@pytest.mark.parametrize("cut", [False, True])
def test_what_is_over_is_worth_its_final_frame(actor_critic, cut):
    env = Noted(make_env("toy", 3, image_size=(16, 16)), cut)
    rollouts = Rollouts(env, 40, resolve(EXACT))
    rollouts.begin(actor_critic, seed=0)
    played = rollouts.next(actor_critic)
    done = (played.ends | played.truncs).nonzero().tolist()
    assert len(done) > 3 and played.truncs.any().item() is cut
    for i, t in done:
        memory = (played.later_hx[i:i + 1, t - 1], played.later_cx[i:i + 1, t - 1])
        after = actor_critic(to_unit(played.looks[i:i + 1, t]), memory).memory
        expected = actor_critic(to_unit(env.steps[t].final_frames[i:i + 1]), after).values
        torch.testing.assert_close(played.bootstraps[i, t], expected[0].detach())


def test_an_episode_ends_with_its_final_frame(tmp_path):
    env = Noted(make_env("toy", 2, image_size=(16, 16)))
    info = DatasetInfo("toy", ("A", "B", "C"), (3, 16, 16))
    dataset = Dataset(tmp_path, info)
    collector = Collector(env, RandomPolicy(3, 2, 0), dataset, 0, {})
    collector.collect(60)
    seen = [frame for of_world in collector._seen for frame in of_world]
    assert all(frame.untyped_storage().nbytes() == frame.nbytes for frame in seen), "it keeps the other worlds', too"
    ends = [(step, i) for step in env.steps for i in step.dones.nonzero()[:, 0].tolist()]
    assert len(ends) > 3
    for number, (step, i) in enumerate(ends):
        assert torch.equal(dataset[number].frames[-1], step.final_frames[i])
        assert not torch.equal(step.final_frames[i], step.frames[i])


def test_rollouts_resume_where_they_stood(actor_critic):
    def rollouts():
        r = Rollouts(make_env("toy", 3, image_size=(16, 16)), 10, resolve(EXACT))
        r.begin(actor_critic, seed=5)
        torch.manual_seed(3)
        r.next(actor_critic)
        return r

    first, second = rollouts(), Rollouts(make_env("toy", 3, image_size=(16, 16)), 10, resolve(EXACT))
    second.load_state_dict(first.state_dict())
    records = []
    for r in (first, second):
        torch.manual_seed(4)
        records.append(r.next(actor_critic))
    assert all(torch.equal(x, y) for x, y in zip(vars(records[0]).values(), vars(records[1]).values(), strict=True))


@pytest.mark.parametrize("encoder_rests", [False, True])
def test_thinking_again_is_what_was_thought_step_by_step(actor_critic, encoder_rests):
    actor_critic.encoder_rests = encoder_rests
    env = make_env("toy", 3, image_size=(16, 16))
    rollouts = Rollouts(env, 40, resolve(EXACT))
    rollouts.begin(actor_critic, seed=0)
    record = thought_of(actor_critic, rollouts.next(actor_critic))
    assert (record.ends | record.truncs).any(), "nothing was renewed"
    thought = torch.distributions.Categorical(logits=record.logits).log_prob(record.actions)
    torch.testing.assert_close(thought, record.log_probs, atol=1e-5, rtol=1e-5)
    record.logits.square().sum().backward()
    assert (actor_critic.encoder.encoder[0].weight.grad is None) == encoder_rests


def test_a_rollout_is_gone_through_in_parts_and_several_times_also_after_a_stop(actor_critic):
    def rollouts():
        return Rollouts(make_env("toy", 6, image_size=(16, 16)), 5, resolve(EXACT), passes=2, parts=3)

    one = rollouts()
    one.begin(actor_critic, seed=0)
    torch.manual_seed(0)
    parts = [one.next(actor_critic) for _ in range(4)]
    two = rollouts()
    two.load_state_dict(one.state_dict())
    for _ in range(2):
        records = [r.next(actor_critic) for r in (one, two)]
        assert all(torch.equal(x, y) for x, y in zip(vars(records[0]).values(), vars(records[1]).values(), strict=True))
        parts.append(records[0])
    first, second = (torch.cat([part.log_probs for part in of_pass]) for of_pass in (parts[:3], parts[3:]))
    assert first.shape == (6, 5) and not torch.equal(first, second), "the order is drawn for each pass"
    assert torch.equal(first.sum(1).sort().values, second.sum(1).sort().values), "a world was left out"
    assert not torch.equal(one.next(actor_critic).log_probs, parts[0].log_probs), "nothing new was played"


def test_the_clipped_loss_begins_as_the_plain_one_and_lets_go_of_what_has_moved_far(actor_critic):
    rollouts = Rollouts(make_env("toy", 4, image_size=(16, 16)), 12, resolve(EXACT))
    rollouts.begin(actor_critic, seed=0)
    record = thought_of(actor_critic, rollouts.next(actor_critic))
    record = replace(record, values=record.values.detach())

    def gradient(config, old=record.log_probs):
        logits = record.logits.detach().requires_grad_()
        actor_critic_loss(replace(record, logits=logits, log_probs=old), config)[0].backward()
        return logits.grad

    plain, clipped = ReturnsConfig(entropy_weight=0.0), ReturnsConfig(entropy_weight=0.0, clip=0.2)
    torch.testing.assert_close(gradient(clipped), gradient(plain), atol=1e-6, rtol=1e-4)
    returns = lambda_returns(record.rewards, record.ends, record.truncs, record.bootstraps, plain.gamma, plain.lambda_)
    is_good = returns > record.values
    assert is_good.any() and not is_good.all()
    # actions that are now e times as likely: good ones are likely enough, bad ones are still to be unlearned
    moved = gradient(clipped, record.log_probs - 1).abs().sum(-1)
    assert not moved[is_good].any() and moved[~is_good].all()


def test_memory_is_renewed_after_an_end(actor_critic):
    env = make_env("toy", 2, image_size=(16, 16))
    policy = AgentPolicy(actor_critic, resolve(EXACT), 2, seed=0)
    start = env.reset(0)
    policy.reset(start)
    frames = start.frames
    for _ in range(200):
        step = env.step(policy.act(frames))
        policy.observe(step)
        frames = step.frames
        assert (policy.memory[0].abs().sum(1) == 0).tolist() == step.dones.tolist()


def test_a_player_in_a_mix_looks_at_its_own_worlds_only(actor_critic):
    all_of_them, some = (AgentPolicy(actor_critic, resolve(EXACT), 6, seed=0, worlds=worlds)
                         for worlds in (slice(None), slice(1, None, 3)))
    env = make_env("toy", 6, image_size=(16, 16))
    start = env.reset(0)
    frames = start.frames
    for policy in (all_of_them, some):
        policy.reset(start)
    for _ in range(40):
        actions, pressed = all_of_them.act(frames), some.act(frames)
        assert len(some.memory[0]) == 2
        assert torch.equal(pressed[1::3], actions[1::3]) and not pressed[0::3].any() and not pressed[2::3].any()
        step = env.step(actions)
        for policy in (all_of_them, some):
            policy.observe(step)
        frames = step.frames


def test_policies_are_functions_of_their_seed():
    frames = torch.zeros(6, 3, 16, 16, dtype=torch.uint8)
    start = Start(frames, frames[:, None][:, :0])
    draws = []
    for seed in (1, 1, 2):
        policy = RandomPolicy(3, 6, seed)
        policy.reset(start)
        draws.append(torch.stack([policy.act(frames) for _ in range(50)]))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
    assert all((draws[0] == a).float().mean() > 0.25 for a in range(3))


def test_sticky_policy_repeats_itself():
    frames = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    policy = RandomPolicy(3, 2, 0, sticks=(0.0, 0.9))
    actions = torch.stack([policy.act(frames) for _ in range(400)])
    repeats = (actions[1:] == actions[:-1]).float().mean(0)
    assert repeats[0] < 0.45 and repeats[1] > 0.85


def test_a_leaning_policy_prefers_one_action_for_a_while():
    frames = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    policy = RandomPolicy(3, 2, 0, leans=(0.0, 0.9))
    actions = torch.stack([policy.act(frames) for _ in range(12 * LEAN_STEPS)]).view(12, LEAN_STEPS, 2)
    shares = torch.stack([(actions == a).float().mean(1) for a in range(3)])
    assert shares[..., 0].max() < 0.5 and shares[:, 1:-1, 1].max(0).values.min() > 0.8
    assert set(shares[..., 1].argmax(0).tolist()) == {0, 1, 2}, "the preference changes"

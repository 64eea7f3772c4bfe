"""Updates: accumulation, warm-up, clipping, weight decay where it belongs, averaging, state."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from diamond_core.agent.actor_critic import ActorCritic
from diamond_core.agent.rollout import Rollouts
from diamond_core.config import ActorCriticConfig, LearnerConfig
from diamond_core.device import resolve
from diamond_core.envs import make_env
from diamond_core.presets import tiny
from diamond_core.training.build import learners_of
from diamond_core.training.learner import Learner, decay_groups
from diamond_core.types import Batch
from tests.conftest import EXACT

CONFIG = LearnerConfig(learning_rate=0.01, warmup=4, weight_decay=0.0)


def loss(model, batch):
    x, y = batch
    error = ((model(x) - y) ** 2).mean()
    return error, {"loss": error.detach()}


def learner(config=CONFIG):
    torch.manual_seed(0)
    return Learner(nn.Linear(3, 1), loss, config, resolve(EXACT))


def data():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(8, 3, generator=generator)
    return x, x.sum(1, keepdim=True)


def test_one_batch_of_8_equals_4_of_2():
    x, y = data()
    whole, parts = learner(), learner(replace(CONFIG, accumulation=4))
    for _ in range(5):
        whole.update(iter([(x, y)]))
        parts.update(iter(zip(x.split(2), y.split(2), strict=True)))
    torch.testing.assert_close(whole.model.weight, parts.model.weight, atol=1e-6, rtol=0)


def test_warm_up_then_constant():
    one = learner()
    rates = []
    for _ in range(6):
        rates.append(one.learning_rate)
        one.update(iter([data()]))
    assert rates == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01, 0.01])


def test_gradients_are_clipped():
    one = learner(replace(CONFIG, max_gradient_norm=1e-12))
    before = one.model.weight.detach().clone()
    one.update(iter([data()]))
    # Adam divides by the gradient's size; only its epsilon sees that the gradient was clipped
    assert (one.model.weight - before).abs().max() < 1e-5


def test_state_goes_on_exactly():
    one, other = learner(replace(CONFIG, ema_decay=0.9)), learner(replace(CONFIG, ema_decay=0.9))
    for _ in range(3):
        one.update(iter([data()]))
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    for each in (one, other):
        each.update(iter([data()]))
    assert torch.equal(one.model.weight, other.model.weight)
    assert torch.equal(one.averaged.weight, other.averaged.weight)
    assert not torch.equal(one.averaged.weight, one.model.weight)


def test_weight_decay_spares_biases_norms_and_embeddings(small_agent):
    for model in (small_agent.denoiser, small_agent.reward_end, small_agent.actor_critic):
        decayed, spared = decay_groups(model, 0.01)
        names = {id(p): name for name, p in model.named_parameters()}
        decayed, spared = ([names[id(p)] for p in group["params"]] for group in (decayed, spared))
        assert sorted(decayed + spared) == sorted(names.values())
        assert all("bias" in n or "norm" in n or "act_emb" in n or ".f.0." in n for n in spared)
        assert not any("bias" in n or ".norm.weight" in n or "act_emb" in n for n in decayed)


def test_policy_learns_the_rewarded_action():
    """The smallest reinforcement learning problem: action 1 is always right."""
    from diamond_core.agent.losses import actor_critic_loss
    from diamond_core.config import ReturnsConfig
    from diamond_core.types import Rollout

    torch.manual_seed(0)
    model = ActorCritic(ActorCriticConfig(channels=(8,), lstm_dim=8), 3, (3, 8, 8))
    frames = torch.randn(32, 3, 8, 8)

    def one_step(model, _):
        prediction = model(frames, model.initial_memory(32))
        actions = torch.distributions.Categorical(logits=prediction.logits.detach()).sample()
        never = torch.zeros(32, 1, dtype=torch.bool)
        record = Rollout(actions[:, None], torch.zeros(32, 1), (actions == 1).float()[:, None], ~never, never,
                         torch.zeros(32, 1), prediction.logits[:, None], prediction.values[:, None])
        return actor_critic_loss(record, ReturnsConfig())

    one = Learner(model, one_step, LearnerConfig(learning_rate=0.01, weight_decay=0.0, max_gradient_norm=100.0),
                  resolve(EXACT))
    for _ in range(100):
        one.update(iter([None]))
    assert model(frames, model.initial_memory(32)).logits.softmax(-1)[:, 1].min() > 0.9


def test_learning_twice_from_a_rollout_asks_for_the_clipped_loss():
    config = replace(tiny("toy"), actor_critic=replace(tiny("toy").actor_critic, passes=2))
    with pytest.raises(ValueError, match=r"returns\.clip"):
        learners_of(config, list("ABC"), resolve(EXACT), 1, None)


@pytest.mark.parametrize("numbers", [{"parts": 33}, {"parts": 0}, {"passes": 0}])
def test_passes_and_parts_of_nothing_are_refused(numbers):
    config = tiny("toy")
    config = replace(config, actor_critic=replace(config.actor_critic, **numbers),
                     returns=replace(config.returns, clip=0.2))
    with pytest.raises(ValueError, match="from 1 to 32 parts"):
        learners_of(config, list("ABC"), resolve(EXACT), 1, None)


def test_in_bfloat16_all_weights_learn_and_no_copy_outlives_what_knew_no_gradient(monkeypatch: pytest.MonkeyPatch):
    """Older versions of torch go on with the copies that autocast made of the weights without gradients."""
    forgot, forget = [], torch.clear_autocast_cache
    monkeypatch.setattr(torch, "clear_autocast_cache", lambda: (forgot.append(True), forget()))
    config = tiny("toy")
    config = replace(config, denoising=replace(config.denoising, guess_share=0.5))
    runtime = resolve(replace(EXACT, precision="bfloat16"))
    learners = learners_of(config, list("ABC"), runtime, 1, None)
    rollouts = Rollouts(make_env("toy", 4, image_size=(8, 8)), 6, runtime)
    rollouts.begin(learners["actor_critic"].model, 0)
    frames = torch.randint(256, (2, 6, 3, 8, 8), dtype=torch.uint8)
    never = torch.zeros(2, 6, dtype=torch.bool)
    segments = Batch(frames, torch.zeros(2, 6, dtype=torch.int64), torch.zeros(2, 6), never, never, ~never)
    played = rollouts.next(learners["actor_critic"].model)
    for name, batch in (("actor_critic", played), ("denoiser", segments)):
        learners[name]._accumulate(batch)
        assert all(p.grad is not None for p in learners[name].model.parameters()), name
    assert forgot


def test_an_encoder_that_rests_is_left_as_it_is_and_all_else_learns():
    config = tiny("toy")
    config = replace(config, actor_critic=replace(config.actor_critic, encoder_rests=True))
    learner = learners_of(config, list("ABC"), resolve(EXACT), 1, None)["actor_critic"]
    assert learner.model.encoder_rests and not learners_of(tiny("toy"), list("ABC"), resolve(EXACT), 1, None)[
        "actor_critic"].model.encoder_rests
    env = make_env("toy", 4, image_size=(8, 8))
    rollouts = Rollouts(env, 6, resolve(EXACT))
    rollouts.begin(learner.model, 0)
    before = copy.deepcopy(learner.model.state_dict())
    for _ in range(3):
        learner.update(rollouts.stream(learner.model))
    moved = {name: not torch.equal(p, before[name]) for name, p in learner.model.state_dict().items()}
    assert not any(moved[name] for name in moved if name.startswith("encoder."))
    assert all(moved[name] for name in moved if name.startswith(("lstm.", "critic_linear.", "actor_linear.")))

"""An agent learns where things are, and only then to act."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from diamond_core.agent.rollout import Rollouts
from diamond_core.agent.scripted import RULES
from diamond_core.config import ActingConfig, ActorCriticConfig, WatchingConfig
from diamond_core.device import resolve
from diamond_core.envs import make_env
from diamond_core.presets import tiny
from diamond_core.training.build import learners_of
from diamond_core.training.library import load
from diamond_core.training.run import Run
from diamond_core.training.sight import Sight, places, sight_loss
from diamond_core.training.trainer import Trainer
from diamond_core.types import Batch
from tests.conftest import EXACT

PONG = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]


def config(game="Pong", **numbers):
    options = {"first_updates": 1, "learning_rate": 3e-3, "warmup": 5, **numbers}
    c = tiny(game)
    agent = replace(c.agent, actor_critic=ActorCriticConfig(channels=(8, 16, 16), lstm_dim=32))
    return replace(c, agent=agent, sight=WatchingConfig(**options))


def drawn(rows: torch.Tensor, columns: torch.Tensor, paddles: torch.Tensor) -> torch.Tensor:
    """(b, t) places -> (b, t, 3, 64, 64): Pong's ground with a white ball of two pixels and a green paddle of eight."""
    b, t = rows.shape
    frames = torch.tensor([144, 72, 17], dtype=torch.uint8).view(3, 1, 1).repeat(b, t, 1, 64, 64)
    for i in range(b):
        for j in range(t):
            r, c, p = int(rows[i, j]), int(columns[i, j]), int(paddles[i, j])
            frames[i, j, :, r:r + 2, c:c + 2] = 236
            frames[i, j, :, p:p + 8, 56:58] = torch.tensor([92, 186, 92], dtype=torch.uint8).view(3, 1, 1)
    return frames


def play(b: int, t: int, seed: int) -> Batch:
    g = torch.Generator().manual_seed(seed)
    rows, columns, paddles = (torch.randint(low, high, (b, t), generator=g)
                              for low, high in ((14, 54), (4, 50), (13, 48)))
    never = torch.zeros(b, t, dtype=torch.bool)
    return Batch(drawn(rows, columns, paddles), torch.zeros(b, t, dtype=torch.int64), torch.zeros(b, t), never, never,
                 ~never)


def test_places_are_exact_whatever_the_network_computes_in(monkeypatch):
    """Half a pixel of the paddle decides a point, and bfloat16 rounds that much away."""
    seen = []
    monkeypatch.setattr("diamond_core.training.sight.places", lambda *args: seen.append(places(*args)) or seen[-1])
    learners = learners_of(config(), PONG, resolve(EXACT), 1, None)
    frames = drawn(torch.tensor([[20, 41]]), torch.tensor([[33, 50]]), torch.tensor([[27, 52]]))
    batch = Batch(frames, *torch.zeros(4, 1, 2, dtype=torch.bool), mask=torch.ones(1, 2, dtype=torch.bool))
    with torch.autocast("cpu", torch.bfloat16):
        sight_loss(learners["sight"].model, batch)
    assert seen[0].dtype == torch.float32 and torch.equal(seen[0], places(RULES["Pong"], frames))


def test_places_are_where_things_were_drawn():
    frames = drawn(torch.tensor([[20, 40]]), torch.tensor([[10, 30]]), torch.tensor([[16, 30]]))
    frames[0, 1, :, 30:38, 56:58] = frames[0, 1, :, 0:8, 0:2]  # no paddle in the second frame
    found = places(RULES["Pong"], frames) * 16 + 32
    torch.testing.assert_close(found[0, 0], torch.tensor([21.0, 11.0, 20.0]), atol=0.1, rtol=0)
    assert found[0, 1, 2].isnan() and not found[0, 1, :2].isnan().any()


def test_what_is_not_seen_or_padding_does_not_count():
    batch = play(2, 3, 0)
    learner = learners_of(config(), PONG, resolve(EXACT), 1, None)["sight"]
    loss, numbers = sight_loss(learner.model, batch)
    batch.mask[1, 2] = False
    batch.frames[1, 2] = 0
    fewer, _ = sight_loss(learner.model, batch)
    assert loss.isfinite() and not torch.equal(loss, fewer)
    batch.frames[1, 2] = 255
    assert torch.equal(sight_loss(learner.model, batch)[0], fewer)
    assert numbers["loss"] == pytest.approx(sum(v.item() for k, v in numbers.items() if k != "loss"), rel=1e-5)


def test_it_is_the_agents_own_network_that_learns():
    torch.manual_seed(0)
    learners = learners_of(config(learning_rate=1e-3), PONG, resolve(EXACT), 1, None)
    sight, agent = learners["sight"], learners["actor_critic"]
    assert isinstance(sight.model, Sight) and sight.model.encoder is agent.model.encoder
    before = agent.model.encoder.encoder[0].weight.detach().clone()
    batch = play(4, 1, 1)
    sight_loss(sight.model, batch)[0].backward()
    assert all(p.grad is not None for p in sight.model.parameters()), "or several processes would wait for ever"
    losses = []
    for _ in range(100):
        torch.manual_seed(0)
        losses.append(sight.update(iter([batch]))["loss"].item())
    assert losses[-1] < losses[0] / 10
    assert not torch.equal(agent.model.encoder.encoder[0].weight, before)
    agent.catch_up()
    assert torch.equal(agent.averaged.encoder.encoder[0].weight, agent.model.encoder.encoder[0].weight)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_an_encoder_that_only_sight_teaches_is_no_riddle_to_several_processes(tmp_path):
    """A group of one does what each of several does."""
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        c = config()
        c = replace(c, actor_critic=replace(c.actor_critic, encoder_rests=True, batch_size=2),
                    sight=replace(c.sight, batch_size=2))
        learners = learners_of(c, PONG, resolve(EXACT), 2, None)
        rollouts = Rollouts(make_env("Pong", 2, image_size=c.agent.image_size), 5, resolve(EXACT))
        rollouts.begin(learners["actor_critic"].model, seed=0)
        torch.nn.init.normal_(learners["actor_critic"].model.critic_linear.weight)
        learners["sight"].update(iter([play(2, 3, 0)]))
        assert learners["actor_critic"].update(rollouts.stream(learners["actor_critic"].model))["gradient_norm"] > 0
    finally:
        torch.distributed.destroy_process_group()


def test_what_cannot_be_learned_is_refused_in_one_line():
    with pytest.raises(ValueError, match="no scripted player knows where things are in Freeway"):
        learners_of(config("Freeway"), ["NOOP", "UP", "DOWN"], resolve(EXACT), 1, None)
    grey = config()
    with pytest.raises(ValueError, match=r"3 channels, got --agent\.image-channels 1"):
        learners_of(replace(grey, agent=replace(grey.agent, image_channels=1)), PONG, resolve(EXACT), 1, None)
    with pytest.raises(ValueError, match=r"that 7 processes can share evenly, got \d+: see --denoiser\.batch-size"):
        learners_of(config(), PONG, resolve(EXACT), 7, None)
    # what is not used need not be shared: it gets as far as looking for the other process
    unused = replace(config(), sight=replace(config().sight, first_updates=0, batch_size=9))
    with pytest.raises(ValueError, match="process group"):
        learners_of(unused, PONG, resolve(EXACT), 2, None)


def test_a_second_look_begins_with_what_was_dreamt_since(tmp_path):
    c = config(first_updates=1, updates=1, batch_size=2, segment=2, ema_decay=0.99)
    few = ActingConfig(first_updates=0, updates=0, batch_size=2)
    c = replace(c, denoiser=few, reward_end=few, actor_critic=few, final_epochs=2,
                collection=replace(c.collection, first_min_steps=64, first_max_steps=64, steps=0),
                evaluation=replace(c.evaluation, final_episodes=0))
    run = Run(tmp_path / "run")
    run.begin(c)
    trainer = Trainer(c, run)
    trainer.epoch()
    learner, memory = trainer.learners["sight"], trainer.learners["actor_critic"].model.lstm
    learner.num_updates = 1000  # an old average follows slowly
    before = memory.weight_hh.detach().clone()
    with torch.no_grad():
        memory.weight_hh += 1.0  # what the dream taught
    trainer.epoch()
    assert (memory.weight_hh - before).mean() > 0.9


def test_a_run_sees_first_and_its_card_says_so(tmp_path):
    c = config(first_updates=3, updates=0, batch_size=4, segment=5)
    few = ActingConfig(first_updates=1, updates=0, batch_size=2)
    c = replace(c, denoiser=few, reward_end=few, actor_critic=replace(few, ema_decay=0.9), final_epochs=1,
                reward_segment=4, collection=replace(c.collection, first_min_steps=200, first_max_steps=200, steps=0),
                imagination=replace(c.imagination, horizon=2), returns=replace(c.returns, rollout_length=2),
                evaluation=replace(c.evaluation, final_episodes=0))
    run = Run(tmp_path / "run")
    run.begin(c)
    trainer = Trainer(c, run)
    assert trainer.run()
    lines = [line for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if '"sight"' in line]
    assert len(lines) == 1 and "error_paddle" in lines[0]
    assert load(tmp_path / "run", "cpu").card.training["updates"] == {
        "denoiser": 1, "reward_end": 1, "sight": 3, "actor_critic": 1}

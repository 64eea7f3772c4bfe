"""An agent begins as the player of the recordings."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from diamond_core.agent.actor_critic import unrolled
from diamond_core.agent.scripted import ScriptedPolicy
from diamond_core.config import ActingConfig, ImitationConfig, ReturnsConfig, WatchingConfig
from diamond_core.device import resolve
from diamond_core.envs import action_names, make_env
from diamond_core.pixels import to_unit
from diamond_core.presets import tiny
from diamond_core.replay import Dataset, DatasetInfo, Episode
from diamond_core.training.agent import Agent
from diamond_core.training.build import learners_of, teacher_of
from diamond_core.training.imitation import discounted, foresight, segments, watch
from diamond_core.training.library import load
from diamond_core.training.run import Run, RunError, check_same
from diamond_core.training.trainer import PHASES, Trainer
from tests.conftest import EXACT

NAMES = ["LEFT", "STAY", "RIGHT"]


def played(steps: int, seed: int, ends: bool = True) -> Episode:
    """A light that wanders; the player presses where it stands in the frame: left, middle or right."""
    g = torch.Generator().manual_seed(seed)
    place = torch.randint(3, (steps + 1,), generator=g)
    frames = torch.zeros(steps + 1, 3, 8, 8, dtype=torch.uint8)
    for i, p in enumerate(place.tolist()):
        frames[i, :, :, 3 * p:3 * p + 2] = 255
    last = torch.arange(steps) == steps - 1
    rewards = torch.zeros(steps)
    rewards[::5] = 3.0
    return Episode(frames, place[:-1].clone(), rewards, last & ends, last & (not ends))


def dataset(*episodes: Episode) -> Dataset:
    kept = Dataset(None, DatasetInfo("toy", tuple(NAMES), (3, 8, 8)))
    for episode in episodes:
        kept.add(episode)
    return kept


def config(**numbers):
    c = tiny("toy")
    return replace(c, imitation=replace(c.imitation, first_updates=1, batch_size=16, segment=6, **numbers))


def test_returns_are_discounted_signs():
    rewards = torch.tensor([0.0, -7.0, 0.0, 2.0])
    torch.testing.assert_close(discounted(rewards, 0.5), torch.tensor([-0.375, -0.75, 0.5, 1.0]))


def test_frames_are_seen_once_and_cut_episodes_promise_nothing():
    agent = Agent.from_config(tiny("toy").agent, 3).actor_critic
    unknown = foresight(ReturnsConfig().gamma)
    assert 190 < unknown < 210 and foresight(0.5) == 5
    one, cut = played(30, 0), played(unknown + 20, 1, ends=False)
    first, second = watch(agent, dataset(one, cut), ReturnsConfig(), resolve(EXACT))
    torch.testing.assert_close(first.features.float(), agent.encoder(to_unit(one.frames[:-1])), atol=2e-3, rtol=2e-3)
    assert first.features.dtype == torch.float16 and first.actions.argmax(-1).tolist() == one.actions.tolist()
    assert not first.returns.isnan().any()
    assert second.returns.isnan().tolist() == [False] * 20 + [True] * unknown


def test_segments_are_drawn_evenly_and_by_their_key():
    agent = Agent.from_config(tiny("toy").agent, 3).actor_critic
    watched = list(watch(agent, dataset(played(9, 0), played(29, 1), played(5, 2)), ReturnsConfig(), resolve(EXACT)))
    batch = segments(watched, 6, 4000, 1)
    assert batch.features.shape[:2] == batch.actions.shape[:2] == batch.returns.shape == (4000, 6)
    again, other = segments(watched, 6, 4000, 1), segments(watched, 6, 4000, 2)
    assert torch.equal(batch.actions, again.actions) and not torch.equal(batch.actions, other.actions)
    # 4 places in the first episode, 24 in the second, one in the last, which is too short and padded
    known = batch.actions.sum(-1)
    padded = (known == 0).any(1)
    assert padded.float().mean() == pytest.approx(1 / 29, abs=0.015)
    assert (known[padded] == 0).tolist() == batch.returns[padded].isnan().tolist() == [
        [False] * 5 + [True]] * int(padded.sum())
    places = watched[0].features.unfold(0, 6, 1).transpose(1, 2)
    from_first = (batch.features[:, None] == places).flatten(2).all(2).any(1)
    assert from_first.float().mean() == pytest.approx(4 / 29, abs=0.03)


def test_all_but_the_eye_learns_what_was_pressed_and_what_came_of_it():
    torch.manual_seed(0)
    learners = learners_of(config(learning_rate=1e-2), NAMES, resolve(EXACT), 1, None)
    learner, agent = learners["imitation"], learners["actor_critic"].model
    eye = {name: p.clone() for name, p in agent.encoder.state_dict().items()}
    watched = list(watch(agent, dataset(*(played(40, i) for i in range(8))), ReturnsConfig(), resolve(EXACT)))
    records = [learner.update(iter([segments(watched, 6, 32, i)])) for i in range(150)]
    assert records[0]["share_right"] < 0.6 and records[-1]["share_right"] > 0.95
    assert records[-1]["loss_values"] < records[0]["loss_values"] / 2
    assert all(torch.equal(p, eye[name]) for name, p in agent.encoder.state_dict().items())
    assert all(p.grad is None for p in agent.encoder.parameters())
    # it is the agent's own policy
    new = played(1, 99)
    logits = agent(to_unit(new.frames[:1]), agent.initial_memory(1)).logits
    assert logits.argmax(1).tolist() == new.actions.tolist()


def test_unknown_returns_do_not_count():
    learner = learners_of(config(), NAMES, resolve(EXACT), 1, None)["imitation"]
    agent = Agent.from_config(tiny("toy").agent, 3).actor_critic
    batch = segments(list(watch(agent, dataset(played(30, 0)), ReturnsConfig(), resolve(EXACT))), 6, 4, 0)
    batch.returns[0] = torch.nan
    loss, numbers = learner.objective.loss(learner.model, batch)
    batch.returns[1, 0] += 1
    other, _ = learner.objective.loss(learner.model, batch)
    assert loss.isfinite() and not torch.equal(loss, other) and numbers["loss_actions"] > 1
    batch.returns[:] = torch.nan
    assert learner.objective.loss(learner.model, batch)[1]["loss_values"] == 0


def test_padding_is_not_learned():
    learner = learners_of(config(), NAMES, resolve(EXACT), 1, None)["imitation"]
    agent = Agent.from_config(tiny("toy").agent, 3).actor_critic
    batch = segments(list(watch(agent, dataset(played(4, 0)), ReturnsConfig(), resolve(EXACT))), 6, 4, 0)
    torch.nn.init.normal_(learner.model.actor_linear.weight)
    loss, numbers = learner.objective.loss(learner.model, batch)
    batch.features[:, 4:] = 7.0
    other, _ = learner.objective.loss(learner.model, batch)
    assert torch.equal(loss, other) and 0 <= numbers["share_right"] <= 1


def test_memory_is_that_of_step_after_step():
    cell, features, memory = nn.LSTMCell(20, 8), torch.randn(3, 7, 20), None
    for t, kept in enumerate(unrolled(cell, features).unbind(1)):
        memory = cell(features[:, t], memory)
        torch.testing.assert_close(kept, memory[0])


def test_a_teacher_corrects_whoever_played(tmp_path):
    """Two episodes of different lengths, played at random: the labels are the scripted player's, which sees each frame
    and hears what was really pressed."""
    episodes = [random_pong(40, 0), random_pong(25, 1)]
    names, config = action_names("Pong"), tiny("Pong")
    config = replace(config, imitation=replace(config.imitation, first_updates=1, teacher="scripted"))
    teacher = teacher_of(config, names)
    kept = Dataset(None, DatasetInfo("Pong", names, (3, 64, 64)))
    for episode in episodes:
        kept.add(episode)
    agent = Agent.from_config(replace(config.agent, image_size=(64, 64)), len(names)).actor_critic
    watched = list(watch(agent, kept, ReturnsConfig(), resolve(EXACT), teacher))
    for episode, seen in zip(episodes, watched, strict=True):
        alone = ScriptedPolicy("Pong", names, 1, config.seed, aim=0.0)
        expected = []
        for frame, action in zip(episode.frames[:-1], episode.actions, strict=True):
            expected.append(alone.advice(frame[None])[0])
            alone.pressed(action[None])
        torch.testing.assert_close(seen.actions, torch.stack(expected), atol=1e-4, rtol=1e-3)
        # which is not what was pressed
        assert (seen.actions.gather(-1, episode.actions[:, None]) < 0.05).any()
    assert teacher_of(replace(config, imitation=replace(config.imitation, teacher="recorded")), names) is None
    # a cautious one aims elsewhere
    careful = teacher_of(replace(config, imitation=replace(config.imitation, caution=0.5)), names)
    other = list(watch(agent, kept, ReturnsConfig(), resolve(EXACT), careful))
    assert (other[0].actions - watched[0].actions).abs().max() > 0.1
    with pytest.raises(ValueError, match="no scripted player can teach toy"):
        learners_of(replace(config, game="toy"), NAMES, resolve(EXACT), 1, None)


def random_pong(steps: int, seed: int) -> Episode:
    env = make_env("Pong", 1)
    luck = torch.Generator().manual_seed(seed)
    actions = torch.randint(6, (steps, 1), generator=luck)
    frames = [env.reset(seed).frames, *(env.step(a).frames for a in torch.zeros(60, 1, dtype=torch.int64))][-1:]
    frames += [env.step(a).frames for a in actions]
    env.close()
    last = torch.arange(steps) == steps - 1
    return Episode(torch.cat(frames), actions[:, 0], torch.zeros(steps), last & False, last)


def test_a_second_look_begins_with_what_was_dreamt_since(tmp_path):
    c = config(updates=1)
    few = ActingConfig(first_updates=0, updates=0, batch_size=2)
    c = replace(c, denoiser=few, reward_end=few, actor_critic=few, final_epochs=2,
                collection=replace(c.collection, first_min_steps=200, first_max_steps=200, steps=0),
                evaluation=replace(c.evaluation, final_episodes=0))
    run = Run(tmp_path / "run")
    run.begin(c)
    trainer = Trainer(c, run)
    trainer.epoch()
    learner, head = trainer.learners["imitation"], trainer.learners["actor_critic"].model.actor_linear
    learner.num_updates = 1000  # an old average follows slowly
    with torch.no_grad():
        head.bias += 10.0  # what the dream taught
    trainer.epoch()
    assert head.bias.min() > 9


def test_runs_of_before_there_was_imitation_go_on(tmp_path):
    c = tiny("toy")
    few = ActingConfig(first_updates=1, updates=0, batch_size=2)
    c = replace(c, denoiser=few, reward_end=few, actor_critic=replace(few, first_updates=3), final_epochs=1,
                collection=replace(c.collection, first_min_steps=200, first_max_steps=200, steps=0),
                evaluation=replace(c.evaluation, final_episodes=0), save_every=0)
    run = Run(tmp_path / "run")
    run.begin(c)
    trainer = Trainer(c, run, should_stop=lambda: trainer.learners["actor_critic"].num_updates == 2)
    assert not trainer.run()
    state = run.load_state()
    assert state["position"] == {"epoch": 1, "phase": "actor_critic", "step": 2}
    run.save_state({**state, "position": {"epoch": 1, "phase": 4, "step": 2}})
    again = Trainer(c, run)
    assert (PHASES[again.position.phase], again.position.step) == ("actor_critic", 2)
    # how it would have watched does not matter where it did not
    check_same(c, replace(c, sight=WatchingConfig(batch_size=7)), run.folder)
    with pytest.raises(RunError, match="first_updates is 0 there, 5 here"):
        check_same(c, replace(c, sight=WatchingConfig(first_updates=5)), run.folder)


def test_a_run_imitates_before_it_dreams_stopped_or_not(tmp_path):
    few = ActingConfig(first_updates=1, updates=0, batch_size=2)
    c = replace(tiny("toy"), denoiser=few, reward_end=few, actor_critic=few, final_epochs=1, reward_segment=4,
                imitation=ImitationConfig(first_updates=4, batch_size=8, segment=5, ema_decay=0.9))
    c = replace(c, collection=replace(c.collection, first_min_steps=300, first_max_steps=300, steps=0),
                imagination=replace(c.imagination, horizon=2), returns=replace(c.returns, rollout_length=2),
                evaluation=replace(c.evaluation, final_episodes=0), save_every=0)

    def trained(folder, stop_at=None):
        run = Run(folder)
        if not (folder / "config.json").exists():
            run.begin(c)
        trainer = Trainer(c, run, should_stop=lambda: trainer.learners["imitation"].num_updates == stop_at)
        return trainer.run()

    assert trained(tmp_path / "whole")
    whole = load(tmp_path / "whole", "cpu")
    assert whole.card.training["updates"] == {"denoiser": 1, "reward_end": 1, "imitation": 4, "actor_critic": 1}
    lines = [json.loads(line) for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    phases = [line["phase"] for line in lines]
    assert phases.index("imitation") < phases.index("actor_critic")
    assert not trained(tmp_path / "halves", stop_at=2)
    # what it had learned by then can be looked at
    moment = load(tmp_path / "halves", "cpu")
    assert moment.card.training["updates"]["imitation"] == 2
    assert moment.actor_critic.actor_linear.weight.abs().max() > 0
    assert trained(tmp_path / "halves")
    halves = load(tmp_path / "halves", "cpu")
    for one, other in zip(whole.actor_critic.parameters(), halves.actor_critic.parameters(), strict=True):
        torch.testing.assert_close(one, other)

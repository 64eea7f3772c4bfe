"""Settings that cannot work are refused before anything begins; dreams begin from whole windows or not at all."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from app.commands.train import train
from diamond_core.config import TrainConfig
from diamond_core.device import resolve
from diamond_core.diffusion.noise import schedule
from diamond_core.envs import action_names
from diamond_core.presets import PRESETS, tiny
from diamond_core.replay import Dataset, DatasetInfo, Episode
from diamond_core.training import build
from diamond_core.training.agent import Agent
from diamond_core.training.build import check, move_towards, played_in, starts_of
from diamond_core.training.checkpoint import CheckpointError
from tests.conftest import EXACT, SMALL


def changed(config: TrainConfig, option: str, value: object) -> TrainConfig:
    """The configuration with `option`, as in "returns.rollout_length", set to a value."""
    room, _, rest = option.partition(".")
    return replace(config, **{room: changed(getattr(config, room), rest, value) if rest else value})


@pytest.mark.parametrize(("option", "value", "words"), [
    ("actor_critic.moments", ("near",), r"seen in toy \(none\), got near"),
    ("denoiser.moments", ("hit",), r"seen in toy \(none\), got hit"),
    ("imagination.denoising_steps", 60, "1 to 50, got 60"),
    ("denoising.guess_share", 1.5, "from 0 to 1, got 1.5"),
    ("imagination.horizon", 0, "1 or more, got 0"),
    ("evaluation.num_envs", 0, "1 or more, got 0"),
    ("evaluation.max_steps", 0, "1 or more, got 0"),
    ("evaluation.final_episodes", -1, "0 or more, got -1"),
    ("returns.rollout_length", 0, "1 or more, got 0"),
    ("reward_segment", 1, "2 or more, got 1"),
    ("agent.sampler.num_steps", 0, "must be 1 to 50, got 0"),
    ("agent.denoiser.channels", (-1, -1), r"1 or more, got \(-1, -1\)"),
    ("agent.actor_critic.lstm_dim", -4, "0 or more, got -4"),
    ("collection.num_envs", 0, "1 or more, got 0"),
    ("collection.first_policy", "scripted", "no scripted player for toy"),
    ("imitation.segment", 0, "1 or more, got 0"),
    ("collection.steps", -1, "0 or more, got -1"), ("agent.noop_max", 31, "0 to 30 no-ops, got 31"),
    ("actor_critic.accumulation", 0, "1 or more, got 0"),
    ("reward_end.batch_size", 0, r"share evenly, got 0"),
    ("seed", -1, "0 or more, got -1"),
    ("holdout", -3, "0 or more, got -3"), ("final_epochs", -5, "0 or more, got -5"), ("runtime.threads", -2, "got -2"),
    ("denoiser.first_epoch", 0, "1 or more, got 0"), ("denoiser.updates", -4, "0 or more, got -4"),
    ("collection.first_min_steps", 0, "1 or more, got 0"), ("returns.lambda_", 3.0, "from 0 to 1, got 3.0"),
    ("returns.gamma", 1.5, "from 0 to 1, got 1.5"), ("returns.clip", -0.2, "0 or more, got -0.2"),
    ("denoiser.learning_rate", -1.0, "more than 0, got -1.0"), ("denoiser.learning_rate", math.nan, "got nan"),
    ("reward_end.ema_decay", 1.5, "to below 1, got 1.5"), ("actor_critic.max_gradient_norm", 0.0, "more than 0, got 0"),
    ("denoiser.weight_decay", -1.0, "0 or more, got -1.0"), ("denoiser.warmup", -3, "0 or more, got -3"),
    ("denoiser.event_share", 7.0, "from 0 to 1, got 7.0"), ("collection.epsilon", 3.0, "from 0 to 1, got 3.0"),
    ("denoising.num_autoregressive_steps", -1, "0 or more, got -1"),
    ("sampling_weights", (), r"more than 0 and none is less, got \(\)"),
    ("sampling_weights", (0.0, 0.0), "more than 0 and none is less"),
    ("sampling_weights", (-1.0, 2.0), "more than 0 and none is less")])
def test_what_would_fail_hours_later_is_refused_now_in_one_line_that_names_the_option(option, value, words):
    spelled = "--" + option[:-1].replace("_", "-") + option[-1]
    with pytest.raises(ValueError, match=rf"{words}.*see {spelled}$") as refused:
        check(changed(tiny("toy"), option, value), action_names("toy"), 1)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("options", "words"), [
    ({"holdout": 3}, "leave --holdout out"), ({"dataset": "data/x", "final_epochs": 0}, "see --final-epochs"),
    ({"model_free": True, "final_epochs": 0}, "see --final-epochs"),
    ({"initial_models": ("denoiser",)}, "leave --initial-models out"),
    ({"model_free": True, "sight.first_updates": 5}, "leave --sight and --imitation out"),
    ({"imitation.first_updates": 5, "imitation.moments": ("near",)}, "see --imitation.moments")])
def test_what_would_do_nothing_is_refused(options, words):
    config = tiny("Pong")
    for option, value in options.items():
        config = changed(config, option, value)
    with pytest.raises(ValueError, match=words):
        check(config, action_names("Pong"), 1)


def test_processes_that_would_share_a_gpu_are_refused():
    config = tiny("toy")
    for device in ("cuda", "auto", "cpu"):
        check(changed(config, "runtime.device", device), action_names("toy"), 2)
    check(changed(config, "runtime.device", "cuda:1"), action_names("toy"), 1)
    with pytest.raises(ValueError, match="a device of its own, got cuda:1: see --runtime"):
        check(changed(config, "runtime.device", "cuda:1"), action_names("toy"), 2)


@pytest.mark.parametrize(("sampler", "words"), [({"least_steps": 0}, "1 to 50 .* at least"),
                                                ({"least_steps": 60}, "1 to 50 .* at least"),
                                                ({"temperature": 50.0}, "up to 10; got 1 and 50"),
                                                ({"rho": 0.0}, "a rho above 0, got 0"),
                                                ({"rho": math.nan}, "a rho above 0, got nan")])
def test_a_sampler_that_could_not_be_played_is_refused(sampler, words):
    with pytest.raises(ValueError, match=words):
        schedule(replace(tiny("toy").agent.sampler, **sampler))


def test_widths_whose_joined_channels_cannot_be_normalised_are_refused():
    with pytest.raises(ValueError, match="112 channels, where a skip connection joins"):
        Agent.from_config(replace(SMALL, denoiser=replace(SMALL.denoiser, channels=(48, 64), depths=(1, 1),
                                                          attention=(False, False))), 3)


def test_who_asks_for_float32_imagines_in_it(monkeypatch):
    monkeypatch.setattr(build, "accelerate", lambda *_, **__: pytest.fail("engines of any precision were asked for"))
    config = replace(tiny("toy"), agent=SMALL)
    config = changed(changed(config, "imagination.engine", "fast"), "runtime.precision", "float32")
    starts = torch.zeros(2, 4, *SMALL.frame_shape, dtype=torch.uint8), torch.zeros(2, 4, dtype=torch.int64)
    env = build.practice_env(config, 2, Agent.from_config(SMALL, 3), lambda _: starts, resolve(EXACT), False)
    assert env.world.path in ("Winograd float32", "torch cpu float32")


@pytest.mark.parametrize("sampler", [{"sigma_min": 0.0}, {"temperature": -1.0}, {"sigma_max": 0.001}])
def test_a_sampler_that_cannot_draw_is_refused_before_the_agent_needs_it(sampler):
    config = tiny("toy")
    agent = replace(config.agent, sampler=replace(config.agent.sampler, **sampler))
    with pytest.raises(ValueError, match=r"noise levels must fall .*: see --agent\.sampler$"):
        check(replace(config, agent=agent), action_names("toy"), 1)


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("game", ["Pong", "Freeway", "toy"])
def test_what_can_work_is_not_refused(preset, game):
    config = PRESETS[preset](game)
    check(config, action_names(game), 1)
    # nobody looks for moments there
    check(replace(changed(config, "actor_critic.moments", ("hit",)), model_free=True), action_names(game), 1)
    if game == "Freeway":
        check(changed(config, "actor_critic.moments", ("hit",)), action_names(game), 1)


def test_a_run_that_cannot_work_is_not_even_begun(tmp_path):
    with pytest.raises(ValueError, match=r"--returns\.rollout-length"):
        train(["--game", "toy", "--preset", "tiny", "--run", str(tmp_path / "run"), "--runtime.device", "cpu",
               "--returns.rollout-length", "0"])
    assert not (tmp_path / "run" / "config.json").exists(), "or the corrected command would be refused there"


def play(*lengths: int) -> Dataset:
    config = tiny("toy")
    dataset = Dataset(None, DatasetInfo("toy", tuple(action_names("toy")), config.agent.frame_shape))
    for i, n in enumerate(lengths):
        frames = torch.full((n + 1, *config.agent.frame_shape), i % 256, dtype=torch.uint8)
        end = torch.arange(n) == n - 1
        dataset.add(Episode(frames, torch.zeros(n, dtype=torch.int64), torch.zeros(n), end, ~end & end))
    return dataset


def test_dreams_begin_from_whole_windows_or_not_at_all():
    short = [1, 2, 3] * 300
    assert starts_of(tiny("toy"), play(*short)) is None
    # two whole windows among so many are found, though none of them is drawn
    starts = starts_of(tiny("toy"), play(*short[:700], 5, *short))
    assert starts is not None and starts["frames"].shape == (2, 4, 3, 8, 8) and starts["actions"].shape == (2, 4)
    assert (starts["frames"] == 700 % 256).all()
    assert len(starts_of(tiny("toy"), play(30, 30))["frames"]) == 64


@pytest.mark.parametrize(("updates", "passes", "parts", "rollouts"), [
    (0, 1, 1, 0), (7, 1, 1, 7), (6, 2, 3, 1), (7, 2, 3, 2)])
def test_a_rollout_that_is_learned_from_again_was_played_once(updates, passes, parts, rollouts):
    config = tiny("toy")
    config = replace(config, model_free=True, actor_critic=replace(config.actor_critic, passes=passes, parts=parts))
    assert played_in(config, play(), updates) == {
        "steps": rollouts * config.returns.rollout_length * config.actor_critic.batch_size, "model_free": True}
    assert played_in(replace(config, model_free=False), play(3, 4), 9) == {"steps": 7, "episodes": 2}


def test_a_world_moves_towards_one_that_sees_fewer_frames():
    old = Agent.from_config(SMALL, 3)
    config = replace(SMALL, denoiser=replace(SMALL.denoiser, num_conditioning_frames=6, num_conditioning_actions=4))
    new = Agent.from_config(config, 3)
    new.denoiser.load_state_dict({**new.denoiser.state_dict(), **dict(old.denoiser.named_buffers())})
    first, (a, b) = "inner_model.conv_in.weight", (x.denoiser.state_dict() for x in (new, old))
    expected = {key: (p + b[key]) / 2 for key, p in a.items() if key != first}
    unseen, seen = a[first][:, :6] / 2, (a[first][:, 6:] + b[first]) / 2
    move_towards(new, old, 0.5)
    for key, p in expected.items():
        torch.testing.assert_close(new.denoiser.state_dict()[key], p)
    torch.testing.assert_close(new.denoiser.state_dict()[first], torch.cat([unseen, seen], dim=1))


def test_what_has_no_common_way_is_refused():
    agent = Agent.from_config(SMALL, 3)
    with pytest.raises(CheckpointError, match="same beginnings"):
        move_towards(agent, Agent.from_config(SMALL, 3), 0.5)
    with pytest.raises(CheckpointError, match="game and sizes"):
        move_towards(agent, Agent.from_config(SMALL, 4), 0.5)
    with pytest.raises(ValueError, match="0 to 1, got 7"):
        move_towards(agent, agent, 7)

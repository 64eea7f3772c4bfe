"""Checkpoints in and out, and one clear error for each way in which they can be wrong."""

from __future__ import annotations

import copy
import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import diamond_core
from diamond_core.config import AgentConfig, DenoiserConfig, TrainConfig
from diamond_core.training.agent import Agent
from diamond_core.training.build import take_weights
from diamond_core.training.checkpoint import (
    CARD,
    WEIGHTS,
    Card,
    CheckpointError,
    config_of,
    import_published,
    joined,
    load_checkpoint,
    save_checkpoint,
)
from tests.conftest import SMALL

NAMES = ["NOOP", "LEFT", "RIGHT"]


def card() -> Card:
    return Card("toy", NAMES, SMALL, training={"seed": 1}, metrics={"score": 2.5})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_round_trip(small_agent, tmp_path, dtype):
    folder = save_checkpoint(tmp_path / "toy", small_agent, card(), small_agent.starts, dtype)
    assert sorted(p.name for p in folder.iterdir()) == ["card.json", "starts.safetensors", "weights.safetensors"]
    assert all(p.stat().st_mode & 0o777 == 0o644 for p in folder.iterdir())
    again = diamond_core.load(folder, device="cpu")
    for key, p in small_agent.published_state_dict().items():
        assert torch.equal(p.to(dtype).float(), again.published_state_dict()[key])
    assert again.config == SMALL and again.card.metrics == {"score": 2.5}
    assert torch.equal(again.starts["frames"], small_agent.starts["frames"])
    json.loads((folder / CARD).read_text(), parse_constant=lambda x: pytest.fail(f"{x} is not JSON"))


def damaged(folder, how):
    weights, path = folder / WEIGHTS, folder / CARD
    if how == "card missing":
        path.unlink()
    elif how == "card not json":
        path.write_text("{")
    elif how == "card of another format":
        path.write_text(json.dumps({**json.loads(path.read_text()), "format": 99}))
    elif how == "card with another field":
        path.write_text(json.dumps({**json.loads(path.read_text()), "colour": "red"}))
    elif how == "weights missing":
        weights.unlink()
    elif how == "weights truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "weights tampered":
        data = bytearray(weights.read_bytes())
        data[-1] ^= 1
        weights.write_bytes(data)
    elif how == "weights foreign":
        weights.write_bytes(b"hello, this is something else entirely")
    elif how == "other sizes":
        content = json.loads(path.read_text())
        content["config"]["denoiser"]["channels"] = [8, 16]
        path.write_text(json.dumps(content))
    elif how == "another action count":
        path.write_text(json.dumps({**json.loads(path.read_text()), "action_names": ["A", "B"]}))


@pytest.mark.parametrize("how, message", [
    ("card missing", "card.json"), ("card not json", "not a card"), ("card of another format", "format 99"),
    ("card with another field", "colour"), ("weights missing", "missing"), ("weights truncated", "damaged"),
    ("weights tampered", "SHA-256"), ("weights foreign", "damaged"), ("other sizes", "expected \\[16, 8, 3, 3\\]"),
    ("another action count", "act_emb"),
])
def test_damage_is_named(small_agent, tmp_path, how, message):
    folder = save_checkpoint(tmp_path / "toy", small_agent, card())
    damaged(folder, how)
    with pytest.raises(CheckpointError, match=message) as error:
        load_checkpoint(folder)
    assert "\n" not in str(error.value)


def test_existing_folder_is_kept(small_agent, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "precious").write_text("x")
    with pytest.raises(CheckpointError, match="not empty"):
        save_checkpoint(tmp_path / "toy", small_agent, card())
    assert [p.name for p in tmp_path.rglob("*")] == ["toy", "precious"]


def test_failed_save_leaves_nothing(small_agent, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError):
        save_checkpoint(tmp_path / "toy", small_agent, card())
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A file like the published ones: Breakout has 4 actions."""
    torch.manual_seed(0)
    agent = Agent.from_config(AgentConfig(), 4)
    path = tmp_path_factory.mktemp("hub") / "Breakout.pt"
    torch.save(agent.published_state_dict(), path)
    return agent, path


def test_published_state_dict_is_imported(published):
    agent, path = published
    again, its_card = import_published(str(path), "Breakout", ["NOOP", "FIRE", "RIGHT", "LEFT"])
    assert again.config == AgentConfig() and its_card.game == "Breakout"
    ours, theirs = agent.published_state_dict(), again.published_state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[k], theirs[k]) for k in ours)


def test_sizes_are_read_from_the_tensors(small_agent):
    config, num_actions = config_of(small_agent.published_state_dict())
    assert num_actions == 3
    assert (config.denoiser, config.reward_end, config.actor_critic) == (
        SMALL.denoiser, SMALL.reward_end, SMALL.actor_critic)
    assert config.frame_shape == SMALL.frame_shape
    other = AgentConfig(image_channels=1, denoiser=DenoiserConfig(
        num_conditioning_frames=6, num_conditioning_actions=2, channels=(32, 64), depths=(1, 3),
        attention=(False, True)))
    config, _ = config_of(Agent.from_config(other, 6).published_state_dict())
    assert config == other


def test_wrong_state_dicts_are_named(published, tmp_path):
    agent, path = published
    names = ["NOOP", "FIRE", "RIGHT", "LEFT"]
    weights = dict(agent.published_state_dict())
    with pytest.raises(CheckpointError, match="4 actions, Pong has 6"):
        import_published(str(path), "Pong", ["x"] * 6)
    weights.pop("actor_critic.critic_linear.bias")
    weights["denoiser.surprise"] = torch.zeros(1)
    weights["rew_end_model.head.0.bias"] = torch.zeros(3)
    torch.save(weights, tmp_path / "wrong.pt")
    with pytest.raises(CheckpointError) as error:
        import_published(str(tmp_path / "wrong.pt"), "Breakout", names)
    text = str(error.value)
    assert "missing actor_critic.critic_linear.bias" in text and "unexpected denoiser.surprise" in text
    assert "rew_end_model.head.0.bias is [3], expected [512]" in text
    torch.save({"a": torch.zeros(1)}, tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="not DIAMOND weights"):
        import_published(str(tmp_path / "foreign.pt"), "Breakout", names)
    with pytest.raises(CheckpointError, match="missing"):
        import_published(str(tmp_path / "absent.pt"), "Breakout", names)


class Trap:
    def __reduce__(self):
        return (os.mkdir, ("trapped",))


def test_pickled_code_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"denoiser.x": Trap()}, "trap.pt")
    with open("plain.pt", "wb") as file:
        pickle.dump(Trap(), file)
    for name in ("trap.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match="damaged or holds something other than weights"):
            import_published(name, "Breakout", ["a"] * 4)
    assert not (tmp_path / "trapped").exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x02", b"\x80\x02.", b"nothing"])
def test_half_a_file_is_named(tmp_path, content):
    (tmp_path / "half.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"half\.pt is damaged or holds something other than weights"):
        import_published(str(tmp_path / "half.pt"), "Breakout", ["a"] * 4)


@pytest.mark.parametrize("key, value", [("denoiser.inner_model.act_emb.0.weight", torch.zeros(4, 0)),
                                        ("denoiser.inner_model.conv_out.weight", torch.zeros(0, 64, 3, 3)),
                                        ("denoiser.inner_model.conv_in.weight", torch.zeros(2, device="meta"))])
def test_weights_of_impossible_sizes_are_refused(published, tmp_path, key, value):
    torch.save({**published[0].published_state_dict(), key: value}, tmp_path / "odd.pt")
    with pytest.raises(CheckpointError):
        import_published(str(tmp_path / "odd.pt"), "Breakout", ["a"] * 4)


@pytest.mark.parametrize("path, value", [(("config", "denoiser", "channels"), []), (("config", "sampler", "rho"), 0),
                                         (("config", "denoiser", "channels"), [-1, -1])])
def test_a_card_of_which_no_network_can_be_made_is_refused(small_agent, tmp_path, path, value):
    folder = save_checkpoint(tmp_path / "toy", small_agent, card())
    content = json.loads((folder / "card.json").read_text())
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    (folder / "card.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError):
        load_checkpoint(folder)


@pytest.mark.parametrize("starts", [{"actions": torch.zeros(2, 4)}, {"frames": torch.zeros(0, 4, 3, 16, 16),
                                    "actions": torch.zeros(0, 4)}, {"frames": torch.zeros(2, 4),
                                                                            "actions": torch.zeros(2, 4)}])
def test_starts_from_which_nothing_begins_are_refused(small_agent, tmp_path, starts):
    folder = save_checkpoint(tmp_path / "toy", small_agent, card(), starts)
    with pytest.raises(CheckpointError, match="from which this world can begin"):
        load_checkpoint(folder)


def test_numbers_too_large_for_half_precision_are_refused(small_agent, tmp_path):
    agent = copy.deepcopy(small_agent)
    with torch.no_grad():
        agent.actor_critic.actor_linear.bias += 1e6
    with pytest.raises(CheckpointError, match=r"actor_linear\.bias has numbers of 1e\+06.*--no-half"):
        save_checkpoint(tmp_path / "toy", agent, card(), dtype=torch.float16)
    assert not list(tmp_path.iterdir())
    save_checkpoint(tmp_path / "toy", agent, card())


def test_weights_are_plain_safetensors(small_agent, tmp_path):
    folder = save_checkpoint(tmp_path / "toy", small_agent, card())
    weights = load_file(folder / WEIGHTS)
    assert set(weights) == set(small_agent.published_state_dict())
    save_file(weights, tmp_path / "toy.safetensors")
    again, _ = import_published(str(tmp_path / "toy.safetensors"), "toy", NAMES)
    assert again.config.denoiser == SMALL.denoiser


def test_weights_of_another_game_keep_what_the_actions_share(small_agent, tmp_path):
    save_checkpoint(tmp_path / "toy", small_agent, card())
    names = ["RIGHT", "FIRE", "NOOP", "LEFT"]
    torch.manual_seed(1)
    fresh, taken = (Agent.from_config(SMALL, 4) for _ in range(2))
    fresh.load_state_dict(taken.state_dict())
    config = TrainConfig("Breakout", agent=SMALL, initial=str(tmp_path / "toy"))
    take_weights(taken, diamond_core.load(config.initial, device="cpu"), config, names)
    old, new = dict(small_agent.named_parameters()), dict(fresh.named_parameters())
    for name, its in taken.named_parameters():
        if old[name].shape == its.shape:
            assert torch.equal(its, old[name]), name
        else:
            assert torch.equal(its, torch.stack([old[name][2], new[name][1], old[name][0], old[name][1]])), name
    assert sum(old[name].shape != its.shape for name, its in taken.named_parameters()) == 4


def test_a_world_can_go_on_with_a_longer_memory(small_agent, tmp_path):
    """What it did not see before counts for nothing at first; with more actions it is another network."""
    config = TrainConfig("toy", agent=SMALL, initial=str(save_checkpoint(tmp_path / "toy", small_agent, card())))
    source = diamond_core.load(config.initial, device="cpu")
    longer = replace(SMALL, denoiser=replace(SMALL.denoiser, num_conditioning_frames=6, num_conditioning_actions=4))
    agent = Agent.from_config(longer, 3)
    take_weights(agent, source, config, NAMES)
    past, actions = torch.rand(2, 6, 3, 16, 16) * 2 - 1, torch.randint(0, 3, (2, 6))
    x, c = torch.randn(2, 3, 16, 16), agent.denoiser.conditioners(torch.tensor([0.1, 2.0]))
    with torch.no_grad():
        found = agent.denoiser.model_output(x, c, past, actions)
        expected = small_agent.denoiser.model_output(x, c, past[:, 2:], actions[:, 2:])
    torch.testing.assert_close(found, expected)
    other = replace(longer, denoiser=replace(longer.denoiser, num_conditioning_frames=8, num_conditioning_actions=8))
    with pytest.raises(CheckpointError, match="act_emb"):
        take_weights(Agent.from_config(other, 3), source, config, NAMES)


def test_a_model_of_another_checkpoint_is_joined(tmp_path):
    agents = []
    for seed, stages in ((0, [("a", 1, 1), ("b", 5, 0)]), (1, [("a", 1, 1), ("c", 0, 7)])):
        torch.manual_seed(seed)
        told = [{"game": "toy", "steps": name, "seconds": 10, "updates": {"denoiser": d, "reward_end": r}}
                for name, d, r in stages]
        its = Card("toy", NAMES, SMALL, training={"seed": seed, "stages": told})
        agents.append(diamond_core.load(save_checkpoint(tmp_path / str(seed), Agent.from_config(SMALL, 3), its), "cpu"))
    one = joined(*agents, "reward_end")
    assert torch.equal(one.denoiser.inner_model.conv_in.weight, agents[0].denoiser.inner_model.conv_in.weight)
    assert torch.equal(one.reward_end.lstm.weight_hh_l0, agents[1].reward_end.lstm.weight_hh_l0)
    assert one.card.training["updates"] == {"denoiser": 6, "reward_end": 8} and one.card.training["seconds"] == 30
    assert [stage["steps"] for stage in one.card.training["stages"]] == ["a", "b", "c"]
    agents[1].card = Card("Pong", NAMES, SMALL)
    with pytest.raises(CheckpointError, match="actions or sizes differ"):
        joined(*agents, "actor_critic")

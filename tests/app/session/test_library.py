"""The installed worlds: which of them another training can begin with."""

from __future__ import annotations

from dataclasses import replace

from app.session.library import beginnings
from diamond_core.config import RewardEndConfig
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import WEIGHTS, Card, save_checkpoint
from tests.conftest import SMALL


def test_only_worlds_of_the_same_sizes_can_be_begun_with(tmp_path, monkeypatch):
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(tmp_path))
    other = replace(SMALL, reward_end=RewardEndConfig(channels=(8,), depths=(1,), attention=(False,)))
    for name, config in (("same", SMALL), ("damaged", SMALL), ("other", other)):
        save_checkpoint(tmp_path / name, Agent.from_config(config, 3), Card("toy", ["A", "B", "C"], config))
    (tmp_path / "damaged" / WEIGHTS).unlink()
    (tmp_path / "damaged" / "card.json").write_text("{")
    assert {name for name in beginnings(SMALL) if name in ("same", "damaged", "other")} == {"same"}
    assert beginnings(other)["other"] == tmp_path / "other"


def test_how_many_frames_a_world_sees_may_differ_and_not_how_many_actions(tmp_path, monkeypatch):
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(tmp_path))
    longer = replace(SMALL, denoiser=replace(SMALL.denoiser, num_conditioning_frames=8, num_conditioning_actions=4))
    save_checkpoint(tmp_path / "longer", Agent.from_config(longer, 3), Card("toy", ["A", "B", "C"], longer))
    assert SMALL.denoiser.num_conditioning_frames == 4 and "longer" in beginnings(SMALL)
    assert "longer" not in beginnings(replace(SMALL, denoiser=replace(SMALL.denoiser, num_conditioning_actions=2)))

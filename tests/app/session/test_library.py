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

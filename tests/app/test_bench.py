"""`diamond bench` measures a small world in full, and its table says what the machine is."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from app.cli import main
from app.commands import bench
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import Card, save_checkpoint
from tests.conftest import SMALL

WORLD = replace(SMALL, denoiser=replace(SMALL.denoiser, channels=(16, 16)),
                reward_end=replace(SMALL.reward_end, channels=(16, 16)))
"""Of widths that every path of a CPU knows."""
FAST = ("Winograd", "OpenVINO")
PONG = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    agent = Agent.from_config(WORLD, len(PONG))
    starts = {"frames": torch.randint(0, 256, (2, 4, 3, 16, 16), dtype=torch.uint8),
              "actions": torch.zeros(2, 4, dtype=torch.int64)}
    save_checkpoint(tmp_path / "pong", agent, Card("Pong", PONG, WORLD), starts)
    return tmp_path / "pong"


def test_every_section_is_measured_beside_the_plain_path(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("DIAMOND_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(bench, "CROWDS", (1, 2))
    monkeypatch.setattr(bench, "GAMES", 2)
    monkeypatch.setattr("app.web.crowd.SETTLE", 1.0)
    # where the processor has bfloat16 it waits for what may be faster than Winograd's path, and need not be
    monkeypatch.setattr("app.web.crowd.SEARCH", 10.0)
    out = tmp_path / "bench.json"
    main(["bench", str(checkpoint), "--seconds", "0.1", "--batches", "1", "2", "--out", str(out), "--device", "cpu"])
    report = json.loads(out.read_text())
    assert report["frames"][0]["path"] == "plain" and report["frames"][0]["ratio"] == 1
    assert any(row["path"].startswith(FAST) for row in report["frames"])
    assert all(row["agrees_db"] > 40 for row in report["frames"])
    assert [row["start"] for row in report["start"]] == ["first start", "next start"]
    assert all(row["path"].startswith(FAST) for row in report["start"])
    assert all(0 < row["first_frame_s"] <= row["switched_s"] for row in report["start"])
    assert {row["dreams"] for row in report["imagination"] if row.get("ratio")} == {1, 2}
    assert [row["players"] for row in report["players"]] == [1, 2] and report["players"][0]["frames_a_second"] > 0
    assert {row["model"] for row in report["updates"]} == {"denoiser", "reward_end", "actor_critic"}
    assert report["emulator"][0]["steps_a_second"] > 100
    plays = report["emulator"][1:]
    assert [row["ratio"] == 1 for row in plays] == [True, False] and all(row["steps_a_second"] > 10 for row in plays)
    printed = capsys.readouterr().out
    assert report["machine"]["processor"] in printed and "plain" in printed and "players" in printed


def test_json_alone_is_json(checkpoint, monkeypatch, capsys):
    # that this section is measured is seen above; to begin its 96 games takes most of a minute
    monkeypatch.setattr("app.commands.bench.emulator", lambda c, agent, say: [{"game": "Pong"}])
    main(["bench", str(checkpoint), "--only", "emulator", "--json"])
    assert json.loads(capsys.readouterr().out)["emulator"][0]["game"] == "Pong"

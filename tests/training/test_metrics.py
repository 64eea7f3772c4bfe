"""The lines that a run writes while it trains."""

from __future__ import annotations

import math

import pytest
import torch

from diamond_core.training.metrics import Diverged, Metrics


def test_what_was_written_since_is_forgotten_and_what_is_missing_is_not_made_up(tmp_path):
    metrics, line = Metrics(tmp_path), '{"phase": "denoiser", "epoch": 1}\n'
    metrics.path.write_text(2 * line)
    state = metrics.state_dict()
    metrics.path.write_text(3 * line)
    metrics.load_state_dict(state)
    assert metrics.path.read_text() == 2 * line
    # a power cut: the state was on the disk, the last lines were not
    metrics.path.write_text(line)
    metrics.load_state_dict(state)
    assert metrics.path.read_text() == line


def test_curves_go_back_with_the_lines(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    def write(metrics, *steps):
        for step in steps:
            metrics.write(step, "denoiser", epoch=1, updates=step, loss=step / 2)
        metrics.close()

    killed = Metrics(tmp_path)
    write(killed, 50)
    state = killed.state_dict()
    write(killed, 100)
    resumed = Metrics(tmp_path)
    resumed.load_state_dict(state)
    write(resumed, 100, 150)
    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [(x.step, x.value) for x in board.Scalars("denoiser/loss")] == [(50, 25), (100, 50), (150, 75)]


def test_means_are_of_all_processes(tmp_path):
    metrics = Metrics(tmp_path)
    for x in (1.0, 3.0):
        metrics.add({"loss": torch.tensor(x)})
    assert metrics.mean(lambda mine: [mine, {"loss": 8.0}]) == {"loss": 5.0}
    metrics.add({"loss": torch.tensor(7.0)})
    assert metrics.mean() == {"loss": 7.0}


@pytest.mark.parametrize("x", [math.nan, math.inf])
def test_what_has_diverged_is_neither_told_nor_saved(tmp_path, x):
    metrics = Metrics(tmp_path)
    metrics.add({"loss": torch.tensor(1.0), "gradient_norm": torch.tensor(x)})
    for act in (metrics.state_dict, metrics.mean):
        with pytest.raises(Diverged, match=r"diverged \(gradient_norm: no number"):
            act()

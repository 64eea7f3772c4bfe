"""The lines that a run writes while it trains."""

from __future__ import annotations

from diamond_core.training.metrics import Metrics


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

"""A dream holds for as long as it is nearer to the truth than a held frame."""

from __future__ import annotations

import json

import pytest

from app.session.standing import holds_for, place, report_of, standing


@pytest.mark.parametrize(("steps", "level"), [(5, "poor"), (20, "fair"), (60, "good")])
def test_a_dream_is_true_until_a_held_frame_is_nearer(tmp_path, steps, level):
    means = {"dream": {"mean": [40.0] * steps + [20.0]}, "copy_last": {"mean": [30.0] * (steps + 1)}}
    (tmp_path / "fidelity.json").write_text(json.dumps({"format": "diamond-fidelity-1", "psnr": means}))
    assert standing(tmp_path) == (f"holds for {steps} steps", level)
    assert holds_for(report_of(tmp_path)) == steps


def test_what_was_not_measured_is_not_judged(tmp_path):
    assert standing(tmp_path) == ("not measured yet", None)
    curves = {"dream": {"mean": [1.0]}, "copy_last": {"mean": [1.0]}}
    for report in ("{", "[]", '{"format": "diamond-fidelity-1"}',
                   json.dumps({"format": "diamond-fidelity-1", "psnr": {"dream": {"mean": 3}}}),
                   json.dumps({"format": "diamond-fidelity-1", "psnr": curves, "player_off": [1]})):
        (tmp_path / "fidelity.json").write_text(report)
        assert report_of(tmp_path) is None and standing(tmp_path)[1] is None and place("x", tmp_path)[0] == 3


def test_the_best_dream_comes_first(tmp_path):
    measured = {"Lost": (45.0, 0.2), "Far": (30.0, 0.0), "near": (35.0, 0.1), "Held": (20.0, None), "new": None}
    for name, numbers in measured.items():
        (tmp_path / name).mkdir()
        if numbers is not None:
            psnr = {"dream": {"mean": [numbers[0]] * 100}, "copy_last": {"mean": [25.0] * 100}}
            report = {"format": "diamond-fidelity-1", "psnr": psnr, "player_off": numbers[1]}
            (tmp_path / name / "fidelity.json").write_text(json.dumps(report))
    assert sorted(measured, key=lambda name: place(name, tmp_path / name)) == ["near", "Far", "Lost", "Held", "new"]

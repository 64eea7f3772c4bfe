"""Scores over games and runs: the published ones come out again, intervals are stratified, bad files say so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diamond_core.evaluation import Score, aggregate, read_scores
from diamond_core.evaluation.returns import REFERENCES


def at(level: float, game: str = "Pong") -> float:
    """The raw score with this human-normalised one."""
    return REFERENCES[game].random + level * (REFERENCES[game].human - REFERENCES[game].random)


def test_the_published_scores():
    """Mean and median of SPEC 8; its IQM and gap are over single runs, which the table does not hold."""
    scores = {game: [known.diamond] for game, known in REFERENCES.items()}
    result = aggregate(scores)
    assert (result.games, result.runs) == (26, 26)
    assert result.mean.value == pytest.approx(1.459, abs=5e-4)
    assert result.median.value == pytest.approx(0.373, abs=5e-4)
    assert result.mean.low is None
    assert sum(known.diamond > known.human for known in REFERENCES.values()) == 11


def test_values_by_hand():
    """Runs 0, 1, 2, 13 and 4, 4, 4, 4: the middle four of eight are 2, 4, 4, 4."""
    result = aggregate({"Pong": [at(x) for x in (0, 1, 2, 13)], "Alien": [at(4, "Alien")] * 4})
    values = [getattr(result, name).value for name in ("mean", "median", "iqm", "optimality_gap")]
    assert values == pytest.approx([4, 4, 3.5, 1 / 8])


def test_games_with_unequal_numbers_of_runs_weigh_the_same_in_the_mean():
    assert aggregate({"Pong": [at(1)] * 5, "Alien": [at(0, "Alien")]}).mean.value == pytest.approx(0.5)


def test_intervals_are_stratified():
    """Games that differ while their runs agree leave nothing uncertain."""
    sure = aggregate({"Pong": [at(1)] * 3, "Alien": [at(5, "Alien")] * 3})
    assert sure.mean.low == pytest.approx(3) and sure.mean.high == pytest.approx(3)
    rng = np.random.default_rng(0)
    some = aggregate({game: [at(x, game) for x in rng.normal(1, 1, 20)] for game in ("Pong", "Alien")})
    assert some.mean.low < some.mean.value < some.mean.high
    # twice the standard error of forty runs
    assert some.mean.high - some.mean.low == pytest.approx(4 / 40**0.5, rel=0.25)


def test_the_seed_decides():
    scores = {"Pong": [1.0, 5.0, 9.0, 11.0, 20.0]}
    assert aggregate(scores, seed=1) == aggregate(scores, seed=1) != aggregate(scores, seed=2)


@pytest.mark.parametrize("scores", [{}, {"Pong": []}, {"toy": [1.0]}])
def test_scores_that_do_not_belong(scores: dict[str, list[float]]):
    with pytest.raises(ValueError, match="expected"):
        aggregate(scores)


def score(seed: int = 0, returns: tuple[float, ...] = (20.0, 18.0), sha256: str = "abc", name: str = "runs/pong",
          max_steps: int | None = None) -> Score:
    return Score("Pong", name, seed, max_steps, returns, (900,) * len(returns), 10, sha256)


def test_a_file_says_all(tmp_path: Path):
    score().save(tmp_path / "pong.json")
    assert Score.load(tmp_path / "pong.json") == score()
    content = json.loads((tmp_path / "pong.json").read_text())
    assert (content["episodes"], content["mean"], content["sem"]) == (2, 19.0, pytest.approx(1.0))
    assert content["human_normalised"] == pytest.approx(39.7 / 35.3)


def test_files_become_scores_by_game(tmp_path: Path):
    for i in range(3):
        score(seed=i, sha256=f"abc{i}").save(tmp_path / f"{i}.json")
    paths = sorted(tmp_path.iterdir())
    assert read_scores(paths) == {"Pong": [19.0] * 3}
    again = tmp_path / "again.json"
    score(seed=2, sha256="abc2", name="the/same/pong").save(again)
    with pytest.raises(ValueError, match="expected another run"):
        read_scores([*paths, again])
    score(seed=3, sha256="abc2", returns=(1.0, 1.0)).save(again)
    assert read_scores([*paths, again]) == {"Pong": [19.0, 19.0, 10.0]}, "more episodes of a run are no other run"
    score(seed=3, sha256="abc3", max_steps=60).save(again)
    with pytest.raises(ValueError, match="end at 60 steps"):
        read_scores([*paths, again])


GOOD = {"format": "diamond-returns-1", "game": "Pong", "checkpoint": "x", "seed": 0, "max_steps": None,
        "returns": [1, 2], "lengths": [3, 4]}
BAD = {
    "no json": "pong: 20",
    "a list": "[1, 2]",
    "binary": b"\xff\xfe\x00",
    "another format": json.dumps(GOOD | {"format": "x"}),
    "no game": json.dumps({key: x for key, x in GOOD.items() if key != "game"}),
    "empty": json.dumps(GOOD | {"returns": [], "lengths": []}),
    "infinite": json.dumps(GOOD | {"returns": [1, float("inf")]}),
    "words": json.dumps(GOOD | {"returns": ["a", "b"]}),
    "nested": json.dumps(GOOD | {"returns": [[1], [2]]}),
    "unequal": json.dumps(GOOD | {"lengths": [3]}),
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_named_in_one_line(tmp_path: Path, content: str | bytes):
    path = tmp_path / "bad.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError, match=r"bad\.json: expected a file of") as error:
        Score.load(path)
    assert "\n" not in str(error.value)


def test_the_good_file_that_the_bad_ones_come_from(tmp_path: Path):
    (tmp_path / "good.json").write_text(json.dumps(GOOD))
    assert Score.load(tmp_path / "good.json").returns == (1, 2)


def test_a_missing_file(tmp_path: Path):
    with pytest.raises(ValueError, match="check the path"):
        Score.load(tmp_path / "none.json")

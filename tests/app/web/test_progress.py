"""Curves, places and times that do not lie."""

from __future__ import annotations

import json
import re
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from app.web.charts import Curve, apart, chart, number, thinned
from app.web.jobs import Status
from app.web.progress import Progress, last_epoch, now_of, progress_of, read_metrics
from app.web.tabs.train import headline
from diamond_core.presets import paper, playground, tiny
from diamond_core.training.progress import Bar, Pace


def line(phase: str, epoch: int = 1, **numbers: object) -> dict[str, object]:
    return {"phase": phase, "epoch": epoch, **numbers}


def test_nothing_yet():
    p = progress_of(tiny("toy"), [])
    assert (p.words, p.share, p.left, p.last_epoch) == ("getting ready", 0.0, "", None)


def test_how_far_and_how_long():
    """tiny on the toy: 450 + 2 x 30, 200 + 2 x 25 and 50 + 2 x 35 updates in three epochs."""
    config = tiny("toy")
    lines = [line("collect", steps=4000), line("denoiser", updates=450, loss=0.5, update_seconds=0.1)]
    p = progress_of(config, lines)
    assert (p.last_epoch, p.total, p.done, p.steps) == (3, 510 + 250 + 120, 450, 4000)
    assert p.left == "over 6s left" and p.words == "epoch 1 of 3, learning to draw frames"
    lines += [line("reward_end", updates=200, loss=1.0, update_seconds=0.01),
              line("actor_critic", updates=50, loss=1.0, update_seconds=0.2)]
    assert progress_of(config, lines).left == "20s left"
    lines.append(line("collect", 2, steps=4400))
    lines += [line(name, 3, updates=n, loss=1.0, update_seconds=0.1)
              for name, n in (("denoiser", 510), ("reward_end", 250), ("actor_critic", 120))]
    p = progress_of(config, [*lines, line("evaluate", 3, score=12.5)])
    assert p.share == 1.0 and p.left == "" and p.scores == [(3, 12.5)]


def test_what_the_trainers_bar_says_now(capsys):
    with Bar("epoch 1/60 actor critic", 50_000, 26_704, Pace(), "actor_critic", {}, shown=True):
        pass
    said = [now_of(line) for line in re.split(r"[\r\n]", capsys.readouterr().err)]
    assert "epoch 1 of 60, practising in the dream: 26,704 of 50,000" in said
    assert now_of("stopped and saved in epoch 1 after 3m of training") == now_of("") == ""


def test_the_last_epoch_is_that_of_the_trainer():
    assert last_epoch(playground("Pong"), 1, 0) == 60
    # 950 collections of 100 steps after the first 5,000, then 50 more
    assert last_epoch(paper("Pong"), 1, 5_000) == 1 + 950 + 50
    assert last_epoch(paper("Pong"), 970, 100_000, 951) == 951 + 50


def test_metrics_are_read_while_they_are_written(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    assert read_metrics(path) == []
    path.write_text('{"phase":"collect"}\n[1]\nnull\n{"phase":"den')
    assert read_metrics(path) == [{"phase": "collect"}]


def test_numbers_that_are_missing_or_strange_break_nothing():
    lines = [line("denoiser", updates=50, loss=None), line("denoiser", updates=100, loss=float("nan")),
             line("evaluate", score="high"), {"phase": None}]
    p = progress_of(tiny("toy"), lines)
    assert p.done == 100 and chart("x", [Curve("loss", p.losses["denoiser"])], "updates").count("no numbers yet") == 1


def drawn(text: str) -> ElementTree.Element:
    found = re.search(r"<svg.*</svg>", text, re.S)
    assert found
    return ElementTree.fromstring(found.group())


def test_a_chart_is_labelled_at_its_lines_with_the_baseline_drawn():
    baselines = [("random", -20.7), ("human", 14.6)]
    text = chart("Score <b>", [Curve("agent", [(1, -20.0), (2, 5.0)])], "epochs", baselines=baselines)
    svg = drawn(text)
    words = [t.text for t in svg.iter("text")]
    assert {"agent", "random", "human", "-20.7", "14.6", "2 epochs"} <= set(words) and "<b>" not in text
    assert len([e for e in svg.iter("line") if e.get("class") == "base"]) == 2
    ys = [float(t.get("y")) for t in svg.iter("text") if t.text in ("agent", "random", "human")]
    assert min(abs(a - b) for i, a in enumerate(ys) for b in ys[:i]) >= 16


@pytest.mark.parametrize("points", [[(1, 1.0)], [(1, 2.0), (2, 2.0)], [(1, 0.0), (2, 1.0)],
                                    [(1, -1.0), (9, float("inf"))]])
def test_charts_of_little(points: list[tuple[float, float]]):
    drawn(chart("x", [Curve("loss", points)], "updates", log=True))


def test_of_a_single_point_nothing_is_made_up():
    svg = drawn(chart("Score", [Curve("agent", [(3, 16.2)])], "epochs"))
    words = {t.text: float(t.get("x")) for t in svg.iter("text")}
    assert set(words) == {"agent", "16.2", "3 epochs"}
    assert words["agent"] == pytest.approx(float(next(svg.iter("circle")).get("cx")) + 8)


def test_long_curves_are_thinned_to_means():
    points = [(float(i), float(i % 2)) for i in range(10_000)]
    few = thinned(points)
    assert len(few) <= 280 and all(abs(y - 0.5) < 0.1 for _, y in few)
    assert thinned([]) == []


def test_labels_stay_apart_and_inside():
    placed = apart([(150.0, "a", ""), (151.0, "b", ""), (152.0, "c", "")])
    ys = [y for y, *_ in placed]
    assert all(b - a >= 16 for a, b in pairwise(ys)) and max(ys) <= 190 - 28


def test_short_numbers():
    assert [number(x) for x in (12, 12.0, 0.01234, 12345, -20.7)] == ["12", "12", "0.0123", "12k", "-20.7"]
    assert json.dumps(number(1e9)) == '"1000000k"'


def test_a_training_says_when_it_will_stop():
    now = time.time()
    status = Status("r", tiny("toy"), "training", True, now - 60, "", now + 90)
    assert "1m00s so far, stops in 1m30s" in headline(status, Progress(), "")
    assert "stops" not in headline(replace(status, until=None), Progress(), "")

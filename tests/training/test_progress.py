"""The time to the end is counted from what is left, of this phase and of the later ones."""

from __future__ import annotations

from diamond_core.training.progress import Bar, Pace


def test_what_is_left_counts_down_and_never_below_nothing(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("diamond_core.training.progress.time.perf_counter", lambda: now[0])
    pace = Pace()
    told: list[str] = []
    monkeypatch.setattr("tqdm.tqdm.set_postfix_str", lambda self, text, refresh: told.append(text.strip()))
    with Bar("collect", 10, 0, pace, "collect", {"collect": 20}, shown=False) as bar:
        for _ in range(3):
            now[0] += 6.0
            bar.advance(3, "on")
        now[0] += 40.0
        bar.advance(20)
    assert told == ["on 54s left", "on 48s left", "on 42s left", "40s left"]

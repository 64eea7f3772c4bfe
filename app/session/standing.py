"""How true a dream was found to be, from the fidelity report beside its checkpoint. Our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

GOOD, FAIR = 60, 15
"""Steps for which a good dream, and a fair one, is nearer to the truth than a frame that stands still."""
LOST = 0.1
"""A dream that loses the player in more of its rollouts than this comes behind those that do not."""
UNMEASURED = "not measured yet"
Level = Literal["good", "fair", "poor"]


def report_of(checkpoint: Path) -> dict[str, Any] | None:
    """The fidelity report that lies in a checkpoint's folder, if there is a whole one."""
    try:
        report: dict[str, Any] = json.loads((checkpoint / "fidelity.json").read_text(encoding="utf-8"))
        holds_for(report), float(report.get("player_off") or 0)
        return report if report["format"] == "diamond-fidelity-1" else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def holds_for(report: dict[str, Any]) -> int:
    """Steps for which the dream is nearer to the truth than the last real frame, held."""
    dream, held = (report["psnr"][name]["mean"] for name in ("dream", "copy_last"))
    for i, (x, y) in enumerate(zip(dream, held, strict=False)):
        if x is None or y is None or x < y:
            return i
    return len(dream)


def standing(checkpoint: Path) -> tuple[str, Level | None]:
    """How true a dream is, in a few words and as a level; no level where it was not measured."""
    report = report_of(checkpoint)
    if report is None:
        return UNMEASURED, None
    steps = holds_for(report)
    return f"holds for {steps} steps", "good" if steps >= GOOD else "fair" if steps >= FAIR else "poor"


def place(name: str, checkpoint: Path) -> tuple[int, bool, float, str]:
    """What dreams are sorted by, the best first: level, then whether the player is kept, which a person notices first,
    then how near the dream still is at its last measured step."""
    report, (_, level) = report_of(checkpoint), standing(checkpoint)
    if report is None or level is None:
        return 3, False, 0.0, name.lower()
    known = [x for x in report["psnr"]["dream"]["mean"] if x is not None]
    is_lost = (report.get("player_off") or 0.0) > LOST
    return ("good", "fair", "poor").index(level), is_lost, -(known or [0.0])[-1], name.lower()

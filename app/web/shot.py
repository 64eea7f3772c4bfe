"""One instant as a page sees it: the numbers of a view by short names, and its pictures, encoded once for all who look.

Our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from app.session.view import Facts, View
from app.web.protocol import VIEW, packet, png

Mark = list[Any]
"""[moment, reward, end, divergence, real reward, real end, lived]: what the strip shows of a step."""


class Shot:
    """A view on its way to pages."""

    def __init__(self, view: View, last: int, echo: int | None, with_screen: bool) -> None:
        """`last` is the newest moment of the timeline, `echo` the number of the key press that led here."""
        self.view = view
        self.mark = mark_of(view.moment, view)
        self._frames: dict[str, np.ndarray] = {}
        if view.show != "reality":
            self._frames["dream"] = view.frame
        if view.show != "dream" and view.reality is not None:
            self._frames["reality"] = view.reality
        if with_screen and view.screen is not None:
            self._frames["screen"] = view.screen
        self._last, self.echo = last, echo

    @cached_property
    def pictures(self) -> list[bytes]:
        """As PNG."""
        return [png(frame) for frame in self._frames.values()]

    @cached_property
    def fields(self) -> dict[str, Any]:
        """What all who look are told."""
        v = self.view
        return {
            "pictures": list(self._frames), "moment": v.moment, "last": self._last, "age": v.age,
            "total": whole(v.total), "rtotal": whole(v.reality_total), "psnr": v.psnr, "ssim": v.ssim,
            "agree": v.agreement, "div": v.divergence, "same": v.steps_agreed, "action": v.action,
            "name": v.action_name, "who": v.who, "show": v.show, "helping": v.helping, "paused": v.paused,
            "awake": v.awake, "over": v.over, "p": v.probabilities, "value": v.value, "pend": v.end_probability,
            "ms": v.milliseconds, "rate": v.rate, "slip": v.slipping, "steps": v.steps, "path": v.path,
            "tape": v.recording, "note": v.message}

    def packet(self, seq: int, marks: Sequence[Mark], echo: int | None) -> bytes:
        """For one page: with the steps that it has not heard of yet."""
        return packet(VIEW, {**self.fields, "seq": seq, "marks": marks, "echo": echo}, self.pictures)


def mark_of(moment: int, facts: Facts) -> Mark:
    """A step on the strip."""
    return [moment, whole(facts.reward), facts.end, facts.divergence, whole(facts.reality_reward), facts.reality_end,
            facts.lived]


def whole(x: float) -> int | float:
    """Scores are whole numbers in most games, and look so."""
    return int(x) if float(x).is_integer() else x

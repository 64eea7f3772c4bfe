"""A link's frames are drawn as they were, and then the person's own knobs hold again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from app.session.session import Session
from app.session.view import Knobs
from app.web.retold import Retold
from app.web.shelf import Loaded


class Turned:
    """A session of which only the knobs are asked."""

    def __init__(self) -> None:
        self.action_names = ["NOOP", "LEFT", "RIGHT"]
        self.knobs = Knobs(steps="auto", temperature=5.0)
        self.instant = 0

    def set_knobs(self, **changes: Any) -> Knobs:
        self.knobs = replace(self.knobs, **changes)
        return self.knobs


def told(retold: Retold, session: Turned) -> list[tuple[Any, ...]]:
    return [(step(retold, session), session.knobs.steps, session.knobs.temperature) for _ in range(4)]


def step(retold: Retold, session: Turned) -> int | None:
    action, _ = retold.take()
    session.instant += 1
    return action


def test_knobs_turn_where_they_were_turned_and_come_back():
    session = Turned()
    assert told(Retold(session, "120", "0-3-1-0-5_1-2-1-0.5-0.25"), session) == [
        (1, 3, 5.0), (2, 2, 0.25), (0, 2, 0.25), (None, "auto", 5.0)]


def test_a_key_gives_them_back_at_once():
    session = Turned()
    retold = Retold(session, "1212", "0-3-1-0-5")
    step(retold, session)
    retold.press("right")
    assert retold.take()[0] == 2 and session.knobs.steps == "auto" and not retold.told


def test_knobs_that_the_person_turned_stay():
    session = Turned()
    retold = Retold(session, "12", "0-3-1-0-5_1-2-1-0-5")
    step(retold, session)
    session.set_knobs(steps=7)
    assert [knobs for _, knobs, _ in told(retold, session)] == [7] * 4


@pytest.mark.parametrize("act", [
    lambda s: s.reset(77), lambda s: s.rewind_to(2), lambda s: s.fan_out(0.1) and s.take_branch(3),
    lambda s: s.paint([(5, 5)], 1, (255, 0, 0)), lambda s: s.wake_up(), lambda s: s.resync(),
    lambda s: s.set_knobs(seed=5)])
def test_nothing_is_told_of_another_dream(pong_loaded: Loaded, act: Callable[[Session], object]):
    session = Session(pong_loaded.agent, pong_loaded.world, seed=1)
    session.controls = Retold(session, "3" * 30, "")
    for _ in range(4):
        assert session.tick().action_name == "LEFT"
    act(session)
    session.paused = False
    session.tick()
    assert not session.controls.told


def test_actions_of_another_game_are_refused():
    with pytest.raises(ValueError, match="cut or changed"):
        Retold(Turned(), "3", "")


def test_drawing_that_cannot_be_is_refused_before_anything_is_dreamt():
    with pytest.raises(ValueError, match="1 to 50, got 51"):
        Retold(Turned(), "12", "0-3-1-0-5_1-51-1-0-5")

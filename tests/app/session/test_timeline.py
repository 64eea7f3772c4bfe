"""The last minutes: every value can be had back, the oldest are forgotten, and memory stays small."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.session.session import Session
from app.session.timeline import SLACK, Packed, Timeline
from diamond_core.world.dream import DreamState
from tests.app.session.conftest import RowWorld, play


def equal(a: DreamState, b: DreamState) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.tensors().values(), b.tensors().values(), strict=True))


@pytest.fixture
def session(pong_agent, clock) -> Session:
    return Session(pong_agent, RowWorld(pong_agent), game="Pong", clock=clock, reality=False)


def test_images_are_packed_without_loss():
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    np.testing.assert_array_equal(Packed.of(image[::-1]).open(), image[::-1])


def test_the_oldest_are_forgotten_and_the_rest_is_whole(session: Session):
    session.timeline = Timeline(minutes=0.05)
    session.reset()
    values = [session.dream]
    for _ in range(SLACK + 120):
        session.tick()
        values.append(session.dream)
    timeline = session.timeline
    assert timeline.first > 0 and timeline.last == SLACK + 120 and len(timeline) <= 45 + SLACK + 1
    for number in (timeline.first, timeline.first + 1, timeline.first + 5, timeline.last - 1, timeline.last):
        assert equal(timeline.state(number), values[number])
    assert len(timeline.facts()) == len(timeline) and timeline.cuts == [timeline.first]


def test_going_back_beyond_what_is_known_stops_at_the_first(session: Session):
    play(session, "uud")
    assert session.rewind_to(-50).moment == 0 and session.rewind_to(99).moment == 3
    with pytest.raises(IndexError, match="from 0 to 3"):
        session.timeline[4]


def test_what_came_later_stays_until_the_next_step(session: Session):
    views = play(session, "uudd")
    session.rewind_to(1)
    np.testing.assert_array_equal(session.rewind_to(4).frame, views[3].frame)
    session.rewind_to(2)
    assert session.timeline.last == 4
    play(session, "f")
    assert session.timeline.last == 3


def test_a_value_put_in_is_kept_whole(session: Session):
    play(session, "uu")
    session.paint([(3, 3)], 2, (9, 9, 9), deep=True)
    painted = session.dream
    session.paused = False
    play(session, "dd")
    assert session.timeline.cuts == [0, 2] and equal(session.timeline.state(2), painted)
    session.rewind_to(3)
    assert not equal(session.dream, painted)
    session.rewind_to(1)
    play(session, "u")
    assert session.timeline.cuts == [0]


def test_a_minute_is_small(session: Session):
    play(session, "." * 60)
    moments = [session.timeline[i] for i in range(1, 61)]
    size = sum(len(m.frame.data) + sum(x.nbytes for x in m.memory) for m in moments)
    # these frames are noise: nothing can be packed worse
    assert size < 60 * (3 * 16 * 16 + 200 + 2 * 4 * 16)


def test_a_session_with_frames_of_one_row_of_context(pong_agent, clock):
    """k = 1: there are no actions between the frames."""
    world = RowWorld(pong_agent)
    session = Session(pong_agent, world, game="Pong", clock=clock, reality=False)
    state = session.dream
    session.dream = replace(state, frames=state.frames[:, -1:], actions=state.actions[:, -1:])
    session.timeline = Timeline()
    session.timeline.put(session.view, session.dream, None, None)
    play(session, "uu")
    assert equal(session.timeline.state(2), session.dream)

"""Players who are no people measure what a server gives; what they note is what was sent."""

from __future__ import annotations

import asyncio

import pytest

from app.web import crowd
from app.web.crowd import FalsePlayer, Given, figures, warmed_up
from tests.app.web.conftest import Server


def test_a_crowd_plays_and_notes_what_it_is_given(server: Server, monkeypatch):
    monkeypatch.setattr(crowd, "SETTLE", 0.3)
    url = server.url.replace("http", "ws") + "/ws"
    given = asyncio.run(crowd.crowd(url, "small", 2, 2.0))
    assert len(given) == 2
    for one in given:
        assert 5 < one.rate < 17 and one.delays and 0 < min(one.delays) < 1 and one.steps
        # a packet is at least its pictures of 16 x 16 pixels of noise
        assert one.size > 500 * len(one.times)


def test_a_world_without_a_faster_engine_is_not_waited_for_for_ever(server: Server):
    path = asyncio.run(warmed_up(server.url.replace("http", "ws") + "/ws", "small", search=1.0))
    assert path.startswith("torch cpu ")


def test_a_dream_that_is_not_there_is_an_error(server: Server):
    async def enter() -> None:
        async with crowd.connect(server.url.replace("http", "ws") + "/ws", compression=None) as socket:
            await FalsePlayer(socket).enter("nothing", 0)

    with pytest.raises(ValueError, match="no dream called"):
        asyncio.run(asyncio.wait_for(enter(), 20))


def test_figures_are_per_player_and_in_the_units_of_the_table():
    even = [Given([0.1 * i for i in range(11)], [0.05, 0.07], 20_000, {1, 2}) for _ in range(2)]
    found = figures(even, 1.0)
    assert found["frames_a_second"] == pytest.approx(10) and found["spread_percent"] == pytest.approx(0)
    assert found["p99_gap_ms"] == pytest.approx(100) and found["key_to_frame_ms"] == pytest.approx(60)
    assert found["kb_a_second"] == pytest.approx(20) and found["steps"] == 2
    uneven = [even[0], Given([0.2 * i for i in range(6)], [], 0, {1})]
    assert figures(uneven, 1.0)["spread_percent"] == pytest.approx(100 * 5 / 7.5)

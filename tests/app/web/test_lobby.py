"""Places, queues, those who were cut off and those who sleep at the keys; time is told by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from app.session.clock import FakeClock
from app.web.lobby import IDLE, REPLACED, Bounds, Full, Lobby, Player
from tests.app.web.conftest import run


class Page:
    def __init__(self, name: str = "") -> None:
        self.name, self.told, self.closed = name, [], None

    def tell(self, t: str, **fields: object) -> None:
        self.told.append((t, fields))

    def close(self, code: int, reason: str) -> None:
        self.closed = code


class Dream:
    def __init__(self) -> None:
        self.log: list[object] = []

    def hold(self, held: bool) -> None:
        self.log.append(held)

    def end(self) -> None:
        self.log.append("end")


def play(story: Callable[[Lobby, FakeClock], Awaitable[None]], **bounds: float) -> None:
    clock = FakeClock()
    run(story(Lobby(Bounds(**bounds), clock.now), clock))  # type: ignore[arg-type]


async def waiting(lobby: Lobby, *pages: Page) -> list[asyncio.Task[Player]]:
    tasks = [asyncio.create_task(lobby.seat(page)) for page in pages]
    await asyncio.sleep(0)
    return tasks


def test_who_comes_first_sits_first_and_the_others_are_told_their_place():
    async def story(lobby: Lobby, clock: FakeClock) -> None:
        pages = [Page(str(i)) for i in range(4)]
        first = await lobby.seat(pages[0])
        tasks = await waiting(lobby, *pages[1:])
        assert [page.told[-1][1]["position"] for page in pages[1:]] == [1, 2, 3]
        tasks[1].cancel()
        await asyncio.sleep(0)
        assert pages[3].told[-1][1]["position"] == 2
        lobby.leave(first)
        assert (await tasks[0]).page is pages[1] and not tasks[2].done()
        assert [p.page for p in lobby.players] == [pages[1]] and pages[3].told[-1][1]["position"] == 1

    play(story, players=1)


def test_a_place_that_comes_to_somebody_who_just_went_is_passed_on():
    async def story(lobby: Lobby, clock: FakeClock) -> None:
        first = await lobby.seat(Page())
        gone, stays = await waiting(lobby, Page(), Page())
        lobby.leave(first)
        gone.cancel()
        assert (await stays).page is not None
        assert len(lobby.players) == 1

    play(story, players=1)


def test_the_queue_has_an_end():
    async def story(lobby: Lobby, clock: FakeClock) -> None:
        await lobby.seat(Page())
        (task,) = await waiting(lobby, Page())
        with pytest.raises(Full):
            await lobby.seat(Page())
        task.cancel()

    play(story, players=1, waiting=1)


def test_who_is_cut_off_finds_the_dream_again_for_a_minute():
    async def story(lobby: Lobby, clock: FakeClock) -> None:
        page, back = Page(), Page()
        player = await lobby.seat(page)
        player.dreaming = dream = Dream()  # type: ignore[assignment]
        lobby.lost(player, page)
        clock.advance(59)
        lobby.sweep()
        assert dream.log == [True] and lobby.found(back, "another secret") is None
        assert lobby.found(back, player.id) is player and dream.log == [True, False] and player.page is back
        # the old page's goodbye comes late and means nothing any more
        lobby.lost(player, page)
        assert player.page is back
        lobby.lost(player, back)
        clock.advance(61)
        lobby.sweep()
        assert dream.log[-1] == "end" and lobby.players == [] and lobby.found(Page(), player.id) is None

    play(story)


def test_a_dream_opened_on_a_second_page_leaves_the_first():
    async def story(lobby: Lobby, clock: FakeClock) -> None:
        page = Page()
        player = await lobby.seat(page)
        lobby.found(Page(), player.id)
        assert page.closed == REPLACED

    play(story)


def test_who_sleeps_at_the_keys_gives_the_place_up():
    async def story(lobby: Lobby, clock: FakeClock) -> None:
        sleeper, player = Page(), Page()
        await lobby.seat(sleeper)
        awake = await lobby.seat(player)
        (task,) = await waiting(lobby, Page())
        clock.advance(61)
        awake.seen = clock.now()
        lobby.sweep()
        assert sleeper.closed == IDLE and player.closed is None and (await task) in lobby.players

    play(story, players=2, idle=60)


def test_spectators_come_by_link_and_leave_with_the_dream():
    async def story(lobby: Lobby, clock: FakeClock) -> None:
        player = await lobby.seat(Page())
        watcher = Page()
        assert lobby.watched(watcher, "nonsense") is None and lobby.watched(watcher, player.id) is None
        assert lobby.watched(watcher, player.watch) is player
        with pytest.raises(Full):
            lobby.watched(Page(), player.watch)
        lobby.leave(player)
        assert watcher.closed is not None

    play(story, watching=1)

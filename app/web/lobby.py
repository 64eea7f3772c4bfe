"""Places and players: who holds a place, who waits, who watches, who was cut off and may come back. Our own.

Everything here runs on the event loop; the dreams themselves run on the host's thread. Time is passed in.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    from app.web.dreaming import Dreaming
    from app.web.shot import Shot


class Page(Protocol):
    """A page that is connected, as far as the lobby is concerned."""

    def tell(self, t: str, **fields: object) -> None:
        """Sends an event."""

    def close(self, code: int, reason: str) -> None:
        """Ends the connection."""

    def begin(self, **fields: Any) -> None:
        """Tells of a dream whose pictures come next."""

    def show(self, shot: Shot) -> None:
        """Shows a new instant."""

    def sheet(self, fields: dict[str, Any], sheet: np.ndarray) -> None:
        """Sends many frames in one picture, (h, w, 3)."""


@dataclass(frozen=True)
class Bounds:
    """How many, how long."""

    players: int = 8
    """Dreams that are dreamt at once; whoever comes later waits."""
    waiting: int = 64
    """Pages that may wait."""
    watching: int = 32
    """Spectators of one player."""
    grace: float = 60.0
    """Seconds in which somebody who was cut off finds the dream again."""
    idle: float = 900.0
    """Seconds without a key after which a place is given up."""


@dataclass(eq=False)
class Player:
    """Somebody who holds a place. `id` is a secret between page and server, `watch` is for spectators."""

    page: Page | None
    seen: float
    """When a key or a command last came."""
    id: str = field(default_factory=lambda: secrets.token_urlsafe(18))
    watch: str = field(default_factory=lambda: secrets.token_urlsafe(9))
    gone: float | None = None
    """When the page was lost; None while it is there."""
    watchers: list[Page] = field(default_factory=list)
    dreaming: Dreaming | None = None
    known: bool = False
    """Whether a page was told the secret, by which it can come back."""


class Full(RuntimeError):
    """No place, and none to wait in either."""


GOODBYE, REPLACED, IDLE = 4000, 4001, 4002
"""Codes with which a connection is closed: the end, another page has taken over, nobody there."""


class Lobby:
    """Gives places to players, in the order in which they came."""

    def __init__(self, bounds: Bounds, now: Callable[[], float]) -> None:
        self.bounds, self.now = bounds, now
        self.players: list[Player] = []
        self.queue: list[tuple[Page, asyncio.Future[Player]]] = []

    async def seat(self, page: Page) -> Player:
        """A place, at once or in turn; while it waits the page is told its position. Raises Full."""
        if len(self.players) < self.bounds.players and not self.queue:
            return self._sit(page)
        if len(self.queue) >= self.bounds.waiting:
            raise Full("everybody is asleep already and the queue is full: come back in some minutes")
        turn: asyncio.Future[Player] = asyncio.get_running_loop().create_future()
        entry = (page, turn)
        self.queue.append(entry)
        self._tell_positions()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # the place came in the moment in which the page went
                self.leave(turn.result())
            raise
        finally:
            if entry in self.queue:
                self.queue.remove(entry)
                self._tell_positions()

    def leave(self, player: Player) -> None:
        """Gives the place to the next."""
        if player not in self.players:
            return
        self.players.remove(player)
        if player.dreaming is not None:
            player.dreaming.end()
        for page in player.watchers:
            page.close(GOODBYE, "this dream is over")
        player.watchers.clear()
        while self.queue and len(self.players) < self.bounds.players:
            page, turn = self.queue.pop(0)
            if not turn.done():
                turn.set_result(self._sit(page))
        self._tell_positions()

    def lost(self, player: Player, page: Page) -> None:
        """The page of a player went away; for a while the dream waits for it."""
        if player.page is page:
            player.page, player.gone = None, self.now()
            if player.dreaming is not None:
                player.dreaming.hold(True)

    def found(self, page: Page, secret: str) -> Player | None:
        """The player that a page was before it was cut off, if that is not too long ago."""
        for player in self.players:
            if secrets.compare_digest(player.id, secret):
                if player.page is not None:
                    player.page.close(REPLACED, "this dream was opened on another page")
                player.page, player.gone, player.seen = page, None, self.now()
                if player.dreaming is not None:
                    player.dreaming.hold(False)
                return player
        return None

    def watched(self, page: Page, watch: str) -> Player | None:
        """The player whom a spectator's link names. Raises Full."""
        for player in self.players:
            if secrets.compare_digest(player.watch, watch):
                if len(player.watchers) >= self.bounds.watching:
                    raise Full("as many watch this dream as can: come back later")
                player.watchers.append(page)
                return player
        return None

    def sweep(self) -> None:
        """Gives up the places of those who did not come back, and of those who sleep at the keys."""
        now = self.now()
        for player in list(self.players):
            if player.gone is not None and now - player.gone > self.bounds.grace:
                self.leave(player)
            elif player.gone is None and now - player.seen > self.bounds.idle:
                page = player.page
                self.leave(player)
                if page is not None:
                    page.close(IDLE, f"no key for {self.bounds.idle / 60:.0f} minutes")

    def _sit(self, page: Page) -> Player:
        player = Player(page, self.now())
        self.players.append(player)
        return player

    def _tell_positions(self) -> None:
        for i, (page, _) in enumerate(self.queue):
            page.tell("queue", position=i + 1, players=self.bounds.players)

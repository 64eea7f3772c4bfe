"""Everything that one server holds: the dreams on the shelf, the thread that dreams, players, tapes. Our own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from app.web import protocol as say
from app.web.access import Access, Tempo
from app.web.dreaming import Dreaming
from app.web.hosting import Host
from app.web.lobby import GOODBYE, Bounds, Lobby, Player
from app.web.shelf import Shelf
from app.web.shot import Shot

SWEEP = 2.0
"""Seconds between two looks for those who are gone."""


@dataclass(frozen=True)
class Settings:
    """What a server is told."""

    runs: Path = Path("runs")
    """Where trainings lie; a folder each."""
    tapes: Path = Path("tapes")
    """Where recordings go."""
    checkpoints: Path = Path("checkpoints")
    """Where imported checkpoints go."""
    device: str = "auto"
    bounds: Bounds = field(default_factory=Bounds)
    access: Access = field(default_factory=Access)


class Audience:
    """A player's page and those who watch."""

    def __init__(self, player: Player, lobby: Lobby) -> None:
        self._player, self._lobby = player, lobby

    def show(self, shot: Shot) -> None:
        """To all."""
        for page in (self._player.page, *self._player.watchers):
            if page is not None:
                page.show(shot)

    def tell(self, t: str, **fields: Any) -> None:
        """To the player."""
        if self._player.page is not None:
            self._player.page.tell(t, **fields)

    def sheet(self, fields: dict[str, Any], sheet: np.ndarray) -> None:
        """To the player."""
        if self._player.page is not None:
            self._player.page.sheet(fields, sheet)

    def failed(self, error: BaseException) -> None:
        """This dream is over; nobody else's is."""
        page = self._player.page
        self._lobby.leave(self._player)
        if page is not None:
            page.close(GOODBYE, f"this dream broke off ({type(error).__name__}); the server's log says why")


class House:
    """One server's rooms."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.now = settings, now
        self.shelf = Shelf(settings.runs, settings.device)
        self.lobby = Lobby(settings.bounds, now)
        self.knocks = Tempo(0.2, 5, now)
        """Attempts at the password, of all strangers together."""
        self._host: Host | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def host(self) -> Host:
        """The thread that dreams; it begins with the first dream."""
        if self._host is None:
            self._host = Host()
        return self._host

    async def open(self) -> None:
        """Begins to look after the players."""
        self._sweeping = asyncio.create_task(self._sweep())

    async def close(self) -> None:
        """Ends all dreams."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._sweeping
        for player in list(self.lobby.players):
            self.lobby.leave(player)
        if self._host is not None:
            await asyncio.to_thread(self._host.close)
            self._host = None

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP)
            self.lobby.sweep()

    async def dream(self, opening: say.Open, is_owner: bool, player: Player) -> Dreaming:
        """A dream for a player. Raises ValueError with words for the person."""
        loaded = await asyncio.to_thread(self.shelf.load, opening.game, is_owner)
        return await Dreaming.begin(self.host, loaded, opening, Audience(player, self.lobby))

    def moments(self, name: str) -> list[dict[str, str]]:
        """The saved moments beside this one, where it is one of a run."""
        run, at, _ = name.rpartition("@")
        return [{"name": name, "word": word} for name, word in self.shelf.moments(run)] if at else []

    def record(self, player: Player, on: bool) -> None:
        """Begins or ends a player's tape."""

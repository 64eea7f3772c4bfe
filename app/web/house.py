"""Everything that one server holds: the dreams on the shelf, the thread that dreams, players, tapes. Our own."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from app.session.host import Host
from app.session.look import STEPS_A_SECOND
from app.session.tape import Tape
from app.session.view import NumSteps
from app.web import protocol as say
from app.web.access import Access, Tempo
from app.web.again import proven, ready_at
from app.web.blind import Blind
from app.web.datasets import datasets_of, play_of
from app.web.dreaming import Dreaming
from app.web.jobs import Jobs
from app.web.lobby import GOODBYE, Bounds, Lobby, Player
from app.web.samples import Samples
from app.web.shelf import Quicken, Shelf, Unknown
from app.web.shot import Shot
from app.web.tapes import Seen, Tapes, TapesError
from diamond_core.device import trim_memory
from diamond_core.world.accelerate import accelerate, engines_of
from diamond_core.world.dream import World

LOG = logging.getLogger(__name__)
SWEEP = 2.0
"""Seconds between two looks for those who are gone."""
TRIM = 8
"""Sweeps between two times when memory goes back to the system."""


@dataclass(frozen=True)
class Settings:
    """What a server is told."""

    runs: Path = Path("runs")
    """Where trainings lie; a folder each."""
    data: Path = Path("data")
    """Where datasets lie."""
    tapes: Path = Path("tapes")
    """Where recordings go."""
    checkpoints: Path = Path("checkpoints")
    """Where imported checkpoints go."""
    device: str = "auto"
    steps: NumSteps = "auto"
    """Denoising steps that a dream begins with."""
    quicken: Quicken = accelerate
    """What looks for a faster engine for a world that was loaded."""
    bounds: Bounds = field(default_factory=Bounds)
    access: Access = field(default_factory=Access)


class Audience:
    """A player's page and those who watch."""

    def __init__(self, player: Player, lobby: Lobby, tapes: Tapes, is_owner: bool, writing: set[asyncio.Task[None]]
                 ) -> None:
        """`writing` holds the recordings that are being written."""
        self._player, self._lobby, self._tapes, self._is_owner = player, lobby, tapes, is_owner
        self._writing = writing

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

    def recorded(self, tape: Tape, seen: Sequence[Seen], title: str, name: str) -> None:
        """Keeps a tape, beside play, and tells the player where it is."""
        async def keep() -> None:
            """The work, a task of its own."""
            try:
                # the player's name is a secret, this is none
                whose = blake2b(self._player.id.encode(), digest_size=8).hexdigest()
                kept = await asyncio.to_thread(self._tapes.keep, tape, seen, title, not self._is_owner, name, whose)
            except TapesError as error:
                self.tell("note", text=f"the tape was not kept: {error}")
            except OSError as error:
                LOG.error("a tape could not be kept", exc_info=error)
                self.tell("note", text=f"the tape was not kept: {error.strerror or 'the disk may be full'}")
            else:
                self.tell("recorded", id=kept.id, title=kept.title, seconds=kept.steps / STEPS_A_SECOND,
                          has_loop=kept.has_loop)

        task = asyncio.create_task(keep())
        self._writing.add(task)
        task.add_done_callback(self._writing.discard)

    def failed(self, error: Exception) -> None:
        """This dream is over; nobody else's is."""
        page = self._player.page
        self._lobby.leave(self._player)
        if page is not None:
            page.close(GOODBYE, f"this dream broke off ({type(error).__name__}); the server's log says why")


class Proof(NamedTuple):
    """What came of dreaming a tape again."""

    same: int
    """Steps that are the same to the last bit."""
    steps: int
    why: str
    """Why others are not, where that is known."""


class House:
    """One server's rooms."""

    def __init__(self, settings: Settings, now: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.now = settings, now
        self.shelf = Shelf(settings.runs, settings.device, quicken=settings.quicken)
        self.jobs = Jobs(settings.runs)
        self.samples = Samples(settings.device)
        self.tapes = Tapes(settings.tapes)
        self.blind = Blind()
        self._proving = asyncio.Lock()
        self.lobby = Lobby(settings.bounds, now)
        self.knocks = Tempo(0.2, 5, now)
        """Wrong attempts at the password, of all strangers together."""
        self.uploads = Tempo(0.1, 10, now)
        """Tapes that visitors bring."""
        self.films = ThreadPoolExecutor(1, "film")
        """Where films are made: one at a time, and nobody else waits for a thread meanwhile."""
        self._writing: set[asyncio.Task[None]] = set()
        self._host: Host | None = None
        self._sweeping: asyncio.Task[None] | None = None

    @property
    def host(self) -> Host:
        """The thread that dreams; it begins with the first dream."""
        if self._host is None:
            self._host = Host().start()
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
        self.films.shutdown(wait=False, cancel_futures=True)
        for player in list(self.lobby.players):
            self.lobby.leave(player)
        if self._host is not None:
            # what they recorded is handed over first, and written
            await asyncio.wrap_future(self._host.call(lambda: None))
            await asyncio.sleep(0)
            await asyncio.gather(*self._writing)
            await asyncio.to_thread(self._host.close)
            self._host = None

    async def _sweep(self) -> None:
        for n in count(1):
            await asyncio.sleep(SWEEP)
            self.lobby.sweep()
            if n % TRIM == 0:
                await asyncio.to_thread(trim_memory)

    async def dream(self, opening: say.Open, is_owner: bool, player: Player) -> Dreaming:
        """A dream for a player. Raises ValueError with words for the person."""
        loaded = await asyncio.to_thread(self.shelf.load, opening.game, is_owner)
        audience = Audience(player, self.lobby, self.tapes, is_owner, self._writing)
        if opening.tape is None:
            return await Dreaming.begin(self.host, loaded, opening, audience, self.settings.steps)
        tape = await asyncio.to_thread(self.tapes.tape, opening.tape)

        def tell(done: int, total: int) -> None:
            audience.tell("loading", what=f"Dreaming the tape up to there: {done} of {total} steps")

        ready = await ready_at(self.host, loaded.world, tape, opening.at, tell)
        return await Dreaming.begin(self.host, loaded, opening, audience, self.settings.steps, ready)

    async def prove(self, name: str, is_owner: bool) -> Proof:
        """Dreams a tape again. Raises ValueError."""
        tape = await asyncio.to_thread(self.tapes.tape, name)
        dream = self.shelf.fitting(self.shelf.cards(is_owner), tape.origin.game, tape.origin.sha256)
        if dream is None:
            raise TapesError(f"no dream of {tape.origin.game} is installed: bring one in under Models")
        if self._proving.locked():
            raise TapesError("another tape is being proven: try again in a moment")
        async with self._proving:
            loaded = await asyncio.to_thread(self.shelf.load, dream, is_owner)
            agent, shared = loaded.agent, loaded.world
            world = World(agent.denoiser, agent.reward_end, agent.config.sampler, shared.runtime)
            asked = set(tape.paths.values()) - {shared.path}
            engines = {**await asyncio.to_thread(engines_of, asked, world, agent.config.frame_shape),
                       shared.path: shared.engine}
            same = int(await proven(self.host, world, tape, engines))
        missing = sorted(set(tape.paths.values()) - set(engines))
        why = (f"it was dreamt by other weights than {loaded.title}'s" if loaded.sha256 != tape.origin.sha256 else
               f"it was dreamt on {' and '.join(missing)}, which this machine has not" if missing else "")
        return Proof(same, len(tape), why if same < len(tape) else "")

    def moments(self, name: str) -> list[dict[str, str]]:
        """The saved moments beside this one, where it is one of a run."""
        run, at, _ = name.rpartition("@")
        try:
            return [{"name": name, "word": word} for name, word in self.shelf.moments(run)] if at else []
        except Unknown:  # the run was deleted, the dream goes on
            return []

    def datasets(self, game: str) -> list[tuple[Path, str]]:
        """Datasets of a game, with a word on each."""
        return datasets_of(self.settings.data, game)

    def dataset(self, game: str, name: str, own: str) -> Path:
        """A dataset by its name; `own` is the name of all recorded play. Raises ValueError."""
        if name == own:
            return play_of(self.tapes, game, self.settings.data)
        for path, _ in self.datasets(game):
            if path.name == name:
                return path
        raise ValueError(f"there is no dataset '{name}' of {game}")

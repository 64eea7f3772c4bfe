"""One websocket: reads a page's messages within bounds, and sends it events and the newest picture, never a backlog.

Our own. A page says of each picture that it was drawn; while too many are under way none is sent, and when the way is
free again the newest goes, with the steps in between as marks on the strip.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import WebSocket, WebSocketDisconnect

from app.web import protocol as say
from app.web.access import Tempo
from app.web.lobby import GOODBYE, Full, Player
from app.web.shelf import Unknown
from app.web.shot import Mark, Shot
from diamond_core.training.checkpoint import CheckpointError

if TYPE_CHECKING:
    from app.web.server import House

LOG = logging.getLogger(__name__)
POLICY, BROKEN = 1008, 1011
UNDER_WAY = 6
"""Pictures that may be on their way: 0.4 s, enough for a slow line, too little for a backlog."""
MOST_EVENTS, MOST_BYTES = 256, 8 * 2**20
"""Events that may wait to be sent; a page that lets more pile up is gone."""
MOST_MARKS = 1024
RATE, BURST = 120.0, 360.0
"""Messages a second, and how many may come at once: a page sends about 40 while somebody hammers the keys."""
FIRST_WORD = 10.0
"""Seconds in which a page must say who it is."""


class Connection:
    """A page. Knows what to say to it next."""

    def __init__(self, house: House, socket: WebSocket) -> None:
        self.house, self.socket = house, socket
        self.player: Player | None = None
        self.watching: Player | None = None
        self._events: deque[str | bytes] = deque()
        self._newest: Shot | None = None
        self._marks: deque[Mark] = deque(maxlen=MOST_MARKS)
        self._echo: int | None = None
        self._ready = False
        self._sent = self._drawn = 0
        self._wake = asyncio.Event()
        self._closing: tuple[int, str] | None = None
        self._opening: asyncio.Task[None] | None = None

    # what others tell this page

    def tell(self, t: str, **fields: Any) -> None:
        """An event."""
        self._put(say.event(t, **fields))

    def begin(self, **fields: Any) -> None:
        """Another dream: its pictures come after this."""
        self._newest, self._ready = None, True
        self._marks.clear()
        self.tell("opened", **fields)

    def sheet(self, fields: dict[str, Any], sheet: np.ndarray) -> None:
        """Many frames in one picture."""
        self._put(say.packet(say.SHEET, fields, [say.png(sheet)]))

    def show(self, shot: Shot) -> None:
        """A new instant; what was not sent yet is forgotten, its mark is not."""
        if not self._ready:
            # the page does not know yet what it will look at
            return
        self._newest = shot
        self._marks.append(shot.mark)
        if self.watching is None and shot.echo is not None:
            self._echo = shot.echo
        self._wake.set()

    def close(self, code: int, reason: str) -> None:
        """Says goodbye after what is still to be said."""
        self._closing = self._closing or (code, reason)
        self._wake.set()

    def _put(self, item: str | bytes) -> None:
        if len(self._events) >= MOST_EVENTS or sum(map(len, self._events)) > MOST_BYTES:
            self.close(POLICY, "this page does not listen")
            return
        self._events.append(item)
        self._wake.set()

    # the two ends

    async def serve(self) -> None:
        """Until the page goes or is sent away."""
        reader, writer = asyncio.create_task(self._read()), asyncio.create_task(self._write())
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reader, writer, self._opening):
                if task is not None:
                    task.cancel()
            await asyncio.gather(*(t for t in (reader, writer, self._opening) if t), return_exceptions=True)
            self._part()

    def _part(self) -> None:
        if self.watching is not None and self in self.watching.watchers:
            self.watching.watchers.remove(self)
        if self.player is not None:
            thrown_out = self._closing is not None and self._closing[0] == POLICY
            # whoever never heard its name cannot come back to a dream
            if (thrown_out or not self.player.known) and self.player.page is self:
                self.house.lobby.leave(self.player)
            else:
                self.house.lobby.lost(self.player, self)

    async def _write(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._events:
                    item = self._events.popleft()
                    await (self.socket.send_text(item) if isinstance(item, str) else self.socket.send_bytes(item))
                if self._closing is not None:
                    code, reason = self._closing
                    await self.socket.close(code, reason.encode()[:120].decode(errors="ignore"))
                    return
                if self._newest is not None and self._sent - self._drawn < UNDER_WAY:
                    await self._send_newest()
        except (WebSocketDisconnect, RuntimeError, OSError):
            # the page is gone; the reader hears of it too
            return

    async def _send_newest(self) -> None:
        assert self._newest is not None
        shot, self._newest = self._newest, None
        marks, echo = list(self._marks), self._echo
        self._marks.clear()
        self._echo = None
        self._sent += 1
        await self.socket.send_bytes(shot.packet(self._sent, marks, echo))

    async def _read(self) -> None:
        tempo = Tempo(RATE, BURST, self.house.now)
        try:
            first = say.parse(await asyncio.wait_for(self._text(), FIRST_WORD))
            if not isinstance(first, say.Join):
                raise say.BadMessage("expected 'join' first")
            await self._join(first)
            while True:
                message = say.parse(await self._text())
                if not tempo.take():
                    raise say.BadMessage(f"more than {RATE:.0f} messages a second")
                self._hear(message)
        except say.BadMessage as error:
            self.close(POLICY, str(error))
        except asyncio.TimeoutError:
            self.close(POLICY, f"no word for {FIRST_WORD:.0f} seconds")
        except WebSocketDisconnect:
            return
        except Exception:
            LOG.exception("a page's message could not be dealt with")
            self.close(BROKEN, "something went wrong here; the server's log says what")
        # the writer ends the connection, with its reason
        await asyncio.sleep(5)

    async def _text(self) -> str | bytes:
        message = await self.socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        text: str | bytes | None = message.get("text")
        return text if text is not None else message.get("bytes") or b""

    # what the page says

    async def _join(self, m: say.Join) -> None:
        lobby = self.house.lobby
        if m.watch is not None:
            try:
                self.watching = lobby.watched(self, m.watch)
            except Full as error:
                self.close(GOODBYE, str(error))
                return
            if self.watching is None or self.watching.dreaming is None:
                self.close(GOODBYE, "this dream is over")
            else:
                fields = await self.watching.dreaming.opened()
                self.begin(**fields, watching=True)
                self.watching.dreaming.again()
            return
        if m.resume is not None:
            self.player = lobby.found(self, m.resume)
            if self.player is not None and self.player.dreaming is not None:
                await self._opened(self.player)
                return
        self.tell("hello", players=len(lobby.players), bound=lobby.bounds.players)

    def _hear(self, m: say.Message) -> None:
        if isinstance(m, say.Got):
            if m.seq > self._sent:
                raise say.BadMessage("a picture was drawn that was never sent")
            self._drawn = max(self._drawn, m.seq)
            self._wake.set()
        elif isinstance(m, say.Ping):
            self.tell("pong", n=m.n)
        elif isinstance(m, say.Join):
            raise say.BadMessage("'join' comes once")
        elif self.watching is not None:
            # a spectator's keys are nobody's
            return
        elif isinstance(m, say.Open):
            self._begin(m)
        elif isinstance(m, say.Plain) and m.t == "leave":
            if self.player is not None:
                self.house.lobby.leave(self.player)
                self.player = None
        elif self.player is not None and self.player.dreaming is not None:
            self.player.seen = self.house.now()
            if not self.player.dreaming.do(m):
                raise say.BadMessage("more wishes at once than can be granted")

    def _begin(self, m: say.Open) -> None:
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        self._opening = asyncio.create_task(self._open(m))

    async def _open(self, m: say.Open) -> None:
        """A place, the weights, a dream; what goes wrong is told and the page stays."""
        try:
            player = self.player
            if player is None:
                player = self.player = await self.house.lobby.seat(self)
            player.seen = self.house.now()
            if player.dreaming is not None:
                player.dreaming.end()
                player.dreaming = None
            self._ready = False
            self.tell("loading", what=f"Loading {m.game}")
            dreaming = await self.house.dream(m, self.socket.scope["role"] == "owner", player)
            if player not in self.house.lobby.players or player.page is not self:
                dreaming.end()
                return
            player.dreaming = dreaming
            await self._opened(player)
        except (Full, Unknown, CheckpointError, ValueError) as error:
            self.close(GOODBYE, str(error))
        except Exception:
            LOG.exception("a dream of %s could not begin", m.game)
            self.close(GOODBYE, "this dream could not begin; the server's log says why")
        finally:
            player = self.player
            # a page that came back after the line was cut keeps the place
            if player is not None and player.page is self and player.dreaming is None and self._closing is not None:
                with contextlib.suppress(ValueError):
                    self.house.lobby.leave(player)

    async def _opened(self, player: Player) -> None:
        assert player.dreaming is not None
        dreaming, player.known = player.dreaming, True
        fields = await dreaming.opened()
        self.begin(**fields, secret=player.id, watch=player.watch, watching=False,
                   token=self.house.settings.access.pass_on, moments=self.house.moments(dreaming.loaded.name))
        for page in player.watchers:
            page.begin(**fields, watching=True)
        dreaming.again()


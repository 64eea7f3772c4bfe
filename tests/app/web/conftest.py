"""A shelf with one small dream of the toy game, and a server on it in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import uvicorn
from websockets.sync.client import connect

from app.session.session import Session
from app.session.tape import Tape
from app.session.timeline import Packed
from app.web.access import Access
from app.web.house import House, Settings
from app.web.lobby import Bounds
from app.web.protocol import VIEW, unpack
from app.web.server import MAX_SOCKET, build
from app.web.shelf import Loaded
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import Card, save_checkpoint
from diamond_core.training.library import load
from diamond_core.world.dream import World
from tests.conftest import SMALL

torch.set_num_threads(1)
NAMES = ["NOOP", "LEFT", "RIGHT"]


def small_checkpoint(folder: Path) -> Path:
    """A dream of the toy game with random weights; its frames change all the time and it hardly ever ends."""
    torch.manual_seed(0)
    agent = Agent.from_config(SMALL, 3)
    with torch.no_grad():
        for p in agent.parameters():
            if not p.any():
                p.normal_(std=0.2)
        # the last two outputs are "goes on" and "ends"; what they weigh is made positive
        agent.reward_end.head[0].bias += 5.0
        agent.reward_end.head[-1].weight[-2], agent.reward_end.head[-1].weight[-1] = 20.0, -20.0
    frames = torch.randint(0, 256, (6, 4, 3, 16, 16), dtype=torch.uint8)
    return save_checkpoint(folder, agent, Card("toy", NAMES, SMALL),
                           {"frames": frames, "actions": torch.randint(0, 3, (6, 4))})


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shelf")
    small_checkpoint(folder / "small")
    return folder


@pytest.fixture
def home(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(shelf))
    return Settings(tmp_path / "runs", tmp_path / "data", tmp_path / "tapes", tmp_path / "checkpoints", "cpu",
                    quicken=lambda world, shape: None)


class Server:
    """One that runs in a thread."""

    def __init__(self, settings: Settings) -> None:
        self.house = House(settings)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        config = uvicorn.Config(build(self.house, tabs=False), log_level="error", ws_max_size=MAX_SOCKET,
                                ws_per_message_deflate=False, timeout_graceful_shutdown=1, lifespan="on")
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, args=([self.listener],))

    def __enter__(self) -> Server:
        self.thread.start()
        until = time.monotonic() + 20
        while not self.server.started and time.monotonic() < until:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self.listener.close()
        assert not self.thread.is_alive()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def page(self, query: str = "", **options: Any) -> PageDouble:
        return PageDouble(f"ws://127.0.0.1:{self.port}/ws{query}", **options)


class PageDouble:
    """What a page does, without a browser."""

    def __init__(self, url: str, **options: Any) -> None:
        self._stack = contextlib.ExitStack()
        # with unread pictures in the way the client never sees the other side close, and would wait for ten seconds
        self.socket = self._stack.enter_context(connect(url, compression=None, close_timeout=0.5, **options))
        self.events: list[dict[str, Any]] = []
        self.views: list[tuple[dict[str, Any], list[bytes]]] = []
        self.sheets: list[tuple[dict[str, Any], list[bytes]]] = []
        self.acknowledges = True

    def send(self, t: str, **fields: Any) -> None:
        self.socket.send(json.dumps({"t": t, **fields}))

    def open(self, game: str = "small", **fields: Any) -> dict[str, Any]:
        self.send("join")
        self.until("hello")
        self.send("open", game=game, **fields)
        return self.until("opened")

    def take(self, timeout: float = 10) -> None:
        """One message."""
        data = self.socket.recv(timeout)
        if isinstance(data, str):
            self.events.append(json.loads(data))
            return
        kind, fields, images = unpack(data)
        (self.views if kind == VIEW else self.sheets).append((fields, images))
        if kind == VIEW and self.acknowledges:
            self.send("got", seq=fields["seq"])

    def until(self, t: str, timeout: float = 20) -> dict[str, Any]:
        """The next event of this kind."""
        while True:
            self.take(timeout)
            if self.events and self.events[-1]["t"] == t:
                return self.events.pop()

    def view(self, fits: Any = lambda view: True, timeout: float = 10) -> dict[str, Any]:
        """The next view that fits."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            before = len(self.views)
            self.take(timeout)
            if len(self.views) > before and fits(self.views[-1][0]):
                return self.views[-1][0]
        raise AssertionError("no such view came")

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> PageDouble:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def server(home: Settings) -> Iterator[Server]:
    with Server(home) as running:
        yield running


@pytest.fixture
def crowded(home: Settings) -> Iterator[Server]:
    """Room for two, who may be away for half a second."""
    with Server(replace(home, bounds=Bounds(players=2, waiting=2, watching=1, grace=0.5))) as running:
        yield running


@pytest.fixture
def shared(home: Settings) -> Iterator[Server]:
    """Beyond loopback, with tokens and a password."""
    access = Access(loopback=False, owner="o" * 32, visitor="v" * 32, login=("ann", "sesame street"))
    with Server(replace(home, access=access)) as running:
        yield running


def run(doing: Any) -> Any:
    """Runs a coroutine."""
    with contextlib.closing(asyncio.new_event_loop()) as loop:
        return loop.run_until_complete(doing)


class AtOnce:
    """A host without a thread."""

    def call(self, job):
        done = Future()
        done.set_result(job())
        return done


@pytest.fixture
def tape(home) -> Tape:
    agent = load("small", "cpu")
    session = Session(agent, agent.world(), seed=1)
    session.start_tape()
    for _ in range(6):
        session.tick()
    return session.stop_tape()


@pytest.fixture
def pong_loaded() -> Loaded:
    torch.manual_seed(0)
    agent = Agent.from_config(SMALL, 6).eval()
    agent.card = Card("Pong", ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"], SMALL)
    return Loaded("Pong", "Pong", agent, agent.world(), "")


@pytest.fixture
def pong_world(pong_loaded: Loaded) -> World:
    return pong_loaded.world


@pytest.fixture
def pong_tape(pong_loaded: Loaded) -> Tape:
    session = Session(pong_loaded.agent, pong_loaded.world, seed=1)
    session.start_tape()
    for _ in range(5):
        session.tick()
    return session.stop_tape()


def seen(n: int, twin: bool) -> list[tuple[Packed, Packed | None]]:
    frames = np.random.default_rng(0).integers(0, 256, (n, 2, 16, 16, 3), dtype=np.uint8)
    return [(Packed.of(a), Packed.of(b) if twin else None) for a, b in frames]

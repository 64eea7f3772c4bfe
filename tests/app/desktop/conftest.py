"""A window without a screen, and a player of a small Pong in it, moved turn by turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from time import monotonic

import pygame
import pytest
import torch
from pygame.event import Event
from torch import Tensor

from app.desktop.game import Game
from app.desktop.gamepad import Gamepads
from app.desktop.keys import Keyboard
from app.desktop.picker import Picker
from app.desktop.play import Play
from app.desktop.player import Player, Scene
from app.desktop.window import Window
from app.desktop.worker import Worker
from app.session.controls import Controls
from app.session.session import Session
from diamond_core.device import resolve
from diamond_core.envs import action_names
from diamond_core.training.agent import Agent
from diamond_core.world.dream import DreamState, DreamStep, World
from tests.conftest import EXACT, SMALL

PATIENCE = 60.0
"""Seconds after which a test gives up waiting for the window."""


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Settings and saved things go to a folder of the test."""
    for name in ("XDG_CONFIG_HOME", "XDG_DATA_HOME", "APPDATA", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    return tmp_path


@pytest.fixture(scope="session")
def pong_agent() -> Agent:
    """Random weights with the buttons of Pong, nothing left at zero."""
    torch.manual_seed(0)
    agent = Agent.from_config(SMALL, num_actions=6)
    with torch.no_grad():
        for p in agent.parameters():
            if not p.any():
                p.normal_(std=0.2)
    return agent.eval()


class Endless(World):
    """A dream that is never over."""

    def step(self, state: DreamState, actions: Tensor) -> DreamStep:
        return super().step(state, actions)._replace(ends=torch.zeros(len(actions), dtype=torch.bool))


@pytest.fixture
def pong_world(pong_agent: Agent) -> Endless:
    return Endless(pong_agent.denoiser, pong_agent.reward_end, SMALL.sampler, resolve(EXACT))


class Stage:
    """A player and what a test does to it."""

    def __init__(self, load: Callable[[Callable[[str], None]], Session], title: str = "Pong") -> None:
        self.window, self.worker = Window(size=(960, 600)), Worker()
        self.keyboard, self.pads = Keyboard(), Gamepads()
        self.game = Game(self.worker, title, load)
        self.play = Play(self.game, self.keyboard, self.pads, self.picker, self.window.toggle_full_screen)
        self.player = Player(self.window, self.worker, self.play)

    def picker(self) -> Scene:
        return Picker(self.worker, lambda: (), lambda _: self.play, self.keyboard, self.pads,
                      self.window.toggle_full_screen)

    @property
    def now(self):
        """The newest snapshot."""
        assert self.game.newest is not None
        return self.game.newest

    @property
    def view(self):
        return self.now.view

    @property
    def session(self) -> Session:
        """For looking at only: it belongs to the worker."""
        assert self.game._session is not None
        return self.game._session

    def until(self, true: Callable[[], object], why: str = "") -> None:
        """Turns the loop until something is so, resting as it does on a desk: who spins starves the worker."""
        end = monotonic() + PATIENCE
        while not true():
            assert monotonic() < end, f"waited in vain {why}"
            self.player.turn()

    def begin(self) -> Stage:
        """Until there is something to see."""
        self.until(lambda: self.game.newest, "for the game")
        return self

    def down(self, key: int, unicode: str = "", mod: int = 0) -> None:
        pygame.event.post(Event(pygame.KEYDOWN, key=key, unicode=unicode, mod=mod, scancode=0))

    def up(self, key: int) -> None:
        pygame.event.post(Event(pygame.KEYUP, key=key, unicode="", mod=0, scancode=0))

    def tap(self, key: int, unicode: str = "", mod: int = 0) -> None:
        """Down and up, heard at once, and done by the worker."""
        self.down(key, unicode, mod)
        self.up(key)
        self.settle()

    def mouse(self, kind: int, place: tuple[int, int], button: int = 1) -> None:
        more = {"buttons": (1, 0, 0), "rel": (0, 0)} if kind == pygame.MOUSEMOTION else {"button": button}
        pygame.event.post(Event(kind, pos=place, touch=False, **more))

    def click(self, place: tuple[int, int], button: int = 1) -> None:
        self.mouse(pygame.MOUSEBUTTONDOWN, place, button)
        self.mouse(pygame.MOUSEBUTTONUP, place, button)
        self.settle()

    def settle(self) -> None:
        """Until the worker has done what was asked."""
        self.turn()
        done: list[int] = []
        self.worker.ask("", lambda: done.append(1))
        self.until(lambda: done, "for the worker")
        self.turn()

    def turn(self) -> None:
        """One turn of the loop, without waiting for anything."""
        pygame.event.post(Event(pygame.USEREVENT))
        self.player.turn()

    def hot(self, *meaning: object) -> tuple[int, int]:
        """Where something was drawn to be clicked."""
        self.player.draw()
        pen, _ = self.play.hands.seen
        return next(area.center for area, its in reversed(pen.hot) if its == meaning)


@pytest.fixture
def stages() -> Iterator[list[Stage]]:
    """Those that a test opened; closed after it."""
    opened: list[Stage] = []
    yield opened
    for stage in opened:
        if pygame.display.get_init():
            stage.player.close()
        assert not stage.worker.alive


@pytest.fixture
def stage(pong_agent, pong_world, stages) -> Stage:
    """A small Pong with reality beside it, paused at its first frame."""
    def load(_: Callable[[str], None]) -> Session:
        session = Session(pong_agent, pong_world, game="Pong", controls=Controls(action_names("Pong")))
        session.paused = True
        return session

    stages.append(Stage(load))
    return stages[0].begin()

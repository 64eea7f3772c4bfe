"""Looking at data: a dataset, a run, an episode file and a tape, by keys and mouse."""

from __future__ import annotations

from pathlib import Path
from time import monotonic

import numpy as np
import pygame
import pytest
import torch
from pygame.event import Event

from app.cli import main
from app.desktop import strip
from app.desktop.browse import Browse
from app.desktop.keys import Keyboard
from app.desktop.player import Player
from app.desktop.reels import open_shelf
from app.desktop.window import Window
from app.desktop.worker import Worker
from app.session.library import dreamt_by
from app.session.session import Session
from app.session.tapefile import save_tape
from diamond_core.replay import Dataset, DatasetInfo, Episode
from diamond_core.training.checkpoint import Card, save_checkpoint
from diamond_core.training.run import Run
from tests.app.desktop.conftest import PATIENCE
from tests.conftest import SMALL
from tests.whole.test_training import CONFIG

NAMES = ("NOOP", "LEFT", "RIGHT")


def some_play(length: int, number: int) -> Episode:
    """Every frame another grey; one reward, and an end."""
    frames = torch.arange(length + 1, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 16, 16).contiguous()
    rewards = torch.zeros(length)
    rewards[length // 2] = number - 1
    ends = torch.zeros(length, dtype=torch.bool)
    ends[-1] = True
    return Episode(frames, torch.arange(length) % 3, rewards, ends, torch.zeros_like(ends), {"policy": "random"})


@pytest.fixture
def data(tmp_path):
    dataset = Dataset(tmp_path / "data", DatasetInfo("toy", NAMES, (3, 16, 16)))
    for number in range(3):
        dataset.add(some_play(20 + number, number))
    return tmp_path / "data"


@pytest.fixture
def browse(data):
    """A window on the dataset, and turns of its loop until something is so."""
    window, worker = Window(size=(640, 480)), Worker()
    scene = Browse(worker, lambda: open_shelf(data), Keyboard(), window.toggle_full_screen)
    player = Player(window, worker, scene)

    def until(true):
        end = monotonic() + PATIENCE
        while not true():
            assert monotonic() < end
            player.turn()

    scene.until = until
    until(lambda: scene.reel is not None and len(scene.briefs) == 3)
    scene.playing = False
    scene.go(0)
    yield scene
    player.close()
    assert not worker.alive


def press(scene, key):
    scene.handle(Event(pygame.KEYDOWN, key=key, unicode="", mod=0))
    scene.handle(Event(pygame.KEYUP, key=key, unicode="", mod=0))


def test_all_episodes_are_listed_with_length_and_return(browse):
    assert browse.shelf.names == ("episode 0", "episode 1", "episode 2")
    assert browse.briefs == {0: (20, -1.0), 1: (21, 0.0), 2: (22, 1.0)}


def test_keys_step_and_choose(browse):
    press(browse, pygame.K_RIGHT)
    press(browse, pygame.K_RIGHT)
    press(browse, pygame.K_LEFT)
    assert browse.at == 1 and browse.reel.frames[1, 0, 0, 0] == 1
    press(browse, pygame.K_END)
    assert browse.at == 20
    press(browse, pygame.K_RIGHT)
    assert browse.at == 20
    press(browse, pygame.K_DOWN)
    browse.until(lambda: browse.reel is not None)
    assert browse.chosen == 1 and len(browse.reel) == 21


def test_the_key_that_fills_the_screen(browse):
    press(browse, pygame.K_F11)
    assert pygame.display.get_surface().get_flags() & pygame.FULLSCREEN
    press(browse, pygame.K_F11)
    assert not pygame.display.get_surface().get_flags() & pygame.FULLSCREEN


def test_it_plays_by_itself_and_stops_at_the_end(browse):
    browse.go(17)
    press(browse, pygame.K_SPACE)
    browse.until(lambda: browse.at == 20 and not browse.playing)


def test_dragging_on_the_timeline(browse):
    browse.until(lambda: browse._layout)
    bar = strip.bar_of(browse._layout.strip, browse._pen)
    browse.handle(Event(pygame.MOUSEBUTTONDOWN, pos=(bar.left + bar.width // 2, bar.centery), button=1))
    assert browse.at == 10
    browse.handle(Event(pygame.MOUSEMOTION, pos=(bar.right, bar.centery)))
    browse.handle(Event(pygame.MOUSEBUTTONUP, pos=(bar.right, bar.centery), button=1))
    assert browse.at == 19


def test_a_click_in_the_list(browse):
    browse.until(lambda: browse._pen)
    area = next(area for area, meaning in browse._pen.hot if meaning == ("reel", 2))
    browse.handle(Event(pygame.MOUSEBUTTONDOWN, pos=area.center, button=1))
    browse.until(lambda: browse.reel is not None and len(browse.reel) == 22)


def test_an_episode_that_is_damaged_is_a_line(browse, data):
    (data / "000001.episode").write_bytes(b"nothing")
    browse.choose(1)
    browse.until(lambda: browse._trouble)
    assert "000001.episode" in browse._trouble and browse.reel is None
    browse.briefs.clear()
    while browse._brief(browse.shelf) is not None:
        pass
    assert browse.briefs == {0: (20, -1.0), 1: None, 2: (22, 1.0)}, "the others are listed"


@pytest.mark.parametrize("name, advice", [("gone", "check the path"), ("notes.txt", "nothing to look at")])
def test_nothing_to_look_at_is_one_line_and_no_window(tmp_path, monkeypatch, capsys, name, advice):
    end, turn = monotonic() + PATIENCE, Player.turn

    def turned(player):
        assert monotonic() < end, "the window stays open"
        turn(player)

    monkeypatch.setattr(Player, "turn", turned)
    monkeypatch.setattr("app.desktop.window.display_missing", lambda: None)
    (tmp_path / "notes.txt").write_text("none")
    with pytest.raises(SystemExit) as stop:
        main(["browse", str(tmp_path / name)])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and advice in said
    assert not pygame.display.get_init()


def test_a_run_shows_its_data(tmp_path, data):
    run = Run(tmp_path / "run")
    run.begin(CONFIG)
    with pytest.raises(ValueError, match="has no data"):
        open_shelf(run.folder)
    data.rename(run.dataset)
    assert open_shelf(run.folder).title == "run"


def test_an_episode_file_alone(data):
    shelf = open_shelf(data / "000001.episode")
    assert shelf.names == ("000001",) and len(shelf.read[0]()) == 21


def test_a_shelf_has_the_name_of_the_folder_one_is_in(data, monkeypatch):
    monkeypatch.chdir(data)
    assert open_shelf(Path(".")).title == "data"


def test_a_tape_is_dreamt_again(tmp_path, monkeypatch, pong_agent):
    names = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    folder = save_checkpoint(tmp_path / "shelf" / "Pong", pong_agent, Card("Pong", names, SMALL))
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(tmp_path / "shelf"))
    from diamond_core.training.library import load
    agent = load(folder)
    session = Session(agent, agent.world(), game="Pong")
    seen = [session.view.frame]
    session.listeners.append(lambda view: seen.append(view.frame))
    session.start_tape()
    for _ in range(3):
        session.tick()
    save_tape(session.stop_tape(), tmp_path / "some.tape")
    shelf = open_shelf(tmp_path / "some.tape")
    reel = shelf.read[0]()
    assert np.array_equal(reel.frames, seen) and ("true to the tape", "yes") in reel.facts and not reel.lived.any()
    assert dreamt_by(agent.card.sha256, "Pong") == folder


@pytest.mark.parametrize("name, advice", [("gone", "check the path"), ("empty", "nothing to look at")])
def test_what_cannot_be_looked_at(tmp_path, name, advice):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=advice):
        open_shelf(tmp_path / name)

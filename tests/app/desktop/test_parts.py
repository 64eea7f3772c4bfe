"""The parts of the window alone: geometry, keys, the worker, gamepads, knobs, the picker, the command."""

from __future__ import annotations

import importlib.util
import itertools
import json
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pygame
import pytest
from pygame import Rect
from pygame.event import Event

from app.cli import main
from app.desktop import orders, screen, strip
from app.desktop.gamepad import Gamepads, Heard
from app.desktop.keys import COMMANDS, GROUPS, Keyboard, cap
from app.desktop.knobs import KNOBS, Settings, turned, words
from app.desktop.layout import lay_out
from app.desktop.panels import palette
from app.desktop.pen import Pen, unit
from app.desktop.picker import Picker, fit
from app.desktop.start import Desk
from app.desktop.window import Window, display_missing, icon
from app.desktop.worker import Worker
from app.session.controls import KEYMAP
from app.session.look import DREAM, REALITY
from app.session.view import View
from diamond_core.training.library import SHIPPED

SIZES = [(640, 480), (800, 600), (1280, 800), (1920, 1080), (3840, 2160), (500, 900)]


@pytest.fixture
def window():
    opened = Window(size=(640, 480))
    yield opened
    opened.close()


# geometry

@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("left, right, bare", list(itertools.product((False, True), repeat=3)))
@pytest.mark.parametrize("pictures, emulator", [([(64, 64)], None), ([(64, 64)] * 2, None), ([(64, 64)], (160, 210))])
def test_pictures_are_whole_multiples_and_nothing_overlaps(size, left, right, bare, pictures, emulator):
    its = lay_out(size, pictures, screen=emulator, left=left, right=right, bare=bare)
    window = Rect((0, 0), size)
    assert all(box.width % 64 == 0 and box.height == box.width for box in its.pictures)
    captions = [Rect(box.left, box.top - its.captions, box.width, its.captions) for box in its.pictures]
    if its.screen is not None:
        assert its.screen.width % 160 == 0 and its.screen.height * 160 == its.screen.width * 210
    parts = [*its.pictures, *captions, its.screen, its.head, its.foot, its.strip, its.left, its.right]
    shown = [part for part in parts if part is not None and part.width and part.height]
    assert all(window.contains(part) for part in shown)
    assert not [pair for pair in itertools.combinations(shown, 2) if pair[0].colliderect(pair[1])]


def test_the_picture_is_as_large_as_fits():
    assert lay_out((1280, 800), [(64, 64)]).pictures[0].size == (640, 640)
    assert lay_out((1280, 800), [(64, 64)] * 2).pictures[1].size == (576, 576)
    assert lay_out((640, 480), [(64, 64)]).pictures[0].size == (320, 320)


def test_words_grow_with_the_window():
    assert unit((1280, 800)) == 1 and unit((2560, 1600)) == 2 and unit((320, 200)) == 0.8


def test_a_step_and_its_place_on_the_strip(window):
    marks = strip.Marks(np.zeros(1800), np.zeros(1800, bool), np.zeros(1800), 0)
    bar = Rect(40, 0, 700, 10)
    there_and_back = [strip.step_at(bar, strip.x_of(bar, step, marks) + 1, marks) - step for step in range(0, 1800, 7)]
    assert max(map(abs, there_and_back)) <= 3
    assert strip.step_at(bar, 0, marks) == 0 and strip.step_at(bar, 9999, marks) == 1799


def test_numbers_keep_their_places():
    around = screen.Around("Pong")
    first, later = (screen.fields(View(total=total, age=age, rate=rate, milliseconds=ms, psnr=db, ssim=0.5), around)
                    for total, age, rate, ms, db in ((0.0, 0, 0.0, 1.0, 9.0), (-21.0, 12345, 15.0, 999.0, 55.5)))
    assert [(f.label, f.chars) for f in first] == [(f.label, f.chars) for f in later]
    assert all(len(f.value) <= f.chars for f in (*first, *later)), [f for f in later if len(f.value) > f.chars]


@pytest.mark.parametrize("size", [*SIZES, (300, 200)])
@pytest.mark.parametrize("title", ["Pong", "a-folder-with-a-rather-long-name-of-a-run-of-training"])
def test_the_upper_line_keeps_to_its_room_and_the_way_to_help_and_tape_in_it(window, monkeypatch, size, title):
    drawn, text = [], Pen.text

    def noted(pen, words, *where, **how):
        drawn.append((words, text(pen, words, *where, **how)))
        return drawn[-1][1]

    monkeypatch.setattr(Pen, "text", noted)
    monkeypatch.setattr(screen, "_foot", lambda *_: None)
    view = View(frame=np.zeros((64, 64, 3), np.uint8), who="help", paused=True, recording=12345)
    hints = [(cap, word, (word,)) for cap, word in (("Tab", "view"), ("Esc", "games"), ("F1", "help"))]
    around = screen.Around(title, speed=0.75, resync_every=15, hints=hints)
    pen, layout = Pen(pygame.Surface(size)), screen.layout_of(size, view, around)
    screen.draw(pen, layout, view, around)
    words = [word for word, _ in drawn]
    assert "help" in words and (size[0] < 640 or {"● tape 823.0 s", "paused"} <= set(words))
    assert size[0] < 1920 or title != "Pong" or {"falls asleep every 15 steps", "view", "games"} <= set(words)
    assert all(layout.head.left <= box.left and box.right <= layout.head.right for _, box in drawn)
    assert not [pair for pair in itertools.combinations([box for _, box in drawn], 2) if pair[0].colliderect(pair[1])]


def test_the_heat_of_a_difference_lies_where_it_differs():
    apart = screen.apart(np.zeros((4, 4, 3), np.uint8), np.eye(4, dtype=np.uint8)[..., None].repeat(3, 2) * 200)
    image = screen.over(np.full((4, 4, 3), 90, np.uint8), apart).astype(int)
    assert image[0, 0, 0] > 200 and np.ptp(image[0, 1]) == 0


def test_a_palette_of_colours_that_differ():
    frame = np.zeros((8, 8, 3), np.uint8)
    frame[:4], frame[4, 4] = (144, 72, 17), (92, 186, 92)
    assert palette(frame) == [(255, 255, 255), (0, 0, 0), (144, 72, 17), (92, 186, 92)] or \
        palette(frame) == [(255, 255, 255), (0, 0, 0), (92, 186, 92), (144, 72, 17)]


def test_words_that_do_not_fit_are_cut(window):
    pen = Pen(window.surface)
    short = pen.fitted("a rather long line of words", 80)
    assert short.endswith("…") and pen.width(short) <= 80 and pen.fitted("short", 400) == "short"


def test_digits_are_equally_wide(window):
    pen = Pen(window.surface)
    assert len({pen.width(digit, mono=True) for digit in "0123456789 +−.%"}) == 1


def test_the_icon_shows_both_worlds():
    colours = {tuple(icon().get_at((x, 32)))[:3] for x in range(64)}
    assert {DREAM, REALITY} <= colours


# keys

def test_no_key_of_a_command_plays_and_none_means_two_things():
    keys = [key for names, _ in COMMANDS.values() for key in names]
    assert len(keys) == len(set(keys)) and not set(keys) & set(KEYMAP)
    assert sorted(itertools.chain(*GROUPS.values())) == sorted(COMMANDS)


def test_every_command_does_something():
    own = {"help", "back", "rewind", "difference", "mind", "denoising", "paint", "knobs", "fullscreen", "hide"}
    assert set(orders.ORDERS) | own == set(COMMANDS)


@pytest.mark.parametrize("text, advice", [("{", "delete it"), ("[]", "delete it"), ('{"pause": "p"}', "expected"),
                                          ('{"dance": ["d"]}', "commands out of")])
def test_a_key_file_that_cannot_be_read(tmp_path, text, advice):
    (tmp_path / "window-keys.json").write_text(text)
    with pytest.raises(ValueError, match=advice):
        Keyboard(tmp_path)


def test_a_key_given_to_another_command_leaves_the_first(tmp_path):
    keyboard = Keyboard(tmp_path)
    keyboard.bind("mind", "p")
    assert json.loads((tmp_path / "window-keys.json").read_text()) == {"pause": [], "mind": ["p"]}
    again = Keyboard(tmp_path)
    event = Event(pygame.KEYDOWN, key=pygame.K_p, unicode="p", mod=0)
    assert again.command_of(event) == "mind" and again.cap("pause") == ""


def test_caps():
    assert [cap(key) for key in ("p", "f11", "tab", "escape", "[", "left")] == ["P", "F11", "Tab", "Esc", "[", "←"]


# knobs

def test_knobs_turn_and_stop_at_their_ends():
    assert turned(Settings(steps=3), "steps", 1) == 4 and turned(Settings(steps="auto"), "steps", -1) == "auto"
    assert turned(Settings(steps=7), "steps", 1) == 8 and turned(Settings(steps=7), "steps", -1) == 6
    assert turned(Settings(steps=50), "steps", 1) == 32 and turned(Settings(seed=0), "seed", -1) == 0
    assert turned(Settings(horizon=None), "horizon", 1) == 15 and turned(Settings(horizon=20), "horizon", 1) == 50


def test_every_value_of_every_knob_has_words():
    assert all(words(knob.name, value) for knob in KNOBS for value in knob.values)
    assert set(Settings.__dataclass_fields__) == {knob.name for knob in KNOBS}


# the worker

def test_requests_are_done_in_order_and_only_the_newest_of_a_kind():
    worker, done, gate = Worker(), [], threading.Event()
    worker.ask("waiting", lambda: gate.wait(5))
    for i in range(5):
        worker.ask("scrub", lambda i=i: done.append(i), key="scrub")
        worker.ask("other", lambda i=i: done.append(-i))
    gate.set()
    finished = threading.Event()
    worker.ask("", finished.set)
    assert finished.wait(5) and done == [0, -1, -2, -3, 4, -4]
    worker.close()
    assert not worker.alive


def test_a_request_that_fails_leaves_a_line_and_the_worker_alive():
    woken, finished = [], threading.Event()
    worker = Worker(lambda: woken.append(1))

    def fails():
        raise OSError("the disk\n  is full")

    worker.ask("saving", fails)
    worker.ask("", finished.set)
    assert finished.wait(5) and worker.trouble == "the disk is full" and woken
    worker.close()


def test_a_beat_goes_on_by_itself_and_rests_when_it_says_so():
    worker, beats, enough = Worker(), [], threading.Event()

    def beat():
        beats.append(1)
        if len(beats) == 3:
            enough.set()
            return None
        return 0.001

    worker.beat_with(beat)
    assert enough.wait(5) and not threading.Event().wait(0.05) and len(beats) == 3
    worker.close()


def test_closing_drops_what_waits():
    worker, gate, done = Worker(), threading.Event(), []
    worker.ask("long", lambda: gate.wait(5))
    worker.ask("never", lambda: done.append(1))
    threading.Timer(0.05, gate.set).start()
    worker.close()
    assert not worker.alive and not done


# gamepads

def test_a_pad_plays_and_commands(window):
    pads = Gamepads()

    def hear(kind, **what):
        return pads.hear(Event(kind, instance_id=0, **what))

    down, up, axis = pygame.CONTROLLERBUTTONDOWN, pygame.CONTROLLERBUTTONUP, pygame.CONTROLLERAXISMOTION
    assert hear(down, button=pygame.CONTROLLER_BUTTON_A) == [Heard("press", "FIRE")]
    assert hear(up, button=pygame.CONTROLLER_BUTTON_A) == [Heard("release", "FIRE")]
    assert hear(down, button=pygame.CONTROLLER_BUTTON_BACK) == [Heard("command", "view")]
    x = pygame.CONTROLLER_AXIS_LEFTX
    assert hear(axis, axis=x, value=-30000) == [Heard("press", "LEFT")]
    assert hear(axis, axis=x, value=-14000) == [], "between the zones nothing changes"
    assert hear(axis, axis=x, value=30000) == [Heard("release", "LEFT"), Heard("press", "RIGHT")]
    assert hear(axis, axis=x, value=0) == [Heard("release", "RIGHT")]
    assert hear(axis, axis=x, value=30000) == [Heard("press", "RIGHT")]
    gone = hear(pygame.JOYDEVICEREMOVED)
    assert Heard("uncommand", "rewind") in gone and Heard("release", "RIGHT") in gone
    assert hear(axis, axis=x, value=30000) == [Heard("press", "RIGHT")], "a new pad begins anew"


def test_a_pad_that_is_gone_before_it_is_heard_of_is_no_pad(window):
    assert Gamepads().hear(Event(pygame.JOYDEVICEADDED, device_index=99)) == []


# the picker

def entry(name, size=(64, 64)):
    loop = [np.full((*size, 3), i * 20, np.uint8) for i in range(8)]
    return SimpleNamespace(name=name, path=Path(name), poster=loop[0], frames=loop, card=None,
                           standing=("holds for 20 steps", "fair"))


def picked(entries, enter=lambda _: None):
    """A worker and a picker that has found these worlds."""
    worker, finished = Worker(), threading.Event()
    picker = Picker(worker, lambda: entries, enter, Keyboard(), Gamepads(), lambda: None)
    worker.ask("", finished.set)
    assert finished.wait(5)
    return worker, picker


def test_choosing_a_world(window):
    entered = []
    worker, picker = picked([entry(n) for n in ("Boxing", "Breakout", "Pong")], entered.append)
    pen = Pen(window.surface)
    picker.draw(pen)
    for key in (pygame.K_RIGHT, pygame.K_RIGHT, pygame.K_RIGHT, pygame.K_LEFT, pygame.K_RETURN):
        picker.handle(Event(pygame.KEYDOWN, key=key, unicode="", mod=0))
    assert entered == ["Breakout"]
    box = dict(picker._boxes)[2]
    picker.handle(Event(pygame.MOUSEBUTTONDOWN, pos=box.center, button=1))
    assert entered == ["Breakout", "Pong"]
    worker.close()


def test_worlds_of_every_size_are_whole_multiples_in_their_cards(window, monkeypatch):
    sizes, drawn = [(64, 64), (84, 84), (96, 64), (400, 400), (210, 160), (16, 16)], []
    monkeypatch.setattr(Pen, "picture", lambda _, image, area: drawn.append((image.shape[:2], area)))
    worker, picker = picked([entry(str(size), size) for size in sizes])
    picker.draw(Pen(pygame.Surface((1280, 800))))
    worker.close()
    for (h, w), (image, area), (_, card) in zip(sizes, drawn, picker._boxes, strict=True):
        factor, apart = area.width // image[1], -(-w // image[1])
        assert factor and area.size == (image[1] * factor, image[0] * factor), "whole squares"
        assert image == (-(-h // apart), -(-w // apart)), "every so many pixels, across and down"
        assert card.contains(area) and area.centerx == card.centerx


def test_cards_lie_still_under_a_hovering_mouse_and_the_wheel_reaches_the_last(window):
    entered = []
    worker, picker = picked([entry(str(i)) for i in range(40)], entered.append)
    pen = Pen(pygame.Surface((800, 600)))

    def hear(kind, **what):
        picker.handle(Event(kind, **what))
        picker.draw(pen)
        return dict(picker._boxes)

    still = hear(pygame.USEREVENT)
    last = max(still)
    assert pen.surface.get_rect().contains(still[0]) and still[last].bottom > 600 - 20
    place = still[last].centerx, still[last].top + 2
    for _ in range(3):
        assert hear(pygame.MOUSEMOTION, pos=place) == still and picker.chosen == last
    moved = hear(pygame.KEYDOWN, key=pygame.K_RIGHT, unicode="", mod=0)
    assert moved != still and pen.surface.get_rect().contains(moved[picker.chosen])
    for _ in range(20):
        there = hear(pygame.MOUSEWHEEL, y=-1)
    assert picker.chosen == 39 and pen.surface.get_rect().contains(there[39])
    assert min(box.top for box in there.values()) >= pen.px(56), "none lies over the title"
    first = min(there)
    assert hear(pygame.MOUSEMOTION, pos=there[first].center) == there
    hear(pygame.MOUSEBUTTONDOWN, pos=there[first].center, button=1)
    assert entered == [str(first)]
    worker.close()


def test_cards_are_all_in_view_while_they_can_be():
    assert fit(1, (64, 64), (1240, 720), (44, 80)) == (5, 1)
    factor, columns = fit(26, (64, 64), (1240, 720), (44, 80))
    assert factor == 2 and columns == 7


# the command

def test_without_a_display_the_command_says_so_in_one_line_and_does_without(monkeypatch, capsys):
    from app.commands import play

    written = []
    monkeypatch.setattr(play, "write", written.append)
    main(["play", "Pong", "--out", "dream.mp4"])
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "SDL_VIDEODRIVER is dummy" in said and written[0].checkpoint == "Pong"
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("SDL_VIDEODRIVER", "DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert "DISPLAY" in str(display_missing())


def test_a_display_that_cannot_be_reached_is_none(monkeypatch):
    """Newer SDL draws for nobody then, and says nothing."""
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("SDL_VIDEODRIVER", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":99")
    monkeypatch.setattr("pygame.display.get_driver", lambda: "offscreen")
    monkeypatch.setattr("pygame.display.init", lambda: None)
    closed = []
    monkeypatch.setattr("pygame.display.quit", lambda: closed.append(1))
    assert display_missing() == "the display :99 cannot be reached" and closed
    monkeypatch.setattr("pygame.display.get_driver", lambda: "x11")
    assert display_missing() is None


def test_in_its_own_folder_a_world_has_its_name(monkeypatch, window):
    from app.commands import play

    its, written = importlib.util.find_spec, []
    monkeypatch.chdir(SHIPPED / "Pong")
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if name == "gradio" else its(name, *more))
    monkeypatch.setattr(play, "write", written.append)
    main(["play", "."])
    assert written[0].out == Path("Pong-dream.mp4")
    busy = SimpleNamespace(ask=lambda *_, **__: None)
    assert Desk(window, busy).play(".").game.title == "Pong"


def test_with_a_display_the_command_opens_the_window(monkeypatch):
    opened = []
    monkeypatch.setattr("app.desktop.window.display_missing", lambda: None)
    monkeypatch.setattr("app.desktop.start.play", lambda checkpoint, **more: opened.append((checkpoint, more)))
    main(["play", "Pong", "--seed", "7", "--steps", "2"])
    assert opened == [("Pong", {"seed": 7, "steps": 2, "device": "auto"})]


def test_a_world_that_is_not_there_is_one_line(monkeypatch, capsys):
    monkeypatch.setattr("app.desktop.window.display_missing", lambda: None)
    with pytest.raises(SystemExit) as stop:
        main(["play", "Ponk"])
    said = capsys.readouterr().err
    assert stop.value.code == 2 and said.count("\n") == 1 and "no checkpoint 'Ponk'" in said


def test_without_a_display_the_web_player_opens(monkeypatch, capsys):
    opened: list[list[str]] = []
    monkeypatch.setattr("app.desktop.window.display_missing", lambda: "no DISPLAY")
    monkeypatch.setattr("app.commands.web.web", opened.append)
    main(["play", "--device", "cpu"])
    assert opened == [["--device", "cpu", "--steps", "auto"]]
    assert "no window here (no DISPLAY)" in capsys.readouterr().out

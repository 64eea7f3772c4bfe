"""The window of play, driven by posted events: every key, the mouse, what is drawn, and how it ends."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pygame
import pytest
from pygame.event import Event

from app.desktop import strip
from app.desktop.game import Game
from app.desktop.keys import config_folder
from app.desktop.orders import as_file, data_folder, named
from app.desktop.pen import Pen
from app.desktop.picker import Picker
from app.desktop.ribbon import Ribbon
from app.desktop.worker import Worker
from app.session.controls import Controls
from app.session.library import entries
from app.session.session import Session
from app.session.tapefile import load_tape
from diamond_core.envs import action_names
from diamond_core.training.agent import Agent
from diamond_core.world.dream import World
from tests.app.desktop.conftest import Stage


def steps(stage: Stage, number: int) -> None:
    """So many single steps."""
    for _ in range(number):
        stage.tap(pygame.K_PERIOD, ".")


def test_tab_cycles_the_three_views(stage):
    seen = []
    for _ in range(3):
        stage.tap(pygame.K_TAB)
        seen.append(stage.view.show)
    assert seen == ["reality", "twin", "dream"]


def test_a_system_shortcut_is_not_a_command(stage):
    stage.tap(pygame.K_TAB, mod=pygame.KMOD_LALT)
    assert stage.view.show == "dream"


def test_a_system_shortcut_does_not_play_but_a_chord_with_a_modifier_that_plays_does(stage):
    stage.tap(pygame.K_s, "\x13", pygame.KMOD_LCTRL)
    assert not stage.session.controls.active
    stage.keyboard.bind_play("FIRE", "left ctrl")
    stage.session.controls.keymap = dict(stage.keyboard.plays)
    stage.down(pygame.K_LCTRL, mod=pygame.KMOD_LCTRL)
    stage.down(pygame.K_a, mod=pygame.KMOD_LCTRL)
    stage.tap(pygame.K_d, mod=pygame.KMOD_LCTRL | pygame.KMOD_LALT)
    steps(stage, 1)
    assert stage.view.action_name == "LEFTFIRE"


def test_pause_and_single_step(stage):
    assert stage.view.paused and stage.view.moment == 0
    steps(stage, 2)
    assert stage.view.paused and stage.view.moment == 2
    stage.tap(pygame.K_p, "p")
    stage.until(lambda: stage.view.moment > 5, "for time to go on")
    stage.tap(pygame.K_p, "p")
    stopped = stage.view.moment
    time.sleep(0.15)
    stage.turn()
    assert stage.view.paused and stage.view.moment == stopped


def test_the_frame_on_the_screen_is_the_newest_in_whole_squares(stage):
    steps(stage, 3)
    pen, layout = stage.play.hands.seen
    box = layout.pictures[0]
    drawn = pygame.surfarray.array3d(pen.surface.subsurface(box)).swapaxes(0, 1)
    factor = box.width // 16
    assert (drawn == stage.view.frame.repeat(factor, 0).repeat(factor, 1)).all()


def test_a_held_key_plays_and_letting_go_stops(stage):
    taken = []
    stage.session.listeners.append(lambda view: taken.append(view.action_name))
    stage.down(pygame.K_UP)
    steps(stage, 2)
    stage.up(pygame.K_UP)
    steps(stage, 1)
    assert taken == ["RIGHT", "RIGHT", "NOOP"]


def test_nothing_is_held_once_the_window_loses_the_keyboard(stage):
    stage.down(pygame.K_UP)
    stage.turn()
    pygame.event.post(Event(pygame.WINDOWFOCUSLOST))
    steps(stage, 1)
    assert stage.view.action_name == "NOOP"


def test_a_chord_of_keys(stage):
    stage.down(pygame.K_a)
    stage.down(pygame.K_SPACE)
    steps(stage, 1)
    assert stage.view.action_name == "LEFTFIRE"


def test_dragging_on_the_timeline_goes_back_and_a_key_goes_on_from_there(stage):
    steps(stage, 6)
    frames = {stage.view.moment: stage.view.frame}
    pen, layout = stage.play.hands.seen
    bar = strip.bar_of(layout.strip, pen)
    places = [(strip.x_of(bar, moment, stage.now.marks) + 1, bar.centery) for moment in (5, 4, 2)]
    stage.mouse(pygame.MOUSEBUTTONDOWN, places[0])
    stage.mouse(pygame.MOUSEMOTION, places[1])
    stage.mouse(pygame.MOUSEMOTION, places[2])
    stage.settle()
    assert stage.view.moment == 2 and stage.view.paused and len(stage.now.marks) == 7
    stage.mouse(pygame.MOUSEMOTION, (bar.right, bar.centery))
    stage.settle()
    assert stage.view.moment == 6 and (stage.view.frame == frames[6]).all()
    stage.mouse(pygame.MOUSEMOTION, places[2])
    stage.mouse(pygame.MOUSEBUTTONUP, places[2])
    stage.settle()
    stage.tap(pygame.K_UP)
    stage.until(lambda: stage.view.moment > 2 and not stage.view.paused, "for time to go on")


def test_holding_the_comma_goes_back(stage):
    steps(stage, 5)
    stage.down(pygame.K_COMMA, ",")
    stage.until(lambda: stage.view.moment <= 2, "for going back")
    stage.up(pygame.K_COMMA)
    stage.settle()
    rest = stage.view.moment
    time.sleep(0.15)
    stage.turn()
    assert stage.view.moment == rest and stage.view.paused


def test_all_futures_and_a_click_on_one(stage):
    steps(stage, 2)
    stage.tap(pygame.K_f, "f")
    stage.until(lambda: stage.now.futures and stage.now.futures.frames.shape[1] == 15, "for the futures")
    futures = stage.now.futures.frames
    assert len(futures) == 6
    stage.click(stage.hot("branch", 3))
    assert stage.now.futures is None and stage.view.paused and stage.view.action_name == "LEFT"
    assert (stage.view.frame == futures[3, stage.view.moment - 3]).all()
    stage.tap(pygame.K_UP)
    stage.until(lambda: not stage.view.paused, "for time to go on")


def test_a_digit_takes_a_future_and_escape_none(stage):
    stage.tap(pygame.K_f, "f")
    stage.until(lambda: stage.now.futures and stage.now.futures.frames.shape[1], "for the futures")
    stage.tap(pygame.K_ESCAPE)
    assert stage.now.futures is None and stage.view.moment == 0 and stage.player.scene is stage.play
    stage.tap(pygame.K_f, "f")
    stage.until(lambda: stage.now.futures and stage.now.futures.frames.shape[1] == 15, "for the futures")
    stage.tap(pygame.K_2, "2")
    assert stage.view.action_name == "FIRE" and stage.view.paused
    stage.tap(pygame.K_TAB)
    assert stage.view.paused, "a key that does not play does not go on"
    stage.tap(pygame.K_UP)
    stage.until(lambda: not stage.view.paused, "for time to go on")


def test_painting_picking_and_taking_back(stage):
    steps(stage, 1)
    before = stage.view.frame.copy()
    stage.tap(pygame.K_b, "b")
    _, layout = stage.play.hands.seen
    box, side = layout.pictures[0], layout.pictures[0].width // 16
    stage.mouse(pygame.MOUSEBUTTONDOWN, (box.left + 4 * side + 1, box.top + 8 * side + 1))
    stage.mouse(pygame.MOUSEMOTION, (box.left + 10 * side + 1, box.top + 8 * side + 1))
    stage.mouse(pygame.MOUSEBUTTONUP, (box.left + 10 * side + 1, box.top + 8 * side + 1))
    stage.settle()
    assert (stage.view.frame[8, 4:11] == 255).all() and (stage.view.frame[0] == before[0]).all()
    stage.tap(pygame.K_z, "z")
    assert (stage.view.frame == before).all()
    # a long stroke is one stroke, and one that is taken back under way is over
    stage.mouse(pygame.MOUSEBUTTONDOWN, (box.left + 1, box.top + 1))
    for i in range(90):
        stage.mouse(pygame.MOUSEMOTION, (box.left + (1 + i % 2 * 14) * side + 1, box.top + 9 * side + 1))
    stage.settle()
    assert (stage.view.frame[9, 1:15] == 255).all()
    stage.tap(pygame.K_z, "z")
    stage.mouse(pygame.MOUSEMOTION, (box.left + 5 * side + 1, box.top + 5 * side + 1))
    stage.mouse(pygame.MOUSEBUTTONUP, (box.left + 5 * side + 1, box.top + 5 * side + 1))
    stage.settle()
    assert (stage.view.frame == before).all()
    for _ in range(2):
        stage.tap(pygame.K_F1)
    assert stage.view.paused, "it was not the help that stopped time"
    stage.click((box.left + 1, box.top + 1), button=3)
    assert stage.play.hands.brush.colour == tuple(before[0, 0])
    stage.tap(pygame.K_b, "b")
    stage.until(lambda: not stage.view.paused, "for the dream to go on")


def test_the_strip_remembers_what_happened(stage):
    """Added step by step it is the same as counted anew."""
    for key, letter in ((pygame.K_PERIOD, "."), (pygame.K_PERIOD, "."), (pygame.K_k, "k"), (pygame.K_PERIOD, "."),
                        (pygame.K_k, "k"), (pygame.K_BACKSPACE, ""), (pygame.K_PERIOD, "."), (pygame.K_l, "l"),
                        (pygame.K_COMMA, ","), (pygame.K_PERIOD, ".")):
        stage.tap(key, letter)
        marks, anew = stage.now.marks, Ribbon().of(stage.session.timeline)
        for name in ("rewards", "ends", "divergence", "lived"):
            assert np.array_equal(getattr(marks, name), getattr(anew, name), equal_nan=name == "divergence"), name
    facts = stage.session.timeline.facts()
    assert marks.lived.tolist() == [f.lived for f in facts] and marks.ends.sum() == 1 == facts[-1].game_number


def test_who_plays_and_the_speed(stage):
    seen = []
    for _ in range(4):
        stage.tap(pygame.K_h, "h")
        seen.append(stage.view.who)
    assert seen == ["help", "agent", "random", "you"]
    stage.tap(pygame.K_LEFTBRACKET, "[")
    stage.tap(pygame.K_LEFTBRACKET, "[")
    assert stage.now.settings.speed == 0.5
    stage.tap(pygame.K_RIGHTBRACKET, "]")
    assert stage.now.settings.speed == 0.75


def test_waking_up_falling_asleep_and_resync(stage):
    steps(stage, 3)
    stage.tap(pygame.K_k, "k")
    assert stage.view.awake and stage.view.show == "reality"
    steps(stage, 1)
    assert stage.view.lived and bool(stage.now.marks.lived[-1])
    stage.tap(pygame.K_k, "k")
    assert not stage.view.awake
    steps(stage, 2)
    stage.tap(pygame.K_l, "l")
    assert stage.view.age == 0 and (stage.view.frame == stage.view.reality).all()


def test_knobs_by_key_and_by_mouse(stage):
    stage.tap(pygame.K_m, "m")
    stage.tap(pygame.K_LEFT)
    assert stage.now.settings.steps == 2
    stage.tap(pygame.K_DOWN)
    stage.tap(pygame.K_RIGHT)
    assert stage.now.settings.order == 2
    stage.click(stage.hot("turn", "temperature", -1))
    assert stage.now.settings.temperature == 0.75
    stage.click(stage.hot("turn", "resync_every", 1))
    assert stage.now.settings.resync_every == 1


def test_a_wheel_turned_sideways_turns_no_knob(stage):
    stage.tap(pygame.K_m, "m")
    before = stage.now.settings
    for x, y in ((1, 0), (-1, 0), (0, 1)):
        assert stage.now.settings == before
        pygame.event.post(Event(pygame.MOUSEWHEEL, x=x, y=y, flipped=False))
        stage.settle()
    assert stage.now.settings.steps == before.steps + 1


def test_every_panel_can_be_drawn_in_every_view_and_size(stage):
    steps(stage, 3)
    for key in "nvmbg":
        stage.tap(getattr(pygame, f"K_{key}"), key)
        for size in ((640, 480), (1280, 800), (300, 200), (480, 900)):
            pygame.display.set_mode(size, pygame.RESIZABLE)
            for show in ("dream", "reality", "twin"):
                stage.game.ask("", lambda session, show=show: setattr(session, "show", show))
                stage.settle()
                stage.player.draw()
    steps(stage, 1)
    assert stage.now.values and stage.view.probabilities


def test_the_denoising_ends_with_the_frame(stage):
    steps(stage, 1)
    stage.tap(pygame.K_v, "v")
    assert len(stage.now.denoising) == 3 and (stage.now.denoising[-1] == stage.view.frame).all()


def test_the_window_may_be_resized(stage):
    pygame.display.set_mode((500, 700), pygame.RESIZABLE)
    pygame.event.post(Event(pygame.VIDEORESIZE, size=(500, 700), w=500, h=700))
    stage.turn()
    pen, layout = stage.play.hands.seen
    assert pen.size == (500, 700) and layout.pictures[0].width % 16 == 0
    assert pygame.Rect(0, 0, 500, 700).contains(layout.pictures[0])


def test_full_screen_and_back(stage):
    size = stage.window.surface.get_size()
    stage.tap(pygame.K_F11)
    assert stage.window.full and stage.window.surface.get_flags() & pygame.FULLSCREEN
    stage.tap(pygame.K_RETURN, mod=pygame.KMOD_LALT)
    assert not stage.window.full and stage.window.surface.get_size() == size


def test_another_key_fills_the_screen_in_play_over_the_futures_and_among_the_games(stage):
    stage.tap(pygame.K_F1)
    stage.click(stage.hot("rebind", "pause"))
    stage.tap(pygame.K_F11)
    assert stage.keyboard.keys["pause"] == ("f11",) and not stage.window.full
    stage.click(stage.hot("rebind", "fullscreen"))
    stage.tap(pygame.K_u, "u")
    stage.tap(pygame.K_F1)
    stage.tap(pygame.K_F11)
    assert not stage.window.full
    stage.tap(pygame.K_f, "f")
    stage.tap(pygame.K_u, "u")
    assert stage.window.full and stage.now.futures is not None
    stage.tap(pygame.K_ESCAPE)
    stage.tap(pygame.K_ESCAPE)
    stage.until(lambda: stage.player.scene is not stage.play, "for the games")
    for key in (pygame.K_F11, pygame.K_u):
        assert stage.window.full
        stage.tap(key)
    assert not stage.window.full


def test_hiding_all_but_the_picture(stage):
    stage.tap(pygame.K_F2)
    _, layout = stage.play.hands.seen
    assert layout.head.height == 0 and layout.pictures[0].height > 560
    stage.tap(pygame.K_ESCAPE)
    assert not stage.play.hands.bare and stage.player.scene is stage.play


def test_help_holds_time_and_gives_another_key(stage):
    stage.tap(pygame.K_p, "p")
    stage.tap(pygame.K_F1)
    assert stage.view.paused and stage.play.hands.help
    stage.click(stage.hot("rebind", "mind"))
    stage.tap(pygame.K_SPACE, " ")
    assert stage.play.hands.rebinding == "mind", "a key that plays cannot be had"
    stage.tap(pygame.K_LCTRL, mod=pygame.KMOD_LCTRL)
    assert stage.play.hands.rebinding == "mind", "nor one that a command never hears"
    stage.tap(pygame.K_j, "j")
    stage.tap(pygame.K_ESCAPE)
    stage.until(lambda: not stage.view.paused, "for time to go on")
    stage.tap(pygame.K_n, "n")
    assert not stage.play.hands.mind
    stage.tap(pygame.K_j, "j")
    assert stage.play.hands.mind
    assert type(stage.keyboard)().keys["mind"] == ("j",), "kept for the next time"


def test_the_agent_thinks_of_what_is_seen_also_while_time_stands_still(stage):
    steps(stage, 3)
    stage.tap(pygame.K_n, "n")
    stage.until(lambda: stage.view.probabilities is not None, "for the agent")
    then = stage.session.rewind_to(1).probabilities
    assert then is not None and tuple(then) != tuple(stage.view.probabilities)


def test_what_is_pressed_while_the_game_is_covered_is_not_played(stage):
    steps(stage, 3)
    stage.tap(pygame.K_COMMA, ",")
    controls, fire = stage.session.controls, {"instance_id": 0, "button": pygame.CONTROLLER_BUTTON_A}
    stage.tap(pygame.K_F1)
    stage.tap(pygame.K_SPACE, " ")
    assert not controls.active and not stage.play.hands.played
    stage.tap(pygame.K_F1)
    stage.tap(pygame.K_f, "f")
    pygame.event.post(Event(pygame.CONTROLLERBUTTONDOWN, fire))
    stage.settle()
    assert stage.now.futures is not None and stage.view.paused and not controls.active
    stage.tap(pygame.K_ESCAPE)
    pygame.event.post(Event(pygame.CONTROLLERBUTTONDOWN, fire))
    stage.until(lambda: not stage.view.paused, "for time to go on")


@pytest.mark.parametrize("key, letter, word", [(pygame.K_b, "b", "paint"), (pygame.K_v, "v", "drawn")])
def test_what_only_a_dream_has_is_refused_while_awake(stage, monkeypatch, key, letter, word):
    said, lines = [], Pen.lines
    monkeypatch.setattr(Pen, "lines", lambda pen, words, *a, **k: (said.append(words), lines(pen, words, *a, **k))[1])
    stage.tap(key, letter)
    steps(stage, 1)
    stage.tap(pygame.K_k, "k")
    assert stage.view.awake and any("You are awake" in words and word in words for words in said)
    stage.tap(key, letter)
    stage.game.ask("", lambda session: setattr(session, "paused", False))
    stage.tap(key, letter)
    assert not stage.play.hands.side and not stage.view.paused
    assert "you are awake" in stage.play._news and word in stage.play._news and stage.play._wrong


def test_how_to_play_stands_there_until_somebody_does(stage, monkeypatch):
    said, text = [], Pen.text
    monkeypatch.setattr(Pen, "text", lambda pen, words, *a, **k: (said.append(words), text(pen, words, *a, **k))[1])
    steps(stage, 2)
    assert any(words.endswith("→ move  ·  space fire") for words in said)
    stage.tap(pygame.K_RIGHT)
    said.clear()
    steps(stage, 2)
    assert said and not any("move" in words for words in said)


def test_another_key_plays(stage):
    stage.tap(pygame.K_F1)
    stage.click(stage.hot("rebind", "RIGHT"))
    stage.tap(pygame.K_p, "p")
    assert stage.play.hands.rebinding == "RIGHT", "it pauses already"
    stage.tap(pygame.K_j, "j")
    assert stage.play.hands.rebinding is None
    stage.tap(pygame.K_F1)
    stage.down(pygame.K_j, "j")
    steps(stage, 1)
    assert stage.view.action_name == "RIGHT" and type(stage.keyboard)().plays["j"] == "RIGHT"


def test_a_dream_is_saved_and_loaded(stage):
    steps(stage, 3)
    kept = stage.view.frame
    stage.tap(pygame.K_F5)
    assert "saved" in stage.view.message
    steps(stage, 2)
    stage.tap(pygame.K_F9)
    assert (stage.view.frame == kept).all()


def test_nothing_to_load_is_a_line(stage):
    stage.tap(pygame.K_F9)
    assert "F5" in stage.play._news and stage.play._wrong


def test_a_tape_is_recorded(stage, home):
    stage.tap(pygame.K_r, "r")
    steps(stage, 3)
    assert stage.view.recording == 3
    stage.tap(pygame.K_r, "r")
    assert stage.view.recording is None and len(list(home.rglob("*.tape"))) == 1


def test_a_tape_runs_on_where_it_cannot_be_written(stage, monkeypatch):
    def full(tape: object, path: Path) -> None:
        raise OSError(28, "No space left on device", str(path))

    stage.tap(pygame.K_r, "r")
    steps(stage, 3)
    monkeypatch.setattr("app.session.tapefile.save_tape", full)
    stage.tap(pygame.K_r, "r")
    assert stage.session.recorder is not None and stage.view.recording == 3 and stage.play._wrong


def test_no_tape_is_made_of_nothing(stage, home):
    stage.tap(pygame.K_r, "r")
    stage.tap(pygame.K_r, "r")
    assert "nothing was recorded" in stage.view.message and not list(home.rglob("*.tape"))


def test_a_tape_is_kept_elsewhere_where_its_folder_cannot_be_written(stage, home, monkeypatch, capsys):
    data_folder().parent.mkdir(parents=True)
    data_folder().write_text("a file where the folder should be")
    monkeypatch.setattr(tempfile, "tempdir", str(home))
    stage.tap(pygame.K_r, "r")
    steps(stage, 2)
    stage.player.close()
    kept, = home.rglob("*.tape")
    assert f"the tape is {kept}" in capsys.readouterr().err and len(load_tape(kept)) == 2


def test_what_went_wrong_on_leaving_is_seen_among_the_games(stage, monkeypatch):
    said, text = [], Pen.text
    monkeypatch.setattr(Pen, "text", lambda pen, words, *a, **k: (said.append(words), text(pen, words, *a, **k))[1])
    picker = Picker(stage.worker, entries, lambda _: stage.play, stage.keyboard, stage.pads, lambda: None)
    stage.until(lambda: (picker.update(), picker.entries)[1], "for the games")
    stage.worker.trouble = "the tape is elsewhere"
    picker.update()
    picker.draw(stage.play.hands.seen[0])
    assert "the tape is elsewhere" in said


@pytest.mark.parametrize("how", ["key", "mouse"])
def test_a_key_pressed_while_time_still_runs_back_does_not_stop_it_for_good(stage, how):
    steps(stage, 20)
    if how == "key":
        stage.down(pygame.K_COMMA, ",")
        stage.until(lambda: stage.view.moment < 18, "for time to run back")
        stage.tap(pygame.K_UP)
        then = stage.view.moment
        stage.until(lambda: stage.view.moment < then, "for it to run back further")
        stage.up(pygame.K_COMMA)
    else:
        bar = strip.bar_of(stage.play.hands.seen[1].strip, stage.play.hands.seen[0])
        stage.mouse(pygame.MOUSEBUTTONDOWN, (bar.right - 2, bar.centery))
        stage.settle()
        stage.tap(pygame.K_UP)
        stage.mouse(pygame.MOUSEMOTION, (bar.left + 2, bar.centery))
        stage.mouse(pygame.MOUSEBUTTONUP, (bar.left + 2, bar.centery))
    stage.settle()
    assert stage.view.paused
    stage.tap(pygame.K_UP)
    assert not stage.view.paused


def led(agent: Agent, world: World, number: int) -> Callable[[object], Session]:
    """Loads a session that a tape of so many steps leads."""
    def load(_: object) -> Session:
        session = Session(agent, world, game="Pong", controls=Controls(action_names("Pong")))
        session.start_tape()
        for _ in range(number):
            session.tick()
        session.follow(session.stop_tape())
        return session

    return load


def test_single_steps_stay_single_after_a_key_took_over_or_the_strip_was_held(pong_agent, pong_world, stages):
    stages.append(Stage(led(pong_agent, pong_world, 40)))
    stage = stages[-1].begin()
    stage.tap(pygame.K_UP)
    stage.until(lambda: stage.view.led is None, "for the person to take over")
    steps(stage, 1)
    stage.tap(pygame.K_UP)
    assert stage.view.paused
    stage.tap(pygame.K_p, "p")
    bar = strip.bar_of(stage.play.hands.seen[1].strip, stage.play.hands.seen[0])
    stage.mouse(pygame.MOUSEBUTTONDOWN, (bar.right - 2, bar.centery))
    stage.settle()
    stage.tap(pygame.K_UP)
    stage.play.hands.scrubber.target = stage.now.first + strip.step_at(bar, bar.right - 3, stage.now.marks)
    stage.mouse(pygame.MOUSEMOTION, (bar.right - 3, bar.centery))
    stage.settle()
    stage.mouse(pygame.MOUSEBUTTONUP, (bar.right - 3, bar.centery))
    stage.settle()
    steps(stage, 1)
    stage.tap(pygame.K_UP)
    assert stage.view.paused


def test_after_a_tape_is_over_a_key_plays_on(pong_agent, pong_world, stages):
    stages.append(Stage(led(pong_agent, pong_world, 3)))
    stage = stages[-1].begin()
    stage.until(lambda: stage.view.paused, "for the tape to be over")
    then = stage.view.moment
    stage.down(pygame.K_UP)
    stage.until(lambda: stage.view.moment > then, "for time to go on")


def test_another_key_where_settings_cannot_be_written_holds_for_now(stage):
    config_folder().parent.mkdir(parents=True)
    config_folder().write_text("a file where the folder should be")
    stage.tap(pygame.K_F1)
    stage.click(stage.hot("rebind", "reset"))
    stage.tap(pygame.K_x, "x")
    assert stage.keyboard.keys["reset"] == ("x",)
    assert "until the window is closed" in stage.play._news and stage.play._wrong


@pytest.mark.parametrize("game", ["gym:ALE/Pong-v5", "Pong"])
def test_files_of_any_game_have_a_name(home, game):
    path = named("dreams", game, ".safetensors")
    assert path.parent == data_folder() / "dreams" and path.name.startswith(as_file(game)) and "/" not in path.name
    path.touch()
    assert named("dreams", game, ".safetensors") != path, "of the same second"


def test_going_back_ends_with_its_key_whatever_else_is_held(stage):
    steps(stage, 3)
    stage.down(pygame.K_COMMA, ",")
    stage.until(lambda: stage.play.hands.busy, "for time to run back")
    pygame.event.post(Event(pygame.KEYUP, key=pygame.K_COMMA, unicode=",", mod=pygame.KMOD_LCTRL, scancode=0))
    stage.until(lambda: not stage.play.hands.busy, "for it to stop")


def test_a_tape_that_runs_is_kept_when_the_window_is_closed(stage, home):
    stage.tap(pygame.K_r, "r")
    steps(stage, 2)
    stage.player.close()
    assert len(list(home.rglob("*.tape"))) == 1


def test_escape_leads_back_to_the_games_and_the_session_is_let_go(stage):
    stage.tap(pygame.K_ESCAPE)
    stage.until(lambda: stage.player.scene is not stage.play and stage.game._session is None, "for the picker")


def test_leaving_joins_the_worker(stage):
    stage.tap(pygame.K_p, "p")
    pygame.event.post(Event(pygame.QUIT))
    stage.player.run()
    assert not stage.worker.alive and not pygame.display.get_init()


def test_a_step_that_fails_is_a_line_and_time_stands_still(stage, monkeypatch):
    def broken(*_):
        raise RuntimeError("the accelerator\nis gone")

    monkeypatch.setattr(stage.session.world, "step", broken)
    stage.tap(pygame.K_p, "p")
    stage.until(lambda: stage.play._news, "for the line")
    assert stage.play._news == "the accelerator is gone" and stage.session.paused
    monkeypatch.undo()
    steps(stage, 1)
    assert stage.view.moment == 1


def test_a_game_that_cannot_be_loaded(stages):
    def load(_):
        raise ValueError("no such world: choose another")

    stage = Stage(load)
    stages.append(stage)
    stage.until(lambda: stage.play._news, "for the line")
    assert "no such world" in stage.play._news
    stage.play._must_begin, stage.worker.trouble = True, "no such world"
    with pytest.raises(ValueError, match="no such world"):
        stage.turn()


def test_the_window_lives_while_something_loads(stages):
    """Turns go by, and something moves, while the worker is deep in a load."""
    loaded = threading.Event()

    def load(say):
        say("Reading the weights")
        loaded.wait(20)
        raise ValueError("enough")

    stage = Stage(load)
    stages.append(stage)
    stage.until(lambda: stage.worker.doing and stage.worker.doing.words == "Reading the weights", "for the load")
    middle = stage.window.surface.get_height() // 2
    lines = set()
    for _ in range(10):
        stage.player.turn()
        lines.add(pygame.surfarray.array3d(stage.window.surface)[:, middle - 20:middle + 20].tobytes())
    assert len(lines) > 5
    loaded.set()


def test_taps_of_twenty_milliseconds_and_their_latency(pong_agent, pong_world, stages):
    """With the real clock: each tap becomes a step, soon."""
    def load(_):
        return Session(pong_agent, pong_world, game="Pong", controls=Controls(action_names("Pong")))

    stage = Stage(load).begin()
    stages.append(stage)
    seen = []
    stage.session.listeners.append(seen.append)
    stage.until(lambda: len(seen) > 15, "for a second of play")
    seen.clear()
    number, pause, rng = 12, threading.Event(), np.random.default_rng(0)

    def person():
        for _ in range(number):
            stage.down(pygame.K_UP)
            pause.wait(0.02)
            stage.up(pygame.K_UP)
            pause.wait(0.1 + rng.uniform(0, 0.07))

    fingers = threading.Thread(target=person)
    fingers.start()
    while fingers.is_alive():
        stage.player.turn()
    stage.until(lambda: stage.view.action_name == "NOOP", "for the last one")
    assert [view.action_name for view in seen].count("RIGHT") == number
    late = [view.latency for view in seen if view.action_name == "RIGHT"]
    dreamt = float(np.median([view.milliseconds for view in seen])) / 1000
    # at worst a tap comes just after a step was begun: that one, a beat, and its own
    assert np.median(late) < 1 / 15 + 3 * dreamt + 0.05
    print(f"key to frame: median {np.median(late) * 1000:.0f} ms, most {max(late) * 1000:.0f} ms; a step "
          f"{dreamt * 1000:.0f} ms, {stage.view.rate:.1f} a second; to the screen {stage.play._drawing * 1000:.1f} ms")


def test_a_game_that_is_left_looks_for_no_engine_any_more():
    stopped = []
    worker = Worker()
    game = Game(worker, "x", lambda say: pytest.fail("not here"))
    game._session = SimpleNamespace(search=SimpleNamespace(stop=lambda: stopped.append(True)), recorder=None)
    game.close()
    worker.close()
    assert stopped == [True]

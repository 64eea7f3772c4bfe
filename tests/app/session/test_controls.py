"""Keys become actions: nothing that was pressed is lost, chords are the largest that fit, the newer direction wins."""

from __future__ import annotations

import pytest

from app.session.clock import FakeClock
from app.session.controls import Controls, load_keymap, save_keymap
from diamond_core.envs import action_names

ALL = action_names("Seaquest")


def controls(names: list[str] = ALL, **options: object) -> Controls:
    return Controls(names, **options)


def take(c: Controls) -> str | None:
    action, _ = c.take()
    return None if action is None else c.action_names[action]


@pytest.mark.parametrize("keys, action", [
    (["up"], "UP"), (["w"], "UP"), (["up", "right"], "UPRIGHT"), (["space", "a", "s"], "DOWNLEFTFIRE"),
    (["space"], "FIRE"), (["UP", "D", "space"], "UPRIGHTFIRE"), (["x"], None), ([], None)])
def test_chords(keys, action):
    c = controls()
    for key in keys:
        c.press(key)
    assert take(c) == action


@pytest.mark.parametrize("game, keys, action", [
    ("Pong", ["up"], "RIGHT"), ("Pong", ["down", "space"], "LEFTFIRE"), ("Pong", ["right"], "RIGHT"),
    ("Breakout", ["left", "space"], "FIRE"), ("MsPacman", ["space", "up", "left"], "UPLEFT"), ("toy", ["d"], "RIGHT"),
    ("toy", ["space"], "NOOP")])
def test_the_largest_chord_that_the_game_has(game, keys, action):
    c = controls(action_names(game))
    for key in reversed(keys):
        c.press(key)
    assert take(c) == action


def test_a_held_key_goes_on_and_a_released_one_stops():
    c = controls()
    c.press("left")
    assert [take(c), take(c)] == ["LEFT", "LEFT"]
    c.release("left")
    assert take(c) is None


def test_two_keys_of_one_button():
    c = controls()
    c.press("up")
    c.press("w")
    c.release("up")
    assert take(c) == "UP"


def test_a_short_tap_is_taken_once():
    c = controls()
    c.press("space")
    c.release("space")
    assert [take(c), take(c)] == ["FIRE", None]


def test_taps_that_no_action_has_together_are_taken_one_after_the_other():
    c = controls(action_names("Breakout"))
    for key in ("space", "left"):
        c.press(key)
        c.release(key)
    assert [take(c), take(c), take(c)] == ["FIRE", "LEFT", None]
    c = controls(["A", "B", "C", "D"])
    for key in ("3", "1"):
        c.press(key)
        c.release(key)
    assert [take(c), take(c), take(c)] == ["D", "B", None]


def test_a_tap_waits_for_one_step_at_most_whatever_is_held():
    c = controls(action_names("Assault"))
    for key in ("space", "left"):
        c.press(key)
    assert take(c) == "LEFTFIRE"
    c.press("up")
    c.release("up")
    assert [take(c), take(c), take(c)] == ["LEFTFIRE", "UP", "LEFTFIRE"] and not c.pressed


def test_a_button_that_no_action_has_alone_does_not_wait_for_ever():
    c = controls(["NOOP", "UP", "DOWN", "RIGHTFIRE"])
    c.press("space")
    c.release("space")
    assert take(c) == "NOOP" and not c.active


def test_the_newer_of_two_directions_wins_and_the_older_returns():
    c = controls()
    c.press("left")
    take(c)
    c.press("right")
    assert take(c) == "RIGHT"
    c.release("right")
    assert take(c) == "LEFT"


def test_two_taps_in_one_step_are_two_steps():
    c = controls()
    for key in ("left", "right", "left"):
        c.press(key)
        c.release(key)
    assert [take(c) for _ in range(4)] == ["LEFT", "RIGHT", "LEFT", None]


def test_a_burst_does_not_pile_up():
    c = controls()
    for _ in range(50):
        c.press("space")
        c.release("space")
    assert [take(c) for _ in range(5)] == ["FIRE"] * 4 + [None]


def test_taps_of_20_ms_are_never_lost():
    """A tap every 90 ms, at every offset from the beat: each shows up in exactly one step."""
    clock = FakeClock()
    c = controls(clock=clock)
    taps = [(i * 0.090, i * 0.090 + 0.020) for i in range(200)]
    events = sorted([(t, "press") for t, _ in taps] + [(t, "release") for _, t in taps])
    seen, beat = 0, 0
    while beat < 300:
        beat += 1
        while events and events[0][0] <= beat / 15:
            time, kind = events.pop(0)
            clock.advance(time - clock.now())
            getattr(c, kind)("space")
        clock.advance(beat / 15 - clock.now())
        seen += take(c) == "FIRE"
    assert seen == 200


def test_the_earliest_press_is_told_once():
    clock = FakeClock(5)
    c = controls(clock=clock)
    c.press("up")
    clock.advance(0.01)
    c.press("space")
    assert c.take()[1] == 5
    assert c.take()[1] is None


def test_a_repeat_of_a_held_key_says_nothing():
    c = controls()
    c.press("up")
    c.take()
    c.press("up")
    assert c.take()[1] is None


def test_release_all():
    c = controls()
    c.press("up")
    c.release_all()
    assert take(c) is None and not c.active


def test_by_number():
    names = ["ACTION 0", "ACTION 1", "ACTION 2"]
    c = controls(names)
    for key, action in (("left", 0), ("right", 2), ("1", 1), ("7", None), ("up", None)):
        c.press(key)
        assert c.take()[0] == action
        c.release(key)
    assert c.idle_action == 1 and controls(names[:2]).idle_action is None and controls(ALL).idle_action == 0


def test_keys_can_be_changed_kept_and_read_again(tmp_path):
    keymap = {"J": "LEFT", "l": "RIGHT", "k": "FIRE"}
    save_keymap(tmp_path / "deep" / "keys.json", keymap)
    c = controls(keymap=load_keymap(tmp_path / "deep" / "keys.json"))
    c.press("j")
    c.press("up")
    assert take(c) == "LEFT"


@pytest.mark.parametrize("text", ["[]", '{"a": 1}', '{"a": "JUMP"}', "nonsense", "\xff"])
def test_a_file_that_is_no_keymap(tmp_path, text):
    path = tmp_path / "keys.json"
    path.write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=r"keymap|expected UP"):
        load_keymap(path)

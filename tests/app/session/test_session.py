"""A session under a fake clock: play in two worlds, time turned back, forks, paint and knobs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from app.session.film import verify
from app.session.saved import require_fit
from app.session.session import Session
from app.session.twin import Likeness
from app.session.view import View
from diamond_core.envs import Emulator, Tick
from diamond_core.pixels import to_hwc
from tests.app.session.conftest import Build, ToldWorld, play, with_random_weights
from tests.conftest import SMALL


def same(a: list[View], b: list[View]) -> bool:
    return all(np.array_equal(x.frame, y.frame) and x.total == y.total for x, y in zip(a, b, strict=True))


def test_play_is_the_pure_function_of_start_and_actions(session: Session, pong_world: ToldWorld):
    dream = session.dream
    views = play(session, "uud.f")
    assert [view.action_name for view in views] == ["RIGHT", "RIGHT", "LEFT", "NOOP", "FIRE"]
    for view in views:
        step = pong_world.step(dream, torch.tensor([view.action]))
        dream = step.state
        np.testing.assert_array_equal(view.frame, to_hwc(step.frames[0]))
        assert view.reward == float(step.rewards)
    assert session.view.age == session.view.played == 5


def test_real_games_wait_as_the_worlds_did(build: Build, pong_world: ToldWorld, clock):
    alike = with_random_weights(replace(SMALL, noop_max=1))
    waits = [session.real.trail().noops for seed in range(5)
             for session in (build(seed=seed), Session(alike, pong_world, game="Pong", clock=clock, seed=seed))]
    assert waits[1::2] == [0] * 5 and max(waits[::2]) > 4


def test_reality_takes_the_same_actions(session: Session):
    trail = session.real.trail()
    views = play(session, "uuddf")
    emulator = Emulator("Pong", image_size=(16, 16))
    emulator.restore(trail)
    for view in views:
        tick = emulator.step(view.action)
        np.testing.assert_array_equal(view.reality, to_hwc(tick.frame))
    np.testing.assert_array_equal(session.view.screen, emulator.screen())


def test_a_dream_begins_where_reality_stands(session: Session):
    np.testing.assert_array_equal(session.view.frame, session.view.reality)
    frames, actions = session.real.context()
    assert torch.equal(session.dream.frames, frames) and torch.equal(session.dream.actions[:, :-1], actions)
    assert session.view.psnr == 60 and session.view.steps_agreed == 0


def test_a_dream_behind_a_lost_life_begins_with_it(session: Session, monkeypatch):
    """What came before is another episode to the reward model."""
    monkeypatch.setattr(type(session.real), "since", 2)
    begun = []
    start = session.world.start
    monkeypatch.setattr(session.world, "start", lambda *args: begun.append(args[3]) or start(*args))
    play(session, "uu")
    session.resync()
    assert begun == [2]


def test_wake_up_lands_where_the_same_actions_led(session: Session):
    views = play(session, "uudd")
    view = session.wake_up()
    assert view.awake and view.show == "reality"
    np.testing.assert_array_equal(view.reality, views[-1].reality)
    trail = session.real.trail()
    later = play(session, "uf")
    assert session.real.trail().actions == (*trail.actions, later[0].action, later[1].action)
    # the dream does not move while one is awake
    np.testing.assert_array_equal(later[-1].frame, views[-1].frame)


def test_falling_asleep_dreams_on_from_reality(session: Session):
    play(session, "uu")
    session.wake_up()
    awake = play(session, "dd")[-1]
    view = session.fall_asleep()
    assert not view.awake and view.show == "dream"
    np.testing.assert_array_equal(view.frame, awake.reality)
    assert play(session, "u")[-1].age == 1


def test_rewinding_and_the_same_actions_give_the_same_frames(session: Session):
    first = play(session, "uuddf.uudd")
    session.rewind_to(first[4].moment)
    np.testing.assert_array_equal(session.view.frame, first[4].frame)
    np.testing.assert_array_equal(session.view.reality, first[4].reality)
    again = play(session, ".uudd")
    assert same(first[5:], again)
    assert all(np.array_equal(a.reality, b.reality) for a, b in zip(first[5:], again, strict=True))
    assert again[-1].moment == first[-1].moment


def test_the_timeline_knows_every_value(session: Session):
    values = [session.dream]
    for letter in "uud.fu":
        play(session, letter)
        values.append(session.dream)
    for number, value in enumerate(values):
        kept = session.timeline.state(number)
        assert all(torch.equal(x, y) for x, y in zip(kept.tensors().values(), value.tensors().values(), strict=True))


def test_who_wakes_up_over_a_fan_and_takes_a_branch_sees_the_dream(session: Session):
    fan = session.fan_out(0.2)
    session.wake_up()
    session.fan = fan
    view = session.take_branch(3)
    assert not view.awake and view.show == "dream"
    np.testing.assert_array_equal(view.frame, fan.frames[3, -1])


def test_a_branch_taken_is_what_the_thumbnails_showed(session: Session):
    play(session, "uu")
    trail = session.real.trail().actions
    fan = session.fan_out(0.4)
    assert fan.frames.shape == (6, 6, 16, 16, 3) and session.paused
    assert not np.array_equal(fan.frames[2], fan.frames[3])
    view = session.take_branch(3)
    np.testing.assert_array_equal(view.frame, fan.frames[3, -1])
    for back in range(6):
        np.testing.assert_array_equal(session.timeline.picture(view.moment - back), fan.frames[3, 5 - back])
    assert session.real.trail().actions == (*trail, *[3] * 6) and view.age == 8


@pytest.mark.parametrize("go_on", [lambda s: setattr(s, "paused", False), lambda s: s.step_once()])
def test_futures_are_forgotten_when_time_goes_on(session: Session, pong_world: ToldWorld, go_on):
    session.start_tape()
    play(session, "uu")
    fan = session.open_fan(0.4)
    play(session, ".")
    assert session.grow_fan() is fan
    go_on(session)
    play(session, ".")
    assert session.fan is None
    with pytest.raises(ValueError, match="no fan is open"):
        session.take_branch(3)
    assert verify(session.stop_tape(), pong_world).first_difference is None


def test_a_branch_taken_is_not_cut_by_a_routine_resync(session: Session, pong_world: ToldWorld):
    session.resync_every = 4
    play(session, "uu")
    session.start_tape()
    fan = session.fan_out(0.4)
    view = session.take_branch(3)
    assert view.age == 8 and torch.equal(session.timeline.state(view.moment).frames, session.dream.frames)
    np.testing.assert_array_equal(session.timeline.picture(view.moment), fan.frames[3, -1])
    assert verify(session.recorder.tape(), pong_world).first_difference is None
    session.paused = False
    play(session, "u")
    assert session.view.age == 0


def test_a_branch_taken_in_the_moment_of_an_end_goes_all_its_way(session: Session, pong_world: ToldWorld):
    play(session, "..")
    pong_world.over = frozenset({3})
    assert play(session, ".")[-1].over
    pong_world.over = frozenset()
    fan = session.fan_out(1.0)
    view = session.take_branch(2)
    assert (view.moment, view.over) == (3 + fan.length, False)
    np.testing.assert_array_equal(view.frame, fan.frames[2, -1])


def test_a_branch_taken_behind_a_horizon_begins_there(session: Session):
    session.horizon = 3
    assert play(session, "...")[-1].over
    session.horizon = 30
    fan = session.fan_out(1.0)
    view = session.take_branch(2)
    assert (view.moment, view.age, view.over) == (3 + fan.length, fan.length, False)


def test_a_branch_taken_while_a_tape_leads_is_the_persons(session: Session, build: Build):
    session.start_tape()
    play(session, "ud" * 20)
    other = build(seed=5)
    other.follow(session.stop_tape())
    play(other, "....")
    other.fan_out(0.3)
    assert other.view.led is not None and other.take_branch(2).led is None
    other.paused = False
    assert "differs" not in play(other, "u")[-1].message


def test_the_dream_goes_on_from_a_painted_frame(session: Session, pong_world: ToldWorld):
    play(session, "uu")
    before = session.dream
    view = session.paint([(5, 3)], 1, (200, 10, 30))
    assert view.paused and tuple(view.frame[3, 5]) == (200, 10, 30) and tuple(view.frame[2, 5]) == (200, 10, 30)
    assert (view.frame != to_hwc(before.frames[0, -1])).any(-1).sum() <= 5
    expected = pong_world.step(session.dream, torch.tensor([0])).frames
    session.paused = False
    np.testing.assert_array_equal(play(session, ".")[-1].frame, to_hwc(expected[0]))
    assert not torch.equal(expected, pong_world.step(before, torch.tensor([0])).frames)


def test_a_stroke_has_no_gaps(session: Session):
    before = play(session, "u")[-1].frame
    rows, columns = (session.paint([(0, 0), (7, 3), (7, 9)], 0, (1, 2, 3)).frame != before).any(-1).nonzero()
    drawn = set(zip(columns.tolist(), rows.tolist(), strict=True))
    assert {(0, 0), (7, 3), (7, 9)} <= drawn and {c for c, _ in drawn} == set(range(8))
    assert {r for _, r in drawn} == set(range(10)) and len(drawn) <= 20
    session.paint([(7, 9), (3, 9)], 0, (1, 2, 3), new=False)
    np.testing.assert_array_equal(session.paint_undo().frame, before)


def test_strokes_are_taken_back_one_by_one(session: Session):
    frame = play(session, "u")[-1].frame
    first = session.paint([(5, 3)], 0, (1, 2, 3)).frame
    session.paint([(9, 9)], 2, (4, 5, 6), deep=True)
    assert (session.dream.frames[0, :, 0, 9, 9] == 4).all()
    np.testing.assert_array_equal(session.paint_undo().frame, first)
    np.testing.assert_array_equal(session.paint_undo().frame, frame)
    np.testing.assert_array_equal(session.paint_undo().frame, frame)


def test_paused_single_step_and_on(session: Session):
    session.paused = True
    assert [view.age for view in play(session, "uu")] == [0, 0]
    session.step_once()
    assert [view.age for view in play(session, "uu")] == [1, 1]
    session.paused = False
    assert play(session, "u")[-1].age == 2


@pytest.mark.parametrize("show", ["reality", "twin", "dream"])
def test_views_cycle_and_both_worlds_go_on(session: Session, show: str):
    while session.show != show:
        session.cycle()
    view = play(session, "uuu")[-1]
    assert view.show == show and view.age == 3 and view.reality is not None and view.psnr is not None


def test_resync_every_step_is_always_true(session: Session):
    session.resync_every = 1
    for view in play(session, "uudd"):
        frames, _ = session.real.context()
        assert torch.equal(session.dream.frames, frames)
        assert not np.array_equal(view.frame, view.reality)
        assert session.timeline.picture(view.moment).tolist() == view.frame.tolist()


def test_one_key_resyncs(session: Session):
    play(session, "uudd")
    view = session.resync()
    np.testing.assert_array_equal(view.frame, view.reality)
    assert view.age == 0 and view.total == view.reality_total


def test_knobs_reach_the_sampler(session: Session, pong_world: ToldWorld):
    session.set_knobs(steps=5, order=2, churn=1.0, temperature=0.5)
    play(session, "u")
    c = pong_world.sampler
    assert (c.num_steps, c.order, c.s_churn, c.temperature) == (5, 2, 1.0, 0.5)
    assert session.view.steps == 5
    assert len(session.denoising()) == 5
    with pytest.raises(ValueError, match="1 to 50"):
        session.set_knobs(steps=51)
    with pytest.raises(ValueError, match="no knob is called colour"):
        session.set_knobs(colour=1)


def test_another_seed_is_another_dream(build: Build):
    a, b = build(), build()
    assert same(play(a, "u"), play(b, "u"))
    b.set_knobs(seed=4)
    assert not same(play(a, "u"), play(b, "u"))


def test_denoising_ends_in_the_frame(session: Session):
    assert session.denoising() == []
    view = play(session, "u")[-1]
    guesses = session.denoising()
    assert len(guesses) == 3
    np.testing.assert_array_equal(guesses[-1], view.frame)
    session.set_knobs(steps=2, temperature=0.5)
    guesses = session.denoising()
    assert len(guesses) == 3 == session.drawn_by.num_steps
    np.testing.assert_array_equal(guesses[-1], view.frame)


@pytest.mark.parametrize("who", ["agent", "random"])
def test_others_play_and_give_the_controls_back(session: Session, who: str):
    play(session, "uu")
    session.who = who
    actions = {view.action for view in play(session, "." * 30)}
    assert len(actions) > 2 and session.view.age == 32
    session.who = "you"
    assert play(session, "d")[-1].action_name == "LEFT"


def test_the_agent_helps_who_is_idle_for_a_second(session: Session):
    session.who = "help"
    assert not any(v.helping for v in play(session, "u" + "." * 13))
    assert all(v.helping for v in play(session, "." * 5)[2:])
    view = play(session, "d")[-1]
    assert not view.helping and view.action_name == "LEFT"


def test_the_mind_is_there_as_soon_as_it_is_wanted(session: Session):
    play(session, "u")
    session.paused = True
    session.mind_wanted = True
    assert session.view.probabilities is not None and session.view.value is not None
    session.mind_wanted = False
    assert session.view.probabilities is None and session.view.value is None


def test_the_mind_is_read_only_when_wanted(session: Session):
    assert play(session, "u")[-1].probabilities is None
    session.mind_wanted = True
    view = play(session, "u")[-1]
    assert sum(view.probabilities) == pytest.approx(1) and isinstance(view.value, float)


def test_latency_is_from_key_to_frame(session: Session):
    session.controls.press("up")
    session.clock.advance(0.03)
    assert session.tick().latency == pytest.approx(0.03)


def test_a_key_pressed_while_time_stood_still_was_not_late(session: Session):
    session.paused = True
    session.controls.press("up")
    session.clock.advance(5.0)
    session.paused = False
    session.clock.advance(0.03)
    assert session.tick().latency == pytest.approx(0.03)


def test_an_ended_dream_is_held_and_then_another_of_reality_begins(session: Session, pong_world: ToldWorld):
    pong_world.over = frozenset({3})
    views = play(session, "u" * 3)
    assert views[-1].over and views[-1].end and "next key" in views[-1].message
    held = play(session, "." * 5)
    assert all(np.array_equal(view.frame, views[-1].frame) and view.over for view in held)
    real = session.real.trail()
    fresh = play(session, "u")[-1]
    assert not fresh.over and fresh.age == 0 and session.real.trail() == real
    np.testing.assert_array_equal(fresh.frame, fresh.reality)
    assert play(session, "u")[-1].age == 1
    assert session.timeline[views[-1].moment].facts.end


def test_an_ended_dream_goes_on_by_itself(session: Session, pong_world: ToldWorld):
    pong_world.over = frozenset({1})
    views = play(session, "u" + "." * 20)
    held = [view.moment for view in views].count(views[0].moment)
    assert 14 <= held <= 17 and views[-1].moment > views[0].moment


def test_a_horizon_ends_a_dream(session: Session):
    session.horizon = 4
    views = play(session, "uuuu")
    assert [view.over for view in views] == [False] * 3 + [True] and "horizon of 4" in views[-1].message


def test_reset_begins_another_game_and_a_seed_the_same_one(build: Build):
    session = build()
    first = session.view.frame
    play(session, "uuu")
    assert session.reset().age == 0
    assert session.real.trail() != build().real.trail()
    np.testing.assert_array_equal(session.reset(seed=0).frame, first)


def test_saved_and_loaded(session: Session, build: Build, tmp_path):
    play(session, "uud")
    session.save(tmp_path / "one.dream")
    expected = play(session, "uf")
    other = build(seed=9)
    play(other, "d")
    view = other.load(tmp_path / "one.dream")
    assert view.age == 3
    again = play(other, "uf")
    assert all(np.array_equal(a.frame, b.frame) for a, b in zip(expected, again, strict=True))
    assert all(np.array_equal(a.reality, b.reality) for a, b in zip(expected, again, strict=True))


def test_a_dream_that_cannot_be_written_whole_leaves_nothing(session: Session, tmp_path, monkeypatch):
    session.save(tmp_path / "a.safetensors")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space"):
        session.save(tmp_path / "b.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_file_that_is_no_dream_is_refused(session: Session, tmp_path):
    (tmp_path / "x").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
    with pytest.raises(ValueError, match="no saved dream"):
        session.load(tmp_path / "x")


def test_a_world_without_reality_says_so(small_agent, small_world, clock):
    session = Session(small_agent, small_world, game="toy", clock=clock)
    assert session.view.reality is None and session.view.psnr is None
    session.show = "twin"
    assert session.show == "dream" and "only Atari games" in session.view.message
    assert "no reality" in session.wake_up().message and "no reality" in session.resync().message
    clock.advance(3)
    assert session.tick().message == ""


def test_listeners_hear_every_step(session: Session):
    heard: list[View] = []
    session.listeners.append(heard.append)
    views = play(session, "uu")
    session.paused = True
    play(session, "u")
    assert heard == views
    fan = session.fan_out(0.4)
    session.take_branch(3)
    np.testing.assert_array_equal([view.frame for view in heard[2:]], fan.frames[3])


def end_reality(session: Session) -> None:
    """The real game is over at its next step."""
    emulator = session.real._emulator

    def last(action: int) -> Tick:
        del emulator.step
        return emulator.step(action)._replace(end=True)

    emulator.step = last


def test_a_dream_goes_on_when_reality_is_over(session: Session):
    play(session, "u")
    end_reality(session)
    view = play(session, "u")[-1]
    assert view.reality_end and not view.over and "the dream goes on" in view.message
    later = play(session, "uu")
    assert later[-1].age == 4 and later[-1].psnr is None
    assert "nothing to begin from" in session.resync().message
    woken = session.wake_up()
    assert woken.awake and woken.age == 0 and not session.real.over and "a new one" in woken.message


def test_an_ended_reality_is_held_and_then_a_new_game_begins(session: Session):
    session.wake_up()
    end_reality(session)
    view = play(session, "u")[-1]
    assert view.over and view.awake and "game is over" in view.message
    game = view.game_number
    fresh = play(session, "u")[-1]
    assert fresh.awake and fresh.game_number == game + 1 and not fresh.over


def test_going_back_to_when_one_was_awake(session: Session):
    play(session, "uu")
    session.wake_up()
    awake = play(session, "dd")[-1]
    session.fall_asleep()
    play(session, "uu")
    view = session.rewind_to(awake.moment - 1)
    assert view.awake and view.show == "reality"
    again = play(session, "d")[-1]
    np.testing.assert_array_equal(again.reality, awake.reality)
    assert not session.rewind_to(1).awake and session.show == "dream"


def test_the_emulator_follows_in_the_background_while_paused(session: Session):
    views = play(session, "uudd" * 3)
    session.paused = True
    view = session.rewind_to(5)
    assert session.real.behind and not session.resting
    np.testing.assert_array_equal(view.reality, views[4].reality)
    play(session, "." * 20)
    assert not session.real.behind
    np.testing.assert_array_equal(session.view.reality, views[4].reality)
    np.testing.assert_array_equal(session.view.screen, session.real.screen)


def test_agreement_counts_until_the_first_difference(session: Session, monkeypatch):
    alike = iter([Likeness(45, 1), Likeness(31, 0.9, 50), Likeness(35, 0.9, 90), Likeness(50, 1), Likeness(50, 1)])
    monkeypatch.setattr("app.session.stage.compare", lambda dream, reality: next(alike))
    step = session.world.step
    session.world.step = lambda *args: step(*args)._replace(rewards=torch.zeros(1))
    views = play(session, "udud")
    assert [view.steps_agreed for view in views] == [1, 2, 2, 2] and views[-1].agreement
    assert session.resync().steps_agreed == 0
    assert play(session, "u")[-1].steps_agreed == 1


def test_rewards_and_ends_must_agree_too(session: Session, monkeypatch):
    monkeypatch.setattr("app.session.stage.compare", lambda dream, reality: Likeness(60, 1))
    step = session.world.step
    rewards = iter([0.0, 1.0, 0.0])
    session.world.step = lambda *args: step(*args)._replace(rewards=torch.tensor([next(rewards)]))
    views = play(session, "uuu")
    assert [view.agreement for view in views] == [True, False, False]
    assert [view.steps_agreed for view in views] == [1, 1, 1] and session.view.total == 1


def test_what_cannot_be_is_refused(session: Session):
    for name, value in (("who", "cat"), ("show", "sideways")):
        with pytest.raises(ValueError, match="must be"):
            setattr(session, name, value)
    with pytest.raises(ValueError, match="fan out first"):
        session.take_branch(0)
    session.open_fan(0.1)
    with pytest.raises(ValueError, match="fan out first"):
        session.take_branch(0)
    session.grow_fan()
    with pytest.raises(ValueError, match="from 0 to 5"):
        session.take_branch(6)


def test_speed_is_bounded_and_moves_the_pacer(session: Session):
    session.speed = 100
    assert session.speed == 4 and session.pacer.period == pytest.approx(1 / 60)


def test_auto_steps_give_way_to_a_slow_machine(session: Session):
    session.set_knobs(steps="auto")
    for _ in range(40):
        ask = session.ask()
        session.answer(session.world.step(ask.state, torch.tensor([ask.action])), seconds=0.1)
    assert session.view.steps == 1 == session.sampler.num_steps


def test_a_loaded_dream_of_other_weights_says_so(session: Session, build: Build, tmp_path):
    session.save(tmp_path / "one.dream")
    other = build(reality=False)
    other.game = "Breakout"
    with pytest.raises(ValueError, match="this is Breakout"):
        other.load(tmp_path / "one.dream")


def test_a_dream_of_another_size_is_refused(session: Session):
    state = session.dream
    with pytest.raises(ValueError, match="frames is"):
        require_fit(replace(state, frames=state.frames[..., :8]), state)
    with pytest.raises(ValueError, match="damaged"):
        require_fit(replace(state, hx=state.hx * float("nan")), state)

"""Tapes: played again bit for bit, whatever was done to time; files with strict bounds; films that carry one."""

from __future__ import annotations

import copy
import struct
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
import zstandard

from app.session import tapefile
from app.session.clock import FakeClock
from app.session.film import Hud
from app.session.guide import Guide
from app.session.host import Host
from app.session.saved import MOST_ACTIONS
from app.session.session import Session
from app.session.tape import Tape, TapeError, pack_value, unpack_value
from app.session.tapefile import embed, extract, from_bytes, load_tape, save_tape, to_bytes, walk
from app.session.twin import Reality
from app.session.video import VideoWriter
from diamond_core.device import resolve
from diamond_core.pixels import to_hwc
from diamond_core.replay import Dataset, DatasetInfo
from diamond_core.training.agent import Agent
from diamond_core.world.dream import DreamState, DreamStep
from diamond_core.world.engine import TorchEngine
from tests.app.session.conftest import Build, RowWorld, ToldWorld, play, with_random_weights
from tests.conftest import EXACT, SMALL


def keys(n: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ud.f"), n))


def holds(tape: Tape, world: ToldWorld) -> bool:
    return all(tape.check(played) for played in tape.replay(world)) and len(tape) > 0


@pytest.fixture(scope="module")
def recorded(pong_agent: Agent) -> Tape:
    """Everything that a person can do to time, on one tape."""
    world = ToldWorld(pong_agent.denoiser, pong_agent.reward_end, SMALL.sampler, resolve(EXACT))
    session = Session(pong_agent, world, game="Pong", clock=FakeClock())
    session.start_tape()
    play(session, keys(12))
    session.paint([(4, 4)], 2, (255, 255, 255))
    session.paused = False
    play(session, keys(4))
    session.rewind_to(session.view.moment - 6)
    play(session, keys(5))
    session.fan_out(0.3)
    session.take_branch(2)
    session.paused = False
    session.set_knobs(steps=2, temperature=0.7)
    play(session, keys(3))
    session.set_knobs(seed=3)
    session.wake_up()
    play(session, keys(4))
    session.fall_asleep()
    play(session, keys(4))
    session.reset()
    play(session, keys(4))
    session.resync_every = 2
    play(session, keys(5))
    return session.stop_tape()


@pytest.fixture
def tape(recorded: Tape) -> Tape:
    return replace(recorded, actions=recorded.actions.copy())


def test_a_minute_is_played_again_bit_for_bit(pong_agent: Agent, clock: FakeClock):
    """900 steps of a stand-in for the network, which is slow here; the tests below have the real one."""
    world = RowWorld(pong_agent)
    session = Session(pong_agent, world, game="Pong", clock=clock, reality=False)
    start = session.dream
    session.start_tape()
    views = play(session, keys(900))
    tape = from_bytes(to_bytes(session.stop_tape()))
    assert len(tape) == 900 and len(to_bytes(tape)) < 60_000 and list(tape.values) == [0]
    assert torch.equal(tape.state(0, world).frames, start.frames)
    for view, played in zip(views, tape.replay(world), strict=True):
        np.testing.assert_array_equal(played.frame, view.frame)
        assert (played.reward, played.end, played.action) == (view.reward, view.end, view.action)
        assert tape.check(played)
    assert list(tape.stops) == [150, 300, 450, 600, 750]
    world.batches.clear()
    np.testing.assert_array_equal(to_hwc(tape.state(455, world).frames[0, -1]), views[454].frame)
    assert len(world.batches) == 5


def test_reality_is_played_along(session: Session, pong_world: ToldWorld):
    session.start_tape()
    views = play(session, keys(20))
    tape = session.stop_tape()
    for view, played in zip(views, tape.replay(pong_world, reality=True), strict=True):
        np.testing.assert_array_equal(played.reality, view.reality)
        assert (played.reality_reward, played.reality_end) == (view.reality_reward, view.reality_end)


def test_whatever_was_done_to_time_is_on_the_tape(tape: Tape, pong_world: ToldWorld):
    again = from_bytes(to_bytes(tape))
    assert holds(again, pong_world) and again.lived.sum() == 4
    assert sorted(again.mates.tolist())[-4:] == [6] * 4
    assert len(again.values) == 7 and len(again.samplers) == 2


def test_a_changed_action_is_noticed(tape: Tape, pong_world: ToldWorld):
    tape.actions[3] = (tape.actions[3] + 1) % 6
    assert not holds(tape, pong_world)


def test_other_weights_are_noticed(tape: Tape, small_world):
    world = ToldWorld(small_world.denoiser, small_world.reward_end, small_world.sampler, small_world.runtime)
    with pytest.raises(TapeError, match="6 actions, the world 3"):
        list(tape.replay(world))


def test_a_world_with_another_memory_is_refused(tape: Tape, pong_world: ToldWorld):
    denoiser = copy.copy(pong_world.denoiser)
    denoiser.config = replace(denoiser.config, num_conditioning_frames=8)
    world = ToldWorld(denoiser, pong_world.reward_end, SMALL.sampler, resolve(EXACT))
    with pytest.raises(TapeError, match="sees 4 frames, this one sees 8"):
        list(tape.replay(world))


def test_any_part_can_be_played(session: Session, pong_world: ToldWorld):
    session.start_tape()
    views = play(session, keys(30))
    tape = session.stop_tape()
    part = list(tape.replay(pong_world, 11, 14))
    assert [played.number for played in part] == [11, 12, 13]
    np.testing.assert_array_equal(part[0].frame, views[11].frame)
    with pytest.raises(TapeError, match="from 0 to 30"):
        list(tape.replay(pong_world, 11, 31))


def test_returns_are_those_that_the_player_saw(session: Session, build: Build, pong_world: ToldWorld, tmp_path):
    """They begin anew with a game, go back with time, and stand in replays, in films and where one goes on."""
    session.start_tape()
    views = play(session, keys(30))
    session.resync_every = 4
    views += play(session, keys(10))
    session.resync_every = 0
    session.rewind_to(session.view.moment - 7)
    views += play(session, keys(20, 1))
    session.reset()
    views += play(session, keys(15, 2))
    save_tape(session.stop_tape(), tmp_path / "x.tape")
    tape = load_tape(tmp_path / "x.tape")
    seen = [(view.total, view.reality_total) for view in views]
    assert len(set(seen)) > 10 and abs(seen[-1][0]) < abs(sum(view.reward for view in views))
    hud, shown = Hud(tape, "twin", 2), []
    for played in tape.replay(pong_world, reality=True):
        hud(played)
        shown.append((hud._total, hud._real_total))
    assert shown == seen
    other = build(seed=5)
    other.follow(tape)
    followed = [(view.total, view.reality_total) for view in play(other, "." * len(tape))]
    routine = {30, 34, 38}  # where another dream takes the place of one that stays in view
    assert [(i, x, y) for i, (x, y) in enumerate(zip(followed, seen, strict=True)) if x != y and i not in routine] == []
    for number in (20, 38, 45, 70, len(tape)):
        view = build(seed=5).go_on_from(tape, number)
        assert (view.total, view.reality_total) == seen[number - 1]


def test_a_tape_of_reality_alone_is_not_followed_but_told_of(session: Session, build: Build):
    session.wake_up()
    session.start_tape()
    play(session, keys(5))
    with pytest.raises(ValueError, match="nothing was dreamt on this tape"):
        build(seed=5).follow(session.stop_tape())


def test_an_older_tape_has_no_returns(tape: Tape):
    older = from_bytes(to_bytes(replace(tape, returns=None)))
    dreamt = older.rewards[:9][~older.lived[:9]].sum()
    assert older.returns is None and older.returns_before(9)[0] == dreamt and older.returns_before(0) == (0.0, 0.0)


def test_an_older_tape_goes_on_counting(session: Session, build: Build, monkeypatch):
    step = Reality.step
    monkeypatch.setattr(Reality, "step", lambda self, action: (step(self, action), vars(self).update(
        total=self.total + 1))[0]._replace(reward=1.0))
    session.start_tape()
    play(session, keys(10))
    session.rewind_to(session.view.moment - 4)
    play(session, keys(5))
    other = build(seed=5)
    other.follow(replace(session.stop_tape(), returns=None))
    totals = [view.reality_total for view in play(other, "." * 15)]
    assert totals == sorted(totals) and totals[-1] >= 15


def test_one_goes_on_from_any_step(session: Session, build: Build):
    session.start_tape()
    views = play(session, keys(20))
    tape = session.stop_tape()
    other = build(seed=5)
    view = other.go_on_from(tape, 12)
    np.testing.assert_array_equal(view.frame, views[11].frame)
    np.testing.assert_array_equal(view.reality, views[11].reality)
    again = play(other, keys(20)[12:])
    for a, b in zip(views[12:], again, strict=True):
        np.testing.assert_array_equal(a.frame, b.frame)
        np.testing.assert_array_equal(a.reality, b.reality)


def test_a_batch_of_others_is_played_again_in_a_batch(session: Session, build: Build, pong_world: ToldWorld):
    """Rounding may depend on the size of a batch; the tape knows it."""
    others = [build(seed=i) for i in range(1, 5)]
    session.start_tape()
    for _ in range(20):
        asks = [s.ask() for s in (session, *others)]
        pong_world.set_sampler(asks[0].sampler)
        state = type(asks[0].state).cat([ask.state for ask in asks])
        step = pong_world.step(state, torch.tensor([ask.action for ask in asks]))
        for row, s in enumerate((session, *others)):
            s.answer(step.row(row), 0.01, mates=5)
    tape = session.stop_tape()
    assert set(tape.mates.tolist()) == {5} and holds(tape, pong_world)


def test_a_world_that_rounds_by_the_size_of_its_batch(pong_agent: Agent, clock: FakeClock):
    class Rounding(RowWorld):
        def step(self, state: DreamState, actions: torch.Tensor) -> DreamStep:
            step = super().step(state, actions)
            frames = step.frames + len(actions)
            kept = torch.cat([step.state.frames[:, :-1], frames[:, None]], dim=1)
            return step._replace(frames=frames, state=replace(step.state, frames=kept))

    world, host = Rounding(pong_agent), Host(clock)
    sessions = [Session(pong_agent, world, game="Pong", seed=seed, clock=clock, reality=False) for seed in range(3)]
    sessions[1].start_tape()
    for n in (1, 2, 0):
        host.add(sessions[n], lambda view: None)
        for _ in range(4):
            host.round()
            clock.advance(1 / 15)
    sessions[1].fan_out(0.2)
    sessions[1].take_branch(4)
    tape = from_bytes(to_bytes(sessions[1].stop_tape()))
    assert tape.mates.tolist() == [1] * 4 + [2] * 4 + [3] * 4 + [6] * 3
    assert all(tape.check(played) for played in tape.replay(world))


def test_a_tape_is_followed_on_the_paths_it_was_dreamt_on(pong_agent: Agent, clock: FakeClock):
    class Other(TorchEngine):
        """Rounds otherwise."""

        def denoise(self, past, actions, sigmas):
            step = super().denoise(past, actions, sigmas)
            return lambda x, sigma: step(x, sigma) + 0.05

    def session() -> Session:
        return Session(pong_agent, pong_agent.world(runtime=EXACT), game="Pong", clock=clock, reality=False)

    recorded = session()
    other = Other(pong_agent.denoiser, pong_agent.reward_end, recorded.world.runtime)
    other.name = "other"
    recorded.start_tape()
    for engine in (recorded.world.engine, other, recorded.world.engine):
        recorded.world.engine = engine
        play(recorded, keys(4))
    tape = from_bytes(to_bytes(recorded.stop_tape()))
    assert list(tape.paths.values()) == [recorded.world.path, "other", recorded.world.path]
    for engines, first_difference in (({"other": other}, None), ({}, list(tape.paths)[1])):
        led = session()
        own = led.world.engine
        led.follow(tape, engines=engines)
        led.paused = False
        guide = led.guide
        for _ in range(len(tape)):
            led.tick()
            assert led.world.engine is own, "only lent"
        assert guide is not None and guide.over and guide.first_difference == first_difference


def test_reality_becomes_episodes_without_a_model(tape: Tape, tmp_path):
    episodes = tape.episodes("reality")
    dataset = Dataset(tmp_path, DatasetInfo("Pong", tape.origin.action_names, (3, 16, 16), "human"))
    for episode in episodes:
        dataset.add(episode)
    assert dataset.num_steps == len(tape) and len(episodes) == len(tape.trails) == 3
    assert episodes[0].info["policy"] == "human" and episodes[0].actions.tolist() == tape.actions[:16].tolist()


def test_dreams_become_episodes(tape: Tape, pong_world: ToldWorld):
    episodes = tape.episodes("dream", pong_world)
    assert sum(map(len, episodes)) == len(tape) - 4
    first = list(tape.replay(pong_world, 0, 12))
    for i, played in enumerate(first):
        np.testing.assert_array_equal(np.moveaxis(played.frame, -1, 0), episodes[0].frames[i + 1].numpy())
    with pytest.raises(TapeError, match="a world is needed"):
        tape.episodes("dream")


def test_dreams_of_a_world_that_sees_one_frame_become_episodes_too(clock: FakeClock):
    agent = with_random_weights(replace(SMALL, denoiser=replace(SMALL.denoiser, num_conditioning_frames=1)))
    agent.starts = {name: x[:, :1] for name, x in agent.starts.items()}
    world = ToldWorld(agent.denoiser, agent.reward_end, SMALL.sampler, resolve(EXACT))
    session = Session(agent, world, game="Pong", clock=clock, reality=False)
    session.start_tape()
    views = play(session, keys(6))
    (episode,) = session.stop_tape().episodes("dream", world)
    for view, frame in zip(views, episode.frames[1:], strict=True):
        np.testing.assert_array_equal(np.moveaxis(view.frame, -1, 0), frame.numpy())


def test_a_film_carries_its_tape_and_still_plays(tape: Tape, tmp_path):
    from tests.app.test_recording import film, frames

    path = tmp_path / "dream.mp4"
    with VideoWriter(path) as video:
        for image in frames(5):
            video.add(image)
    before, _ = film(path)
    embed(path, tape)
    embed(path, tape)
    assert [kind for kind, *_ in walk(path)].count(b"uuid") == 1
    after, _ = film(path)
    np.testing.assert_array_equal(before, after)
    assert to_bytes(load_tape(path)) == to_bytes(tape)


def test_films_without_a_tape_and_damaged_ones(tmp_path):
    plain = tmp_path / "plain.mp4"
    plain.write_bytes(struct.pack(">I4s8s", 16, b"ftyp", b"isom    ") + struct.pack(">I4s", 8, b"free"))
    with pytest.raises(TapeError, match="carries no tape"):
        load_tape(plain)
    for bad in (struct.pack(">I4s", 2**31, b"mdat"), struct.pack(">I4s", 3, b"mdat"), b"\0\0",
                struct.pack(">I4sQ", 1, b"mdat", 2**63)):
        plain.write_bytes(struct.pack(">I4s8s", 16, b"ftyp", b"isom    ") + bad)
        with pytest.raises(TapeError, match="damaged"):
            extract(plain)


def test_no_changed_byte_goes_unnoticed(tape: Tape, tmp_path):
    data = bytearray(to_bytes(tape))
    for at in np.random.default_rng(0).integers(0, len(data), 60):
        broken = bytearray(data)
        broken[at] ^= 1 << int(at % 8)
        try:
            again = from_bytes(bytes(broken))
        except TapeError:
            continue
        # a bit in the metadata may change a word, as in a name; nothing else
        assert at < 8 + int.from_bytes(data[:8], "little") and np.array_equal(again.actions, tape.actions)


@pytest.mark.parametrize("cut", [0, 7, 8, 100, 5000, -1])
def test_a_tape_cut_off_is_refused(tape: Tape, tmp_path, cut: int):
    (tmp_path / "x.tape").write_bytes(to_bytes(tape)[:cut])
    with pytest.raises(TapeError, match=r"x\.tape: expected a tape"):
        load_tape(tmp_path / "x.tape")


@pytest.mark.parametrize("field, value, words", [
    ("actions", lambda a: a + 6, "cannot be"), ("mates", lambda a: a * 0, "cannot be"),
    ("rewards", lambda a: a * np.float32("nan"), "cannot be"), ("lived", lambda a: a[1:], "length"),
    ("values", lambda a: {step + 1: v for step, v in a.items()}, "beginning|beyond"),
    ("values", lambda a: {**a, 10_000: a[0]}, "beyond its end"),
    ("values", lambda a: {**a, 0: b"nonsense"}, "cannot be read"), ("trails", lambda a: {}, "real game"),
    ("mates", lambda a: a * 0 + 65, "cannot be"), ("returns", lambda a: a[1:], "returns"),
    ("returns", lambda a: a + np.float32("inf"), "returns"), ("begun", lambda a: {0: (float("nan"), 0.0)}, "returns"),
    ("begun", lambda a: {10_000: (0.0, 0.0)}, "beyond its end"),
    ("trails", lambda a: {0: replace(a[0], noops=2**31 - 1)}, "no trail"),
    ("trails", lambda a: {0: replace(a[0], actions=(0,) * (MOST_ACTIONS + 1))}, "no trail"),
    ("trails", lambda a: {0: replace(a[0], actions=(6,))}, "cannot be")])
def test_tapes_that_do_not_hold_together(tape: Tape, field, value, words):
    with pytest.raises(TapeError, match=words):
        from_bytes(to_bytes(replace(tape, **{field: value(getattr(tape, field))})))


def test_the_real_game_of_a_tape_is_the_same_game(tape: Tape, pong_world):
    other = from_bytes(to_bytes(replace(tape, trails={0: replace(tape.trails[0], rom="breakout")})))
    with pytest.raises(TapeError, match="of pong, got one of breakout"):
        list(other.slices(pong_world, reality=True))


@pytest.mark.parametrize("change", [lambda ends: ends[::-1].copy(), lambda ends: ends + 1])
def test_dreams_on_a_tape_lie_one_behind_the_other(tape: Tape, monkeypatch: pytest.MonkeyPatch, change):
    """Else a small file asks for any amount of memory."""
    def table(name: str, dreams: dict[int, bytes]) -> dict[str, np.ndarray]:
        arrays = packed(name, dreams)
        return {**arrays, f"{name}_ends": change(arrays[f"{name}_ends"])}

    packed = tapefile._table
    monkeypatch.setattr(tapefile, "_table", table)
    with pytest.raises(TapeError, match="overlap"):
        from_bytes(to_bytes(tape))


def test_dreams_on_a_tape_are_bounded_together(tape: Tape, monkeypatch: pytest.MonkeyPatch):
    """Each may be a few bytes that unpack to many."""
    monkeypatch.setattr(tapefile, "MOST_UNPACKED", 2 * zstandard.frame_content_size(tape.values[0]))
    with pytest.raises(TapeError, match="too large"):
        from_bytes(to_bytes(tape))


def test_the_games_on_a_tape_are_bounded_together(tape: Tape, monkeypatch: pytest.MonkeyPatch):
    longest = max(len(trail.actions) for trail in tape.trails.values())
    monkeypatch.setattr("app.session.tapefile.MOST_STEPS", max(longest, len(tape)))
    with pytest.raises(TapeError, match="too long"):
        from_bytes(to_bytes(tape))


@pytest.mark.parametrize("name", ["frames", "actions", "hx", "cx", "seeds", "steps"])
def test_a_value_of_other_numbers_is_refused(tape: Tape, name: str):
    """What is put in shares a batch with others' dreams: there it would change theirs."""
    bad = changed(tape, 0, **{name: lambda x: x.double()})
    with pytest.raises(TapeError, match="other numbers"):
        from_bytes(to_bytes(bad))


@pytest.mark.parametrize("name, change, words", [
    ("frames", lambda x: x[..., :8], "frames of"), ("frames", lambda x: x[:, :2], "sees 2 frames, this one sees 4"),
    ("hx", lambda x: x[:, :8], "memory of"), ("hx", lambda x: x.double(), "does not fit here")])
def test_a_later_value_must_fit_the_world_too(tape: Tape, session: Session, pong_world: ToldWorld, name, change, words):
    later = sorted(tape.values)[1]
    bad = changed(tape, later, **{name: change})
    if "fit here" not in words:
        with pytest.raises(TapeError, match=words):
            list(bad.replay(pong_world, 0, later + 1))
    session.follow(tape)
    session.guide = Guide(bad, later - 1)
    session.guide.lead()
    with pytest.raises(ValueError, match=words):
        play(session, "..")


def test_frames_that_no_value_shows_must_fit_the_world_too(tape: Tape, pong_world: ToldWorld):
    """A tape of reality alone says by itself how large its pictures are."""
    lived = np.ones(len(tape), bool)
    bad = replace(tape, origin=replace(tape.origin, frame_shape=(3, 2**14, 2**14)), lived=lived, values={}, stops={})
    with pytest.raises(TapeError, match="frames of"):
        next(from_bytes(to_bytes(bad)).replay(pong_world))


def changed(tape: Tape, step: int, **changes: Callable[[torch.Tensor], torch.Tensor]) -> Tape:
    """The same tape with some tensors of one value changed."""
    state = unpack_value(tape.values[step])
    new = replace(state, **{name: change(getattr(state, name)) for name, change in changes.items()})
    return replace(tape, values={**tape.values, step: pack_value(new)})


def test_an_empty_tape(session: Session, pong_world: ToldWorld):
    with pytest.raises(ValueError, match="no tape is running"):
        session.stop_tape()
    session.start_tape()
    assert session.view.recording == 0
    tape = session.stop_tape()
    assert len(tape) == 0 and list(tape.replay(pong_world)) == [] and session.view.recording is None
    with pytest.raises(TapeError, match="nothing is recorded on it"):
        from_bytes(to_bytes(tape))


def test_saved_whole(tape: Tape, tmp_path):
    save_tape(tape, tmp_path / "a.tape")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tape"]
    assert len(load_tape(tmp_path / "a.tape")) == len(tape)

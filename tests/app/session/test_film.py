"""Tapes as films, proven while they are made; tapes that lead a session; the installed worlds as cards."""

from __future__ import annotations

import struct
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.session.film import Hud, bare, render, verify
from app.session.library import dreamt_by, entries
from app.session.look import AMBER, BACKGROUND, DREAM, MUTED, REALITY, RED, heat, hex_of
from app.session.session import Session
from app.session.tape import Tape, TapeError
from app.session.tapefile import load_tape, to_bytes
from app.session.video import VideoWriter
from diamond_core.training.checkpoint import WEIGHTS, Card, save_checkpoint
from tests.app.session.conftest import Build, ToldWorld, play
from tests.app.test_recording import film
from tests.conftest import SMALL


@pytest.fixture
def tape(session: Session) -> Tape:
    session.start_tape()
    play(session, "uuddffu")
    session.wake_up()
    play(session, "ud")
    session.fall_asleep()
    play(session, "uu")
    return session.stop_tape()


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".webp", ".png"])
def test_films_of_all_kinds(tape: Tape, pong_world: ToldWorld, tmp_path: Path, ending: str):
    out = tmp_path / f"dream{ending}"
    told: list[int] = []
    result = render(tape, pong_world, out, tell=told.append)
    assert (result.steps, result.first_difference, sum(told)) == (11, None, 11)
    assert [p.name for p in tmp_path.iterdir()] == [out.name]
    if ending == ".mp4":
        assert film(out)[0].shape == (11, 96, 96, 3)
        assert to_bytes(load_tape(out)) == to_bytes(tape)
    else:
        with Image.open(out) as image:
            assert getattr(image, "n_frames", 1) == (1 if ending == ".png" else 11)


def test_a_return_belongs_to_the_picture_above_it(tape: Tape, pong_world: ToldWorld):
    """Only reality wins here, so that its return alone is to be seen, and not where the dream is."""
    steps = [p._replace(reward=0.0, reality_reward=1.0) for p in tape.replay(pong_world, reality=True)]
    lived = next(i for i, p in enumerate(steps) if p.lived)

    def drawn(show: str | None, last: int, **other: float) -> np.ndarray:
        hud = Hud(replace(tape, returns=None), show, 4)  # they are added up here
        return [hud(p._replace(**other)) for p in steps[:last + 1]][-1]

    for show, last, told in (("reality", 3, True), (None, lived, True), (None, 3, False), ("dream", 3, False)):
        assert np.array_equal(drawn(show, last), drawn(show, last, reality_reward=2.0)) != told


def test_what_is_shown(tape: Tape, pong_world: ToldWorld):
    played = list(tape.replay(pong_world, reality=True))
    first, lived = played[0], played[7]
    assert lived.lived and not first.lived
    large = np.repeat(np.repeat(first.frame, 2, 0), 2, 1)
    np.testing.assert_array_equal(bare(None, 2)(first), large)
    np.testing.assert_array_equal(bare("dream", 1)(first), first.frame)
    np.testing.assert_array_equal(bare("reality", 1)(first), first.reality)
    np.testing.assert_array_equal(bare(None, 1)(lived), lived.reality)
    np.testing.assert_array_equal(bare("twin", 1)(first), np.concatenate([first.frame, first.reality], 1))


@pytest.mark.parametrize("show, colours", [(None, {DREAM}), ("reality", {REALITY}), ("twin", {DREAM, REALITY})])
def test_the_hud_has_the_colours_of_its_worlds(tape: Tape, pong_world: ToldWorld, show, colours):
    hud = Hud(tape, show, 6)
    pictures = [hud(played) for played in tape.replay(pong_world, 0, 3, reality=True)]
    assert len({picture.shape for picture in pictures}) == 1 and all(side % 2 == 0 for side in pictures[0].shape[:2])
    for colour in (DREAM, REALITY):
        framed = (pictures[0][:120] == colour).all(-1).sum() > 4 * 90
        assert framed == (colour in colours)
    assert not np.array_equal(pictures[0], pictures[2])


def test_a_tape_without_reality_shows_none(build: Build, pong_world: ToldWorld, tmp_path: Path):
    session = build(reality=False)
    session.start_tape()
    play(session, "uu")
    tape = session.stop_tape()
    with pytest.raises(TapeError, match="no reality"):
        render(tape, pong_world, tmp_path / "x.gif", show="twin")
    with pytest.raises(TapeError, match="no reality"):
        tape.episodes("reality")


def test_the_first_difference_is_named(tape: Tape, pong_world: ToldWorld):
    assert verify(tape, pong_world).first_difference is None
    changed = tape.hashes.copy()
    changed[[4, 9]] ^= 1
    assert verify(replace(tape, hashes=changed), pong_world).first_difference == 4
    assert verify(replace(tape, hashes=changed), pong_world, 5).first_difference == 9


def test_a_tape_leads_a_session(tape: Tape, build: Build, pong_world: ToldWorld):
    session = build(seed=8)
    view = session.follow(tape)
    assert view.led == (0, 11)
    views = play(session, "." * 11)
    for view, played in zip(views, tape.replay(pong_world, reality=True), strict=True):
        assert view.awake == played.lived and view.action == played.action
        np.testing.assert_array_equal(view.reality if played.lived else view.frame,
                                      played.reality if played.lived else played.frame)
    assert session.guide.first_difference is None and not session.paused
    over = play(session, ".")[-1]
    assert over.paused and over.led is None and "over" in over.message


def test_a_key_takes_over_from_a_tape(tape: Tape, build: Build):
    session = build(seed=8)
    session.follow(tape, 2)
    play(session, "..")
    view = play(session, "d")[-1]
    assert view.led is None and not view.paused and view.action_name == "LEFT" and "step 4" in view.message
    assert view.age == 5


def test_a_difference_is_said_while_a_tape_leads(tape: Tape, build: Build):
    changed = tape.hashes.copy()
    changed[1] ^= 1
    session = build()
    session.follow(replace(tape, hashes=changed))
    views = play(session, "...")
    assert "from step 1 on" in views[1].message and session.guide.first_difference == 1


def test_going_back_ends_the_lead(tape: Tape, session: Session):
    session.follow(tape)
    play(session, "..")
    session.rewind_to(session.view.moment - 1)
    assert session.view.led is None


@pytest.mark.parametrize("at, colour", [(-1, MUTED), (0, MUTED), (0.5, AMBER), (1, RED), (2, RED)])
def test_heat(at: float, colour):
    assert heat(at) == colour
    assert hex_of(BACKGROUND) == "#0b0d12"


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch, pong_agent) -> Path:
    """Two installed worlds, one of them damaged."""
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(tmp_path))
    monkeypatch.setattr("diamond_core.training.library.SHIPPED", tmp_path / "none")
    monkeypatch.chdir(tmp_path)
    card = Card("Pong", ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"], SMALL)
    for name in ("beta", "Alpha", "broken"):
        save_checkpoint(tmp_path / name, pong_agent, card, pong_agent.starts)
    (tmp_path / "broken" / "card.json").write_text("{")
    return tmp_path


def test_cards_need_no_weights_and_damaged_ones_are_left_out(shelf: Path):
    (shelf / "beta" / WEIGHTS).unlink()
    found = entries()
    assert [its.name for its in found] == ["Alpha", "beta"]
    assert all(its.poster.shape == (16, 16, 3) and len(its.frames) == 3 * 4 * 4 for its in found)


def test_a_loop_is_played_where_there_is_one(shelf: Path):
    frames = [np.full((16, 16, 3), value, np.uint8) for value in (10, 90, 200)]
    first, *rest = map(Image.fromarray, frames)
    first.save(shelf / "beta" / "loop.webp", save_all=True, append_images=rest, lossless=True)
    (shelf / "Alpha" / "loop.webp").write_bytes(b"no picture")
    alpha, beta = entries()
    assert len(alpha.frames) == 48
    np.testing.assert_array_equal(np.stack(beta.frames), np.stack(frames))


def test_a_world_without_starts_has_a_still(shelf: Path):
    (shelf / "beta" / "starts.safetensors").unlink()
    assert entries()[1].poster.shape == (16, 16, 3)


def test_the_world_that_dreamt_a_tape_is_found(shelf: Path):
    card = (shelf / "beta" / "card.json").read_text()
    (shelf / "broken" / "card.json").write_text(card.replace('"sha256": "', '"sha256": "0'))
    sha256 = entries()[-1].card.sha256
    assert dreamt_by(sha256, "Pong").name == "broken"
    assert dreamt_by("unknown", "Pong").name in ("Alpha", "beta", "broken")
    with pytest.raises(ValueError, match="no dream of Breakout is installed"):
        dreamt_by("", "Breakout")
    (shelf / "beta" / "card.json").write_text("{")
    assert dreamt_by(sha256, "Pong").name == "broken"


def test_a_name_with_a_colon_is_no_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with VideoWriter(Path("12:30.mp4")) as video:
        video.add(np.zeros((16, 16, 3), np.uint8))
    assert (tmp_path / "12:30.mp4").stat().st_size > 500


@pytest.mark.parametrize("left", [b"", struct.pack(">I4s8s", 16, b"ftyp", b"isom    "),
                                  struct.pack(">I4s8sI4s", 16, b"ftyp", b"isom    ", 9999, b"mdat") + b"x"])
def test_a_film_that_was_cut_off_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: bytes):
    """As on a full disk, of which ffmpeg's wrapper says nothing."""
    def cut_off(path: str, *_: object, **__: object):
        if left:
            Path(path).write_bytes(left)
        while True:
            yield

    monkeypatch.setattr("imageio_ffmpeg.write_frames", cut_off)
    with pytest.raises(OSError, match="the disk may be full"), VideoWriter(tmp_path / "dream.mp4") as video:
        video.add(np.zeros((16, 16, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []

"""`diamond replay` and `diamond tapes`, from a tape of the toy game and of Pong to films and datasets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from app.cli import main
from app.commands.tape import tape_files
from app.session.clock import FakeClock
from app.session.session import Session
from app.session.tapefile import load_tape, save_tape
from app.session.video import VideoWriter
from diamond_core.replay import Dataset
from diamond_core.training.checkpoint import Card, save_checkpoint
from diamond_core.training.library import load
from tests.app.session.conftest import play, with_random_weights
from tests.app.test_cli import fails
from tests.conftest import SMALL


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A checkpoint of Pong, a tape of it and a damaged one."""
    folder = tmp_path_factory.mktemp("home")
    agent = with_random_weights(SMALL)
    card = Card("Pong", ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"], SMALL)
    save_checkpoint(folder / "shelf" / "Pong", agent, card, agent.starts)
    agent = load(folder / "shelf" / "Pong", "cpu")
    session = Session(agent, agent.world(), clock=FakeClock())
    session.start_tape()
    while session.recorder.steps < 15:
        # its dreams end now and then
        play(session, "u")
    save_tape(session.stop_tape(), folder / "one.tape")
    (folder / "bad.tape").write_bytes((folder / "one.tape").read_bytes()[:-9])
    return folder


@pytest.fixture(autouse=True)
def shelf(home: Path, monkeypatch) -> None:
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(home / "shelf"))


def test_verify(home: Path, capsys):
    main(["replay", str(home / "one.tape"), "--verify"])
    assert "15 steps played again, bit for bit" in capsys.readouterr().out


def test_a_film_is_made_and_is_a_tape_itself(home: Path, tmp_path: Path, capsys):
    out = tmp_path / "dream.mp4"
    main(["replay", str(home / "one.tape"), "--render", str(out), "--hud", "--show", "twin"])
    assert len(load_tape(out)) == 15
    main(["replay", str(out), "--verify", "--from", "5"])
    assert "10 steps" in capsys.readouterr().out
    assert "exists already" in fails(capsys, "replay", out, "--render", out)


def test_of_a_folder_every_play_counts_once(home: Path, tmp_path: Path):
    save_tape(load_tape(home / "one.tape"), tmp_path / "one.tape")
    main(["replay", str(tmp_path / "one.tape"), "--render", str(tmp_path / "one.mp4")])
    main(["replay", str(tmp_path / "one.tape"), "--render", str(tmp_path / "alone.mp4")])
    with VideoWriter(tmp_path / "plain.mp4") as film:
        film.add(np.zeros((16, 16, 3), np.uint8))
    assert [file.name for file in tape_files((tmp_path,))] == ["alone.mp4", "one.mp4", "one.tape"]
    for source, out in ((tmp_path, "all"), (home / "one.tape", "one")):
        main(["tapes", str(source), "--out", str(tmp_path / out)])
    assert Dataset.open(tmp_path / "all").num_steps == Dataset.open(tmp_path / "one").num_steps
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"no tapes in .*, or \.mp4 films that carry one"):
        tape_files((tmp_path / "none",))


def test_without_a_display_the_tape_is_checked(home: Path, capsys):
    main(["replay", str(home / "one.tape")])
    out = capsys.readouterr().out
    assert "no window here" in out and "bit for bit" in out


@pytest.mark.parametrize("first, steps", [(None, 0), (4, 4)])
def test_the_window_plays_it_again_or_goes_on(home: Path, monkeypatch, first, steps):
    opened: dict[str, object] = {}
    monkeypatch.setattr("app.desktop.window.display_missing", lambda: None)
    monkeypatch.setattr("app.desktop.start.play", lambda checkpoint, **options: opened.update(options, path=checkpoint))
    main(["replay", str(home / "one.tape"), *([] if first is None else ["--from", str(first)])])
    agent = load(str(opened["path"]), "cpu")
    session = Session(agent, agent.world(), clock=FakeClock())
    opened["prepare"](session)
    assert session.view.led == ((0, 15) if first is None else None)
    tape = load_tape(home / "one.tape")
    assert torch.equal(session.dream.frames, tape.state(steps, session.world).frames)


def test_a_difference_is_exit_code_1(home: Path, tmp_path: Path, capsys):
    from dataclasses import replace

    tape = load_tape(home / "one.tape")
    hashes = tape.hashes.copy()
    hashes[3] ^= 1
    save_tape(replace(tape, hashes=hashes), tmp_path / "other.tape")
    with pytest.raises(SystemExit) as stop:
        main(["replay", str(tmp_path / "other.tape"), "--verify"])
    assert stop.value.code == 1 and "step 3 came out otherwise" in capsys.readouterr().out


def test_tapes_become_a_dataset(home: Path, tmp_path: Path, capsys):
    main(["tapes", str(home / "one.tape"), "--out", str(tmp_path / "real")])
    main(["tapes", str(home / "one.tape"), "--out", str(tmp_path / "dreamt"), "--world", "dream"])
    for name in ("real", "dreamt"):
        dataset = Dataset.open(tmp_path / name)
        assert dataset.num_steps == 15 and dataset.info.game == "Pong"
    capsys.readouterr()
    main(["tapes", str(home / "one.tape"), "--out", str(tmp_path / "real"), "--append"])
    assert "1 of 1 tapes were there already" in capsys.readouterr().out, "the evenings' tapes lie in one folder"
    assert Dataset.open(tmp_path / "real").num_steps == 15
    main(["tapes", str(home / "one.tape"), "--out", str(tmp_path / "real"), "--append", "--world", "dream"])
    assert Dataset.open(tmp_path / "real").num_steps == 30
    assert "not empty" in fails(capsys, "tapes", home / "one.tape", "--out", tmp_path / "real")


@pytest.mark.parametrize("args, words", [
    (["replay", "absent.tape"], "absent.tape"), (["replay", "{home}/bad.tape"], "bad.tape: expected a tape"),
    (["replay", "{home}/one.tape", "--from", "15"], "0 to 14"),
    (["replay", "{home}/one.tape", "--hud", "--show", "twin", "--scale", "8", "--overwrite"],
     "--hud, --show, --scale, --overwrite without a film: name one with --render"),
    (["tapes", "{home}/shelf", "--out", "x"], "no tapes in"),
    (["tapes", "{home}/bad.tape", "--out", "x"], "expected a tape"),
    (["replay", "{home}/one.tape", "--verify", "--checkpoint", "nothing"], "no checkpoint 'nothing'")])
def test_bad_input_is_one_line(home: Path, tmp_path: Path, capsys, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    assert words in fails(capsys, *(arg.format(home=home) for arg in args))

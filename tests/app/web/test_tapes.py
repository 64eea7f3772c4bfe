"""Recordings: kept, found by their names only, rendered, proven, learned from; and a folder for a Space."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest

from app.session.session import Session
from app.session.tape import Tape, TapeError
from app.session.tapefile import embed, load_tape, to_bytes
from app.web import tapes as tapes_module
from app.web.again import ready_at
from app.web.datasets import datasets_of, play_of
from app.web.space import export_space, requirements
from app.web.tapes import Tapes, TapesError, costs_of, read_frames, write_frames
from diamond_core.replay import Dataset
from diamond_core.training.checkpoint import CheckpointError
from diamond_core.training.library import load
from tests.app.web.conftest import AtOnce, Server, seen


@pytest.mark.parametrize("twin", [False, True])
def test_frames_come_back_as_they_were(tmp_path: Path, twin: bool):
    pictures = seen(5, twin)
    write_frames(pictures, tmp_path / "x.frames")
    back = list(read_frames(tmp_path / "x.frames"))
    for (a, b), (x, y) in zip(pictures, back, strict=True):
        np.testing.assert_array_equal(a.open(), x)
        assert (y is None) is (b is None)
        if b is not None:
            np.testing.assert_array_equal(b.open(), y)


@pytest.mark.parametrize("twin", [False, True])
def test_a_recording_becomes_films(tmp_path: Path, tape: Tape, twin: bool):
    tapes = Tapes(tmp_path)
    kept = tapes.keep(tape, seen(6, twin), "Small", by_visitor=False)
    assert tapes.get(kept.id) == kept and kept.steps == 6 and kept.twin is twin
    mp4 = tapes.file(kept.id, "mp4")
    assert imageio_ffmpeg.count_frames_and_secs(str(mp4))[0] == 6
    # the film carries the tape
    assert to_bytes(load_tape(mp4)) == to_bytes(tape)
    assert len(iio.imread(tapes.file(kept.id, "gif"), index=...)) == 6
    assert load_tape(tapes.file(kept.id, "tape")).actions.tolist() == tape.actions.tolist()
    if not twin:
        film = iio.imread(tapes.file(kept.id, "webp"), index=...)[..., :3]
        np.testing.assert_array_equal(film[:, ::24, ::24], np.stack([a.open() for a, _ in seen(6, False)]))
    tapes.delete(kept.id)
    assert list(tmp_path.iterdir()) == [] and tapes.all() == []


@pytest.mark.parametrize("length", [0, 3, 40, -1])
def test_a_damaged_film_is_said(tmp_path: Path, tape: Tape, length: int):
    tapes = Tapes(tmp_path)
    kept = tapes.keep(tape, seen(6, False), "Small", by_visitor=False)
    whole = (tmp_path / f"{kept.id}.frames").read_bytes()
    (tmp_path / f"{kept.id}.frames").write_bytes(whole[:length])
    with pytest.raises(TapesError, match="damaged"):
        tapes.file(kept.id, "gif")
    assert not list(tmp_path.glob("*.gif"))


def test_a_long_film_is_no_loop(tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch):
    tapes = Tapes(tmp_path)
    monkeypatch.setattr(tapes_module, "MOST_LOOPED", 6)
    plain, twin = (tapes.keep(tape, seen(6, twin), "Small", by_visitor=False) for twin in (False, True))
    assert plain.has_loop and not twin.has_loop
    tapes.file(plain.id, "gif")
    for ending in ("gif", "webp"):
        with pytest.raises(TapesError, match=f"too long for a {ending}: take the mp4"):
            tapes.file(twin.id, ending)


def test_a_tape_goes_on_where_a_value_or_a_stop_lies_and_nowhere_without_any(home):
    agent = load("small", "cpu")
    session = Session(agent, agent.world(), seed=1)
    session.start_tape()
    for _ in range(151):
        session.tick()
    tape = session.stop_tape()
    assert 150 in tape.stops
    for number in (0, 150, 3):
        ready = asyncio.run(ready_at(AtOnce(), agent.world(), tape, number, lambda *_: None))
        Session(agent, agent.world(), seed=1).go_on_from(ready, number)
    with pytest.raises(TapeError, match="nothing was dreamt"):
        asyncio.run(ready_at(AtOnce(), agent.world(), replace(tape, values={}, stops={}), 9, lambda *_: None))


def test_a_faster_engine_that_comes_while_a_tape_is_dreamt_again_stays(tape: Tape, home):
    world = load("small", "cpu").world()
    steps = tape.replay(world)
    next(steps)
    world.engine = faster = copy.copy(world.engine)
    assert len(list(steps)) == 5 and world.engine is faster


def test_a_recording_outlives_the_page(server: Server):
    with server.page() as page:
        page.open()
        page.send("record", on=True)
        name = page.until("recording")["id"]
        page.view(lambda v: v["tape"] is not None and v["tape"] > 3)
        page.send("leave")
    until = time.monotonic() + 20
    while not server.house.tapes.all() and time.monotonic() < until:
        time.sleep(0.05)
    assert server.house.tapes.get(name).steps > 3


def test_a_future_that_was_taken_is_in_the_film_too(server: Server):
    with server.page() as page:
        page.open()
        page.send("record", on=True)
        page.view(lambda v: v["tape"] is not None and v["tape"] > 3)
        page.send("fork")
        while not page.sheets:
            page.take()
        page.send("branch", action=1)
        page.view(lambda v: v["tape"] is not None and v["tape"] > 15)
        page.send("record", on=False)
        name = page.until("recorded")["id"]
    kept = server.house.tapes.get(name)
    assert len(list(read_frames(server.house.tapes.folder / f"{name}.frames"))) == kept.steps > 15


def test_what_is_no_tape_is_refused_without_saying_where_it_lay(tmp_path: Path, tape: Tape):
    cut_off = r"expected a tape \(it is another kind of file, or cut off\)"
    for data, words in ((to_bytes(tape)[:-9], cut_off), (b"", cut_off),
                        (b"\0\0\0\x18ftypmp42" + b"\0" * 99, "this file carries no tape")):
        with pytest.raises(TapeError, match=words) as refusal:
            Tapes(tmp_path).bring(data, "x", by_visitor=True)
        assert tempfile.gettempdir() not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_the_owners_film_comes_in_as_a_film_and_only_once(tmp_path: Path, tape: Tape):
    film = tmp_path / "film.mp4"
    film.write_bytes(b"\0\0\0\x18ftypmp42" + b"\0" * 12)
    embed(film, tape)
    tapes = Tapes(tmp_path / "tapes")
    theirs = tapes.bring(film.read_bytes(), "a", by_visitor=True)
    assert not theirs.has_film  # it could show anything
    tapes.delete(theirs.id)
    kept = tapes.bring(film.read_bytes(), "a", by_visitor=False)
    assert kept.has_film and not kept.has_loop and tapes.file(kept.id, "mp4").read_bytes() == film.read_bytes()
    assert len(tapes.tape(kept.id)) == len(tape)
    with pytest.raises(TapesError, match="here already: 'a'"):
        tapes.bring(to_bytes(tape), "b", by_visitor=False)
    tapes.delete(kept.id)
    assert list((tmp_path / "tapes").iterdir()) == []


def test_a_recording_gets_another_title(tmp_path: Path, tape: Tape):
    tapes = Tapes(tmp_path)
    kept = tapes.keep(tape, [], "Pong", by_visitor=False)
    for title in ("Pong 21:0, what a match!", "3,5 Sekunden & 100 %", "हिन्दी में", "😀😀"):  # as it was written
        assert tapes.rename(kept.id, f" {title}\n") == title == tapes.get(kept.id).title
    assert tapes.rename(kept.id, " \t ") == "😀😀" and len(tapes.tape(kept.id)) == len(tape)
    assert tapes.rename(kept.id, "two\nlines\x07 and " + 60 * "x") == ("two lines and " + 60 * "x")[:60]
    with pytest.raises(TapesError, match="no such tape"):
        tapes.rename("aaaaaaaa", "x")


def test_names_lead_nowhere_else(tmp_path: Path, tape: Tape):
    tapes = Tapes(tmp_path / "tapes")
    (tmp_path / "tapes").mkdir()
    outside = Tapes(tmp_path).keep(tape, [], "x", by_visitor=False)
    for ending in ("json", "tape"):
        shutil.copy(tmp_path / f"{outside.id}.{ending}", tmp_path / f"secret.{ending}")
    for name in ("../secret", "..%2fsecret", "secret", "x" * 41, "", "a/b", "aaaaaaaa"):
        for act in (tapes.get, tapes.tape, tapes.delete, lambda n: tapes.file(n, "tape")):
            with pytest.raises(TapesError, match="no such tape"):
                act(name)
    kept = tapes.keep(tape, [], "x", by_visitor=False)
    for ending in ("json", "frames", "py", "../x"):
        with pytest.raises(TapesError, match="there is no"):
            tapes.file(kept.id, ending)
    with pytest.raises(TapesError, match="no film"):
        tapes.file(kept.id, "mp4")


def test_visitors_tapes_are_few_and_the_owners_stay(tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tapes_module, "KEPT_OF_VISITORS", 2)
    tapes = Tapes(tmp_path)
    own = tapes.keep(tape, [], "mine", by_visitor=False)
    theirs = [tapes.keep(tape, [], str(i), by_visitor=True) for i in range(4)]
    assert {r.id for r in tapes.all()} == {own.id, theirs[2].id, theirs[3].id}


def test_who_records_much_loses_the_own_tapes_first(tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tapes_module, "KEPT_OF_ONE", 3)
    tapes = Tapes(tmp_path)
    victim = tapes.keep(tape, [], "v", by_visitor=True, whose="ann")
    many = [tapes.keep(tape, [], str(i), by_visitor=True, whose="bob") for i in range(5)]
    brought = [tapes.bring(to_bytes(tape), "b", by_visitor=True) for _ in range(5)]
    assert {r.id for r in tapes.all()} == {victim.id, *(r.id for r in many[2:] + brought[2:])}


def test_a_tape_that_costs_too_much_is_refused(tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch):
    tapes = Tapes(tmp_path)
    assert sum(costs_of(tape)) == 6 * 3
    back = tapes.bring(to_bytes(tape), "<b>../x", by_visitor=True)
    assert back.title == "<b>../x" and not back.has_film and tapes.file(back.id, "tape").parent == tmp_path
    assert [tapes.bring(to_bytes(tape), title, by_visitor=True).title for title in ("  ", " Понг 2 ")] == [
        "a tape", "Понг 2"]
    monkeypatch.setattr(tapes_module, "MOST_COST", 17)
    with pytest.raises(TapesError, match="too long"):
        tapes.bring(to_bytes(tape), "x", by_visitor=True)


def test_an_empty_tape_is_not_kept(tmp_path: Path):
    agent = load_small(tmp_path)
    session = Session(agent, agent.world())
    session.start_tape()
    with pytest.raises(TapesError, match="nothing was recorded"):
        Tapes(tmp_path / "t").keep(session.stop_tape(), [], "x", by_visitor=False)


def load_small(tmp_path: Path):
    from tests.app.web.conftest import small_checkpoint
    return load(small_checkpoint(tmp_path / "small"), "cpu")


def test_the_library_over_http(server: Server):
    with server.page() as page:
        page.open(seed=3)
        page.send("record", on=True)
        page.view(lambda v: v["tape"] is not None and v["tape"] >= 8)
        page.send("record", on=False)
        kept = page.until("recorded")

    def ask(path: str, data: bytes | None = None, method: str = "GET"):
        request = urllib.request.Request(server.url + path, data, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    (listed,) = json.loads(ask("/api/tapes"))
    assert listed["id"] == kept["id"] and listed["steps"] >= 8 and listed["dream"] == "small"
    assert ask(f"/api/tapes/{kept['id']}.mp4")[4:8] == b"ftyp"
    assert json.loads(ask(f"/api/tapes/{kept['id']}/prove", method="POST")) == {
        "same": listed["steps"], "steps": listed["steps"], "why": ""}
    assert json.loads(ask(f"/api/tapes/{kept['id']}/title?title=mine", method="POST")) == {"title": "mine"}
    packed = ask(f"/api/tapes/{kept['id']}.tape")
    with pytest.raises(urllib.error.HTTPError) as refusal:
        ask("/api/tapes?title=again", packed, "POST")
    assert "here already: 'mine'" in refusal.value.read().decode()
    (server.house.tapes.folder / f"{kept['id']}.tape").unlink()
    with pytest.raises(urllib.error.HTTPError) as broken:
        ask(f"/api/tapes/{kept['id']}/prove", method="POST")
    words = broken.value.read().decode()
    assert "did not work here: No such file" in words and str(server.house.tapes.folder) not in words
    ask(f"/api/tapes/{kept['id']}", method="DELETE")
    brought = json.loads(ask("/api/tapes?title=again", packed, "POST"))
    with server.page() as page:
        page.open(tape=brought["id"], at=5)
        first = page.view()
        assert page.view(lambda v: v["moment"] > first["moment"])
    assert [r["id"] for r in json.loads(ask("/api/tapes"))] == [brought["id"]]


def test_visitors_see_their_own_tapes_only(shared: Server, tape: Tape):
    kept = shared.house.tapes.keep(tape, [], "x", by_visitor=False)

    def ask(token: str, query: str = "") -> list[str]:
        with urllib.request.urlopen(f"{shared.url}/api/tapes?token={token}{query}", timeout=10) as answer:
            return [r["id"] for r in json.loads(answer.read())]

    assert ask("v" * 32) == [] and ask("v" * 32, f"&names=nothing,{kept.id}") == [kept.id]
    assert ask("o" * 32) == [kept.id]


def test_recorded_play_becomes_a_dataset(tmp_path: Path, home, tape: Tape):
    tapes = Tapes(tmp_path / "tapes")
    tapes.keep(tape, [], "x", by_visitor=False)
    with pytest.raises(ValueError, match="none of your tapes"):
        play_of(tapes, "toy", tmp_path / "data")
    assert datasets_of(tmp_path / "data", "toy") == []


def test_real_play_is_learned_from(tmp_path: Path, pong_tape: Tape):
    tapes = Tapes(tmp_path / "tapes")
    tapes.keep(pong_tape, [], "x", by_visitor=False)
    path = play_of(tapes, "Pong", tmp_path / "data")
    assert Dataset.open(path).num_steps == len(pong_tape)
    assert datasets_of(tmp_path / "data", "Pong") == [(path, "1 episodes")]
    # a run that learns from it goes on with it, whatever is recorded later
    assert play_of(tapes, "Pong", tmp_path / "data") == path
    tapes.keep(pong_tape, [], "y", by_visitor=False)
    more = play_of(tapes, "Pong", tmp_path / "data")
    assert Dataset.open(more).num_steps == 2 * len(pong_tape) and Dataset.open(path).num_steps == len(pong_tape)
    assert sorted(p.name for p in (tmp_path / "data").iterdir()) == sorted([path.name, more.name])


def test_only_the_owners_play_of_this_games_actions_is_learned_from(tmp_path: Path, pong_tape: Tape):
    tapes = Tapes(tmp_path / "tapes")
    tapes.keep(pong_tape, [], "a visitor's", by_visitor=True)
    with pytest.raises(ValueError, match="none of your tapes"):
        play_of(tapes, "Pong", tmp_path / "data")
    tapes.keep(pong_tape, [], "mine", by_visitor=False)
    names = tuple(f"A{i}" for i in range(18))
    other = replace(pong_tape, origin=replace(pong_tape.origin, action_names=names))
    tapes.keep(other, [], "of a world with all actions", by_visitor=False)
    assert Dataset.open(play_of(tapes, "Pong", tmp_path / "data")).num_steps == len(pong_tape)


def test_a_film_of_a_tape_that_is_deleted_meanwhile_does_not_stay(tmp_path: Path, tape: Tape, monkeypatch):
    tapes = Tapes(tmp_path / "tapes")
    name = tapes.keep(tape, seen(6, False), "x", by_visitor=False).id

    def late(recording, path):
        path.write_bytes(b"film")
        tapes.delete(name)
        path.write_bytes(b"film")  # as a film does that is written whole, in the end

    monkeypatch.setattr(tapes, "_render", late)
    with pytest.raises(TapesError, match="deleted meanwhile"):
        tapes.file(name, "mp4")
    assert not list(tapes.folder.iterdir())


def test_a_space_sets_what_torch_must_find_first(tmp_path: Path, shelf: Path):
    folder = tmp_path / "space"
    export_space(folder, [str(shelf / "small")])
    code = ("import os, sys\n"
            "class Late:\n"
            "    def find_spec(self, name, *_):\n"
            "        assert name != 'torch' or 'MKL_CBWR' in os.environ and 'OMP_WAIT_POLICY' in os.environ\n"
            "sys.meta_path.insert(0, Late())\n"
            "exec(open('space.py').read(), {'__name__': 'space'})\n"
            "assert 'torch' in sys.modules\n")
    set_there = ("PYTHONPATH", "MKL_CBWR", "OMP_WAIT_POLICY")
    environment = {name: x for name, x in os.environ.items() if name not in set_there}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr


def test_two_moments_of_one_game_are_refused_before_a_space_is_written(tmp_path: Path, shelf: Path):
    for run in ("a", "b"):
        shutil.copytree(shelf / "small", tmp_path / run / "epoch_0001")
    with pytest.raises(ValueError, match="would both be called toy"):
        export_space(tmp_path / "space", [str(tmp_path / run / "epoch_0001") for run in ("a", "b")])
    assert not (tmp_path / "space").exists()


def test_a_space_is_a_folder_that_runs(tmp_path: Path, shelf: Path):
    folder = tmp_path / "space"
    assert export_space(folder, [str(shelf / "small")]) == ["small"]
    card = (folder / "README.md").read_text()
    assert card.startswith("---\n") and "app_file: space.py" in card and "sdk: gradio" in card
    lines = (folder / "requirements.txt").read_text()
    assert all(f"\n{name}" in lines for name in ("numpy", "gradio", "fastapi", "uvicorn")) and "torch" in lines
    assert "pygame" not in lines and lines == "\n".join(requirements()) + "\n"
    assert not list(folder.rglob("__pycache__")) and not (folder / "app" / "desktop").exists()
    code = ("import json, sys; from app.web.space import settings; from app.web.house import House; import app\n"
            "s = settings(); names = [o.name for o in House(s).shelf.offers()]\n"
            "print(json.dumps([app.__file__, names, s.access.public, s.access.loopback]))")
    environment = {name: x for name, x in os.environ.items() if name not in ("PYTHONPATH", "DIAMOND_CHECKPOINTS")}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=120)
    assert done.returncode == 0, done.stderr
    where, names, public, loopback = json.loads(done.stdout)
    assert where.startswith(str(folder)) and names == ["small"] and public and not loopback


def test_a_space_needs_a_dream_and_a_new_folder(tmp_path: Path, shelf: Path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(ValueError, match="not empty"):
        export_space(tmp_path / "full", [str(shelf / "small")])
    with pytest.raises(CheckpointError):
        export_space(tmp_path / "new", ["nothing"])

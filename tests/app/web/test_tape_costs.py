"""What a recording may cost others: its real game is played in slices, its films are made by one thread."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ClassVar
from unittest.mock import Mock

import numpy as np
import pytest

from app.session.session import Session
from app.session.tape import Tape
from app.session.tapefile import load_tape, to_bytes
from app.web import tapes
from app.web.again import proven
from app.web.dreaming import Dreaming
from app.web.protocol import Open, Plain
from app.web.shelf import Loaded
from app.web.tapes import Tapes, TapesError, real_steps_of
from diamond_core.world.dream import World
from tests.app.web.conftest import AtOnce, Server, seen


def test_the_real_game_costs_too(tmp_path: Path, pong_tape: Tape, monkeypatch: pytest.MonkeyPatch):
    """It is stepped beside the dream, after all that came before the tape; and it is a new console each time."""
    before, n = pong_tape.trails[0], len(pong_tape)
    assert real_steps_of(pong_tape) == n + tapes.CONSOLE + len(before.actions)
    monkeypatch.setattr(tapes, "MOST_REAL", 3_000)
    for steps, fits in ((2_000, True), (3_001, False)):
        brought = to_bytes(replace(pong_tape, trails={0: replace(before, actions=(0,) * steps)}))
        with contextlib.nullcontext() if fits else pytest.raises(TapesError, match="rewinds"):
            Tapes(tmp_path).bring(brought, "x", by_visitor=True)


def test_many_short_games_cost_a_console_each(tmp_path: Path, pong_tape: Tape, monkeypatch: pytest.MonkeyPatch):
    short = replace(pong_tape.trails[0], actions=())
    brought = to_bytes(replace(pong_tape, trails=dict.fromkeys(range(len(pong_tape)), short)))
    monkeypatch.setattr(tapes, "MOST_REAL", len(pong_tape) * tapes.CONSOLE)
    with pytest.raises(TapesError, match="rewinds"):
        Tapes(tmp_path).bring(brought, "x", by_visitor=True)


def test_a_single_step_that_costs_too_much_is_refused(tmp_path: Path, tape: Tape):
    sampler = replace(tape.samplers[0], num_steps=50, order=2)
    for mates, fits in ((1, True), (64, False)):
        brought = replace(tape, mates=tape.mates * 0 + mates, samplers={0: sampler})
        with contextlib.nullcontext() if fits else pytest.raises(TapesError, match="too long"):
            Tapes(tmp_path).bring(to_bytes(brought), "x", by_visitor=True)


def test_the_real_game_of_a_tape_is_played_again_in_slices(pong_tape: Tape, pong_world: World):
    """Others dream between two of them."""
    class Counting(AtOnce):
        calls = 0

        def call(self, job):
            self.calls += 1
            return super().call(job)

    host = Counting()
    trail = replace(pong_tape.trails[0], actions=(0,) * 900)
    lived = replace(pong_tape, lived=np.ones(len(pong_tape), bool), trails={0: trail})
    asyncio.run(proven(host, pong_world, lived, {}))
    assert host.calls > len(lived) + 1 + 3


def test_who_goes_on_from_a_tape_waits_for_reality_in_slices(pong_tape: Tape, pong_loaded: Loaded):
    class Counting(AtOnce):
        calls: ClassVar[list[int]] = []

        def call(self, job):
            done = super().call(job)
            self.calls += [done.result()] if isinstance(done.result(), int) else []
            return done

        def add(self, *_):
            pass

    trail = replace(pong_tape.trails[0], actions=(0,) * 900)
    long = replace(pong_tape, trails={0: trail})
    dreaming = asyncio.run(Dreaming.begin(Counting(), pong_loaded, Open(t="open", game="Pong"), Mock(), 1, long))
    assert dreaming.session.real.behind == 0 and len(dreaming.session.real.trail().actions) == 900
    assert len(Counting.calls) > 3 and Counting.calls[-1] == 0


def test_a_wish_that_needs_reality_waits_for_it(pong_loaded: Loaded):
    class Queue(AtOnce):
        def __init__(self):
            self.jobs = []

        def call(self, job):
            self.jobs.append(job)
            return Future()

        def add(self, *_):
            pass

    async def wish() -> None:
        host, session = Queue(), Session(pong_loaded.agent, pong_loaded.world)
        dreaming = Dreaming(host, pong_loaded, session, Mock())
        for _ in range(900):
            session.real.step(0)
        session.real.go_to(session.real.mark())
        host.jobs.clear()
        assert dreaming.do(Plain(t="wake"))
        host.jobs.pop(0)()
        assert not session.awake and session.real.behind and len(host.jobs) == 1
        while host.jobs:
            host.jobs.pop(0)()
        assert session.awake and not session.real.behind and dreaming._waiting == 0

    asyncio.run(wish())


def test_a_film_appears_with_its_tape_or_not_at_all(tmp_path: Path, tape: Tape, monkeypatch: pytest.MonkeyPatch):
    tapes = Tapes(tmp_path)
    kept = tapes.keep(tape, seen(6, False), "Small", by_visitor=False)
    before = sorted(tmp_path.iterdir())

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("app.session.film.embed", full)
        with pytest.raises(TapesError, match="could not be made"):
            tapes.file(kept.id, "mp4")
    assert sorted(tmp_path.iterdir()) == before
    assert to_bytes(load_tape(tapes.file(kept.id, "mp4"))) == to_bytes(tape)


def test_a_film_that_is_there_waits_for_no_other(tmp_path: Path, tape: Tape):
    tapes = Tapes(tmp_path)
    kept = tapes.keep(tape, seen(6, False), "Small", by_visitor=False)
    film = tapes.file(kept.id, "mp4")
    with ThreadPoolExecutor(1) as pool, tapes._rendering:
        assert pool.submit(tapes.file, kept.id, "mp4").result(10) == film
        assert pool.submit(tapes.file, kept.id, "tape").result(10).suffix == ".tape"


def test_films_take_no_threads_from_others(server: Server, tape: Tape, monkeypatch: pytest.MonkeyPatch):
    """However many are wanted at once."""
    begun, done = threading.Event(), threading.Event()
    names = {server.house.tapes.keep(tape, seen(6, False), "x", by_visitor=False).id for _ in range(3)}
    threads = set()

    def slowly(recording, path):
        threads.add(threading.current_thread().name)
        begun.set()
        assert done.wait(20)
        path.write_bytes(b"film")

    monkeypatch.setattr(server.house.tapes, "_render", slowly)

    def fetch(name: str) -> bytes:
        with urllib.request.urlopen(f"{server.url}/api/tapes/{name}.mp4", timeout=30) as answer:
            return answer.read()

    with ThreadPoolExecutor(8) as pool:
        films = [pool.submit(fetch, name) for name in names]
        assert begun.wait(20)
        time.sleep(0.2)
        waiting = [t.name for t in threading.enumerate() if t.name.startswith("film")]
        done.set()
        assert [film.result(30) for film in films] == [b"film"] * 3
    assert len(waiting) == len(threads) == 1 and threads == set(waiting)

"""Play over a real websocket on a small dream: everything that a page can want, and what it sees of it."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from websockets.exceptions import ConnectionClosed

from app.session.session import Session
from app.web.dreaming import Dreaming
from app.web.lobby import IDLE, REPLACED
from app.web.retold import DIGITS
from tests.app.web.conftest import NAMES, Server


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)))


def test_a_page_plays(server: Server):
    with server.page() as page:
        opened = page.open(seed=3)
        assert opened["actions"] == NAMES and opened["title"] == "Small" and not opened["reality"]
        assert opened["directions"] == ["up", "down", "left", "right"] and opened["marks"][0][0] == 0
        # no picture comes before the page knows what it shows
        assert page.views == []
        first = page.view()
        assert first["pictures"] == ["dream"] and pixels(page.views[-1][1][0]).shape == (16, 16, 3)
        assert page.view(lambda v: v["moment"] >= first["moment"] + 3)["age"] >= 3


def test_a_dream_of_any_name_is_shown_and_opened(server: Server, shelf: Path, tmp_path: Path, monkeypatch):
    name = "Ann's #1 (100%, big)"
    shutil.copytree(shelf / "small", tmp_path / "named" / name)
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(tmp_path / "named"))
    with urllib.request.urlopen(f"{server.url}/api/games", timeout=10) as answer:
        (offer,) = (offer for offer in json.loads(answer.read()) if offer["name"] == name)
    with urllib.request.urlopen(f"{server.url}/{offer['poster']}", timeout=10) as answer:
        assert answer.read(4) == b"\x89PNG"
    with server.page() as page:
        assert page.open(game=name)["name"] == name


def test_the_pixels_on_the_page_are_those_that_were_dreamt(server: Server):
    with server.page() as page:
        page.open(seed=5)
        page.view(lambda v: v["moment"] >= 2)
        page.send("pause", on=True)
        paused = page.view(lambda v: v["paused"])
        session = server.house.lobby.players[0].dreaming.session
        assert session.timeline.cursor == paused["moment"] and session.view.frame.any()
        np.testing.assert_array_equal(pixels(page.views[-1][1][0]), session.view.frame)


def test_a_key_is_in_the_next_frame_and_comes_back_with_its_number(server: Server):
    with server.page() as page:
        page.open()
        page.view()
        page.send("press", key="right", n=41)
        view = page.view(lambda v: v["echo"] is not None)
        assert view["echo"] == 41 and view["name"] == "RIGHT"
        assert page.view(lambda v: v["moment"] > view["moment"])["name"] == "RIGHT"
        page.send("release", key="right")
        assert page.view(lambda v: v["name"] == "NOOP")


def test_a_tap_shorter_than_a_step_is_not_lost(server: Server):
    with server.page() as page:
        page.open()
        page.view()
        page.send("press", key="left", n=1)
        page.send("release", key="left")
        assert page.view(lambda v: v["name"] == "LEFT", timeout=2)


def test_time_obeys(server: Server):
    with server.page() as page:
        page.open()
        page.view(lambda v: v["moment"] >= 6)
        page.send("pause", on=True)
        paused = page.view(lambda v: v["paused"])
        page.send("step")
        assert page.view(lambda v: v["moment"] > paused["moment"])["moment"] == paused["moment"] + 1
        page.send("rewind", moment=2, done=False)
        back = page.view(lambda v: v["moment"] == 2)
        assert back["last"] == paused["moment"] + 1 and back["paused"]
        page.send("rewind", moment=3, done=True)
        assert page.view(lambda v: v["moment"] == 3)["paused"]
        page.send("pause", on=False)
        on = page.view(lambda v: v["moment"] > 3)
        assert on["last"] == on["moment"]


def test_the_same_dream_after_going_back(server: Server):
    """A dream is a value: the same action from the same moment leads to the same pixels."""
    with server.page() as page:
        page.open()
        # at the beginning, going back to it would be nothing new to see
        page.view(lambda v: v["moment"] > 0)
        page.send("knobs", steps=3)
        page.send("pause", on=True)
        page.view(lambda v: v["paused"])
        seen = []
        for _ in range(2):
            page.send("rewind", moment=0)
            page.view(lambda v: v["moment"] == 0)
            for i in range(3):
                page.send("step")
                page.view(lambda v, i=i: v["moment"] == i + 1)
            seen.append(pixels(page.views[-1][1][0]))
        np.testing.assert_array_equal(*seen)


def test_who_plays(server: Server):
    with server.page() as page:
        page.open()
        page.send("who", who="random")
        page.view(lambda v: v["who"] == "random" and v["name"] != "NOOP", timeout=20)
        page.send("mind", on=True)
        page.send("who", who="agent")
        view = page.view(lambda v: v["who"] == "agent" and v["p"] is not None)
        assert len(view["p"]) == 3 and abs(sum(view["p"]) - 1) < 0.01


def test_all_futures_at_once(server: Server):
    with server.page() as page:
        page.open()
        page.view()
        page.send("fork")
        deadline = time.monotonic() + 20
        while not page.sheets and time.monotonic() < deadline:
            page.take()
        fields, (image,) = page.sheets[-1]
        assert fields["what"] == "fan" and fields["actions"] == NAMES
        assert pixels(image).shape == (3 * 16, fields["steps"] * 16, 3)
        moment = page.views[-1][0]["moment"]
        page.send("branch", action=2)
        view = page.view(lambda v: v["moment"] >= moment + fields["steps"])
        assert not view["paused"] or page.view(lambda v: not v["paused"])
        at = [i for i, (v, _) in enumerate(page.views) if v["moment"] == moment + fields["steps"]]
        if at:
            last = pixels(image)[2 * 16:3 * 16, -16:]
            np.testing.assert_array_equal(pixels(page.views[at[0]][1][0]), last)


def test_futures_are_forgotten_with_their_dream(server: Server, monkeypatch: pytest.MonkeyPatch):
    """A host that dreams no future any more, as behind the end of a dream."""
    monkeypatch.setattr(Session, "grow_fan", lambda session: session.fan)
    with server.page() as page:
        page.open()
        page.view()
        page.send("fork")
        assert "futures" in page.until("note")["text"]
        page.send("open", game="small")
        page.until("opened")
        page.view(lambda v: v["moment"] > 3)
        page.events.clear()
        page.view(lambda v: v["moment"] > 12)
        assert not [e for e in page.events if "futures" in e.get("text", "")]


def test_who_takes_a_step_meanwhile_looks_at_no_futures_and_stays_there(server: Server, monkeypatch):
    monkeypatch.setattr(Session, "grow_fan", lambda session: session.fan)
    with server.page() as page:
        page.open()
        page.view()
        page.send("fork")
        page.until("note")
        moment = page.view(lambda v: v["paused"])["moment"]
        page.send("step")
        page.view(lambda v: v["moment"] == moment + 1 and v["paused"])
        page.send("denoise")
        while not page.sheets:
            page.take()
        page.send("unfork")
        page.send("who", who="random")
        assert page.view(lambda v: v["who"] == "random")["paused"]
        assert [fields["what"] for fields, _ in page.sheets] == ["denoising"]


@pytest.mark.parametrize("paused", [True, False])
def test_who_was_paused_stays_so_after_a_look_at_the_futures(server: Server, paused: bool):
    with server.page() as page:
        page.open()
        page.view()
        if paused:
            page.send("pause", on=True)
            page.view(lambda v: v["paused"])
        page.send("fork")
        while not page.sheets:
            page.take()
        page.send("unfork")
        page.send("who", who="random")
        assert page.view(lambda v: v["who"] == "random" and v["paused"] is paused)["paused"] is paused


def test_a_frame_appears_out_of_noise(server: Server):
    with server.page() as page:
        page.open()
        page.view(lambda v: v["moment"] > 2)
        page.send("denoise")
        while not page.sheets:
            page.take()
        fields, (image,) = page.sheets[-1]
        assert fields["what"] == "denoising" and pixels(image).shape == (16, 16 * len(fields["sigmas"]), 3)
        assert fields["sigmas"][-1] is None and fields["sigmas"][0] > fields["sigmas"][1]
        frame = pixels(page.views[-1][1][0])
        np.testing.assert_array_equal(pixels(image)[:, -16:], frame)
        # play goes on when the sheet is closed, but not against a person's own pause
        page.send("unfork")
        page.view(lambda v: not v["paused"])
        page.send("pause", on=True)
        page.view(lambda v: v["paused"])
        page.send("denoise")
        while len(page.sheets) < 2:
            page.take()
        page.send("unfork")
        page.send("press", key="left", n=1)
        time.sleep(0.3)
        page.send("step")
        assert page.view(lambda v: v["name"] == "LEFT")["paused"]


def test_knobs_and_paint(server: Server):
    with server.page() as page:
        page.open()
        page.view()
        page.send("knobs", steps=1, order=2, churn=0.5, temperature=0.9)
        assert page.view(lambda v: v["steps"] == 1)
        page.send("paint", path=[[3, 4]], new=True, radius=0, rgb=[255, 0, 9])
        page.view(lambda v: v["paused"])
        assert pixels(page.views[-1][1][0])[4, 3].tolist() == [255, 0, 9]
        page.send("paint", path=[[3, 4], [5, 4]], new=False, radius=0, rgb=[255, 0, 9])
        page.view(lambda v: True)
        assert (pixels(page.views[-1][1][0])[4, 3:6] == [255, 0, 9]).all()
        page.send("unpaint")
        page.view(lambda v: True)
        assert pixels(page.views[-1][1][0])[4, 3].tolist() != [255, 0, 9], "a stroke is one"
        page.send("paint", path=[[1000, 4]], new=True, radius=0, rgb=[255, 0, 9])
        page.send("reset", seed=1)
        assert page.view(lambda v: v["age"] == 0)


def test_what_cannot_be_is_said_and_nothing_breaks(server: Server):
    with server.page() as page:
        page.open()
        for wish in ("wake", "sleep", "resync"):
            page.send(wish)
        page.send("show", view="twin")
        assert "reality" in page.view(lambda v: "reality" in v["note"])["note"]
        page.send("branch", action=1)
        assert "fan" in page.until("note")["text"]


@pytest.mark.parametrize("wish", [Dreaming._fork, Dreaming._denoise])
def test_who_is_awake_is_told_to_fall_asleep_first(wish):
    """What the dream was when it was left is no future of what is seen."""
    with pytest.raises(ValueError, match="you are awake: fall asleep to see"):
        wish(SimpleNamespace(session=SimpleNamespace(awake=True)))


@pytest.mark.parametrize("nth", [0, 1])
def test_a_link_tells_the_same_dream(server: Server, nth: int):
    with server.page() as page:
        page.open(seed=9)
        begun = 0
        for _ in range(nth):
            page.view(lambda v: v["age"] > 2)
            page.send("reset")
            begun = page.view(lambda v: v["age"] < 2)["moment"] - page.views[-1][0]["age"]
        for n, key in enumerate(("left", "right", "left")):
            page.send("knobs", steps=2 + n % 2, temperature=0.5)
            page.send("press", key=key, n=n)
            page.view(lambda v, n=n: v["echo"] == n)
            page.send("release", key=key)
        page.send("pause", on=True)
        view = page.view(lambda v: v["paused"])
        page.send("rewind", moment=view["moment"])
        picture = pixels(page.views[-1][1][0])
        page.send("link")
        query = page.until("link")["query"]
        assert len(query["actions"]) == view["moment"] - begun and (query["seed"], query["nth"]) == ("9", str(nth))
    with server.page() as other:
        other.open(query["game"], seed=int(query["seed"]), nth=int(query["nth"]), actions=query["actions"],
                   drawn=query["drawn"])
        assert other.view(lambda v: v["moment"] == len(query["actions"]), timeout=20)["steps"] == 2
        np.testing.assert_array_equal(pixels(other.views[-1][1][0]), picture)


def test_a_link_names_the_seed_of_its_own_game_and_none_after_paint(server: Server):
    with server.page() as page:
        page.open(seed=3)
        page.view(lambda v: v["age"] > 3)
        page.send("reset", seed=7)
        page.view(lambda v: v["moment"] > v["age"] + 1)
        page.send("pause", on=True)
        page.send("rewind", moment=2)
        page.send("link")
        assert page.until("link")["query"]["seed"] == "3"
        page.send("reset")
        page.send("paint", path=[[1, 1]], new=True, radius=1, rgb=[9, 9, 9])
        page.send("link")
        assert "a link can tell a dream that was played from its start" in page.until("unlinked")["why"]


def test_a_link_of_another_game_is_refused(server: Server):
    with server.page() as page:
        page.send("join")
        page.send("open", game="small", actions=DIGITS[-1])
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(9):
                page.take()
        assert "cut or changed" in closed.value.rcvd.reason


def test_who_comes_back_within_the_grace_goes_on_in_the_same_dream(server: Server):
    with server.page() as page:
        opened = page.open(seed=2)
        moment = page.view(lambda v: v["moment"] > 4)["moment"]
    time.sleep(0.4)
    with server.page() as page:
        page.send("join", resume=opened["secret"])
        again = page.until("opened")
        # nobody dreamt on meanwhile: a step or two may have been under way
        assert again["seed"] == 2 and moment <= again["moment"] <= moment + 3
        assert page.view(lambda v: v["moment"] > again["moment"])


def test_who_comes_back_before_the_old_line_is_known_to_be_cut_holds_no_key(server: Server):
    with server.page() as page, server.page() as back:
        opened = page.open()
        page.send("press", key="left", n=1)
        page.view(lambda v: v["name"] == "LEFT")
        back.send("join", resume=opened["secret"])
        back.until("opened")
        assert back.view(lambda v: v["name"] == "NOOP", timeout=5)


def test_who_comes_back_while_another_dream_loads_keeps_the_place(server: Server, monkeypatch: pytest.MonkeyPatch):
    load, may = server.house.shelf.load, threading.Event()
    with server.page() as page, server.page() as back:
        opened = page.open()
        monkeypatch.setattr(server.house.shelf, "load", lambda *asked: may.wait(20) and load(*asked))
        page.send("open", game="small", seed=2)
        page.until("loading")
        back.send("join", resume=opened["secret"])
        back.until("hello")
        back.send("open", game="small", seed=2)
        back.until("loading")
        with pytest.raises(ConnectionClosed):
            while True:
                page.take(5)
        may.set()
        assert back.until("opened")["secret"] == opened["secret"] and len(server.house.lobby.players) == 1


def test_who_is_cut_off_before_a_dream_began_holds_no_place(server: Server, monkeypatch: pytest.MonkeyPatch):
    """The page was told no secret yet, by which it could come back."""
    load, may = server.house.shelf.load, threading.Event()
    monkeypatch.setattr(server.house.shelf, "load", lambda *asked: may.wait(20) and load(*asked))
    with server.page() as page:
        page.send("join")
        page.send("open", game="small")
        page.until("loading")
    until = time.monotonic() + 10
    while server.house.lobby.players and time.monotonic() < until:
        time.sleep(0.05)
    may.set()
    assert server.house.lobby.players == []


def test_after_the_grace_the_dream_is_gone(crowded: Server):
    with crowded.page() as page:
        opened = page.open()
    until = time.monotonic() + 10
    while crowded.house.lobby.players and time.monotonic() < until:
        time.sleep(0.05)
    with crowded.page() as page:
        page.send("join", resume=opened["secret"])
        assert page.until("hello")
    assert crowded.house.host.sessions == []


def test_a_dream_opened_twice_belongs_to_the_newer_page(server: Server):
    with server.page() as page, server.page() as other:
        opened = page.open()
        other.send("join", resume=opened["secret"])
        other.until("opened")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                page.take(5)
        assert closed.value.rcvd.code == REPLACED


def test_a_queue_and_its_end(crowded: Server):
    with crowded.page() as a, crowded.page() as b, crowded.page() as c, crowded.page() as d, crowded.page() as e:
        a.open()
        b.open()
        for page, position in ((c, 1), (d, 2)):
            page.send("join")
            page.send("open", game="small")
            assert page.until("queue")["position"] == position
        e.send("join")
        e.send("open", game="small")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                e.take(5)
        assert "full" in closed.value.rcvd.reason
        a.send("leave")
        assert c.until("opened")
        assert d.until("queue")["position"] == 1


def test_spectators_see_and_cannot_touch(crowded: Server):
    with crowded.page() as page, crowded.page() as watcher, crowded.page() as late:
        opened = page.open()
        page.view()
        watcher.send("join", watch=opened["watch"])
        shown = watcher.until("opened")
        assert shown["watching"] and "secret" not in shown and "watch" not in shown
        watcher.view()
        watcher.send("press", key="right", n=1)
        watcher.send("pause", on=True)
        watcher.send("open", game="small")
        for _ in range(5):
            assert watcher.view()["name"] == "NOOP"
        late.send("join", watch=opened["watch"])
        with pytest.raises(ConnectionClosed):
            late.take(5)
        page.send("leave")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                watcher.take(5)
        assert "over" in closed.value.rcvd.reason


def test_sessions_never_see_each_other(server: Server):
    """Two with the same seed and other keys dream different things; one with the same keys dreams the same."""
    with server.page() as one, server.page() as two:
        assert one.open(seed=1)["secret"] != two.open(seed=1)["secret"]
        for page in (one, two):
            page.send("pause", on=True)
            page.view(lambda v: v["paused"])
            page.send("rewind", moment=0)
            page.view(lambda v: v["moment"] == 0)
        np.testing.assert_array_equal(pixels(one.views[-1][1][0]), pixels(two.views[-1][1][0]))
        one.send("press", key="right", n=1)
        for page in (one, two):
            page.send("step")
            page.view(lambda v: v["moment"] == 1)
        assert (one.views[-1][0]["name"], two.views[-1][0]["name"]) == ("RIGHT", "NOOP")
        assert not np.array_equal(pixels(one.views[-1][1][0]), pixels(two.views[-1][1][0]))


def test_a_slow_reader_gets_the_newest_picture_and_all_marks(server: Server):
    with server.page() as page:
        page.acknowledges = False
        page.open()
        while len(page.views) < 6:
            page.take()
        seen = page.views[-1][0]["moment"]
        time.sleep(1)
        # nothing more was sent than may be under way
        with pytest.raises(TimeoutError):
            page.take(0.2)
        page.send("got", seq=page.views[-1][0]["seq"])
        newest = page.view()
        assert newest["moment"] >= seen + 8
        moments = [mark[0] for mark in newest["marks"]]
        assert moments == list(range(seen + 1, newest["moment"] + 1))


def test_who_sleeps_at_the_keys_is_told(home, shelf):
    from dataclasses import replace

    from app.web.lobby import Bounds
    with Server(replace(home, bounds=Bounds(idle=0.3))) as server, server.page() as page:
        page.open()
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                page.take(8)
        assert closed.value.rcvd.code == IDLE


def test_eight_players_share_the_model_fairly(server: Server):
    pages = [server.page() for _ in range(8)]
    try:
        for i, page in enumerate(pages):
            page.open(seed=i)
        counts = []
        began = time.monotonic()
        while time.monotonic() - began < 2:
            for page in pages:
                page.take()
        for page in pages:
            counts.append(page.views[-1][0]["moment"])
        assert max(counts) - min(counts) <= 0.3 * max(counts) + 8
    finally:
        for page in pages:
            page.close()


def test_an_error_in_one_dream_is_its_own(server: Server, monkeypatch):
    with server.page() as good, server.page() as bad:
        good.open()
        bad.open()
        session = next(p for p in server.house.lobby.players if p.page is not None and p is not
                       server.house.lobby.players[0]).dreaming.session

        def broken(*_):
            raise RuntimeError("a bug")

        monkeypatch.setattr(session, "answer", broken)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                bad.take(5)
        assert "RuntimeError" in closed.value.rcvd.reason
        moment = good.view()["moment"]
        assert good.view(lambda v: v["moment"] > moment + 3)


def test_torch_is_kept_to_one_thread_here():
    assert torch.get_num_threads() == 1

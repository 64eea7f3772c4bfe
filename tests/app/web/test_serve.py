"""The server as a whole: links, ports, tunnels, what is missing, and which tabs are whose."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from starlette.testclient import TestClient

from app.cli import main
from app.web import require, serve
from app.web.access import Access, Gate
from app.web.house import House, Settings
from app.web.serve import Announced, Place, is_loopback, links, listen
from app.web.server import add_pages, colours

OWNER, VISITOR = "o" * 32, "v" * 32


def test_links():
    private, shared = Access(), Access(loopback=False, owner=OWNER, visitor=VISITOR, login=("ann", "sesame street"))
    assert links(private, "127.0.0.1", 80) == ["open http://127.0.0.1:80/  (Ctrl-C ends it)"]
    yours, theirs, door = links(shared, "10.0.0.2", 80)
    assert yours.endswith(f"http://10.0.0.2:80/?token={OWNER}") and theirs.endswith(f"http://10.0.0.2:80/?token={VISITOR}")
    assert door.endswith("http://10.0.0.2:80/") and "[::1]" in links(private, "::1", 80)[0]


def test_loopback_and_the_rest():
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "::1")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.1.2", "example.org")))


def test_the_next_port_is_taken_where_none_was_asked_for(monkeypatch: pytest.MonkeyPatch):
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        monkeypatch.setattr(serve, "PORT", port)
        with listen(Place()) as free:
            taken = free.getsockname()[1]
            assert port < taken <= port + serve.TRIES
            with pytest.raises(ValueError, match="--port"):  # also before anybody is let in
                listen(Place(port=taken))
        with pytest.raises(ValueError, match="--port"):
            listen(Place(port=port))
    with pytest.raises(ValueError, match="--port"):
        listen(Place(port=99999))


def test_without_a_network_there_is_no_tunnel_and_the_server_goes_on(monkeypatch: pytest.MonkeyPatch, capsys):
    def fails(port: int, host: str) -> str:
        raise RuntimeError("no\nnetwork")

    monkeypatch.setattr(serve, "tunnel", fails)
    server = Announced.__new__(Announced)
    server._access, server._place, server._port = Access(), Place(share=True), 1
    server._tunnel()
    assert capsys.readouterr().err == "no tunnel: no network; the links above still work\n"
    monkeypatch.setattr(serve, "tunnel", lambda port, host: "https://x.example")
    server._tunnel()
    assert capsys.readouterr().out == f"for everybody who has this link: https://x.example/?token={server._access.visitor}\n"


@pytest.mark.parametrize("args, words", [
    (["--auth", "ann"], "user:password"), (["--auth", "ann:short"], "8 characters"), (["--players", "0"], "--players"),
    (["--host", "nowhere.invalid"], "--host")])
def test_what_cannot_be_served(args: list[str], words: str, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["web", *args])
    assert stop.value.code == 2 and words in capsys.readouterr().err


def test_every_folder_is_what_it_is_called(monkeypatch: pytest.MonkeyPatch):
    told = []
    monkeypatch.setattr("app.web.serve.serve", lambda settings, place: told.append(settings))
    main(["web", "--runs", "r", "--data", "d", "--tapes", "t"])
    assert [str(folder) for folder in (told[0].runs, told[0].data, told[0].tapes)] == ["r", "d", "t"]


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    require()
    monkeypatch.setattr("app.web.find_spec", lambda name: None if name == "gradio" else object())
    with pytest.raises(ImportError, match=r"gradio missing.*pip install 'diamond-playground\[web\]'"):
        require()


def test_asking_for_help_needs_no_gradio():
    code = "import sys; from app.cli import main\ntry: main(['web', '--help'])\nexcept SystemExit: pass\n" \
           "print([m for m in ('gradio', 'fastapi', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip().endswith("[]")


def test_both_themes_have_every_colour():
    dark, light = colours().split("@media")
    names = {part.split(":")[0].strip() for part in light.split("{")[2].split(";") if part.strip().startswith("--")}
    assert {"--background", "--panel", "--line", "--text", "--muted", "--dream-ink", "--reality-ink"} <= names
    assert "--dream:#a78bfa" in dark and "--reality:#2dd4bf" in dark and "--dream:" not in light


@pytest.mark.parametrize("ink, ground", [("#6a45dd", "#ffffff"), ("#0b7468", "#ffffff"), ("#8a5a00", "#ffffff"),
                                         ("#b42318", "#ffffff"), ("#5a6374", "#f6f7fa"), ("#a78bfa", "#0b0d12"),
                                         ("#2dd4bf", "#141821"), ("#8b94a7", "#141821")])
def test_words_can_be_read(ink: str, ground: str):
    """WCAG 2.2, AA: a contrast of 4.5 or more."""
    assert ink in colours() and ground in colours()

    def light(colour: str) -> float:
        parts = [int(colour[i:i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    low, high = sorted((light(ink), light(ground)))
    assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.fixture(scope="module")
def beyond(tmp_path_factory, shelf) -> Settings:
    folder = tmp_path_factory.mktemp("beyond")
    access = Access(loopback=False, owner=OWNER, visitor=VISITOR, login=("ann", "sesame street"))
    return Settings(folder / "runs", folder / "data", folder / "tapes", folder / "shelf", "cpu", access=access)


TABS = """
import json, sys
from pathlib import Path
from starlette.testclient import TestClient
from app.web.access import Access
from app.web.house import House, Settings
from app.web.server import build
home, owner, visitor = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
access = Access(loopback=False, owner=owner, visitor=visitor)
app = build(House(Settings(home / "runs", home / "data", home / "tapes", home / "shelf", "cpu", access=access)))
client = lambda: TestClient(app, base_url="http://dreams.example")
theirs, ours = client(), client()
page = theirs.get(f"/?token={visitor}", headers={"accept": "text/html"}).text
print(json.dumps([page, theirs.get("/config").text, theirs.get("/studio/config").status_code,
                  theirs.post("/gradio_api/upload", files={"files": b"x"}).status_code,
                  ours.get(f"/studio/config?token={owner}").text]))
"""


@pytest.fixture(scope="module")
def seen(tmp_path_factory, shelf) -> list:
    """The page and the tabs of a visitor, and the owner's; Gradio leaves event loops open, so in a process apart."""
    command = [sys.executable, "-c", TABS, str(tmp_path_factory.mktemp("seen")), OWNER, VISITOR]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def test_visitors_have_no_way_to_ask_for_what_is_the_owners(seen):
    _, theirs, studio, upload, ours = seen
    assert "dream-player" in theirs and "dream-tapes" in theirs and "dream-blind" in theirs
    assert "Start training" not in theirs and "Bring in" not in theirs and "Delete" not in theirs
    assert (studio, upload) == (403, 403)
    assert "Start training" in ours and "Bring in these files" in ours


def test_nothing_is_fetched_from_others(seen):
    assert "/ui/player.js" in seen[0]
    for stranger in ("fonts.googleapis", "cdnjs", "cdn.jsdelivr", "unpkg", '"analytics_enabled":true'):
        assert stranger not in seen[0]


def test_the_door(beyond: Settings):
    from fastapi import FastAPI
    house = House(replace(beyond))
    inner = FastAPI()
    add_pages(inner, house)
    client = TestClient(Gate(inner, beyond.access), base_url="http://dreams.example", follow_redirects=False)
    assert client.get("/play").status_code == 401
    wrong = client.post("/login", data={"user": "ann", "password": "x"})
    assert wrong.status_code == 401 and "not right" in wrong.text
    right = client.post("/login", data={"user": "ann", "password": "sesame street"})
    assert right.status_code == 303 and VISITOR in right.headers["set-cookie"]
    assert client.get("/play").status_code == 200
    for _ in range(6):
        assert client.post("/login", data={"user": "ann", "password": "sesame street"}).status_code == 303
    # after a few wrong ones even the right one has to wait
    for _ in range(6):
        client.post("/login", data={"user": "ann", "password": "guess"})
    late = client.post("/login", data={"user": "ann", "password": "sesame street"})
    assert late.status_code == 429 and "Too many" in late.text and "not right" not in late.text


@pytest.mark.parametrize(("host", "end"), [("0.0.0.0", "127.0.0.1"), ("::", "::1"), ("192.0.2.2", "192.0.2.2")])
def test_a_tunnel_leads_to_where_the_server_listens(monkeypatch: pytest.MonkeyPatch, host: str, end: str):
    networking = pytest.importorskip("gradio.networking")
    monkeypatch.setattr(networking, "setup_tunnel", lambda host, port, *_: f"https://{host}-{port}/")
    assert serve.tunnel(7860, host) == f"https://{end}-7860"

"""A real browser: the page opens, a game is picked, keys move what is seen, twins, tapes, trainings."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import imageio_ffmpeg
import pytest
import torch

from app.web.access import Access
from app.web.house import Settings
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import Card, save_checkpoint
from tests.app.web.conftest import Server, small_checkpoint
from tests.conftest import SMALL

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]
SERVE = """
import sys
from pathlib import Path
from app.web.house import Settings
from app.web.serve import Place, serve
home = Path(sys.argv[1])
settings = Settings(home / "runs", home / "data", home / "tapes", home / "shelf", "cpu", quicken=lambda *_: None)
serve(settings, Place(port=0))
"""
SOON = 30_000
"""Milliseconds that anything may take on a busy machine."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("home")
    small_checkpoint(folder / "shelf" / "small")
    torch.manual_seed(1)
    agent = Agent.from_config(SMALL, 6)
    names = ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"]
    with torch.no_grad():
        agent.reward_end.head[0].bias += 5.0
        agent.reward_end.head[-1].weight[-2], agent.reward_end.head[-1].weight[-1] = 20.0, -20.0
    frames = torch.randint(0, 256, (4, 4, 3, 16, 16), dtype=torch.uint8)
    starts = {"frames": frames, "actions": torch.zeros(4, 4, dtype=torch.int64)}
    save_checkpoint(folder / "shelf" / "tiny-pong", agent, Card("Pong", names, SMALL), starts)
    return folder


@pytest.fixture(scope="module")
def url(home: Path) -> Iterator[str]:
    environment = {**os.environ, "DIAMOND_CHECKPOINTS": str(home / "shelf")}
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(home)], stdout=subprocess.PIPE, text=True,
                               env=environment)
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, line
    yield found.group()
    process.terminate()
    process.wait(20)
    process.stdout.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    with sync_api.sync_playwright() as p:
        chromium = p.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, url: str) -> Iterator[object]:
    """A page that stays in the house: whatever it asks of others, and every error in it, fails the test."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, bypass_csp=True, accept_downloads=True)
    page = context.new_page()
    page.set_default_timeout(SOON)
    troubles: list[str] = []
    page.on("pageerror", lambda error: troubles.append(str(error)))
    page.on("request", lambda r: troubles.append(r.url) if not r.url.startswith((url, "data:", "blob:",
                                                                                 url.replace("http", "ws"))) else None)
    page.on("response", lambda r: troubles.append(f"{r.status} {r.url}") if r.status >= 400 else None)
    yield page
    context.close()
    assert troubles == []


def enter(page, url: str, game: str) -> None:
    page.goto(url)
    page.click(f"dream-player .card[data-game={game}]")
    page.wait_for_function("document.querySelector('dream-player').view")


def view(page, name: str):
    return page.evaluate(f"document.querySelector('dream-player').view.{name}")


def when(page, condition: str) -> None:
    """Waits until something holds of the view v."""
    page.wait_for_function(f"(v => v && ({condition}))(document.querySelector('dream-player').view)")


PIXELS = """(panel) => { const c = document.querySelector('dream-player').shadowRoot.querySelector(
    `[data-panel=${panel}]`); return [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]; }"""


def test_a_game_is_picked_and_played(page, url: str):
    enter(page, url, "small")
    before = page.evaluate(PIXELS, "dream")
    page.keyboard.down("ArrowRight")
    when(page, "v.name === 'RIGHT'")
    page.keyboard.up("ArrowRight")
    when(page, "v.name === 'NOOP'")
    assert page.evaluate(PIXELS, "dream") != before
    assert page.locator("dream-player [data-number=way]").text_content().endswith(" ms")
    page.keyboard.press("p")
    when(page, "v.paused")
    moment = view(page, "moment")
    page.keyboard.press(".")
    when(page, f"v.moment === {moment + 1}")
    page.keyboard.press("p")
    when(page, f"!v.paused && v.moment > {moment + 2}")


def test_the_paddle_follows_the_keys_in_the_real_dream(page, url: str):
    """The shipped Pong: the green paddle goes up, then down."""
    where = """() => { const c = document.querySelector('dream-player').shadowRoot.querySelector('[data-panel=dream]');
        const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let sum = 0, n = 0;
        for (let y = 9; y < 62; y++) for (let x = 50; x < 64; x++) { const i = 4 * (y * c.width + x);
            if (d[i + 1] > 130 && d[i] < 140 && d[i + 2] < 140) { sum += y; n++; } }
        return n ? sum / n : null; }"""
    enter(page, url, "Pong")
    for key, goes_down in (("ArrowDown", True), ("ArrowUp", False)):
        page.wait_for_function(f"({where})() !== null")
        start = page.evaluate(where)
        page.keyboard.down(key)
        page.wait_for_function(f"(() => {{ const y = ({where})(); return y !== null && "
                               f"({'y' if goes_down else '-y'} > {start + 3 if goes_down else -(start - 3)} || "
                               f"{'y > 52' if goes_down else 'y < 16'}); }})()")
        page.keyboard.up(key)


def test_twin_wake_up_and_fall_asleep(page, url: str):
    enter(page, url, "tiny-pong")
    page.keyboard.press("t")
    when(page, "v.show === 'twin' && v.pictures.length === 2 && v.psnr !== null")
    assert page.locator("dream-player figure.reality").is_visible()
    assert page.evaluate(PIXELS, "reality") != page.evaluate(PIXELS, "dream")
    page.keyboard.press("k")
    when(page, "v.awake && v.show === 'reality'")
    before = page.evaluate(PIXELS, "reality")
    page.keyboard.down("ArrowUp")
    when(page, "v.name === 'RIGHT'")
    time.sleep(0.5)
    page.keyboard.up("ArrowUp")
    assert page.evaluate(PIXELS, "reality") != before
    page.keyboard.press("k")
    when(page, "!v.awake")


def test_what_if_and_back(page, url: str):
    enter(page, url, "small")
    when(page, "v.moment > 5")
    page.keyboard.press("f")
    page.wait_for_selector("dream-player .futures button[data-action='2'] canvas")
    moment = view(page, "moment")
    page.click("dream-player .futures button[data-action='2']")
    when(page, f"v.moment >= {moment + 10}")
    page.keyboard.press("p")
    when(page, "v.paused")
    moment = view(page, "moment")
    page.keyboard.press(",")
    when(page, f"v.moment < {moment}")
    page.keyboard.press("v")
    page.wait_for_selector("dream-player .levels canvas")
    page.keyboard.press("Escape")
    page.wait_for_selector("dream-player .sheet", state="hidden")


def test_who_goes_on_before_the_futures_are_there_is_shown_none(page, url: str):
    enter(page, url, "tiny-pong")
    page.evaluate("""() => { window.stood = null;  // the pause is too short to be waited for from outside
        window.addEventListener("dream-view", ({ detail }) => { if (window.stood === null && detail.paused) {
            window.stood = detail.moment; document.querySelector("dream-player").do("pause"); } }); }""")
    page.keyboard.press("f")
    when(page, "window.stood !== null && !v.paused && v.moment > window.stood + 20")
    assert page.locator("dream-player .sheet").is_hidden()
    page.keyboard.press("f")
    page.wait_for_selector("dream-player .futures button canvas")


def test_futures_stand_still_for_who_wants_no_motion(browser, url: str):
    context = browser.new_context(reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(SOON)
    enter(page, url, "small")
    page.keyboard.press("f")
    page.wait_for_selector("dream-player .futures canvas")
    pictures = set()
    for _ in range(5):
        pictures.add(page.evaluate("document.querySelector('dream-player').find('.futures canvas').toDataURL()"))
        time.sleep(0.15)
    context.close()
    assert len(pictures) == 1


def test_keys_of_other_alphabets_are_where_they_are(page, url: str):
    enter(page, url, "small")
    press = """([t, key, code]) => window.dispatchEvent(new KeyboardEvent(t, { key, code, bubbles: true }))"""
    page.evaluate(press, ["keydown", "ф", "KeyA"])
    when(page, "v.name === 'LEFT'")
    page.evaluate(press, ["keyup", "ф", "KeyA"])
    page.evaluate(press, ["keydown", "з", "KeyP"])
    when(page, "v.paused")


def test_a_key_pressed_while_time_stands_still_was_not_late(page, url: str):
    enter(page, url, "small")
    page.keyboard.press("p")
    when(page, "v.paused")
    page.keyboard.press("ArrowLeft")
    moment = view(page, "moment")
    time.sleep(1)
    page.keyboard.press("p")
    when(page, f"v.moment > {moment + 5}")
    assert page.evaluate("document.querySelector('dream-player').ways.every((ms) => ms < 1000)")


def test_a_word_is_said_once(page, url: str):
    enter(page, url, "tiny-pong")
    page.evaluate("""() => { window.said = []; new MutationObserver((all) => all.forEach((m) => window.said.push(
        ...[...m.addedNodes].map((n) => n.textContent)))).observe(
        document.querySelector("dream-player").find(".note"), { childList: true }); }""")
    page.keyboard.press("k")
    when(page, "v.awake")
    when(page, f"v.moment > {view(page, 'moment') + 8}")
    assert len(page.evaluate("window.said")) == len(set(page.evaluate("window.said"))) > 0
    page.keyboard.press("f")
    page.wait_for_selector("dream-player .note:has-text('fall asleep to see what the dream would bring')")
    when(page, f"v.moment > {view(page, 'moment') + 8}")
    assert "fall asleep to see" in page.locator("dream-player .note").inner_text(), "the word before does not come back"


def test_a_second_link_in_the_same_tab_is_opened(page, url: str):
    page.goto(f"{url}play#game=small&seed=11")
    when(page, "v.moment > 2")
    page.goto(f"{url}play#game=tiny-pong&seed=22")
    page.wait_for_function("document.querySelector('dream-player').game?.seed === 22")
    assert page.evaluate("document.querySelector('dream-player').game.name") == "tiny-pong"


def test_a_tape_is_brought_in_by_its_own_name(page, url: str, tmp_path: Path):
    enter(page, url, "small")
    page.keyboard.press("r")
    when(page, "v.tape > 3")
    page.keyboard.press("r")
    with page.expect_download() as download:
        page.click("dream-player .kept a[href$=tape]")
    download.value.save_as(tmp_path / "Понг 2.tape")
    page.get_by_role("tab", name="Record", exact=True).click()
    page.on("dialog", lambda dialog: dialog.accept())
    page.wait_for_function("document.querySelector('dream-tapes').shadowRoot.querySelector('video')?.duration > 0")
    page.locator("dream-tapes article").first.get_by_text("Delete", exact=True).click()
    page.wait_for_selector("dream-tapes .empty")
    page.set_input_files("dream-tapes input[type=file]", tmp_path / "Понг 2.tape")
    page.wait_for_selector("dream-tapes .said:has-text('Понг 2 is here')")
    title = page.get_by_label("Title of the recording")
    title.fill("The best")
    with page.expect_response(lambda r: "/title?" in r.url):
        title.press("Enter")
    assert page.locator("dream-tapes a[download]").first.get_attribute("download").startswith("The best ")
    page.reload()
    page.get_by_role("tab", name="Record", exact=True).click()
    assert page.get_by_label("Title of the recording").input_value() == "The best"
    # keys reach the button that brings in another
    page.locator("body").click(position={"x": 2, "y": 2})
    inside = "document.activeElement?.shadowRoot?.activeElement?.type"
    for _ in range(12):
        page.keyboard.press("Tab")
        if page.evaluate(inside) == "file":
            break
    assert page.evaluate(inside) == "file"


def test_the_way_back_leads_to_the_games_and_forward_into_the_dream_again(page, url: str):
    page.goto(f"{url}ui/look.css")
    enter(page, url, "small")
    seed = page.evaluate("document.querySelector('dream-player').dream.seed")
    assert page.url.endswith(f"#game=small&seed={seed}")
    page.reload()
    page.wait_for_function("document.querySelector('dream-player')?.view")
    assert page.evaluate("document.querySelector('dream-player').dream.seed") == seed
    page.go_back()
    page.wait_for_selector("dream-player .card[data-game=small]:visible")
    assert "#" not in page.url
    page.go_forward()
    page.wait_for_function("document.querySelector('dream-player')?.view")
    page.click("dream-player [data-do=leave]")
    page.wait_for_selector("dream-player .card[data-game=small]:visible")
    page.wait_for_function("!location.hash")
    page.go_back()
    assert page.url.endswith("look.css")


def test_who_came_by_a_link_gets_to_the_games_and_stays_there(page, url: str):
    """And whoever loads the page again, or loses the server, finds the dream that was dreamt last."""
    page.goto(f"{url}play#game=small&seed=5&nth=0&actions=000&drawn=0-1-1-0-5")
    page.wait_for_function("document.querySelector('dream-player')?.view")
    page.click("dream-player [data-do=more]")
    page.fill("dream-player input[name=seed]", "42")
    page.press("dream-player input[name=seed]", "Enter")
    assert page.url.endswith("play#game=small&seed=42")
    assert page.evaluate("document.querySelector('dream-player').dream.seed") == 42
    for card in ("tiny-pong", "small"):
        page.click("dream-player [data-do=leave]")
        page.wait_for_selector(f"dream-player .card[data-game={card}]:visible")
        page.wait_for_function("!location.hash")
        page.click(f"dream-player .card[data-game={card}]")
        page.wait_for_function(f"document.querySelector('dream-player').view && location.hash.includes('{card}')")
    page.click("dream-player [data-do=leave]")
    page.wait_for_function("!location.hash")
    page.wait_for_timeout(500)
    assert page.locator("dream-player .card[data-game=small]").is_visible(), "it came back by itself"


def test_keys_go_on_behind_a_copied_link(page, url: str):
    enter(page, url, "small")
    page.keyboard.press("r")
    when(page, "v.tape > 3")
    page.click("dream-player [data-do=more]")
    page.click("dream-player [data-do=link]")
    page.wait_for_selector("dream-player .shared textarea")
    page.keyboard.press("p")
    when(page, "v.paused")


def test_the_gallery_shows_what_came_meanwhile(page, url: str, home: Path):
    page.goto(url)
    page.wait_for_selector("dream-player .card[data-game=small]:visible")
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.select_option("dream-blind select >> nth=0", "tiny-pong")
    shutil.copytree(home / "shelf" / "small", home / "shelf" / "afresh")
    page.get_by_role("tab", name="Play", exact=True).click()
    page.wait_for_selector("dream-player .card[data-game=afresh]:visible")
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_selector("dream-blind option[value=afresh]", state="attached")
    assert page.locator("dream-blind select >> nth=0").input_value() == "tiny-pong"
    shutil.rmtree(home / "shelf" / "afresh")
    page.get_by_role("tab", name="Play", exact=True).click()
    page.wait_for_selector("dream-player .card[data-game=afresh]", state="detached")


def test_a_card_stays_while_its_recording_does(page, url: str):
    for _ in range(2):
        enter(page, url, "small")
        page.keyboard.press("r")
        when(page, "v.tape > 3")
        page.keyboard.press("r")
        page.wait_for_selector("dream-player .kept:has-text('kept')")
        page.get_by_role("tab", name="Record", exact=True).click()
        page.wait_for_selector("dream-tapes article")
        page.evaluate("[...document.querySelector('dream-tapes').cards.values()].forEach(({ card }) => card.old = 1)")
        page.get_by_role("tab", name="Play", exact=True).click()
        page.click("dream-player [data-do=leave]")
    old = "[...document.querySelector('dream-tapes').shadowRoot.querySelectorAll('article')].map((x) => x.old ?? 0)"
    before = page.evaluate(old)
    page.evaluate("""async () => { const t = document.querySelector('dream-tapes');
        const [first] = [...t.cards.values()].map(({ tape }) => tape);
        await fetch(`api/tapes/${first.id}/title?title=other`, { method: "POST" });
        const named = [...t.cards.values()].map(({ tape }) => tape);
        t.show([{ ...named[0], id: "bbbbbbbb", has_film: false },
                ...named.map((x) => ({ ...x, title: "other" }))]); }""")
    titles = "[...document.querySelector('dream-tapes').shadowRoot.querySelectorAll('.title')].map((x) => x.value)"
    assert set(page.evaluate(titles)[1:]) == {"other"}
    assert page.evaluate(old) == [0, *before] and 1 in before
    page.evaluate("document.querySelector('dream-tapes').show([])")
    page.wait_for_selector("dream-tapes .empty", state="attached")


def test_a_question_that_is_gone_says_so(browser, url: str):
    page = browser.new_page()
    page.goto(url)
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_function("customElements.get('dream-blind') !== undefined")
    page.evaluate("document.querySelector('dream-blind').choose('nothing', 0, 5)")
    page.wait_for_selector("dream-blind .said:has-text('take the next one.')")
    page.evaluate("() => { window.fetch = () => Promise.reject(new TypeError('Failed to fetch')); }")
    page.click("dream-blind .next")
    page.wait_for_selector("dream-blind .said:has-text('The server cannot be reached.')")
    page.close()


def test_an_embedded_dream_says_its_keys(page, url: str):
    page.set_viewport_size({"width": 480, "height": 600})
    page.goto(f"{url}play?embed=1&game=small")
    page.wait_for_function("document.querySelector('dream-player')?.view")
    page.wait_for_selector("dream-player .hint:has-text('for more'):visible")
    hint, line, bar = (page.locator(f"dream-player {name}").bounding_box() for name in (".hint", ".line", ".timeline"))
    assert line["y"] + line["height"] <= hint["y"] and hint["y"] + hint["height"] <= bar["y"] < 600, "they overlap"


def test_escape_ends_the_wait_for_all_futures(page, url: str):
    enter(page, url, "small")
    when(page, "v.moment > 3")
    page.evaluate("""() => { const p = document.querySelector('dream-player'), send = p.send.bind(p); p.sent = [];
        p.send = (t, fields) => { p.sent.push(t); return t === 'fork' ? true : send(t, fields); }; }""")
    page.keyboard.press("f")
    page.keyboard.press("Escape")
    sent = page.evaluate("document.querySelector('dream-player').sent")
    assert sent[sent.index("fork"):].count("unfork") == 1


def test_a_list_closes_behind_whoever_tabs_on(page, url: str):
    page.goto(url)
    page.get_by_role("tab", name="Train", exact=True).click()
    page.get_by_label("Game").first.focus()
    opened = "[...document.querySelectorAll('ul[role=listbox]')].filter((list) => list.offsetParent).length"
    page.wait_for_function(f"{opened} === 1")
    page.keyboard.press("Tab")
    page.wait_for_function("document.activeElement.type === 'radio'")
    page.wait_for_timeout(500)
    assert page.evaluate(opened) == 0


def test_a_recording_is_a_film_that_plays(page, url: str, tmp_path: Path):
    enter(page, url, "small")
    page.keyboard.press("r")
    when(page, "v.tape > 20")
    page.keyboard.press("r")
    page.wait_for_selector("dream-player .kept:has-text('kept')")
    page.evaluate("document.querySelector('dream-player').say('something else')")
    with page.expect_download() as download:
        page.click("dream-player .kept a:has-text('MP4')")
    film = tmp_path / "dream.mp4"
    download.value.save_as(film)
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(film))
    assert frames > 20 and seconds == pytest.approx(frames / 15, abs=0.2)
    page.get_by_role("tab", name="Record", exact=True).click()
    page.wait_for_function("""document.querySelector('dream-tapes').shadowRoot.querySelector('video')?.duration > 1""")
    page.click("dream-tapes button:has-text('Prove')")
    page.wait_for_selector("dream-tapes button:has-text('Same to the last bit')")
    page.click("dream-tapes button:has-text('Dream it again')")
    when(page, "v.age > 3")


def test_a_dream_that_nobody_sees_waits(page, url: str):
    enter(page, url, "small")
    train = page.get_by_role("tab", name="Train", exact=True)
    train.click()
    when(page, "v.paused")
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # back from elsewhere, and still not there
    page.wait_for_timeout(500)
    assert view(page, "paused")
    page.evaluate("window.dispatchEvent(new CustomEvent('dream-open', { detail: { game: 'small' } }))")
    when(page, "!v.paused && v.moment > 3")
    train.click()
    when(page, "v.paused")


def test_the_connection_is_lost_and_found(page, url: str):
    enter(page, url, "small")
    when(page, "v.moment > 8")
    moment = view(page, "moment")
    page.evaluate("document.querySelector('dream-player').link.socket.close()")
    when(page, f"v.moment > {moment + 5}")
    assert view(page, "moment") < moment + 200
    assert page.locator("dream-player .veil").is_hidden()


def test_what_was_hidden_when_the_line_was_cut_goes_on_when_it_is_seen(page, url: str):
    enter(page, url, "small")
    hide = """(hidden) => { Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
        document.dispatchEvent(new Event("visibilitychange")); }"""
    page.evaluate(hide, True)
    when(page, "v.paused")
    page.evaluate(f"document.querySelector('dream-player').link.socket.close(); ({hide})(false)")
    when(page, f"!v.paused && v.moment > {view(page, 'moment') + 5}")


LINE = """async () => {
    const { Link } = await import("/ui/link.js"), sockets = [], seen = [], told = [];
    const [Real, decode, now] = [window.WebSocket, window.createImageBitmap, performance.now];
    window.WebSocket = class { constructor() { this.readyState = 0; sockets.push(this); } send() {}
        close() { this.readyState = 3; } open() { this.readyState = 1; this.onopen(); } };
    window.createImageBitmap = async () => new Promise((done) => setTimeout(done, 600));
    const picture = (seq) => {
        const json = new TextEncoder().encode(JSON.stringify({ seq })), data = new Uint8Array(12 + json.length);
        data[2] = 1; new DataView(data.buffer).setUint32(3, json.length, true);
        data.set(json, 7); new DataView(data.buffer).setUint32(7 + json.length, 1, true);
        return { data: data.buffer };
    };
    const some = (ms) => new Promise((done) => setTimeout(done, ms));
    const on = (name, fields) => (name === "view" ? seen.push(fields.seq) : told.push(name)), link = new Link(on, {});
    sockets[0].open();
    sockets[0].onmessage(picture(600));
    sockets[0].onclose({ code: 1006 });
    while (sockets.length < 2) await some(20);
    sockets[1].open();
    sockets[1].onmessage(picture(1));
    await some(900);
    link.ping();
    let ahead = 0;
    performance.now = () => now.call(performance) + ahead;
    const lost = told.length;
    ahead = 31000; link.ping();
    const silent = told.slice(lost);
    Object.assign(window, { WebSocket: Real, createImageBitmap: decode });
    delete performance.now;
    link.close();
    return { seen, silent };
}"""


def test_a_picture_of_a_lost_line_is_left_out_and_a_silent_line_is_given_up(page, url: str):
    page.goto(f"{url}play")
    assert page.evaluate(LINE) == {"seen": [1], "silent": ["lost"]}


def test_whatever_is_asked_too_early_or_too_much_is_forgiven(page, url: str):
    page.goto(f"{url}play#game=small&seed=99999999999")
    page.evaluate("document.querySelector('dream-player').do('rewind')")
    when(page, "v.moment > 3")
    assert page.evaluate("document.querySelector('dream-player').dream.seed") == 2**24 - 1
    page.keyboard.press("?")
    page.fill("dream-player input[name=seed]", "-20000000")
    page.click("dream-player [data-do=reset]")
    when(page, f"v.moment > {view(page, 'moment') + 5}")
    assert page.locator("dream-player .veil").is_hidden()
    assert page.input_value("dream-player input[name=seed]") == "0"
    page.check("dream-player input[name=paint]")
    page.evaluate("""() => { const player = document.querySelector("dream-player"), { canvas } = player.panels.dream;
        const { x, y, width } = canvas.getBoundingClientRect(), send = player.send.bind(player);
        window.dabs = 0;
        player.send = (t, fields) => { window.dabs += t === "paint"; return send(t, fields); };
        for (let i = 0; i < 200; i++) canvas.dispatchEvent(new PointerEvent("pointermove", {
            buttons: 1, clientX: x + i / 200 * width, clientY: y + 5, bubbles: true })); }""")
    page.wait_for_function("window.dabs > 0")
    assert page.evaluate("window.dabs") < 5
    # hours of play leave what can be gone back to
    assert page.evaluate("""() => { const { timeline } = document.querySelector("dream-player");
        for (let i = 1; i < 20000; i++) timeline.add([[i, 0, 0, null, 0, 0, 0]], i, i);
        return timeline.marks.size; }""") == 5 * 60 * 15 + 1


def test_who_has_no_mouse_keeps_the_focus(page, url: str):
    enter(page, url, "small")
    when(page, "v.moment > 40")
    focus = "document.querySelector('dream-player').shadowRoot.activeElement.matches({!r})"
    page.keyboard.press("?")
    page.focus("dream-player input[name=temperature]")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focus.format("[name=temperature]"))
    page.keyboard.press("p")
    when(page, "v.paused")
    page.focus("dream-player .timeline")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(focus.format(".timeline"))
    page.wait_for_selector("dream-player .timeline[aria-valuetext='1.0 s ago']")


def test_as_it_was_is_how_the_dream_was_drawn_at_first(page, url: str):
    """Also behind a lost connection, and it leaves the pace alone."""
    enter(page, url, "small")
    drawer = "document.querySelector('dream-player').drawer"
    own = page.evaluate(f"{drawer}.game.own")

    def cut(temperature: float) -> None:
        page.evaluate("document.querySelector('dream-player').link.socket.close()")
        page.wait_for_function(f"{drawer}.game.knobs.temperature === {temperature}")

    page.keyboard.press("?")
    field = "dream-player input[name={}]"
    for name, value in (("temperature", "3"), ("speed", "2")):
        page.locator(field.format(name)).evaluate("""(input, value) => { input.value = value;
            input.dispatchEvent(new Event("change", { bubbles: true })); }""", value)
    cut(3)
    page.click("dream-player button[data-do=calm]")
    assert float(page.input_value(field.format("temperature"))) == own["temperature"] != 3
    assert page.input_value(field.format("speed")) == "2"
    cut(own["temperature"])


def test_a_start_is_a_start_again(page, url: str):
    enter(page, url, "small")
    page.keyboard.press("?")
    page.evaluate("""() => { const player = document.querySelector("dream-player"), send = player.send.bind(player);
        window.sent = [];
        player.send = (t, fields) => { if (t === "reset") window.sent.push(fields); return send(t, fields); }; }""")
    field = page.locator("dream-player input[name=seed]")
    for seed in ("7", "0", "0"):
        field.fill(seed)
        page.click("dream-player button[data-do=reset]")
    another = int(field.input_value())
    field.fill("0")
    field.press("Enter")
    assert page.evaluate("window.sent") == [{"seed": 7}, {"seed": 0}, {"seed": another}, {"seed": 0}] and another


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (1024, 768), (844, 390), (390, 844)])
def test_the_emulators_full_picture_has_a_place_or_none(page, url: str, width: int, height: int):
    page.set_viewport_size({"width": width, "height": height})
    page.goto(f"{url}play#game=tiny-pong")
    page.wait_for_function("document.querySelector('dream-player').view")
    page.keyboard.press("t")
    when(page, "v.show === 'twin'")
    before = page.locator("dream-player [data-panel=dream]").bounding_box()
    page.evaluate("document.querySelector('dream-player').drawer.tick('screen')")
    when(page, "v.pictures.includes('screen')")
    page.wait_for_timeout(200)
    boxes = [page.locator(f"dream-player figure.{name}").bounding_box() for name in ("dream", "reality", "screen")]
    room = page.locator("dream-player .pictures").bounding_box()
    shown = [box for box in boxes if box is not None]
    assert len(shown) == 3 or (width, height) == (844, 390)
    for i, box in enumerate(shown):
        assert room["y"] - 1 <= box["y"] and box["y"] + box["height"] <= room["y"] + room["height"] + 1
        assert room["x"] - 1 <= box["x"] and box["x"] + box["width"] <= room["x"] + room["width"] + 1
        assert all(box["x"] + box["width"] <= other["x"] or box["y"] + box["height"] <= other["y"]
                   for other in shown[i + 1:])
    now = page.locator("dream-player [data-panel=dream]").bounding_box()
    assert now["width"] >= 0.5 * before["width"]


def test_a_link_that_cannot_be_says_so_in_its_place(page, url: str):
    enter(page, url, "tiny-pong")
    when(page, "v.age > 2")
    page.keyboard.press("?")
    page.click("dream-player button[data-do=watchlink]")
    page.wait_for_selector("dream-player .shared:has-text('Only this machine reaches it')")
    page.click("dream-player button[data-do=resync]")
    page.click("dream-player button[data-do=link]")
    page.wait_for_selector("dream-player .shared:has-text('more came into this one')")
    assert page.locator("dream-player .shared textarea").count() == 0


def test_the_agents_mind_can_be_looked_into_while_time_stands_still(page, url: str):
    enter(page, url, "small")
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    when(page, "v.age > 2")
    page.keyboard.press("p")
    when(page, "v.paused")
    page.keyboard.press("n")
    page.wait_for_selector("dream-player .mind .value:has-text('expects')")
    assert not faults


def test_differences_do_not_lie_over_reality(page, url: str):
    enter(page, url, "tiny-pong")
    page.keyboard.press("t")
    when(page, "v.show === 'twin' && v.pictures.length === 2")
    page.keyboard.press("g")
    page.wait_for_selector("dream-player canvas.over:not([hidden])")
    page.keyboard.press("k")
    when(page, "v.awake")
    page.wait_for_selector("dream-player canvas.over", state="hidden")


def test_a_training_is_started_stopped_and_dreamt(page, url: str, home: Path):
    page.goto(url)
    page.get_by_role("tab", name="Train", exact=True).click()
    page.get_by_label("Game").first.fill("toy")
    page.keyboard.press("Enter")
    page.get_by_label("tiny").check()
    sync_api.expect(page.get_by_label("Begin with")).to_be_hidden()  # however hasty the two choices were
    page.get_by_role("button", name="More numbers").click()
    page.get_by_label("Batch size of the world").fill("2")
    page.click("#start-training")
    page.wait_for_selector(".run.training", timeout=120_000)
    (run,) = (home / "runs").glob("toy-*")
    wait(lambda: (run / "metrics.jsonl").exists() and "denoiser" in (run / "metrics.jsonl").read_text())
    page.wait_for_selector("#run-curves svg", timeout=60_000)
    for _ in range(3):  # in haste: the tab that is open first must not have the last word
        page.reload()
        page.get_by_role("tab", name="Train", exact=True).click()
        page.wait_for_selector("#run-status .run.training")
    page.click("#stop-training")
    page.wait_for_selector(".run.stopped", timeout=120_000)
    page.wait_for_selector(".samples img >> nth=9")
    page.click("#play-run")
    when(page, "v.moment >= 0")
    assert page.locator("dream-player [data-title]").text_content() == f"{run.name}, epoch 1"
    page.wait_for_selector("dream-player figure.dream canvas[width='8']")


def test_compare_and_models(page, url: str):
    page.goto(url)
    page.get_by_role("tab", name="Compare", exact=True).click()
    page.wait_for_selector("#reports svg polyline")
    page.select_option("dream-blind select >> nth=0", "tiny-pong")
    page.click("dream-blind .next")
    page.wait_for_selector("dream-blind .pair img >> nth=1")
    page.click("dream-blind .pair button >> nth=0")
    page.wait_for_selector("dream-blind .pair .reality")
    assert "of 1 right" in page.locator("dream-blind .scores").text_content()
    page.get_by_role("tab", name="Models", exact=True).click()
    page.wait_for_selector("#cards h3:has-text('tiny-pong')")


def test_thumbs_on_a_phone(browser, url: str):
    size = {"width": 390, "height": 844}
    context = browser.new_context(viewport=size, has_touch=True, is_mobile=True, bypass_csp=True)
    page = context.new_page()
    page.set_default_timeout(SOON)
    page.goto(url)
    page.get_by_role("tab", name="Models", exact=True).tap()
    assert page.locator("#tabs .overflow-menu button:visible").count() == 0, "tabs are hidden in a menu"
    page.goto(f"{url}play#game=tiny-pong")
    page.wait_for_function("document.querySelector('dream-player').view")
    # a tap is one step long: it is looked for among all that were seen
    page.evaluate("""() => { window.seen = new Set(); document.querySelector('dream-player').addEventListener(
        'dream-view', (event) => window.seen.add(event.detail.name)); }""")
    box = page.locator("dream-player .thumb").bounding_box()
    page.touchscreen.tap(box["x"] + box["width"] * 0.9, box["y"] + box["height"] / 2)
    page.wait_for_function("window.seen.has('RIGHT')")
    page.locator("dream-player .fire").tap()
    page.wait_for_function("window.seen.has('FIRE')")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_a_phone_on_its_side_shows_a_picture(browser, url: str):
    size = {"width": 740, "height": 330}
    context = browser.new_context(viewport=size, has_touch=True, is_mobile=True, bypass_csp=True, device_scale_factor=3)
    page = context.new_page()
    page.set_default_timeout(SOON)
    page.goto(f"{url}play#game=tiny-pong")
    page.wait_for_function("document.querySelector('dream-player').view")
    boxes = {name: page.locator(f"dream-player {name}").bounding_box() for name in (
        ".thumb", "[data-panel=dream]", ".fire")}
    picture = boxes["[data-panel=dream]"]
    assert picture["height"] >= 120
    assert boxes[".thumb"]["x"] + boxes[".thumb"]["width"] <= picture["x"]
    assert picture["x"] + picture["width"] <= boxes[".fire"]["x"]
    assert all(box["y"] >= 0 and box["y"] + box["height"] <= 330 for box in boxes.values())
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [740, 330]
    context.close()


def test_the_page_of_play_keeps_its_own_rules(browser, url: str):
    """Its content policy is not bypassed here: nothing of its own may offend it."""
    context = browser.new_context()
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.goto(f"{url}play#game=small")
    page.wait_for_selector("dream-player [data-number=rate]:has-text('/s')", timeout=SOON)
    context.close()
    assert said == []


def wait(until: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


@pytest.fixture
def shared(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Beyond loopback, with tokens and a password."""
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(home / "shelf"))
    access = Access(loopback=False, owner="o" * 32, visitor="v" * 32, login=("ann", "sesame street"))
    with Server(Settings(home / "runs", home / "data", home / "tapes", home / "shelf", "cpu", access=access,
                         quicken=lambda *_: None)) as running:
        yield running


@contextmanager
def site(folder: Path) -> Iterator[str]:
    """Somebody else's pages."""
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = partial(Quiet, directory=folder)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://localhost:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_password_lets_in_and_what_is_passed_on_needs_none(browser, shared: Server, tmp_path: Path):
    context, stranger = (browser.new_context(bypass_csp=True) for _ in range(2))
    page, other = context.new_page(), stranger.new_page()
    page.set_default_timeout(SOON)
    other.set_default_timeout(SOON)
    page.goto(shared.url)
    for password, seen in (("sesame", ".wrong"), ("sesame street", "dream-player .card")):
        page.fill("[name=user]", "ann")
        page.fill("[name=password]", password)
        page.click("button")
        page.wait_for_selector(seen)
    page.click("dream-player .card[data-game=tiny-pong]")
    when(page, "v.moment >= 0")
    page.keyboard.press("?")
    passed_on = []
    for what in ("watchlink", "embed"):
        page.click(f"dream-player [data-do={what}]")
        passed_on.append(page.input_value("dream-player .shared textarea"))
    assert all("token=" + "v" * 32 in words for words in passed_on)
    other.goto(passed_on[0])
    when(other, "v.moment >= 0")
    assert "token" not in other.url and other.text_content("dream-player .hint") == "You are watching."
    there = other.url
    other.keyboard.press("?")
    other.wait_for_selector("dream-player .drawer .keys")
    assert other.locator("dream-player .drawer section:visible").count() == 1, "nothing to turn, nothing to share"
    other.keyboard.press("Backspace")
    other.wait_for_timeout(300)
    assert other.url == there
    other.context.clear_cookies()
    (tmp_path / "mine.html").write_text(passed_on[1])
    with site(tmp_path) as elsewhere:
        other.goto(f"{elsewhere}/mine.html")
        other.frame_locator("iframe").locator("dream-player [data-number=rate]", has_text="/s").wait_for()
    context.close()
    stranger.close()

"""The gate: who comes in, as whom, and what nobody gets."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.web.access import MAX_BODY, Access, Gate, Tempo

OWNER, VISITOR = "o" * 32, "v" * 32


async def role(request: Request) -> PlainTextResponse:
    body = await request.body()
    return PlainTextResponse(f"{request.scope['role']} {len(body)}")


async def socket(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.send_text(websocket.scope["role"])
    await websocket.close()


def client(host: str = "http://localhost:7860", **options: object) -> TestClient:
    every = ["GET", "POST", "DELETE"]
    app = Starlette(routes=[WebSocketRoute("/ws", socket), Route("/{path:path}", role, methods=every)])
    access = Access(**{"owner": OWNER, "visitor": VISITOR, **options})  # type: ignore[arg-type]
    return TestClient(Gate(app, access), base_url=host, follow_redirects=False)


def far(**options: object) -> TestClient:
    return client("http://dreams.example:7860", loopback=False, **options)


def test_on_loopback_everybody_is_the_owner():
    for host in ("http://localhost:7860", "http://127.0.0.1:7860", "http://[::1]:7860"):
        assert client(host).get("/api/games").text == "owner 0"


def test_another_name_for_loopback_is_refused():
    answer = client("http://evil.example:7860").get("/")
    assert answer.status_code == 421 and "localhost only" in answer.text


@pytest.mark.parametrize("origin, status", [
    (None, 200), ("http://localhost:7860", 200), ("http://evil.example", 403), ("null", 403),
    ("http://localhost:9999", 403)])
def test_pages_of_other_sites_ask_for_nothing(origin: str | None, status: int):
    headers = {} if origin is None else {"origin": origin}
    assert client().post("/x", headers=headers).status_code == status
    if status == 403:
        with pytest.raises(WebSocketDisconnect), client().websocket_connect("ws://localhost:7860/ws", headers=headers):
            pass
    else:
        with client().websocket_connect("ws://localhost:7860/ws", headers=headers) as ws:
            assert ws.receive_text() == "owner"


def test_a_cross_site_form_without_an_origin_is_refused():
    assert client().post("/x", headers={"sec-fetch-site": "cross-site"}).status_code == 403


def test_a_site_that_is_allowed_may_ask():
    headers = {"origin": "https://friend.example"}
    assert client(origins=("https://friend.example",)).post("/x", headers=headers).status_code == 200


def test_the_forwarded_name_counts_as_ours():
    headers = {"origin": "https://abc.tunnel.example", "x-forwarded-host": "abc.tunnel.example"}
    assert far(public=True).post("/x", headers=headers).status_code == 200


def test_beyond_loopback_a_token_is_needed():
    for path in ("/", "/play", "/api/games", "/api/tapes", "/gradio_api/info"):
        assert far().get(path).status_code == 401
    for token in ("", "wrong", OWNER[:-1], "v" * 33):
        assert far().get(f"/api/games?token={token}").status_code == 401
    # a page with the token of an earlier start is told why, which a browser hears only of what was accepted
    with pytest.raises(WebSocketDisconnect) as told, far().websocket_connect(
            "ws://dreams.example:7860/ws?token=old") as ws:
        ws.receive_text()
    assert told.value.code == 4003 and "its owner gave you" in told.value.reason
    with pytest.raises(WebSocketDisconnect), far().websocket_connect(
            "ws://dreams.example:7860/ws?token=old", headers={"origin": "http://evil.example"}):
        pass


def test_tokens_make_owners_and_visitors():
    assert far().get(f"/api/games?token={OWNER}").text == "owner 0"
    assert far().get(f"/api/games?token={VISITOR}").text == "visitor 0"
    with far().websocket_connect(f"ws://dreams.example:7860/ws?token={VISITOR}") as ws:
        assert ws.receive_text() == "visitor"


def test_a_token_moves_from_the_address_into_a_cookie():
    page = far()
    answer = page.get(f"/?token={VISITOR}&game=Pong")
    assert answer.status_code == 303 and answer.headers["location"] == "/?game=Pong"
    cookie = answer.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie
    assert page.get("/api/games").text == "visitor 0"
    ours = {"origin": "http://dreams.example:7860"}
    with page.websocket_connect("ws://dreams.example:7860/ws", headers=ours) as ws:
        assert ws.receive_text() == "visitor"


def test_a_token_leads_to_no_other_site():
    for path in ("//evil.example/login", "/%5Cevil.example/", "///evil.example"):
        answer = far().get(f"http://dreams.example:7860{path}?token={VISITOR}")
        assert answer.status_code == 303 and answer.headers["location"].startswith("/evil.example")


def test_an_embedded_page_keeps_its_token():
    assert far().get(f"/play?embed=1&token={VISITOR}").text == "visitor 0"


def test_scripts_are_for_all():
    assert far().get("/ui/player.js").status_code == 200


@pytest.mark.parametrize("path", ["/studio", "/studio/", "/studio/gradio_api/queue/join", "/api/owner/x",
                                  "/gradio_api/upload"])
def test_what_is_for_the_owner(path: str):
    assert far().post(f"{path}?token={VISITOR}").status_code == 403
    assert far().post(f"{path}?token={OWNER}").status_code in (200, 303)


def test_the_owner_is_led_to_the_studio():
    page = far()
    page.get(f"/?token={OWNER}")
    assert page.get("/").headers["location"] == "/studio/"


@pytest.mark.parametrize("route", ["file=/etc/passwd", "file/etc/passwd", "proxy=http://example.org/", "call/x",
                                   "run/x", "api/x", "component_server", "stream/x", "vibe-edit", "process_recording",
                                   "custom_component/x", "deep_link", "openapi.json", "dev/reload"])
def test_gradios_other_routes_stay_shut(route: str):
    for prefix in ("", "/studio"):
        assert client().get(f"{prefix}/gradio_api/{route}").status_code == 404
    assert client().get("/gradio_api/queue/data").status_code == 200


def test_a_space_is_open_to_visitors_only():
    assert far(public=True).get("/api/games").text == "visitor 0"
    assert far(public=True).get("/studio/").status_code == 403


def test_bodies_are_bounded():
    assert client().post("/x", content=b"a" * MAX_BODY).text == f"owner {MAX_BODY}"
    with pytest.raises(Exception, match=r"Disconnect|disconnect|^$"):
        client().post("/x", content=b"a" * (MAX_BODY + 1))
    assert client().post("/x", headers={"content-length": str(10**12)}).status_code == 413
    assert client().post("/x", headers={"content-length": "many"}).status_code == 400


def test_browsers_are_told_not_to_guess():
    headers = far().get(f"/play?embed=1&token={VISITOR}").headers
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "same-origin"
    assert "script-src" not in headers["content-security-policy"] and "default-src 'self'" in \
        headers["content-security-policy"]


def test_no_other_site_frames_more_than_the_page_of_play():
    for answer in (far().get(f"/api/games?token={OWNER}"), far().get("/"), client().get("/studio/")):
        assert answer.headers["content-security-policy"] == "frame-ancestors 'self'"
    assert "frame-ancestors" not in client().get("/play").headers["content-security-policy"]
    assert "content-security-policy" not in far(public=True).get("/").headers


def test_a_stranger_sees_the_door():
    page = far(login=("ann", "sesame street")).get("/", headers={"accept": "text/html"})
    assert page.status_code == 401 and "<form" in page.text
    assert "<form" not in far().get("/", headers={"accept": "text/html"}).text


def test_a_login_needs_both():
    access = Access(login=("ann", "sesame street"))
    assert access.is_login("ann", "sesame street")
    assert not access.is_login("ann", "sesame") and not access.is_login("bob", "sesame street")
    assert not Access().is_login("", "")


def test_a_tempo_fills_with_time():
    now = [0.0]
    tempo = Tempo(2.0, 3, lambda: now[0])
    assert [tempo.take() for _ in range(4)] == [True, True, True, False]
    now[0] = 0.5
    assert tempo.take() and not tempo.take()
    tempo.give_back()
    assert tempo.take() and not tempo.take()
    now[0] = 100
    assert [tempo.take() for _ in range(4)] == [True, True, True, False]

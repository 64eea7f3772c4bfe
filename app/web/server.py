"""The server: pages, pictures and files over HTTP, play over a websocket, Gradio's tabs around it. Our own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import FastAPI, HTTPException, Request, Response, WebSocket
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

from app.session import look
from app.web.access import Gate, login_page, set_cookie
from app.web.house import House
from app.web.recorded import add_blind, add_tapes
from app.web.shelf import Unknown, film, poster
from app.web.socket import Connection
from diamond_core.training.checkpoint import CheckpointError, read_card

STATIC = Path(__file__).parent / "static"
MAX_LOGIN = 1024
MAX_SOCKET = 64 * 1024
"""Bytes of a websocket message beyond which the connection is cut without a word."""


def build(house: House, tabs: bool = True) -> Any:
    """The whole application as ASGI. `tabs`: with Gradio's shell; without it `/` is the page of play."""
    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await house.open()
        yield
        await house.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None)
    app.state.house = house
    add_pages(app, house)
    add_play(app, house)
    add_tapes(app, house)
    add_blind(app, house)
    if tabs:
        from app.web.tabs.shell import mount
        mount(app, house)
    else:
        app.add_api_route("/", lambda: FileResponse(STATIC / "play.html"), methods=["GET"])
    return Gate(app, house.settings.access)


def add_pages(app: FastAPI, house: House) -> None:
    """Scripts, styles, the page of play, the door."""
    access = house.settings.access

    @app.get("/ui/look.css")
    def look_css() -> Response:
        return Response(colours(), media_type="text/css", headers={"cache-control": "no-cache"})

    app.mount("/ui", StaticFiles(directory=STATIC), name="ui")

    @app.get("/play")
    def play() -> FileResponse:
        return FileResponse(STATIC / "play.html", headers={"cache-control": "no-cache"})

    @app.get("/favicon.ico")
    def favicon() -> FileResponse:
        return FileResponse(STATIC / "icon.svg", media_type="image/svg+xml")

    @app.get("/login")
    def door() -> HTMLResponse:
        return HTMLResponse(login_page(access.login is not None))

    @app.post("/login")
    async def login(request: Request) -> Response:
        """Lets in who knows the password; only wrong ones use up the attempts that all strangers share."""
        form = await request.form(max_files=0, max_fields=4, max_part_size=MAX_LOGIN)
        if not house.knocks.take():
            again = "Too many have knocked: try again in some seconds."
            return HTMLResponse(login_page(access.login is not None, again), 429)
        if not access.is_login(str(form.get("user", "")), str(form.get("password", ""))):
            return HTMLResponse(login_page(access.login is not None, "That was not right. Try again."), 401)
        house.knocks.give_back()
        response = RedirectResponse("/", 303)
        set_cookie(response, access.cookie, access.visitor, request.scope)
        return response


def add_play(app: FastAPI, house: House) -> None:
    """The gallery and the websocket."""
    @app.get("/api/games")
    def games() -> list[dict[str, Any]]:
        return [{"name": o.name, "title": o.title, "line": o.line, "level": o.level,
                 "poster": f"api/poster/{quote(o.name)}.png", "moving": f"api/film/{quote(o.name)}.webp"}
                for o in house.shelf.offers()]

    def pictured(name: str, request: Request, draw: Callable[[Path, str], bytes], kind: str) -> Response:
        try:
            path = house.shelf.path_of(name, request.scope["role"] == "owner")
            data = draw(path, read_card(path).sha256)
        except (Unknown, CheckpointError) as error:
            raise HTTPException(404, str(error)) from None
        return Response(data, media_type=kind, headers={"cache-control": "max-age=300"})

    @app.get("/api/poster/{name}.png")
    def still(name: str, request: Request) -> Response:
        return pictured(name, request, poster, "image/png")

    @app.get("/api/film/{name}.webp")
    def moving(name: str, request: Request) -> Response:
        return pictured(name, request, film, "image/webp")

    @app.websocket("/ws")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await Connection(house, websocket).serve()


def colours() -> str:
    """The look as CSS: the dark theme, the light one where the system asks for it, and inks that can be read on it."""
    def block(**names: str) -> str:
        return "".join(f"--{name.replace('_', '-')}:{value};" for name, value in names.items())

    h = look.hex_of
    dark = block(dream=h(look.DREAM), reality=h(look.REALITY), amber=h(look.AMBER), red=h(look.RED),
                 background=h(look.BACKGROUND), panel=h(look.PANEL), line=h(look.LINE), text=h(look.TEXT),
                 muted=h(look.MUTED), raised="#1e2430", dream_ink=h(look.DREAM), reality_ink=h(look.REALITY),
                 amber_ink=h(look.AMBER), red_ink=h(look.RED),
                 sans='system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif',
                 mono='ui-monospace,"SF Mono","Cascadia Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace')
    light = block(background="#f6f7fa", panel="#ffffff", line="#d9dee7", text="#171a21", muted="#5a6374",
                  raised="#eceff5", dream_ink="#6a45dd", reality_ink="#0b7468", amber_ink="#8a5a00", red_ink="#b42318")
    return (f":root{{color-scheme:dark;{dark}}}\n"
            f"@media (prefers-color-scheme: light){{:root{{color-scheme:light;{light}}}}}\n")

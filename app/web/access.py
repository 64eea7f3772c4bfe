"""Who may come in, and as whom: loopback, link tokens, a password, origins, and bounds on what is sent.

Our own. One ASGI gate in front of everything, Gradio's routes and the websocket included: behind it
`scope["role"]` is "owner" or "visitor". Whoever reaches a server that listens on loopback only is its owner.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Literal
from urllib.parse import parse_qsl, urlencode, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

Role = Literal["owner", "visitor"]
LOOPBACK = ("localhost", "127.0.0.1", "::1")
OPEN_PATHS = ("/ui/", "/login", "/favicon.ico")
"""Scripts and styles: the same for everybody, and without secrets."""
OWNER_PATHS = ("/studio", "/api/owner/", "/gradio_api/upload")
GRADIO = ("queue/", "run/predict", "heartbeat/", "startup-events", "app_id", "info", "theme.css", "reset", "cancel",
          "upload", "user")
"""What Gradio's own pages ask for. Its other routes (files, proxies, components, calls by name) stay shut."""
MAX_BODY = 256 * 1024
MAX_UPLOAD = 512 * 2**20
"""Bytes; for the owner only, and only where files are uploaded."""
MAX_TAPE = 17 * 2**20
"""A little more than a tape may have, so that whoever sends too much is told."""
STRANGER = "Open this server by the link that its owner gave you."
UNSAFE = ("POST", "PUT", "PATCH", "DELETE")


@dataclass(frozen=True)
class Access:
    """Who is let in."""

    loopback: bool = True
    """The server can be reached from this machine only: no token, everybody is the owner."""
    owner: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """The token in the owner's link."""
    visitor: str = field(default_factory=lambda: secrets.token_urlsafe(24))
    """The token in the link for visitors; also what a login is worth."""
    login: tuple[str, str] | None = None
    """User and password that let a visitor in."""
    public: bool = False
    """Everybody is a visitor, as in a Space."""
    origins: tuple[str, ...] = ()
    """Other sites' origins (https://example.org) whose pages may talk to this server."""
    cookie: str = "diamond"

    def role_of(self, token: str | None) -> Role | None:
        """Whom a token makes of its bearer."""
        if self.loopback:
            return "owner"
        if token and hmac.compare_digest(token.encode(), self.owner.encode()):
            return "owner"
        if token and hmac.compare_digest(token.encode(), self.visitor.encode()):
            return "visitor"
        return "visitor" if self.public else None

    @property
    def pass_on(self) -> str | None:
        """The token in a link that a visitor passes on; none where everybody may come in."""
        return None if self.loopback or self.public else self.visitor

    def is_login(self, user: str, password: str) -> bool:
        """Whether these are the right ones."""
        if self.login is None:
            return False
        # both are compared, whatever the first says, so that time tells nothing
        return hmac.compare_digest(user.encode(), self.login[0].encode()) & \
            hmac.compare_digest(password.encode(), self.login[1].encode())


class Tempo:
    """A bucket that fills with time: so many a second, and so many at once."""

    def __init__(self, rate: float, burst: float, now: Callable[[], float]) -> None:
        self._rate, self._burst, self._now = rate, burst, now
        self._left, self._at = burst, now()

    def take(self) -> bool:
        """Whether one more is in order."""
        now = self._now()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True

    def give_back(self) -> None:
        """What was taken is not counted."""
        self._left = min(self._burst, self._left + 1)


def token_of(scope: Scope, cookie: str) -> str | None:
    """The token in the link, or else in the cookie."""
    query = dict(parse_qsl(scope.get("query_string", b"").decode("latin-1"), max_num_fields=50))
    if "token" in query:
        return query["token"]
    try:
        jar = SimpleCookie(Headers(scope=scope).get("cookie", ""))
    except CookieError:
        return None
    return jar[cookie].value if cookie in jar else None


def is_same_site(headers: Headers, allowed: tuple[str, ...]) -> bool:
    """Whether the page that sends this request is ours. Browsers always say where a websocket or a form comes from;
    other programs do not, and carry nobody's cookies."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "none") in ("none", "same-origin")
    # behind a tunnel or a proxy the name that the browser saw is in the forwarded one; a page cannot set it
    ours = {headers.get("host", ""), headers.get("x-forwarded-host", "")} - {""}
    return urlsplit(origin).netloc in ours or origin in allowed


class Gate:
    """Stands in front of the app."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets in, or answers by itself."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        try:
            refusal = self._refusal(scope)
        except (ValueError, UnicodeError):
            refusal = PlainTextResponse("This request could not be read.", 400)
        if refusal is None:
            limit = self._limit(scope)
            await self.app(scope, bounded(receive, limit), hardened(scope, send, self.access.public))
        elif scope["type"] == "websocket":
            if scope.get("role", "") is None:
                # a page that was open while the server began anew has an old token: only what was accepted can be told
                await receive()
                await send({"type": "websocket.accept"})
            await send({"type": "websocket.close", "code": 4003, "reason": STRANGER[:-1]})
        else:
            await refusal(scope, receive, hardened(scope, send, self.access.public))

    @staticmethod
    def _limit(scope: Scope) -> int:
        """Bytes that a request's body may have."""
        if scope["path"] == "/api/tapes":
            return MAX_TAPE
        return MAX_UPLOAD if scope["role"] == "owner" and scope["path"].endswith("/upload") else MAX_BODY

    def _refusal(self, scope: Scope) -> Response | None:
        headers, path, access = Headers(scope=scope), scope["path"], self.access
        if access.loopback and urlsplit(f"//{headers.get('host', '')}").hostname not in LOOPBACK:
            return PlainTextResponse("This server answers to localhost only. To reach it from elsewhere, start it "
                                     "with: diamond web --host 0.0.0.0", 421)
        if (scope["type"] == "websocket" or scope["method"] in UNSAFE) and not is_same_site(headers, access.origins):
            return PlainTextResponse("A page of another site asked for this; it was refused.", 403)
        if int(headers.get("content-length", 0)) > MAX_UPLOAD:
            return PlainTextResponse("That is too large.", 413)
        token = token_of(scope, access.cookie)
        scope["role"] = role = access.role_of(token)
        if any(path == p or (p.endswith("/") and path.startswith(p)) for p in OPEN_PATHS):
            return None
        if role is None:
            return self._stranger(scope)
        if role != "owner" and path.startswith(OWNER_PATHS):
            return PlainTextResponse("This is for the owner of the server.", 403)
        _, ours, route = path.partition("/gradio_api/")
        if ours and not route.startswith(GRADIO):
            return PlainTextResponse("Not here.", 404)
        settled = self._settled(scope, token)
        if settled is None and role == "owner" and path == "/" and not access.loopback and scope["type"] == "http":
            return RedirectResponse("/studio/", 303)
        return settled

    def _settled(self, scope: Scope, token: str | None) -> Response | None:
        """A token in a page's address moves into a cookie, out of sight; embedded pages have no cookies and keep it."""
        pairs = parse_qsl(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True, max_num_fields=50)
        names = dict(pairs)
        if scope["type"] != "http" or "token" not in names or "embed" in names or scope["path"].startswith("/api/"):
            return None
        rest = urlencode([(name, x) for name, x in pairs if name != "token"])
        # two slashes at the start would lead to another site
        response = RedirectResponse("/" + scope["path"].lstrip("/\\") + (f"?{rest}" if rest else ""), 303)
        if token and not self.access.loopback:
            set_cookie(response, self.access.cookie, token, scope)
        return response

    def _stranger(self, scope: Scope) -> Response:
        if scope["type"] == "http" and "text/html" in Headers(scope=scope).get("accept", ""):
            return HTMLResponse(login_page(self.access.login is not None), 401)
        return PlainTextResponse(STRANGER, 401)


def set_cookie(response: Response, name: str, token: str, scope: Scope) -> None:
    """Keeps a token in the browser, out of the reach of scripts and of other sites."""
    secure = "https" in (scope.get("scheme"), Headers(scope=scope).get("x-forwarded-proto"))
    response.set_cookie(name, token, max_age=30 * 86400, httponly=True, samesite="lax", secure=secure)


def bounded(receive: Receive, limit: int) -> Receive:
    """A request whose body may not grow beyond so many bytes; whoever sends more is cut off."""
    seen = 0

    async def take() -> Message:
        nonlocal seen
        message = await receive()
        if message["type"] == "http.request":
            seen += len(message.get("body", b""))
            if seen > limit:
                return {"type": "http.disconnect"}
        return message

    return take


def hardened(scope: Scope, send: Send, public: bool) -> Send:
    """Adds the headers that keep browsers from guessing, leaking addresses and framing. The page of play may stand in
    any site, and so may all pages of a `public` server: a Space shows them inside its own."""
    embeddable = scope["path"] == "/play"

    async def put(message: Message) -> None:
        """Sends on what the application answers, with the headers added to the start of a response."""
        if message["type"] == "http.response.start":
            # no-referrer would have browsers send the login form with the origin "null", which is nobody's
            extra = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"same-origin")]
            if embeddable:
                extra.append((b"content-security-policy", b"default-src 'self'; img-src 'self' data: blob:; style-src "
                              b"'self' 'unsafe-inline'; connect-src 'self' ws: wss:; object-src 'none'; "
                              b"base-uri 'none'"))
            elif not public:
                extra.append((b"content-security-policy", b"frame-ancestors 'self'"))
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return put


def login_page(has_login: bool, wrong: str = "") -> str:
    """What a stranger sees."""
    form = """<form method="post" action="/login"><label>Name <input name="user" autocomplete="username" required
autofocus></label><label>Password <input name="password" type="password" autocomplete="current-password" required>
</label><button>Come in</button></form>""" if has_login else ""
    words = "Log in to dream here." if has_login else STRANGER
    return f"""<!doctype html><html lang="en"><meta charset="utf-8"><title>DIAMOND playground</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><link rel="stylesheet" href="/ui/page.css">
<link rel="stylesheet" href="/ui/look.css"><body class="door"><main><h1>DIAMOND playground</h1><p>{words}</p>
{f'<p class="wrong" role="alert">{wrong}</p>' if wrong else ""}{form}</main></body></html>"""

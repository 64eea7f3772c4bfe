"""Running the server: where it listens, the links that lead to it, and a tunnel for those far away. Our own."""

from __future__ import annotations

import errno
import socket
import sys
import threading
from dataclasses import dataclass, replace

import uvicorn

from app.web.access import LOOPBACK, Access
from app.web.house import House, Settings
from app.web.server import MAX_SOCKET, build

TRIES = 20
"""Ports that are tried where none was asked for and the usual one is taken."""
PORT = 7860


@dataclass(frozen=True)
class Place:
    """Where a server listens."""

    host: str = "127.0.0.1"
    port: int | None = None
    """None: the usual one, or the next that is free."""
    share: bool = False
    """Also through Gradio's tunnel, for whoever has the link."""


def serve(settings: Settings, place: Place) -> None:
    """Until Ctrl-C. Raises ValueError where the port is taken."""
    listener = listen(place)
    port = listener.getsockname()[1]
    # a browser sends a host's cookies to all of its ports
    settings = replace(settings, access=replace(settings.access, cookie=f"diamond_{port}"))
    config = uvicorn.Config(
        build(House(settings)), log_level="warning", access_log=False, server_header=False, ws_max_size=MAX_SOCKET,
        # PNG is compressed already: to do it again costs time and saves nothing
        ws_per_message_deflate=False, timeout_graceful_shutdown=3, limit_concurrency=512, lifespan="on")
    server = Announced(config, settings.access, place, port)
    server.run(sockets=[listener])


class Announced(uvicorn.Server):
    """A server that says where it is once it can be reached."""

    def __init__(self, config: uvicorn.Config, access: Access, place: Place, port: int) -> None:
        super().__init__(config)
        self._access, self._place, self._port = access, place, port

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn does; then the links."""
        await super().startup(sockets)
        if self.started:
            for line in links(self._access, reachable(self._place.host), self._port):
                print(line, flush=True)
            if self._place.share:
                # it waits for the network for up to a minute, and players shall not
                threading.Thread(target=self._tunnel, daemon=True, name="tunnel").start()

    def _tunnel(self) -> None:
        try:
            url = tunnel(self._port, self._place.host)
        # the tunnel's own program, its download and the network fail in ways of their own; the server goes on without
        except Exception as error:
            print(f"no tunnel: {' '.join(str(error).split()) or type(error).__name__}; the links above still work",
                  file=sys.stderr, flush=True)
        else:
            print(f"for everybody who has this link: {url}/?token={self._access.visitor}", flush=True)


def listen(place: Place) -> socket.socket:
    """A socket that listens. Raises ValueError where the port is taken."""
    ports = [place.port] if place.port is not None else list(range(PORT, PORT + TRIES))
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    for port in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        # on Windows an address may be taken that is in use; elsewhere only one that was until a moment ago
        option = getattr(socket, "SO_EXCLUSIVEADDRUSE", socket.SO_REUSEADDR)
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            listener.bind((place.host, port))
            listener.listen()  # at once: another server may begin at the same moment
        except (OSError, OverflowError) as error:
            listener.close()
            if isinstance(error, OSError) and error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise ValueError(f"cannot listen on {place.host} ({error}): it must be an address of this machine, "
                                 "see --host") from None
            if port == ports[-1]:
                raise ValueError(f"{place.host} port {port} cannot be used ({error}): choose another with --port"
                                 ) from None
            continue
        return listener
    raise AssertionError


def links(access: Access, host: str, port: int) -> list[str]:
    """What to open, and what to hand on."""
    root = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
    if access.loopback:
        return [f"open {root}  (Ctrl-C ends it)"]
    if access.public:
        return [f"open to everybody at {root}"]
    lines = [f"yours, with training and deletion: {root}?token={access.owner}",
             f"for visitors:                      {root}?token={access.visitor}"]
    return lines + ([f"or by name and password:           {root}"] if access.login else [])


def reachable(host: str) -> str:
    """The address at which others find this machine, where it listens on all of them."""
    if host not in ("0.0.0.0", "::"):
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # nothing is sent: this only asks which of the machine's addresses leads outside
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach it."""
    return host in LOOPBACK


def tunnel(port: int, host: str) -> str:
    """Opens Gradio's tunnel to where this machine listens; its address. The websocket goes through it too."""
    import secrets

    from gradio.networking import setup_tunnel

    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return str(setup_tunnel(here, port, secrets.token_urlsafe(32), None, None)).rstrip("/")

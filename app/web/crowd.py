"""How a server holds up: players who are no people press keys and note what comes, over real websockets. Our own."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, pairwise
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
import torch
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from app.web.protocol import VIEW, unpack
from diamond_core.device import has_bfloat16

SETTLE = 8.0
"""Seconds of play before anything is noted: the number of denoising steps finds its level."""
SEARCH = 90.0
"""Seconds that a faster engine may take to be found."""
HOLD, BETWEEN = 0.1, 0.4
"""Seconds for which a key is held, and until the next one."""


@dataclass
class Given:
    """What one player was given."""

    times: list[float] = field(default_factory=list)
    """When each frame came."""
    delays: list[float] = field(default_factory=list)
    """Seconds from a key to the first frame with it."""
    size: int = 0
    """Bytes."""
    steps: set[int] = field(default_factory=set)
    """Denoising steps of its frames."""

    @property
    def rate(self) -> float:
        """Frames a second."""
        return (len(self.times) - 1) / (self.times[-1] - self.times[0]) if len(self.times) > 1 else 0.0


class FalsePlayer:
    """Plays on one websocket, up and down by turns."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._pressed: dict[int, float] = {}
        self.path = ""
        self.given = Given()

    async def send(self, t: str, **fields: Any) -> None:
        """To the server."""
        await self._socket.send(json.dumps({"t": t, **fields}))

    async def enter(self, name: str, seed: int) -> None:
        """Begins a dream. Raises ValueError where the server refuses."""
        await self.send("join")
        await self.send("open", game=name, seed=seed)
        try:
            while json.loads(await self._socket.recv())["t"] != "opened":
                pass
        except ConnectionClosed as error:
            raise ValueError(f"the server refused: {self._socket.close_reason}") from error

    async def close(self) -> None:
        """Leaves."""
        await self._socket.close()

    async def listen(self) -> None:
        """Notes frames until it is cancelled."""
        async for data in self._socket:
            if isinstance(data, bytes):
                kind, view, _ = unpack(data)
                if kind == VIEW:
                    await self._seen(view, len(data), time.perf_counter())

    async def _seen(self, view: dict[str, Any], size: int, now: float) -> None:
        await self.send("got", seq=view["seq"])
        self.path = view["path"]
        self.given.times.append(now)
        self.given.size += size
        self.given.steps.add(view["steps"])
        pressed = self._pressed.pop(view["echo"], None) if view["echo"] is not None else None
        if pressed is not None:
            self.given.delays.append(now - pressed)

    async def press(self, lag: float) -> None:
        """Presses keys until it is cancelled; `lag` seconds later than the others, so that not all press at once."""
        await asyncio.sleep(lag)
        for n in count(1):
            key = ("up", "down")[n % 2]
            self._pressed[n] = time.perf_counter()
            await self.send("press", key=key, n=n)
            await asyncio.sleep(HOLD)
            await self.send("release", key=key)
            await asyncio.sleep(BETWEEN + 0.013 * (n % 7))


async def crowd(url: str, name: str, players: int, seconds: float) -> list[Given]:
    """`players` at once in dreams of their own; what each was given in `seconds`, once play has settled."""
    fakes: list[FalsePlayer] = []
    doing: list[asyncio.Task[None]] = []
    try:
        for i in range(players):
            fakes.append(FalsePlayer(await connect(url, compression=None, max_size=None)))
            await fakes[i].enter(name, seed=i)
            doing += [asyncio.create_task(job) for job in (fakes[i].listen(), fakes[i].press(0.07 * i))]
        await asyncio.sleep(SETTLE)
        for fake in fakes:
            fake.given = Given()
        await asyncio.sleep(seconds)
        return [fake.given for fake in fakes]
    finally:
        for task in doing:
            task.cancel()
        await asyncio.gather(*doing, return_exceptions=True)
        for fake in fakes:
            await fake.close()


async def warmed_up(url: str, name: str, search: float | None = None) -> str:
    """Plays until a faster engine has taken over, or for as long as one may take to be found; which it is."""
    async with connect(url, compression=None, max_size=None) as socket:
        fake = FalsePlayer(socket)
        await fake.enter(name, 0)
        listening = asyncio.create_task(fake.listen())
        until = time.perf_counter() + (SEARCH if search is None else search)
        # torch as it stands, and where the processor has bfloat16 Winograd's path, are followed by a faster one
        followed = ("torch ", "Winograd") if has_bfloat16(torch.device("cpu")) else ("torch ",)
        while time.perf_counter() < until and (not fake.path or fake.path.startswith(followed)):
            await asyncio.sleep(0.2)
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        return fake.path


@contextmanager
def server(checkpoint: Path, players: int, device: str, scratch: Path) -> Iterator[tuple[str, int]]:
    """A `diamond web` process that offers one checkpoint; its address and process id."""
    command = [sys.executable, "-c", "from app.cli import main; main()", "web", "--players", str(players),
               "--device", device, "--port", "0",
               *(word for kind in ("runs", "data", "tapes") for word in (f"--{kind}", str(scratch / kind)))]
    environment = dict(os.environ, DIAMOND_CHECKPOINTS=str(checkpoint.parent), OMP_WAIT_POLICY="PASSIVE",
                       PYTHONUNBUFFERED="1")
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True,
                          cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        try:
            line = next((line for line in process.stdout if "http://" in line), None)
            if line is None:
                raise ValueError("the server did not start")
            address = line[line.index("http://"):].split()[0]
            yield f"ws://{address.removeprefix('http://')}ws", process.pid
        finally:
            process.terminate()


def serve_crowds(checkpoint: Path, counts: tuple[int, ...], seconds: float, device: str, scratch: Path,
                 say: Callable[[str], None]) -> list[dict[str, Any]]:
    """A row for each number of players at once: frames a second, how even, key to frame, traffic, memory."""
    rows = []
    # a place is kept for those who may come back: each crowd needs places of its own
    with server(checkpoint, sum(counts) + 1, device, scratch) as (url, process):
        say("a server finds its fastest path")
        path = asyncio.run(warmed_up(url, checkpoint.name))
        for n in counts:
            say(f"{n} players in one server")
            given = asyncio.run(crowd(url, checkpoint.name, n, seconds))
            rows.append({"path": path, "players": n, **figures(given, seconds), "memory_mb": memory_of(process)})
    return rows


def figures(given: list[Given], seconds: float) -> dict[str, Any]:
    """Of several players, in the units of the table."""
    rates = [one.rate for one in given]
    gaps = [b - a for one in given for a, b in pairwise(one.times)]
    delays = [delay for one in given for delay in one.delays]
    return {"frames_a_second": mean(rates), "spread_percent": 100 * (max(rates) - min(rates)) / max(mean(rates), 1e-9),
            "p99_gap_ms": 1000 * float(np.quantile(gaps, 0.99)) if gaps else None,
            "key_to_frame_ms": 1000 * float(np.median(delays)) if delays else None,
            "p95_key_ms": 1000 * float(np.quantile(delays, 0.95)) if delays else None,
            "kb_a_second": sum(one.size for one in given) / len(given) / seconds / 1000,
            "steps": max((step for one in given for step in one.steps), default=0)}


def memory_of(process: int) -> float | None:
    """Resident, in MB; None where the system does not say."""
    status = Path(f"/proc/{process}/status")
    lines = status.read_text().splitlines() if status.exists() else []
    found = [int(line.split()[1]) for line in lines if line.startswith("VmRSS")]
    return found[0] / 1e3 if found else None

"""Recordings and the blind test over HTTP. Names are secrets: without one there is nothing to see. Our own."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import FileResponse

from app.session.tape import TapeError
from app.web.blind import BlindError
from app.web.house import House
from app.web.shelf import Unknown
from app.web.tapes import MOST_UPLOAD, Recording, TapesError
from diamond_core.training.checkpoint import CheckpointError

LOG = logging.getLogger(__name__)
MOST_NAMES = 200
FORMS = {"tape": "application/octet-stream", "webp": "image/webp", "gif": "image/gif", "mp4": "video/mp4"}
WRONG = (TapeError, TapesError, BlindError, Unknown, CheckpointError)


def is_owner(request: Request) -> bool:
    """Whether the gate let the owner in."""
    return bool(request.scope["role"] == "owner")


def add_tapes(app: FastAPI, house: House) -> None:
    """The library of recordings."""
    def told(recordings: list[Recording], request: Request) -> list[dict[str, Any]]:
        cards = house.shelf.cards(is_owner(request)) if recordings else []
        return [{**asdict(r), "has_loop": r.has_loop, "dream": house.shelf.fitting(cards, r.game, r.sha256)}
                for r in recordings]

    @app.get("/api/tapes")
    def tapes(request: Request, names: str = "") -> list[dict[str, Any]]:
        """All recordings for the owner; a visitor must know their names, separated by commas."""
        if is_owner(request):
            return told(house.tapes.all(), request)
        found = []
        for name in names.split(",")[:MOST_NAMES]:
            try:
                found.append(house.tapes.get(name))
            except TapesError:
                continue
        return told(found, request)

    @app.post("/api/tapes")
    async def bring(request: Request, title: str = "a tape") -> dict[str, Any]:
        """Takes in an uploaded tape or film. 413 where it is too large, 429 where too many come from visitors."""
        if not is_owner(request) and not house.uploads.take():
            raise HTTPException(429, "many tapes are being brought in: try again in a minute")
        data = bytearray()
        async for part in request.stream():
            data += part
            if len(data) > MOST_UPLOAD:
                raise HTTPException(413, f"expected a tape of at most {MOST_UPLOAD >> 20} MiB")
        return await answered(asyncio.to_thread(
            lambda: told([house.tapes.bring(bytes(data), title, not is_owner(request))], request)[0]))

    @app.post("/api/tapes/{name}/title")
    async def rename(name: str, title: str) -> dict[str, str]:
        """Gives a recording another title; an empty one leaves it as it was."""
        return {"title": await answered(asyncio.to_thread(house.tapes.rename, name, title))}

    @app.get("/api/tapes/{name}.{ending}")
    async def file(name: str, ending: str) -> Response:
        async def made() -> Path:
            path = await asyncio.to_thread(house.tapes.place, name, ending)
            if not path.is_file():
                await asyncio.get_running_loop().run_in_executor(house.films, house.tapes.file, name, ending)
            return path

        return FileResponse(await answered(made()), media_type=FORMS[ending])

    @app.delete("/api/tapes/{name}")
    async def delete(name: str) -> dict[str, bool]:
        await answered(asyncio.to_thread(house.tapes.delete, name))
        return {"deleted": True}

    @app.post("/api/tapes/{name}/prove")
    async def prove(name: str, request: Request) -> dict[str, Any]:
        proof = await answered(house.prove(name, is_owner(request)))
        return proof._asdict()


def add_blind(app: FastAPI, house: House) -> None:
    """Questions and answers."""
    @app.post("/api/blind")
    async def ask(request: Request, game: str, steps: int) -> dict[str, str]:
        async def make() -> str:
            loaded = await asyncio.to_thread(house.shelf.load, game, is_owner(request))
            return await house.blind.ask(lambda: house.host, loaded, steps)

        return {"name": await answered(make())}

    @app.get("/api/blind/{name}/{side}.webp")
    async def film(name: str, side: int) -> Response:
        if side not in (0, 1):
            raise HTTPException(404, "a question has two sides")
        try:
            data = house.blind.film(name, side)
        except BlindError as error:
            raise HTTPException(404, str(error)) from None
        return Response(data, media_type="image/webp", headers={"cache-control": "no-store"})

    @app.post("/api/blind/{name}")
    async def answer(name: str) -> dict[str, int]:
        try:
            return {"real": house.blind.answer(name)}
        except BlindError as error:
            raise HTTPException(404, str(error)) from None


async def answered(doing: Any) -> Any:
    """The result, or what is wrong in words for the person."""
    try:
        return await doing
    except WRONG as error:
        raise HTTPException(400, str(error)) from None
    except OSError as error:
        LOG.error("a file of a tape", exc_info=error)  # its place is nobody's business
        raise HTTPException(500, f"this did not work here: {error.strerror or 'the disk may be full'}") from None

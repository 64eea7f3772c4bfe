"""Questions of the blind test: who asks, and what waits."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import numpy as np
import pytest

from app.web import blind
from app.web.blind import WAITING, Blind, BlindError


def test_only_so_many_wait_for_a_question(monkeypatch: pytest.MonkeyPatch):
    """Each is a minute of drawing at worst, and no player's turn."""
    frames = [np.zeros((8, 8, 3), np.uint8)] * 2

    async def all_at_once() -> None:
        gate = asyncio.Event()

        async def clips(*_: Any) -> Any:
            await gate.wait()
            return frames, frames

        monkeypatch.setattr(blind, "clips", clips)
        asked, nothing = Blind(), cast(Any, None)
        waiting = [asyncio.create_task(asked.ask(lambda: nothing, nothing, 5)) for _ in range(WAITING)]
        await asyncio.sleep(0)
        with pytest.raises(BlindError, match="try again in a moment"):
            await asked.ask(lambda: nothing, nothing, 5)
        waiting.pop().cancel()
        gate.set()
        names = await asyncio.gather(*waiting)
        assert len(set(names)) == WAITING - 1 and asked.film(names[0], 1).startswith(b"RIFF")
        assert await asked.ask(lambda: nothing, nothing, 5), "who is gone waits no more"

    asyncio.run(all_at_once())

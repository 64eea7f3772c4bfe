"""Dreaming a tape again, a step at a time between others' steps: to go on from it, or to prove it. Our own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from app.session.host import Host
from app.session.tape import Played, Tape, TapeError, pack_value
from diamond_core.world.dream import World
from diamond_core.world.engine import Engine

Tell = Callable[[int, int], None]
"""tell(done, total)."""
OVER = object()


async def ready_at(host: Host, world: World, tape: Tape, number: int, tell: Tell) -> Tape:
    """The same tape with the dream before step `number` on it, so that to go on from there takes no time."""
    if not 0 <= number <= len(tape):
        raise TapeError(f"expected a step from 0 to {len(tape)}, got {number}: choose one on the tape")
    if number in tape.values or number in tape.stops:
        return tape
    first = max((step for step in (*tape.values, *tape.stops) if step <= number), default=number)
    state = None
    async for played in stepwise(host, tape.slices(world, first, number)):
        state = played.state or state
        tell(played.number - first + 1, number - first)
    if state is None:
        raise TapeError(f"nothing was dreamt on this tape before step {number}: choose a later one")
    return replace(tape, values={**tape.values, number: await on(host, lambda: pack_value(state))})


async def proven(host: Host, world: World, tape: Tape, engines: Mapping[str, Engine]) -> int:
    """How many steps come out as they were recorded, frame, reward and end. The world is nobody else's: its engine
    is changed to the one that a step was dreamt on."""
    same = 0
    async for played in stepwise(host, tape.slices(world, engines=engines)):
        same += tape.check(played)
    return same


async def stepwise(host: Host, slices: Iterator[Played | None]) -> Any:
    """An iterator that computes, moved on by the host's thread, which others have between two slices."""
    while (played := await on(host, lambda: next(slices, OVER))) is not OVER:
        if played is not None:
            yield played


async def on(host: Host, job: Callable[[], Any]) -> Any:
    """Runs something on the host's thread."""
    return await asyncio.wrap_future(host.call(job))

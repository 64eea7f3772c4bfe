"""How fast things run, side by side in one run: a shared machine's noise then falls on all of them alike. Our own."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch

from diamond_core.device import Runtime
from diamond_core.world.dream import DreamState, World

COLD = 3
"""Measurements that fit into a call whose buffers are nothing beside it."""
Watch = Callable[[str], None]
"""Is told what is being measured."""


@dataclass
class Timing:
    """How long one call took, again and again."""

    seconds: list[float] = field(default_factory=list)

    def quantile(self, q: float) -> float:
        """In seconds."""
        return float(np.quantile(self.seconds, q))

    def to_json(self) -> dict[str, float | int]:
        """Milliseconds."""
        return {"median_ms": 1000 * self.quantile(0.5), "p95_ms": 1000 * self.quantile(0.95),
                "p99_ms": 1000 * self.quantile(0.99), "calls": len(self.seconds)}


def side_by_side(subjects: Mapping[str, Callable[[], object]], runtime: Runtime, seconds: float, burst: int = 1,
                 least: int = 3) -> dict[str, Timing]:
    """Calls all subjects in turn, `burst` calls each, until `seconds` are over and each has had `least` rounds.

    The first call of each pays for buffers and is not counted. Where one alone took longer than `seconds`, one round
    must do; where it took longer than COLD times that, the first calls must.
    """
    timings = {name: Timing() for name in subjects}
    first = {name: timed(f, runtime) for name, f in subjects.items()}
    slowest = max(first.values())
    if slowest > COLD * seconds > 0:
        return {name: Timing([took]) for name, took in first.items()}
    if slowest > seconds > 0:
        seconds, least = 0.0, 1
    ends, rounds = time.perf_counter() + seconds, 0
    while rounds < least or time.perf_counter() < ends:
        rounds += 1
        for name, f in subjects.items():
            timings[name].seconds += [timed(f, runtime) for _ in range(burst)]
    return timings


def timed(f: Callable[[], object], runtime: Runtime) -> float:
    """Seconds of one call."""
    synchronise(runtime)
    started = time.perf_counter()
    f()
    synchronise(runtime)
    return time.perf_counter() - started


def synchronise(runtime: Runtime) -> None:
    """Waits for the device."""
    if runtime.device.type == "cuda":
        torch.cuda.synchronize(runtime.device)
    elif runtime.device.type == "mps":
        torch.mps.synchronize()


def dreaming(world: World, state: DreamState) -> Callable[[], DreamState]:
    """A function that dreams `state` one frame on at every call, under actions that change."""
    now, count = state, 0

    def step() -> DreamState:
        nonlocal now, count
        count += 1
        actions = (torch.arange(len(now)) + count) % world.num_actions
        now = world.step(now, actions.to(now.actions.device)).state
        return now

    return step


def difference_db(plain: World, other: World, state: DreamState) -> float:
    """PSNR in dB between the next frames of two worlds that should be the same function; at most 99."""
    actions = torch.arange(len(state)) % plain.num_actions
    a = plain.step(state.to(plain.runtime.device), actions).frames.cpu().float()
    b = other.step(state.to(other.runtime.device), actions).frames.cpu().float()
    error = (a - b).square().mean().item()
    return 99.0 if error == 0 else min(99.0, 10 * float(np.log10(255**2 / error)))


def imagination(world: World, state: DreamState, batches: tuple[int, ...], limit: float, watch: Watch
                ) -> dict[int, Timing]:
    """Steps of batches of dreams; ends with the first batch of which one step takes longer than `limit` seconds."""
    found: dict[int, Timing] = {}
    for n in batches:
        watch(f"{n} dreams at once, {world.path}")
        many = DreamState.cat([state] * n)
        found[n] = side_by_side({"": dreaming(world, many)}, world.runtime, limit)[""]
        if found[n].quantile(0.5) > limit:
            break
    return found


def players(found: Mapping[int, Timing], rate: float = 15.0) -> int:
    """The largest measured batch of which 95 of 100 steps fit between two frames."""
    return max((n for n, timing in found.items() if timing.quantile(0.95) < 1 / rate), default=0)

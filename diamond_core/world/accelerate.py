"""Finds the fastest faithful engine for the machine, beside play, and swaps it in between two steps. Our own."""

from __future__ import annotations

import atexit
import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from diamond_core.device import has_bfloat16
from diamond_core.world import compiled, openvino_runtime, tiles, winograd
from diamond_core.world.deadline import MOST_STEPS

if TYPE_CHECKING:
    from diamond_core.world.dream import World
    from diamond_core.world.engine import Engine

RACES = 8
"""Frames by which two engines are compared: play goes on beside, and three may all have met it."""
WORTH = 0.9
"""An engine that takes more of the present one's time is not changed to: a race is no more exact than that."""
OUTRUN = 0.6
"""An engine that takes so little of Winograd's time has left OpenVINO behind, too, which took 0.62 of it on a Xeon with
AMX (a world of the paper's size; 0.71 for the shipped Pong's)."""
GRACE = 15.0
"""Seconds that the end of the process waits for the engine that is being built."""
Tell = Callable[[str], None]
"""Hears one short line for the person."""


class Acceleration:
    """A search that goes on beside play."""

    def __init__(self, world: World, frame_shape: tuple[int, int, int], tell: Tell, num_dreams: int) -> None:
        self.message = "looking for the fastest way to run on this machine"
        self.world = world
        self._frame_shape = frame_shape
        self._tell = tell
        self._num_dreams = num_dreams
        self._unwanted = threading.Event()
        # a daemon: quitting the player must not wait for a compiler; but a thread that still is in torch when the
        # interpreter goes takes the whole process down with an abort
        atexit.register(self.stop, GRACE)
        self._thread = threading.Thread(target=self._run, name="accelerate", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether something faster may still come."""
        return self._thread.is_alive()

    def wait(self, timeout: float | None = None) -> str:
        """Waits for the end of the search; the last message."""
        self._thread.join(timeout)
        return self.message

    def stop(self, patience: float = 0.0) -> None:
        """Looks no further than the engine that is being built; waits so many seconds for that."""
        self._unwanted.set()
        with contextlib.suppress(KeyboardInterrupt):  # whoever cannot wait need not
            if patience and self._thread.is_alive():
                self._thread.join(patience)

    def _run(self) -> None:
        self._search()
        atexit.unregister(self.stop)

    def _search(self) -> None:
        started, before = time.perf_counter(), self.world.engine
        notes: list[str] = []
        try:
            for engine in engines(self.world, self._frame_shape, self._num_dreams, notes.append, self._unwanted.is_set):
                if self._unwanted.is_set():
                    break
                self.world.engine = engine
        # A compiler or driver may fail in ways of its own, and play goes on without it
        except Exception as error:
            notes.append(" ".join(str(error).split())[:200] or type(error).__name__)
        if self._unwanted.is_set():
            return
        if self.world.engine is not before or not notes:
            notes = [f"{self.world.path}, ready after {time.perf_counter() - started:.1f} s", *notes]
        self.message = "; ".join(notes)
        self._tell(self.message)


def accelerate(world: World, frame_shape: tuple[int, int, int], tell: Tell = lambda _: None, num_dreams: int = 1
               ) -> Acceleration:
    """Starts looking for a faster engine for frames (c, h, w); `world` dreams on and is switched over later."""
    return Acceleration(world, frame_shape, tell, num_dreams)


def engines(world: World, frame_shape: tuple[int, int, int], num_dreams: int = 1, note: Tell = lambda _: None,
            enough: Callable[[], bool] = lambda: False) -> Iterator[Engine]:
    """Engines that suit the device, warmed up, each faster than the one before; none where the present one is best.

    CUDA: compiled, where there is a compiler, and captured. CPU: what is written in C, here at once; OpenVINO where the
    processor multiplies bfloat16 and matrix units have not outrun it, or where there is no C compiler; torch.compile
    where the runtime asks for it; no more of them once there is `enough`. Raises where there should be one and is none;
    what else was missing is noted.
    """
    if world.runtime.device.type == "cuda":
        yield engine_of_gpu(world, frame_shape, num_dreams, note)
    elif world.runtime.compile:
        engine: Engine = compiled.build(world.denoiser, world.reward_end, world.runtime)
        warm_up(engine, world, frame_shape, num_dreams)
        yield engine
    elif world.runtime.device.type == "cpu":
        yield from engines_of_cpu(world, frame_shape, num_dreams, note, enough)


def engine_of_gpu(world: World, frame_shape: tuple[int, int, int], num_dreams: int, note: Tell) -> Engine:
    """Compiled where that can be, and recorded: what play may ask for is recorded now, not when it does."""
    runtime = world.runtime
    try:
        engine = compiled.build(world.denoiser, world.reward_end, runtime)
        warm_up(engine, world, frame_shape, num_dreams)
    except RuntimeError as error:  # a compiler has failed: recordings need none
        if not runtime.compile:
            raise
        note(" ".join(str(error).split())[:200])
        engine = compiled.build(world.denoiser, world.reward_end, replace(runtime, compile=False))
        warm_up(engine, world, frame_shape, num_dreams)
    if num_dreams == 1:
        # kernels for any other number are compiled now, not when a second player comes
        warm_up(engine, world, frame_shape, 2)
        for num_steps in range(world.sampler.least_steps, MOST_STEPS + 1):  # between which --steps auto chooses
            stage = copy.copy(world)
            stage.set_sampler(replace(world.sampler, num_steps=num_steps))
            warm_up(engine, stage, frame_shape, 1)
    return engine


def engines_of_cpu(world: World, frame_shape: tuple[int, int, int], num_dreams: int, note: Tell,
                   enough: Callable[[], bool]) -> Iterator[Engine]:
    """See `engines`."""
    best, share = None, 1.0
    told: set[str] = set()
    builds = [winograd.build, tiles.build] if tiles.promised() else [winograd.build]
    for build in [*builds, openvino_runtime.build]:
        if build is openvino_runtime.build and best and (share < OUTRUN or not has_bfloat16(world.runtime.device)):
            return
        if enough():
            return
        try:
            engine = build(world.denoiser, world.reward_end, frame_shape)
        except (winograd.NotHere, openvino_runtime.OpenVinoError) as error:
            if best is None and build is openvino_runtime.build:
                raise
            if str(error) not in told:
                note(str(error))
            told.add(str(error))
            continue
        warm_up(engine, world, frame_shape, num_dreams)
        share = share_of_time(engine, best, world, frame_shape, num_dreams) if best else 1.0
        if best is not None and share > WORTH:
            note(f"{engine.name} takes {share:.0%} of the time of {best.name}")
            continue
        best = engine
        yield engine


def share_of_time(engine: Engine, other: Engine, world: World, frame_shape: tuple[int, int, int], num_dreams: int
                  ) -> float:
    """What a frame takes with one engine, over what it takes with the other: the best of a few in turn, since play goes
    on beside."""
    frames = {one.name: rehearsal(one, world, frame_shape, num_dreams) for one in (engine, other)}
    took: dict[str, list[float]] = {name: [] for name in frames}
    for _ in range(RACES):
        for name, frame in frames.items():
            started = time.perf_counter()
            frame()
            took[name].append(time.perf_counter() - started)
    return min(took[engine.name]) / min(took[other.name])


def at_once(world: World, frame_shape: tuple[int, int, int]) -> None:
    """Switches over to the engine that needs no search, if the device has one: for what does not last."""
    if world.runtime.device.type == "cpu" and not world.runtime.compile:
        with contextlib.suppress(winograd.NotHere):
            world.engine = winograd.build(world.denoiser, world.reward_end, frame_shape)


def engines_of(names: set[str], world: World, frame_shape: tuple[int, int, int]) -> dict[str, Engine]:
    """The world's own engine, and those by the other names that can be had here: what a tape was dreamt on."""
    there = {world.path: world.engine}
    networks = world.denoiser, world.reward_end, frame_shape
    builds: list[tuple[str, Callable[[], list[Engine]]]] = [
        ("Winograd", lambda: [winograd.build(*networks)]), ("OpenVINO", lambda: [openvino_runtime.build(*networks)]),
        ("", lambda: list(engines(world, frame_shape)))]
    for kind, build in builds:
        missing = names - set(there)
        if any(name.startswith(kind) for name in missing):
            # a tape is played on what there is, and the verdict says what was missing
            with contextlib.suppress(RuntimeError):
                there |= {engine.name: engine for engine in build()}
    return there


def warm_up(engine: Engine, world: World, frame_shape: tuple[int, int, int], num_dreams: int) -> None:
    """One whole frame of nothing, so that the first real one does not wait for buffers."""
    rehearsal(engine, world, frame_shape, num_dreams)()


def rehearsal(engine: Engine, world: World, frame_shape: tuple[int, int, int], num_dreams: int) -> Callable[[], object]:
    """Dreams that have begun with nothing; a call makes their first frame."""
    device, k = world.runtime.device, world.num_conditioning_frames
    frames = torch.zeros(num_dreams, k, *frame_shape, dtype=torch.uint8, device=device)
    actions = torch.zeros(num_dreams, k, dtype=torch.int64, device=device)
    stage = copy.copy(world)
    stage.engine = engine
    state = stage.start(frames, actions, actions[:, 0])
    return lambda: stage.step(state, actions[:, 0])

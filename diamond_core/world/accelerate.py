"""Finds the fastest faithful engine for the machine, beside play, and swaps it in between two steps. Our own."""

from __future__ import annotations

import copy
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch

from diamond_core.device import has_bfloat16
from diamond_core.world import compiled, openvino_runtime, winograd

if TYPE_CHECKING:
    from diamond_core.world.dream import World
    from diamond_core.world.engine import Engine

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
        # a daemon: quitting the player must not wait for a compiler
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

    def _run(self) -> None:
        started = time.perf_counter()
        try:
            for engine in engines(self.world, self._frame_shape, self._num_dreams, self._tell):
                self.world.engine = engine
        # A compiler or driver may fail in ways of its own, and play goes on without it
        except Exception as error:
            self.message = " ".join(str(error).split())[:200] or type(error).__name__
        else:
            self.message = f"{self.world.path}, ready after {time.perf_counter() - started:.1f} s"
        self._tell(self.message)


def accelerate(world: World, frame_shape: tuple[int, int, int], tell: Tell = lambda _: None, num_dreams: int = 1
               ) -> Acceleration:
    """Starts looking for a faster engine for frames (c, h, w); `world` dreams on and is switched over later."""
    return Acceleration(world, frame_shape, tell, num_dreams)


def engines(world: World, frame_shape: tuple[int, int, int], num_dreams: int = 1, tell: Tell = lambda _: None
            ) -> Iterator[Engine]:
    """Engines that suit the device, warmed up, each faster than the one before; none where the present one is best.

    CUDA: compiled and captured. CPU: Winograd's convolutions, here at once; OpenVINO where the processor multiplies
    bfloat16, or where there is no C compiler; torch.compile where the runtime asks for it.
    """
    runtime = world.runtime
    networks = world.denoiser, world.reward_end
    if runtime.compile:
        engine: Engine = compiled.build(*networks, runtime)
        warm_up(engine, world, frame_shape, num_dreams)
        if runtime.device.type == "cuda" and num_dreams == 1:
            # kernels for any other number are compiled now, not when a second player comes
            warm_up(engine, world, frame_shape, 2)
        yield engine
    elif runtime.device.type == "cpu":
        is_best = False
        try:
            engine = winograd.build(*networks, frame_shape)
        except winograd.NotHere as error:
            tell(str(error))
        else:
            warm_up(engine, world, frame_shape, num_dreams)
            yield engine
            is_best = not has_bfloat16(runtime.device)
        if not is_best:
            engine = openvino_runtime.build(*networks, frame_shape)
            warm_up(engine, world, frame_shape, num_dreams)
            yield engine


def warm_up(engine: Engine, world: World, frame_shape: tuple[int, int, int], num_dreams: int) -> None:
    """One whole frame of nothing, so that the first real one does not wait for buffers."""
    device, k = world.runtime.device, world.num_conditioning_frames
    frames = torch.zeros(num_dreams, k, *frame_shape, dtype=torch.uint8, device=device)
    actions = torch.zeros(num_dreams, k, dtype=torch.int64, device=device)
    rehearsal = copy.copy(world)
    rehearsal.engine = engine
    rehearsal.step(rehearsal.start(frames, actions, actions[:, 0]), actions[:, 0])

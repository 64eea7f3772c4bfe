"""The world's networks on a CPU with matrix units (AMX): bfloat16 in C, compiled in two seconds, once. Our own."""

from __future__ import annotations

import ctypes
import functools
import os
import subprocess
import sys
from pathlib import Path

from diamond_core.device import SWITCH, processor
from diamond_core.world.denoiser import Denoiser
from diamond_core.world.engine import HoistedEngine
from diamond_core.world.reward_end import RewardEndModel
from diamond_core.world.tiles_steps import TileWriter
from diamond_core.world.winograd import compare, engine_of, loaded
from diamond_core.world.winograd_steps import NotHere

SOURCE = Path(__file__).with_name("tiles.c")
FLAGS: tuple[str, ...] = ()
"""For the compiler, beside those of all sources."""
NAME = "AMX bfloat16"
INSTRUCTIONS = {"amx_tile", "amx_bf16", "avx512_bf16"}
REFUSED, KEPT = 3, "the system keeps the processor's matrix units (AMX) to itself"
TRIAL = f"import ctypes, sys; c = ctypes.CDLL(sys.argv[1]); sys.exit({REFUSED} if c.permit() else c.trial())"
WORST_ERROR = 2e-2
"""As in `winograd`; what bfloat16 rounds off is a quarter of it."""


def promised() -> bool:
    """Whether the processor has matrix units, and the switch for older instructions leaves them there."""
    shown = os.environ.get(SWITCH, "").upper()
    return set(processor().split()) >= INSTRUCTIONS and (shown in ("", "ALL", "DEFAULT") or "AMX" in shown)


def build(denoiser: Denoiser, reward_end: RewardEndModel, frame_shape: tuple[int, int, int]) -> HoistedEngine:
    """The engine, in a quarter of a second, and two more where the source was never compiled. Raises NotHere.

    May run in a thread beside play.
    """
    engine = engine_of(denoiser, reward_end, frame_shape[1:], TileWriter, library(), NAME)
    compare(engine, reward_end, frame_shape, WORST_ERROR)
    return engine


@functools.cache
def library() -> ctypes.CDLL:
    """The functions of the source, which the kernel permits to run. Raises NotHere."""
    functions = loaded(SOURCE, FLAGS, tried)
    if functions.permit():
        raise NotHere(KEPT)
    return functions


def tried(path: Path) -> None:
    """Multiplies two tiles in a process of its own, once: an instruction that is not there ends a process. Raises
    NotHere."""
    if not sys.executable:
        raise NotHere("the processor's matrix units (AMX) cannot be tried without a Python of its own")
    try:
        done = subprocess.run([sys.executable, "-I", "-S", "-c", TRIAL, str(path)], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotHere(f"the processor's matrix units (AMX) could not be tried: {error}") from error
    if done.returncode == REFUSED:
        raise NotHere(KEPT)
    if done.returncode:
        raise NotHere(f"the processor's matrix units (AMX) failed their trial ({done.returncode})")

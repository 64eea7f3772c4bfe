"""What the machine can do: the device, its precision, and the settings that suit it."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
import shutil
import tempfile
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from torch import nn

from diamond_core.config import RuntimeConfig

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's malloc.h."""
SWITCH = "ONEDNN_MAX_CPU_ISA"
"""The variable that hides a processor's newer instructions from oneDNN, which computes for torch and OpenVINO."""
WITH_BFLOAT16 = ("", "ALL", "DEFAULT", "AVX512_CORE_BF16", "AVX512_CORE_FP16", "AVX512_CORE_AMX",
                 "AVX512_CORE_AMX_FP16", "AVX10_1_512", "AVX10_1_512_AMX", "AVX10_1_512_AMX_FP16")
"""Its values that leave bfloat16 there."""


@dataclass(frozen=True)
class Runtime:
    """`RuntimeConfig` with every `auto` decided."""

    device: torch.device
    dtype: torch.dtype
    channels_last: bool
    compile: bool
    winograd: bool = False
    """Whether training may compute convolutions by Winograd's algorithm."""
    swift: bool = False
    """Whether an agent's encoder may look in C: thrice as fast as torch's bfloat16 where there are no matrix units."""

    @property
    def records(self) -> bool:
        """Whether training's work is recorded, and replayed by the GPU."""
        return self.compile and self.device.type == "cuda"

    def autocast(self) -> AbstractContextManager[None]:
        """The precision of the networks, as a context: float32 is float32, whatever is around it."""
        if self.dtype == torch.float32:
            return torch.autocast(self.device.type, enabled=False)
        return torch.autocast(self.device.type, dtype=self.dtype)

    def place(self, model: nn.Module) -> nn.Module:
        """Moves a model to the device and into its memory format, in place."""
        placed = model.to(self.device)
        # torch's own annotation of `to` forgets the memory format
        return placed.to(memory_format=torch.channels_last) if self.channels_last else placed  # type: ignore[call-overload]


def resolve(config: RuntimeConfig = RuntimeConfig()) -> Runtime:
    """Looks at the machine. Raises ValueError for a device that is unknown or not there."""
    device = find_device(config.device)
    fast = has_bfloat16(device)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16,
             "auto": torch.bfloat16 if fast else torch.float32}[config.precision]
    # Compiling takes most of a minute on a CPU and needs a C++ compiler there: only when asked for
    compiles = {"on": True, "off": False, "auto": device.type == "cuda" and can_compile()}[config.compile]
    # without bfloat16 a CPU trains an eighth faster in the plain layout
    channels_last = {"on": True, "off": False, "auto": fast and device.type != "mps"}[config.channels_last]
    swift = config.convolutions == "auto" and device.type == "cpu" and not compiles
    return Runtime(device, dtype, channels_last, compiles, swift and dtype == torch.float32, swift)


def find_device(name: str) -> torch.device:
    """`auto` is the best there is; any other name must exist."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"unknown device '{name}': use auto, cpu, cuda, cuda:N or mps") from error
    there = {"cpu": True, "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
             "mps": torch.backends.mps.is_available()}.get(device.type, False)
    if not there:
        raise ValueError(f"device '{name}' is not on this machine: use auto or cpu")
    # by number, for every thread has a "current" one of its own
    return torch.device("cuda", torch.cuda.current_device()) if str(device) == "cuda" else device


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 matrices faster than float32 ones."""
    if device.type == "cuda":
        # torch's own question says yes, too, to what is only emulated; AMD's cards have it
        return bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)
    # torch 2.6 has no public question for this; a build without the private one runs in float32
    ask = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return device.type == "cpu" and bool(ask()) and os.environ.get(SWITCH, "").upper() in WITH_BFLOAT16


def can_compile() -> bool:
    """Whether torch can compile for a GPU here: by Triton, whose launchers on Linux are compiled in C."""
    try:
        from torch.utils._triton import has_triton
        there = has_triton()
    except Exception:  # a private name, and a driver that may fail in ways of its own
        return False
    return there and (os.name == "nt" or bool(os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")))


def keep_memory(keep: bool = True) -> bool:
    """Tells the C library to keep freed memory for the next allocation (or not); whether it listened.

    A training update frees and asks for gigabytes in large blocks. glibc hands each back to the kernel, which then
    clears every page again: two fifths of an update's time on a CPU.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    small, large = 128 << 10, (1 << 31) - 1
    heard = [mallopt(option, large if keep else small) for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD)]
    return all(heard)


def trim_memory() -> bool:
    """Gives freed memory back to the system; whether there was any.

    What a dream keeps of each step lies between the large buffers of that step, and the C library by itself only gives
    back what lies at the end: a server with eight players grew by 100 MB for each and never shrank.
    """
    try:
        return bool(ctypes.CDLL(None).malloc_trim(0))
    except (AttributeError, OSError, TypeError):
        return False


def cache_root() -> Path:
    """Where what was made for this machine is kept: `DIAMOND_CACHE`, or the user's folder for caches."""
    return Path(os.environ.get("DIAMOND_CACHE", user_cache_path("diamond")))


@functools.cache
def _spare() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="diamond-", ignore_cleanup_errors=True)


def spare_cache() -> Path:
    """A folder for this process alone, for what cannot be kept."""
    return Path(_spare().name)


def processor() -> str:
    """What distinguishes this processor from others, as far as kernels go."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    flags = [line for line in lines if line.startswith(("flags", "Features", "CPU part"))][:2]
    # and the switch that hides some of it
    return " ".join([platform.machine(), platform.processor(), platform.platform() if not flags else "", *flags,
                     os.environ.get(SWITCH, "")])


def describe_machine() -> dict[str, Any]:
    """Processor, cores, what it multiplies fast, memory, accelerator and versions, for people to read."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    fields = dict(line.split(":", 1) for line in reversed(lines) if ":" in line)
    fields = {name.strip(): value.strip() for name, value in fields.items()}
    flags = fields.get("flags", "").split()
    known = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8")
    machine: dict[str, Any] = {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(), "instructions": [flag for flag in known if flag in flags],
        "system": platform.system(), "python": platform.python_version(), "torch": torch.__version__}
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine

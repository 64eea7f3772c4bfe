"""The world's networks on a CPU without bfloat16: Winograd's convolutions in C, compiled in a second, once. Our own.

Nothing is traced or converted, and the compiled source serves all worlds: it is here long before play has begun.
"""

from __future__ import annotations

import copy
import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diamond_core.device import SWITCH, cache_root, processor, spare_cache
from diamond_core.world.denoiser import Denoiser
from diamond_core.world.engine import BodyModel, HoistedEngine, Judgement, JudgeModel, ada_norms
from diamond_core.world.reward_end import RewardEndModel
from diamond_core.world.winograd_steps import NotHere, Writer, body, encoder

SOURCE, SHARED = (Path(__file__).with_name(name) for name in ("winograd.c", "steps.h"))
FLAGS = ("-O3", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
COMPILE_SECONDS = 120
Proof = Callable[[Path], None]
"""Raises NotHere where a fresh library does not work."""
WORST_ERROR = 1e-3
"""Largest root mean square difference from torch, relative to the output's, that is accepted."""


def build(denoiser: Denoiser, reward_end: RewardEndModel, frame_shape: tuple[int, int, int]) -> HoistedEngine:
    """The engine for a CPU, in a quarter of a second, and one more where the source was never compiled. Raises NotHere.

    May run in a thread beside play.
    """
    engine = engine_of(denoiser, reward_end, frame_shape[1:], Writer, library(), "Winograd float32")
    compare(engine, reward_end, frame_shape)
    return engine


def engine_of(denoiser: Denoiser, reward_end: RewardEndModel, size: tuple[int, int], kind: type[Writer],
              functions: ctypes.CDLL, name: str) -> HoistedEngine:
    """An engine of what that writer writes and those functions run."""
    inner, rest = denoiser.inner_model, JudgeModel(copy.deepcopy(reward_end).eval())
    frame = Network(body(inner, size, kind), functions)
    features = Network(encoder(reward_end.encoder, size, kind), functions)
    modulations = modulations_of(reward_end)

    def draw(noisy: Tensor, past: Tensor, modulation: Tensor) -> Tensor:
        return frame(torch.cat([past, noisy], dim=1), modulation)

    @torch.no_grad()
    def judge(frames: Tensor, actions: Tensor, next_frames: Tensor, hx: Tensor, cx: Tensor) -> Judgement:
        seen = features(torch.cat([frames, next_frames], dim=1), modulations[actions])
        return Judgement(*rest.remember(seen.flatten(1), hx, cx))

    return HoistedEngine(denoiser, draw, judge, name)


@torch.no_grad()
def modulations_of(reward_end: RewardEndModel) -> Tensor:
    """(A, m): the scales and shifts of the encoder's norms for every action."""
    return torch.cat([norm.linear(reward_end.act_emb.weight) for norm in ada_norms(reward_end.encoder)], dim=1)


@torch.no_grad()
def compare(engine: HoistedEngine, reward_end: RewardEndModel, frame_shape: tuple[int, int, int],
            worst: float = WORST_ERROR) -> None:
    """Raises NotHere if the networks are not what they are in torch."""
    inner, k = engine.denoiser.inner_model, engine.denoiser.config.num_conditioning_frames
    c, h, w = frame_shape
    x, past = torch.rand(1, c, h, w) * 2 - 1, torch.rand(1, k * c, h, w) * 2 - 1
    model = BodyModel(inner)
    modulation = torch.rand(1, model.size) / 10
    action, memory = torch.zeros(1, dtype=torch.int64), torch.zeros(1, reward_end.config.lstm_dim)
    found_memory = engine.judge(x, action, past[:, :c], memory, memory)[2:]
    # not the logits: torch computes them of this memory, and a few small numbers say nothing of bfloat16
    pairs = [(engine.body(x, past, modulation), model(x, past, modulation)),
             *zip(found_memory, JudgeModel(reward_end)(x, action, past[:, :c], memory, memory)[2:], strict=True)]
    for found, expected in pairs:
        error = (found - expected).square().mean().sqrt() / expected.square().mean().sqrt().clamp(min=1e-6)
        if not error < worst:
            raise NotHere(f"{engine.name} is off by {error.item():.2g} on this processor")


class Network:
    """A written network, tensors in and tensors out."""

    def __init__(self, writer: Writer, functions: ctypes.CDLL | None = None) -> None:
        read = next(numbers for kind, numbers, _ in writer.steps if kind == "read")
        self._takes = read["c_in"], read["h"], read["w"]
        self._shape = writer.out_shape
        self._threads = torch.get_num_threads()
        self._weights = torch.cat(writer.learned)
        self._steps, self._size = writer.placed(self._threads)
        self._memory = torch.zeros(self._size)
        self._run = (functions or library()).run
        self._lock = threading.Lock()

    def __call__(self, inputs: Tensor, modulation: Tensor) -> Tensor:
        """inputs (n, c, h, w), modulation (n, m) -> (n, c', h', w'). Raises ValueError for other shapes than it was
        written for."""
        inputs, modulation = inputs.float().contiguous(), modulation.float().contiguous()
        n = len(inputs)
        # the source reads as much as it was told, wherever that ends
        if inputs.shape[1:] != self._takes:
            raise ValueError(f"expected images of {self._takes}, got {tuple(inputs.shape[1:])}")
        if len(modulation) != n:
            raise ValueError(f"expected a modulation for each image, got {n} images and {len(modulation)} modulations")
        outputs = torch.empty(n, *self._shape)
        if n == 0:
            return outputs
        with self._lock:
            if n >= self._threads > 1 and len(self._memory) == self._size:
                self._memory = torch.zeros(self._size * self._threads)
            self._run(self._steps, len(self._steps), self._weights.data_ptr(), n,
                      inputs.data_ptr(), inputs[0].numel(), modulation.data_ptr(), modulation.shape[1],
                      outputs.data_ptr(), outputs[0].numel(), self._memory.data_ptr(), self._size, self._threads)
        return outputs


@functools.cache
def library() -> ctypes.CDLL:
    """The functions of the source, from the disk or compiled now. Raises NotHere."""
    functions = loaded()
    number, place, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_ssize_t
    for name, arguments in {
        "transform_weights": [place, number, number, number, place],
        "convolve_batch": [number] * 5 + [place] * 5 + [size, number],
        "gather_batch": [number] * 5 + [place] * 4 + [size, number],
    }.items():
        function = getattr(functions, name)
        function.restype, function.argtypes = None, arguments
    return functions


def loaded(source: Path = SOURCE, flags: tuple[str, ...] = (), proof: Proof = lambda _: None) -> ctypes.CDLL:
    """What was compiled of a source, ready to `run`. Raises NotHere."""
    path = compiled(source, flags, proof)
    try:
        functions = ctypes.CDLL(str(path))
    except OSError:  # cut short, or of another system that has the same home
        path.unlink(missing_ok=True)
        try:
            functions = ctypes.CDLL(str(compiled(source, flags, proof)))
        except OSError as error:
            raise NotHere(f"what was compiled of {source.name} does not load: {error}") from error
    number, place, size = ctypes.c_int, ctypes.c_void_p, ctypes.c_ssize_t
    functions.run.restype = None
    functions.run.argtypes = [place, number, place, number, place, size, place, size, place, size, place, size, number]
    return functions


def compiled(source: Path = SOURCE, flags: tuple[str, ...] = (), proof: Proof = lambda _: None) -> Path:
    """The library, which is kept for this source, compiler, system and processor once it has stood a proof. Raises
    NotHere."""
    commands = compilers()
    if not commands:
        raise NotHere("no C compiler (cc, gcc, clang): with one this would be twice as fast")
    key = " ".join([*commands[0], *FLAGS, *flags, *platform.libc_ver(), processor(), SHARED.read_text(),
                    source.read_text()])
    name = f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.so"
    folder = cache_root() / "winograd"
    for place in (folder, spare_cache()):
        try:
            if not (place / name).exists():
                place.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=place) as building:
                    fresh = compile_source(commands, Path(building) / name, source, flags)
                    proof(fresh)
                    os.replace(fresh, place / name)
            return place / name
        except OSError as error:  # a cache that cannot be written is one that is compiled anew at each start
            refused = error
    raise NotHere(f"{source.name} cannot be compiled into {folder}: {refused}") from refused


def compilers() -> list[list[str]]:
    """The commands that may be compilers: `CC`, else all that are found."""
    asked = shlex.split(os.environ.get("CC", ""))
    return [asked] if asked else [[path] for path in map(shutil.which, ("cc", "gcc", "clang")) if path]


def hidden() -> list[str]:
    """The switch that hides instructions from oneDNN and OpenVINO hides the widest ones from this path, too."""
    shown = os.environ.get(SWITCH, "").upper().startswith(("AVX512", "AVX10", "ALL", "DEFAULT"))
    return ["-mno-avx512f"] if os.environ.get(SWITCH) and not shown else []


def compile_source(commands: list[list[str]], target: Path, source: Path = SOURCE, flags: tuple[str, ...] = ()
                   ) -> Path:
    """By the first that can; clang calls the processor by another option on ARM. Raises NotHere."""
    told = ""
    for command in commands:
        for native in ("-march=native", "-mcpu=native"):
            try:
                done = subprocess.run([*command, *FLAGS, *flags, native, *hidden(), str(source), "-o", str(target),
                                       "-lm"], capture_output=True, text=True, timeout=COMPILE_SECONDS)
            except (OSError, subprocess.TimeoutExpired) as error:
                told = told or str(error)
                break
            if done.returncode == 0:
                with target.open("rb") as file:
                    os.fsync(file.fileno())
                return target
            told = told or next(iter(done.stderr.splitlines()), "no reason given")
    raise NotHere(f"{source.name} does not compile: {told[:150]}")

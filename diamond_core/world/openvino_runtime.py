"""The networks on OpenVINO: converted once beside play, tried out in processes of their own, kept on disk. Our own.

Some combinations of network and processor crash the runtime's compiler instead of failing, and tracing holds Python's
lock for seconds. So both happen in child processes, and the player only loads what has been seen to work.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cattrs
import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from diamond_core.config import DenoiserConfig, RewardEndConfig
from diamond_core.device import cache_root, processor
from diamond_core.world.denoiser import Denoiser
from diamond_core.world.engine import BodyModel, HoistedEngine, Judgement, JudgeModel
from diamond_core.world.reward_end import RewardEndModel

FORMAT = 5
"""Rises when converted networks of older versions can no longer be used."""
KEPT = 8
"""Converted worlds on disk; the oldest are deleted."""
NETWORKS, CHOICE = ("body", "judge"), "choice.json"
OPTIONS: dict[str, dict[str, str]] = {
    "": {},
    # the fused elementwise kernels of 2026.4 crash on some processors without AVX512, and are slower there
    "without snippets": {"SNIPPETS_MODE": "DISABLE"},
}
"""What is tried; the fastest that works is kept."""
WORST_ERROR = {"f32": 1e-3, "bf16": 0.1}
"""Largest root mean square difference from torch, relative to the output's, that is accepted."""
TRIAL_SECONDS, BUILD_SECONDS = 120, 600


class OpenVinoError(RuntimeError):
    """OpenVINO cannot be used here; the message says why, in one line."""


class Late(OpenVinoError):
    """It took too long: a busy machine, about which nothing is known yet."""


def build(denoiser: Denoiser, reward_end: RewardEndModel, frame_shape: tuple[int, int, int]) -> HoistedEngine:
    """The engine for a CPU: from the disk, or converted and tried out first, in some ten seconds.

    Raises OpenVinoError. May run in a thread beside play.
    """
    if importlib.util.find_spec("openvino") is None:
        raise OpenVinoError("OpenVINO is not installed: pip install openvino makes dreams two to three times faster")
    folder = cache_folder(denoiser, reward_end, frame_shape)
    try:
        choice = chosen(folder)
        if choice is None:
            convert(folder, denoiser, reward_end, frame_shape)
            choice = try_out(folder)
            fresh = folder / f"{CHOICE}.{os.getpid()}"
            fresh.write_text(json.dumps(choice))
            os.replace(fresh, folder / CHOICE)
            forget_old(folder.parent)
        with contextlib.suppress(OSError):  # another's folder may be read only
            os.utime(folder)
    except OSError as error:
        raise OpenVinoError(f"OpenVINO's networks cannot be kept in {folder.parent}: {error}") from error
    if choice["options"] is None:
        raise OpenVinoError(f"OpenVINO does not work with this processor ({choice['why']}): dreaming with torch")
    body, judge = (Network(folder, name, choice["options"], choice["precision"]) for name in NETWORKS)
    return HoistedEngine(denoiser, lambda *x: body(*x)[0], lambda *x: Judgement(*judge(*x)),
                         f"OpenVINO {choice['precision']}")


def chosen(folder: Path) -> dict[str, Any] | None:
    """What was found out before; none where nothing was, or what was written cannot be read."""
    try:
        choice = json.loads((folder / CHOICE).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return choice if isinstance(choice, dict) and "options" in choice else None


def cache_folder(denoiser: Denoiser, reward_end: RewardEndModel, frame_shape: tuple[int, int, int]) -> Path:
    """Where these weights, converted for this version and processor, are kept."""
    from importlib.metadata import version

    root = cache_root() / "openvino"
    digest = hashlib.sha256(json.dumps([FORMAT, version("openvino"), torch.__version__, processor(), frame_shape,
                                        description(denoiser, reward_end, frame_shape)]).encode())
    for model in (denoiser, reward_end):
        for x in model.state_dict().values():
            digest.update(x.detach().cpu().contiguous().numpy().tobytes())
    return root / digest.hexdigest()[:24]


def description(denoiser: Denoiser, reward_end: RewardEndModel, frame_shape: tuple[int, int, int]) -> dict[str, Any]:
    """What a child process needs to build the networks again, as JSON."""
    return {"denoiser": asdict(denoiser.config), "reward_end": asdict(reward_end.config),
            "num_actions": denoiser.num_actions, "frame_shape": list(frame_shape)}


def convert(folder: Path, denoiser: Denoiser, reward_end: RewardEndModel, frame_shape: tuple[int, int, int]) -> None:
    """Writes the converted networks and reference outputs; the folder appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as building:
        (Path(building) / "networks.json").write_text(json.dumps(description(denoiser, reward_end, frame_shape)))
        save_file({f"{name}/{key}": x.detach().cpu().float().contiguous()
                   for name, model in (("denoiser", denoiser), ("reward_end", reward_end))
                   for key, x in model.state_dict().items()}, Path(building) / "weights.safetensors")
        run_child("convert", building, timeout=BUILD_SECONDS)
        (Path(building) / "weights.safetensors").unlink()
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(building, folder)
            os.mkdir(building)  # for the context to remove
    if not folder.is_dir():
        raise OpenVinoError(f"OpenVINO's networks could not be put into {folder}")


def try_out(folder: Path) -> dict[str, Any]:
    """Compiles, checks and times every set of options, each in a process of its own; what was chosen and why. Raises
    Late where none was in time."""
    results: dict[str, dict[str, Any]] = {}
    errors: list[OpenVinoError] = []
    for precision in precisions():
        for options in OPTIONS:
            try:
                results[options] = json.loads(run_child("try", str(folder), options, precision, timeout=TRIAL_SECONDS))
            except OpenVinoError as error:
                errors.append(error)
        if results:
            best = min(results, key=lambda options: results[options]["milliseconds"])
            return {"options": best, "precision": precision, "tried": results, "failed": [str(e) for e in errors]}
    why = "; ".join(dict.fromkeys(str(error) for error in errors))
    if any(isinstance(error, Late) for error in errors):
        raise Late(f"OpenVINO was too slow to try ({why}): dreaming with torch; the next start tries it again")
    return {"options": None, "why": why}


def precisions() -> list[str]:
    """What the processor says it computes fast, best first. It may say so of kernels that are switched off."""
    import openvino

    return ["bf16", "f32"] if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES") else ["f32"]


def run_child(*args: str, timeout: float) -> str:
    """Runs this module as a program; its last line. Raises OpenVinoError."""
    environment = dict(os.environ, OMP_WAIT_POLICY="PASSIVE")
    try:
        done = subprocess.run([sys.executable, "-m", "diamond_core.world.openvino_runtime", *args], timeout=timeout,
                              capture_output=True, text=True, env=environment, cwd=Path(__file__).parents[2])
    except subprocess.TimeoutExpired as error:
        raise Late(f"{args[0]} took more than {timeout:.0f} s") from error
    except OSError as error:
        raise OpenVinoError(f"{args[0]}: {error}") from error
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        reason = done.stderr.strip().splitlines()[-1:] or [f"it ended with {done.returncode}"]
        raise OpenVinoError(f"{args[0]} failed: {reason[0][:200]}")
    return lines[-1]


def forget_old(root: Path) -> None:
    """Keeps the newest converted worlds."""
    import shutil

    folders = sorted((p for p in root.iterdir() if not p.name.startswith(".")), key=lambda p: p.stat().st_mtime)
    for folder in folders[:-KEPT]:
        shutil.rmtree(folder, ignore_errors=True)


class Network:
    """A compiled network, tensors in and tensors out: one frame on kernels of its own shape, more on free ones."""

    def __init__(self, folder: Path, name: str, options: str, precision: str) -> None:
        import openvino

        core = openvino.Core()
        # threads that are bound to cores would wait for whatever else runs there
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": precision,
                    "INFERENCE_NUM_THREADS": torch.get_num_threads(), "ENABLE_CPU_PINNING": False,
                    "CACHE_DIR": str(folder / "compiled"), **OPTIONS[options]}
        many, one = (core.read_model(folder / f"{name}.xml") for _ in range(2))
        # a fixed shape is an eighth faster
        one.reshape({x.any_name: [1, *(side.get_length() for side in list(x.partial_shape)[1:])] for x in one.inputs})
        self._one, self._many = (core.compile_model(model, "CPU", settings).create_infer_request()
                                 for model in (one, many))
        self._outputs = len(self._one.model_outputs)
        self._lock = threading.Lock()

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Inputs are read where they lie; outputs are copies."""
        arrays = [x.detach().contiguous().numpy() for x in inputs]
        request = self._one if len(arrays[0]) == 1 else self._many
        with self._lock:
            results = request.infer(dict(enumerate(arrays)), share_inputs=True, share_outputs=True)
            return [torch.from_numpy(np.array(results[i])) for i in range(self._outputs)]


def main(action: str, folder: str, *args: str) -> None:
    """What the children do. They are not `nice`: beside a dream that fills both cores they would never end."""
    if action == "convert":
        _convert(Path(folder))
    else:
        _try(Path(folder), *args)


@torch.no_grad()
def _convert(folder: Path) -> None:
    import openvino

    torch.set_num_threads(1)
    for name, model, inputs in _networks(folder):
        traced = torch.jit.trace(model, inputs, check_trace=False)
        converted = openvino.convert_model(traced, example_input=inputs)
        # only the batch may change
        converted.reshape({i: openvino.PartialShape([-1, *x.shape[1:]]) for i, x in enumerate(inputs)})
        openvino.save_model(converted, folder / f"{name}.xml", compress_to_fp16=False)
        outputs = model(*inputs)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        save_file({f"{kind}{i}": x.contiguous() for kind, xs in (("in", inputs), ("out", outputs))
                   for i, x in enumerate(xs)}, folder / f"{name}.safetensors")
    print("converted")


def _networks(folder: Path) -> list[tuple[str, nn.Module, tuple[Tensor, ...]]]:
    """The two networks with example inputs of one frame."""
    about = json.loads((folder / "networks.json").read_text())
    (c, h, w), actions = about["frame_shape"], about["num_actions"]
    denoiser = Denoiser(cattrs.structure(about["denoiser"], DenoiserConfig), actions, c)
    reward_end = RewardEndModel(cattrs.structure(about["reward_end"], RewardEndConfig), actions, (c, h, w))
    weights = load_file(folder / "weights.safetensors")
    for name, model in (("denoiser", denoiser), ("reward_end", reward_end)):
        model.load_state_dict({k.removeprefix(f"{name}/"): x for k, x in weights.items() if k.startswith(f"{name}/")})
    body, judge = BodyModel(denoiser.inner_model).eval(), JudgeModel(reward_end).eval()
    k, dim = denoiser.config.num_conditioning_frames, reward_end.config.lstm_dim
    torch.manual_seed(0)
    return [("body", body, (torch.randn(1, c, h, w), torch.randn(1, k * c, h, w), torch.randn(1, body.size) / 10)),
            ("judge", judge, (torch.rand(1, c, h, w) * 2 - 1, torch.zeros(1, dtype=torch.int64),
                              torch.rand(1, c, h, w) * 2 - 1, torch.randn(1, dim) / 10, torch.randn(1, dim) / 10))]


def _try(folder: Path, options: str, precision: str) -> None:
    """Prints the processor time of a call of the body in ms; fails if the outputs are wrong."""
    times = []
    for name in NETWORKS:
        network = Network(folder, name, options, precision)
        stored = load_file(folder / f"{name}.safetensors")
        inputs = [stored[f"in{i}"] for i in range(sum(key.startswith("in") for key in stored))]
        outputs = network(*inputs)
        for i, x in enumerate(outputs):
            expected = stored[f"out{i}"]
            error = ((x - expected).square().mean().sqrt() / expected.square().mean().sqrt().clamp(min=1e-6)).item()
            if not error < WORST_ERROR[precision]:
                raise SystemExit(f"{name} is off by {error:.2g}")
        if name == "body":
            for _ in range(7):
                # processor time: beside play the clock on the wall tells more of play than of this
                started = time.process_time()
                network(*inputs)
                times.append(time.process_time() - started)
        network(*(x.repeat(3, *[1] * (x.ndim - 1)) for x in inputs))
    print(json.dumps({"milliseconds": 1000 * min(times)}))


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The networks through torch.compile, in the machine's own precision; on CUDA whole steps as graphs. Our own."""

from __future__ import annotations

import copy
from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn

from diamond_core.device import Runtime
from diamond_core.graphs import Replays, Tensors
from diamond_core.world.denoiser import Denoiser
from diamond_core.world.engine import Body, BodyModel, HoistedEngine, Judge, Judgement, JudgeModel
from diamond_core.world.reward_end import RewardEndModel

NUM_GRAPHS = 24
"""Recordings that an engine keeps."""
RECOMPILATIONS = 64
"""Behind so many torch's compiler gives up. Each world with another number of actions needs some, and its own limit, 8,
is that of a process."""


def build(denoiser: Denoiser, reward_end: RewardEndModel, runtime: Runtime) -> HoistedEngine:
    """An engine whose networks are compiled when they first run, most of a minute on a CPU; as they stand where the
    runtime does not compile."""
    limit = "recompile_limit" if hasattr(torch._dynamo.config, "recompile_limit") else "cache_size_limit"
    setattr(torch._dynamo.config, limit, max(RECOMPILATIONS, getattr(torch._dynamo.config, limit)))
    body, judge = (CompiledNetwork(model, runtime) for model in (BodyModel(denoiser.inner_model),
                                                                 JudgeModel(reward_end)))
    how = "torch.compile" if runtime.compile else "torch"
    name = f"{how} {runtime.device.type} {str(runtime.dtype).removeprefix('torch.')}"
    on_cuda = runtime.device.type == "cuda"
    kind, name = (GraphEngine, name + " graphs") if on_cuda else (HoistedEngine, name)
    return kind(denoiser, lambda *x: body(*x)[0], lambda *x: Judgement(*judge(*x)), name)


class GraphEngine(HoistedEngine):
    """Replays whole steps: a frame is some hundred kernels, and Python is slower to launch them than the GPU to run."""

    def __init__(self, denoiser: Denoiser, body: Body, judge: Judge, name: str) -> None:
        super().__init__(denoiser, body, judge, name)
        self._replays = Replays(NUM_GRAPHS)

    def whole(self, step: Tensors, key: Hashable, *inputs: Tensor) -> Sequence[Tensor]:
        """See `Engine`."""
        return self._replays(step, key, *inputs)


class CompiledNetwork:
    """A network in the runtime's precision: float32 tensors in and out."""

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        self._dtype = runtime.dtype
        self._model = runtime.place(copy.deepcopy(model).to(runtime.dtype).requires_grad_(False).eval())
        self._compiled = torch.compile(self._run) if runtime.compile else self._run

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The outputs, as a sequence even if there is one."""
        return self._compiled(*inputs)

    def _run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self._model(*(x.to(self._dtype) if x.is_floating_point() else x for x in inputs))
        return tuple(x.float() for x in (outputs if isinstance(outputs, tuple) else (outputs,)))

"""The networks through torch.compile, in the machine's own precision, and on CUDA as captured graphs. Our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from diamond_core.device import Runtime
from diamond_core.world.denoiser import Denoiser
from diamond_core.world.engine import BodyModel, HoistedEngine, Judgement, JudgeModel
from diamond_core.world.reward_end import RewardEndModel


def build(denoiser: Denoiser, reward_end: RewardEndModel, runtime: Runtime) -> HoistedEngine:
    """An engine whose networks are compiled when they first run: most of a minute on a CPU."""
    body, judge = (CompiledNetwork(model, runtime) for model in (BodyModel(denoiser.inner_model),
                                                                 JudgeModel(reward_end)))
    layout = " graphs" if runtime.device.type == "cuda" else ""
    return HoistedEngine(denoiser, lambda *x: body(*x)[0], lambda *x: Judgement(*judge(*x)),
                         f"torch.compile {runtime.device.type} {str(runtime.dtype).removeprefix('torch.')}{layout}")


class CompiledNetwork:
    """A network in the runtime's precision: float32 tensors in and out."""

    def __init__(self, model: nn.Module, runtime: Runtime) -> None:
        import copy

        self._dtype = runtime.dtype
        self._model = runtime.place(copy.deepcopy(model).to(runtime.dtype).requires_grad_(False).eval())
        run: Callable[..., Sequence[Tensor]] = torch.compile(self._run)
        self._compiled = Captured(run) if runtime.device.type == "cuda" else run

    @torch.no_grad()
    def __call__(self, *inputs: Tensor) -> Sequence[Tensor]:
        """The outputs, as a sequence even if there is one."""
        return self._compiled(*inputs)

    def _run(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        outputs = self._model(*(x.to(self._dtype) if x.is_floating_point() else x for x in inputs))
        return tuple(x.float() for x in (outputs if isinstance(outputs, tuple) else (outputs,)))


class Captured:
    """A function of CUDA tensors as one graph for each shape of its inputs: no kernel is launched by Python."""

    def __init__(self, f: Callable[..., Sequence[Tensor]]) -> None:
        self._f = f
        self._graphs: dict[tuple[torch.Size, ...], tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor]]] = {}

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """Copies of the outputs: the graph's own are overwritten by its next replay."""
        shapes = tuple(x.shape for x in inputs)
        if shapes not in self._graphs:
            self._graphs[shapes] = self._capture(inputs)
        graph, held, outputs = self._graphs[shapes]
        for buffer, x in zip(held, inputs, strict=True):
            buffer.copy_(x)
        graph.replay()
        return [x.clone() for x in outputs]

    def _capture(self, inputs: Sequence[Tensor]) -> tuple[torch.cuda.CUDAGraph, list[Tensor], list[Tensor]]:
        held = [x.clone() for x in inputs]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # compiles and chooses kernels before anything is recorded
            for _ in range(3):
                self._f(*held)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = list(self._f(*held))
        return graph, held, outputs

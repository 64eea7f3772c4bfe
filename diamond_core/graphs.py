"""CUDA graphs: a few hundred kernels become one, where Python is slower to launch them than the GPU to run. Our own."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Tensors = Callable[..., Sequence[Tensor]]
"""A function of tensors."""
NUM_REHEARSALS = 3
"""Calls before a function is recorded, in which kernels are compiled and chosen."""
RECORDING = threading.RLock()
"""Held while something is recorded: a process may record one thing at a time, and waiting for the whole device, as each
recording does before it begins, breaks another one's."""


class Recorded:
    """A function of CUDA tensors, recorded once for inputs of given shapes, and then replayed by the GPU alone.

    What the function reads besides its inputs must stay where it is in memory; it must not wait for the GPU. Random
    numbers are fresh in every replay, and those of the first are the ones that come next.
    """

    def __init__(self, f: Tensors, inputs: Sequence[Tensor]) -> None:
        self._inputs = [x.clone() for x in inputs]
        # where they are, which may not be the thread's current device
        with RECORDING, torch.cuda.device(self._inputs[0].device):
            luck = torch.cuda.get_rng_state()
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(NUM_REHEARSALS):
                    f(*self._inputs)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # other threads may go on with work of their own meanwhile
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
                self._outputs = list(f(*self._inputs))
            torch.cuda.set_rng_state(luck)

    def __call__(self, *inputs: Tensor) -> list[Tensor]:
        """The recording's own outputs: the next call overwrites them."""
        for buffer, x in zip(self._inputs, inputs, strict=True):
            buffer.copy_(x, non_blocking=True)
        self._graph.replay()
        return self._outputs


class Replays:
    """Functions that are recorded where they are first called with such tensors; for any threads."""

    def __init__(self, most: int) -> None:
        """Keeps so many recordings; each holds the memory of a whole call."""
        self._most = most
        self._kept: OrderedDict[Hashable, Recorded] = OrderedDict()
        self._without: set[Hashable] = set()
        self._lock = threading.Lock()

    def __call__(self, f: Tensors, key: Hashable, *inputs: Tensor) -> Sequence[Tensor]:
        """f(*inputs); the key tells functions apart."""
        key = key, tuple((x.shape, x.dtype) for x in inputs)
        with self._lock:  # a recording has one set of buffers, whoever asks
            if key not in self._kept and not self._record(f, key, inputs):
                return f(*inputs)
            self._kept.move_to_end(key)
            return [x.clone() for x in self._kept[key](*inputs)]

    def _record(self, f: Tensors, key: Hashable, inputs: Sequence[Tensor]) -> bool:
        """Whether there is one now: not while somebody else records, and not where there is no memory for it."""
        if key in self._without or not RECORDING.acquire(blocking=False):
            return False
        try:
            self._kept[key] = Recorded(f, inputs)
        except RuntimeError:  # such as torch.OutOfMemoryError; the function itself may do with less
            self._without.add(key)
            return False
        finally:
            RECORDING.release()
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)
        return True

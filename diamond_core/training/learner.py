"""One way to train all three models: gradients, clipping, AdamW, warm-up, weight averaging. Source: SPEC 7."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from diamond_core.config import LearnerConfig
from diamond_core.device import Runtime
from diamond_core.graphs import Recorded
from diamond_core.nn.blocks import FourierFeatures

Loss = Callable[[nn.Module, Any], tuple[Tensor, dict[str, Tensor]]]
"""loss(model, batch) -> a scalar with gradients, and numbers to log."""
KEPT_WHOLE = (nn.Linear, nn.Conv2d, nn.LSTM, nn.LSTMCell)
"""Layers whose weights decay; biases, norms and embeddings never do."""


class Objective(nn.Module):
    """A model and its loss as one module, so that several processes can share its gradients."""

    def __init__(self, model: nn.Module, loss: Loss) -> None:
        super().__init__()
        self.model = model
        self.loss = loss

    def forward(self, batch: Any) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of one batch."""
        return self.loss(self.model, batch)


class Learner:
    """Updates one model from a stream of batches."""

    def __init__(self, model: nn.Module, loss: Loss, config: LearnerConfig, runtime: Runtime, world_size: int = 1,
                 has_still_loss: bool = False) -> None:
        """A still loss does the same with every batch and never looks at a number, so that it can be recorded."""
        self.model = model
        self.config = config
        self.runtime = runtime
        objective = Objective(model, loss)
        rests = getattr(model, "encoder_rests", False)
        if rests and world_size > 1:
            # it gets no gradient here, even where another phase has taught it
            DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(objective, [
                name for name, _ in objective.named_parameters() if name.startswith("model.encoder.")])
        self.objective = DistributedDataParallel(objective) if world_size > 1 else objective
        on_cuda = runtime.device.type == "cuda"
        self.optimizer = torch.optim.AdamW(decay_groups(model, config.weight_decay), lr=config.learning_rate,
                                           eps=config.epsilon, fused=on_cuda or None)
        self._records = has_still_loss and runtime.records and world_size == config.accumulation == 1
        self._recorded: Recorded | None = None
        self._names: list[str] = []
        # placed again: a copied LSTM on a GPU would gather its weights anew at every call
        self.averaged = (runtime.place(copy.deepcopy(model)).requires_grad_(False).eval() if config.ema_decay else
                         model)
        """What is shown, saved and dreamt with: the moving average, or the model itself."""
        self.num_updates = 0

    def update(self, batches: Iterator[Any]) -> dict[str, Tensor]:
        """One update from `accumulation` batches, which count alike however much of each is padding. Returns detached
        numbers on the device."""
        self.model.train()
        gradients = self._replayed if self._records else self._accumulate
        records = [gradients(next(batches)) for _ in range(self.config.accumulation)]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.max_gradient_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate
        self.optimizer.step()
        if not self._records:
            self.optimizer.zero_grad(set_to_none=True)
        self.num_updates += 1
        self._average()
        return {**{name: torch.stack([r[name] for r in records]).mean() for name in records[0]},
                "gradient_norm": norm.detach()}

    def catch_up(self) -> None:
        """The average becomes what the model is now: somebody else has changed it."""
        if self.averaged is not self.model:
            self.averaged.load_state_dict(self.model.state_dict())

    @property
    def learning_rate(self) -> float:
        """Of the next update: a linear rise over the warm-up, then constant."""
        return self.config.learning_rate * min(1.0, (self.num_updates + 1) / max(1, self.config.warmup))

    def _accumulate(self, batch: Any) -> dict[str, Tensor]:
        with self.runtime.autocast():
            loss, record = self.objective(batch)
        (loss / self.config.accumulation).backward()
        return record

    def _replayed(self, batch: Any) -> dict[str, Tensor]:
        """As `_accumulate`, but replayed by the GPU: gradients lie where they lay when it was recorded."""
        inputs = list(vars(batch).values())

        def gradients(*tensors: Tensor) -> list[Tensor]:
            self.optimizer.zero_grad(set_to_none=True)
            record = self._accumulate(type(batch)(*tensors))
            self._names = list(record)
            return list(record.values())

        if self._recorded is None:
            try:
                self._recorded = Recorded(gradients, inputs)
            except RuntimeError as error:  # such as torch.OutOfMemoryError
                print(f"updates go on without a recording: {str(error).splitlines()[0]}", file=sys.stderr)
                self._records = False
                self.optimizer.zero_grad(set_to_none=True)
                return self._accumulate(batch)
        numbers = self._recorded(*inputs)
        return dict(zip(self._names, numbers, strict=True))

    @torch.no_grad()
    def _average(self) -> None:
        if self.averaged is self.model:
            return
        # young averages follow faster, or they would hold on to the initial weights
        decay = min(self.config.ema_decay, self.num_updates / (self.num_updates + 10))
        torch._foreach_lerp_(list(self.averaged.parameters()), list(self.model.parameters()), 1 - decay)

    def state_dict(self) -> dict[str, Any]:
        """Weights, averaged weights, optimizer and count."""
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict(),
                 "num_updates": self.num_updates}
        return state if self.averaged is self.model else {**state, "averaged": self.averaged.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_updates = state["num_updates"]
        if self.averaged is not self.model:
            self.averaged.load_state_dict(state["averaged"])


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two parameter groups: weights of linear, convolutional and recurrent layers decay, all else does not."""
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for module in model.modules():
        if isinstance(module, FourierFeatures):
            continue
        for name, p in module.named_parameters(recurse=False):
            (decayed if isinstance(module, KEPT_WHOLE) and "bias" not in name else others).append(p)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]

"""How the world's networks run: by torch as they stand, or hoisted, on the fastest runtime of the machine. Our own.

The plain engine is the truth. Another one computes the same function with what does not change taken out of the loop:
the conditioning of all noise levels of a frame is one matrix product.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diamond_core.device import Runtime
from diamond_core.diffusion.sampler import Denoise
from diamond_core.graphs import Tensors
from diamond_core.nn.blocks import AdaGroupNorm
from diamond_core.pixels import quantize
from diamond_core.world.denoiser import Denoiser, InnerModel
from diamond_core.world.reward_end import NUM_REWARDS, RewardEndModel

Body = Callable[[Tensor, Tensor, Tensor], Tensor]
"""body(noisy (n, c, h, w), past (n, k*c, h, w), modulation (n, m)) -> F (n, c, h, w)."""
Judge = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], "Judgement"]
"""judge(frames, actions (n,), next_frames, hx, cx): images (n, c, h, w) in [-1, 1], memory (n, lstm_dim)."""



class Judgement(NamedTuple):
    """What the reward model says of n transitions."""

    reward_logits: Tensor
    """(n, 3)."""
    end_logits: Tensor
    """(n, 2)."""
    hx: Tensor
    """(n, lstm_dim)."""
    cx: Tensor
    """(n, lstm_dim)."""


class Engine(Protocol):
    """What a world needs of its networks."""

    name: str
    """Which path runs, for people to read."""

    def denoise(self, past: Tensor, actions: Tensor, sigmas: Sequence[float]) -> Denoise:
        """The denoiser for one frame: past (n, k, c, h, w) in [-1, 1], actions (n, k), and the noise levels that will
        be asked for."""

    def judge(self, frames: Tensor, actions: Tensor, next_frames: Tensor, hx: Tensor, cx: Tensor) -> Judgement:
        """As in `Judge`."""

    def whole(self, step: Tensors, key: Hashable, *inputs: Tensor) -> Sequence[Tensor]:
        """step(*inputs), which uses this engine; an engine may record it and replay that for equal keys and shapes."""


class TorchEngine:
    """The networks as they stand."""

    def __init__(self, denoiser: Denoiser, reward_end: RewardEndModel, runtime: Runtime) -> None:
        self.denoiser = denoiser
        self.reward_end = JudgeModel(reward_end)
        self.runtime = runtime
        layout = " channels-last" if runtime.channels_last else ""
        self.name = f"torch {runtime.device.type} {str(runtime.dtype).removeprefix('torch.')}{layout}"

    def denoise(self, past: Tensor, actions: Tensor, sigmas: Sequence[float]) -> Denoise:
        """See `Engine`."""
        def denoised(x: Tensor, sigma: float) -> Tensor:
            with self.runtime.autocast():
                return self.denoiser(x, x.new_full((len(x),), sigma), past, actions)

        return denoised

    def judge(self, frames: Tensor, actions: Tensor, next_frames: Tensor, hx: Tensor, cx: Tensor) -> Judgement:
        """See `Engine`."""
        with self.runtime.autocast():
            return Judgement(*(x.float() for x in self.reward_end(frames, actions, next_frames, hx, cx)))

    def whole(self, step: Tensors, key: Hashable, *inputs: Tensor) -> Sequence[Tensor]:
        """See `Engine`."""
        return step(*inputs)


class HoistedEngine:
    """The same function with a body and a judge that may run anywhere, and the conditioning computed once a frame."""

    def __init__(self, denoiser: Denoiser, body: Body, judge: Judge, name: str) -> None:
        self.denoiser = denoiser
        self.body = body
        self.judge = judge
        self.name = name
        self.modulate = Modulation(denoiser.inner_model)
        self._levels: dict[float, tuple[float, float, float, Tensor]] = {}

    def denoise(self, past: Tensor, actions: Tensor, sigmas: Sequence[float]) -> Denoise:
        """See `Engine`."""
        past = past.flatten(1, 2) / self.denoiser.config.sigma_data

        def modulated(levels: Sequence[float]) -> dict[float, Tensor]:
            noise = torch.stack([self._level(sigma, past)[3] for sigma in levels])
            return dict(zip(levels, self.modulate(noise, actions), strict=True))

        modulations = modulated([sigma for sigma in sigmas if sigma > 0])

        def denoised(x: Tensor, sigma: float) -> Tensor:
            if sigma not in modulations:
                modulations.update(modulated([sigma]))
            c_in, c_out, c_skip, _ = self._level(sigma, x)
            return quantize(c_skip * x + c_out * self.body(x * c_in, past, modulations[sigma]))

        return denoised

    def whole(self, step: Tensors, key: Hashable, *inputs: Tensor) -> Sequence[Tensor]:
        """See `Engine`."""
        return step(*inputs)

    def _level(self, sigma: float, like: Tensor) -> tuple[float, float, float, Tensor]:
        """c_in, c_out, c_skip and the embedding (cond,) of a noise level, computed when first met."""
        if sigma not in self._levels:
            c = self.denoiser.conditioners(like.new_tensor([sigma]))
            embedded = self.denoiser.inner_model.noise_emb(c.c_noise)[0]
            self._levels[sigma] = c.c_in.item(), c.c_out.item(), c.c_skip.item(), embedded
        return self._levels[sigma]


class Modulation(nn.Module):
    """All scales and shifts of a denoiser's norms, for all noise levels of a frame, as one matrix product."""

    def __init__(self, inner: InnerModel) -> None:
        super().__init__()
        self.act_emb, self.cond_proj = inner.act_emb, inner.cond_proj
        linears = [norm.linear for norm in ada_norms(inner)]
        self.register_buffer("weight", torch.cat([x.weight for x in linears]).detach())
        self.register_buffer("bias", torch.cat([x.bias for x in linears]).detach())

    @torch.no_grad()
    def forward(self, noise: Tensor, actions: Tensor) -> Tensor:
        """Embedded noise levels (s, cond), actions (n, k) -> (s, n, m)."""
        cond = self.cond_proj(noise[:, None] + self.act_emb(actions))
        return nn.functional.linear(cond, self.get_buffer("weight"), self.get_buffer("bias"))


class Taken(nn.Module):
    """Stands where a linear layer stood: its output is a slice of the modulation."""

    def __init__(self, first: int, size: int) -> None:
        super().__init__()
        self.first, self.size = first, size

    def forward(self, modulation: Tensor) -> Tensor:
        """(n, m) -> (n, size)."""
        return modulation[:, self.first:self.first + self.size]


class BodyModel(nn.Module):
    """The denoiser's network behind its conditioning, see `Body`."""

    def __init__(self, inner: InnerModel) -> None:
        super().__init__()
        self.inner = copy.deepcopy(inner).requires_grad_(False).eval()
        first = 0
        for norm in ada_norms(self.inner):
            size = norm.linear.out_features
            norm.linear = Taken(first, size)  # type: ignore[assignment]
            first += size
        self.size = first

    def forward(self, noisy: Tensor, past: Tensor, modulation: Tensor) -> Tensor:
        """See `Body`."""
        return self.inner.body(noisy, past, modulation)


class JudgeModel(nn.Module):
    """The reward model for single transitions, see `Judge`."""

    def __init__(self, model: RewardEndModel) -> None:
        super().__init__()
        self.model = model
        # by themselves: torch's compiler breaks off wherever it meets an LSTM, and forgets the rest
        self.of_lstm = nn.ParameterList(model.lstm.all_weights[0])

    def forward(self, frames: Tensor, actions: Tensor, next_frames: Tensor, hx: Tensor, cx: Tensor
                ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """See `Judge`."""
        seen = self.model.encoder(torch.cat([frames, next_frames], dim=1), self.model.act_emb(actions))
        return self.remember(seen.flatten(1), hx, cx)

    def remember(self, seen: Tensor, hx: Tensor, cx: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The same behind the encoder: its output (n, features)."""
        # a step of the LSTM in the open: compilers stop at torch's own, and in bfloat16 it copies its weights each time
        of_input, of_memory, bias_1, bias_2 = self.of_lstm
        gates = F.linear(seen, of_input, bias_1) + F.linear(hx, of_memory, bias_2)
        enters, stays, new, shown = gates.chunk(4, dim=-1)
        cx = stays.sigmoid() * cx + enters.sigmoid() * new.tanh()
        hx = shown.sigmoid() * cx.tanh()
        logits = self.model.head(hx).float()
        return logits[:, :NUM_REWARDS], logits[:, NUM_REWARDS:], hx, cx


def ada_norms(inner: nn.Module) -> list[AdaGroupNorm]:
    """In the order in which their modulations lie beside each other."""
    return [m for m in inner.modules() if isinstance(m, AdaGroupNorm)]

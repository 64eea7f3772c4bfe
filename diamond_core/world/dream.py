"""A dream is a value, and the world a function of it. Source: SPEC 3, 4 and 6.

Noise is a function of (seed, step), so the same state and actions give the same future whatever shares the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save
from torch import Tensor

from diamond_core.config import SamplerConfig
from diamond_core.device import Runtime, resolve
from diamond_core.diffusion.noise import gaussian, schedule, uniform
from diamond_core.diffusion.sampler import check_num_steps, sample
from diamond_core.pixels import nearest_bytes, to_unit
from diamond_core.world.denoiser import Denoiser
from diamond_core.world.engine import Engine, TorchEngine
from diamond_core.world.reward_end import RewardEndModel

START_STREAM, LUCK_STREAM, CHURN_STREAM = 0, 1, 2
"""Independent uses of a state's random numbers; the i-th churn uses CHURN_STREAM + i."""


@dataclass(frozen=True)
class DreamState:
    """n dreams: all that their futures depend on. Index it like a tensor; join several with `cat`."""

    frames: Tensor
    """(n, k, c, h, w) uint8, oldest first."""
    actions: Tensor
    """(n, k) int64: the action taken at each frame; the newest slot is filled by the next step."""
    hx: Tensor
    """(n, lstm_dim) float32: the reward model's memory."""
    cx: Tensor
    """(n, lstm_dim) float32."""
    seeds: Tensor
    """(n,) int64."""
    steps: Tensor
    """(n,) int64: age, counted from the real frames that it began with."""

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int | slice | Tensor) -> DreamState:
        if isinstance(index, int):
            index = slice(index, index + 1) if index != -1 else slice(-1, None)
        return DreamState(*(getattr(self, f.name)[index] for f in fields(self)))

    @staticmethod
    def cat(states: Iterable[DreamState]) -> DreamState:
        """Several values as one batch. Raises ValueError where their numbers are of different kinds."""
        states, joined = list(states), []
        for f in fields(DreamState):
            parts: list[Tensor] = [getattr(s, f.name) for s in states]
            kinds = sorted({str(x.dtype) for x in parts})
            if len(kinds) > 1:
                # torch would change those of all
                raise ValueError(f"{f.name} are {' and '.join(kinds)}: only dreams of the same numbers share a batch")
            joined.append(torch.cat(parts))
        return DreamState(*joined)

    def where(self, mask: Tensor, other: DreamState) -> DreamState:
        """This state where mask (n,) is True, `other` elsewhere."""
        return DreamState(*(torch.where(mask.view(-1, *[1] * (a.ndim - 1)), a, b) for a, b in (
            (getattr(self, f.name), getattr(other, f.name)) for f in fields(self))))

    def to(self, device: torch.device | str) -> DreamState:
        """The same value on another device."""
        return DreamState(*(getattr(self, f.name).to(device) for f in fields(self)))

    def tensors(self) -> dict[str, Tensor]:
        """The value as plain tensors by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def save(self, path: str | Path) -> None:
        """Writes a small safetensors file (about 60 KB a dream)."""
        Path(path).write_bytes(save({name: x.cpu().contiguous() for name, x in self.tensors().items()}))

    @staticmethod
    def load(path: str | Path) -> DreamState:
        """Reads what `save` wrote."""
        return DreamState(**load_file(path))


class DreamStep(NamedTuple):
    """What one step of n dreams yields."""

    state: DreamState
    frames: Tensor
    """(n, c, h, w) uint8: the new frame."""
    rewards: Tensor
    """(n,) float32: -1, 0 or 1, drawn."""
    ends: Tensor
    """(n,) bool, drawn."""
    reward_probabilities: Tensor
    """(n, 3) of -1, 0, +1."""
    end_probabilities: Tensor
    """(n,)."""
    path: str = ""
    """Which engine dreamt it."""

    def row(self, number: int) -> DreamStep:
        """One dream's share, in memory of its own."""
        def own(x: Tensor) -> Tensor:
            return x[number:number + 1].clone()

        state = DreamState(**{name: own(x) for name, x in self.state.tensors().items()})
        return DreamStep(state, own(self.frames), own(self.rewards), own(self.ends), own(self.reward_probabilities),
                         own(self.end_probabilities), self.path)


class World:
    """The learned world: a pure function of dreams and actions. Holds networks, no state."""

    def __init__(self, denoiser: Denoiser, reward_end: RewardEndModel, sampler: SamplerConfig | None = None,
                 runtime: Runtime | None = None) -> None:
        self.denoiser = denoiser
        self.reward_end = reward_end
        self.runtime = runtime or resolve()
        self.engine: Engine = TorchEngine(denoiser, reward_end, self.runtime)
        """How the networks run; may be replaced by a faster one between two steps (see `accelerate`)."""
        self.set_sampler(sampler or SamplerConfig())

    def set_sampler(self, config: SamplerConfig) -> None:
        """Changes how frames are drawn, from the next step on."""
        check_num_steps(config.num_steps)
        sigmas = schedule(config)
        self.sampler, self.sigmas = config, sigmas  # together: the search for an engine copies worlds while they play

    @property
    def path(self) -> str:
        """Which engine runs, for people to read."""
        return self.engine.name

    @property
    def num_actions(self) -> int:
        """Actions that the world knows."""
        return self.denoiser.num_actions

    @property
    def num_conditioning_frames(self) -> int:
        """k."""
        return self.denoiser.config.num_conditioning_frames

    def takes(self, frame_shape: tuple[int, int, int]) -> bool:
        """Whether frames (c, h, w) can be this world's, as far as its networks tell: the reward model's memory was
        built for a number of pixels."""
        c, *size = frame_shape
        channels = self.reward_end.config.channels
        seen = channels[-1] * math.prod(-(-side // 2**(len(channels) - 1)) for side in size)
        fits = c == self.denoiser.inner_model.conv_out.out_channels and seen == self.reward_end.lstm.input_size
        return fits and min(size) > 0

    @torch.no_grad()
    def start(self, frames: Tensor, actions: Tensor, seeds: Tensor, since: int = 0) -> DreamState:
        """Dreams that go on from real frames (n, k, c, h, w) uint8 and the actions between them, (n, k - 1) or (n, k);
        seeds (n,). The reward model's memory is burnt in on them, from frame `since` on, where an episode began."""
        k, device = self.num_conditioning_frames, self.runtime.device
        if frames.shape[1] != k or actions.shape[1] not in (k - 1, k):
            raise ValueError(f"a dream starts from {k} frames and {k - 1} actions, got {frames.shape[1]} frames and "
                             f"{actions.shape[1]} actions")
        frames, actions, seeds = frames.to(device), actions.to(device), seeds.to(device)
        between = actions[:, :k - 1]
        n, dim = len(frames), self.reward_end.config.lstm_dim
        hx, cx = torch.zeros(2, 1, n, dim, device=device)
        if since < k - 1:
            x = to_unit(frames[:, since:])
            with self.runtime.autocast():
                _, _, (hx, cx) = self.reward_end(x[:, :-1], between[:, since:], x[:, 1:])
        blank = torch.zeros(n, 1, dtype=torch.int64, device=device)
        return DreamState(frames, torch.cat([between, blank], dim=1), hx[0].float(), cx[0].float(), seeds,
                          torch.zeros_like(seeds))

    @torch.no_grad()
    def step(self, state: DreamState, actions: Tensor) -> DreamStep:
        """One frame on: actions (n,) int64."""
        engine = self.engine  # one for all of the step, though a faster one may come meanwhile
        actions = actions.to(state.actions.device)
        *after, frames, rewards, ends, reward_p, end_p = engine.whole(
            partial(self._dream_on, engine), self.sampler, actions, *state.tensors().values())
        return DreamStep(DreamState(*after), frames, rewards, ends, reward_p, end_p, engine.name)

    def _dream_on(self, engine: Engine, actions: Tensor, *state_tensors: Tensor) -> list[Tensor]:
        """A step as a function of tensors: those of the state after it, and what it yields."""
        state = DreamState(*state_tensors)
        taken = torch.cat([state.actions[:, :-1], actions[:, None]], dim=1)
        # who trains in a dream does so under autocast, which must not reach into it: the engine knows its own precision
        with torch.autocast(self.runtime.device.type, enabled=False):
            frames = self.next_frames(state, taken, engine=engine)
            rewards, ends, reward_p, end_p, (hx, cx) = self.judge(state, actions, frames, engine)
        after = DreamState(torch.cat([state.frames[:, 1:], frames[:, None]], dim=1),
                           torch.cat([taken[:, 1:], taken[:, :1] * 0], dim=1), hx, cx, state.seeds, state.steps + 1)
        return [*after.tensors().values(), frames, rewards, ends, reward_p, end_p]

    @torch.no_grad()
    def next_frames(self, state: DreamState, actions: Tensor, watch: Callable[[int, Tensor], None] | None = None,
                    engine: Engine | None = None) -> Tensor:
        """The sampler on the denoiser: actions (n, k) with the newest filled in -> (n, c, h, w) uint8.

        `watch` sees the clean image in [-1, 1] that each denoising step predicts.
        """
        c, shape = self.sampler, state.frames.shape[2:]
        draw = partial(gaussian, state.seeds, state.steps)
        past = to_unit(state.frames)
        denoise = (engine or self.engine).denoise(past, actions, self.sigmas)
        x = sample(denoise, draw(START_STREAM, shape) * c.temperature,
                   self.sigmas, order=c.order, s_churn=c.s_churn, s_tmin=c.s_tmin, s_tmax=c.s_tmax, s_noise=c.s_noise,
                   noise=lambda i: draw(CHURN_STREAM + i, shape), watch=watch)
        return nearest_bytes(x)

    @torch.no_grad()
    def judge(self, state: DreamState, actions: Tensor, next_frames: Tensor, engine: Engine | None = None
              ) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[Tensor, Tensor]]:
        """Rewards, ends, their probabilities and the new memory of n transitions; both heads are sampled."""
        said = (engine or self.engine).judge(to_unit(state.frames[:, -1]), actions, to_unit(next_frames), state.hx,
                                             state.cx)
        reward_p, end_p = said.reward_logits.softmax(-1), said.end_logits.softmax(-1)[:, 1]
        luck = uniform(state.seeds, state.steps, LUCK_STREAM, 2)
        rewards = (luck[:, :1] > reward_p.cumsum(-1)[:, :2]).sum(-1).float() - 1
        return rewards, luck[:, 1] < end_p, reward_p, end_p, (said.hx, said.cx)


def reseeded(state: DreamState, seeds: Tensor) -> DreamState:
    """The same dreams with other luck from here on; seeds (n,) int64."""
    return replace(state, seeds=seeds.to(state.seeds.device))

"""Which noise levels serve few denoising steps best: one-step and long-run error on held-out play. Our own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from diamond_core.evaluation.metrics import psnr
from diamond_core.evaluation.open_loop import Watch, draw_windows, replay_actions
from diamond_core.replay import Dataset
from diamond_core.world.dream import World

SECOND_SIGMAS = (0.0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0)
"""Second noise levels that are tried for two steps; 0 stands for the Karras schedule's own."""


@dataclass(frozen=True)
class Scheduled:
    """One schedule's errors."""

    num_steps: int
    sigmas: tuple[float, ...]
    one_step_psnr: float
    """dB, mean over the first dreamt frames."""
    long_psnr: float
    """dB, mean over the frames of the last tenth of the horizon."""


def compare_schedules(world: World, dataset: Dataset, *, horizon: int = 100, num_rollouts: int = 32, seed: int = 0,
                      second_sigmas: Sequence[float] = SECOND_SIGMAS, watch: Watch = lambda *_: None
                      ) -> list[Scheduled]:
    """One and three steps as they are, and two steps with every second noise level, on the same windows and noise."""
    windows = draw_windows(dataset, world.num_conditioning_frames, horizon, num_rollouts, seed)
    lengths = windows.mask[:, world.num_conditioning_frames - 1:-1].sum(1)
    if (longest := int(lengths.max())) <= horizon - max(1, horizon // 10):
        raise ValueError(f"expected play of {horizon} steps behind a dream's beginning, the longest has {longest}: try "
                         f"--horizon {longest}")
    before = world.sampler
    configs = [replace(before, num_steps=n) for n in (1, 3)]
    configs[1:1] = [replace(before, num_steps=2, two_step_sigma=sigma) for sigma in second_sigmas]
    found = []
    try:
        for i, config in enumerate(configs):
            watch("comparing schedules", i, len(configs))
            world.set_sampler(config)
            loop = replay_actions(world, windows, seed)
            values = psnr(loop.dream, loop.truth)
            last = slice(-max(1, horizon // 10), None)
            found.append(Scheduled(config.num_steps, tuple(world.sigmas), values[:, 0][loop.mask[:, 0]].mean().item(),
                                   values[:, last][loop.mask[:, last]].mean().item()))
    finally:
        world.set_sampler(before)
    return found

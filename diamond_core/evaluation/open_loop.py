"""Open-loop dreams beside the real play that they began from: same start, same actions, then nobody looks back.

Our own. The reward and end model is heard twice on the way: on the real frames and on the dreamt ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from diamond_core.replay import Dataset, collate
from diamond_core.types import Batch
from diamond_core.world.dream import World

Watch = Callable[[str, int, int], None]
"""watch(what, done, total) is told how far the work is."""
BATCH = 32
"""Dreams that are stepped together."""


class OpenLoop(NamedTuple):
    """n rollouts of t steps: after k frames of context, step j leads to `truth[:, j]` and to `dream[:, j]`."""

    context: Tensor
    """(n, k, c, h, w) uint8."""
    truth: Tensor
    """(n, t, c, h, w) uint8; zero beyond the episode."""
    dream: Tensor
    """(n, t, c, h, w) uint8."""
    actions: Tensor
    """(n, t) int64."""
    rewards: Tensor
    """(n, t) float32, as the game gave them."""
    ends: Tensor
    """(n, t) bool."""
    mask: Tensor
    """(n, t) bool: True where the episode had this step."""
    on_truth: Tensor
    """(n, t, 4): probabilities of the rewards -1, 0, +1 and of the end, on real frames throughout (teacher forcing)."""
    on_dream: Tensor
    """The same on dreamt frames."""


def draw_windows(dataset: Dataset, k: int, horizon: int, num: int, seed: int) -> Batch:
    """Up to `num` different windows of k + horizon frames, from all over the play.

    A window is whole where its episode is long enough; a shorter episode is one window from its start to its end.
    Where episodes are only a few windows long, their first steps are in fewer windows than those further on.
    """
    windows, odds = [], []
    for index, length in enumerate(dataset.lengths.tolist()):
        last = max(0, length - k + 1 - horizon)
        if length >= k:
            windows += [(index, start) for start in range(last + 1)]
            # the ends of play are seen from the last window only: let it stand for those that would hang over
            odds += [1] * last + [min(horizon, length - k + 1)]
    if not windows:
        raise ValueError(f"expected an episode of {k} steps or more, got {dataset.num_episodes} episodes without one: "
                         "record longer play")
    p = np.array(odds) / sum(odds)
    rows = np.random.default_rng(seed).choice(len(windows), min(num, len(windows)), replace=False, p=p)
    return collate([(dataset[windows[row][0]], windows[row][1]) for row in rows], k + horizon)


@torch.no_grad()
def replay_actions(world: World, windows: Batch, seed: int, watch: Watch = lambda *_: None) -> OpenLoop:
    """Dreams on from the first k frames of each window under the window's own actions."""
    total = -(-len(windows) // BATCH) * (windows.frames.shape[1] - world.num_conditioning_frames)
    seeds = (seed << 32) + torch.arange(len(windows))
    done = count(1)
    parts = [_replay(world, windows.map(itemgetter(rows)), seeds[rows], lambda: watch("dreaming", next(done), total))
             for rows in (slice(first, first + BATCH) for first in range(0, len(windows), BATCH))]
    return OpenLoop(*map(torch.cat, zip(*parts, strict=True)))


def _replay(world: World, windows: Batch, seeds: Tensor, tick: Callable[[], None]) -> OpenLoop:
    k, device = world.num_conditioning_frames, world.runtime.device
    # the step that leads from frame k - 1 to frame k is the first one dreamt
    steps = slice(k - 1, windows.frames.shape[1] - 1)
    context, truth, actions = windows.frames[:, :k], windows.frames[:, k:], windows.actions[:, steps]
    real = dreamt = world.start(context, windows.actions[:, :k - 1], seeds)
    dream, on_truth, on_dream = [], [], []
    for action, frames in zip(actions.to(device).unbind(1), truth.to(device).unbind(1), strict=True):
        step = world.step(dreamt, action)
        _, _, reward_p, end_p, (hx, cx) = world.judge(real, action, frames)
        dreamt = step.state
        real = replace(real, frames=torch.cat([real.frames[:, 1:], frames[:, None]], dim=1), hx=hx, cx=cx,
                       steps=real.steps + 1)
        dream.append(step.frames.cpu())
        on_truth.append(_said(reward_p, end_p))
        on_dream.append(_said(step.reward_probabilities, step.end_probabilities))
        tick()
    return OpenLoop(context, truth, torch.stack(dream, 1), actions, windows.rewards[:, steps], windows.ends[:, steps],
                    windows.mask[:, steps], torch.stack(on_truth, 1), torch.stack(on_dream, 1))


def _said(rewards: Tensor, ends: Tensor) -> Tensor:
    return torch.cat([rewards, ends[:, None]], dim=1).cpu()

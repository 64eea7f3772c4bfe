"""What a recording shows: play in any world, or a dream beside reality under the same actions. Our own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count, cycle, islice

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from app.session.look import BACKGROUND, DREAM, REALITY
from app.session.video import SCALE, enlarged
from diamond_core.pixels import to_hwc
from diamond_core.types import Policy, Start, Step, VectorEnv
from diamond_core.world.dream import DreamState, World
from diamond_core.world.imagination import ImaginedEnv, in_any_order

WARMUP = 20
"""Real steps before a twin falls asleep; in most games play has begun by then."""


class Script:
    """A policy that takes actions from a list, over and over."""

    def __init__(self, actions: Sequence[int]) -> None:
        if not actions:
            raise ValueError("expected one action or more, got none: write a longer script")
        self._actions = cycle(actions)

    def reset(self, start: Start) -> None:
        """Goes on in the list."""

    def act(self, frames: Tensor) -> Tensor:
        """(n, c, h, w) uint8 -> (n,) int64: the next action, in all worlds."""
        return torch.full((len(frames),), next(self._actions), device=frames.device)

    def observe(self, step: Step) -> None:
        """Blind to everything."""


def dream_env(world: World, frames: Tensor, actions: Tensor, seed: int) -> ImaginedEnv:
    """One dream after the other, without a horizon, from real frames (m, k, c, h, w) and actions (m, k) in an order
    drawn from the seed."""
    return ImaginedEnv(world, in_any_order(frames, actions, seed), num_envs=1, horizon=None)


def play_frames(env: VectorEnv, policy: Policy, frames: int, seed: int) -> Iterator[np.ndarray]:
    """So many (h, w, c) uint8 images of one world, the first frame and the final frame of every episode included."""
    return islice(_play(env, policy, seed), frames)


def _play(env: VectorEnv, policy: Policy, seed: int) -> Iterator[np.ndarray]:
    start = env.reset(seed)
    policy.reset(start)
    now = start.frames
    yield to_hwc(now[0])
    while True:
        step = env.step(policy.act(now))
        policy.observe(step)
        now = step.frames
        yield to_hwc(step.final_frames[0])
        if step.dones[0]:
            yield to_hwc(now[0])


def twin_frames(world: World, env: VectorEnv, policy: Policy, frames: int, seed: int, *, scale: int = SCALE,
                warmup: int = WARMUP) -> Iterator[np.ndarray]:
    """So many images of a dream (left) beside reality (right), enlarged already.

    `env` is the real game, one world. It is played for a while; the dream begins from what was seen, and from then on
    the policy sees the dream while both take its actions. When the real episode is over, both begin anew.
    """
    if env.num_envs != 1:
        raise ValueError(f"expected one real world, got {env.num_envs}: make the environment with num_envs=1")
    pairs = islice(_twins(world, env, policy, seed, warmup), frames)
    beside = Beside(*env.frame_shape[1:], scale)
    return (beside(dream, reality) for dream, reality in pairs)


def _twins(world: World, env: VectorEnv, policy: Policy, seed: int, warmup: int
           ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of images (h, w, c), without end."""
    start = env.reset(seed)
    for night in count():
        dream, real = _fall_asleep(world, env, policy, start, (seed << 16) + night, warmup)
        policy.reset(Start(dream.frames[:, -1], dream.frames[:, :-1]))
        over = False
        while not over:
            yield to_hwc(dream.frames[0, -1]), to_hwc(real[0])
            action = policy.act(dream.frames[:, -1])
            step = env.step(action.cpu())
            dream, real, over = world.step(dream, action).state, step.final_frames, bool(step.dones)
        yield to_hwc(dream.frames[0, -1]), to_hwc(real[0])
        start = Start(step.frames, step.context)


def _fall_asleep(world: World, env: VectorEnv, policy: Policy, start: Start, seed: int, warmup: int
                 ) -> tuple[DreamState, Tensor]:
    """Plays the real game for `warmup` steps, or on until an episode has k frames; a dream of these, and the newest."""
    k = world.num_conditioning_frames
    policy.reset(start)
    frames: list[Tensor] = [start.frames]
    actions: list[Tensor] = []
    while warmup > 0 or len(frames) < k:
        warmup -= 1
        action = policy.act(frames[-1]).cpu()
        step = env.step(action)
        policy.observe(step)
        if step.dones:
            frames, actions = [step.frames], []
        else:
            frames.append(step.frames)
            actions.append(action)
    blank = torch.zeros(1, dtype=torch.int64)
    # k - 1 actions lie between k frames; the k-th slot is for the dream to fill
    seen, taken = torch.stack(frames[-k:], dim=1), torch.stack([*actions, blank][-k:], dim=1)
    return world.start(seen, taken, torch.tensor([seed])), frames[-1]


class Beside:
    """Lays two frames of the same size beside each other, framed and named: the dream left, reality right."""

    def __init__(self, height: int, width: int, scale: int) -> None:
        h, w, gap, border, band = height * scale, width * scale, 2 * scale, max(1, scale // 2), 4 * scale
        self._scale, self._top, self._lefts = scale, band + border, (gap, 2 * gap + w)
        canvas = Image.new("RGB", (3 * gap + 2 * w, band + h + gap), BACKGROUND)
        draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(3 * scale)
        for left, word, colour in zip(self._lefts, ("dream", "reality"), (DREAM, REALITY), strict=True):
            x, y = left - border, band
            draw.text((x, band / 2), word, colour, font, anchor="lm")
            draw.rectangle((x, y, x + w + 2 * border - 1, y + h + 2 * border - 1), colour)
        self._canvas = np.asarray(canvas)

    def __call__(self, dream: np.ndarray, reality: np.ndarray) -> np.ndarray:
        """Two (h, w, c) uint8 images -> one, enlarged."""
        picture = self._canvas.copy()
        for left, image in zip(self._lefts, (dream, reality), strict=True):
            large = enlarged(image, self._scale)
            picture[self._top:self._top + large.shape[0], left:left + large.shape[1]] = large
        return picture

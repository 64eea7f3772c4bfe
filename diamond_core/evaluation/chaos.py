"""How well a game foretells itself when something is a pixel elsewhere: a yardstick for what a dream can foresee.

Our own. A dream sees a screen of 160 x 210 pixels in 64 x 64, so it knows a ball's place to a part of a pixel at best,
and what it does not know grows with every bounce. Bytes of the consoles' memory as in Anand et al. 2019, "Unsupervised
State Representation Learning in Atari".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from diamond_core.envs.atari import AtariVector, Emulator, Trail
from diamond_core.evaluation.metrics import average_precision, psnr
from diamond_core.evaluation.open_loop import Watch
from diamond_core.types import KeptPolicy

FORMAT = "diamond-chaos-1"
MOVABLE = {"Pong": ("ball", (49, 54)), "Breakout": ("ball", (99, 101)), "Freeway": ("chicken", (14,))}
"""What is moved, and the bytes that hold its place, one an axis."""
BEGIN = 100, 400
"""Steps of a game after which it is told twice: from, and up to."""
WITHIN = 15, 50, 100
"""Steps in which events are foreseen."""
SHOWN = 1, 5, 15, 50, 100
"""Steps at which the pictures are compared."""


class Course(NamedTuple):
    """What a game does in t steps."""

    frames: Tensor
    """(t, c, h, w) uint8."""
    rewards: np.ndarray
    """(t,) bool: where they are not 0."""
    ends: np.ndarray
    """(t,) bool: a life lost, or the game over."""


@dataclass(frozen=True)
class Foreseen:
    """Average precision of events; none where there are none."""

    events: int
    alone: float | None
    """By one moved game, mean over these."""
    together: float | None
    """By the share of them in which it happens."""


@dataclass(frozen=True)
class ChaosReport:
    """The game beside itself with something moved, under the same actions."""

    game: str
    policy: str
    seed: int
    windows: int
    thing: str
    pixels: int
    """Of the console's screen, to either side of each axis."""
    psnr: dict[int, float]
    """Step -> dB, mean over windows and moved games; without those that no window reaches."""
    precision: dict[str, dict[int, Foreseen]]
    """Kind of event -> within so many steps -> how well it is foreseen."""

    def to_json(self) -> dict[str, Any]:
        """All numbers, fit for JSON."""
        return {"format": FORMAT, **asdict(self)}


def movable(game: str) -> tuple[str, tuple[int, ...]]:
    """What is moved in this game, and its bytes. Raises ValueError where that is not known."""
    if game not in MOVABLE:
        raise ValueError(f"it is not known where {game} keeps what moves: use one of {', '.join(MOVABLE)}")
    return MOVABLE[game]


def evaluate_chaos(game: str, policy: KeptPolicy, num_windows: int, pixels: int = 1, seed: int = 0,
                   policy_name: str = "", watch: Watch = lambda *_: None) -> ChaosReport:
    """Plays `num_windows` games, one window each, which counts until a life or the game is lost, as held-out episodes
    do. Raises ValueError as `movable` does."""
    thing, bytes_ = movable(game)
    nudges = [(byte, way * pixels) for byte in bytes_ for way in (1, -1)]
    emulator, steps = Emulator(game), max(WITHIN)
    shape = (len(nudges), num_windows, steps)
    likeness, said = torch.full(shape, torch.nan), {kind: np.zeros(shape) for kind in ("reward", "end")}
    happened = {kind: np.zeros(shape[1:], bool) for kind in said}
    known = np.zeros(shape[1:], bool)
    for w, (trail, actions) in enumerate(forks(game, policy, num_windows, steps, seed)):
        real = course(emulator, trail, actions)
        known[w, :1 + int(real.ends.argmax()) if real.ends.any() else steps] = True
        happened["reward"][w], happened["end"][w] = real.rewards, real.ends
        for i, nudge in enumerate(nudges):
            moved = course(emulator, trail, actions, nudge)
            likeness[i, w] = psnr(moved.frames, real.frames)
            said["reward"][i, w], said["end"][i, w] = moved.rewards, moved.ends
        watch("playing", w + 1, num_windows)
    likeness = likeness.where(torch.from_numpy(known), torch.nan)
    return ChaosReport(
        game, policy_name, seed, num_windows, thing, pixels,
        {step: x.nanmean().item() for step in SHOWN if (x := likeness[..., step - 1]).isfinite().any()},
        {kind: {within: _foreseen(said[kind], happened[kind], known, within) for within in WITHIN} for kind in said})


def forks(game: str, policy: KeptPolicy, num: int, steps: int, seed: int) -> list[tuple[Trail, list[int]]]:
    """Places in `num` games, and the actions of that policy in the steps from there."""
    begin = np.random.default_rng(seed).integers(*BEGIN, num)
    env = AtariVector(game, num, life_loss_ends=True)
    trails: dict[int, Trail] = {}
    taken: list[list[int]] = []
    start = env.reset(seed)
    policy.reset(start)
    frames = start.frames
    for t in range(int(begin.max()) + steps):
        trails |= {int(w): env.trail(int(w)) for w in np.flatnonzero(begin == t)}
        actions = policy.act(frames)
        taken.append(actions.tolist())
        step = env.step(actions)
        policy.observe(step)
        frames = step.frames
    env.close()
    return [(trails[w], [row[w] for row in taken[b:b + steps]]) for w, b in enumerate(begin.tolist())]


def course(emulator: Emulator, trail: Trail, actions: Sequence[int], nudge: tuple[int, int] | None = None) -> Course:
    """The game from there under these actions, after `Emulator.nudge` with `nudge`."""
    emulator.restore(trail)
    lives, over = emulator.lives(), False
    if nudge is not None:
        emulator.nudge(*nudge)
    ticks, ends = [], []
    for action in actions:
        ticks.append(tick := emulator.step(action))
        ends.append(not over and (tick.end or tick.lives < lives))
        lives, over = tick.lives, tick.end
    return Course(torch.stack([tick.frame for tick in ticks]), np.array([tick.reward != 0 for tick in ticks]),
                  np.array(ends))


def _foreseen(said: np.ndarray, happened: np.ndarray, known: np.ndarray, within: int) -> Foreseen:
    events = happened[:, :within][known[:, :within]]
    *each, together = (average_precision(x[:, :within][known[:, :within]], events) for x in [*said, said.mean(0)])
    alone = [x for x in each if x is not None]
    return Foreseen(int(events.sum()), float(np.mean(alone)) if alone else None, together)

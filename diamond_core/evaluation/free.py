"""Free dreams beside real play: do things stay, does the score count, does the picture melt? Measures of our own.

A dream begins from held-out play and goes on by itself under a policy; reality is that play. Or it begins in a new
game, as a person's does, and the very same game goes on beside it. A dream that ends begins anew as held-out episodes
begin, and reality ends with its episode: where fewer steps of it were seen, its shares of whole rollouts are the
smaller for it. Things are found by their colours, so they are counted in the games of `sprites` only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diamond_core.agent.scripted import NEAR, RULES, Thing
from diamond_core.evaluation.metrics import PSNR_CAP
from diamond_core.evaluation.open_loop import Watch, draw_windows
from diamond_core.evaluation.sprites import things_of
from diamond_core.replay import Dataset, collate
from diamond_core.types import Policy, Start, VectorEnv
from diamond_core.world.dream import World
from diamond_core.world.imagination import ImaginedEnv

FORMAT = "diamond-free-1"
PLAY, GAMES = "held-out play", "new games"
DOUBLED, LOST = 3, 15
"""Frames with more than one of a thing, and frames on end without it, from which on a rollout counts."""
REFERENCES = 2000
"""Real frames among which the nearest to a dreamt one is looked for."""
WARMUP = 100
"""Steps of a real game before it is counted: dreams begin in the midst of play."""
BACK = (2, 3)
"""Frames behind the one in which ball and paddle meet, in one of which a returned ball is in sight."""
TRIES = 8
"""Seeds that are tried until all new games last for as long as their opening."""
EVERY = 10
"""Steps between two dreamt frames that are compared with them."""


@dataclass(frozen=True)
class Counts:
    """How often a thing is seen."""

    none: float
    """Share of frames without it."""
    several: float
    """Share of frames with more than one."""
    doubled: float
    """Share of rollouts with `DOUBLED` such frames or more."""
    lost: float
    """Share of rollouts in which it is out of sight for `LOST` frames on end or longer."""


@dataclass(frozen=True)
class Side:
    """The dream, or reality."""

    steps_seen: float
    """Of a rollout, on average."""
    points: float
    """Rewards that are not 0, in 100 steps."""
    things: Mapping[str, Counts]
    """Empty for a game whose things are not known."""
    lives: float | None = None
    """Lost in 100 steps, as the screen counts them; none where it is not known to."""
    met: int | None = None
    """Balls that meet the middle of the paddle; none where that is not known."""
    past: int | None = None
    """How many of them get past it all the same."""


@dataclass(frozen=True)
class FreeReport:
    """What becomes of dreams that are left alone."""

    game: str
    policy: str
    seed: int
    dreams: int
    steps: int
    dream: Side
    reality: Side
    """Of the held-out play, whoever played it."""
    nearest_psnr: float
    """dB to the nearest of many real frames, mean over every tenth frame of the dreams' last tenth: of 100 steps it is
    one."""
    nearest_psnr_worst: float
    """The lowest mean of a single dream there."""
    emulator: Side | None = None
    """Of the same policy in real games."""
    begun: str = PLAY
    """Where the dreams began."""

    def to_json(self) -> dict[str, Any]:
        """All numbers, fit for JSON."""
        return {"format": FORMAT, **asdict(self)}


def evaluate_free(world: World, policy_for: Callable[[int], Policy], dataset: Dataset, steps: int = 100,
                  num_dreams: int = 32, seed: int = 0, policy_name: str = "random", watch: Watch = lambda *_: None,
                  emulator: VectorEnv | None = None, opening: tuple[Policy, int] | None = None) -> FreeReport:
    """Plays in dreams that begin from held-out play, as `policy_for(their number)`, and in the emulator's games, if
    there is one, some steps from their beginning. With an `opening`, who plays it and for how many steps, the dreams
    go on from those games instead, one each. Raises ValueError where there is no such play, and where a game is over
    before its dream begins."""
    k = world.num_conditioning_frames
    windows = draw_windows(dataset, k, steps, num_dreams, seed)
    begin, there = (windows.frames[:, :k], windows.actions[:, :k]), None
    if opening is not None:
        if emulator is None:
            raise ValueError("new games need the emulator")
        begin, there = opened(emulator, *opening, k, seed)
    n = len(begin[0])
    env = ImaginedEnv(world, lambda draw: beginnings(dataset, k, n, seed + draw) if draw else begin, n, None)
    dream, dreamt_rewards, dones = played(env, policy_for(n), steps, seed, watch)
    taken = slice(k - 1, k - 1 + steps)
    real, mask = windows.frames[:, k:], windows.mask[:, taken]
    known = references(dataset, seed)
    nearest = nearest_psnr(dream[:, -max(1, steps // 10)::EVERY], known)
    game, lived = dataset.info.game, None
    if emulator is not None:
        early = WARMUP if there is None else 0
        frames, rewards, overs = (x[:, early:] for x in played(emulator, policy_for(emulator.num_envs), early + steps,
                                                               seed, start=there))
        lived = _side(game, frames, rewards, torch.ones_like(overs), known, overs)
    return FreeReport(
        game, policy_name, seed, len(dream), steps,
        _side(game, dream, dreamt_rewards, torch.ones_like(dones), known, dones),
        _side(game, real, windows.rewards[:, taken], mask, known, windows.ends[:, taken]),
        nearest.mean().item(), nearest.mean(1).min().item(), lived, GAMES if opening else PLAY)


def beginnings(dataset: Dataset, k: int, num: int, seed: int) -> tuple[Tensor, Tensor]:
    """The first k frames (num, k, c, h, w) of episodes drawn by chance, and their actions (num, k)."""
    rows = np.random.default_rng(seed).choice(np.flatnonzero(dataset.lengths >= k), num)
    batch = collate([(dataset[int(row)], 0) for row in rows], k)
    return batch.frames, batch.actions


def opened(env: VectorEnv, policy: Policy, steps: int, k: int, seed: int
           ) -> tuple[tuple[Tensor, Tensor], Start]:
    """n new games after some steps, k - 1 or more: the last k frames (n, k, c, h, w) and actions (n, k - 1), from which
    a dream goes on, and the same as the games' own start. Raises ValueError where one of them is over by then with each
    of `TRIES` seeds."""
    for attempt in range(TRIES):
        start = env.reset(seed + attempt)
        policy.reset(start)
        frames, actions = [start.frames], [start.frames.new_zeros(len(start.frames), dtype=torch.int64)]
        for _ in range(max(steps, k - 1)):
            actions.append(policy.act(frames[-1]).cpu())
            step = env.step(actions[-1])
            if step.dones.any():
                break
            policy.observe(step)
            frames.append(step.frames)
        else:
            seen = torch.stack(frames[-k:], dim=1)
            return (seen, torch.stack(actions[-k:], dim=1)[:, 1:]), Start(seen[:, -1], seen[:, :-1])
    raise ValueError(f"of {env.num_envs} new games one is over within its first {len(actions) - 1} steps: begin in the "
                     "midst of play, or take fewer dreams")


def played(env: VectorEnv, policy: Policy, steps: int, seed: int, watch: Watch = lambda *_: None,
           start: Start | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """What n worlds show a policy, from their beginning or from where they stand: frames (n, steps, c, h, w), rewards
    (n, steps), and where they were over."""
    start = start or env.reset(seed)
    policy.reset(start)
    frames, shown, rewards, dones = start.frames, [], [], []
    for done in range(steps):
        step = env.step(policy.act(frames))
        policy.observe(step)
        frames = step.frames
        shown.append(step.final_frames.cpu())
        rewards.append(step.rewards.cpu())
        dones.append(step.dones.cpu())
        watch("dreaming", done + 1, steps)
    return torch.stack(shown, dim=1), torch.stack(rewards, dim=1), torch.stack(dones, dim=1)


def _side(game: str, frames: Tensor, rewards: Tensor, mask: Tensor, known: Tensor, dones: Tensor) -> Side:
    steps, lives, seen = mask.sum().item(), lives_lost(game, frames, dones), pieces(game, frames, known)
    middle = meetings(game, frames, mask, dones, seen["ball"] > 1 if "ball" in seen else torch.zeros_like(mask))

    def in_a_hundred(what: Tensor) -> float:
        return 100 * (what & mask).sum().item() / steps

    return Side(steps / len(mask), in_a_hundred(rewards != 0),
                {name: _counts(those, mask, dones) for name, those in seen.items()},
                None if lives is None else in_a_hundred(lives),
                *(int(those.sum()) for those in middle or ()))


def lives_lost(game: str, frames: Tensor, dones: Tensor) -> Tensor | None:
    """frames (n, t, c, h, w) uint8 -> (n, t) bool: where the number of lives begins to be another, but not behind a
    step of `dones` (n, t), where something new begins; None where no number of lives is known."""
    if game not in RULES or RULES[game].lives is None:
        return None
    lost = torch.zeros_like(dones)
    for row, those in zip(lost, frames, strict=True):
        row[RULES[game].lives_lost(those)] = True
    lost[:, 1:] &= ~dones[:, :-1]
    return lost & ~F.pad(lost, (1, 0))[:, :-1]  # a dreamt digit may take two frames


def meetings(game: str, frames: Tensor, mask: Tensor, dones: Tensor, several: Tensor
             ) -> tuple[Tensor, Tensor] | None:
    """frames (n, t, c, h, w) uint8 -> (n, t) bool twice: where a ball that came meets the middle of the paddle, and
    where that ball gets past it, which is so too where it is over before the ball is back; behind a step of `dones`
    (n, t) something new begins. Left out is what nobody can tell: with `several` balls (n, t) at once, and where what
    is shown, `mask` (n, t), stops. None where no middle is known."""
    if game not in RULES or (middle := RULES[game].middle) is None:
        return None
    rules, (n, t) = RULES[game], dones.shape
    balls, paddles = (thing.find(frames.flatten(0, 1)).view(n, t, 2) for thing in (rules.ball, rules.paddle))
    way, aside = balls[..., 1 - rules.axis], (balls - paddles)[..., rules.axis].abs()
    met, past = torch.zeros_like(dones), torch.zeros_like(dones)
    known = max(0, t - 1 - BACK[-1])
    before, now, after, *then = (slice(i, i + known) for i in (0, 1, 2, *(1 + later for later in BACK)))
    came = (way[:, now] > way[:, before]) & ~dones[:, before] & (way[:, now] >= rules.meets - NEAR)
    turns = ~(way[:, after] > way[:, now]) & ~dones[:, now]
    met[:, now] = came & turns & (aside[:, now] < middle)
    back, over = torch.zeros_like(came), dones[:, after]
    unclear = several[:, before] | several[:, now] | several[:, after] | ~mask[:, after]
    for later in then:
        unclear |= (several[:, later] | ~mask[:, later]) & ~over
        back |= ~way[:, later].isnan() & ~over
        over = over | dones[:, later]
    met[:, now] &= ~unclear
    past[:, now] = met[:, now] & ~back
    return met, past


def things(game: str, frames: Tensor, mask: Tensor, real: Tensor, dones: Tensor | None = None) -> dict[str, Counts]:
    """frames (n, t, c, h, w) uint8, mask (n, t) -> the counts of each thing that is known in this game; `real` frames
    (m, c, h, w) say how bright it is. Behind a step of `dones` (n, t) something new begins."""
    return {name: _counts(seen, mask, dones) for name, seen in pieces(game, frames, real).items()}


def pieces(game: str, frames: Tensor, real: Tensor) -> dict[str, Tensor]:
    """frames (n, t, c, h, w) uint8 -> how many there are (n, t) of each thing, as above."""
    found = {}
    for name, thing in things_of(game).items():
        peaks = thing.light(real).amax(dim=(1, 2))
        found[name] = count(thing, frames, peaks[peaks > 0].median().item() / 2)
    return found


def _counts(seen: Tensor, mask: Tensor, dones: Tensor | None) -> Counts:
    none, several = (seen == 0) & mask, (seen > 1) & mask
    total = mask.sum().item()
    return Counts(none.sum().item() / total, several.sum().item() / total,
                  (several.sum(1) >= DOUBLED).float().mean().item(),
                  (longest(none, dones) >= LOST).float().mean().item())


def longest(flags: Tensor, dones: Tensor | None = None) -> Tensor:
    """(n, t) bool -> (n,): the length of the longest run of True that does not go on behind a step of `dones`."""
    run = best = torch.zeros(len(flags), dtype=torch.int64)
    over = torch.zeros_like(flags) if dones is None else dones
    for now, done in zip(flags.unbind(1), over.unbind(1), strict=True):
        run = (run + 1) * now
        best = torch.maximum(best, run)
        run = run * ~done
    return best


def count(thing: Thing, frames: Tensor, bright: float) -> Tensor:
    """(n, t, c, h, w) uint8 -> (n, t): how many separate pieces of a thing are seen, each with a pixel so bright."""
    n, t = frames.shape[:2]
    light = thing.light(frames.flatten(0, 1))
    mask = light > 0
    # every piece takes on the largest number among its bright pixels
    labels = torch.arange(1, mask[0].numel() + 1, dtype=torch.float32).view(mask.shape[1:]) * (light >= bright)
    while True:
        spread = F.max_pool2d(labels[:, None], 3, stride=1, padding=1)[:, 0] * mask
        if torch.equal(spread, labels):
            break
        labels = spread
    ordered = labels.flatten(1).sort(dim=1).values
    return ((ordered.diff(dim=1) > 0).sum(1)).view(n, t)


def references(dataset: Dataset, seed: int) -> Tensor:
    """(m, c, h, w) uint8: real frames from all over a dataset, at most `REFERENCES`."""
    share = max(1, REFERENCES // dataset.num_episodes)
    rng = np.random.default_rng(seed)
    parts = []
    for i in range(dataset.num_episodes):
        frames = dataset[i].frames
        parts.append(frames[np.sort(rng.choice(len(frames), min(share, len(frames)), replace=False))])
    found = torch.cat(parts)
    return found if len(found) <= REFERENCES else found[np.sort(rng.choice(len(found), REFERENCES, replace=False))]


def nearest_psnr(frames: Tensor, real: Tensor) -> Tensor:
    """(n, t, c, h, w) uint8 against (m, c, h, w) uint8 -> (n, t) dB to the nearest."""
    n, t = frames.shape[:2]
    distance = torch.cdist(frames.flatten(0, 1).flatten(1).float(), real.flatten(1).float(),
                           compute_mode="use_mm_for_euclid_dist")
    error = distance.amin(1).square() / real[0].numel()
    return (10 * torch.log10(255**2 / error)).clamp(max=PSNR_CAP).view(n, t)

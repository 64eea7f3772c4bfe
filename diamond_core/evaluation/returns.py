"""An agent judged by playing the real game: whole episodes, raw returns, and how they compare with human play.

Source: SPEC 7 (evaluation) and SPEC 8 (the table of scores).
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from diamond_core.types import Policy, VectorEnv

Watch = Callable[[float, int], None]
"""watch(return, length) is told of every counted episode as it ends."""


@dataclass(frozen=True)
class EpisodeResults:
    """Whole episodes, world by world, each world's in the order of play."""

    returns: tuple[float, ...]
    """Sums of rewards as the game gives them, not clipped."""
    lengths: tuple[int, ...]
    """Steps."""

    @property
    def mean(self) -> float:
        """Mean return."""
        return statistics.fmean(self.returns)

    @property
    def std(self) -> float | None:
        """Sample standard deviation of the returns; none of a single one."""
        return statistics.stdev(self.returns) if len(self.returns) > 1 else None

    @property
    def sem(self) -> float | None:
        """Standard error of the mean return."""
        return None if self.std is None else self.std / len(self.returns) ** 0.5


class Interrupted(Exception):
    """Somebody wants the play to stop before all episodes are over."""


def play_episodes(env: VectorEnv, policy: Policy, episodes: int, seed: int, max_steps: int | None = None,
                  watch: Watch = lambda *_: None, should_stop: Callable[[], bool] = lambda: False) -> EpisodeResults:
    """Plays exactly so many episodes; one that reaches `max_steps` counts as ended there. Raises Interrupted.

    Each world plays a quota that is fixed beforehand. To take whichever episodes end first would favour short ones.
    """
    if episodes < 1 or (max_steps is not None and max_steps < 1):
        raise ValueError(f"expected one episode and one step or more, got {episodes} and {max_steps}: ask for more")
    n = env.num_envs
    left = [episodes // n + (world < episodes % n) for world in range(n)]
    played: list[list[tuple[float, int]]] = [[] for _ in range(n)]
    restarts = 0
    while any(left):
        _play(env, policy, left, played, seed + restarts, max_steps, watch, should_stop)
        restarts += 1
    returns, lengths = zip(*(episode for world in played for episode in world), strict=True)
    return EpisodeResults(returns, lengths)


def _play(env: VectorEnv, policy: Policy, left: list[int], played: list[list[tuple[float, int]]], seed: int,
          max_steps: int | None, watch: Watch, should_stop: Callable[[], bool]) -> None:
    """Plays until the quotas are filled, or until every world that has episodes left was cut off.

    A world cannot be restarted alone: after a cut it waits for the game to end by itself, or for the others.
    """
    start = env.reset(seed)
    policy.reset(start)
    frames = start.frames
    waits, total, length = [False] * len(left), [0.0] * len(left), [0] * len(left)
    while any(some and not wait for some, wait in zip(left, waits, strict=True)):
        if should_stop():
            raise Interrupted
        step = env.step(policy.act(frames))
        policy.observe(step)
        frames = step.frames
        for i, (reward, done) in enumerate(zip(step.rewards.tolist(), step.dones.tolist(), strict=True)):
            total[i] += reward
            length[i] += 1
            over = done or length[i] == max_steps
            if over and left[i] and not waits[i]:
                left[i] -= 1
                played[i].append((total[i], length[i]))
                watch(total[i], length[i])
            waits[i] = (waits[i] or over) and not done
            if over:
                total[i], length[i] = 0.0, 0


def human_normalised(game: str, score: float) -> float | None:
    """0 = random play, 1 = human play; none for a game without published scores."""
    known = reference(game)
    return None if known is None else (score - known.random) / (known.human - known.random)


def scored(game: str, results: EpisodeResults) -> dict[str, Any]:
    """What is told of an evaluation: the mean score, human-normalised where that is known, and the returns."""
    normalised = human_normalised(game, results.mean)
    return {"score": results.mean, "episodes": len(results.returns), "returns": list(results.returns),
            **({} if normalised is None else {"human_normalised_score": normalised})}


class Reference(NamedTuple):
    """Published mean scores of one game."""

    random: float
    human: float
    diamond: float


def reference(game: str) -> Reference | None:
    """The published scores of 'MsPacman', 'mspacman' or 'ms_pacman'; none if there are none."""
    return _BY_KEY.get(_key(game))


def _key(game: str) -> str:
    return re.sub("[^a-z0-9]", "", game.lower())


REFERENCES = {
    "Alien": Reference(227.8, 7127.7, 744.1),
    "Amidar": Reference(5.8, 1719.5, 225.8),
    "Assault": Reference(222.4, 742.0, 1526.4),
    "Asterix": Reference(210.0, 8503.3, 3698.5),
    "BankHeist": Reference(14.2, 753.1, 19.7),
    "BattleZone": Reference(2360.0, 37187.5, 4702.0),
    "Boxing": Reference(0.1, 12.1, 86.9),
    "Breakout": Reference(1.7, 30.5, 132.5),
    "ChopperCommand": Reference(811.0, 7387.8, 1369.8),
    "CrazyClimber": Reference(10780.5, 35829.4, 99167.8),
    "DemonAttack": Reference(152.1, 1971.0, 288.1),
    "Freeway": Reference(0.0, 29.6, 33.3),
    "Frostbite": Reference(65.2, 4334.7, 274.1),
    "Gopher": Reference(257.6, 2412.5, 5897.9),
    "Hero": Reference(1027.0, 30826.4, 5621.8),
    "Jamesbond": Reference(29.0, 302.8, 427.4),
    "Kangaroo": Reference(52.0, 3035.0, 5382.2),
    "Krull": Reference(1598.0, 2665.5, 8610.1),
    "KungFuMaster": Reference(258.5, 22736.3, 18713.6),
    "MsPacman": Reference(307.3, 6951.6, 1958.2),
    "Pong": Reference(-20.7, 14.6, 20.4),
    "PrivateEye": Reference(24.9, 69571.3, 114.3),
    "Qbert": Reference(163.9, 13455.0, 4499.3),
    "RoadRunner": Reference(11.5, 7845.0, 20673.2),
    "Seaquest": Reference(68.4, 42054.7, 551.2),
    "UpNDown": Reference(533.4, 11693.2, 3856.3),
}
"""The 26 games of Atari 100k."""
_BY_KEY = {_key(game): scores for game, scores in REFERENCES.items()}

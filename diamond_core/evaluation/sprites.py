"""What can be told apart by its colour in the games that we know: things to count, and what the player moves.

Pong's and Breakout's colours are those by which the scripted players know ball and paddle; Freeway's are our own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

from diamond_core.agent.scripted import RULES, Thing, cut
from diamond_core.replay import Episode

CHICKEN = Thing((8, 60), (18, 20), (0.5, 0.5, -1.0), 80.0, without=31)
"""The only yellow so bright where the left player crosses, but for the middle line; now and then a car is taken for
one."""
BLUE_CAR = Thing((28, 31), (0, 64), (-1.0, 0.0, 1.0), 0.0)
"""The car of its lane: reality never shows two."""
DOWN = 2
"""Freeway's button that makes it go back."""
BUMP = (0.8, 12.0)
"""So far, in 64ths, it goes back in a step when a car has hit it; further where it has crossed and begins again."""
BLIND = 5
"""Steps, at most, for which the car hides it while it goes back."""
BESIDE = (15, 18), (21, 24)
"""Columns, in 64ths, on its left and on its right."""
CLOSE = 2
"""Rows above and below its middle in which a car is close to it."""
CAR = 40
"""By so many byte levels a pixel of a car differs from the street, at least."""
DECIDED = 3, 9
"""Steps before and after a hit of which none is a miss."""

SCORE = (0, 5), (43, 48)
"""Rows and columns, in 64ths, of the other player's digit."""
OTHERWISE = 1.0
"""By so much, in byte levels, a pixel of it differs on average where it has another colour."""
RARELY = 8
"""Of so many steps in which the digits change their colour one is a moment: they are as many as all hits."""


class Player(NamedTuple):
    """What the player moves, and along which axis: 0 = rows, 1 = columns."""

    thing: Thing
    axis: int


def things_of(game: str) -> dict[str, Thing]:
    """What can be counted in this game, by name; empty for a game that is not known."""
    if game in RULES:
        return {"ball": RULES[game].ball, "paddle": RULES[game].paddle}
    return {"chicken": CHICKEN, "blue car": BLUE_CAR} if game == "Freeway" else {}


def player_of(game: str) -> Player | None:
    """What the player moves in this game."""
    if game in RULES:
        return Player(RULES[game].paddle, RULES[game].axis)
    return Player(CHICKEN, 0) if game == "Freeway" else None


def moments_of(game: str, kinds: Sequence[str]) -> Callable[[Episode], dict[str, list[int]]]:
    """What finds the steps of an episode at which something of these kinds happens: see `LearnerConfig.moments`."""
    seen: dict[str, Callable[[Episode], list[int]]] = {}
    if game == "Freeway":
        seen = {"hit": hits, "miss": misses, "clock": fading}
    if game in RULES:
        rules = RULES[game]
        finders = {"near": rules.meetings, "serve": rules.serves, "lost": rules.losses, "wait": rules.waits}
        if rules.lives:
            finders |= {"life": rules.lives_lost, "due": rules.lives_due}
        seen = {kind: _in_frames(find) for kind, find in finders.items()}
    if not set(kinds) <= set(seen):
        raise ValueError(f"expected moments that can be seen in {game} ({', '.join(seen) or 'none'}), "
                         f"got {' '.join(kinds)}")
    return lambda episode: {kind: seen[kind](episode) for kind in kinds}


def _in_frames(find: Callable[[Tensor], Tensor]) -> Callable[[Episode], list[int]]:
    return lambda episode: find(episode.frames[:-1]).tolist()


def fading(episode: Episode) -> list[int]:
    """Some of the steps in which Freeway's digits change their colour once more, as they do before the game is over."""
    changed = cut(episode.frames[:-1], *SCORE).float().diff(dim=0).abs().mean((1, 2, 3)) > OTHERWISE
    return (2 + (changed[1:] & changed[:-1]).nonzero()[:, 0]).tolist()[::RARELY]


def hits(episode: Episode) -> list[int]:
    """The steps at which a car hits Freeway's chicken: it begins to go back, and nobody told it to."""
    falls = CHICKEN.find(episode.frames)[:, 0].diff()
    told = episode.actions == DOWN
    told[1:] |= told[:-1].clone()
    back = ((falls > BUMP[0]) & (falls < BUMP[1]) & ~told).nonzero()[:, 0].tolist()
    return [step for step, last in zip(back, [-BLIND, *back], strict=False) if step - last >= BLIND]


def misses(episode: Episode) -> list[int]:
    """The steps in which a car passes close to Freeway's chicken and does not hit it."""
    frames = episode.frames[:-1]
    sides = torch.cat([cut(frames, (0, 64), columns) for columns in BESIDE], dim=3).int()
    cars = ((sides - sides.median(dim=0).values).abs().amax(1) > CAR).any(2)
    close = max_pool1d(cars.float(), 2 * CLOSE + 1, stride=1, padding=CLOSE)
    rows = CHICKEN.find(frames)[:, 0] * cars.shape[1] / 64
    beside = ~rows.isnan() & (close.gather(1, rows.nan_to_num().round().long()[:, None])[:, 0] > 0)
    for step in hits(episode):
        beside[max(0, step - DECIDED[0]):step + DECIDED[1]] = False
    return beside.nonzero()[:, 0].tolist()

"""Play: every real environment as n worlds that are stepped together, found by the name of its game.

Our own. 'Pong' is Atari, 'gym:CartPole-v1' is Gymnasium, 'toy' is Catch; all of them are a `VectorEnv`.
"""

from __future__ import annotations

from diamond_core.envs import atari, gym, toy
from diamond_core.envs.atari import MAX_FRAMES, MOST_NOOPS, AtariVector, Emulator, Tick, Trail, list_games
from diamond_core.envs.gym import GymVector
from diamond_core.envs.toy import ToyVector
from diamond_core.types import VectorEnv

__all__ = [
    "AtariVector",
    "Emulator",
    "GymVector",
    "Tick",
    "ToyVector",
    "Trail",
    "action_names",
    "canonical",
    "frames_of",
    "list_games",
    "make_env",
]


def frames_of(steps: int, frame_skip: int = 4) -> int:
    """The emulator's frames after which a game is cut off by itself, for who cuts it off after so many steps: the usual
    number, or as many more as are asked for."""
    frames = steps * frame_skip
    return MAX_FRAMES if frames <= MAX_FRAMES else frames + MOST_NOOPS


def make_env(
    game: str,
    num_envs: int = 1,
    *,
    life_loss_ends: bool = False,
    image_size: tuple[int, int] = (64, 64),
    frame_skip: int = 4,
    noop_max: int = 30,
    max_frames: int = MAX_FRAMES,
) -> VectorEnv:
    """n worlds of 'toy', 'gym:ENV_ID' or an Atari game; only image_size matters to the first two."""
    if min(image_size) < 1:
        raise ValueError(f"expected images of 1 pixel or more, got {image_size[0]} x {image_size[1]}")
    if game == "toy":
        return ToyVector(num_envs, image_size=image_size)
    if game.startswith("gym:"):
        return GymVector(game[4:], num_envs, image_size=image_size)
    return AtariVector(
        game,
        num_envs,
        life_loss_ends=life_loss_ends,
        image_size=image_size,
        frame_skip=frame_skip,
        noop_max=noop_max,
        max_frames=max_frames,
    )


def canonical(game: str) -> str:
    """A game's name as it is spelled everywhere. Raises an error, ValueError in Atari, where there is no such game."""
    action_names(game)
    return game if game == "toy" or game.startswith("gym:") else atari.canonical(game)


def action_names(game: str) -> list[str]:
    """What each action of a game is called, by its number."""
    if game == "toy":
        return list(toy.ACTIONS)
    return list(gym.action_names(game[4:]) if game.startswith("gym:") else atari.action_names(game))

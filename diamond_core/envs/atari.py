"""Atari games: many at once on ALE's C++ vector environment, or a single one that can be saved, restored and cloned.

Preprocessing of Mnih et al. 2015 as in Atari 100k (SPEC 7): minimal actions, none of them sticky, held for four
frames of which the last two are pooled by their maximum.
"""

from __future__ import annotations

import re
from copy import copy
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from typing import NamedTuple

import numpy as np
from ale_py import Action, ALEInterface, LoggerMode, roms
from ale_py.vector_env import AtariVectorEnv
from torch import Tensor

from diamond_core.envs.base import Moved, Worlds, shrink
from diamond_core.pixels import to_chw

# ALE ends the whole process when these are loaded: they have no game for one player.
TWO_PLAYERS = {"combat", "joust", "maze_craze", "warlords"}
MOST_NOOPS = 30
"""That an episode may begin with."""
MAX_FRAMES = 108_000
"""Of an episode, those of its no-ops and the skipped ones too."""


def list_games() -> list[str]:
    """The names of all Atari games, as in 'MsPacman'."""
    return sorted(_camel(rom) for rom in _roms().values())


@cache
def action_names(game: str) -> tuple[str, ...]:
    """The minimal set of actions of an Atari game, as in ('NOOP', 'FIRE', ...); an action is an index into it."""
    return tuple(action.name for action in _console(rom_of(game)).getMinimalActionSet())


def rom_of(game: str) -> str:
    """'MsPacman', 'mspacman' or 'ms_pacman' -> 'ms_pacman'; ValueError where there is no such game."""
    known, key = _roms(), re.sub("[^a-z0-9]", "", game.lower())
    if key in known:
        return known[key]
    near = ", ".join(_camel(known[match]) for match in get_close_matches(key, known)) or "none"
    raise ValueError(f"no Atari game is called {game!r}; nearest: {near}; all are named by: diamond games")


def canonical(game: str) -> str:
    """'ms_pacman' -> 'MsPacman'; ValueError where there is no such game."""
    return _camel(rom_of(game))


class AtariVector(Worlds):
    """n worlds of one Atari game."""

    def __init__(
        self,
        game: str,
        num_envs: int,
        *,
        life_loss_ends: bool,
        image_size: tuple[int, int] = (64, 64),
        grayscale: bool = False,
        frame_skip: int = 4,
        noop_max: int = 30,
        max_frames: int = MAX_FRAMES,
        num_threads: int = 0,
    ) -> None:
        """An episode begins with 0 to noop_max - 1 no-ops and is cut off after max_frames emulator frames.

        With life_loss_ends a lost life is an end after which the game goes on. num_threads = 0 means one per core.
        """
        self._rom = rom_of(game)
        self._env = AtariVectorEnv(
            self._rom,
            num_envs,
            num_threads=num_threads,
            # ALE's own cut blends the last frame with an older one, so it never comes to that.
            max_num_frames_per_episode=2**30,
            img_height=image_size[0],
            img_width=image_size[1],
            grayscale=grayscale,
            stack_num=1,
            frameskip=frame_skip,
            noop_max=noop_max,
            reward_clipping=False,
            use_fire_reset=False,
        )
        self._life_loss_ends = life_loss_ends
        self._frame_skip = frame_skip
        self._max_frames = max_frames
        self._lives = np.zeros(num_envs, np.int32)
        self._first_frame = np.zeros(num_envs, np.int32)
        super().__init__(num_envs, len(self._env.ale.get_action_set()), (1 if grayscale else 3, *image_size))

    def _restart(self, worlds: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        mask = np.isin(np.arange(self.num_envs), worlds)
        images, info = self._env.reset(seed=seeds, options={"reset_mask": mask})
        self._lives = info["lives"]
        self._first_frame[worlds] = info["episode_frame_number"][worlds]
        return self._frames(images)

    def _move(self, actions: np.ndarray) -> Moved:
        images, rewards, game_over, _, info = self._env.step(actions)
        ends = game_over | (info["lives"] < self._lives) if self._life_loss_ends else game_over
        cut = info["episode_frame_number"] >= self._max_frames
        self._lives = info["lives"]
        return Moved(self._frames(images), rewards, ends, cut & ~ends, game_over | cut)

    def _frames(self, images: np.ndarray) -> np.ndarray:
        channels, height, width = self.frame_shape
        return images.reshape(self.num_envs, height, width, channels)

    def trail(self, world: int) -> Trail:
        """Where one world stands, for an `Emulator` to go on from."""
        noops = int(self._first_frame[world]) - _frames_at_start(self._rom)
        return Trail(self._rom, self._frame_skip, noops, tuple(self._actions[world]))

    def close(self) -> None:
        """Frees the emulators and their threads."""
        super().close()
        self.__dict__.pop("_env", None)


@dataclass(frozen=True)
class Trail:
    """A place in a game: how its episode began and the actions since. Plain values, fit for JSON."""

    rom: str
    frame_skip: int
    noops: int
    actions: tuple[int, ...]


class Tick(NamedTuple):
    """What one emulator answers to an action."""

    frame: Tensor
    """(c, h, w) uint8."""
    reward: float
    end: bool
    """Game over; a lost life shows in `lives` only."""
    lives: int


class Emulator:
    """One Atari game to save, restore and clone, with the frames and rewards of `AtariVector`, bit for bit."""

    def __init__(
        self,
        game: str,
        *,
        image_size: tuple[int, int] = (64, 64),
        grayscale: bool = False,
        frame_skip: int = 4,
        noop_max: int = 30,
    ) -> None:
        self._rom = rom_of(game)
        self._image_size = image_size
        self._grayscale = grayscale
        self._frame_skip = frame_skip
        self._noop_max = noop_max
        self._begin(0)
        self._buttons = self._ale.getMinimalActionSet()
        self.num_actions = len(self._buttons)

    def reset(self, seed: int, noops: int | None = None) -> Tensor:
        """Begins an episode with so many single-frame no-ops, drawn from the seed when None; (c, h, w) uint8."""
        self._begin(int(np.random.default_rng(seed).integers(max(self._noop_max, 1))) if noops is None else noops)
        return self.frame()

    def step(self, action: int) -> Tick:
        """Holds one action for frame_skip frames; after the end nothing moves until the next reset."""
        if not 0 <= action < self.num_actions:
            raise ValueError(
                f"expected an action from 0 to {self.num_actions - 1}, got {action}: see action_names(game)"
            )
        reward = self._hold(action)
        return Tick(self.frame(), float(reward), self._ale.game_over(), self._ale.lives())

    def frame(self) -> Tensor:
        """What an agent sees, (c, h, w) uint8."""
        return to_chw(shrink(self._pooled, self._image_size))

    def screen(self) -> np.ndarray:
        """What a person sees: the newest picture in full, (210, 160, 3) uint8; a few games are up to 250 high."""
        return self._ale.getScreenRGB()

    def lives(self) -> int:
        """How many are left; 0 in a game without."""
        return self._ale.lives()

    def nudge(self, byte: int, by: int) -> None:
        """Adds to a byte of the console's memory, one that is 0 excepted: where a thing's place is kept it is not
        there. What `save` returns knows nothing of it."""
        if value := int(self._ale.getRAM()[byte]):
            self._ale.setRAM(byte, (value + by) % 256)

    def save(self) -> Trail:
        """Where the game stands."""
        return Trail(self._rom, self._frame_skip, self._noops, tuple(self._actions))

    def restore(self, trail: Trail) -> Tensor:
        """Goes to a saved place by playing again, about a second for 4,000 actions; (c, h, w) uint8."""
        if (trail.rom, trail.frame_skip) != (self._rom, self._frame_skip):
            raise ValueError(
                f"expected a trail of {self._rom} with frame skip {self._frame_skip}, got one of {trail.rom} with "
                f"{trail.frame_skip}: build the emulator with the game and frame skip of the trail"
            )
        self._begin(trail.noops)
        for action in trail.actions:
            self._hold(action)
        return self.frame()

    def clone(self) -> Emulator:
        """A second emulator in the same place."""
        twin = copy(self)
        twin.restore(self.save())
        return twin

    def _begin(self, noops: int) -> None:
        # A console that has played before starts differently in some games, Assault for one; hence a new one.
        self._ale = _console(self._rom)
        self._noops = noops
        self._actions: list[int] = []
        for _ in range(noops):
            self._ale.act(Action.NOOP)
        self._pooled = self._picture()

    def _hold(self, action: int) -> int:
        """Takes an action and returns its reward. As in ALE, a game over midway pools the picture before it."""
        self._actions.append(action)
        reward, pool = 0, []
        for left in reversed(range(self._frame_skip)):
            reward += self._ale.act(self._buttons[action])
            if self._ale.game_over():
                pool.append(self._pooled)
                break
            if left < 2:
                pool.append(self._picture())
        self._pooled = np.maximum.reduce(pool)
        return reward

    def _picture(self) -> np.ndarray:
        return self._ale.getScreenGrayscale()[..., None] if self._grayscale else self._ale.getScreenRGB()


def _console(rom: str) -> ALEInterface:
    """A console with a game in it, switched on. Its seed matters to sticky actions only, and there are none."""
    ALEInterface.setLoggerMode(LoggerMode.Error)
    ale = ALEInterface()
    ale.setFloat("repeat_action_probability", 0.0)
    ale.setInt("random_seed", 0)
    ale.loadROM(str(roms.get_rom_path(rom)))
    ale.reset_game()
    return ale


@cache
def _frames_at_start(rom: str) -> int:
    """How many frames ALE has counted before any no-op: some games need their SELECT pressed first."""
    return _console(rom).getEpisodeFrameNumber()


def _roms() -> dict[str, str]:
    return {rom.replace("_", ""): rom for rom in roms.get_all_rom_ids() if rom not in TWO_PLAYERS}


def _camel(rom: str) -> str:
    return rom.title().replace("_", "")

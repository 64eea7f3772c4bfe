"""Catch: a ball falls, a paddle moves below it. The smallest game with chance, rewards, ends and truncations.

Our own. The board is 4 x 4 cells and one frame shows all that matters, so tiny networks learn it in a minute.
"""

from __future__ import annotations

import numpy as np

from diamond_core.envs.base import Moved, Worlds

ACTIONS = ("NOOP", "LEFT", "RIGHT")
CELLS = 4
PADDLE_CELLS = 2
DROPS = 20
BACKGROUND, PADDLE, BALL = (20, 24, 56), (64, 208, 120), (255, 216, 72)


class ToyVector(Worlds):
    """n worlds of Catch. A ball caught is +1, a ball missed is -1 and the end; after 20 balls the game is cut off."""

    def __init__(self, num_envs: int = 1, *, image_size: tuple[int, int] = (64, 64)) -> None:
        if any(side < 2 * CELLS or side % CELLS for side in image_size):
            raise ValueError(
                f"expected image sides that are multiples of {CELLS} and at least {2 * CELLS}, got {image_size}: "
                "take 8, 16, 32 or 64"
            )
        super().__init__(num_envs, len(ACTIONS), (3, *image_size))
        self._chance = [np.random.default_rng() for _ in range(num_envs)]
        self._paddle, self._row, self._column, self._drops = np.zeros((4, num_envs), np.int64)

    def _restart(self, worlds: np.ndarray, seeds: np.ndarray) -> np.ndarray:
        for world, seed in zip(worlds, seeds, strict=True):
            self._chance[world] = np.random.default_rng(seed)
            self._paddle[world] = self._chance[world].integers(CELLS - PADDLE_CELLS + 1)
            self._drops[world] = 0
            self._throw(int(world))
        return self._draw()

    def _move(self, actions: np.ndarray) -> Moved:
        self._paddle = np.clip(self._paddle + np.array([0, -1, 1])[actions], 0, CELLS - PADDLE_CELLS)
        self._row += 1
        for world in np.flatnonzero(self._row == CELLS):
            self._throw(int(world))
        landed = self._row == CELLS - 1
        aside = self._column - self._paddle
        caught = landed & (aside >= 0) & (aside < PADDLE_CELLS)
        missed = landed & ~caught
        self._drops += landed
        cut = caught & (self._drops == DROPS)
        return Moved(self._draw(), caught * 1.0 - missed, missed, cut, missed | cut)

    def _throw(self, world: int) -> None:
        self._row[world] = 0
        self._column[world] = self._chance[world].integers(CELLS)

    def _draw(self) -> np.ndarray:
        worlds = np.arange(self.num_envs)
        board = np.full((self.num_envs, CELLS, CELLS, 3), BACKGROUND, np.uint8)
        for cell in range(PADDLE_CELLS):
            board[worlds, -1, self._paddle + cell] = PADDLE
        board[worlds, self._row, self._column] = BALL
        _, height, width = self.frame_shape
        return board.repeat(height // CELLS, axis=1).repeat(width // CELLS, axis=2)

"""A tape leads a session: what was played is played again, until a key takes over or the tape is over. Our own."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from app.session.tape import Tape, hash_of
from diamond_core.config import SamplerConfig
from diamond_core.envs import Trail
from diamond_core.world.dream import DreamState, World


class Lead(NamedTuple):
    """What a tape wants of the next step."""

    action: int
    sampler: SamplerConfig | None
    lived: bool
    value: DreamState | None
    """To be put in before it."""


class Guide:
    """Where a session stands on a tape."""

    def __init__(self, tape: Tape, first: int) -> None:
        self.tape = tape
        self.number = self._first = self._told = first
        """The next step."""
        self.first_difference: int | None = None
        """The first step that came out otherwise than on the tape, as it may on another path."""

    @property
    def over(self) -> bool:
        """Whether the tape has no further step."""
        return self.number >= len(self.tape)

    def trail(self) -> Trail | None:
        """Where reality is to go before the next step, told once; the session stands at the first one already."""
        told, self._told = self._told, self.number
        return None if told == self.number else self.tape.trails.get(self.number)

    def lead(self, world: World) -> Lead:
        """The next step."""
        tape, i = self.tape, self.number
        self.number += 1
        # where the first one begins the session stands already
        value = None if i == self._first else tape.value(i, world)
        return Lead(int(tape.actions[i]), tape.sampler(i), bool(tape.lived[i]), value)

    def compare(self, frame: np.ndarray) -> bool:
        """Holds what the newest step led to, (h, w, 3), against the tape; False at the first difference only."""
        number = self.number - 1
        same = hash_of(frame[..., :self.tape.origin.frame_shape[0]]) == bytes(self.tape.hashes[number])
        if same or self.first_difference is not None:
            return True
        self.first_difference = number
        return False

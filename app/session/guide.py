"""A tape leads a session: what was played is played again, until a key takes over or the tape is over. Our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from app.session.tape import Tape, hash_of
from diamond_core.config import SamplerConfig
from diamond_core.envs import Trail
from diamond_core.world.dream import DreamState, World
from diamond_core.world.engine import Engine


class Lead(NamedTuple):
    """What a tape wants of the next step."""

    action: int
    sampler: SamplerConfig | None
    lived: bool


class Guide:
    """Where a session stands on a tape."""

    def __init__(self, tape: Tape, first: int, engines: Mapping[str, Engine] | None = None) -> None:
        """`engines`: what this machine has of what the tape was dreamt on, by name."""
        self.tape, self._engines = tape, engines or {}
        self.number = self._told = first
        """The next step, and the one of which `before` was told last."""
        self.first_difference: int | None = None
        """The first step that came out otherwise than on the tape, as it may on another path."""

    @property
    def over(self) -> bool:
        """Whether the tape has no further step."""
        return self.number >= len(self.tape)

    @property
    def engine(self) -> Engine | None:
        """What dreamt the newest step, where that is here."""
        names = [name for step, name in sorted(self.tape.paths.items()) if step < self.number]
        return self._engines.get(names[-1]) if names else None

    def before(self, world: World) -> tuple[Trail | None, DreamState | None]:
        """Where reality is to go before the next step, and what is to be dreamt on from, told once; where the first one
        begins the session stands already."""
        told, self._told = self._told, self.number
        return (None, None) if told == self.number else (self.tape.trails.get(self.number),
                                                         self.tape.value(self.number, world))

    def lead(self) -> Lead:
        """The next step."""
        tape, i = self.tape, self.number
        self.number += 1
        return Lead(int(tape.actions[i]), tape.sampler(i), bool(tape.lived[i]))

    def compare(self, frame: np.ndarray) -> bool:
        """Holds what the newest step led to, (h, w, 3), against the tape; False at the first difference only."""
        number = self.number - 1
        same = hash_of(frame[..., :self.tape.origin.frame_shape[0]]) == bytes(self.tape.hashes[number])
        if same or self.first_difference is not None:
            return True
        self.first_difference = number
        return False

"""Writes a tape while a session plays. Our own."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple, TypeVar

import numpy as np

from app.session.tape import HASH_BYTES, Origin, Tape, hash_of, pack_value
from app.session.view import Facts
from diamond_core.config import SamplerConfig
from diamond_core.envs import Trail
from diamond_core.pixels import to_hwc
from diamond_core.training.agent import Agent
from diamond_core.world.dream import DreamState, DreamStep

T = TypeVar("T")
STOP = 150
"""Steps between two stops: ten seconds."""


class Row(NamedTuple):
    """One recorded step."""

    action: int
    lived: bool
    reward: float
    end: bool
    mates: int
    hash: bytes
    returns: tuple[float, float]
    """The dream's and reality's that it led to."""


class Made(NamedTuple):
    """How a step was dreamt."""

    sampler: SamplerConfig
    path: str
    """Which engine."""
    mates: int
    """Dreams in its batch."""


class Recorder:
    """Writes a tape while a session plays."""

    def __init__(self, agent: Agent, game: str, action_names: list[str]) -> None:
        sha256 = agent.card.sha256 if agent.card else ""
        self._origin = Origin(game, tuple(action_names), agent.config.frame_shape, sha256)
        self._rows: list[Row] = []
        self._values: dict[int, bytes] = {}
        self._stops: dict[int, bytes] = {}
        self._samplers: dict[int, SamplerConfig] = {}
        self._paths: dict[int, str] = {}
        self._trails: dict[int, Trail] = {}
        self._begun: dict[int, tuple[float, float]] = {}
        self._after: DreamState | None = None

    @property
    def steps(self) -> int:
        """So many until now."""
        return len(self._rows)

    def dreamt(self, before: DreamState, known: Facts, step: DreamStep, action: int, made: Made, was: Trail | None
               ) -> None:
        """A step of the dream, of which `known` stood before; `was` tells where reality stood, unless it is where the
        step before left it."""
        if before is not self._after:
            self._values[self.steps] = pack_value(before)
        elif self.steps % STOP == 0:
            self._stops[self.steps] = pack_value(before)
        _change(self._samplers, self.steps, made.sampler)
        _change(self._paths, self.steps, made.path)
        self._after = step.state
        self._row(action, False, float(step.rewards), bool(step.ends), made.mates, to_hwc(step.frames[0]), was,
                  known)

    def lived(self, action: int, facts: Facts, frame: np.ndarray, was: Trail | None) -> None:
        """A step of reality alone, to a frame (h, w, 3)."""
        image = frame[..., :self._origin.frame_shape[0]]
        before = replace(facts, reality_total=facts.reality_total - facts.reality_reward)
        self._row(action, True, facts.reality_reward, facts.reality_end, 1, image, was, before)
        self.saw(facts)

    def saw(self, facts: Facts) -> None:
        """What the newest step led to, also where a routine has put another dream in its place since."""
        self._rows[-1] = self._rows[-1]._replace(returns=(facts.total, facts.reality_total))

    def tape(self) -> Tape:
        """What was recorded until now."""
        rows = self._rows
        return Tape(
            self._origin,
            actions=np.array([row.action for row in rows], np.int64), lived=np.array([row.lived for row in rows], bool),
            rewards=np.array([row.reward for row in rows], np.float32), ends=np.array([row.end for row in rows], bool),
            mates=np.array([row.mates for row in rows], np.int64),
            hashes=np.frombuffer(b"".join(row.hash for row in rows), np.uint8).reshape(-1, HASH_BYTES),
            values=dict(self._values), samplers=dict(self._samplers), paths=dict(self._paths),
            trails=dict(self._trails), stops=dict(self._stops),
            returns=np.array([row.returns for row in rows], np.float32).reshape(-1, 2),
            begun=dict(self._begun))

    def _row(self, action: int, lived: bool, reward: float, end: bool, mates: int, image: np.ndarray,
             was: Trail | None, known: Facts) -> None:
        if was is not None:
            self._trails[self.steps] = was
        returns = known.total, known.reality_total
        if not self._rows or self._rows[-1].returns != returns:
            self._begun[self.steps] = returns
        self._rows.append(Row(action, lived, reward, end, mates, hash_of(image), returns))


def _change(table: dict[int, T], number: int, now: T) -> None:
    """Notes what holds from a step on, where it differs from what held before."""
    if not table or table[max(table)] != now:
        table[number] = now

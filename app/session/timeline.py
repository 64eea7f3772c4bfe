"""The last minutes of a session, kept small: a frame and the reward model's memory a step. Our own.

A dream is a value, so going back is having kept it. Here it is kept as what each step added; where a value was put in
from outside (a cut), it is kept whole.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
import torch
import zstandard
from torch import Tensor

from app.session.look import STEPS_A_SECOND
from app.session.twin import Mark, rgb
from app.session.view import Facts
from diamond_core.world.dream import DreamState

MINUTES = 5
SLACK = 256
"""Moments that are forgotten at once, so that forgetting is rare."""


@dataclass(frozen=True)
class Packed:
    """An image of some shape, compressed."""

    data: bytes
    shape: tuple[int, ...]

    @staticmethod
    def of(image: np.ndarray) -> Packed:
        """Without loss."""
        return Packed(zstandard.ZstdCompressor(level=1).compress(np.ascontiguousarray(image).tobytes()), image.shape)

    def open(self) -> np.ndarray:
        """The same image."""
        return np.frombuffer(zstandard.ZstdDecompressor().decompress(self.data), np.uint8).reshape(self.shape)


@dataclass(frozen=True)
class Moment:
    """One step's worth of the past."""

    facts: Facts
    frame: Packed | None
    """(c, h, w): the frame that was dreamt; none where nothing was dreamt at this step."""
    memory: tuple[Tensor, Tensor] | None
    """The reward model's hx and cx after it, (1, dim) each."""
    reality: Packed | None
    """(h, w, 3)."""
    mark: Mark | None
    """Where the real game stood."""
    cut: DreamState | None
    """The whole value, where it was put in and not dreamt."""


class Timeline:
    """Moments by number, `first` to `last`; `cursor` is the one that is shown. The past beyond some minutes is lost."""

    def __init__(self, minutes: float = MINUTES) -> None:
        self._most = max(int(minutes * 60 * STEPS_A_SECOND), 8)
        self._moments: list[Moment] = []
        self._cuts: list[int] = []
        self.first = 0
        self.cursor = -1

    def __len__(self) -> int:
        return len(self._moments)

    def __getitem__(self, number: int) -> Moment:
        if not self.first <= number <= self.last:
            raise IndexError(f"expected a moment from {self.first} to {self.last}, got {number}")
        return self._moments[number - self.first]

    @property
    def last(self) -> int:
        """The number of the newest moment. After going back, moments later than the cursor stay until the next step."""
        return self.first + len(self._moments) - 1

    @property
    def cuts(self) -> list[int]:
        """Where a value was put in: beginnings, resyncs, paint, loads."""
        return list(self._cuts)

    def facts(self) -> list[Facts]:
        """All numbers from `first` to `last`, for drawing the strip."""
        return [moment.facts for moment in self._moments]

    def put(self, facts: Facts, state: DreamState, reality: np.ndarray | None, mark: Mark | None) -> None:
        """A new moment with a value from outside: a beginning."""
        self._forget_after(self.cursor)
        self._add(Moment(facts, None, None, reality if reality is None else Packed.of(reality), mark, _kept(state)))

    def amend(self, facts: Facts, state: DreamState, mark: Mark | None) -> None:
        """Another value at this moment: paint, another seed."""
        now = self._drop()
        self._add(Moment(facts, None, None, now.reality, mark, _kept(state)))

    def resync(self, facts: Facts, state: DreamState) -> None:
        """The dream goes on from another value; what this moment shows stays."""
        frame = Packed.of(np.moveaxis(self.picture(self.cursor), -1, 0))
        now = self._drop()
        self._add(Moment(facts, frame, None, now.reality, now.mark, _kept(state)))

    def step(self, facts: Facts, state: DreamState | None, reality: np.ndarray | None, mark: Mark | None) -> None:
        """A step: `state` is what was dreamt, None where only reality moved."""
        self._forget_after(self.cursor)
        frame = None if state is None else Packed.of(state.frames[0, -1].cpu().numpy())
        memory = None if state is None else (state.hx.to("cpu", copy=True), state.cx.to("cpu", copy=True))
        self._add(Moment(facts, frame, memory, reality if reality is None else Packed.of(reality), mark, None))

    def go_to(self, number: int) -> Moment:
        """Moves the cursor; to the nearest moment that is still known."""
        self.cursor = min(max(number, self.first), self.last)
        return self[self.cursor]

    def picture(self, number: int) -> np.ndarray:
        """The dream's frame as it was, (h, w, 3)."""
        while (moment := self[number]).frame is None and moment.cut is None:
            number -= 1
        return rgb(moment.cut.frames[0, -1] if moment.frame is None and moment.cut else _frame(moment))

    def state(self, number: int) -> DreamState:
        """The dream as it was, on the CPU."""
        base = self._cuts[bisect_right(self._cuts, number) - 1]
        cut = self[base].cut
        assert cut is not None
        k = cut.frames.shape[1]
        dreamt = [i for i in range(base + 1, number + 1) if self[i].frame is not None]
        if not dreamt:
            return cut
        newest = [self[i] for i in dreamt[-k:]]
        frames = torch.cat([cut.frames[0], torch.stack([_frame(m) for m in newest])])[-k:]
        taken = torch.tensor([m.facts.action for m in newest], dtype=torch.int64)
        actions = torch.cat([cut.actions[0, :-1], taken])[len(taken):]
        memory = newest[-1].memory
        assert memory is not None
        return DreamState(frames[None], torch.cat([actions, torch.zeros(1, dtype=torch.int64)])[None], *memory,
                          cut.seeds, cut.steps + len(dreamt))

    def _forget_after(self, number: int) -> None:
        del self._moments[number + 1 - self.first:]
        del self._cuts[bisect_right(self._cuts, number):]

    def _drop(self) -> Moment:
        """Takes away the moment at the cursor and all later ones."""
        now = self[self.cursor]
        self._forget_after(self.cursor - 1)
        return now

    def _add(self, moment: Moment) -> None:
        self._moments.append(moment)
        self.cursor = self.last
        if moment.cut is not None:
            self._cuts.append(self.last)
        if len(self) > self._most + SLACK:
            self._forget_earlier(self.last - self._most)

    def _forget_earlier(self, number: int) -> None:
        """Makes a moment the first one; it is kept whole from now on."""
        whole = self.state(number)
        moment = self[number]
        cut = Moment(moment.facts, None, None, moment.reality, moment.mark, whole)
        self._moments = [cut, *self._moments[number + 1 - self.first:]]
        self._cuts = [number, *self._cuts[bisect_right(self._cuts, number):]]
        self.first = number


def _kept(state: DreamState) -> DreamState:
    return DreamState(**{name: x.detach().to("cpu", copy=True) for name, x in state.tensors().items()})


def _frame(moment: Moment) -> Tensor:
    assert moment.frame is not None
    return torch.from_numpy(moment.frame.open().copy())

"""A tape: a start value, the actions, and whatever was put in between. Played again it gives the same frames. Our own.

A dream is a function of its value and the actions, so a minute of play is small. Each frame's hash is on the
tape, so playing it again can be proven. Frames are the same bit for bit where the same weights run on the same path; a
step that shared its batch with others is played again in a batch of that size, because rounding may depend on it.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import zstandard
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from app.session.twin import Reality, rgb
from diamond_core.config import SamplerConfig
from diamond_core.envs import Trail
from diamond_core.replay import Episode
from diamond_core.world.dream import DreamState, World
from diamond_core.world.engine import Engine

HASH_BYTES = 8
MOST_VALUE_BYTES = 16 * 2**20


class TapeError(ValueError):
    """A tape that cannot be read or does not fit; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class Origin:
    """Where a tape comes from."""

    game: str
    action_names: tuple[str, ...]
    frame_shape: tuple[int, int, int]
    """(c, h, w)."""
    sha256: str
    """Of the weights that dreamt it; empty where they came from no checkpoint."""


@dataclass(frozen=True, eq=False)
class Tape:
    """N steps. What stands at a step in one of the tables was put in before that step and holds from there on."""

    origin: Origin
    actions: np.ndarray
    """(N,) int64."""
    lived: np.ndarray
    """(N,) bool: only reality took this step."""
    rewards: np.ndarray
    """(N,) float32, the dream's, or reality's where it was lived."""
    ends: np.ndarray
    """(N,) bool, likewise."""
    mates: np.ndarray
    """(N,) int64: how many dreams shared the batch."""
    hashes: np.ndarray
    """(N, 8) uint8: of the frame that the step led to."""
    values: Mapping[int, bytes]
    """Step -> the packed dream that it began from, wherever that was not the step before's."""
    samplers: Mapping[int, SamplerConfig]
    paths: Mapping[int, str]
    """Step -> which engine dreamt from there on."""
    trails: Mapping[int, Trail] = field(default_factory=dict)
    """Step -> where the real game stood, wherever that was not where the step before left it."""
    stops: Mapping[int, bytes] = field(default_factory=dict)
    """Step -> the packed dream before it, every few seconds: nothing new, but a shorter way to a later step."""
    returns: np.ndarray | None = None
    """(N, 2) float32: the dream's and reality's that each step led to; older tapes have none."""
    begun: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    """Step -> the returns before it, wherever the step before did not lead there."""

    def __len__(self) -> int:
        return len(self.actions)

    @property
    def has_reality(self) -> bool:
        """Whether the real game can be played along."""
        return bool(self.trails)

    def state(self, number: int, world: World) -> DreamState:
        """The dream before step `number`, up to N; steps since the value before it are dreamt again."""
        first = _newest({**self.values, **self.stops}, number, -1)
        if first < 0:
            raise TapeError(f"nothing was dreamt on this tape before step {number}: choose a later one")
        state = self._value(first, world)
        for played in self.replay(world, first, number):
            state = played.state or state
        return state

    def value(self, number: int, world: World) -> DreamState | None:
        """The dream that was put in before a step; none where it went on from the step before."""
        return self._value(number, world) if number in self.values else None

    def sampler(self, number: int) -> SamplerConfig | None:
        """How a step was drawn; none where nothing was dreamt up to it."""
        at = _newest(self.samplers, number, -1)
        return self.samplers[at] if at >= 0 else None

    def trail(self, number: int) -> Trail | None:
        """Where the real game stood before step `number`."""
        if not self.trails:
            return None
        first = _newest(self.trails, number, min(self.trails))
        trail = self.trails[first]
        return Trail(trail.rom, trail.frame_skip, trail.noops, (*trail.actions, *self.actions[first:number].tolist()))

    def returns_before(self, number: int) -> tuple[float, float]:
        """The dream's and reality's return before a step, up to N; of an older tape, all rewards until there."""
        if self.returns is None:
            lived = self.lived[:number]
            return float(self.rewards[:number][~lived].sum()), float(self.rewards[:number][lived].sum())
        dream, reality = self.begun.get(number) or (self.returns[number - 1] if number else (0.0, 0.0))
        return float(dream), float(reality)

    def replay(self, world: World, first: int = 0, last: int | None = None, *, reality: bool = False,
               engines: Mapping[str, Engine] | None = None) -> Iterator[Played]:
        """Plays steps first to last - 1 again; with `reality` the emulator too. Where the path that a step was dreamt
        on is among the `engines` by name, it is dreamt on that path again."""
        slices = self.slices(world, first, last, reality=reality, engines=engines)
        return (played for played in slices if played is not None)

    def slices(self, world: World, first: int = 0, last: int | None = None, *, reality: bool = False,
               engines: Mapping[str, Engine] | None = None) -> Iterator[Played | None]:
        """The same for where others wait meanwhile: None while the emulator is still on its way to a step."""
        last = len(self) if last is None else last
        if not 0 <= first <= last <= len(self):
            raise TapeError(f"expected steps from 0 to {len(self)}, got {first} to {last}")
        self._require(world)
        # a value may lie further back: what is between is dreamt but not shown
        begin = first if self.lived[first:last].all() else _newest({**self.values, **self.stops}, first, first)
        real = Playback(self, first) if self.has_reality and (reality or self.lived[first:last].any()) else None
        state: DreamState | None = None
        sampler, engine = world.sampler, world.engine
        try:
            for i in range(begin, last):
                if i in self.values or (i == begin and i in self.stops):
                    state = self._value(i, world)
                if engines and (i == begin or i in self.paths) and self.paths:
                    world.engine = engines.get(self.paths[_newest(self.paths, i, min(self.paths))], engine)
                played = self._lived(i, state) if self.lived[i] else self._dreamt(i, world, state)
                state = played.state
                if i >= first:
                    yield from real.approach(i) if real else ()
                    yield played._replace(**real.step(i)) if real else played
        finally:
            if engines:
                # else a faster one may have taken its place meanwhile, and stays
                world.engine = engine
            world.set_sampler(sampler)

    def check(self, played: Played) -> bool:
        """Whether a step came out as it was recorded: frame, reward and end."""
        frame = played.reality if played.lived else played.frame
        assert frame is not None
        c = self.origin.frame_shape[0]
        same = hash_of(frame[..., :c]) == bytes(self.hashes[played.number])
        return same and played.reward == self.rewards[played.number] and played.end == self.ends[played.number]

    def episodes(self, kind: Literal["reality", "dream"], world: World | None = None, *, life_loss_ends: bool = True,
                 engines: Mapping[str, Engine] | None = None) -> list[Episode]:
        """The play as training episodes, each unbroken. Of reality (the emulator under these actions) no world is
        needed; of the dream, dreamt again as in `replay`, its rewards are signs. Raises TapeError where the tape has
        none of that kind."""
        if kind == "reality":
            if not self.has_reality:
                raise TapeError("this tape has no reality: its game is no Atari game; take the dream")
            return self._real_episodes(life_loss_ends)
        if world is None:
            raise TapeError("dreams are dreamt again: a world is needed")
        return self._dreamt_episodes(world, engines)

    def _dreamt_episodes(self, world: World, engines: Mapping[str, Engine] | None) -> list[Episode]:
        parts = Cutter(self.origin.game, "dream")
        last: Tensor | None = None  # where a world sees one frame, the one before is in no state
        for i, played in enumerate(self.replay(world, engines=engines)):
            if played.lived or i in self.values:
                parts.close()
            if played.state is None:
                last = None
                continue
            before, frames = last, played.state.frames[0].cpu()
            last = frames[-1]
            if i in self.values:
                before = self._value(i, world).frames[0, -1].cpu()
            elif len(frames) > 1:
                before = frames[-2]
            if not played.lived and before is not None:
                parts.add(before, played.action, played.reward, played.end, last)
        return parts.close()

    def _real_episodes(self, life_loss_ends: bool) -> list[Episode]:
        parts = Cutter(self.origin.game, "human")
        real = Playback(self, 0)
        for i in range(len(self)):
            if i in self.trails:
                parts.close()
            real.follow(i)
            before, was_over = real.game.newest, real.game.over
            played = real.step(i)
            over = real.game.over or (life_loss_ends and real.game.life_lost)
            if not was_over:
                parts.add(before, int(self.actions[i]), played["reality_reward"], over, real.game.newest)
        return parts.close()

    def _dreamt(self, i: int, world: World, state: DreamState | None) -> Played:
        if state is None:
            raise TapeError(f"this tape is damaged: no dream stands before step {i}")
        mates, sampler = int(self.mates[i]), self.samplers[_newest(self.samplers, i, min(self.samplers))]
        if world.sampler != sampler:
            world.set_sampler(sampler)
        action = int(self.actions[i])
        batch = state if mates == 1 else DreamState.cat([state] * mates)
        step = world.step(batch, torch.full((mates,), action)).row(0)
        return Played(i, action, step.state, rgb(step.frames[0]), float(step.rewards), bool(step.ends), False)

    def _lived(self, i: int, state: DreamState | None) -> Played:
        frame = np.zeros((*self.origin.frame_shape[1:], 3), np.uint8) if state is None else rgb(state.frames[0, -1])
        return Played(i, int(self.actions[i]), state, frame, 0.0, False, True)

    def _value(self, i: int, world: World) -> DreamState:
        state = unpack_value(self.values[i] if i in self.values else self.stops[i])
        k, dim = world.num_conditioning_frames, world.reward_end.config.lstm_dim
        if state.frames.shape[1] != k:
            raise TapeError(f"this tape was dreamt by a world that sees {state.frames.shape[1]} frames, this one sees "
                            f"{k}: use the checkpoint it was recorded with")
        if state.frames.shape[2:] != self.origin.frame_shape:
            raise TapeError(f"this tape is damaged: a dream on it has frames of {tuple(state.frames.shape[2:])}")
        if {state.hx.shape, state.cx.shape} != {(1, dim)}:
            raise TapeError(f"this tape was dreamt by a world with a memory of {state.hx.shape[-1]} numbers, this "
                            f"one's has {dim}: use the checkpoint it was recorded with")
        return state.to(world.runtime.device)

    def _require(self, world: World) -> None:
        if world.num_actions != len(self.origin.action_names):
            raise TapeError(f"this tape has {len(self.origin.action_names)} actions, the world {world.num_actions}: "
                            f"use a checkpoint of {self.origin.game}")
        if not world.takes(self.origin.frame_shape):
            raise TapeError(f"this tape has frames of {self.origin.frame_shape}, this world others: use the checkpoint "
                            "it was recorded with")
        for i in [*self.values, *self.stops][:1]:
            # said before anything is dreamt; later ones are looked at when they are put in
            self._value(i, world)


class Played(NamedTuple):
    """One step, played again."""

    number: int
    action: int
    state: DreamState | None
    """The dream after it."""
    frame: np.ndarray
    """(h, w, 3): the dream's."""
    reward: float
    """The dream's, or reality's where it was lived."""
    end: bool
    lived: bool
    reality: np.ndarray | None = None
    """(h, w, 3), where reality is played along."""
    reality_reward: float = 0.0
    reality_end: bool = False


class Playback:
    """The real game along a tape."""

    def __init__(self, tape: Tape, first: int) -> None:
        self._tape = tape
        c, h, w = tape.origin.frame_shape
        self.game = Reality(tape.origin.game, 1, (h, w), c == 1)
        trail = tape.trail(first)
        assert trail is not None
        self._go(trail)
        self._at = first if first in tape.trails else None

    def follow(self, number: int) -> None:
        """To where the game stood before step `number`, if that is elsewhere."""
        if number in self._tape.trails and number != self._at:
            self._go(self._tape.trails[number])
            self._at = number

    def approach(self, number: int) -> Iterator[None]:
        """The same, a slice at a time."""
        self.follow(number)
        while self.game.catch_up():
            yield None

    def step(self, number: int) -> dict[str, Any]:
        """The same action in reality, as fields of `Played`."""
        tape = self._tape
        self.follow(number)
        tick = self.game.step(int(tape.actions[number]))
        found = {"reality": self.game.frame, "reality_reward": tick.reward, "reality_end": tick.end}
        return found | ({"reward": tick.reward, "end": tick.end} if tape.lived[number] else {})

    def _go(self, trail: Trail) -> None:
        try:
            self.game.restore(trail)
        except ValueError as error:
            raise TapeError(f"the tape's real game cannot be played: {error}") from None


class Cutter:
    """Gathers steps into unbroken episodes."""

    def __init__(self, game: str, policy: str) -> None:
        self._info = {"game": game, "policy": policy, "source": "tape"}
        self._frames: list[Tensor] = []
        self._steps: list[tuple[int, float, bool, bool]] = []
        self._episodes: list[Episode] = []

    def add(self, before: Tensor | None, action: int, reward: float, end: bool, after: Tensor) -> None:
        """A step to a frame (c, h, w), the first of an episode from the frame before it; an end closes the episode."""
        if not self._frames:
            assert before is not None
            self._frames.append(before)
        self._frames.append(after)
        self._steps.append((action, reward, end, False))
        if end:
            self.close()

    def close(self) -> list[Episode]:
        """Ends the episode here, cut off; all that were gathered."""
        if self._steps:
            action, reward, end, _ = self._steps[-1]
            self._steps[-1] = action, reward, end, not end
            self._episodes.append(Episode.of(self._frames, self._steps, self._info))
        self._frames, self._steps = [], []
        return self._episodes


def hash_of(image: np.ndarray) -> bytes:
    """Of an (h, w, c) uint8 image."""
    return hashlib.blake2b(np.ascontiguousarray(image).tobytes(), digest_size=HASH_BYTES).digest()


def pack_value(state: DreamState) -> bytes:
    """One dream as a few kilobytes."""
    tensors = {name: x.cpu().contiguous().clone() for name, x in state.tensors().items()}
    return zstandard.ZstdCompressor(level=3, write_checksum=True).compress(save(tensors))


def unpack_value(data: bytes) -> DreamState:
    """Reads what `pack_value` wrote. Raises TapeError for anything else."""
    try:
        if not 0 <= zstandard.frame_content_size(data) <= MOST_VALUE_BYTES:
            raise ValueError("it is too large")
        return DreamState(**load(zstandard.ZstdDecompressor().decompress(data)))
    except (ValueError, TypeError, SafetensorError, zstandard.ZstdError) as error:
        raise TapeError(f"this tape is damaged: a dream on it cannot be read ({error})") from error


def _newest(table: Mapping[int, object], number: int, otherwise: int) -> int:
    """The newest step at or before `number` that stands in a table."""
    keys = sorted(table)
    at = bisect_right(keys, number) - 1
    return keys[at] if at >= 0 else otherwise

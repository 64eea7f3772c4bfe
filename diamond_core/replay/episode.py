"""One episode of play as a value, and as a file that is either whole or not there.

The layout of an episode is our own: safetensors inside one zstd frame with its checksum on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy
import torch
import zstandard
from safetensors import SafetensorError
from torch import Tensor

from diamond_core.files import write_whole

Info = Mapping[str, str | int | float]

FORMAT = "diamond-episode-1"
STEP_DTYPES = {"actions": torch.int64, "rewards": torch.float32, "ends": torch.bool, "truncs": torch.bool}
LEVEL = 3  # on Pong both smaller and faster than the levels below it
# What decoders raise on bytes that are not ours; a flipped byte may ask for more memory than there is.
FOREIGN = (ValueError, KeyError, TypeError, MemoryError, RecursionError, SafetensorError, zstandard.ZstdError)


class EpisodeError(ValueError):
    """An episode that does not hold together, or a file that is not an episode."""


@dataclass(frozen=True, eq=False)
class Episode:
    """T steps of one world: frame i and action i lead to reward i and frame i + 1; frame T is the final observation."""

    frames: Tensor
    """(T + 1, c, h, w) uint8."""
    actions: Tensor
    """(T,) int64."""
    rewards: Tensor
    """(T,) float32, not clipped."""
    ends: Tensor
    """(T,) bool: over by the rules of the game; True at the last step only."""
    truncs: Tensor
    """(T,) bool: cut off; True at the last step only."""
    info: Info = field(default_factory=dict)
    """Where it comes from: game, policy ("human" for recorded play), seed and so on."""

    def __post_init__(self) -> None:
        if self.frames.ndim != 4 or self.frames.dtype != torch.uint8:
            raise EpisodeError(f"frames: expected (T + 1, c, h, w) uint8, got {_kind(self.frames)}; see pixels.to_chw")
        for name, dtype in STEP_DTYPES.items():
            tensor = getattr(self, name)
            if tensor.shape != (len(self.frames) - 1,) or tensor.dtype != dtype:
                raise EpisodeError(f"{name}: expected ({len(self.frames) - 1},) {dtype}, got {_kind(tensor)}")
        if (self.ends | self.truncs)[:-1].any():
            raise EpisodeError("expected an end at the last step only, got one before it; begin a new episode there")
        values = self.info.values() if isinstance(self.info, Mapping) else [None]
        if not all(isinstance(value, str | int | float) for value in values):
            raise EpisodeError(f"info: expected a table of words and numbers, got {self.info}")

    @classmethod
    def of(cls, frames: Sequence[Tensor], steps: Sequence[tuple[int, float, bool, bool]], info: Info) -> Episode:
        """T + 1 frames (c, h, w) and T steps (action, reward, end, trunc), as they were gathered one by one."""
        columns = zip(*steps, strict=True) if steps else ((),) * 4
        tensors = {name: torch.tensor(c, dtype=d) for (name, d), c in zip(STEP_DTYPES.items(), columns, strict=True)}
        return cls(torch.stack(list(frames)), **tensors, info=info)

    def __len__(self) -> int:
        return self.actions.shape[0]

    @property
    def finished(self) -> bool:
        """Whether the last step ended the episode or cut it off."""
        return bool((self.ends | self.truncs)[-1:].any())

    def clip(self, length: int) -> Episode:
        """The first `length` steps, as views of the same memory."""
        if not 0 <= length <= len(self):
            raise EpisodeError(f"expected a length from 0 to {len(self)}, got {length}")
        tensors = {name: getattr(self, name)[:length] for name in STEP_DTYPES}
        return Episode(self.frames[: length + 1], **tensors, info=self.info)

    def concat(self, more: Episode) -> Episode:
        """This unfinished episode and the steps that followed; `more` begins with the frame that ends this one."""
        if self.finished or not torch.equal(self.frames[-1], more.frames[0]):
            raise EpisodeError("expected steps that go on from the last frame of an unfinished episode, got others")
        tensors = {name: torch.cat([getattr(self, name), getattr(more, name)]) for name in STEP_DTYPES}
        return Episode(torch.cat([self.frames, more.frames[1:]]), **tensors, info=self.info)

    def compact(self) -> Episode:
        """The same episode in memory of its own, so that a part does not keep the whole alive."""
        return Episode(**{name: _own(getattr(self, name)) for name in ("frames", *STEP_DTYPES)}, info=self.info)

    def arrays(self) -> dict[str, np.ndarray]:
        """The five tensors by name, as numpy sees the same memory; its copies do not wait for torch's threads."""
        return {name: getattr(self, name).numpy() for name in ("frames", *STEP_DTYPES)}

    def save(self, path: Path) -> None:
        """Writes the file whole or, when that fails, leaves what was there."""
        write_whole(path, _pack(self))

    @classmethod
    def load(cls, path: Path) -> Episode:
        """Reads what `save` wrote; any other file raises `EpisodeError`."""
        data = path.read_bytes()
        try:
            return _unpack(data)
        except FOREIGN as error:
            reason, advice = str(error) or "too large", "restore it, or, where it is no run's own, delete it to go on"
            raise EpisodeError(f"{path}: expected a whole episode ({reason}); {advice}") from error


def _pack(episode: Episode) -> bytes:
    arrays = {name: np.ascontiguousarray(array) for name, array in episode.arrays().items()}
    metadata = {"format": FORMAT, "info": json.dumps(dict(episode.info))}
    raw = safetensors.numpy.save(arrays, metadata)
    return zstandard.ZstdCompressor(level=LEVEL, write_checksum=True).compress(raw)


def _unpack(data: bytes) -> Episode:
    if not zstandard.get_frame_parameters(data).has_checksum:
        raise ValueError("it has no checksum")
    raw = zstandard.ZstdDecompressor().decompress(data, allow_extra_data=False)
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    if header["format"] != FORMAT:
        raise ValueError(f"its format is {header['format']!r}, not {FORMAT!r}")
    tensors = {name: torch.from_numpy(array) for name, array in safetensors.numpy.load(raw).items()}
    return Episode(**tensors, info=json.loads(header["info"]))


def _own(tensor: Tensor) -> Tensor:
    whole = tensor.is_contiguous() and tensor.untyped_storage().nbytes() == tensor.nbytes
    return tensor if whole else tensor.clone(memory_format=torch.contiguous_format)


def _kind(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {tensor.dtype}"

"""Tapes as files: bytes with strict bounds and no code in them, alone or inside an MP4 that any player shows. Our own.

A tape file is safetensors; its JSON metadata carries everything that is no array, and a digest of the arrays. In an MP4
it lies in a `uuid` box at the end, which players skip (ISO/IEC 14496-12, 4.2 and 11.1).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import cattrs
import numpy as np
import torch
import zstandard
from safetensors import SafetensorError
from safetensors.numpy import load, save

from app.session.saved import trail_of
from app.session.tape import HASH_BYTES, Origin, Tape, TapeError, unpack_value
from diamond_core.config import SamplerConfig
from diamond_core.diffusion.sampler import check_num_steps
from diamond_core.files import write_whole
from diamond_core.training.checkpoint import CONVERTER

FORMAT = "diamond-tape-1"
ENDING = ".tape"
BOX = uuid.uuid5(uuid.NAMESPACE_URL, "diamond-playground/tape").bytes
MOST_BYTES = 512 * 2**20
MOST_UNPACKED = 2**30
"""Bytes of all dreams on a tape together: a new one at every step for twenty minutes. Packed they may be far fewer."""
MOST_STEPS, MOST_MATES = 2**24, 64
"""Of a tape, and the real game's before it; and as many dreams as a host puts into one batch."""
KINDS = {"frames": torch.uint8, "actions": torch.int64, "hx": torch.float32, "cx": torch.float32, "seeds": torch.int64,
         "steps": torch.int64}
"""What a value's numbers are."""
COLUMNS = {"actions": np.int64, "rewards": np.float32, "mates": np.int64}
FLAGS = ("lived", "ends")
FOREIGN = (SafetensorError, cattrs.BaseValidationError, KeyError, TypeError, ValueError, AttributeError, IndexError,
           RecursionError, struct.error)


def save_tape(tape: Tape, path: Path) -> None:
    """Writes a tape file, whole or not at all."""
    write_whole(path, to_bytes(tape))


def load_tape(path: Path) -> Tape:
    """Reads a tape file, or the tape inside an MP4. Raises TapeError for anything else."""
    if path.stat().st_size > 4 * MOST_BYTES:
        raise TapeError(f"{path} is too large for a tape")
    with path.open("rb") as file:
        is_film = file.read(8)[4:] == b"ftyp"
    data = extract(path) if is_film else path.read_bytes()
    try:
        return from_bytes(data)
    except TapeError as error:
        raise TapeError(f"{path}: {error}") from error


def to_bytes(tape: Tape) -> bytes:
    """A tape as bytes; a minute is about 90 KB."""
    arrays = {name: np.ascontiguousarray(getattr(tape, name), kind) for name, kind in COLUMNS.items()}
    arrays |= {name: getattr(tape, name).astype(np.uint8) for name in FLAGS}
    arrays["hashes"] = np.ascontiguousarray(tape.hashes)
    arrays |= {**_table("values", tape.values), **_table("stops", tape.stops)}
    if tape.returns is not None:
        arrays["returns"] = np.ascontiguousarray(tape.returns, np.float32)
    facts = {"format": FORMAT, "digest": digest(arrays), "origin": CONVERTER.unstructure(tape.origin),
             "paths": dict(tape.paths),
             "samplers": {step: CONVERTER.unstructure(c) for step, c in tape.samplers.items()},
             "trails": {step: asdict(trail) for step, trail in tape.trails.items()}, "begun": dict(tape.begun)}
    # one key only: the order of several is another in every process
    return save(arrays, {"tape": json.dumps(facts)})


def _table(name: str, table: Mapping[int, bytes]) -> dict[str, np.ndarray]:
    """Packed dreams by step, as arrays."""
    return {name: np.frombuffer(b"".join(table.values()), np.uint8), f"{name}_steps": np.array(list(table), np.int64),
            f"{name}_ends": np.cumsum([len(blob) for blob in table.values()], dtype=np.int64)}


def _untable(name: str, arrays: Mapping[str, np.ndarray]) -> dict[int, bytes]:
    ends, blob = arrays[f"{name}_ends"].tolist(), arrays[name].tobytes()
    if any(a > b for a, b in zip([0, *ends], [*ends, len(blob)], strict=True)):
        raise ValueError("its dreams overlap")
    parts = [blob[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    return dict(zip(arrays[f"{name}_steps"].tolist(), parts, strict=True))


def from_bytes(data: bytes) -> Tape:
    """Reads what `to_bytes` wrote. Raises TapeError for anything else; nothing in it is ever run."""
    try:
        length = int.from_bytes(data[:8], "little")
        if len(data) > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES // 2**20} MiB")
        if length > len(data):
            raise ValueError("it is another kind of file, or cut off")
        facts = json.loads(json.loads(data[8:8 + length])["__metadata__"]["tape"])
        if facts["format"] != FORMAT:
            raise ValueError(f"its format is {facts['format']!r}, not {FORMAT!r}")
        arrays = load(data)
        if digest(arrays) != facts["digest"]:
            raise ValueError("it was changed or damaged")
        return checked(_tape(arrays, facts))
    except FOREIGN as error:
        reason: object = error
        if isinstance(error, cattrs.BaseValidationError):
            reason = "; ".join(cattrs.transform_error(error)[:2])
        elif isinstance(error, SafetensorError | json.JSONDecodeError | UnicodeDecodeError):
            reason = "it is another kind of file, or cut off"
        raise TapeError(f"expected a tape ({reason}): record one with R while playing") from error


def _tape(arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> Tape:
    columns = {name: arrays[name] for name in (*COLUMNS, "hashes")} | {name: arrays[name] != 0 for name in FLAGS}
    trails = {int(step): trail_of(values) for step, values in facts["trails"].items()}
    return Tape(
        CONVERTER.structure(facts["origin"], Origin), **columns,
        values=_untable("values", arrays), stops=_untable("stops", arrays),
        samplers={int(step): CONVERTER.structure(c, SamplerConfig) for step, c in facts["samplers"].items()},
        paths={int(step): str(path) for step, path in facts["paths"].items()},
        trails={step: trail for step, trail in trails.items() if trail is not None}, returns=arrays.get("returns"),
        begun={int(step): (float(dream), float(real)) for step, (dream, real) in facts.get("begun", {}).items()})


def checked(tape: Tape) -> Tape:
    """The tape, if it holds together. Raises ValueError."""
    n, names = len(tape), tape.origin.action_names
    shapes = {name: getattr(tape, name).shape for name in (*COLUMNS, *FLAGS)}
    if n > MOST_STEPS or set(shapes.values()) != {(n,)} or tape.hashes.shape != (n, HASH_BYTES):
        raise ValueError(f"its columns differ in length: {shapes}")
    for name, kind in COLUMNS.items():
        if getattr(tape, name).dtype != kind:
            raise ValueError(f"{name} is {getattr(tape, name).dtype}")
    if not n:
        raise ValueError("nothing is recorded on it")
    if tape.returns is not None and not (tape.returns.shape == (n, 2) and tape.returns.dtype == np.float32
                                         and np.isfinite(tape.returns).all()):
        raise ValueError("its returns are no numbers, or of another length")
    if not (tape.actions.min() >= 0 and tape.actions.max() < len(names) and tape.mates.min() >= 1
                  and tape.mates.max() <= MOST_MATES and np.isfinite(tape.rewards).all()):
        raise ValueError("it holds actions, rewards or batches that cannot be")
    if any(max(trail.actions, default=0) >= len(names) for trail in tape.trails.values()):
        raise ValueError("its real game holds actions that cannot be")
    if sum(len(trail.actions) for trail in tape.trails.values()) > MOST_STEPS:
        raise ValueError("its real games are too long")
    if not all(map(math.isfinite, chain.from_iterable(tape.begun.values()))):
        raise ValueError("its returns are no numbers")
    for table in (tape.values, tape.stops, tape.samplers, tape.paths, tape.trails, tape.begun):
        if any(not 0 <= step < n for step in table):
            raise ValueError("something on it stands beyond its end")
    dreamt = np.flatnonzero(~tape.lived)
    if len(dreamt) and (min(tape.values, default=n) > dreamt[0] or min(tape.samplers, default=n) > dreamt[0]):
        raise ValueError("it has no beginning")
    if tape.lived.any() and min(tape.trails, default=n) > 0:
        raise ValueError("its real game has no beginning")
    for sampler in tape.samplers.values():
        check_num_steps(sampler.num_steps)
    unpacked = 0
    for value in (*tape.values.values(), *tape.stops.values()):
        _check_value(value, tape.origin)
        unpacked += zstandard.frame_content_size(value)
        if unpacked > MOST_UNPACKED:
            raise ValueError("its dreams are too large")
    return tape


def _check_value(value: bytes, origin: Origin) -> None:
    state = unpack_value(value)
    k = state.frames.shape[1] if state.frames.ndim == 5 else 0
    dim = state.hx.shape[-1]
    expected = [(1, k, *origin.frame_shape), (1, k), (1, dim), (1, dim), (1,), (1,)]
    if k < 1 or [tuple(x.shape) for x in state.tensors().values()] != expected:
        raise ValueError("a dream on it has another shape than its frames")
    if {name: x.dtype for name, x in state.tensors().items()} != KINDS:
        raise ValueError("a dream on it is made of other numbers than dreams are")
    if int(state.actions.min()) < 0 or int(state.actions.max()) >= len(origin.action_names):
        raise ValueError("a dream on it holds actions that cannot be")


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Of all arrays, in hex."""
    whole = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        whole.update(name.encode() + np.ascontiguousarray(arrays[name]).tobytes())
    return whole.hexdigest()


def embed(film: Path, tape: Tape) -> None:
    """Puts a tape into an MP4, in place of one that is there. Raises TapeError for a file that is no MP4."""
    boxes = list(walk(film))
    if not boxes or boxes[0][0] != b"ftyp":
        raise TapeError(f"{film} is no MP4: tapes go into .mp4 files only")
    last, start, _ = boxes[-1]
    data = to_bytes(tape)
    if len(data) + 24 >= 2**32:
        raise TapeError("this tape is too long for a film: save it alone")
    with film.open("r+b") as file:
        if last == b"uuid" and _of_form(film, start):
            file.truncate(start - 8)
        file.seek(0, os.SEEK_END)
        file.write(struct.pack(">I4s", len(data) + 24, b"uuid") + BOX + data)


def extract(film: Path) -> bytes:
    """The tape inside an MP4. Raises TapeError where there is none."""
    for kind, start, length in walk(film):
        if kind == b"uuid" and 16 <= length <= MOST_BYTES and _of_form(film, start):
            with film.open("rb") as file:
                file.seek(start + 16)
                return file.read(length - 16)
    raise TapeError(f"{film} carries no tape: only films made here by `diamond replay TAPE --render` or R do, and "
                    "programs that write a film anew leave it out")


def walk(film: Path) -> Iterator[tuple[bytes, int, int]]:
    """The boxes of an MP4: kind, where the content starts, and its length. Raises TapeError where they do not fit."""
    size, at = film.stat().st_size, 0
    with film.open("rb") as file:
        while at < size:
            file.seek(at)
            head = file.read(16)
            length, kind = struct.unpack(">I4s", head[:8]) if len(head) >= 8 else (-1, b"")
            inner = 8
            if length == 1 and len(head) == 16:
                length, inner = struct.unpack(">Q", head[8:])[0], 16
            elif length == 0:
                length = size - at
            if length < inner or at + length > size:
                raise TapeError(f"{film} is damaged: a part of it does not fit at byte {at}")
            yield kind, at + inner, length - inner
            at += length


def _of_form(film: Path, start: int) -> bool:
    with film.open("rb") as file:
        file.seek(start)
        return file.read(16) == BOX

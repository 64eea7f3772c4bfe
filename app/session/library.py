"""The installed worlds as cards to choose from: a name, a still and a moving picture; no weights are loaded. Our own.

A checkpoint folder may hold `loop.webp`, a few seconds of its dream at the frames' own size; where there is none, the
card moves through the real moments from which its dreams begin.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from app.session.standing import UNMEASURED, Level, place, standing
from app.session.twin import rgb
from diamond_core.config import AgentConfig
from diamond_core.training.checkpoint import STARTS, Card, CheckpointError, read_card
from diamond_core.training.library import installed

LOOP = "loop.webp"
CLIPS, HELD = 8, 4
"""Without a loop: so many moments, each of their frames shown for so many steps."""
MOST_FRAMES = 450
"""Of a loop: thirty seconds."""


@dataclass(frozen=True)
class Entry:
    """One world that can be entered."""

    name: str
    path: Path
    """Its checkpoint folder."""
    card: Card
    poster: np.ndarray
    """(h, w, 3) uint8."""
    frames: Sequence[np.ndarray]
    """(h, w, 3) uint8 each, to be shown over and over at the speed of play; one at least."""
    standing: tuple[str, Level | None] = (UNMEASURED, None)
    """How true the dream is."""


def entries() -> list[Entry]:
    """All installed worlds that can be read, the best first."""
    found = []
    for name, path in sorted(installed().items(), key=lambda item: place(*item)):
        try:
            found.append(entry(name, path))
        except CheckpointError:
            # a folder that is damaged, or still being written: loading it by name says why
            continue
    return found


def entry(name: str, path: Path) -> Entry:
    """The card of one checkpoint folder. Raises CheckpointError where it has none."""
    card = read_card(path)
    frames = loop(path) or moments(path) or [np.zeros((*card.config.image_size, 3), np.uint8)]
    return Entry(name, path, card, frames[0], frames, standing(path))


def beginnings(config: AgentConfig) -> dict[str, Path]:
    """Installed worlds by name whose networks have these sizes, so that training can go on from their weights; how many
    frames they see may differ, not how many actions they are told of."""
    def sizes(config: AgentConfig) -> tuple[Any, ...]:
        frames, actions = config.denoiser.num_conditioning_frames, config.denoiser.num_conditioning_actions
        return (actions or frames, replace(config.denoiser, num_conditioning_frames=0, num_conditioning_actions=0),
                config.reward_end, config.frame_shape)

    def fits(path: Path) -> bool:
        with suppress(CheckpointError):
            return sizes(read_card(path).config) == sizes(config)
        return False

    return {name: path for name, path in sorted(installed().items()) if fits(path)}


def loop(path: Path) -> list[np.ndarray]:
    """The frames of the folder's moving picture; none where there is none that can be read."""
    try:
        with Image.open(path / LOOP) as image:
            frames = []
            for i in range(min(getattr(image, "n_frames", 1), MOST_FRAMES)):
                image.seek(i)
                frames.append(np.asarray(image.convert("RGB")))
            return frames
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return []


def moments(path: Path) -> list[np.ndarray]:
    """A few of the real moments from which this world's dreams begin; none where it ships none."""
    try:
        with safe_open(path / STARTS, "pt") as file:
            rows = file.get_slice("frames")
            number = rows.get_shape()[0]
            chosen = np.linspace(0, number - 1, min(CLIPS, number)).astype(int)
            clips: list[Tensor] = [rows[int(i):int(i) + 1][0] for i in chosen]
    except (OSError, SafetensorError, IndexError):
        return []
    return [rgb(frame) for clip in clips for frame in clip for _ in range(HELD)]


def dreamt_by(sha256: str, game: str) -> Path:
    """The installed checkpoint with these weights, else one of the same game. Raises ValueError where there is none."""
    cards = {}
    for path in installed().values():
        with suppress(CheckpointError):  # a damaged folder dreams nothing; the others do
            cards[path] = read_card(path)
    alike = [path for path, card in cards.items() if card.game == game]
    if not alike:
        raise ValueError(f"no dream of {game} is installed: name the checkpoint that dreamt this with --checkpoint")
    return ([path for path in alike if cards[path].sha256 == sha256] or alike)[0]

"""The dreams that can be opened by name: installed checkpoints and the saved moments of runs. Our own.

A request names a dream; it never holds a path. Names are looked up in what was found on the shelves, nothing else.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from app.session.library import entry
from app.session.standing import UNMEASURED, place, standing
from app.web.protocol import png, webp
from diamond_core.config import RuntimeConfig
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import (
    STARTS,
    WEIGHTS,
    Card,
    CheckpointError,
    load_checkpoint,
    read_card,
)
from diamond_core.training.library import installed
from diamond_core.training.progress import clock
from diamond_core.training.run import Run
from diamond_core.world.accelerate import accelerate
from diamond_core.world.dream import World

MOMENT = re.compile(r"(.+)@(\d{1,9})")

Quicken = Callable[[World, tuple[int, int, int]], object]


class Unknown(ValueError):
    """A name of nothing that may be opened."""


@dataclass(frozen=True)
class Loaded:
    """A dream that is ready."""

    name: str
    title: str
    agent: Agent
    world: World
    sha256: str

    @property
    def card(self) -> Card:
        """What its checkpoint says of itself."""
        assert self.agent.card is not None
        return self.agent.card


@dataclass(frozen=True)
class Offer:
    """A card of the gallery."""

    name: str
    title: str
    line: str
    """One line on how good it is."""
    level: str | None
    """How true it is: good, fair, poor; none where it was not measured."""
    path: Path


class Shelf:
    """Finds, loads and keeps a few dreams at a time."""

    def __init__(self, runs: Path, device: str = "auto", keep: int = 3, quicken: Quicken = accelerate) -> None:
        """`quicken` is given every world that was loaded, to look for a faster engine beside play."""
        self.runs, self.device, self.keep, self.quicken = runs, device, keep, quicken
        self._loaded: OrderedDict[tuple[str, str], Loaded] = OrderedDict()
        self._lock = threading.Lock()

    def offers(self) -> list[Offer]:
        """The installed dreams that can be dreamt, best first."""
        found = [offer for name, path in installed().items() if (offer := offer_of(name, path)) is not None]
        return sorted(found, key=lambda offer: place(offer.title, offer.path))

    def moments(self, run: str) -> list[tuple[str, str]]:
        """The saved moments of a run by the names under which they are opened, and a word on each, oldest first."""
        folder = self.run_folder(run)
        return [(f"{run}@{int(m.name.removeprefix('epoch_'))}", f"epoch {int(m.name.removeprefix('epoch_'))}")
                for m in Run(folder).moments()]

    def run_folder(self, run: str) -> Path:
        """The folder of a run by its name. Raises Unknown."""
        if self.runs.is_dir():
            for folder in self.runs.iterdir():
                if folder.name == run and not folder.name.startswith(".") and Run(folder).exists:
                    return folder
        raise Unknown(f"there is no run '{run}'")

    def path_of(self, name: str, is_owner: bool) -> Path:
        """Where a dream lies. Runs are for the owner. Raises Unknown."""
        moment = MOMENT.fullmatch(name)
        if moment and is_owner:
            run, epoch = moment.groups()
            path = Run(self.run_folder(run)).moment(int(epoch))
            if path.is_dir():
                return path
            raise Unknown(f"'{run}' no longer has a moment of epoch {epoch}: open a newer one")
        found = installed().get(name)
        if found is None:
            raise Unknown(f"there is no dream called '{name}': go back to the games and choose one")
        return found

    def cards(self, is_owner: bool) -> list[tuple[str, Card]]:
        """Of the installed dreams, and for the owner of every training's moments, the newest first."""
        found = [(name, read_card(path)) for name, path in installed().items() if offer_of(name, path) is not None]
        for folder in sorted(self.runs.iterdir()) if is_owner and self.runs.is_dir() else []:
            with suppress(Unknown, CheckpointError):  # no run, or one that goes while we look
                names = [name for name, _ in reversed(self.moments(folder.name))]
                found += [(name, read_card(self.path_of(name, True))) for name in names]
        return found

    @staticmethod
    def fitting(cards: Sequence[tuple[str, Card]], game: str, sha256: str) -> str | None:
        """The dream with these weights, or else the first of the same game."""
        same = [name for name, card in cards if card.sha256 == sha256]
        return next(iter(same + [name for name, card in cards if card.game == game]), None)

    def load(self, name: str, is_owner: bool) -> Loaded:
        """A dream by its name; takes seconds the first time. Raises Unknown, CheckpointError."""
        path = self.path_of(name, is_owner)
        card = read_card(path)
        key = (name, card.sha256)
        # one at a time: two newcomers shall not load the same weights twice
        with self._lock:
            if key not in self._loaded:
                runtime = RuntimeConfig(device=self.device)
                agent = load_checkpoint(path)
                if agent.starts is None:
                    raise CheckpointError(f"{name} carries no starting frames to dream from")
                world = agent.world(runtime=runtime)
                self.quicken(world, agent.config.frame_shape)
                self._loaded[key] = Loaded(name, title_of(name, card.game), agent, world, card.sha256)
                while len(self._loaded) > self.keep:
                    # whoever is dreaming in it holds on to it
                    self._loaded.popitem(last=False)
            self._loaded.move_to_end(key)
            return self._loaded[key]


def offer_of(name: str, path: Path) -> Offer | None:
    """A checkpoint as a card; None for one that cannot be dreamt or read."""
    try:
        card = read_card(path)
    except CheckpointError:
        return None
    if not (path / STARTS).is_file() or not (path / WEIGHTS).is_file():
        return None
    true, level = standing(path)
    words = [true] if level else []
    score = card.metrics.get("returns")
    if isinstance(score, dict) and isinstance(score.get("score"), int | float):
        words.append(f"agent {score['score']:.0f}")
    seconds = card.training.get("seconds")
    if isinstance(seconds, int | float):
        words.append(f"trained {clock(seconds)}")
    return Offer(name, title_of(name, card.game), " · ".join(words) or UNMEASURED, level, path)


def title_of(name: str, game: str) -> str:
    """'MsPacman' -> 'Ms Pacman', 'gym:CartPole-v1' -> 'Cart Pole'; a moment keeps its run's name."""
    if "@" in name:
        run, _, epoch = name.rpartition("@")
        return f"{run}, epoch {epoch}"
    word = name if name.lower() != game.lower() else game
    word = re.sub(r"-v\d+$", "", word.removeprefix("gym:"))
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", word[:1].upper() + word[1:])


@lru_cache(maxsize=64)
def poster(path: Path, sha256: str) -> bytes:
    """A checkpoint's picture as PNG; the hash tells a changed checkpoint from the old one."""
    return png(entry(path.name, path).poster)


@lru_cache(maxsize=64)
def film(path: Path, sha256: str) -> bytes:
    """A checkpoint's moving picture as WebP."""
    return webp(entry(path.name, path).frames)

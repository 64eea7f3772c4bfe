"""Play that worlds can learn from: the datasets that lie there, and one made of recorded play. Our own."""

from __future__ import annotations

import hashlib
import re
import tempfile
from pathlib import Path

from app.session.tape import TapeError
from app.web.tapes import Tapes
from diamond_core.envs import action_names
from diamond_core.replay import Dataset, DatasetError, DatasetInfo, Episode


def datasets_of(folder: Path, game: str) -> list[tuple[Path, str]]:
    """Datasets of a game, with a word on each."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        try:
            info = DatasetInfo.load(path)
        except DatasetError:
            continue
        if info.game == game:
            found.append((path, f"{sum(1 for _ in path.glob('*.episode'))} episodes"))
    return found


def play_of(tapes: Tapes, game: str, folder: Path) -> Path:
    """A dataset of all that the owner recorded of a game. A run that learns from it finds it again when it goes on, so
    that more play makes another one. Raises ValueError where there is none to learn from."""
    recordings = tapes.own(game)
    mark = hashlib.sha256(" ".join(sorted(r.id for r in recordings)).encode()).hexdigest()[:6]
    path = folder / f"{re.sub(r'[^A-Za-z0-9]+', '-', game)}-played-{mark}"
    if path.is_dir():
        return path
    episodes: list[Episode] = []
    names = tuple(action_names(game))
    for recording in recordings:
        tape = tapes.tape(recording.id)
        if tape.origin.action_names != names:
            continue  # of another world of this game, as what was brought in may be
        try:
            played = tape.episodes("reality")
        except TapeError:
            # a tape of a game without an emulator beside it shows what a network dreamt: nothing to learn from
            continue
        episodes += [e for e in played if e.frames.shape[1:] == (episodes or played)[0].frames.shape[1:]]
    if not episodes:
        raise ValueError(f"none of your tapes shows real play of {game}: record some in the Play tab first")
    c, h, w = episodes[0].frames.shape[1:]
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".played.", dir=folder) as unfinished:
        dataset = Dataset(Path(unfinished) / path.name, DatasetInfo(game, names, (c, h, w), "human"))
        for episode in episodes:
            dataset.add(episode)
        try:
            (Path(unfinished) / path.name).rename(path)
        except OSError:
            if not path.is_dir():  # else somebody else made the same meanwhile
                raise
    return path

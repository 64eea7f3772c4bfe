"""How a training looks: a few steps of the newest dream below the truth, under the same actions. Our own."""

from __future__ import annotations

import base64
import logging
import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch

from app.session.twin import rgb
from app.web.protocol import png
from diamond_core.config import RuntimeConfig
from diamond_core.evaluation.open_loop import replay_actions
from diamond_core.replay.episode import Episode, EpisodeError
from diamond_core.replay.segment import collate
from diamond_core.training.checkpoint import CheckpointError, load_checkpoint
from diamond_core.training.run import Run

LOG = logging.getLogger(__name__)
STEPS = (1, 2, 4, 8, 15)
MOST_LOOKED_AT = 200
"""Episode files among which a long enough one is sought."""
KEPT = 8


class Samples:
    """Pictures of runs, made on a thread of their own, one at a time, kept by moment."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._made: OrderedDict[tuple[str, int], str] = OrderedDict()
        self._making: tuple[str, int] | None = None

    def of(self, run: Run) -> str:
        """HTML of the newest moment, or of the one before while the newest is still being dreamt."""
        moments = run.moments()
        if not moments:
            return ""
        key = (str(moments[-1]), moments[-1].stat().st_mtime_ns)
        if key not in self._made and self._making is None:
            self._making = key
            threading.Thread(target=self._make, args=(key, run, moments[-1]), daemon=True, name="samples").start()
        same_run = [html for (path, _), html in self._made.items() if Path(path).parent == run.checkpoints]
        return self._made.get(key) or (same_run[-1] if same_run else "")

    def _make(self, key: tuple[str, int], run: Run, moment: Path) -> None:
        try:
            truth, dream = rollout(run, moment, self._device)
            self._made[key] = strip(truth, dream, f"epoch {int(moment.name.removeprefix('epoch_'))}")
        except (CheckpointError, EpisodeError, ValueError, OSError) as error:
            # a moment may be thinned out while it is read, and play may be too short to look at
            LOG.info("no samples of %s: %s", moment, error)
            self._made[key] = ""
        finally:
            while len(self._made) > KEPT:
                self._made.popitem(last=False)
            self._making = None


def rollout(run: Run, moment: Path, device: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """True and dreamt frames (h, w, 3) at STEPS, from play of the run's own data. Raises ValueError."""
    agent = load_checkpoint(moment)
    world = agent.world(runtime=RuntimeConfig(device=device))
    k = world.num_conditioning_frames
    config = run.config()
    episode = long_episode(Path(config.dataset) if config.dataset else run.dataset, k + max(STEPS))
    start = (len(episode) - k - max(STEPS)) // 2
    played = replay_actions(world, collate([(episode, start)], k + max(STEPS)), seed=0)
    at = torch.tensor(STEPS) - 1
    truth, dream = ([rgb(frame) for frame in frames[0, at]] for frames in (played.truth, played.dream))
    return truth, dream


def long_episode(folder: Path, length: int) -> Episode:
    """The newest episode with so many steps. Raises ValueError."""
    for path in sorted(folder.glob("*.episode"), reverse=True)[:MOST_LOOKED_AT]:
        episode = Episode.load(path)
        if len(episode) >= length:
            return episode
    raise ValueError(f"no episode of {length} steps in {folder}")


def strip(truth: list[np.ndarray], dream: list[np.ndarray], words: str) -> str:
    """Two rows of frames, named."""
    rows = []
    for name, frames in (("reality", truth), ("dream", dream)):
        cells = "".join(f'<img alt="" src="data:image/png;base64,{base64.b64encode(png(frame)).decode()}">'
                        for frame in frames)
        rows.append(f'<span class="{name}">{name}</span>{cells}')
    heads = "".join(f"<small>{step} step{'s' if step > 1 else ''}</small>" for step in STEPS)
    return (f'<figure class="samples"><figcaption>The dream beside the truth, {words}</figcaption>'
            f'<div style="--n:{len(STEPS)}">{"".join(rows)}<span></span>{heads}</div></figure>')

"""Play in a real environment and remember it: steps become episodes. Source: SPEC 7."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from diamond_core.replay import Dataset, Episode
from diamond_core.types import KeptPolicy, Start, VectorEnv


class Collector:
    """Carries a policy through an environment; every call goes on where the last one stopped."""

    def __init__(self, env: VectorEnv, policy: KeptPolicy, dataset: Dataset, seed: int,
                 info: dict[str, str | int | float]) -> None:
        self.env = env
        self.policy = policy
        self.dataset = dataset
        self.info = info
        self._frames: Tensor
        self._index: list[int | None] = [None] * env.num_envs
        """Where each world's unfinished episode stands in the dataset, if it does."""
        self._begin(env.reset(seed))
        policy.reset(self._start)

    def collect(self, steps: int, watch: Callable[[int], None] = lambda n: None,
                should_stop: Callable[[], bool] = lambda: False) -> int:
        """Plays at least this many steps over all worlds, fewer where it should stop, and stores them; unfinished
        episodes too. Returns how many."""
        done = 0
        while done < steps and not should_stop():
            actions = self.policy.act(self._frames)
            step = self.env.step(actions)
            self.policy.observe(step)
            rows = zip(actions.tolist(), step.rewards.tolist(), step.ends.tolist(), step.truncs.tolist(), strict=True)
            for i, row in enumerate(rows):
                self._steps[i].append(row)
                self._seen[i].append(step.final_frames[i].clone())  # a row alone keeps all worlds' frames
                if row[2] or row[3]:
                    self._store(i)
                    self._renew(i, step.frames[i])
            self._frames = step.frames
            done += self.env.num_envs
            watch(self.env.num_envs)
        for i in range(self.env.num_envs):
            if self._steps[i]:
                self._store(i)
        return done

    def state_dict(self) -> dict[str, Any]:
        """Where world, policy and unfinished episodes stand; taken between two calls of `collect`."""
        return {"env": self.env.state_dict(), "policy": self.policy.state_dict(), "index": self._index}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from there; the dataset must be what it was then."""
        self._begin(self.env.load_state_dict(state["env"]))
        self.policy.load_state_dict(state["policy"])
        self._index = list(state["index"])
        for i, index in enumerate(self._index):
            if index is not None:
                episode = self.dataset[index]
                self._seen[i] = list(episode.frames)
                self._steps[i] = list(zip(*(x.tolist() for x in (episode.actions, episode.rewards, episode.ends,
                                                                 episode.truncs)), strict=True))

    def _begin(self, start: Start) -> None:
        self._start = start
        self._frames = start.frames
        self._seen: list[list[Tensor]] = [[frame.clone()] for frame in start.frames]
        self._steps: list[list[tuple[int, float, bool, bool]]] = [[] for _ in start.frames]

    def _store(self, i: int) -> None:
        episode = Episode.of(self._seen[i], self._steps[i], self.info)
        index = self._index[i]
        if index is None:
            self._index[i] = self.dataset.add(episode)
        else:
            self.dataset.replace(index, episode)

    def _renew(self, i: int, frame: Tensor) -> None:
        self._seen[i], self._steps[i], self._index[i] = [frame.clone()], [], None

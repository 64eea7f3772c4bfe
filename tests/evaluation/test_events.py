"""Points and ends come to pass in a world that is reality, and not in one that stands still."""

from __future__ import annotations

import pytest
from torch import Tensor

from diamond_core.evaluation import evaluate_events
from diamond_core.evaluation.events import LATE, happened
from diamond_core.replay import Dataset
from diamond_core.world.dream import DreamState, DreamStep
from tests.evaluation.test_fidelity import INFO, Frozen, Reality, dataset


def test_reality_has_all_events_and_a_frozen_world_never_ends():
    data = dataset(60, 60)
    told = []
    true = evaluate_events(Reality(data), data, ahead=5, num=6, watch=lambda *x: told.append(x))
    assert set(true.kinds) == {"reward -1", "reward +1", "end"} and told[-1] == ("end", 9, 9)
    for found in true.kinds.values():
        assert found.real >= found.windows > 0 and found.on_real_frames == found.in_dream == found.real
    assert true.kinds["end"].windows == 2
    frozen = evaluate_events(Frozen(data), data, ahead=5, num=6, seed=2)  # no end is one step away
    assert frozen.kinds["reward +1"].on_real_frames == frozen.kinds["reward +1"].real
    assert frozen.kinds["end"].in_dream == 0
    assert true.to_json()["kinds"]["end"]["real"] == 2


@pytest.mark.parametrize("late", [1, LATE])
def test_an_end_that_comes_some_steps_later_counts_and_counts_once(late):
    class Late(Reality):
        """Says what happened so many steps ago; an end again and again."""

        def step(self, state: DreamState, actions: Tensor) -> DreamStep:
            step = super().step(state, actions)
            self.said = [] if not state.steps.any() else self.said
            self.said.append(step.end_probabilities)
            return step._replace(end_probabilities=self.said[-1 - late] if len(self.said) > late else 0 * self.said[0])

    data = dataset(60, 60)
    ends = evaluate_events(Late(data), data, ahead=5, num=6).kinds["end"]
    assert ends.in_dream == ends.real == 2


def test_places_of_events():
    places = happened(dataset(30))
    assert sum(len(places[kind]) for kind in ("reward -1", "reward 0", "reward +1")) == 30
    assert places["end"] == [(0, 29)]


def test_play_without_events_is_refused():
    data = Dataset(None, INFO)
    data.add(dataset(60)[0].clip(3))
    with pytest.raises(ValueError, match="record longer play"):
        evaluate_events(Reality(data), data)

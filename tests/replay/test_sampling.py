"""The sampler draws what the rule says, from (seed, step) alone; the prefetcher changes nothing but the waiting."""

from __future__ import annotations

import gc
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from diamond_core.replay import Dataset, Prefetcher, SegmentSampler

LENGTHS = (5, 40, 10, 25, 60, 10, 30, 20, 15, 35, 50)


@pytest.fixture
def dataset(info, counter):
    dataset = Dataset(None, info)
    for length in LENGTHS:
        dataset.add(counter(length))
    return dataset


def threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("prefetch")}


def equal(a, b) -> bool:
    return all(torch.equal(value, getattr(b, name)) for name, value in vars(a).items())


def frequencies(sampler: SegmentSampler, steps: int) -> np.ndarray:
    """How often each episode is drawn."""
    drawn = np.concatenate([sampler.draw(step)[0] for step in range(steps)])
    return np.bincount(drawn, minlength=sampler.dataset.num_episodes) / len(drawn)


def test_episodes_are_drawn_by_age(dataset):
    sampler = SegmentSampler(dataset, 4, 2000, past_end=True, seed=0)
    groups = [0.1 / 2] * 6 + [0.7 / 5] * 5
    assert np.abs(frequencies(sampler, 50) - groups).max() < 0.005


@pytest.mark.parametrize(("weights", "count"), [(None, 11), ((0.1, 0.1, 0.1, 0.7), 3)])
def test_episodes_are_drawn_by_length(dataset, weights, count):
    few, _ = dataset.split(slice(count, None))
    sampler = SegmentSampler(few, 4, 2000, weights=weights, past_end=True, seed=0)
    assert np.abs(frequencies(sampler, 50) - few.lengths / few.num_steps).max() < 0.005


@pytest.mark.parametrize("past_end", [True, False])
def test_windows_follow_the_rule(info, counter, past_end):
    """Counts every start against the rule, worked out by enumeration of steps and shifts."""
    total, length = 7, 4
    dataset = Dataset(None, info)
    dataset.add(counter(total))
    starts = np.concatenate(
        [SegmentSampler(dataset, length, 1000, past_end=past_end, seed=1).draw(step)[1] for step in range(100)]
    )
    pairs = [(t, shift) for t in range(total) for shift in range(length)]
    rule = [t - shift if past_end else min(total, t + 1 + shift) - length for t, shift in pairs]
    values, expected = np.unique(rule, return_counts=True)
    found = np.array([(starts == value).mean() for value in values])
    assert set(starts) == set(values)
    assert np.abs(found - expected / len(pairs)).max() < 0.006


def test_a_batch_is_a_function_of_seed_and_step(dataset):
    def sampler(**kwargs):
        return SegmentSampler(dataset, 6, 16, **{"past_end": False, "seed": 3} | kwargs)

    first = sampler()
    later = [first.batch(step) for step in (7, 3, 7)]
    assert equal(later[0], later[2]) and equal(later[1], sampler().batch(3))
    assert not equal(later[0], later[1]) and not equal(later[0], sampler(seed=4).batch(7))
    assert later[0].frames.shape == (16, 6, 1, 2, 2) and later[0].mask.any(1).all()


def test_ranks_share_one_batch(dataset):
    whole = SegmentSampler(dataset, 6, 10, past_end=True, seed=3).batch(5)
    for rank in range(3):
        part = SegmentSampler(dataset, 6, 10, past_end=True, seed=3, rank=rank, world_size=3).batch(5)
        assert equal(part, whole.map(lambda x, rank=rank: x[rank::3]))


def test_wrong_ranks_and_empty_datasets_are_refused(dataset, info):
    with pytest.raises(ValueError, match="rank < world_size"):
        SegmentSampler(dataset, 6, 10, past_end=True, seed=3, rank=3, world_size=3)
    with pytest.raises(ValueError, match="collect first"):
        SegmentSampler(Dataset(None, info), 6, 10, past_end=True, seed=3).batch(0)


def test_prefetcher_gives_the_same_batches_in_order(dataset):
    sampler = SegmentSampler(dataset, 6, 8, past_end=True, seed=3)
    with Prefetcher(sampler.batch, 2, 9) as ahead:
        batches = list(ahead)
    assert len(batches) == 7 and all(equal(batch, sampler.batch(2 + i)) for i, batch in enumerate(batches))
    assert not threads()


def test_prefetcher_works_ahead_but_not_too_far():
    made = []
    with Prefetcher(made.append, 0, 100, depth=3) as ahead:
        next(ahead)
        deadline = time.monotonic() + 5
        while len(made) < 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.05)
        assert made == [0, 1, 2, 3]
    assert list(Prefetcher(made.append, 3, 3)) == []
    with pytest.raises(ValueError, match="1 or more"):
        Prefetcher(made.append, 0, 100, depth=0)


def test_prefetcher_passes_errors_on_at_their_step():
    def make(step):
        if step == 2:
            raise KeyError("lost")
        return step

    ahead = Prefetcher(make, 0, 9)
    assert [next(ahead), next(ahead)] == [0, 1]
    with pytest.raises(KeyError, match="lost"):
        next(ahead)
    assert list(ahead) == [] and not threads()


def test_prefetcher_ends_when_closed_or_abandoned():
    closed = Prefetcher(lambda step: step, 0, 10**9)
    next(closed)
    closed.close()
    closed.close()
    assert list(closed) == [] and not threads()
    abandoned = Prefetcher(lambda step: step, 0, 10**9)
    next(abandoned)
    del abandoned
    gc.collect()
    for thread in threads():
        thread.join(5)
    assert not threads()


def test_a_share_of_the_segments_holds_an_event(info, counter):
    """Rewards: -1 in five steps, +1 in one, 0 elsewhere; one of two episodes ends."""
    dataset = Dataset(None, info)
    for signs, finished in (({10: -1, 30: -1, 50: -1, 70: -1, 90: -1}, True), ({40: 1}, False)):
        episode = counter(200, finished)
        rewards = torch.zeros(200)
        for t, sign in signs.items():
            rewards[t] = sign
        dataset.add(replace(episode, rewards=rewards))
    sampler = SegmentSampler(dataset, 4, 3000, weights=None, past_end=True, seed=0, event_share=0.6)
    assert [events.tolist() for events in sampler.events()] == [
        [[0, 199]], [[0, 10], [0, 30], [0, 50], [0, 70], [0, 90]], [[1, 40]]]
    batch = sampler.batch(0)
    shares = [float((batch.rewards == sign).any(1).float().mean()) for sign in (-1, 1)]
    shares.append(float(batch.ends.any(1).float().mean()))
    # by the roots of 5, 1 and 1, and what chance adds: windows that hold one of 400 steps
    parts = np.sqrt([5, 1, 1]) / np.sqrt([5, 1, 1]).sum()
    assert np.abs(np.array(shares) - (0.6 * parts + 0.4 * np.array([20, 4, 4]) / 400)).max() < 0.03


def test_a_segment_can_lie_some_steps_before_its_event(info, counter):
    dataset = Dataset(None, info)
    for event in (3, 100):
        rewards = torch.zeros(200)
        rewards[event] = 1
        dataset.add(replace(counter(200, finished=False), rewards=rewards))
    sampler = SegmentSampler(dataset, 4, 2000, weights=None, past_end=False, seed=0, event_share=1.0, ahead=15)
    episodes, starts = sampler.draw(0)
    last = starts + 3
    assert set(last[episodes == 1]) == set(range(85, 104)) and set(last[episodes == 0]) == set(range(7))


def test_an_event_can_lie_late_in_its_segment(info, counter):
    dataset = Dataset(None, info)
    rewards = torch.zeros(200)
    rewards[100] = 1
    dataset.add(replace(counter(200, finished=False), rewards=rewards))
    _, starts = SegmentSampler(dataset, 7, 2000, past_end=False, seed=0, event_share=1.0, late=4).draw(0)
    assert set(100 - starts) == {3, 4, 5, 6}


def test_a_segment_can_go_on_to_the_final_observation(info, counter):
    dataset = Dataset(None, info)
    # the one event is the end, in step 29, which led to frame 30
    dataset.add(replace(counter(30), rewards=torch.zeros(30)))
    draws = {beyond: SegmentSampler(dataset, 7, 2000, past_end=False, seed=0, event_share=1.0, late=3, beyond=beyond)
             for beyond in (0, 1)}
    (_, short), (_, long) = (sampler.draw(0) for sampler in draws.values())
    assert set(short) == {23} and set(long) == {23, 24} and 0.6 < (long == 24).mean() < 0.73
    batch = draws[1].batch(0)
    reaches = ~batch.mask[:, -1]
    assert reaches.any() and batch.mask[:, :-1].all()
    assert (batch.frames[reaches, -1] == dataset[0].frames[30]).all()


def test_moments_are_more_kinds_of_event(info, counter):
    dataset = Dataset(None, info)
    for finished in (True, False):
        dataset.add(replace(counter(50, finished), rewards=torch.zeros(50)))
    sampler = SegmentSampler(dataset, 4, 2000, weights=None, past_end=True, seed=0, event_share=1.0,
                             moments=lambda episode: {"hit": [] if episode.finished else [7, 8, 9, 30], "never": []})
    assert [events.tolist() for events in sampler.events()] == [[[0, 49]], [[1, 7], [1, 8], [1, 9], [1, 30]]]
    episodes, _ = sampler.draw(0)
    assert abs(episodes.mean() - 2 / 3) < 0.03, "by the roots of 1 and 4"


def test_no_share_of_events_changes_no_draw(dataset):
    plain = SegmentSampler(dataset, 6, 16, past_end=False, seed=3)
    none = SegmentSampler(dataset, 6, 16, past_end=False, seed=3, event_share=0.0)
    assert all(np.array_equal(a, b) for a, b in zip(plain.draw(5), none.draw(5), strict=True))
    assert not np.array_equal(plain.draw(5)[0], SegmentSampler(dataset, 6, 16, past_end=False, seed=3,
                                                               event_share=1.0).draw(5)[0])

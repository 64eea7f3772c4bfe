"""Schedules are compared on the same windows, and the sampler is put back."""

from __future__ import annotations

import pytest

from diamond_core.config import SamplerConfig
from diamond_core.diffusion.noise import karras_sigmas, schedule
from diamond_core.evaluation.schedules import compare_schedules
from tests.conftest import EXACT
from tests.evaluation.test_fidelity import dataset


def test_two_steps_have_their_own_second_level():
    assert schedule(SamplerConfig(num_steps=2)) == [5.0, 0.05, 0.0]
    assert schedule(SamplerConfig(num_steps=2, two_step_sigma=0.0)) == pytest.approx([5.0, 0.002, 0.0], rel=1e-4)
    assert schedule(SamplerConfig()) == karras_sigmas(3, 2e-3, 5.0, 7.0).tolist()


def test_every_schedule_is_judged(small_agent):
    world = small_agent.world(runtime=EXACT)
    found = compare_schedules(world, dataset(20, 30), horizon=4, num_rollouts=3, second_sigmas=(0.0, 0.3))
    assert [row.num_steps for row in found] == [1, 2, 2, 3]
    assert [row.sigmas[1] for row in found[1:3]] == pytest.approx([0.002, 0.3], rel=1e-4)
    assert all(0 < row.one_step_psnr < 60 and 0 < row.long_psnr < 60 for row in found)
    assert world.sampler == SamplerConfig()


def test_play_that_is_too_short_for_the_horizon_is_refused(small_agent):
    with pytest.raises(ValueError, match=r"play of 40 steps .* longest has 27: try --horizon 27"):
        compare_schedules(small_agent.world(runtime=EXACT), dataset(20, 30), horizon=40, num_rollouts=3)

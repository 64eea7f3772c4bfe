"""Convolutions of training are those of torch, gradients included, whatever the size, and a run can be repeated."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from diamond_core.agent.actor_critic import ActorCritic, Encoder
from diamond_core.config import ActorCriticConfig, RuntimeConfig
from diamond_core.device import resolve
from diamond_core.presets import tiny
from diamond_core.training import convolutions
from diamond_core.training.agent import Agent
from diamond_core.training.build import learners_of
from diamond_core.training.speed import endless, made_up
from diamond_core.world import winograd
from diamond_core.world.winograd_steps import NotHere
from tests.conftest import SMALL

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")

PLAIN = RuntimeConfig(device="cpu", precision="float32", convolutions="torch")


def gradients(convolve, shape: tuple[int, ...], c_out: int, dtype: torch.dtype) -> list[torch.Tensor]:
    torch.manual_seed(0)
    n, c_in, h, w = shape
    numbers = torch.randn(shape), torch.randn(c_out, c_in, 3, 3) / (3 * c_in**0.5), torch.randn(c_out)
    inputs = [x.to(dtype).requires_grad_() for x in numbers]
    y = convolve(*inputs)
    y.backward(torch.randn(n, c_out, h, w).to(dtype))
    return [y.detach(), *(x.grad for x in inputs)]


@pytest.mark.parametrize(("shape", "c_out"), [((3, 32, 16, 24), 48), ((1, 16, 4, 4), 16), ((5, 48, 8, 8), 32),
                                              ((2, 16, 64, 64), 16)])
@pytest.mark.parametrize("threads", [1, 2, 4])
def test_values_and_gradients_are_those_of_torch(shape, c_out, threads, monkeypatch):
    monkeypatch.setattr(convolutions.torch, "get_num_threads", lambda: threads)
    found = gradients(convolutions.Convolve.apply, shape, c_out, torch.float32)
    truth = gradients(lambda x, w, b: F.conv2d(x, w, b, padding=1), shape, c_out, torch.float64)
    for a, b in zip(found, truth, strict=True):
        assert (a - b).norm() / b.norm() < 3e-5
    again = gradients(convolutions.Convolve.apply, shape, c_out, torch.float32)
    assert all(torch.equal(a, b) for a, b in zip(found, again, strict=True)), "a run can be repeated"


@pytest.mark.parametrize(("c_in", "c_out", "size"), [(15, 32, 16), (32, 3, 16), (32, 32, 10)])
def test_what_the_algorithm_does_not_know_is_left_to_torch(c_in, c_out, size, monkeypatch):
    conv = nn.Conv2d(c_in, c_out, 3, padding=1)
    x = torch.randn(2, c_in, size, size)
    expected = conv(x)
    convolutions.prepare(conv)
    monkeypatch.setattr(convolutions, "convolved", None)
    torch.testing.assert_close(conv(x), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("options", [{"padding": 2}, {"padding": 1, "dilation": 2}, {"padding": 1, "groups": 2},
                                     {"padding": 1, "padding_mode": "circular"}, {"padding": 1, "bias": False},
                                     {"padding": 1, "stride": 2}])
def test_other_convolutions_are_left_alone(options):
    conv = nn.Conv2d(16, 16, 3, **options)
    convolutions.prepare(conv)
    assert type(conv) is nn.Conv2d


def test_no_images_give_no_images():
    conv = nn.Conv2d(16, 16, 3, padding=1)
    convolutions.prepare(conv)
    y = conv(torch.zeros(0, 16, 8, 8))
    y.sum().backward()
    assert y.shape == (0, 16, 8, 8) and not conv.weight.grad.any()


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
def test_a_model_stays_what_it_was():
    model = nn.Sequential(nn.Conv2d(16, 32, 3, padding=1), nn.Conv2d(32, 16, 3, stride=2, padding=1),
                          nn.Conv2d(16, 4, 1))
    before = copy.deepcopy(model)
    x = torch.randn(2, 16, 8, 8)
    convolutions.prepare(model)
    assert [type(m) for m in model] == [convolutions.Conv3, nn.Conv2d, nn.Conv2d]
    for (name, p), (other, q) in zip(model.state_dict().items(), before.state_dict().items(), strict=True):
        assert name == other and torch.equal(p, q)
    torch.testing.assert_close(copy.deepcopy(model)(x), before(x), atol=1e-5, rtol=0)
    traced = torch.jit.trace(model, x)  # OpenVINO's converter does so
    torch.testing.assert_close(traced(x), before(x), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["denoiser", "reward_end"])
def test_an_update_is_the_same_update(name):
    config = tiny("toy")
    found = []
    for option in (PLAIN, replace(PLAIN, convolutions="auto")):
        torch.manual_seed(0)
        learner = learners_of(config, list("ABC"), resolve(option), 1, None)[name]
        batch = made_up(config, list("ABC"), 4, 8)
        torch.manual_seed(1)
        record = learner.update(endless(batch))
        found.append([record["loss"], record["gradient_norm"], *learner.model.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-4)
    assert found[0][1] > 0.1


@pytest.mark.parametrize(("option", "learns", "looks"), [
    (PLAIN, False, False), (replace(PLAIN, convolutions="auto"), True, True),
    (replace(PLAIN, convolutions="auto", compile="on"), False, False),
    (RuntimeConfig(device="cpu", precision="bfloat16"), False, True)])
def test_it_is_done_where_it_is_faster(option, learns, looks):
    runtime = resolve(option)
    assert (runtime.winograd, runtime.swift) == (learns, looks)
    model = learners_of(tiny("toy"), list("ABC"), replace(runtime, compile=False), 1, None)["actor_critic"].model
    assert (type(model.encoder) is convolutions.SwiftEncoder) == looks


def test_without_a_compiler_torch_convolves(monkeypatch, capsys):
    def missing() -> None:
        raise winograd.NotHere("no C compiler")

    monkeypatch.setattr(winograd, "library", missing)
    learners = learners_of(tiny("toy"), list("ABC"), resolve(replace(PLAIN, convolutions="auto")), 1, None)
    assert not any(isinstance(m, convolutions.Conv3) for m in learners["denoiser"].model.modules())
    assert capsys.readouterr() == ("", "no C compiler\n")


def test_an_agent_that_only_looks_sees_the_same_whatever_its_weights_become():
    torch.manual_seed(0)
    model = ActorCritic(ActorCriticConfig(channels=(16, 32), lstm_dim=8), 3, (3, 16, 16))
    truth = copy.deepcopy(model)
    convolutions.prepare(model)
    frames, written = torch.rand(3, 3, 16, 16) * 2 - 1, []
    for _ in range(2):
        with torch.no_grad():
            seen = copy.deepcopy(model).see(frames), model.see(frames), model.see(frames)
            written.append(convolutions.NETWORKS[model.encoder])
            for x in seen:
                torch.testing.assert_close(x, truth.see(frames), atol=1e-4, rtol=1e-4)
            for network in (model, truth):
                network.encoder.encoder[0].weight.mul_(1.5)
    assert written[0] is not written[1], "it would have gone on with the old weights"
    model.see(frames).sum().backward()
    assert model.encoder.encoder[0].weight.grad.abs().sum() > 0


def test_an_eye_of_unknown_size_takes_the_way_of_torch():
    model = ActorCritic(ActorCriticConfig(channels=(8,), lstm_dim=8), 3, (3, 8, 8))
    frames = torch.rand(2, 3, 8, 8)
    expected = model.see(frames)
    convolutions.prepare(model)
    with torch.no_grad():
        torch.testing.assert_close(model.see(frames), expected)


def test_an_agent_that_plays_looks_in_c_and_without_a_compiler_as_before(monkeypatch, capsys):
    agent = Agent.from_config(SMALL, 3)
    runtime = replace(resolve(PLAIN), swift=True)
    with monkeypatch.context() as patch:
        patch.setattr(winograd, "library", lambda: (_ for _ in ()).throw(NotHere("no C compiler")))
        agent.policy(2, 0, runtime)
        assert type(agent.actor_critic.encoder) is Encoder and "no C compiler" in capsys.readouterr().err
    agent.policy(2, 0, replace(runtime, swift=False))
    assert type(agent.actor_critic.encoder) is Encoder
    for dtype in (torch.float32, torch.bfloat16):
        policy = agent.policy(2, 0, replace(runtime, dtype=dtype))
        assert type(agent.actor_critic.encoder) is convolutions.SwiftEncoder
        assert policy.act(torch.zeros(2, *SMALL.frame_shape, dtype=torch.uint8)).shape == (2,)

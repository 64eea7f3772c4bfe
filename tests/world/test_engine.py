"""Fast paths compute what the plain path computes, failures fall back with a line, and swapping loses no frame."""

from __future__ import annotations

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from diamond_core.config import SamplerConfig
from diamond_core.training.library import load
from diamond_core.world import accelerate as acceleration
from diamond_core.world import openvino_runtime
from diamond_core.world.accelerate import accelerate
from diamond_core.world.compiled import CompiledNetwork
from diamond_core.world.dream import World
from diamond_core.world.engine import BodyModel, HoistedEngine, Judgement, JudgeModel
from tests.conftest import EXACT, SMALL

SAMPLERS = [SamplerConfig(), SamplerConfig(num_steps=1), SamplerConfig(num_steps=2), SamplerConfig(order=2),
            SamplerConfig(s_churn=1.0)]


def hoisted(world: World) -> HoistedEngine:
    body, judge = BodyModel(world.denoiser.inner_model), JudgeModel(world.reward_end)
    return HoistedEngine(world.denoiser, body, lambda *x: Judgement(*judge(*x)), "hoisted")


class InFloat64:
    """The truth."""

    name = "float64"

    def __init__(self, world: World) -> None:
        self.denoiser = copy.deepcopy(world.denoiser).double()
        self.judge = world.engine.judge
        self.whole = world.engine.whole

    def denoise(self, past, actions, sigmas):
        return lambda x, sigma: self.denoiser(x.double(), x.new_full((len(x),), sigma).double(), past.double(), actions)


def dreams(world: World, agent, steps: int, num: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Frames (n, t, c, h, w) and reward probabilities of the last step."""
    now, frames = agent.dream(world, num=num), []
    for i in range(steps):
        step = world.step(now, (torch.arange(num) + i) % 3)
        now = step.state
        frames.append(step.frames)
    return torch.stack(frames, 1), step.reward_probabilities


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return 10 * torch.log10(255**2 / (a.float() - b.float()).square().mean().clamp(min=1e-9)).item()


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("sampler", SAMPLERS, ids=str)
def test_hoisting_changes_nothing_but_rounding(small_agent, sampler):
    world = small_agent.world(sampler, EXACT)
    state, actions = small_agent.dream(world, num=3), torch.tensor([0, 1, 2])
    x = torch.randn(3, 3, 16, 16)
    past = torch.rand(3, 4, 3, 16, 16) * 2 - 1
    fast = hoisted(world)
    ours = fast.denoise(past, state.actions, world.sigmas)
    plain = world.engine.denoise(past, state.actions, world.sigmas)
    for sigma in world.sigmas[:-1]:
        assert (ours(x, sigma) - plain(x, sigma)).abs().max() <= 2.01 / 255, "a byte level at most"
        inner = world.denoiser.inner_model
        c = world.denoiser.conditioners(torch.full((3,), sigma))
        output = inner(x * c.c_in[0], c.c_noise, past.flatten(1, 2) / 0.5, state.actions)
        body = fast.body(x * c.c_in[0], past.flatten(1, 2) / 0.5,
                         fast.modulate(inner.noise_emb(c.c_noise[:1]), state.actions)[0])
        torch.testing.assert_close(body, output, atol=1e-4, rtol=0)
    before, _ = dreams(world, small_agent, 5)
    world.engine = fast
    after, _ = dreams(world, small_agent, 5)
    # Heun divides a flipped byte by the last noise level and so makes more of it
    assert psnr(before, after) > (40 if sampler.order == 1 else 25)
    assert actions.shape == (3,)


@pytest.mark.parametrize("with_hoisting", [False, True])
def test_the_precision_of_who_trains_in_a_dream_stays_outside(small_agent, with_hoisting):
    world = small_agent.world(runtime=EXACT)
    if with_hoisting:
        world.engine = hoisted(world)
    expected = dreams(world, small_agent, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = dreams(world, small_agent, 4)
    for a, b in zip(expected, found, strict=True):
        assert torch.equal(a, b)


def there(runtime: ModuleType) -> None:
    """Leaves the test out where its runtime cannot be had; that it is here in the checks, `.ci/run` sees to."""
    if runtime is openvino_runtime:
        pytest.importorskip("openvino")
    elif not any(map(shutil.which, ("cc", "gcc", "clang"))):
        pytest.skip("no C compiler")


def not_here(*_: object) -> HoistedEngine:
    raise acceleration.winograd.NotHere("no C compiler")


def test_openvino_dreams_the_same_dreams(small_agent, cache, monkeypatch):
    """Built in child processes, kept on disk; over 50 frames no further from the truth than rounding takes it."""
    pytest.importorskip("openvino")
    monkeypatch.setenv("DIAMOND_CACHE", str(cache))
    plain, world = small_agent.world(runtime=EXACT), small_agent.world(runtime=EXACT)
    monkeypatch.setattr(acceleration.winograd, "build", not_here)
    search = accelerate(world, SMALL.frame_shape)
    dreams(world, small_agent, 3)  # play goes on meanwhile
    assert "OpenVINO" in search.wait(120), search.message
    assert world.path.startswith("OpenVINO")
    a, rewards_a = dreams(plain, small_agent, 50, num=8)
    b, rewards_b = dreams(world, small_agent, 50, num=8)
    assert psnr(a[:, 0], b[:, 0]) > 40
    # random weights are a chaotic world, where one flipped byte decides, so there are eight dreams: how far torch gets
    # from the truth in the same precision is the yardstick
    precision = "bfloat16" if "bf16" in world.path else "float32"
    same, _ = dreams(small_agent.world(runtime=replace(EXACT, precision=precision)), small_agent, 50, num=8)
    plain.engine = InFloat64(plain)
    truth, _ = dreams(plain, small_agent, 50, num=8)
    assert psnr(truth, b) > min(psnr(truth, same), 60) - 6
    assert rewards_a.shape == rewards_b.shape and psnr(truth, truth.flip(1)) < 30
    folder = openvino_runtime.cache_folder(world.denoiser, world.reward_end, SMALL.frame_shape)
    stamp = (folder / "body.xml").stat().st_mtime_ns
    again = small_agent.world(runtime=EXACT)
    assert "OpenVINO" in accelerate(again, SMALL.frame_shape).wait(60)
    assert (folder / "body.xml").stat().st_mtime_ns == stamp, "the next start converts nothing"


@pytest.fixture(scope="module")
def pong():
    """The shipped agent, and 50 frames of its dream on the plain path."""
    agent = load("Pong", "cpu")
    return agent, dreams(agent.world(runtime=EXACT), agent, 50)[0]


@pytest.mark.parametrize("runtime", [openvino_runtime, acceleration.winograd], ids=["OpenVINO", "Winograd"])
def test_a_trained_world_does_not_drift_from_the_plain_path(pong, cache, monkeypatch, runtime):
    """Bytes between the frames take rounding back. Where a bounce or a serve hangs on it, torch in the same precision
    is the yardstick."""
    there(runtime)
    monkeypatch.setenv("DIAMOND_CACHE", str(cache))
    agent, a = pong
    world = agent.world(runtime=EXACT)
    world.engine = runtime.build(world.denoiser, world.reward_end, agent.config.frame_shape)
    b, _ = dreams(world, agent, 50)
    rounded = replace(EXACT, precision="bfloat16")
    same = dreams(agent.world(runtime=rounded), agent, 50)[0] if "bf16" in world.engine.name else a
    assert psnr(a[:, :10], b[:, :10]) > 50 and psnr(a, b) > min(psnr(a, same), 60) - 6
    assert psnr(a[:, 40:], a[:, :10]) < 45, "frames that move"


def test_batch_mates_change_nothing_but_rounding(small_agent, cache, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("DIAMOND_CACHE", str(cache))
    world = small_agent.world(runtime=EXACT)
    world.engine = openvino_runtime.build(world.denoiser, world.reward_end, SMALL.frame_shape)
    together, alone = small_agent.dream(world, num=5), small_agent.dream(world, num=5)[2]
    a = world.step(together, torch.tensor([0, 1, 2, 0, 1])).frames[2:3]
    b = world.step(alone, torch.tensor([2])).frames
    # one state runs on kernels of its own; bfloat16 rounds to the 256th part
    assert (a.int() - b.int()).abs().max() <= (4 if "bf16" in world.path else 1)
    others = replace(together, frames=together.frames.flip(-1))
    others.frames[2] = together.frames[2]
    assert torch.equal(world.step(others, torch.tensor([1, 0, 2, 2, 2])).frames[2:3], a), "mates are not seen at all"


def test_other_weights_are_converted_anew(small_agent):
    model = small_agent.denoiser
    first = openvino_runtime.cache_folder(model, small_agent.reward_end, SMALL.frame_shape)
    assert first == openvino_runtime.cache_folder(model, small_agent.reward_end, SMALL.frame_shape)
    with torch.no_grad():
        model.inner_model.conv_out.bias[0] += 1e-6
    assert first != openvino_runtime.cache_folder(model, small_agent.reward_end, SMALL.frame_shape)


@pytest.mark.parametrize("broken", ["missing", "crash", "late"])
def test_what_does_not_work_is_said_in_one_line_and_play_goes_on(small_agent, broken, tmp_path, monkeypatch):
    monkeypatch.setenv("DIAMOND_CACHE", str(tmp_path))
    if broken == "missing":
        monkeypatch.setattr(openvino_runtime.importlib.util, "find_spec", lambda name: None)
    else:
        monkeypatch.setattr(openvino_runtime, "convert", lambda folder, *_: folder.mkdir(parents=True))

        def child(*args: str, timeout: float) -> str:
            if broken == "late":
                raise openvino_runtime.Late("try took more than 60 s")
            raise openvino_runtime.OpenVinoError("try failed: it ended with -11")

        monkeypatch.setattr(openvino_runtime, "run_child", child)
    monkeypatch.setattr(acceleration.winograd, "build", not_here)
    told: list[str] = []
    world = small_agent.world(runtime=EXACT)
    before = world.engine
    message = accelerate(world, SMALL.frame_shape, told.append).wait(60)
    assert world.engine is before and told == [message] and "\n" not in message
    assert message.startswith("no C compiler; ")
    assert ("pip install openvino" if broken == "missing" else "dreaming with torch") in message
    if broken == "late":
        assert "tries it again" in message and not [*tmp_path.rglob("choice.json")]
    elif broken == "crash":
        choice = next(tmp_path.rglob("choice.json"))
        assert json.loads(choice.read_text())["options"] is None, "it is not tried again at every start"
    dreams(world, small_agent, 2)


@pytest.mark.parametrize("left", [b"", b"{", b"[]"])
def test_a_choice_that_was_cut_short_is_made_again(small_agent, left, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    monkeypatch.setenv("DIAMOND_CACHE", str(tmp_path))
    folder = openvino_runtime.cache_folder(small_agent.denoiser, small_agent.reward_end, SMALL.frame_shape)
    folder.mkdir(parents=True)
    (folder / openvino_runtime.CHOICE).write_bytes(left)
    monkeypatch.setattr(openvino_runtime, "convert", lambda *_: None)
    monkeypatch.setattr(openvino_runtime, "try_out", lambda _: {"options": None, "why": "it was asked again"})
    for _ in range(2):
        with pytest.raises(openvino_runtime.OpenVinoError, match="it was asked again"):
            openvino_runtime.build(small_agent.denoiser, small_agent.reward_end, SMALL.frame_shape)
        monkeypatch.setattr(openvino_runtime, "try_out", lambda _: pytest.fail("it was known"))


def test_a_cache_that_cannot_be_written_is_said_in_one_line(small_agent, tmp_path, monkeypatch):
    pytest.importorskip("openvino")
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIAMOND_CACHE", str(tmp_path / "file"))
    with pytest.raises(openvino_runtime.OpenVinoError, match="cannot be kept in"):
        openvino_runtime.build(small_agent.denoiser, small_agent.reward_end, SMALL.frame_shape)


def test_old_conversions_are_forgotten(tmp_path):
    for i in range(12):
        (tmp_path / f"{i:02}").mkdir()
        openvino_runtime.os.utime(tmp_path / f"{i:02}", (i, i))
    openvino_runtime.forget_old(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"{i:02}" for i in range(4, 12)]


def test_compiled_networks_compute_the_same(small_agent, monkeypatch):
    """The same wrapping as on a GPU; what the compiler makes of it is tried with DIAMOND_LONG, it takes a minute."""
    monkeypatch.setattr(acceleration.compiled.torch, "compile", lambda f: f)
    world = small_agent.world(runtime=EXACT)
    frames, _ = dreams(world, small_agent, 5)
    world.engine = acceleration.compiled.build(world.denoiser, world.reward_end, replace(world.runtime, compile=True))
    same, _ = dreams(world, small_agent, 5)
    assert psnr(frames, same) > 40 and "torch.compile" in world.path


@pytest.mark.skipif("DIAMOND_LONG" not in __import__("os").environ, reason="compiles for a minute: DIAMOND_LONG=1")
def test_the_compiler_keeps_the_function(small_agent):
    world = small_agent.world(runtime=EXACT)
    body = BodyModel(world.denoiser.inner_model)
    inputs = torch.randn(2, 3, 16, 16), torch.randn(2, 12, 16, 16), torch.randn(2, body.size) / 10
    output, = CompiledNetwork(body, world.runtime)(*inputs)
    torch.testing.assert_close(output, body(*inputs), atol=1e-4, rtol=0)

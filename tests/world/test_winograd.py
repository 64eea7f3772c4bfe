"""Winograd's path computes what torch does, at all sizes, with any number of threads and dreams, or says it cannot."""

from __future__ import annotations

import itertools
import platform
import shutil
import subprocess
import sys
import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from diamond_core.config import ActorCriticConfig, AgentConfig, DenoiserConfig, RewardEndConfig
from diamond_core.device import spare_cache
from diamond_core.training.agent import Agent
from diamond_core.world import accelerate as acceleration
from diamond_core.world import winograd
from diamond_core.world.accelerate import accelerate, at_once, engines_of
from diamond_core.world.dream import World
from diamond_core.world.engine import BodyModel, HoistedEngine, JudgeModel
from diamond_core.world.winograd_steps import Image, Program, encoder, eye, first_gap
from tests.conftest import EXACT, SMALL

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")

SIZES = {
    "deep": AgentConfig(denoiser=DenoiserConfig(channels=(32, 32, 64, 64), depths=(1, 1, 1, 1)),
                        reward_end=RewardEndConfig(channels=(16, 16, 32, 32), depths=(1, 1, 1, 1))),
    "several blocks": AgentConfig(image_size=(32, 48), denoiser=DenoiserConfig(
                                      num_conditioning_frames=8, num_conditioning_actions=4, channels=(64, 96),
                                      depths=(2, 3), attention=(False, False)),
                                  reward_end=RewardEndConfig(channels=(32, 32), depths=(2, 2),
                                                             attention=(False, False))),
    "attention": AgentConfig(image_channels=1, image_size=(16, 24),
                             denoiser=DenoiserConfig(channels=(32, 64), depths=(1, 1), attention=(True, True)),
                             reward_end=RewardEndConfig(channels=(16, 32), depths=(1, 1), attention=(True, True))),
    "toy": AgentConfig(image_size=(8, 8),
                       denoiser=DenoiserConfig(cond_channels=64, channels=(16, 32), depths=(1, 1),
                                               attention=(False, False)),
                       reward_end=RewardEndConfig(cond_channels=32, channels=(16, 32), depths=(1, 1),
                                                  attention=(False, False), lstm_dim=32),
                       actor_critic=ActorCriticConfig(channels=(16, 32), lstm_dim=32)),
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIAMOND_CACHE", str(tmp_path_factory.getbasetemp() / "winograd-cache"))
    # where there are matrix units, the search would end with them
    monkeypatch.setattr(acceleration.tiles, "promised", lambda: False)


def agent_of(config: AgentConfig) -> Agent:
    torch.manual_seed(1)
    agent = Agent.from_config(config, 3).eval()
    with torch.no_grad():
        for p in agent.parameters():
            # layers that begin at zero would hide errors; a net whose numbers grow would hide them, too
            if not p.any():
                p.normal_(std=0.02)
    return agent.requires_grad_(False)


def calls(engine: HoistedEngine, config: AgentConfig, n: int) -> list[torch.Tensor]:
    torch.manual_seed(2)
    c, h, w = config.frame_shape
    k, m = config.denoiser.num_conditioning_frames, BodyModel(engine.denoiser.inner_model).size
    frames, noisy = torch.randn(n, k * c, h, w), torch.randn(n, c, h, w)
    memory = torch.randn(2, n, config.reward_end.lstm_dim) / 10
    return [engine.body(noisy, frames, torch.randn(n, m) / 10),
            *engine.judge(frames[:, :c], torch.arange(n) % 3, noisy, *memory)]


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_it_computes_what_torch_computes(name, threads, monkeypatch):
    config = SIZES[name]
    agent = agent_of(config)
    truth = HoistedEngine(agent.denoiser, BodyModel(agent.denoiser.inner_model), JudgeModel(agent.reward_end), "torch")
    monkeypatch.setattr(winograd.torch, "get_num_threads", lambda: threads)
    engine = winograd.build(agent.denoiser, agent.reward_end, config.frame_shape)
    for n in (1, 3, 7, 1):
        for found, expected in zip(calls(engine, config, n), calls(truth, config, n), strict=True):
            torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
            assert expected.std() > 1e-3


@pytest.mark.parametrize(("channels", "size"), [((32, 32, 64, 64), (64, 64)), ((16, 48), (32, 48))])
def test_the_agents_eye_sees_what_torch_sees(channels, size):
    agent = agent_of(replace(SIZES["deep"], image_size=size, actor_critic=ActorCriticConfig(channels=channels)))
    encoder, x = agent.actor_critic.encoder, torch.rand(5, 3, *size) * 2 - 1
    network = winograd.Network(eye(encoder.encoder, size))
    torch.testing.assert_close(network(x, torch.zeros(5, 0)).flatten(1), encoder(x), atol=1e-4, rtol=1e-4)
    with pytest.raises(winograd.NotHere, match="sizes"):
        eye(encoder.encoder, (size[0], 40))


def test_neither_threads_nor_batch_mates_change_a_bit(monkeypatch):
    """A tape is played again on a machine with other cores, or among other dreams."""
    config = SIZES["deep"]
    agent = agent_of(config)
    found = []
    for threads in (1, 2, 3):
        monkeypatch.setattr(winograd.torch, "get_num_threads", lambda threads=threads: threads)
        engine = winograd.build(agent.denoiser, agent.reward_end, config.frame_shape)
        x, past = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 12, 64, 64)
        modulation = torch.zeros(4, BodyModel(agent.denoiser.inner_model).size)
        found += [engine.body(x, past, modulation)[2:3], engine.body(x[2:3], past[:1], modulation[:1])]
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize(("config", "why"), [
    (replace(SIZES["deep"], image_size=(64, 40)), "sides"),
    (replace(SMALL, denoiser=replace(SMALL.denoiser, channels=(8, 24))), "width")])
def test_what_it_does_not_know_it_refuses(config, why):
    agent = agent_of(config)
    with pytest.raises(winograd.NotHere, match=why):
        winograd.build(agent.denoiser, agent.reward_end, config.frame_shape)


def test_a_wrong_result_is_noticed(monkeypatch):
    """As of a compiler that miscompiles, or of a processor that is not the one it was compiled for."""
    agent = agent_of(SIZES["toy"])
    monkeypatch.setattr(winograd, "library", lambda: SimpleNamespace(run=lambda *_: None))
    with pytest.raises(winograd.NotHere, match="off by"):
        winograd.build(agent.denoiser, agent.reward_end, agent.config.frame_shape)


@pytest.mark.parametrize(("compiler", "why"), [("false", "does not compile"), ("/nowhere/cc", "does not compile"),
                                               (" ", "no C compiler")])
def test_without_a_compiler_it_says_so(compiler, why, tmp_path, monkeypatch):
    monkeypatch.setenv("DIAMOND_CACHE", str(tmp_path))
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setattr(winograd.shutil, "which", lambda name: None)
    with pytest.raises(winograd.NotHere, match=why):
        winograd.compiled()
    assert not list(tmp_path.rglob("*.so"))


def test_where_nothing_can_be_kept_it_is_compiled_for_this_process_alone(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DIAMOND_CACHE", str(tmp_path / "file"))
    assert winograd.compiled().parent == spare_cache() and winograd.library()
    monkeypatch.setattr(winograd, "spare_cache", lambda: tmp_path / "file")
    with pytest.raises(winograd.NotHere, match="cannot be compiled into"):
        winograd.compiled()


def test_the_next_compiler_is_asked_and_its_path_may_hold_spaces(tmp_path, monkeypatch):
    good = tmp_path / "my tools" / "gcc"
    good.parent.mkdir()
    good.symlink_to(shutil.which("cc") or shutil.which("gcc") or shutil.which("clang"))
    found = {"cc": shutil.which("false"), "gcc": str(good)}
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(winograd.shutil, "which", found.get)
    assert winograd.compilers() == [[found["cc"]], [str(good)]]
    assert winograd.compile_source(winograd.compilers(), tmp_path / "new.so").stat().st_size > 10_000
    monkeypatch.setenv("CC", "ccache 'my cc' -m64")
    assert winograd.compilers() == [["ccache", "my cc", "-m64"]]


@pytest.mark.parametrize(("switch", "flags"), [("", []), ("AVX2", ["-mno-avx512f"]), ("AVX512_CORE_AMX", [])])
def test_the_switch_for_older_instructions_is_obeyed(switch, flags, monkeypatch, tmp_path):
    monkeypatch.setenv(winograd.SWITCH, switch)
    assert winograd.hidden() == flags
    if platform.machine() == "x86_64":
        winograd.compile_source(winograd.compilers(), tmp_path / "new.so")


def test_it_is_compiled_once_and_again_where_it_was_cut_short(tmp_path, monkeypatch):
    monkeypatch.setenv("DIAMOND_CACHE", str(tmp_path))
    first = winograd.compiled()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", None)
        assert winograd.compiled() == first and [p.name for p in first.parent.iterdir()] == [first.name]
    size = first.stat().st_size
    first.write_bytes(b"")
    winograd.library.cache_clear()
    assert winograd.library().run and first.stat().st_size == size


@pytest.mark.parametrize(("has_bfloat16", "openvino", "takes", "expected"), [
    (False, "OpenVINO bf16", 0.5, "Winograd float32, ready"), (True, "OpenVINO bf16", 0.9, "OpenVINO bf16, ready"),
    (True, "OpenVINO f32", 1.3, "Winograd float32, ready"), (True, "", 0.5, "Winograd float32, ready")])
def test_it_is_here_at_once_and_stays_where_nothing_is_faster(monkeypatch, has_bfloat16, openvino, takes, expected):
    asked: list[str] = []

    def build(denoiser, reward_end, frame_shape) -> HoistedEngine:
        asked.append(world.path)
        if not openvino:
            raise acceleration.openvino_runtime.OpenVinoError("OpenVINO is not installed")
        return HoistedEngine(denoiser, BodyModel(denoiser.inner_model), world.engine.judge, openvino)

    monkeypatch.setattr(acceleration, "has_bfloat16", lambda device: has_bfloat16)
    monkeypatch.setattr(acceleration, "share_of_time", lambda *_: takes)
    monkeypatch.setattr(acceleration.tiles, "promised", lambda: False)
    monkeypatch.setattr(acceleration.openvino_runtime, "build", build)
    agent = agent_of(SIZES["toy"])
    world: World = agent.world(runtime=EXACT)
    message = accelerate(world, agent.config.frame_shape).wait(60)
    assert message.startswith(expected) and ("not installed" in message) is (openvino == "")
    assert ("OpenVINO f32 takes 130% of the time" in message) is (openvino == "OpenVINO f32")
    assert asked == (["Winograd float32"] if has_bfloat16 else [])


def test_a_search_that_is_no_longer_wanted_looks_no_further(monkeypatch):
    begun, gate, asked, told = threading.Event(), threading.Event(), [], []
    build = winograd.build

    def slow(*networks):
        asked.append("Winograd")
        begun.set()
        assert gate.wait(30)
        return build(*networks)

    monkeypatch.setattr(acceleration.winograd, "build", slow)
    monkeypatch.setattr(acceleration.tiles, "promised", lambda: False)
    monkeypatch.setattr(acceleration, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(acceleration.openvino_runtime, "build", lambda *_: asked.append("OpenVINO"))
    agent = agent_of(SIZES["toy"])
    world: World = agent.world(runtime=EXACT)
    before = world.engine
    search = accelerate(world, agent.config.frame_shape, told.append)
    assert begun.wait(30)
    search.stop()
    gate.set()
    search.wait(30)
    assert not search.running and world.engine is before and asked == ["Winograd"] and not told


def test_who_quits_waits_for_the_engine_that_is_being_built():
    """A thread that is in torch when the interpreter goes aborts the process."""
    code = """
import time
from types import SimpleNamespace
from diamond_core.world import accelerate as a
def engines(*_):
    time.sleep(1.5)
    print("built", flush=True)
    return iter(())
a.engines = engines
a.accelerate(SimpleNamespace(engine=None, path=""), (3, 8, 8))
print("quits", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and done.stdout.split() == ["quits", "built"], done


def test_what_does_not_last_takes_it_without_a_search(monkeypatch):
    monkeypatch.setattr(acceleration.openvino_runtime, "build", None)
    agent = agent_of(SIZES["toy"])
    world: World = agent.world(runtime=EXACT)
    before = world.path
    at_once(world, agent.config.frame_shape)
    assert world.path == "Winograd float32"
    monkeypatch.setattr(winograd, "compilers", list)
    winograd.library.cache_clear()
    other: World = agent.world(runtime=EXACT)
    at_once(other, agent.config.frame_shape)
    assert other.path == before


def test_a_tape_is_played_on_the_engines_that_it_names(monkeypatch):
    agent = agent_of(SIZES["toy"])
    world: World = agent.world(runtime=EXACT)
    old = HoistedEngine(agent.denoiser, BodyModel(agent.denoiser.inner_model), world.engine.judge, "OpenVINO f32")
    monkeypatch.setattr(acceleration, "has_bfloat16", lambda device: False)
    monkeypatch.setattr(acceleration.tiles, "promised", lambda: False)
    monkeypatch.setattr(acceleration.openvino_runtime, "build", lambda *_: old)
    shape = agent.config.frame_shape
    assert set(engines_of({world.path}, world, shape)) == {world.path}
    assert set(engines_of({world.path, "Winograd float32"}, world, shape)) == {world.path, "Winograd float32"}
    assert engines_of({"OpenVINO f32"}, world, shape)["OpenVINO f32"] is old


@pytest.mark.parametrize("constant", [17.3781, 301.7713, 2999.7731])
def test_channels_that_do_not_vary_are_normalised_to_nothing(constant):
    """In the squares of large numbers a variance drowns, or becomes negative, and its root is not a number."""
    agent = agent_of(SIZES["deep"])
    inner = agent.denoiser.inner_model
    inner.conv_in.weight.zero_()
    inner.conv_in.bias.fill_(constant)
    engine = HoistedEngine(agent.denoiser, BodyModel(inner), JudgeModel(agent.reward_end), "torch")
    expected = calls(engine, agent.config, 1)[0]
    network = winograd.Network(winograd.body(inner, agent.config.image_size))
    engine.body = lambda noisy, past, modulation: network(torch.cat([past, noisy], dim=1), modulation)
    torch.testing.assert_close(calls(engine, agent.config, 1)[0], expected, atol=2e-2, rtol=0)


def test_memory_is_used_again_and_never_while_it_is_needed():
    assert first_gap([], 5) == 0 and first_gap([(0, 3), (5, 9)], 2) == 3 and first_gap([(0, 3), (5, 9)], 3) == 9
    program = Program()
    images = [Image(1, 1, 1, size) for size in (10, 10, 5, 10, 5, 5)]
    for a, b in itertools.pairwise(images):
        program.add("prepare", b, {"source": a})
    steps, size = program.placed(threads=1)
    for step, (a, b) in zip(steps, itertools.pairwise(images), strict=True):
        assert step.source + a.size <= step.out or step.out + b.size <= step.source
    assert size == 20


def test_frames_of_another_size_never_reach_the_source():
    """It reads as many numbers as it was written for, wherever they end."""
    config = SIZES["toy"]
    network = winograd.Network(encoder(agent_of(config).reward_end.encoder, config.image_size))
    c, h, w = 2 * config.image_channels, *config.image_size
    modulation = torch.zeros(1, 1000)
    for shape in ((1, c, h, w // 2), (1, c, h * 2, w * 2), (1, c - 1, h, w)):
        with pytest.raises(ValueError, match=rf"expected images of \({c}, {h}, {w}\)"):
            network(torch.zeros(shape), modulation)
    with pytest.raises(ValueError, match="2 images and 1 modulations"):
        network(torch.zeros(2, c, h, w), modulation)

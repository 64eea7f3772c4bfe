"""The path for matrix units, whose tiles are done by hand here, or their instructions: torch of rounded numbers."""

from __future__ import annotations

import copy
import ctypes
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from diamond_core.config import AgentConfig, DenoiserConfig, RewardEndConfig
from diamond_core.device import processor
from diamond_core.nn.blocks import Downsample, ResBlock, SelfAttention2d, Upsample, conv3x3
from diamond_core.presets import playground
from diamond_core.world import accelerate as acceleration
from diamond_core.world import tiles, winograd
from diamond_core.world.accelerate import accelerate, at_once, engines_of
from diamond_core.world.dream import World
from diamond_core.world.engine import BodyModel, HoistedEngine, Judgement, JudgeModel, ada_norms
from diamond_core.world.tiles_steps import TileWriter, in_tiles, strip_height
from tests.conftest import EXACT
from tests.world.test_winograd import SIZES as WINOGRAD_SIZES
from tests.world.test_winograd import agent_of, calls

pytestmark = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")

SIZES = {**WINOGRAD_SIZES, "paper": AgentConfig(), "playground": playground("Pong").agent,
         "odd tiles": AgentConfig(image_size=(24, 40), denoiser=DenoiserConfig(channels=(48, 80), depths=(1, 1),
                                                                               attention=(False, False)),
                                  reward_end=RewardEndConfig(channels=(16, 48), depths=(1, 1),
                                                             attention=(False, False)))}
BY_HAND = "-DTILES_BY_HAND", "-Wno-psabi"
PRODUCT = 0x5C
"""The instruction's number."""


@pytest.fixture(autouse=True)
def by_hand(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("DIAMOND_CACHE", str(tmp_path_factory.getbasetemp() / "winograd-cache"))
    monkeypatch.setattr(tiles, "FLAGS", BY_HAND)
    tiles.library.cache_clear()
    yield
    tiles.library.cache_clear()


def engine_of(agent, config: AgentConfig, threads: int, monkeypatch) -> HoistedEngine:
    monkeypatch.setattr(winograd.torch, "get_num_threads", lambda: threads)
    return tiles.build(agent.denoiser, agent.reward_end, config.frame_shape)


def rounding(model: nn.Module) -> nn.Module:
    """The same, with what convolutions read and their weights in bfloat16."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.data = layer.weight.data.bfloat16().float()
            layer.register_forward_pre_hook(lambda _, inputs: tuple(x.bfloat16().float() for x in inputs))
    return model


def error(found: Tensor, expected: Tensor) -> float:
    return ((found - expected).square().mean() / expected.square().mean()).sqrt().item()


@pytest.mark.parametrize("name", SIZES)
def test_it_computes_what_torch_computes(name, monkeypatch):
    config = SIZES[name]
    agent = agent_of(config)
    truth = HoistedEngine(agent.denoiser, BodyModel(agent.denoiser.inner_model), JudgeModel(agent.reward_end), "torch")
    engine = engine_of(agent, config, 3, monkeypatch)
    for n in (1,) if name == "paper" else (1, 3):
        found, expected = calls(engine, config, n), calls(truth, config, n)
        for i in (0, 3, 4):  # the picture and the memory
            assert error(found[i], expected[i]) < 8e-3 and expected[i].std() > 1e-3


@pytest.fixture
def instructions(tmp_path, monkeypatch) -> Iterator[ctypes.CDLL]:
    """The source as it is compiled for AMX; where the processor has none, `trap.c` does each instruction."""
    if "avx512_bf16" not in processor().split():
        pytest.skip("the processor has no AVX512 with bfloat16, which the source needs beside AMX")
    monkeypatch.setattr(tiles, "FLAGS", ())
    if tiles.promised():
        yield tiles.library()
        return
    cc, library = winograd.compilers()[0], tmp_path / "trap.so"
    warnings = ["-Wall", "-Wextra", "-Werror"]
    source = str(Path(__file__).with_name("trap.c"))
    subprocess.run([*cc, *winograd.FLAGS, *warnings, source, "-o", str(library)], check=True)
    trap = ctypes.CDLL(str(library))
    try:
        found = winograd.loaded(tiles.SOURCE, ("-mamx-tile", "-mamx-bf16"))
    except tiles.NotHere:
        pytest.skip("the compiler knows no AMX")
    trap.begin()
    yield found
    trap.end()
    assert trap.times(PRODUCT) > 1000 and trap.faults() == 0


@pytest.mark.parametrize("name", ["toy", "odd tiles", "playground"])
def test_its_instructions_compute_it_too(name, instructions):
    config = SIZES[name]
    agent = agent_of(config)
    assert instructions.trial() == 0
    engine = winograd.engine_of(agent.denoiser, agent.reward_end, config.image_size, TileWriter, instructions, "tiles")
    by_hand = winograd.engine_of(agent.denoiser, agent.reward_end, config.image_size, TileWriter, winograd.loaded(
        tiles.SOURCE, BY_HAND), "by hand")
    found, expected = calls(engine, config, 1), calls(by_hand, config, 1)
    for i in (0, 3, 4):
        assert error(found[i], expected[i]) < 8e-3 and expected[i].std() > 1e-3


class Piece(nn.Module):
    """Convolutions around a part of the networks: so few that hardly a number is rounded to another side."""

    def __init__(self, kind: str, c: int = 32) -> None:
        super().__init__()
        self.kind = kind
        self.conv_in = conv3x3(7, c)
        self.part = {"block": ResBlock(c, c, 8, False), "wider": ResBlock(c, c + 16, 8, False),
                     "two inputs": ResBlock(2 * c, c, 8, False), "attention": SelfAttention2d(c), "down": Downsample(c),
                     "up": Upsample(c), "nothing": nn.Identity()}[kind]

    def forward(self, x: Tensor, cond: Tensor) -> Tensor:
        x = self.conv_in(x)
        if isinstance(self.part, ResBlock):
            return self.part(torch.cat([x, x], dim=1) if self.kind == "two inputs" else x, cond)
        return self.part(x)

    def written(self, h: int, w: int) -> TileWriter:
        writer = TileWriter(self)
        x = writer.conv3(writer.read(7, h, w), self.conv_in)
        if isinstance(self.part, ResBlock):
            x = writer.res_block([x, x] if self.kind == "two inputs" else [x], self.part)
        elif self.kind == "attention":
            x = writer.attention(x, self.part)
        elif self.kind == "down":
            x = writer.down(x, self.part)
        elif self.kind == "up":
            x = writer.conv3(writer.prepare([x], doubled=True), self.part.conv)
        writer.write(x, x.c)
        return writer


@pytest.mark.parametrize("kind", ["block", "wider", "two inputs", "attention", "down", "up", "nothing"])
@pytest.mark.parametrize(("size", "c"), [((32, 64), 64), ((8, 8), 64), ((8, 8), 16), ((12, 20), 48), ((4, 4), 16)])
@torch.no_grad()
def test_of_rounded_numbers_every_part_is_exact(kind, size, c):
    if kind == "attention" and size == (32, 64):
        pytest.skip("nobody has the time")
    torch.manual_seed(0)
    piece = Piece(kind, c)
    for p in piece.parameters():
        if not p.any():
            p.normal_(std=0.1)
    x, cond = torch.randn(2, 7, *size), torch.randn(2, 8)
    expected = rounding(piece)(x, cond)
    modulations = [norm.linear(cond) for norm in ada_norms(piece)] or [torch.zeros(2, 1)]
    found = winograd.Network(piece.written(*size), tiles.library())(x, torch.cat(modulations, dim=1))
    # the queries' weights are rounded behind their temperature here
    assert error(found, expected) < {"nothing": 1e-6, "attention": 2e-3}.get(kind, 2e-4)


def test_neither_threads_nor_batch_mates_change_a_bit(monkeypatch):
    config = SIZES["deep"]
    agent = agent_of(config)
    found = []
    for threads in (1, 2, 5):
        engine = engine_of(agent, config, threads, monkeypatch)
        x, past = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)), torch.zeros(4, 12, 64, 64)
        modulation = torch.zeros(4, BodyModel(agent.denoiser.inner_model).size)
        found += [engine.body(x, past, modulation)[2:3], engine.body(x[2:3], past[:1], modulation[:1])]
    assert all(torch.equal(found[0], other) for other in found[1:])


@pytest.mark.parametrize("constant", [17.3781, 301.7713, 2999.7731])
def test_channels_that_do_not_vary_are_normalised_to_nothing(constant, monkeypatch):
    agent = agent_of(SIZES["deep"])
    inner = agent.denoiser.inner_model
    inner.conv_in.weight.zero_()
    inner.conv_in.bias.fill_(constant)
    model = rounding(BodyModel(inner))
    expected = calls(HoistedEngine(agent.denoiser, model, JudgeModel(agent.reward_end), "torch"), agent.config, 1)[0]
    engine = winograd.engine_of(agent.denoiser, agent.reward_end, agent.config.image_size, TileWriter,
                                tiles.library(), "tiles")
    assert error(calls(engine, agent.config, 1)[0], expected) < 2e-2


@pytest.mark.parametrize("fault", ["a tap", "channels", "a border"])
def test_a_fault_is_noticed_that_rounding_would_not_make(fault):
    agent = agent_of(SIZES["paper"])
    wrong = copy.deepcopy(agent.denoiser)
    conv = wrong.inner_model.unet.d_blocks[1].resblocks[0].conv1
    if fault == "a tap":
        conv.weight[:, :, 0, 0] = 0
    elif fault == "channels":
        conv.weight.data = conv.weight.roll(1, dims=1)
    engine = winograd.engine_of(wrong, agent.reward_end, agent.config.image_size, TileWriter, tiles.library(), "x")
    engine.denoiser = agent.denoiser
    if fault == "a border":
        body = engine.body
        engine.body = lambda x, *others: body(nn.functional.pad(x, (0, 0, 1, 0))[:, :, :-1], *others)
    with pytest.raises(tiles.NotHere, match="off by"):
        winograd.compare(engine, agent.reward_end, agent.config.frame_shape, tiles.WORST_ERROR)


def test_weights_lie_as_the_products_read_them():
    k, c_out = 64, 48
    weight = torch.arange(k * c_out).reshape(k, c_out).remainder(251).float()
    lying = in_tiles(weight).view(torch.bfloat16).float()
    assert lying.numel() == weight.numel()
    pairs, last = lying[:k * 32].reshape(2, 2, 16, 16, 2), lying[k * 32:].reshape(2, 16, 16, 2)
    assert pairs[1, 0, 3, 5, 1] == weight[32 + 7, 5] and pairs[0, 1, 15, 2, 0] == weight[30, 18]
    assert last[1, 2, 7, 0] == weight[36, 39]
    assert [strip_height(*size) for size in ((64, 64), (16, 16), (8, 8), (12, 8), (2, 2))] == [2, 2, 4, 4, 2]


def test_the_source_compiles_for_the_processors_that_it_is_for(tmp_path):
    """Without a warning, where the compiler knows them."""
    cc = winograd.compilers()[0]
    options = [*winograd.FLAGS, "-march=sapphirerapids", "-Wall", "-Wextra", "-Werror"]
    empty = tmp_path / "empty.c"
    empty.write_text("#include <immintrin.h>\nvoid f(void) { _tile_dpbf16ps(0, 4, 6); }\n")
    if subprocess.run([*cc, *options, str(empty), "-o", str(tmp_path / "empty.so")], capture_output=True).returncode:
        pytest.skip("the compiler knows no AMX")
    done = subprocess.run([*cc, *options, str(tiles.SOURCE), "-o", str(tmp_path / "tiles.so")], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("flags", "switch", "expected"), [
    ("fpu amx_bf16 amx_tile avx512f avx512_bf16", "", True), ("fpu amx_bf16 amx_tile avx512_bf16", "ALL", True),
    ("amx_bf16 amx_tile avx512_bf16", "AVX512_CORE_AMX", True), ("amx_bf16 amx_tile avx512_bf16", "AVX2", False),
    ("amx_bf16 amx_tile avx512_bf16", "avx512_core_bf16", False), ("fpu avx512f avx512_bf16", "", False),
    ("fpu avx2", "", False)])
def test_only_a_processor_with_tiles_promises_them(flags, switch, expected, monkeypatch):
    monkeypatch.setenv(tiles.SWITCH, switch)
    monkeypatch.setattr(tiles, "processor", lambda: f"x86_64 flags : {flags} {switch}")
    assert tiles.promised() == expected


def test_a_kernel_that_refuses_is_told_of(monkeypatch):
    monkeypatch.setattr(tiles, "loaded", lambda *_: type("Refusing", (), {"permit": staticmethod(lambda: -1)}))
    with pytest.raises(tiles.NotHere, match="keeps"):
        tiles.library()


def promised(monkeypatch) -> tuple[World, tuple[int, int, int]]:
    monkeypatch.setattr(tiles, "promised", lambda: True)
    monkeypatch.setattr(acceleration, "has_bfloat16", lambda device: True)
    monkeypatch.setattr(acceleration, "share_of_time", lambda engine, *_: 0.5)
    agent = agent_of(SIZES["toy"])
    return agent.world(runtime=EXACT), agent.config.frame_shape


def test_where_it_has_outrun_winograds_the_search_ends(monkeypatch):
    world, shape = promised(monkeypatch)
    monkeypatch.setattr(acceleration.openvino_runtime, "build", None)
    assert accelerate(world, shape).wait(60).startswith(f"{tiles.NAME}, ready")


@pytest.mark.parametrize(("tiles_take", "openvino_takes", "expected"), [
    (0.8, 0.7, "OpenVINO bf16"), (0.8, 1.2, tiles.NAME), (1.3, 0.9, "OpenVINO bf16"), (1.3, 1.1, "Winograd float32"),
    (1.3, 0.95, "Winograd float32")])
def test_what_is_slower_is_not_taken(tiles_take, openvino_takes, expected, monkeypatch):
    world, shape = promised(monkeypatch)
    monkeypatch.setattr(acceleration, "share_of_time",
                        lambda engine, *_: tiles_take if engine.name == tiles.NAME else openvino_takes)

    def build(denoiser, reward_end, _) -> HoistedEngine:
        body, judge = BodyModel(denoiser.inner_model), JudgeModel(reward_end)
        return HoistedEngine(denoiser, body, lambda *x: Judgement(*judge(*x)), "OpenVINO bf16")

    monkeypatch.setattr(acceleration.openvino_runtime, "build", build)
    message = accelerate(world, shape).wait(60)
    assert world.path == expected, message
    assert (f"{tiles.NAME} takes 130% of the time" in message) is (tiles_take > 1)


def test_two_engines_are_timed_on_the_same_frames(monkeypatch):
    world, shape = promised(monkeypatch)
    monkeypatch.undo()
    calls = []

    def slowly(engine, *_) -> Callable[[], None]:
        time.sleep(0.05 if engine == fast else 0.0)  # how a dream begins is not what is timed

        def frame() -> None:
            calls.append(engine)
            time.sleep(0.02 if engine == slow else 0.005)
        return frame

    slow, fast = (HoistedEngine(world.denoiser, None, None, name) for name in ("slow", "fast"))
    monkeypatch.setattr(acceleration, "rehearsal", slowly)
    assert acceleration.share_of_time(fast, slow, world, shape, 1) < 0.6
    assert acceleration.share_of_time(slow, fast, world, shape, 1) > 1.5 and calls[:4] == [fast, slow, fast, slow]


def test_a_processor_without_tiles_fails_their_trial_in_another_process(tmp_path, monkeypatch):
    """The instructions end that process, or the kernel refuses them; this one goes on."""
    if tiles.promised():
        pytest.skip("this processor has them")
    cc, library = winograd.compilers()[0], tmp_path / "tiles.so"
    done = subprocess.run([*cc, *winograd.FLAGS, "-march=sapphirerapids", str(tiles.SOURCE), "-o", str(library)],
                          capture_output=True)
    if done.returncode:
        pytest.skip("the compiler knows no AMX")
    with pytest.raises(tiles.NotHere, match=r"failed their trial|keeps"):
        tiles.tried(library)
    monkeypatch.setattr(tiles, "TRIAL", tiles.TRIAL.replace("c.permit()", "0"))
    with pytest.raises(tiles.NotHere, match=r"failed their trial \(-4\)"):  # an illegal instruction
        tiles.tried(library)
    missing = tmp_path / "nothing.so"
    with pytest.raises(tiles.NotHere, match="failed their trial"):
        tiles.tried(missing)


def test_by_hand_the_trial_is_stood():
    tiles.library()  # raises if not


def test_where_it_is_not_all_is_as_before_and_told_once(monkeypatch):
    world, shape = promised(monkeypatch)
    monkeypatch.setattr(tiles, "FLAGS", ("-DTILES_BY_HAND", "-nonsense"))

    def missing(*_) -> HoistedEngine:
        raise acceleration.openvino_runtime.OpenVinoError("OpenVINO is not installed")

    monkeypatch.setattr(acceleration.openvino_runtime, "build", missing)
    message = accelerate(world, shape).wait(60)
    assert message.startswith("Winograd float32, ready") and message.count("tiles.c does not compile") == 1
    other, _ = promised(monkeypatch)
    at_once(other, shape)
    assert other.path == "Winograd float32"
    monkeypatch.setattr(winograd, "compilers", list)
    with pytest.raises(acceleration.openvino_runtime.OpenVinoError):
        notes: list[str] = []
        winograd.library.cache_clear()
        monkeypatch.setattr(acceleration.openvino_runtime, "build", missing)
        list(acceleration.engines(world, shape, note=notes.append))
    assert len(notes) == 1 and "no C compiler" in notes[0]
    winograd.library.cache_clear()


def test_a_tape_of_another_engine_is_played_on_that_one(monkeypatch):
    world, shape = promised(monkeypatch)
    assert set(engines_of({world.path, tiles.NAME}, world, shape)) == {world.path, "Winograd float32", tiles.NAME}
    assert "Winograd float32" in engines_of({"Winograd float32"}, world, shape)


def test_sizes_that_it_does_not_know_it_refuses(monkeypatch):
    config = replace(SIZES["deep"], image_size=(64, 40))
    agent = agent_of(config)
    with pytest.raises(tiles.NotHere, match="sides"):
        engine_of(agent, config, 1, monkeypatch)

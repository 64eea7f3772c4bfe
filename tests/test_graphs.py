"""Recorded functions compute what the plain ones do: the wrapping everywhere, the recording itself on an NVIDIA GPU."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace

import pytest
import torch

from diamond_core import graphs
from diamond_core.config import RuntimeConfig, SamplerConfig
from diamond_core.device import resolve
from diamond_core.envs import make_env
from diamond_core.presets import tiny
from diamond_core.training import learner as learning
from diamond_core.training.build import MODELS, learners_of, rollouts_of
from diamond_core.training.speed import endless, made_up
from diamond_core.world import compiled
from diamond_core.world.accelerate import engine_of_gpu
from diamond_core.world.deadline import MOST_STEPS
from tests.conftest import EXACT

NAMES = ["NOOP", "FIRE", "UP"]


def on_cuda(test):
    """Only there; and torch's compiler warns of its own doings."""
    there = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
    return there(pytest.mark.filterwarnings("ignore")(test))


class Plain:
    """Stands for a recording where there is no GPU: the same buffers, the function itself."""

    count = 0

    def __init__(self, f, inputs) -> None:
        Plain.count += 1
        self.f, self.inputs = f, [x.clone() for x in inputs]

    def __call__(self, *inputs):
        for buffer, x in zip(self.inputs, inputs, strict=True):
            buffer.copy_(x)
        return self.f(*self.inputs)


def step_by_step(world, agent, steps=4, num=3):
    now, frames = agent.dream(world, num=num), []
    for i in range(steps):
        step = world.step(now, (torch.arange(num) + i) % 3)
        now = step.state
        frames.append(step.frames.cpu())
    return torch.stack(frames), now


def test_a_world_on_recorded_steps_dreams_the_same(small_agent, monkeypatch):
    monkeypatch.setattr(graphs, "Recorded", Plain)
    plain, world = small_agent.world(runtime=EXACT), small_agent.world(runtime=EXACT)
    judge = plain.engine.judge
    world.engine = compiled.GraphEngine(world.denoiser, compiled.BodyModel(world.denoiser.inner_model), judge, "graphs")
    Plain.count = 0
    expected, state = step_by_step(plain, small_agent)
    found, same = step_by_step(world, small_agent)
    assert (expected.int() - found.int()).abs().max() <= 1
    assert torch.equal(state.steps, same.steps) and torch.equal(state.actions, same.actions)
    assert Plain.count == 1, "steps of one shape are one recording"
    world.step(same[0], torch.tensor([1]))
    world.set_sampler(SamplerConfig(num_steps=1))
    world.step(same[0], torch.tensor([1]))
    assert Plain.count == 3, "another number of dreams or another sampler is another one"
    for i in range(30):
        world.set_sampler(SamplerConfig(num_steps=1, temperature=1 + i / 10))
        world.step(same[0], torch.tensor([1]))
    assert len(world.engine._replays._kept) == compiled.NUM_GRAPHS


def recording(agent):
    """A world whose steps are recorded."""
    world = agent.world(runtime=EXACT)
    body = compiled.BodyModel(world.denoiser.inner_model)
    world.engine = compiled.GraphEngine(world.denoiser, body, world.engine.judge, "graphs")
    return world


def test_while_somebody_else_records_steps_go_without(small_agent, monkeypatch):
    monkeypatch.setattr(graphs, "Recorded", Plain)
    plain, world = small_agent.world(runtime=EXACT), recording(small_agent)
    Plain.count, held, done = 0, threading.Event(), threading.Event()

    def record():
        with graphs.RECORDING:
            held.set()
            done.wait(20)

    other = threading.Thread(target=record)
    other.start()
    held.wait(20)
    found, _ = step_by_step(world, small_agent)
    done.set()
    other.join()
    assert Plain.count == 0 and (step_by_step(plain, small_agent)[0].int() - found.int()).abs().max() <= 1
    step_by_step(world, small_agent)
    assert Plain.count == 1, "and is recorded afterwards"


def test_a_step_that_cannot_be_recorded_is_done_without_and_not_tried_again(small_agent, monkeypatch):
    tried = []

    def no_memory(*_):
        tried.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(graphs, "Recorded", no_memory)
    expected, _ = step_by_step(small_agent.world(runtime=EXACT), small_agent)
    found, _ = step_by_step(recording(small_agent), small_agent)
    assert len(tried) == 1 and (expected.int() - found.int()).abs().max() <= 1


def test_what_play_may_ask_of_a_gpu_is_recorded_before_it_does(small_agent, monkeypatch):
    monkeypatch.setattr(graphs, "Recorded", Plain)
    monkeypatch.setattr(compiled, "build", lambda *_: recording(small_agent).engine)
    world = small_agent.world(runtime=EXACT)
    world.engine = engine_of_gpu(world, small_agent.config.frame_shape, 1, lambda _: None)
    assert world.sampler.num_steps == 3
    Plain.count = 0
    for num_steps in range(1, MOST_STEPS + 1):
        world.set_sampler(SamplerConfig(num_steps=num_steps))
        world.step(small_agent.dream(world), torch.tensor([1]))
    assert Plain.count == 0


def test_where_the_compiler_of_a_gpu_fails_it_records_all_the_same(small_agent, monkeypatch):
    def no_triton(*_):
        raise RuntimeError("no Triton")

    def build(denoiser, reward_end, runtime):
        engine = recording(small_agent).engine
        engine.name = "compiled" if runtime.compile else "as it stands"
        if runtime.compile:
            engine.body = no_triton
        return engine

    monkeypatch.setattr(graphs, "Recorded", Plain)
    monkeypatch.setattr(compiled, "build", build)
    world, notes = small_agent.world(runtime=replace(EXACT, compile="on")), []
    assert engine_of_gpu(world, small_agent.config.frame_shape, 1, notes.append).name == "as it stands"
    assert notes == ["no Triton"]


def test_the_judge_is_one_graph_to_the_compiler(small_agent):
    """Wherever it stops the network behind is compiled again for every new number of dreams, while somebody plays."""
    world = small_agent.world(runtime=EXACT)
    now = small_agent.dream(world, num=2)
    frames, actions = now.frames[:, -1].float(), torch.zeros(2, dtype=torch.int64)
    judge = compiled.JudgeModel(small_agent.reward_end).eval()
    with torch.no_grad():
        found = torch._dynamo.explain(judge)(frames, actions, frames, now.hx, now.cx)
    assert found.break_reasons == []


def learner_of(name, runtime, records):
    config = tiny("toy")
    torch.manual_seed(0)
    learner = learners_of(config, NAMES, runtime, 1, None)[name]
    learner._records = records
    torch.manual_seed(1)
    if name == "actor_critic":
        rollouts = rollouts_of(config, make_env("toy", 4, image_size=config.agent.frame_shape[1:]), runtime)
        rollouts.begin(learner.model, seed=0)
        return learner, rollouts.stream(learner.model)
    length = config.segment_length if name == "denoiser" else config.reward_segment
    batch = made_up(config, NAMES, 4, length).map(lambda x: x.to(runtime.device))
    return learner, endless(batch)


def trained(name, runtime, records, updates=6):
    learner, batches = learner_of(name, runtime, records)
    losses = []
    for i in range(updates):
        torch.manual_seed(i)
        losses.append(learner.update(batches)["loss"].item())
    return learner, losses


@pytest.mark.parametrize("name", MODELS)
def test_an_update_from_recorded_gradients_is_the_same(name, monkeypatch):
    monkeypatch.setattr(learning, "Recorded", Plain)
    plain, expected = trained(name, resolve(EXACT), False)
    same, found = trained(name, resolve(EXACT), True)
    assert found == pytest.approx(expected, rel=1e-5)
    assert found[-1] < found[0] or name == "actor_critic", "it met something new each time"
    for a, b in zip(plain.model.parameters(), same.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_an_update_that_cannot_be_recorded_is_made_without(monkeypatch, capsys):
    def fails(f, inputs):
        f(*inputs)  # a rehearsal leaves gradients behind
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(learning, "Recorded", fails)
    _, expected = trained("actor_critic", resolve(EXACT), False)
    learner, found = trained("actor_critic", resolve(EXACT), True)
    assert found == expected and not learner._records
    assert capsys.readouterr().err.count("go on without a recording: operation not permitted") == 1


def test_an_agent_plays_the_same_with_recorded_thoughts(monkeypatch):
    monkeypatch.setattr(graphs, "Recorded", Plain)
    played = []
    for records in (False, True):
        config = tiny("toy")
        torch.manual_seed(0)
        model = learners_of(config, NAMES, resolve(EXACT), 1, None)["actor_critic"].model
        torch.nn.init.normal_(model.actor_linear.weight)
        rollouts = rollouts_of(config, make_env("toy", 4, image_size=config.agent.frame_shape[1:]), resolve(EXACT))
        rollouts._replays = graphs.Replays(1) if records else None
        rollouts.begin(model, seed=0)
        torch.manual_seed(1)
        Plain.count = 0
        played.append([rollouts.next(model) for _ in range(3)])
        assert Plain.count == records
    for one, other in zip(*played, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(vars(one).values(), vars(other).values(), strict=True))


@on_cuda
def test_a_recording_draws_fresh_numbers_and_the_next_ones_first():
    def f(x):
        return [x + torch.randn_like(x)]

    x = torch.zeros(1000, device="cuda")
    torch.manual_seed(3)
    recorded = graphs.Recorded(f, [x])
    first, = (y.clone() for y in recorded(x))
    second, = (y.clone() for y in recorded(x + 5))
    torch.manual_seed(3)
    again, = (y.clone() for y in recorded(x))
    assert torch.equal(first, again) and not torch.equal(first, second - 5)
    assert abs(second.mean().item() - 5) < 0.2


@on_cuda
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("compile", ["off", "on"])
def test_gradients_recorded_on_a_gpu(name, compile):
    options = RuntimeConfig(device="cuda", precision="float32", compile=compile)
    _, expected = trained(name, resolve(options), False)
    _, found = trained(name, resolve(replace(options)), True)
    assert found == pytest.approx(expected, rel=2e-2), "the same luck, whether recorded or not"


@on_cuda
def test_a_world_on_a_gpu_dreams_what_the_plain_one_dreams(small_agent):
    from diamond_core.world.accelerate import accelerate

    agent = copy.deepcopy(small_agent)
    plain = agent.world(runtime=RuntimeConfig(device="cuda", precision="float32", compile="off"))
    world = agent.world(runtime=RuntimeConfig(device="cuda"))
    message = accelerate(world, agent.config.frame_shape).wait()
    assert "graphs" in world.path, message
    expected, _ = step_by_step(plain, agent)
    found, _ = step_by_step(world, agent)
    error = (expected[0].float() - found[0].float()).square().mean().item()
    assert error < 255**2 / 10**4, "40 dB after a frame"

"""`diamond bench`: how fast everything runs on this machine, each beside the plain path in the same run."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from tyro.conf import Positional

from app.cli import new_file, parse

if TYPE_CHECKING:
    from diamond_core.device import Runtime
    from diamond_core.evaluation.speed import Timing
    from diamond_core.training.agent import Agent
    from diamond_core.world.dream import World
    from diamond_core.world.engine import Engine

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CROWDS = (1, 2, 4, 8)
GAMES = 32
Section = Literal["frames", "start", "imagination", "players", "updates", "emulator"]
SECTIONS: tuple[Section, ...] = get_args(Section)
Table = list[dict[str, Any]]


@dataclass(frozen=True)
class Bench:
    """Measures this machine. The plain path is eager float32, one state, as the published player runs it."""

    checkpoint: Positional[str | None] = None
    """Whose world; default: a world of the paper's size with random weights."""
    only: tuple[Section, ...] = SECTIONS
    models: tuple[Literal["denoiser", "reward_end", "actor_critic"], ...] = ("denoiser", "reward_end", "actor_critic")
    """Whose updates are measured."""
    batches: tuple[int, ...] = BATCHES
    """How many dreams at once imagination is measured with."""
    seconds: float = 20.0
    """About how long each comparison lasts."""
    steps: int = 3
    """Denoising steps."""
    compile: bool = False
    """On a CPU: measure torch.compile as well, which takes minutes to compile."""
    game: str = "Pong"
    device: str = "auto"
    out: Path | None = None
    """A JSON file with the same numbers."""
    json: bool = False
    """Print the JSON instead of the table."""


def bench(args: list[str]) -> None:
    """Prints the table, or the JSON."""
    c: Bench = parse(Bench, "bench", args)
    from diamond_core.device import describe_machine

    out = c.out and new_file(c.out)

    def say(text: str) -> None:
        print(f"  ... {text}", file=sys.stderr, flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "world"
        agent = prepare(c, path)
        report: dict[str, Any] = {"format": "diamond-bench-1", "machine": describe_machine(),
                                  "world": c.checkpoint or "paper-size, random weights", "steps": c.steps}
        there = functools.cache(lambda: worlds(c, agent, say))
        measures: dict[Section, Callable[[], Table]] = {
            "frames": lambda: frames(c, agent, there(), say), "start": lambda: start(c, path, say),
            "imagination": lambda: imagination(c, agent, there(), say), "players": lambda: players(c, path, say),
            "updates": lambda: updates(c, agent, say), "emulator": lambda: emulator(c, agent, say)}
        for name in c.only:
            report[name] = measures[name]()
    if out is not None:
        out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1) if c.json else table(report))


def prepare(c: Bench, path: Path) -> Agent:
    """The agent to measure, kept in a folder too so that a fresh process can load it."""
    import torch

    from diamond_core.config import AgentConfig
    from diamond_core.envs import action_names
    from diamond_core.training.agent import Agent
    from diamond_core.training.checkpoint import Card, save_checkpoint
    from diamond_core.training.library import load

    if c.checkpoint is not None:
        agent = load(c.checkpoint, "cpu")
    else:
        names = action_names(c.game)
        torch.manual_seed(0)
        agent = Agent.from_config(AgentConfig(), len(names))
        with torch.no_grad():
            for p in agent.parameters():
                if not p.any():  # layers that begin at zero would hide errors and denormal numbers
                    p.normal_(std=0.02)
        frames = torch.randint(0, 256, (2, 4, *agent.config.frame_shape), dtype=torch.uint8)
        agent.starts = {"frames": frames, "actions": torch.zeros(2, 4, dtype=torch.int64)}
        agent.card = Card(c.game, list(names), agent.config, training={}, metrics={})
    assert agent.card is not None
    save_checkpoint(path, agent, agent.card, agent.starts)
    return agent.eval()


def worlds(c: Bench, agent: Agent, say: Any) -> dict[str, World]:
    """The plain world first, then every path that this machine has."""
    import copy

    from diamond_core.config import RuntimeConfig
    from diamond_core.world.accelerate import engines

    sampler = replace(agent.config.sampler, num_steps=c.steps)

    def world(**options: Any) -> World:
        return copy.deepcopy(agent).world(sampler, RuntimeConfig(device=c.device, **options))

    def on(engine: Engine, world: World) -> World:
        other = copy.copy(world)
        other.engine = engine
        return other

    found = {"plain": world(precision="float32", channels_last="off", compile="off")}
    eager = world(compile="off")
    found[eager.path] = eager
    for options in [{}, {"compile": "on"}] if c.compile and eager.runtime.device.type == "cpu" else [{}]:
        fast = world(**options)
        say("looking for faster paths")
        try:
            for engine in engines(fast, agent.config.frame_shape, note=say):
                found[engine.name] = on(engine, fast)
        except Exception as error:  # a compiler's failure is a row of the table, not the end of it
            say(str(error))
    return found


def frames(c: Bench, agent: Agent, there: dict[str, World], say: Any) -> Table:
    """Whole frames of one dream: denoising, reward and end."""
    from diamond_core.evaluation.speed import difference_db, dreaming, side_by_side

    say(f"one dream on {len(there)} paths")
    plain = there["plain"]
    state = agent.dream(plain)
    timings = side_by_side({name: dreaming(world, state.to(world.runtime.device)) for name, world in there.items()},
                           plain.runtime, c.seconds, least=10)
    return [{"path": name, **timing.to_json(), "frames_a_second": 1 / timing.quantile(0.5),
             "ratio": timings["plain"].quantile(0.5) / timing.quantile(0.5),
             "agrees_db": difference_db(plain, there[name], state)} for name, timing in timings.items()]


def start(c: Bench, path: Path, say: Any) -> Table:
    """A fresh process: its first dreamt frame, the switch to the fast path, its worst stall; then again, cached."""
    rows: Table = []
    with tempfile.TemporaryDirectory() as cache:
        for label in ("first start", "next start"):
            say(f"{label} in a fresh process")
            code = f"from app.commands.bench import first_frames; first_frames({str(path)!r}, {c.device!r}, {c.steps})"
            environment = dict(os.environ, DIAMOND_CACHE=cache, TORCHINDUCTOR_CACHE_DIR=f"{cache}/inductor",
                               TRITON_CACHE_DIR=f"{cache}/triton", BENCH_STARTED=repr(time.time()),
                               OMP_WAIT_POLICY="PASSIVE")
            done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True,
                                  cwd=Path(__file__).parents[2], check=False)
            if done.returncode:
                raise ValueError(f"the fresh process failed: {done.stderr.strip().splitlines()[-1:]}")
            rows.append({"start": label, **json.loads(done.stdout.splitlines()[-1])})
    return rows


def first_frames(path: str, device: str, steps: int) -> None:
    """In a fresh process: dreams at 15 Hz until the engine was swapped and 60 frames more; prints JSON."""
    began = float(os.environ["BENCH_STARTED"])
    import torch

    from diamond_core.config import RuntimeConfig
    from diamond_core.training.library import load
    from diamond_core.world.accelerate import accelerate

    agent = load(path, device)
    world = agent.world(replace(agent.config.sampler, num_steps=steps), RuntimeConfig(device=device))
    now, action = agent.dream(world), torch.zeros(1, dtype=torch.int64)
    now = world.step(now, action).state
    now.frames.cpu()  # a GPU was only told what to do
    first = time.time() - began
    search = accelerate(world, agent.config.frame_shape)
    before: list[float] = []
    after: list[float] = []
    switched: float | None = None
    at_switch = 0.0
    while len(after) < 60:
        running = search.running
        started = time.perf_counter()
        now = world.step(now, action).state
        now.frames.cpu()
        took = time.perf_counter() - started
        (before if running else after).append(took)
        if not running and switched is None:
            switched, at_switch = time.time() - began, max([*before[-1:], took])
        time.sleep(max(0.0, 1 / 15 - took))
    before, after = sorted(before), sorted(after)
    # at the switch a frame may be slow on the new engine, or wait for it on the old one
    stall = max(0.0, at_switch - max(before[len(before) // 2] if before else 0.0, after[len(after) // 2]))
    print(json.dumps({"first_frame_s": first, "switched_s": switched, "path": world.path,
                      "converting_ms": 1000 * before[len(before) // 2] if before else None,
                      "switch_stall_ms": 1000 * stall, "then_ms": 1000 * after[len(after) // 2],
                      "memory_mb": peak_memory()}))


def peak_memory() -> float:
    """Of this process, in MB. Linux counts the use of resources on from the parent, by which it was made."""
    status = Path("/proc/self/status")
    if status.exists() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found.group(1)) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # not on Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)


def imagination(c: Bench, agent: Agent, there: dict[str, World], say: Any) -> Table:
    """Imagined steps a second of many dreams at once, on the plain path and on the best one."""
    from diamond_core.evaluation.speed import imagination as measure
    from diamond_core.evaluation.speed import players as how_many
    from diamond_core.training.speed import PAPER_IMAGINED

    rows: Table = []
    base = 0.0
    for name in dict.fromkeys(["plain", list(there)[-1]]):
        world = there[name]
        found: dict[int, Timing] = measure(world, agent.dream(world), c.batches, c.seconds / 4, say)
        smallest = min(found)
        base = base or smallest / found[smallest].quantile(0.5)
        rows += [{"path": name, "dreams": n, **timing.to_json(), "steps_a_second": n / timing.quantile(0.5),
                  "ratio": n / timing.quantile(0.5) / base} for n, timing in found.items()]
        rows.append({"path": name, "players_at_15_hz": how_many(found)})
    rows.append({"path": "paper, RTX 4090", "dreams": 32, "steps_a_second": PAPER_IMAGINED})
    return rows


def players(c: Bench, path: Path, say: Any) -> Table:
    """People at once in one `diamond web`, with as many denoising steps as 15 frames a second leave time for."""
    from importlib.util import find_spec

    if find_spec("websockets") is None or find_spec("gradio") is None:
        say("no players: diamond web is not installed (pip install 'diamond-playground[web]')")
        return []
    from app.web.crowd import serve_crowds

    with tempfile.TemporaryDirectory() as scratch:
        return serve_crowds(path, CROWDS, max(c.seconds, 2.0), c.device, Path(scratch), say)


def updates(c: Bench, agent: Agent, say: Any) -> Table:
    """One update of each model at the paper's batch sizes: the plain path, and the fastest that `diamond train` has
    (--runtime.precision auto --imagination.engine fast)."""
    from diamond_core.device import keep_memory
    from diamond_core.envs import action_names
    from diamond_core.evaluation.speed import side_by_side
    from diamond_core.presets import paper
    from diamond_core.training.speed import PAPER_MS
    from diamond_core.training.speed import updates as subjects_of

    config = replace(paper(c.game), agent=agent.config)
    names = action_names(c.game)
    runtimes = runtimes_of(c)
    made = {path: subjects_of(config, names, runtime, path == "plain") for path, runtime in runtimes.items()}
    rows: Table = []
    for model in c.models:
        say(f"updates of the {model.replace('_', ' ')}")
        for path, runtime in runtimes.items():
            if runtime.compile:  # now, and not within what is measured
                made[path][model]()
        timings = side_by_side({path: made[path][model] for path in made}, runtimes["plain"], c.seconds)
        rows += [{"model": model, "path": path, **timing.to_json(), "paper_ms": PAPER_MS[model],
                  "ratio": timings["plain"].quantile(0.5) / timing.quantile(0.5)} for path, timing in timings.items()]
    keep_memory(False)
    return rows


def runtimes_of(c: Bench) -> dict[str, Runtime]:
    """The plain path, and that of `diamond train` and of an agent that plays."""
    from diamond_core.config import RuntimeConfig
    from diamond_core.device import resolve

    return {"plain": resolve(RuntimeConfig(device=c.device, precision="float32", channels_last="off", compile="off",
                                           convolutions="torch")),
            "train": resolve(RuntimeConfig(device=c.device, compile="on" if c.compile else "auto"))}


def emulator(c: Bench, agent: Agent, say: Any) -> Table:
    """The real game, alone and played by the agent."""
    from diamond_core.evaluation.speed import side_by_side
    from diamond_core.training.speed import agent_plays, emulator_steps_a_second

    say("the emulator")
    assert agent.card is not None
    rows: Table = [{"game": agent.card.game, "steps_a_second": emulator_steps_a_second(agent.card.game)}]
    runtimes = runtimes_of(c)
    timings = side_by_side({path: agent_plays(agent, agent.card.game, runtime, GAMES)
                            for path, runtime in runtimes.items()}, runtimes["plain"], c.seconds / 4)
    return rows + [{"path": f"the agent plays, {path}", "games": GAMES, **timing.to_json(),
                    "steps_a_second": GAMES / timing.quantile(0.5),
                    "ratio": timings["plain"].quantile(0.5) / timing.quantile(0.5)}
                   for path, timing in timings.items()]


def table(report: dict[str, Any]) -> str:
    """The report for people: what the machine is, then a table a section."""
    machine = report["machine"]
    lines = [f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
             f"{' '.join(machine['instructions']) or 'no wide instructions known'}; "
             f"{machine.get('gpu', 'no CUDA')}; torch {machine['torch']}, Python {machine['python']}",
             f"world: {report['world']}, {report['steps']} denoising steps; plain = eager float32, one state"]
    for section in SECTIONS:
        rows: Table = report.get(section, [])
        for i, row in enumerate(rows):
            if i == 0 or row.keys() != rows[i - 1].keys():
                lines += ["", "  ".join([f"{section:<11}", *(title(key) for key in row)])]
            lines.append("  ".join([" " * 11, *(cell(key, value) for key, value in row.items())]))
    return "\n".join(lines)


WORDS = ("path", "start", "model", "game")


def title(key: str) -> str:
    """A column's heading."""
    text = key.replace("_a_second", "/s").replace("_", " ")
    return f"{text:<32}" if key in WORDS else f"{text:>12}"


def cell(key: str, value: Any) -> str:
    """A value under its heading."""
    if key in WORDS:
        return f"{value:<32}"
    if value is None:
        return f"{'-':>12}"
    return f"{value:>12}" if isinstance(value, int) else f"{value:>12.2f}" if value < 1000 else f"{value:>12.0f}"

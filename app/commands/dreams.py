"""`diamond evaluate free`, `events`, `chaos` and `schedules`: dreams that are left alone, or begin before something
happens, and what could be foreseen."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from app.cli import at_least, is_seed, new_file, parse
from app.commands.data import kind_of, players
from app.commands.evaluate import shown
from diamond_core.files import write_whole

if TYPE_CHECKING:
    from diamond_core.evaluation import FreeReport
    from diamond_core.replay import Dataset
    from diamond_core.training.agent import Agent
    from diamond_core.world.dream import World


FARTHEST = 16
"""Of the console's pixels that `evaluate chaos` moves a thing by."""


@dataclass(frozen=True)
class Free:
    """Leaves dreams alone under a policy, and counts what becomes of them.

    Beside it the same policy plays as many real games, and the held-out play is counted, whoever played it. What ends
    begins anew, so all steps count; the held-out play ends with its episode. Where fewer of its steps are seen, its
    shares of dreams (doubled, lost) are smaller for that alone.
    """

    checkpoint: Positional[str]
    """A name, a checkpoint folder or a run."""
    dataset: Path
    """Real play from which the dreams begin, and with which they are compared."""
    holdout: int = 0
    """Only the newest episodes of the dataset, as a run with --holdout left them out."""
    policy: str = "random"
    """Who plays: random actions that are held on to, the scripted player (Pong and Breakout), the checkpoint's agent,
    or another one that `collect` knows, as sticky:0.97, which stands and walks for dozens of steps."""
    begin: Literal["play", "games"] = "play"
    """Where dreams begin: in the midst of the held-out play; or where those of the app do, in new games after some
    steps of the agent, and the very same games go on beside them."""
    steps: int = 100
    dreams: int = 32
    denoising_steps: int | None = None
    """Default: the checkpoint's."""
    seed: int = 0
    out: Path | None = None
    """A JSON with the same numbers."""
    device: str = "auto"


def free(args: list[str]) -> None:
    """Points, things and likeness, the dream beside reality."""
    c: Free = parse(Free, "evaluate free", args)
    if c.policy != "agent":  # the checkpoint's own
        kind_of(c.policy)
    ready(c, steps=c.steps, dreams=c.dreams)
    from app.session.twin import WARMUP, has_reality
    from diamond_core.agent.policies import MIXED, RandomPolicy
    from diamond_core.agent.scripted import ScriptedPolicy
    from diamond_core.envs import make_env
    from diamond_core.evaluation import evaluate_free
    from diamond_core.types import Policy

    agent, world, dataset = world_and_play(c.checkpoint, c.dataset, c.holdout, c.denoising_steps, c.device)
    game, names = dataset.info.game, dataset.info.action_names
    policies: dict[str, Callable[[int], Policy]] = {
        "random": lambda n: RandomPolicy(len(names), n, c.seed, MIXED),
        "scripted": lambda n: ScriptedPolicy(game, names, n, c.seed),
        "agent": lambda n: agent.policy(n, c.seed, world.runtime)}
    policy_for = policies.get(c.policy) or (
        lambda n: players(c.policy, game, len(names), n, c.seed, agent.config.image_size))
    if c.begin == "games" and not has_reality(game):
        raise ValueError(f"dreams of {game} begin in the midst of play: leave --begin out")
    opening = (agent.policy(c.dreams, c.seed, world.runtime), WARMUP) if c.begin == "games" else None
    emulator = None
    if agent.config.image_channels == 3:  # as the emulator's games have
        emulator = make_env(game, c.dreams, life_loss_ends=True, image_size=agent.config.image_size,
                            noop_max=agent.config.noop_max)
    with shown(" steps") as watch:
        report = evaluate_free(world, policy_for, dataset, c.steps, c.dreams, c.seed, c.policy, watch, emulator,
                               opening)
    for line in told(report):
        print(line)
    keep(report.to_json(), c, agent)


def told(report: FreeReport) -> list[str]:
    """The numbers, a line each."""
    sides = [side for side in (report.dream, report.emulator, report.reality) if side is not None]
    who = "dream / the same in real games / held-out play" if report.emulator else "dream / held-out play"

    def beside(form: str, numbers: Iterable[float]) -> str:
        return " / ".join(format(x, form) for x in numbers)

    lines = [f"{report.game}: {report.dreams} free dreams of {report.steps} steps from {report.begun}, {report.policy} "
             f"play; {who}",
             f"  steps seen: {beside('.1f', (s.steps_seen for s in sides))}",
             f"  points in 100 steps: {beside('.2f', (s.points for s in sides))}"]
    if (lives := [s.lives for s in sides if s.lives is not None]):
        lines.append(f"  lives lost in 100 steps: {beside('.2f', lives)}")
    if report.dream.met is not None:
        past = " / ".join(f"{s.past} of {s.met}" for s in sides)
        lines.append(f"  balls that get past the paddle's middle: {past}")
    for name in report.dream.things:
        counts = [s.things[name] for s in sides]
        lines.append(
            f"  {name}: in no place {beside('.3f', (x.none for x in counts))} of the frames, in several "
            f"{beside('.3f', (x.several for x in counts))}; doubled in {beside('.2f', (x.doubled for x in counts))} of "
            f"the dreams, lost for a second in {beside('.2f', (x.lost for x in counts))}")
    return [*lines, f"  nearest real frame in the end: {report.nearest_psnr:.1f} dB, worst dream "
                    f"{report.nearest_psnr_worst:.1f} dB"]


@dataclass(frozen=True)
class EventsOf:
    """Begins dreams shortly before real points and ends, takes the recorded actions, and counts those that come."""

    checkpoint: Positional[str]
    """A name, a checkpoint folder or a run."""
    dataset: Path
    """Episodes that the world was not trained on."""
    holdout: int = 0
    """Only the newest episodes of the dataset, as a run with --holdout left them out."""
    ahead: int = 10
    """Dreams begin 1 to so many steps before the event."""
    moments: int = 64
    """Of each kind, at most."""
    denoising_steps: int | None = None
    """Default: the checkpoint's."""
    seed: int = 0
    out: Path | None = None
    """A JSON with the same numbers."""
    device: str = "auto"


def events(args: list[str]) -> None:
    """Counts in reality, on real frames and in the dream, a line a kind of event."""
    c: EventsOf = parse(EventsOf, "evaluate events", args)
    ready(c, ahead=c.ahead, moments=c.moments)
    from diamond_core.evaluation import evaluate_events

    agent, world, dataset = world_and_play(c.checkpoint, c.dataset, c.holdout, c.denoising_steps, c.device)
    with shown(" steps") as watch:
        report = evaluate_events(world, dataset, c.ahead, c.moments, c.seed, watch)
    print(f"{report.game}: dreams that begin 1 to {c.ahead} steps before an event")
    for kind, found in report.kinds.items():
        print(f"  {kind}: {found.windows} moments, {found.real} in reality, {found.on_real_frames:.1f} read off real "
              f"frames, {found.in_dream:.1f} in the dream")
    keep(report.to_json(), c, agent)


def ready(c: Free | EventsOf | Schedules, **counts: int) -> None:
    """Raises ValueError for what cannot be asked, before anything is loaded; makes the file's folder."""
    at_least(1, **counts)
    at_least(0, holdout=c.holdout)
    is_seed(c.seed)
    if c.out:
        new_file(c.out)


def keep(numbers: dict[str, Any], c: Free | EventsOf | Schedules, agent: Agent) -> None:
    """Writes them, where that is wanted, with what they are of, and says so."""
    if c.out is not None:
        assert agent.card is not None
        of = {"checkpoint": c.checkpoint, "sha256": agent.card.sha256, "dataset": str(c.dataset), "holdout": c.holdout}
        write_whole(c.out, (json.dumps({**numbers, **of}, indent=1) + "\n").encode())
        print(f"written to {c.out}")


def world_and_play(checkpoint: str, folder: Path, holdout: int, denoising_steps: int | None, device: str
                   ) -> tuple[Agent, World, Dataset]:
    """A checkpoint, its world on the fastest path, and a dataset of its game, or what was held out of it."""
    from dataclasses import replace

    from diamond_core.config import RuntimeConfig
    from diamond_core.replay import Dataset, DatasetInfo
    from diamond_core.training.library import load
    from diamond_core.world.accelerate import accelerate

    agent = load(checkpoint, device)
    assert agent.card is not None
    info = DatasetInfo(agent.card.game, tuple(agent.card.action_names), agent.config.frame_shape)
    dataset = Dataset.open(folder, info)
    if holdout > dataset.num_episodes:
        raise ValueError(f"{folder} has {dataset.num_episodes} episodes, of which --holdout {holdout} is more")
    if holdout:
        dataset = dataset.split(slice(-holdout, None))[1]
    sampler = replace(agent.config.sampler, num_steps=denoising_steps or agent.config.sampler.num_steps)
    world = agent.world(sampler, RuntimeConfig(device=device))
    accelerate(world, agent.config.frame_shape).wait()
    return agent, world, dataset


@dataclass(frozen=True)
class Schedules:
    """Compares the noise levels of one, two and three denoising steps on held-out episodes."""

    checkpoint: Positional[str]
    """A name, a checkpoint folder or a run."""
    dataset: Path
    """Episodes that the world was not trained on."""
    holdout: int = 0
    """Only the newest episodes of the dataset, as a run with --holdout left them out."""
    rollouts: int = 32
    horizon: int = 100
    seed: int = 0
    out: Path | None = None
    """A JSON with the same numbers."""
    device: str = "auto"


def schedules(args: list[str]) -> None:
    """Prints the one-step and the long-run error of each schedule."""
    c: Schedules = parse(Schedules, "evaluate schedules", args)
    ready(c, rollouts=c.rollouts, horizon=c.horizon)
    from diamond_core.evaluation.schedules import compare_schedules

    agent, world, dataset = world_and_play(c.checkpoint, c.dataset, c.holdout, None, c.device)
    with shown(" schedules") as watch:
        found = compare_schedules(world, dataset, horizon=c.horizon, num_rollouts=c.rollouts, seed=c.seed, watch=watch)
    late = f"{c.horizon - max(1, c.horizon // 10) + 1} to {c.horizon}"
    print(f"{dataset.info.game}: PSNR in dB of the first step, and of steps {late}")
    for row in found:
        sigmas = ", ".join(f"{sigma:.3g}" for sigma in row.sigmas)
        print(f"  {row.num_steps} steps  [{sigmas}]".ljust(36) + f"{row.one_step_psnr:7.2f} {row.long_psnr:7.2f}")
    keep({"game": dataset.info.game, "horizon": c.horizon, "rollouts": c.rollouts, "seed": c.seed,
          "schedules": [asdict(row) for row in found]}, c, agent)


@dataclass(frozen=True)
class Chaos:
    """Plays a game twice from the same moments under the same actions, once with its ball (or player) a little
    elsewhere: what a world could foresee that knows all but that. Beside it, `evaluate fidelity` says what one does.
    """

    game: Positional[str]
    policy: str = "mix"
    """Whose play: any that `collect` knows."""
    windows: int = 64
    """Games, one moment each."""
    pixels: int = 1
    """Of the console's screen, by which it is moved: to either side of each axis in turn."""
    seed: int = 0
    out: Path | None = None
    """A JSON with the same numbers."""


def chaos(args: list[str]) -> None:
    """How alike the two games stay, and how well one tells the points and ends of the other."""
    c: Chaos = parse(Chaos, "evaluate chaos", args)
    kind_of(c.policy)
    at_least(1, windows=c.windows, pixels=c.pixels)
    if c.pixels > FARTHEST:
        raise ValueError(f"--pixels must be from 1 to {FARTHEST}, got {c.pixels}")
    is_seed(c.seed)
    out = c.out and new_file(c.out)
    from diamond_core.envs import action_names, canonical
    from diamond_core.evaluation import evaluate_chaos
    from diamond_core.evaluation.chaos import movable

    game = canonical(c.game)
    movable(game)
    policy = players(c.policy, game, len(action_names(game)), c.windows, c.seed, (64, 64))
    with shown(" windows") as watch:
        report = evaluate_chaos(game, policy, c.windows, c.pixels, c.seed, c.policy, watch)
    print(f"{game}: {c.windows} windows of {c.policy} play, the {report.thing} {c.pixels} of the console's pixels "
          "elsewhere")
    print("  PSNR at steps " + ", ".join(f"{step}: {db:.1f} dB" for step, db in report.psnr.items()))
    for kind, found in report.precision.items():
        for within, x in found.items():
            if x.alone is not None and x.together is not None:
                print(f"  average precision of {kind}s within {within} steps ({x.events}): {x.alone:.2f} by one moved "
                      f"game, {x.together:.2f} by all of them")
    if out:
        write_whole(out, (json.dumps(report.to_json(), indent=1) + "\n").encode())
        print(f"written to {out}")

"""`diamond evaluate`: scores in the real game, scores over games, and how true the dream is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tyro.conf import Positional

from app.cli import at_least, is_seed, new_file, new_files, parse
from app.commands.data import kind_of, players

if TYPE_CHECKING:
    from diamond_core.evaluation import EventReport, FreeReport
    from diamond_core.replay import Dataset
    from diamond_core.training.agent import Agent
    from diamond_core.world.dream import World


@contextmanager
def shown(unit: str) -> Iterator[Callable[[str, int, int], None]]:
    """A progress line for work in parts: watch(part, done, total). A part's time is reckoned from its beginning."""
    from tqdm import tqdm

    now: list[Any] = []
    with tqdm(leave=False, unit=unit) as bar:
        def watch(part: str, done: int, total: int) -> None:
            if [part, total] != now:
                bar.reset(total)
                now[:] = part, total
            bar.set_description_str(part, refresh=False)
            bar.update(done - bar.n)

        yield watch


@dataclass(frozen=True)
class Returns:
    """Plays whole episodes of the real game with a checkpoint's agent."""

    checkpoint: Positional[str]
    """A name, a checkpoint folder or a run."""
    episodes: int = 100
    out: Path | None = None
    """Where the JSON goes; default: the checkpoint's name and -returns.json."""
    num_envs: int = 10
    seed: int = 0
    max_steps: int = 27_000
    """Steps after which an episode is cut off."""
    device: str = "auto"


def returns(args: list[str]) -> None:
    """Score, its spread, and the human-normalised score."""
    c: Returns = parse(Returns, "evaluate returns", args)
    at_least(1, episodes=c.episodes, num_envs=c.num_envs, max_steps=c.max_steps)
    is_seed(c.seed)
    from tqdm import tqdm

    from diamond_core.config import RuntimeConfig
    from diamond_core.device import resolve
    from diamond_core.envs import make_env
    from diamond_core.evaluation import Score, play_episodes
    from diamond_core.training.library import load

    agent = load(c.checkpoint, c.device)
    assert agent.card is not None
    game, n = agent.card.game, min(c.num_envs, c.episodes)
    out = new_file(c.out or Path(f"{label_of(c.checkpoint)}-returns.json"))
    if c.out is None and out.exists() and json.dumps(c.checkpoint) not in out.read_text():
        raise ValueError(f"{out} is of another checkpoint: give this one's file a name with --out")
    env = make_env(game, n, image_size=agent.config.image_size)
    policy = agent.policy(n, c.seed, resolve(RuntimeConfig(device=c.device)))
    with tqdm(total=c.episodes, unit=" episodes", leave=False) as bar:
        results = play_episodes(env, policy, c.episodes, c.seed, c.max_steps, watch=lambda *_: bar.update())
    env.close()
    score = Score(game, c.checkpoint, c.seed, c.max_steps, results.returns, results.lengths)
    score.save(out)
    numbers = score.to_json()
    spread = f" ± {numbers['sem']:.2f} (standard error)" if numbers["sem"] is not None else ""
    human = f", human-normalised {numbers['human_normalised']:.3f}" if numbers["human_normalised"] is not None else ""
    print(f"{game}: score {numbers['mean']:.2f}{spread} over {c.episodes} episodes{human}; written to {out}")


def label_of(checkpoint: str) -> str:
    """What files are called that are about it: by the run, too, where it is a moment of one."""
    path = Path(checkpoint)
    run = path.parts[-3:-2] if path.parent.name == "checkpoints" else ()
    return re.sub(r"[^\w.@-]", "-", "-".join([*run, path.name]))


@dataclass(frozen=True)
class AggregateScores:
    """Human-normalised scores over the files that `evaluate returns` wrote, one a run."""

    files: Positional[tuple[Path, ...]]
    out: Path | None = None
    """A JSON with the same numbers."""


def aggregate(args: list[str]) -> None:
    """Mean, median, IQM and optimality gap with 95% bootstrap intervals."""
    c: AggregateScores = parse(AggregateScores, "evaluate aggregate", args)
    from diamond_core.evaluation import aggregate as over_games
    from diamond_core.evaluation import read_scores

    out = c.out and new_file(c.out)
    numbers = over_games(read_scores(c.files)).to_json()
    print(f"{numbers['games']} games, {numbers['runs']} runs, human-normalised:")
    for name in ("mean", "median", "iqm", "optimality_gap"):
        e = numbers[name]
        interval = f"  95% interval {e['low']:.3f} to {e['high']:.3f}" if e["low"] is not None else ""
        print(f"  {name.replace('_', ' '):<15}{e['value']:.3f}{interval}")
    if out is not None:
        out.write_text(json.dumps(numbers, indent=2) + "\n")


@dataclass(frozen=True)
class Fidelity:
    """Replays held-out episodes inside the dream and compares."""

    checkpoint: Positional[str]
    """A name, a checkpoint folder or a run."""
    dataset: Path
    """Episodes that the world was not trained on."""
    holdout: int = 0
    """Judge only on the newest episodes of the dataset, as a run with --holdout left them out; the older ones then
    teach the classifier of actions."""
    train_dataset: Path | None = None
    """Other real play for the classifier of actions to learn from."""
    out: Path | None = None
    """A folder for fidelity.json and fidelity.png; default: CHECKPOINT-fidelity."""
    rollouts: int = 64
    horizons: tuple[int, ...] = (1, 5, 15, 50, 100)
    steps: int | None = None
    """Denoising steps; default: the checkpoint's."""
    seed: int = 0
    device: str = "auto"


def fidelity(args: list[str]) -> None:
    """Writes the report and prints its main lines."""
    c: Fidelity = parse(Fidelity, "evaluate fidelity", args)
    at_least(1, rollouts=c.rollouts, horizons=min(c.horizons, default=1))
    at_least(0, holdout=c.holdout)
    is_seed(c.seed)
    from dataclasses import replace

    from diamond_core.config import RuntimeConfig
    from diamond_core.evaluation import evaluate_fidelity
    from diamond_core.replay import Dataset, DatasetInfo
    from diamond_core.training.library import load
    from diamond_core.world.accelerate import accelerate

    agent = load(c.checkpoint, c.device)
    assert agent.card is not None
    sampler = agent.config.sampler if c.steps is None else replace(agent.config.sampler, num_steps=c.steps)
    info = DatasetInfo(agent.card.game, tuple(agent.card.action_names), agent.config.frame_shape)
    judged = Dataset.open(c.dataset, info)
    other = Dataset.open(c.train_dataset, info) if c.train_dataset else None
    if c.holdout >= judged.num_episodes > 0:
        raise ValueError(f"{c.dataset} has {judged.num_episodes} episodes: --holdout must leave some to learn from")
    if c.holdout:
        rest, judged = judged.split(slice(-c.holdout, None))
        other = other or rest
    out = new_files(c.out or Path(f"{label_of(c.checkpoint)}-fidelity"))
    world = agent.world(sampler, RuntimeConfig(device=c.device))
    accelerate(world, agent.config.frame_shape).wait()
    with shown(" steps") as watch:
        report = evaluate_fidelity(world, judged, c.horizons, c.rollouts, c.seed, other, watch=watch)
    report.save(out)
    for line in summary(report.to_json()):
        print(line)
    print(f"written to {out / 'fidelity.json'} and {out / 'fidelity.png'}")


def summary(report: dict[str, Any]) -> list[str]:
    """The main numbers, a line each, the baseline beside every one."""
    lines = [f"{report['game']}: {report['rollouts']} rollouts on {report['coverage']['episodes']} held-out episodes"]
    for name, unit in (("psnr", " dB"), ("ssim", "")):
        pairs = [(h, report[name]["dream"]["mean"][h - 1], report[name]["copy_last"]["mean"][h - 1])
                 for h in report["horizons"] if h <= len(report["n"]) and report["n"][h - 1]]
        texts = [f"step {h}: {d:.3g} (copy-last {b:.3g}){unit}" for h, d, b in pairs]
        lines.append(f"  {name.upper():<5}" + "  ".join(texts))
    if f := report["following"]:
        lines.append(f"  actions followed: {f['dream']:.3f} in the dream, {f['real']:.3f} in reality, ratio "
                     f"{f['ratio'] if f['ratio'] is not None else 'unknown'}")
    for name, p in report["precision"].items():
        if p["real"] is not None:
            lines.append(f"  average precision of {name}: {p['real']:.3f} on real frames, "
                         f"{p['dream']:.3f} in the dream ({p['events']} events){_within(p['within'])}")
        else:
            lines.append(f"  average precision of {name}: unknown, the held-out play has no such event")
    if (off := report["player_off"]) is not None:
        lines.append(f"  the player's sprite off by more than 2 pixels at step 15: {off:.3f} of the dreams")
    return lines


def _within(horizons: dict[int, dict[str, Any]]) -> str:
    """The dream's precision in its first steps, where something happened in them."""
    texts = [f"{its['dream']:.3f} of {its['events']} within {steps} steps" for steps, its in horizons.items()
             if its["events"]]
    return "".join(f"; {text}" for text in texts[:-1])


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
    at_least(1, steps=c.steps, dreams=c.dreams)
    is_seed(c.seed)
    if c.policy != "agent":  # the checkpoint's own
        kind_of(c.policy)
    out = c.out and new_file(c.out)
    from app.session.twin import WARMUP
    from diamond_core.agent.policies import MIXED, RandomPolicy
    from diamond_core.agent.scripted import ScriptedPolicy
    from diamond_core.envs import make_env
    from diamond_core.evaluation import evaluate_free
    from diamond_core.types import Policy

    agent, world, dataset = world_and_play(c.checkpoint, c.dataset, c.denoising_steps, c.device)
    game, names = dataset.info.game, dataset.info.action_names
    policies: dict[str, Callable[[int], Policy]] = {
        "random": lambda n: RandomPolicy(len(names), n, c.seed, MIXED),
        "scripted": lambda n: ScriptedPolicy(game, names, n, c.seed),
        "agent": lambda n: agent.policy(n, c.seed, world.runtime)}
    policy_for = policies.get(c.policy) or (
        lambda n: players(c.policy, game, len(names), n, c.seed, agent.config.image_size))
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
    keep(report, out)


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
    at_least(1, ahead=c.ahead, moments=c.moments)
    is_seed(c.seed)
    out = c.out and new_file(c.out)
    from diamond_core.evaluation import evaluate_events

    _, world, dataset = world_and_play(c.checkpoint, c.dataset, c.denoising_steps, c.device)
    with shown(" steps") as watch:
        report = evaluate_events(world, dataset, c.ahead, c.moments, c.seed, watch)
    print(f"{report.game}: dreams that begin 1 to {c.ahead} steps before an event")
    for kind, found in report.kinds.items():
        print(f"  {kind}: {found.windows} moments, {found.real} in reality, {found.on_real_frames:.1f} read off real "
              f"frames, {found.in_dream:.1f} in the dream")
    keep(report, out)


def keep(report: FreeReport | EventReport, out: Path | None) -> None:
    """Writes the numbers, where that is wanted, and says so."""
    if out is not None:
        out.write_text(json.dumps(report.to_json(), indent=1) + "\n")
        print(f"written to {out}")


def world_and_play(checkpoint: str, folder: Path, denoising_steps: int | None, device: str
                   ) -> tuple[Agent, World, Dataset]:
    """A checkpoint, its world on the fastest path, and a dataset of its game."""
    from dataclasses import replace

    from diamond_core.config import RuntimeConfig
    from diamond_core.replay import Dataset, DatasetInfo
    from diamond_core.training.library import load
    from diamond_core.world.accelerate import accelerate

    agent = load(checkpoint, device)
    assert agent.card is not None
    info = DatasetInfo(agent.card.game, tuple(agent.card.action_names), agent.config.frame_shape)
    dataset = Dataset.open(folder, info)
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
    rollouts: int = 32
    horizon: int = 100
    seed: int = 0
    device: str = "auto"


def schedules(args: list[str]) -> None:
    """Prints the one-step and the long-run error of each schedule."""
    c: Schedules = parse(Schedules, "evaluate schedules", args)
    at_least(1, rollouts=c.rollouts, horizon=c.horizon)
    is_seed(c.seed)
    from diamond_core.evaluation.schedules import compare_schedules

    _, world, dataset = world_and_play(c.checkpoint, c.dataset, None, c.device)
    with shown(" schedules") as watch:
        found = compare_schedules(world, dataset, horizon=c.horizon, num_rollouts=c.rollouts, seed=c.seed, watch=watch)
    late = f"{c.horizon - max(1, c.horizon // 10) + 1} to {c.horizon}"
    print(f"{dataset.info.game}: PSNR in dB of the first step, and of steps {late}")
    for row in found:
        sigmas = ", ".join(f"{sigma:.3g}" for sigma in row.sigmas)
        print(f"  {row.num_steps} steps  [{sigmas}]".ljust(36) + f"{row.one_step_psnr:7.2f} {row.long_psnr:7.2f}")

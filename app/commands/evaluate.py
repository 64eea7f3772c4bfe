"""`diamond evaluate returns`, `aggregate` and `fidelity`: scores in a game and over games, and how true a dream is."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from app.cli import at_least, is_seed, new_file, new_files, parse, spread


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
    from diamond_core.envs import frames_of, make_env
    from diamond_core.evaluation import Score, play_episodes
    from diamond_core.training.library import load

    agent = load(c.checkpoint, c.device)
    assert agent.card is not None
    game, n = agent.card.game, min(c.num_envs, c.episodes)
    out = new_file(c.out or Path(f"{label_of(c.checkpoint)}-returns.json"))
    sha256 = agent.card.sha256 or None
    known = out.read_text() if c.out is None and out.exists() else ""
    if known and (json.dumps(c.checkpoint) not in known or ('"sha256": "' in known and str(sha256) not in known)):
        raise ValueError(f"{out} is of another checkpoint: give this one's file a name with --out")
    env = make_env(game, n, image_size=agent.config.image_size, max_frames=frames_of(c.max_steps))
    policy = agent.policy(n, c.seed, resolve(RuntimeConfig(device=c.device)))
    with tqdm(total=c.episodes, unit=" episodes", leave=False) as bar:
        results = play_episodes(env, policy, c.episodes, c.seed, c.max_steps, watch=lambda *_: bar.update())
    env.close()
    score = Score(game, c.checkpoint, c.seed, c.max_steps, results.returns, results.lengths, n, sha256)
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
    numbers = over_games(read_scores(spread(c.files))).to_json()
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
    report.save(out, checkpoint=c.checkpoint, sha256=agent.card.sha256, dataset=str(c.dataset))
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

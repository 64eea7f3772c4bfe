"""`diamond collect`, `import`, `export` and `games`: data and checkpoints in and out."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout
from tyro.conf import Positional

from app.cli import at_least, is_seed, parse
from app.commands.train import canonical, stop_request

if TYPE_CHECKING:
    from torch import Tensor

    from diamond_core.training.agent import Agent
    from diamond_core.types import KeptPolicy, VectorEnv

LOCK = ".lock"
LOOSE = (0.0, 0.05, 0.2, 0.5)
"""How often an agent in a mix presses at random."""


@dataclass(frozen=True)
class Collect:
    """Gathers a dataset of real play."""

    game: str
    """An ALE game, gym:ID or toy."""
    out: Path
    """A new folder; with --append an existing dataset of the same game."""
    steps: int = 100_000
    policy: str = "mix"
    """random, sticky (repeats its actions; sticky:0.97 goes on with one for dozens of steps), scripted (goes where
    the ball will be; Pong and Breakout; scripted:0.05 is distracted for a twentieth of the time, without a number the
    worlds differ in that), agent:CKPT, or mix: random play of several kinds, with two of three worlds scripted where
    the game is known; mix:CKPT adds an agent at several degrees of luck instead."""
    num_envs: int = 32
    seed: int = 0
    """Play with the same seed is the same play: take another one to add to it, or to test on."""
    image_size: int = 64
    """Height and width of the frames."""
    append: bool = False
    life_loss_ends: bool = True
    """A lost life ends an episode."""
    noop_max: int = 30
    """A game begins with 0 to noop-max - 1 emulator frames of waiting. Where a game decides by its frame count what
    comes, as Breakout does where it serves, 1 has all games decide alike (and --agent.noop-max 1 those of training)."""


def collect(args: list[str]) -> None:
    """Plays many worlds at once and writes every episode."""
    c: Collect = parse(Collect, "collect", args)
    # by one name, or the same play could come twice
    if c.policy == "sticky":
        from diamond_core.agent.policies import STICKY
        c = replace(c, policy=f"sticky:{STICKY[0]}")
    kind, _, share = c.policy.partition(":")
    if kind in ("sticky", "scripted"):
        with suppress(ValueError):  # what is no number is refused below
            c = replace(c, policy=f"{kind}:{float(share):g}")
    from diamond_core.envs import action_names, make_env

    game = canonical(c.game)
    at_least(1, steps=c.steps, num_envs=c.num_envs, image_size=c.image_size, noop_max=c.noop_max)
    is_seed(c.seed)
    require_room(c.out, c.append)
    size = (c.image_size, c.image_size)
    policy = players(c.policy, game, len(action_names(game)), c.num_envs, c.seed, size)
    env = make_env(game, c.num_envs, life_loss_ends=c.life_loss_ends, image_size=size, noop_max=c.noop_max)
    with alone_in(c.out):
        add_play(c, game, env, policy)
    like = "" if c.noop_max == Collect.noop_max else f" --agent.noop-max {c.noop_max}"
    print(f"next: diamond train --game {game} --preset playground --dataset {shlex.quote(str(c.out))} "
          f"--run runs/{game.replace(':', '-')}{of_size(env.frame_shape)}{like}")


def add_play(c: Collect, game: str, env: VectorEnv, policy: KeptPolicy) -> None:
    """Plays and tells what there is now. Raises ValueError where the very same play is there already."""
    from tqdm import tqdm

    from diamond_core.envs import action_names
    from diamond_core.replay import Dataset, DatasetInfo
    from diamond_core.training.collect import Collector

    dataset = Dataset(c.out, DatasetInfo(game, tuple(action_names(game)), env.frame_shape, c.policy))
    its: dict[str, str | int | float] = {"game": game, "policy": c.policy, "seed": c.seed, "noop_max": c.noop_max,
                                         "life_loss_ends": c.life_loss_ends}
    unsaid = {"noop_max": Collect.noop_max, "life_loss_ends": Collect.life_loss_ends}  # in older play
    if any(its.items() <= {**unsaid, **dataset[i].info}.items() for i in range(dataset.num_episodes)):
        raise ValueError(f"{c.out} holds play of {c.policy} with seed {c.seed} already: add some with another --seed")
    collector = Collector(env, policy, dataset, c.seed, its)
    started = time.perf_counter()
    with stop_request() as should_stop, tqdm(total=c.steps, unit=" steps", unit_scale=True, leave=False) as bar:
        steps = collector.collect(c.steps, bar.update, should_stop)
    took = time.perf_counter() - started
    env.close()
    if steps < c.steps:
        print(f"stopped after {steps} of {c.steps} steps")
    rewards = dataset.counts_rewards()
    print(f"{dataset.num_steps} steps in {dataset.num_episodes} episodes in {c.out}: {rewards[0]} negative and "
          f"{rewards[2]} positive rewards, {dataset.counts_ends()[1]} ends; {steps / took:.0f} steps a second")


def of_size(frame_shape: tuple[int, ...]) -> str:
    """The option of `train` for frames that are not as large as a preset's."""
    from diamond_core.config import AgentConfig

    size = frame_shape[1:]
    return "" if size == AgentConfig.image_size else f" --agent.image-size {size[0]} {size[1]}"


def require_room(out: Path, append: bool, instead: str = ", or --append to add to a dataset") -> None:
    """Raises ValueError where a new dataset would come among other files."""
    if not append and out.exists() and (not out.is_dir() or any(p.name != LOCK for p in out.iterdir())):
        raise ValueError(f"{out} is not empty: choose another folder{instead}")


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """While episodes are added: two processes would take each other's names. Raises ValueError if another one does."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process adds to {folder}: wait for it, or choose another folder") from None
    try:
        yield
    finally:
        lock.release()


def players(policy: str, game: str, num_actions: int, num_envs: int, seed: int, size: tuple[int, int]) -> KeptPolicy:
    """The policy of that name. Raises ValueError for an unknown one, CheckpointError for an unfit checkpoint."""
    from diamond_core.agent.policies import ALL, LEANS, MIXED, STICKY, MixPolicy, RandomPolicy
    from diamond_core.agent.scripted import LAPSES, ScriptedPolicy, mixed_play
    from diamond_core.device import resolve
    from diamond_core.envs import action_names

    kind, checkpoint = kind_of(policy)
    if kind == "random":
        return RandomPolicy(num_actions, num_envs, seed)
    if kind == "sticky":
        return RandomPolicy(num_actions, num_envs, seed, share(policy) if checkpoint else STICKY)
    if kind == "scripted":
        return ScriptedPolicy(game, action_names(game), num_envs, seed, share(policy) if checkpoint else LAPSES)
    if not checkpoint:
        return mixed_play(game, action_names(game), num_envs, seed)
    agent, runtime = load_for(checkpoint, game, size), resolve()
    if kind == "agent":
        return agent.policy(num_envs, seed, runtime)
    of = len(LOOSE) + 1
    # in fewer worlds than that they take turns, so that each must see all
    agents = [agent.policy(num_envs, seed + i, runtime, epsilon, slice(1 + i, None, of) if num_envs >= of else ALL)
              for i, epsilon in enumerate(LOOSE)]
    return MixPolicy([RandomPolicy(num_actions, num_envs, seed, MIXED, LEANS), *agents])


def kind_of(policy: str) -> tuple[str, str]:
    """Its word, and what stands behind the colon. Raises ValueError for an unknown one."""
    kind, _, rest = policy.partition(":")
    if kind not in ("random", "sticky", "scripted", "mix", "agent") or (kind == "agent") > bool(rest):
        raise ValueError(f"unknown policy '{policy}': use random, sticky, sticky:SHARE, scripted, scripted:SHARE, mix, "
                         "mix:CKPT or agent:CKPT")
    return kind, rest


def share(policy: str) -> tuple[float]:
    """Of the time, in which the scripted player presses at random, or of the steps, in which the sticky one goes on
    with its action. Raises ValueError for what is none."""
    try:
        value = float(policy.partition(":")[2])
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise ValueError(f"{policy}: the share must be a number from 0 to below 1, as scripted:0.05 or sticky:0.95")
    return (value,)


def load_for(checkpoint: str, game: str, size: tuple[int, int]) -> Agent:
    """A checkpoint of this game that sees frames of that size. Raises CheckpointError for any other one."""
    from diamond_core.envs import action_names
    from diamond_core.training.checkpoint import CheckpointError
    from diamond_core.training.library import load

    agent = load(checkpoint, "auto")
    assert agent.card is not None
    if agent.card.game != game or list(agent.card.action_names) != action_names(game):
        raise CheckpointError(f"{checkpoint} is a checkpoint of {agent.card.game} with actions "
                              f"{agent.card.action_names}; expected one of {game}")
    if agent.config.image_size != size:
        raise CheckpointError(f"{checkpoint} sees frames of {agent.config.image_size[0]}x{agent.config.image_size[1]}: "
                              f"collect with --image-size {agent.config.image_size[0]}")
    return agent


@dataclass(frozen=True)
class Import:
    """Brings in a published state dict."""

    source: Positional[str]
    """A .pt or .safetensors file, or hub:OWNER/REPOSITORY."""
    game: str
    out: Path
    """A new folder."""
    half: bool = True
    """Weights as float16, half the size."""


def import_(args: list[str]) -> None:
    """Reads tensors, never code, and writes a checkpoint folder."""
    c: Import = parse(Import, "import", args)
    import torch

    from diamond_core.envs import action_names
    from diamond_core.training.checkpoint import import_published, save_checkpoint

    game = canonical(c.game)
    require_room(c.out, append=False, instead=" or remove it first")
    agent, card = import_published(c.source, game, action_names(game))
    save_checkpoint(c.out, agent, card, real_starts(game, agent), torch.float16 if c.half else torch.float32)
    print(f"{game} from {c.source} is in {c.out}; watch it: diamond record {c.out} --out {game}.mp4")


def real_starts(game: str, agent: Agent) -> dict[str, Tensor]:
    """A few real moments of the game, played at random, from which dreams can begin."""
    import torch

    from diamond_core.agent.policies import MIXED, RandomPolicy
    from diamond_core.envs import make_env
    from diamond_core.replay import Dataset, DatasetInfo, SegmentSampler
    from diamond_core.training.collect import Collector

    env = make_env(game, 8, image_size=agent.config.image_size)
    dataset = Dataset(None, DatasetInfo(game, tuple(map(str, range(env.num_actions))), env.frame_shape))
    Collector(env, RandomPolicy(env.num_actions, 8, 0, MIXED), dataset, 0, {}).collect(1600)
    env.close()
    batch = SegmentSampler(dataset, agent.config.denoiser.num_conditioning_frames, 128, weights=None, past_end=False,
                           seed=0).batch(0)
    rows = batch.mask.all(1).nonzero()[:64, 0]
    return {"frames": batch.frames[rows], "actions": batch.actions[rows].to(torch.int64)}


@dataclass(frozen=True)
class Export:
    """A copy of a checkpoint, or of a run's newest moment, in a new folder."""

    checkpoint: Positional[str]
    out: Path
    reward_end: str | None = None
    """Take the reward and end model from this checkpoint instead."""
    actor_critic: str | None = None
    """Take the agent from this checkpoint instead."""
    towards: str | None = None
    """Move the world's weights towards this checkpoint's: what a training forgot may come back so."""
    share: float = 0.3
    """So much of that way."""
    least_steps: int | None = None
    """Fewest denoising steps that `--steps auto` may come down to in this world."""
    sigma_min: float | None = None
    """Lowest noise level at which its frames are drawn."""
    two_step_sigma: float | None = None
    """Second noise level where there are two steps."""
    temperature: float | None = None
    """Scale of the noise that its frames are drawn from."""
    policy_temperature: float = 1.0
    """The agent's logits are divided by it: below 1 it draws what it thinks best more often."""
    half: bool = True
    """Weights as float16, half the size."""


def export(args: list[str]) -> None:
    """Loads, checks and writes again."""
    c: Export = parse(Export, "export", args)
    import torch

    from diamond_core.diffusion.noise import schedule
    from diamond_core.training.build import move_towards
    from diamond_core.training.checkpoint import PUBLISHED_NAMES, joined, save_checkpoint, stages_before
    from diamond_core.training.library import load

    agent = load(c.checkpoint, "cpu")
    for name in ("reward_end", "actor_critic"):
        if other := getattr(c, name):
            agent = joined(agent, load(other, "cpu"), name)
    if not c.policy_temperature > 0:
        raise ValueError(f"--policy-temperature must be more than 0, got {c.policy_temperature:g}")
    for p in agent.actor_critic.actor_linear.parameters():
        p.data /= c.policy_temperature
    stage: dict[str, object] = {"policy_temperature": c.policy_temperature} if c.policy_temperature != 1 else {}
    if c.towards is not None:
        move_towards(agent, load(c.towards, "cpu"), c.share)
        stage["towards_another_world"] = c.share
    assert agent.card is not None
    card = agent.card
    chosen = {name: value for name in ("least_steps", "sigma_min", "two_step_sigma", "temperature")
              if (value := getattr(c, name)) is not None}
    sampler = replace(card.config.sampler, **chosen)
    schedule(sampler)  # says what cannot be
    card = replace(card, config=replace(card.config, sampler=sampler))
    if c.policy_temperature != 1:
        card = replace(card, metrics={})  # its score was another policy's
    if stage:
        stages = [*stages_before(card, list(PUBLISHED_NAMES)), stage]
        card = replace(card, training={**card.training, "stages": stages})
    save_checkpoint(c.out, agent, card, agent.starts, torch.float16 if c.half else torch.float32)
    size = sum(p.stat().st_size for p in c.out.iterdir()) / 2**20
    print(f"{agent.card.game} is in {c.out}, {size:.1f} MiB")


@dataclass(frozen=True)
class Games:
    """Lists what can be played."""


def games(args: list[str]) -> None:
    """Prints the installed checkpoints and all games that the emulator knows."""
    parse(Games, "games", args)
    from diamond_core.envs import list_games
    from diamond_core.training.library import installed

    for name, folder in installed().items():
        print(f"{name:<20} dream in {folder}")
    print(f"real games: {', '.join(list_games())}, toy, gym:ENV_ID")

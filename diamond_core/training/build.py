"""From a configuration to what a training run is made of: learners, data and players."""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import attrgetter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diamond_core.agent.actor_critic import ActorCritic
from diamond_core.agent.losses import actor_critic_loss
from diamond_core.agent.policies import STICKY, AgentPolicy, RandomPolicy
from diamond_core.agent.rollout import Rollouts, thought_of
from diamond_core.agent.scripted import RULES, ScriptedPolicy, mixed_play
from diamond_core.config import CollectionConfig, TrainConfig
from diamond_core.device import Runtime
from diamond_core.diffusion.noise import schedule
from diamond_core.diffusion.sampler import check_num_steps
from diamond_core.envs import make_env
from diamond_core.envs.atari import MOST_NOOPS
from diamond_core.evaluation.sprites import moments_of
from diamond_core.replay import Dataset, DatasetInfo, SegmentSampler, collate
from diamond_core.training import convolutions
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import CheckpointError
from diamond_core.training.imitation import Imitation, Teacher, imitation_loss
from diamond_core.training.learner import Learner, Loss
from diamond_core.training.run import Run, flat
from diamond_core.training.sight import Sight, sight_loss
from diamond_core.types import KeptPolicy, VectorEnv
from diamond_core.world.accelerate import accelerate, at_once
from diamond_core.world.denoiser import denoising_loss
from diamond_core.world.dream import World
from diamond_core.world.engine import TorchEngine
from diamond_core.world.imagination import ImaginedEnv, Starts
from diamond_core.world.reward_end import reward_end_loss
from diamond_core.world.winograd_steps import NotHere

MODELS = ("denoiser", "reward_end", "actor_critic")
NUM_STARTS = 64
"""Starting points that a checkpoint carries."""
ACTION_LAYERS = re.compile(r"act_emb.*weight|actor_linear")
"""Layers with one row an action."""
FIRST_LAYER = "inner_model.conv_in.weight"
"""Of the denoiser, with columns for every past frame, oldest first."""
LEAST = {"seed": 0, "holdout": 0, "denoising.num_autoregressive_steps": 0, "collection.num_envs": 1,
         "collection.steps": 0, "collection.first_min_steps": 1, "final_epochs": 0, "runtime.threads": 0,
         "reward_segment": 2, "sight.segment": 1, "imitation.segment": 1,
         "returns.rollout_length": 1, "imagination.horizon": 1, "evaluation.episodes": 0,
         "evaluation.final_episodes": 0, "evaluation.num_envs": 1, "evaluation.max_steps": 1}
"""The smallest values with which a run comes to its end. The reward model learns from all but a segment's last step."""


TINY = 1e-30
NUMBERS = {"learning_rate": (TINY, math.inf, "more than 0"), "max_gradient_norm": (TINY, math.inf, "more than 0"),
           "weight_decay": (0, math.inf, "0 or more"), "warmup": (0, math.inf, "0 or more"),
           "ema_decay": (0, 1, "a share from 0 to below 1")}
"""A learner's numbers: from, to below, in words."""


@contextmanager
def asked_by(option: str) -> Iterator[None]:
    """Whatever is refused in it names the option that asked for it."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{error}: see --{re.sub('_(?=.)', '-', option)}") from error


def check(config: TrainConfig, names: Sequence[str], world_size: int) -> None:
    """Raises ValueError for settings that would end the run when their phase begins, maybe after hours: what it was
    begun with cannot be corrected then."""
    c = config.actor_critic
    worlds = c.batch_size // world_size
    if c.passes < 1 or not 1 <= c.parts <= worlds:
        raise ValueError(f"a rollout of {worlds} worlds is learned from at least once, in from 1 to {worlds} parts: "
                         "see --actor-critic.passes and --actor-critic.parts")
    if c.passes * c.parts > 1 and not config.returns.clip:
        raise ValueError("a rollout that is learned from more than once was played by an older agent: add "
                         "--returns.clip 0.2")
    if config.agent.image_channels != 3:
        raise ValueError(f"games give frames of 3 channels, got --agent.image-channels {config.agent.image_channels}")
    if not 0 <= config.agent.noop_max <= MOST_NOOPS:
        with asked_by("agent.noop_max"):
            raise ValueError(f"an episode begins with 0 to {MOST_NOOPS} no-ops, got {config.agent.noop_max}")
    for option, least in LEAST.items():
        if (value := attrgetter(option)(config)) < least:
            with asked_by(option):
                raise ValueError(f"expected {least} or more, got {value}")
    if not config.final_epochs and (config.is_static or config.model_free):
        with asked_by("final_epochs"):
            raise ValueError("a run that collects nothing has as many epochs as this says: expected 1 or more, got 0")
    for option in ("denoising.guess_share", "collection.epsilon", "returns.gamma", "returns.lambda_"):
        with asked_by(option):
            if not 0 <= attrgetter(option)(config) <= 1:
                raise ValueError(f"expected a share from 0 to 1, got {attrgetter(option)(config)}")
    with asked_by("returns.clip"):
        if not config.returns.clip >= 0:
            raise ValueError(f"expected 0 or more, got {config.returns.clip}")
    with asked_by("sampling_weights"):
        if (weights := config.sampling_weights) is not None and (min(weights, default=0) < 0 or not sum(weights)):
            raise ValueError(f"expected weights of which one is more than 0 and none is less, got {weights}")
    if config.holdout and config.dataset is None:
        raise ValueError("what a run plays itself is not held out: give --dataset, or leave --holdout out")
    if config.initial is None and config.initial_models != TrainConfig(config.game).initial_models:
        raise ValueError("there is nothing to take models from: give --init, or leave --initial-models out")
    with asked_by("agent.sampler.num_steps"):
        check_num_steps(config.agent.sampler.num_steps)
    with asked_by("imagination.denoising_steps"):
        check_num_steps(config.imagination.denoising_steps or 1)  # none, or 0, is as many as the world is played with
    check_agent(config)
    check_learners(config, world_size)
    if world_size > 1 and ":" in config.runtime.device:
        with asked_by("runtime.device"):
            raise ValueError(f"each process takes a device of its own, got {config.runtime.device}")
    with asked_by("collection.first_policy"):
        if config.collection.first_policy == "scripted" and config.dataset is None and not config.model_free:
            ScriptedPolicy(config.game, names, 1, 0)
    if config.sight.first_updates and config.game not in RULES:
        raise ValueError(f"no scripted player knows where things are in {config.game}: leave --sight out, or train "
                         f"on one of {', '.join(RULES)}")
    if config.model_free and (config.sight.first_updates or config.imitation.first_updates):
        raise ValueError("who learns without a model watches nobody first: leave --sight and --imitation out")
    if config.imitation.first_updates:
        teacher_of(config, names)


def check_agent(config: TrainConfig) -> None:
    """The same for sizes of networks and for the sampler."""
    for name, value in flat(config.agent).items():
        sizes, least = (value, 1) if isinstance(value, tuple) else ((value,), 0)
        if any(isinstance(size, int) and not isinstance(size, bool) and size < least for size in sizes):
            with asked_by(f"agent.{name}"):
                raise ValueError(f"expected {least} or more, got {value}")
    with asked_by("agent.sampler"):
        schedule(config.agent.sampler)


def check_learners(config: TrainConfig, world_size: int) -> None:
    """The same for each model that learns."""
    used = ["actor_critic"] if config.model_free else [*MODELS, *(
        name for name in ("sight", "imitation") if getattr(config, name).first_updates)]
    for name in used:
        learner = getattr(config, name)
        with asked_by(f"{name}.batch_size"):
            if learner.batch_size < 1 or learner.batch_size % world_size:
                raise ValueError(f"expected a batch that {world_size} processes can share evenly, got "
                                 f"{learner.batch_size}")
        with asked_by(f"{name}.accumulation"):
            if learner.accumulation < 1:
                raise ValueError(f"expected 1 or more, got {learner.accumulation}")
        for count, least in (("first_epoch", 1), ("first_updates", 0), ("updates", 0)):
            with asked_by(f"{name}.{count}"):
                if getattr(learner, count, least) < least:
                    raise ValueError(f"expected {least} or more, got {getattr(learner, count)}")
        for number, (low, high, word) in NUMBERS.items():
            with asked_by(f"{name}.{number}"):
                if not low <= (value := getattr(learner, number)) < high:
                    raise ValueError(f"expected {word}, got {value}")
        with asked_by(f"{name}.event_share"):
            if not 0 <= learner.event_share <= 1:
                raise ValueError(f"expected a share from 0 to 1, got {learner.event_share}")
        with asked_by(f"{name}.moments"):
            if learner.moments and name in ("sight", "imitation"):
                raise ValueError("who watches learns from all that was played: leave it out")
            if learner.moments and not config.model_free:
                moments_of(config.game, learner.moments)


def learners_of(config: TrainConfig, names: list[str], runtime: Runtime, world_size: int, source: Agent | None
                ) -> dict[str, Learner]:
    """One learner a model, by name; weights are fresh, or those of the source. Raises ValueError as `check` does."""
    check(config, names, world_size)
    agent = Agent.from_config(config.agent, len(names))
    if source is not None:
        take_weights(agent, source, config, names)
    runtime.place(agent)
    agent.actor_critic.encoder_rests = config.actor_critic.encoder_rests
    if runtime.swift:
        try:
            if runtime.winograd:
                convolutions.prepare(agent)
            else:
                convolutions.look_swiftly(agent)
        except NotHere as error:
            print(error, file=sys.stderr)  # what is printed may be JSON
    losses: dict[str, Loss] = {
        "denoiser": lambda model, batch: denoising_loss(model, batch, config.denoising),  # type: ignore[arg-type]
        "reward_end": lambda model, batch: reward_end_loss(model, batch),  # type: ignore[arg-type]
        "actor_critic": lambda model, played: actor_critic_loss(
            thought_of(model, played), config.returns)}  # type: ignore[arg-type]
    # what is recorded is of one size
    uneven = {"actor_critic"} if config.actor_critic.batch_size % config.actor_critic.parts else {}
    learners = {name: Learner(getattr(agent, name), losses[name], getattr(config, name), runtime, world_size,
                              has_still_loss=name not in uneven)
                for name in MODELS}
    if config.sight.first_updates:
        sight = runtime.place(Sight(agent.actor_critic, RULES[config.game]))
        learners["sight"] = Learner(sight, lambda model, batch: sight_loss(model, batch),  # type: ignore[arg-type]
                                    config.sight, runtime, world_size)
    if config.imitation.first_updates:
        learners["imitation"] = Learner(
            runtime.place(Imitation(agent.actor_critic)),
            lambda model, batch: imitation_loss(model, batch, config.returns),  # type: ignore[arg-type]
            config.imitation, runtime, world_size)
    if runtime.compile:
        for name in ("denoiser", "reward_end"):  # an actor-critic is small, and sees ever other numbers of frames
            compile_parts(learners[name].model)
    return learners


def take_weights(agent: Agent, source: Agent, config: TrainConfig, names: list[str]) -> None:
    """Copies the chosen models from another agent, of this game or of another one. Raises CheckpointError where sizes
    do not fit."""
    known = names if source.card is None else list(source.card.action_names)
    for name in config.initial_models:
        model = getattr(agent, name)
        taken = getattr(source, name).state_dict()
        fresh = model.state_dict()
        if known != names:
            taken |= {layer: for_actions(taken[layer], fresh[layer], known, names) for layer in taken
                      if ACTION_LAYERS.search(layer)}
        if name == "denoiser":
            taken |= {FIRST_LAYER: for_frames(taken[FIRST_LAYER], fresh[FIRST_LAYER], config.agent.image_channels)}
        try:
            model.load_state_dict(taken)
        except RuntimeError as error:
            reason = "; ".join(line.strip() for line in str(error).splitlines()[1:3])
            raise CheckpointError(f"{name} of {config.initial} does not fit this run's network: {reason}") from error


def for_actions(taken: Tensor, fresh: Tensor, known: list[str], names: list[str]) -> Tensor:
    """The rows (actions, ...) of a layer: what an action of the same name had learned, what is fresh for a new one."""
    if taken.shape[1:] != fresh.shape[1:]:
        return taken
    return torch.stack([taken[known.index(name)] if name in known else fresh[i] for i, name in enumerate(names)])


def for_frames(taken: Tensor, fresh: Tensor, channels: int) -> Tensor:
    """The first layer (out, (k + 1) c, 3, 3) of a denoiser that sees other numbers of past frames: those that are older
    than what it knew count for nothing yet."""
    more = fresh.shape[1] - taken.shape[1]
    if more % channels:
        return taken
    older = taken.new_zeros(len(taken), max(0, more), *taken.shape[2:])
    return torch.cat([older, taken[:, max(0, -more):]], dim=1)


def move_towards(agent: Agent, other: Agent, share: float) -> None:
    """Takes the denoiser's weights a share of the way to those of another one of the same game, which may see other
    numbers of past frames. What a training forgot may come back so, and most of what it learned stays. Raises
    CheckpointError where they do not fit, ValueError for a share that is none."""
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share of the way from 0 to 1, got {share:g}")
    ours, theirs = (x.denoiser.state_dict() for x in (agent, other))
    theirs |= {FIRST_LAYER: for_frames(theirs[FIRST_LAYER], ours[FIRST_LAYER], agent.config.image_channels)}
    games = [x.card.game for x in (agent, other) if x.card is not None]
    if len(set(games)) > 1 or {key: p.shape for key, p in ours.items()} != {key: p.shape for key, p in theirs.items()}:
        raise CheckpointError(f"the two worlds ({' and '.join(games)}) have not the same game and sizes")
    if any(not torch.allclose(p, theirs[key], rtol=1e-2) for key, p in agent.denoiser.named_buffers()):
        raise CheckpointError("the two worlds have not the same beginnings: their weights have no common way")
    agent.denoiser.load_state_dict({key: p.lerp(theirs[key].to(p), share) for key, p in ours.items()})


def compile_parts(model: nn.Module) -> None:
    """Compiles what is called with the same shapes again and again, in place."""
    for name in ("inner_model", "encoder"):
        if hasattr(model, name):
            getattr(model, name).compile()


def dataset_of(config: TrainConfig, run: Run, names: list[str], known: Sequence[int] | None = None) -> Dataset:
    """The run's own dataset, or the static one without what is held out; in RAM only for model-free training. A static
    one that has grown is what it was when the episodes that were learned from had the `known` lengths."""
    info = DatasetInfo(config.game, tuple(names), config.agent.frame_shape)
    if config.dataset is None:
        return Dataset(None if config.model_free else run.dataset, info)
    dataset = Dataset.open(Path(config.dataset), info)
    if known is not None:
        return dataset.oldest(known)
    if config.holdout >= dataset.num_episodes:
        raise ValueError(f"{config.dataset} has {dataset.num_episodes} episodes, of which --holdout {config.holdout} "
                         "leaves none to learn from")
    return dataset.split(slice(-config.holdout, None))[0] if config.holdout else dataset


def player_of(name: str, game: str, config: CollectionConfig, actor_critic: ActorCritic, runtime: Runtime,
              names: Sequence[str], seed: int) -> KeptPolicy:
    """Who plays in a collection."""
    if name == "agent":
        return AgentPolicy(actor_critic, runtime, config.num_envs, seed, config.epsilon)
    if name == "scripted":
        return ScriptedPolicy(game, names, config.num_envs, seed)
    if name == "mix":
        return mixed_play(game, names, config.num_envs, seed)
    return RandomPolicy(len(names), config.num_envs, seed, STICKY if name == "sticky" else (0.0,))


def practice_env(config: TrainConfig, n: int, shown: Agent, starts: Starts, runtime: Runtime, tells: bool) -> VectorEnv:
    """Where the actor-critic learns: in dreams of the shown agent's world, or in the real game in model-free training.
    Tells why a fast engine is not used."""
    c = config
    if c.model_free:
        return make_env(c.game, n, life_loss_ends=c.life_loss_ends, image_size=c.agent.image_size,
                        noop_max=c.agent.noop_max)
    sampling = replace(c.agent.sampler, num_steps=c.imagination.denoising_steps or c.agent.sampler.num_steps)
    world = World(shown.denoiser, shown.reward_end, sampling, runtime)
    if c.imagination.engine == "fast":
        if c.runtime.precision == "float32" and runtime.device.type == "cpu":
            at_once(world, c.agent.frame_shape)  # the other engines may compute in bfloat16
            message = "no faster engine computes in float32 here: it needs a C compiler"
        else:
            # nobody waits here, and a run that is resumed must find the same engine: not beside the work, but before it
            message = accelerate(world, c.agent.frame_shape, num_dreams=n).wait()
        if isinstance(world.engine, TorchEngine) and tells:
            print(message)
    return ImaginedEnv(world, starts, n, c.imagination.horizon)


def rollouts_of(config: TrainConfig, env: VectorEnv, runtime: Runtime) -> Rollouts:
    """The actor-critic's play there, as often and in as many parts as it learns from it."""
    c = config.actor_critic
    return Rollouts(env, config.returns.rollout_length, runtime, c.passes, c.parts)


def teacher_of(config: TrainConfig, names: Sequence[str]) -> Teacher | None:
    """Whose moves the agent learns where they are not the recorded ones."""
    if config.imitation.teacher == "recorded":
        return None
    if config.game not in RULES:
        raise ValueError(f"no scripted player can teach {config.game}: leave --imitation.teacher out, or train on one "
                         f"of {', '.join(RULES)}")
    return lambda n: ScriptedPolicy(config.game, names, n, config.seed, aim=config.imitation.caution)


def played_in(config: TrainConfig, dataset: Dataset, updates: int) -> dict[str, int | bool]:
    """What a card says of the real play that was learned from: what was kept, or in model-free training what the
    actor-critic met in so many updates."""
    if not config.model_free:
        return {"steps": dataset.num_steps, "episodes": dataset.num_episodes}
    c = config.actor_critic
    rollouts = -(-updates * c.accumulation // (c.passes * c.parts))
    return {"steps": rollouts * config.returns.rollout_length * c.batch_size, "model_free": True}


def starts_of(config: TrainConfig, dataset: Dataset) -> dict[str, Tensor] | None:
    """Frames and actions from the data, from which a dream can begin; None where nothing dreams, or no episode is long
    enough."""
    if config.model_free:
        return None
    k = config.agent.denoiser.num_conditioning_frames
    batch = SegmentSampler(dataset, k, 4 * NUM_STARTS, weights=None, past_end=False, seed=config.seed).batch(0)
    whole = batch.mask.all(dim=1).nonzero()[:NUM_STARTS, 0]
    if not len(whole):  # where most episodes are short, the few that are long enough may not have been drawn
        windows = [(i, t) for i, length in enumerate(dataset.lengths.tolist()) for t in range(length - k + 1)]
        if not windows:
            return None
        drawn = np.random.default_rng(config.seed).permutation(len(windows))[:NUM_STARTS]
        batch = collate([(dataset[windows[row][0]], windows[row][1]) for row in drawn], k)
        whole = torch.arange(len(batch))
    return {"frames": batch.frames[whole], "actions": batch.actions[whole]}

"""Checkpoints: one folder with weights, a card and starting frames; the published ones are read too. Source: SPEC 9.

A checkpoint folder holds `weights.safetensors` (keys as published), `card.json` (everything else about it, with the
weights' SHA-256) and `starts.safetensors` (real frames from which dreams begin). Nothing is ever unpickled as code.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import pickle
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cattrs
import torch
from cattrs.preconf.json import make_converter
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from diamond_core.config import ActorCriticConfig, AgentConfig, DenoiserConfig, RewardEndConfig
from diamond_core.diffusion.noise import schedule
from diamond_core.training.agent import PUBLISHED_NAMES, Agent

FORMAT = 1
WEIGHTS, CARD, STARTS = "weights.safetensors", "card.json", "starts.safetensors"
STAGE = ("preset", "steps", "episodes", "model_free", "updates", "seconds")
"""What is told of a training that went before."""
CONVERTER = make_converter(forbid_extra_keys=True)
# JSON has no infinity: other programs read cards too
CONVERTER.register_unstructure_hook(float, lambda x: x if math.isfinite(x) else str(x))


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message says what was expected, what came and what to do."""


@dataclass(frozen=True)
class Card:
    """What a checkpoint says of itself."""

    game: str
    action_names: list[str]
    config: AgentConfig
    format: int = FORMAT
    sha256: str = ""
    """Of the weights file."""
    training: dict[str, Any] = field(default_factory=dict)
    """How it was made."""
    metrics: dict[str, Any] = field(default_factory=dict)
    """What was measured."""


def stages_before(card: Card | None, models: Sequence[str]) -> list[dict[str, Any]]:
    """The trainings behind a checkpoint whose models are gone on with, oldest first: game, updates, seconds."""
    models = [*models, *(["sight", "imitation"] if "actor_critic" in models else [])]
    if card is None or not card.training:
        return []
    own = {name: card.training[name] for name in STAGE if name in card.training}
    stages = card.training.get("stages", [{"game": card.game, **own}])
    return [{**stage, "updates": {name: n for name, n in stage.get("updates", {}).items() if name in models}}
            for stage in stages if "policy_temperature" not in stage or "actor_critic" in models]


def joined(agent: Agent, other: Agent, name: str) -> Agent:
    """The agent with one model (denoiser, reward_end or actor_critic) of another one. Raises CheckpointError where
    actions or sizes differ."""
    card, its = agent.card, other.card
    assert card is not None and its is not None
    if (card.game, card.action_names, card.config.frame_shape) != (its.game, its.action_names, its.config.frame_shape):
        raise CheckpointError(f"cannot join a world of {card.game} with a model of {its.game}: actions or sizes differ")
    stages = stages_before(card, [model for model in PUBLISHED_NAMES if model != name])
    for stage in stages_before(its, [name]):
        same = next((s for s in stages if {**s, "updates": 0} == {**stage, "updates": 0}), None)
        if same is not None:
            same["updates"] = {**same["updates"], **stage["updates"]}
        elif any(stage["updates"].values()) or "policy_temperature" in stage:
            stages.append(stage)
    config = replace(card.config, **{name: getattr(its.config, name)})
    one = Agent(config, **{model: getattr(other if model == name else agent, model) for model in PUBLISHED_NAMES})
    training = {name: value for name, value in card.training.items() if name != "stages"}
    one.card = replace(card, config=config, training={**training, **summed(stages)}, metrics={})
    one.starts = agent.starts
    return one


def summed(stages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Updates and seconds over all stages, and the stages themselves where there are several."""
    updates: Counter[str] = Counter()
    for stage in stages:
        updates.update(stage.get("updates", {}))
    total = {"updates": dict(updates), "seconds": sum(stage.get("seconds", 0) for stage in stages)}
    return total if len(stages) == 1 else {**total, "stages": list(stages)}


def save_checkpoint(folder: str | Path, agent: Agent, card: Card, starts: dict[str, Tensor] | None = None,
                    dtype: torch.dtype = torch.float32) -> Path:
    """Writes a new checkpoint folder, whole or not at all. Raises CheckpointError if something stands there."""
    folder = Path(folder)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is not empty: choose another folder or remove it first")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        weights = {key: p.detach().to("cpu", dtype).contiguous() for key, p in agent.published_state_dict().items()}
        for key, p in agent.published_state_dict().items():
            if p.isfinite().all() and not weights[key].isfinite().all():
                raise CheckpointError(f"{key} has numbers of {p.abs().max():g}, too large for {dtype}: keep float32 "
                                      "(--no-half)")
        (temporary / WEIGHTS).write_bytes(save(weights))
        card = Card(**{**vars(card), "sha256": sha256_of(temporary / WEIGHTS)})
        (temporary / CARD).write_text(json.dumps(CONVERTER.unstructure(card), indent=2) + "\n")
        if starts is not None:
            (temporary / STARTS).write_bytes(save({name: x.cpu().contiguous() for name, x in starts.items()}))
        # others may read it, whatever the libraries that wrote it think
        temporary.chmod(0o755)
        for file in temporary.iterdir():
            file.chmod(0o644)
        if folder.exists():
            folder.rmdir()
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return folder


def load_checkpoint(folder: Path, device: torch.device | str = "cpu") -> Agent:
    """Reads a checkpoint folder, checking weights against the card. Raises CheckpointError."""
    card = read_card(folder)
    weights = read_weights(folder / WEIGHTS)
    if sha256_of(folder / WEIGHTS) != card.sha256:
        raise CheckpointError(f"{folder / WEIGHTS} does not match the SHA-256 on its card: it was changed or damaged; "
                              "fetch the folder again")
    agent = build(card.config, len(card.action_names), weights, str(folder), device)
    agent.card = card
    if (folder / STARTS).exists():
        agent.starts = starts = read_weights(folder / STARTS)
        if starts.keys() != {"frames", "actions"} or not len(starts["frames"]) or (
                starts["frames"].ndim, starts["actions"].ndim) != (5, 2):
            raise CheckpointError(f"{folder / STARTS} holds no frames and actions from which this world can begin")
    return agent


def read_card(folder: Path) -> Card:
    """The card of a checkpoint folder."""
    path = folder / CARD
    if not path.is_file():
        raise CheckpointError(f"{folder} is not a checkpoint: it has no {CARD}; published .pt files are read by "
                              "`diamond import`")
    try:
        content = json.loads(path.read_text())
        if content.get("format") != FORMAT:
            raise CheckpointError(f"{path} has format {content.get('format')}, this program reads {FORMAT}")
        return CONVERTER.structure(content, Card)
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a card: {error}") from error
    except cattrs.BaseValidationError as error:
        raise CheckpointError(f"{path} is not a card: {'; '.join(cattrs.transform_error(error)[:3])}") from error


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a torch file that holds nothing but tensors."""
    if not path.is_file():
        raise CheckpointError(f"{path} is missing")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():
            # foreign files make torch warn of their pickle protocol before it refuses them
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own words advise to read it with less care
        raise CheckpointError(f"{path} is damaged or holds something other than weights; what could run a program "
                              "is not read") from error
    except (SafetensorError, RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = next(iter(str(error).strip().splitlines()), "it ends too soon")
        raise CheckpointError(f"{path} is damaged or holds something other than weights: {reason}") from error
    if not isinstance(content, dict) or not all(
            isinstance(x, Tensor) and x.device.type == "cpu" and not x.is_quantized for x in content.values()):
        raise CheckpointError(f"{path} is not a state dict: expected tensors by name")
    return content


def build(config: AgentConfig, num_actions: int, weights: dict[str, Tensor], source: str,
          device: torch.device | str = "cpu") -> Agent:
    """An agent with these weights. Raises CheckpointError naming missing, unexpected and wrongly shaped keys."""
    try:
        schedule(config.sampler)
        with Unset():
            agent = Agent.from_config(config, num_actions)
    except (LookupError, ArithmeticError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{source} has sizes of which no network can be made ({error!r})") from error
    ours = agent.published_state_dict()
    problems = [(f"missing {key}", key not in weights) for key in ours]
    problems += [(f"unexpected {key}", key not in ours) for key in weights]
    problems += [(f"{key} is {list(weights[key].shape)}, expected {list(ours[key].shape)}",
                  weights[key].shape != ours[key].shape) for key in ours if key in weights]
    found = [text for text, is_wrong in problems if is_wrong]
    if found:
        more = f" and {len(found) - 5} more" if len(found) > 5 else ""
        raise CheckpointError(f"{source} does not fit: {'; '.join(found[:5])}{more}")
    with torch.no_grad():
        for key, p in ours.items():
            p.copy_(weights[key])
    return agent.to(device).eval()


class Unset(TorchFunctionMode):
    """Modules built in it begin with whatever lies in memory: half a second saved where weights are loaded next."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__module__", None) == nn.init.__name__ or func in (Tensor.uniform_, Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        if func is torch.linalg.qr:
            return args[0], args[0]
        return func(*args, **(kwargs or {}))


def config_of(weights: dict[str, Tensor]) -> tuple[AgentConfig, int]:
    """Layer sizes and the number of actions, read from published tensors. Raises CheckpointError."""
    try:
        return _config_of(weights)
    except (LookupError, ArithmeticError, ValueError) as error:
        raise CheckpointError(f"these are not DIAMOND weights: {error!r}; expected names that begin with "
                              f"{', '.join(PUBLISHED_NAMES.values())}") from error


def _config_of(w: dict[str, Tensor]) -> tuple[AgentConfig, int]:
    inner = "denoiser.inner_model"
    num_actions, action_dim = w[f"{inner}.act_emb.0.weight"].shape
    cond = 2 * w[f"{inner}.noise_emb.weight"].shape[1]
    channels, depths, attention = levels_of(w, f"{inner}.unet.d_blocks")
    image_channels = w[f"{inner}.conv_out.weight"].shape[0]
    frames, actions = w[f"{inner}.conv_in.weight"].shape[1] // image_channels - 1, cond // action_dim
    denoiser = DenoiserConfig(frames, 0 if actions == frames else actions, cond, channels, depths, attention)

    channels, depths, attention = levels_of(w, "rew_end_model.encoder.blocks")
    dim = w["rew_end_model.lstm.weight_hh_l0"].shape[1]
    # the last entry is the pair of blocks at the bottom
    reward_end = RewardEndConfig(w["rew_end_model.act_emb.weight"].shape[1], channels[:-1], depths[:-1],
                                 attention[:-1], dim)
    area = w["rew_end_model.lstm.weight_ih_l0"].shape[1] // channels[-1]
    side = math.isqrt(area) * 2 ** (len(channels) - 2)

    stages: list[int] = []
    while (key := f"actor_critic.encoder.encoder.{2 * len(stages) + 1}.f.2.weight") in w:
        stages.append(w[key].shape[0])
    actor_critic = ActorCriticConfig(tuple(stages), w["actor_critic.lstm.weight_hh"].shape[1])
    return AgentConfig(image_channels, (side, side), denoiser, reward_end=reward_end, actor_critic=actor_critic), \
        num_actions


def levels_of(w: dict[str, Tensor], prefix: str) -> tuple[tuple[int, ...], tuple[int, ...], tuple[bool, ...]]:
    """Channels, depths and attention of the levels under `prefix`."""
    channels: list[int] = []
    depths: list[int] = []
    attention: list[bool] = []
    while (first := f"{prefix}.{len(channels)}.resblocks.0") + ".conv1.weight" in w:
        level = first.removesuffix(".0")
        channels.append(w[f"{first}.conv1.weight"].shape[0])
        depths.append(sum(f"{level}.{i}.conv1.weight" in w for i in range(64)))
        attention.append(f"{first}.attn.qkv_proj.weight" in w)
    if not channels:
        raise KeyError(f"{prefix}.0.resblocks.0.conv1.weight")
    return tuple(channels), tuple(depths), tuple(attention)


def import_published(source: str, game: str, action_names: list[str]) -> tuple[Agent, Card]:
    """The agent in a published state dict: a path, or `hub:OWNER/REPOSITORY`. Raises CheckpointError."""
    path = fetch(source.removeprefix("hub:"), game) if source.startswith("hub:") else Path(source)
    weights = read_weights(path)
    config, num_actions = config_of(weights)
    if num_actions != len(action_names):
        raise CheckpointError(f"{source} was made for {num_actions} actions, {game} has {len(action_names)}: "
                              "name the game that it was trained on")
    agent = build(config, num_actions, weights, source)
    return agent, Card(game, action_names, config, training={"imported_from": source})


def fetch(repository: str, game: str) -> Path:
    """Downloads a published checkpoint from the Hugging Face Hub into its cache."""
    import logging

    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # it reports every attempt by itself; one line at the end is enough
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)

    name = f"atari_100k/models/{game}.pt"
    try:
        return Path(hf_hub_download(repository, name))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"{name} could not be had from {repository} on the Hub: {reason}") from error


def sha256_of(path: Path) -> str:
    """Of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else \
            hashlib.sha256(file.read()).hexdigest()

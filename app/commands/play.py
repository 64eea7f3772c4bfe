"""`diamond play` and `diamond browse` in a window, and `diamond record`: dreams as videos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from app.cli import at_least, is_scale, is_seed, new_file, parse

if TYPE_CHECKING:
    import numpy as np

    from diamond_core.training.agent import Agent
    from diamond_core.types import Policy
    from diamond_core.world.dream import World


WORTH_A_SEARCH = 150
"""Frames of a recording from which looking for a faster engine first saves time."""


@dataclass(frozen=True)
class Record:
    """Dreams, and writes what it sees."""

    checkpoint: Positional[str]
    """A name, a checkpoint folder or a run."""
    out: Path
    """A file that ends in .mp4, .gif, .webp or .png (a sheet of stills)."""
    frames: int = 600
    policy: str = "agent"
    """agent, random, or a list of actions by name or number, repeated: LEFT,LEFT,NOOP,3."""
    twin: bool = False
    """The dream beside the emulator under the same actions."""
    steps: int | None = None
    """Denoising steps; default: the checkpoint's."""
    scale: int = 6
    """A pixel becomes so many pixels."""
    seed: int = 0
    device: str = "auto"
    overwrite: bool = False
    """Replace an existing file."""


def record(args: list[str]) -> None:
    """Writes the video and says how fast it was dreamt."""
    write(parse(Record, "record", args))


@dataclass(frozen=True)
class Play:
    """Steps into a dream, in a window. Without a display it opens the web player, or dreams to a video."""

    checkpoint: Positional[str | None] = None
    """A name, a checkpoint folder or a run; default: choose from pictures of all that are installed."""
    seed: int | None = None
    """Of the game that the dream begins with and of its luck; default: another one each time."""
    steps: int | Literal["auto"] = "auto"
    """Denoising steps; auto: as many as can be had at 15 frames a second."""
    device: str = "auto"
    out: Path | None = None
    """Without a display: write a video instead of opening the web player."""
    frames: int = 300
    """Without a display: its length."""


def play(args: list[str]) -> None:
    """Opens the window, or says why it cannot and does without."""
    c: Play = parse(Play, "play", args)
    from app.desktop.window import display_missing

    reason = display_missing()
    if reason is not None:
        without_window(c, reason)
        return
    from app.desktop.start import play as open_window

    open_window(c.checkpoint, seed=c.seed, steps=c.steps, device=c.device)


def without_window(c: Play, reason: str) -> None:
    """The web player takes over; where it is not installed, or a video is asked for, a dream becomes a video."""
    from importlib.util import find_spec

    from app.session.look import called
    from app.session.standing import place
    from diamond_core.training.library import find, installed

    if c.checkpoint is not None:
        find(c.checkpoint)
    if c.out is None and find_spec("gradio") is not None:
        from app.commands.web import web

        there = "" if c.checkpoint is None else f"; choose {called(c.checkpoint)} there"
        if c.seed is not None:
            there += f"; start {c.seed} is typed in under More"
        print(f"no window here ({reason}): opening the web player{there}", flush=True)
        web(["--device", c.device, "--steps", str(c.steps)])
        return
    found = installed()
    checkpoint = c.checkpoint or min(found, key=lambda name: place(name, found[name]), default=None)
    if checkpoint is None:
        raise ValueError("no dream is installed: train one with diamond train --game Pong --run runs/Pong")
    missing = " nor a web player (pip install 'diamond-playground[web]')" if c.out is None else ""
    print(f"no window here ({reason}){missing}: dreaming {checkpoint} to a video")
    write(Record(checkpoint, c.out or Path(f"{called(checkpoint)}-dream.mp4"), c.frames, seed=c.seed or 0,
                 steps=None if c.steps == "auto" else c.steps, device=c.device, overwrite=c.out is None))


@dataclass(frozen=True)
class Browse:
    """Shows recorded play in a window: scrub through episodes, with rewards and ends on a timeline."""

    source: Positional[Path]
    """A dataset, a run, an episode file, a tape or a folder of tapes."""
    checkpoint: str | None = None
    """Dreams the tapes again; default: the installed checkpoint whose weights recorded them."""


def browse(args: list[str]) -> None:
    """Opens the window on data."""
    c: Browse = parse(Browse, "browse", args)
    from app.desktop.window import display_missing

    reason = display_missing()
    if reason is not None:
        raise ValueError(f"no window here ({reason}): browsing needs a display")
    from app.desktop.start import browse as open_window

    open_window(c.source, checkpoint=c.checkpoint)


def write(c: Record) -> None:
    """Dreams c.frames frames into c.out."""
    import time

    from tqdm import tqdm

    from app.session.video import VideoWriter
    from diamond_core.config import RuntimeConfig
    from diamond_core.training.library import load
    from diamond_core.world.accelerate import accelerate, at_once

    at_least(1, frames=c.frames)
    is_scale(c.scale)
    is_seed(c.seed)
    if new_file(c.out).exists() and not c.overwrite:
        raise ValueError(f"{c.out} exists already: choose another name, or remove it first")
    agent = load(c.checkpoint, c.device)
    sampler = agent.config.sampler if c.steps is None else replace(agent.config.sampler, num_steps=c.steps)
    world = agent.world(sampler, RuntimeConfig(device=c.device))
    if c.frames >= WORTH_A_SEARCH:
        accelerate(world, agent.config.frame_shape).wait()
    else:
        at_once(world, agent.config.frame_shape)
    policy = player(c.policy, agent, world, c.seed)
    images = twins(agent, world, policy, c) if c.twin else dreams(agent, world, policy, c)
    started = time.perf_counter()
    # a twin's picture is enlarged already: its labels and borders are not pixels of the game
    with VideoWriter(c.out, scale=1 if c.twin else c.scale, overwrite=c.overwrite) as video:
        for image in tqdm(images, total=c.frames, unit=" frames", leave=False):
            video.add(image)
    rate = c.frames / (time.perf_counter() - started)
    print(f"{c.frames} frame{'s' * (c.frames != 1)} in {c.out}, {rate:.1f} a second; the true speed is 15")


def dreams(agent: Agent, world: World, policy: Policy, c: Record) -> Iterator[np.ndarray]:
    """Images of one dream after the other."""
    from app.session.recording import dream_env, play_frames

    if agent.starts is None:
        raise ValueError(f"{c.checkpoint} carries no starting frames to dream from")
    env = dream_env(world, agent.starts["frames"], agent.starts["actions"], c.seed)
    return play_frames(env, policy, c.frames, c.seed)


def twins(agent: Agent, world: World, policy: Policy, c: Record) -> Iterator[np.ndarray]:
    """Images of dream and reality side by side."""
    from app.session.recording import twin_frames
    from diamond_core.envs import make_env

    assert agent.card is not None
    env = make_env(agent.card.game, 1, image_size=agent.config.image_size, noop_max=agent.config.noop_max)
    return twin_frames(world, env, policy, c.frames, c.seed, scale=c.scale)


def player(name: str, agent: Agent, world: World, seed: int) -> Policy:
    """The agent, random play, or a script. Raises ValueError for an action that the game does not have."""
    from app.session.recording import Script
    from diamond_core.agent.policies import MIXED, RandomPolicy

    if name == "agent":
        return agent.policy(1, seed, world.runtime)
    if name == "random":
        return RandomPolicy(agent.num_actions, 1, seed, MIXED[2:3])
    assert agent.card is not None
    names = [n.upper() for n in agent.card.action_names]
    actions = [names.index(word.upper()) if word.upper() in names else int(word) if word.isdecimal() else -1
               for word in name.split(",")]
    if not all(0 <= a < agent.num_actions for a in actions):
        raise ValueError(f"unknown policy '{name}': use agent, random, or actions out of {', '.join(names)} or "
                         f"0 to {agent.num_actions - 1}, separated by commas")
    return Script(actions)

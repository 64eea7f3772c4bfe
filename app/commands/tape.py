"""`diamond replay`: a tape played again, proven or made a film; `diamond tapes`: tapes as training data."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from app.cli import is_scale, parse, spread
from app.commands.data import alone_in, of_size, require_room

if TYPE_CHECKING:
    from app.session.film import Result
    from app.session.tape import Tape
    from diamond_core.replay import DatasetInfo, Episode
    from diamond_core.world.dream import World
    from diamond_core.world.engine import Engine


@dataclass(frozen=True)
class Replay:
    """Plays a tape again in the window; any key takes over."""

    tape: Positional[Path]
    """A .tape file, or an .mp4 that carries one."""
    first: Annotated[int | None, arg(name="from")] = None
    """Go on from this step yourself; with --verify and --render, begin there."""
    verify: bool = False
    """Prove that every frame, reward and end comes out as it was recorded."""
    render: Path | None = None
    """Make a film: .mp4 (carries the tape), .gif, .webp or .png (a sheet of stills)."""
    hud: bool = False
    """With frames, names, numbers and a strip of the tape around the picture."""
    show: Literal["dream", "reality", "twin"] | None = None
    """What the film shows; default: the dream, and reality where it was lived."""
    scale: int = 6
    """A pixel becomes so many pixels."""
    checkpoint: str | None = None
    """The world to dream in; default: the installed one that recorded the tape."""
    device: str = "auto"
    overwrite: bool = False
    """Replace an existing film."""


def replay(args: list[str]) -> None:
    """Opens the window, or proves, or renders."""
    c: Replay = parse(Replay, "replay", args)
    films = [f"--{name}" for name in ("hud", "show", "scale", "overwrite") if getattr(c, name) != getattr(Replay, name)]
    if films and c.render is None:
        raise ValueError(f"{', '.join(films)} without a film: name one with --render")
    from app.session.tapefile import load_tape

    tape = load_tape(c.tape)
    if not 0 <= (c.first or 0) < max(len(tape), 1):
        raise ValueError(f"--from must be 0 to {len(tape) - 1} on this tape, got {c.first}")
    if c.render is not None and c.render.exists() and not c.overwrite:
        raise FileExistsError(f"{c.render} exists already: choose another name, or --overwrite")
    is_scale(c.scale)
    if c.verify or c.render is not None:
        check_or_render(c, tape)
    else:
        in_window(c, tape)


def in_window(c: Replay, tape: Tape) -> None:
    """Plays it again, or lets the person go on from a step; without a display it is checked instead."""
    from app.desktop.window import display_missing
    from app.session.session import Session

    reason = display_missing()
    if reason is not None:
        print(f"no window here ({reason}): checking the tape instead")
        check_or_render(c, tape)
        return
    from app.desktop.start import play
    from diamond_core.world.accelerate import engines_of

    def prepare(session: Session) -> None:
        if c.first is None:
            shape = session.agent.config.frame_shape
            session.follow(tape, engines=engines_of(set(tape.paths.values()), session.world, shape))
        else:
            session.go_on_from(tape, c.first)

    play(str(checkpoint_of(c, tape)), device=c.device, prepare=prepare)


def check_or_render(c: Replay, tape: Tape) -> None:
    """Dreams the whole tape again; exit code 1 where --verify finds a difference."""
    from functools import partial

    from tqdm import tqdm

    from app.session.film import render, verify

    world, engines = world_of(c, tape)
    first = c.first or 0
    with tqdm(total=len(tape) - first, unit=" steps", leave=False) as bar:
        act = partial(verify, tape, world, first) if c.render is None else partial(
            render, tape, world, c.render, show=c.show, hud=c.hud, first=first, scale=c.scale, overwrite=c.overwrite)
        result = act(engines=engines, tell=bar.update)
    if c.render is not None:
        print(f"{result.steps} frames in {c.render}")
    print(verdict(tape, result, set(engines)))
    if c.verify and result.first_difference is not None:
        sys.exit(1)


def verdict(tape: Tape, result: Result, paths: set[str]) -> str:
    """One line on whether the tape came out the same."""
    if result.first_difference is None:
        return f"{result.steps} steps played again, bit for bit the same: frames, rewards and ends"
    other = sorted(set(tape.paths.values()) - paths)
    why = f"; it was dreamt on {' and '.join(other)}, which this machine does not have" if other else ""
    return f"step {result.first_difference} came out otherwise than it was recorded{why}"


def checkpoint_of(c: Replay, tape: Tape) -> Path:
    """The world that is to dream a tape."""
    from app.session.library import dreamt_by
    from diamond_core.training.library import find

    return find(c.checkpoint) if c.checkpoint else dreamt_by(tape.origin.sha256, tape.origin.game)


def world_of(c: Replay, tape: Tape) -> tuple[World, dict[str, Engine]]:
    """The world, and every engine that this machine has and the tape was dreamt on, by name."""
    from diamond_core.config import RuntimeConfig
    from diamond_core.training.checkpoint import load_checkpoint
    from diamond_core.world.accelerate import engines_of

    path = checkpoint_of(c, tape)
    agent = load_checkpoint(path)
    if agent.card is not None and agent.card.sha256 != tape.origin.sha256:
        print(f"{path} holds other weights than those that dreamt this tape: expect other frames")
    world = agent.world(runtime=RuntimeConfig(device=c.device))
    return world, engines_of(set(tape.paths.values()), world, agent.config.frame_shape)


@dataclass(frozen=True)
class Tapes:
    """Makes training data of tapes: what a person played, as a dataset."""

    tapes: Positional[tuple[Path, ...]]
    """Tape files, films that carry one, or folders of them."""
    out: Path
    """A new folder; with --append an existing dataset of the same game."""
    world: Literal["reality", "dream"] = "reality"
    """reality: the real game under the same actions, which needs no model; dream: what was dreamt."""
    checkpoint: str | None = None
    """Dreams the tapes again; default: the installed one that recorded them."""
    life_loss_ends: bool = True
    """A lost life ends an episode, as in `diamond collect`."""
    append: bool = False
    device: str = "auto"


def tapes(args: list[str]) -> None:
    """Writes one unbroken stretch of play after the other as an episode."""
    c: Tapes = parse(Tapes, "tapes", args)
    from app.session.tapefile import load_tape
    from diamond_core.replay import Dataset, DatasetInfo

    files = tape_files(spread(c.tapes))
    require_room(c.out, c.append)
    # the same play may lie there as a tape and as a film of it
    plays = {tape.hashes.tobytes(): (file, tape) for file, tape in ((file, load_tape(file)) for file in files)}
    files, read = map(list, zip(*plays.values(), strict=True))
    infos = [DatasetInfo(t.origin.game, t.origin.action_names, t.origin.frame_shape, "human") for t in read]
    require_alike(files, infos)
    unreal = [file for file, t in zip(files, read, strict=True) if c.world == "reality" and not t.has_reality]
    if unreal:
        raise ValueError(f"{unreal[0]} has no reality, as its game is no Atari game: leave it out, or --world dream")
    if not any(map(len, read)):
        raise ValueError("there is no step on these tapes: record some with R while playing")
    with alone_in(c.out):
        dataset = Dataset(c.out, infos[0])
        known = {dataset[i].info.get("tape") for i in range(dataset.num_episodes)}
        marks = [f"{c.world} {hashlib.blake2b(its, digest_size=16).hexdigest()}" for its in plays]
        for tape, mark in zip(read, marks, strict=True):
            if mark not in known:
                for episode in episodes_of(c, tape):
                    dataset.add(replace(episode, info={**episode.info, "tape": mark}))
    if there := sum(mark in known for mark in marks):
        print(f"{there} of {len(marks)} tapes were there already")
    print(f"{dataset.num_steps} steps in {dataset.num_episodes} episodes in {c.out}")
    out = shlex.quote(str(c.out))
    print(f"next: diamond browse {out}, or diamond train --game {infos[0].game} --dataset {out} --run runs/mine"
          f"{of_size(infos[0].frame_shape)}")


def episodes_of(c: Tapes, tape: Tape) -> list[Episode]:
    """A tape's play as it was asked for."""
    world, engines = None, None
    if c.world == "dream":
        world, engines = world_of(Replay(Path(), checkpoint=c.checkpoint, device=c.device), tape)
    return tape.episodes(c.world, world, life_loss_ends=c.life_loss_ends, engines=engines)


def tape_files(sources: Sequence[Path]) -> list[Path]:
    """All tapes that are meant. Raises ValueError where there is none."""
    from app.session.tapefile import ENDING, extract

    def adds(file: Path) -> bool:
        """Whether a file of a folder holds a tape."""
        if file.suffix == ".mp4":
            with suppress(ValueError):
                return bool(extract(file))
        return file.suffix == ENDING

    files = [file for source in sources
             for file in (sorted(filter(adds, source.iterdir())) if source.is_dir() else [source])]
    if not files:
        where = ", ".join(map(str, sources)) or "nothing"
        raise ValueError(f"no tapes in {where}: expected files that end in {ENDING}, or .mp4 films that carry one")
    return files


def require_alike(files: list[Path], infos: list[DatasetInfo]) -> None:
    """Raises ValueError for tapes of several games."""
    for file, info in zip(files, infos, strict=True):
        if info != infos[0]:
            what, first = (f"{i.game} with {len(i.action_names)} actions in {i.frame_shape[1]}x{i.frame_shape[2]}"
                           for i in (info, infos[0]))
            raise ValueError(f"{file} is of {what}, {files[0]} of {first}: one kind of play a dataset")

"""`diamond train`: from a preset and a few options to a running Trainer, with a clean way to stop it."""

from __future__ import annotations

import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

from app.cli import main, parse

if TYPE_CHECKING:
    from diamond_core.config import TrainConfig
    from diamond_core.training.run import Run
    from diamond_core.training.trainer import Trainer

UNITS = {"s": 1, "m": 60, "h": 3600}
HELP = """usage: diamond train --game GAME --preset paper|playground|tiny --run DIR [options]

  --game GAME        an ALE game (Pong), a Gymnasium id (gym:CartPole-v1) or toy; default Pong
  --preset NAME      paper: exactly the paper; playground: a world worth playing on a modest machine;
                     tiny: everything in about a minute; default playground
  --run DIR          where everything goes; the same command on an existing run goes on with it
  --resume           go on with the run in DIR as it was begun; no other option is needed, but --dataset where it
                     was moved, and --processes
  --time-limit TIME  stop cleanly after 45m, 2h, 1h30m, 90s
  --init CKPT        start from the weights of a checkpoint; which models: --initial-models denoiser reward_end

  --processes N      share every batch among N processes: one a GPU, or one a core
                     (torchrun -m app.commands.train -- --game ... for several machines)

  Every number of the configuration can be set, with the preset's as defaults:
"""


def train(args: list[str]) -> None:
    """Trains until the end, the time limit or Ctrl-C; everything is saved in all three cases."""
    started = time.monotonic()
    # torchrun takes --run for an option of its own unless a -- stands before our options, and passes that on
    rest = args[1:] if args[:1] == ["--"] else list(args)
    if "-h" in rest or "--help" in rest:
        print(HELP)
    values = {name: take(rest, f"--{name}") for name in ("game", "preset", "run", "time-limit", "init", "processes")}
    resume = "--resume" in rest
    rest = [a for a in rest if a != "--resume"]
    limit = seconds(values["time-limit"]) if values["time-limit"] else None

    from diamond_core.config import TrainConfig
    from diamond_core.presets import PRESETS
    from diamond_core.training.distributed import is_member
    from diamond_core.training.run import Run

    preset = values["preset"] or "playground"
    if preset not in PRESETS:
        raise ValueError(f"unknown preset '{preset}': use one of {', '.join(PRESETS)}")
    default = PRESETS[preset](values["game"] or "Pong")
    if values["init"]:
        default = replace(default, initial=values["init"])
    if "-h" in rest or "--help" in rest or not resume:
        config = parse(TrainConfig, "train", rest, default)
    if values["run"] is None:
        raise ValueError("name the run's folder: --run DIR")
    run = Run(Path(values["run"]))
    if resume:
        others = [f"--{name}" for name in ("game", "preset", "init") if values[name]]
        config = resumed(run.config, others, rest)
    config = replace(config, game=canonical(config.game))
    if (n := number(values["processes"] or "1")) > 1 and not is_member():
        sys.exit(together(args, config, n))
    learn(config, run, started, limit)


def learn(config: TrainConfig, run: Run, started: float, limit: float | None) -> None:
    """This process's part of the training, or all of it."""
    import torch

    from diamond_core.envs import action_names
    from diamond_core.training.build import check
    from diamond_core.training.distributed import join, leave
    from diamond_core.training.trainer import Trainer

    processes = join(config.runtime.device)
    lock = None
    try:
        check(config, action_names(config.game), processes.world_size)
        if config.runtime.threads:
            torch.set_num_threads(config.runtime.threads)
        lock = run.lock() if processes.is_main else None
        if processes.is_main:
            run.begin(config)
            say_if_idle(config)
        processes.barrier()
        with stop_request(started, limit) as should_stop:
            trainer = Trainer(config, run, processes, should_stop)
            finished = trainer.run()
        if processes.is_main:
            report(trainer, run, finished)
        # all leave together: nobody hangs up on one who still listens
        processes.barrier()
    except RuntimeError:
        if processes.world_size > 1:
            time.sleep(10)  # torch's word where another process fell: that one says why, and the launcher ends this one
        raise
    finally:
        if lock is not None:
            lock.release()
        leave()


def together(args: list[str], config: TrainConfig, n: int) -> int:
    """Runs the same command in n processes and returns the exit code. Raises ValueError for what ends them at once."""
    import torch

    from diamond_core.device import find_device
    from diamond_core.envs import action_names
    from diamond_core.training.build import check
    from diamond_core.training.distributed import launch, on_cuda

    if find_device(config.runtime.device).type == "mps":
        raise ValueError("processes share batches on CPUs and CUDA's GPUs: add --runtime.device cpu")
    if on_cuda(config.runtime.device) and n > torch.cuda.device_count():
        raise ValueError(f"each process takes a GPU, and there are {torch.cuda.device_count()}: got --processes {n}")
    check(config, action_names(config.game), n)
    debug = ["--debug"] if "--debug" in sys.argv else []  # taken off the arguments before a command gets them
    return launch([sys.executable, "-m", "app.commands.train", *debug, *args], n)


def say_if_idle(config: TrainConfig) -> None:
    """A line where the agent would begin to learn after the last epoch, which may be meant."""
    c, last = config.actor_critic, config.final_epochs
    if (config.is_static or config.model_free) and c.first_epoch > last and (c.first_updates or c.updates):
        print(f"the agent does not learn in this run: --actor-critic.first-epoch {c.first_epoch} comes after the last "
              f"epoch, {last}")


def resumed(known: Callable[[], TrainConfig], others: list[str], rest: list[str]) -> TrainConfig:
    """What a run was begun with, and where its dataset lies now. Raises ValueError for any other option."""
    moved = take(rest, "--dataset")
    if others or rest:
        raise ValueError(f"--resume takes the configuration from the run; leave out {' '.join([*others, *rest])}")
    config = known()
    if moved and not config.dataset:
        raise ValueError("this run learns from what it plays itself: leave out --dataset")
    return replace(config, dataset=moved or config.dataset)


def report(trainer: Trainer, run: Run, finished: bool) -> None:
    """The line at the end that says what to do next."""
    from diamond_core.training.progress import clock

    took = clock(trainer.seconds)
    if not finished:
        print(f"stopped and saved in epoch {trainer.position.epoch} after {took} of training; go on with: "
              f"diamond train --run {shlex.quote(str(run.folder))} --resume"
              f"{f' --processes {n}' if (n := trainer.processes.world_size) > 1 else ''}")
        return
    score = f", score {trainer.scores['score']:.1f} in {trainer.scores['episodes']} episodes" if trainer.scores else ""
    folder = shlex.quote(str(run.folder))
    then = (f"judge the agent: diamond evaluate returns {folder}" if trainer.config.model_free else
            f"watch the dream: diamond record {folder} --out dream.mp4")
    print(f"finished in {took}{score}; {then}")


@contextmanager
def stop_request(started: float = 0.0, limit: float | None = None) -> Iterator[Callable[[], bool]]:
    """A question that turns true on the first Ctrl-C or SIGTERM, at the time limit, or where the launcher was killed. A
    second Ctrl-C quits."""
    from diamond_core.training.distributed import is_first, is_orphan

    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        if is_first():
            print("\nstopping after this step or collection; once more to quit without saving", file=sys.stderr)

    # the page asks on Windows by the break key
    numbers = {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGBREAK", signal.SIGTERM)}
    before = {s: signal.signal(s, ask) for s in numbers}
    try:
        yield lambda: bool(asked) or (limit is not None and time.monotonic() - started > limit) or is_orphan()
    finally:
        for s, handler in before.items():
            signal.signal(s, handler)


def canonical(game: str) -> str:
    """The game's name as it is spelled everywhere. Raises ValueError for an unknown one."""
    from diamond_core import envs

    return envs.canonical(game)


def take(args: list[str], option: str) -> str | None:
    """Removes `option VALUE` or `option=VALUE` from args and returns the value."""
    for i, a in enumerate(args):
        if a == option:
            if i + 1 == len(args) or args[i + 1].startswith("--"):
                raise ValueError(f"{option} needs a value")
            value = args[i + 1]
            del args[i:i + 2]
            return value
        if a.startswith(option + "="):
            del args[i]
            return a.split("=", 1)[1]
    return None


def number(text: str) -> int:
    """How many processes."""
    if not text.isdecimal() or not int(text):
        raise ValueError(f"--processes takes a number, 1 or more, got '{text}'")
    return int(text)


def seconds(text: str) -> float:
    """45m, 1h30m, 90s or a number of seconds."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(r"(\d+(\.\d+)?[smh])+", text):
        raise ValueError(f"expected a time like 45m, 2h or 1h30m, got '{text}'")
    return sum(float(n) * UNITS[u] for n, _, u in re.findall(r"(\d+(\.\d+)?)([smh])", text))


def closest(word: str, words: list[str]) -> str:
    """A hint for a mistyped word."""
    found = get_close_matches(word, words, 3)
    return f"did you mean {' or '.join(found)}?" if found else f"use one of {', '.join(words)}"


if __name__ == "__main__":
    main(["train", *sys.argv[1:]])

"""The whole pipeline on the toy game: stopped, or killed, and resumed equals never stopped; several processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from diamond_core.config import (
    ActingConfig,
    CollectionConfig,
    EvaluationConfig,
    ImaginationConfig,
    LearnerConfig,
    ReturnsConfig,
    TrainConfig,
)
from diamond_core.evaluation.returns import play_episodes
from diamond_core.replay import Dataset, DatasetError
from diamond_core.training.checkpoint import CONVERTER, stages_before
from diamond_core.training.collect import Collector
from diamond_core.training.distributed import launch
from diamond_core.training.library import load
from diamond_core.training.metrics import Diverged
from diamond_core.training.progress import Position
from diamond_core.training.run import Run, RunError
from diamond_core.training.trainer import Trainer
from tests.conftest import EXACT, SMALL

ROOT = Path(__file__).parents[2]
FEW = LearnerConfig(first_updates=6, updates=4, batch_size=4, learning_rate=1e-3, ema_decay=0.9)
CONFIG = TrainConfig(
    "toy", "tiny", agent=SMALL, denoiser=FEW, reward_end=replace(FEW, max_gradient_norm=100.0, ema_decay=0.0),
    actor_critic=ActingConfig(**{**vars(FEW), "weight_decay": 0.0}),
    collection=CollectionConfig(num_envs=2, first_min_steps=200, first_max_steps=300, steps=60, total_steps=320),
    reward_segment=6, returns=ReturnsConfig(rollout_length=5), final_epochs=1,
    evaluation=EvaluationConfig(every=2, episodes=2, final_episodes=4, num_envs=2, max_steps=60),
    runtime=EXACT, save_every=0.0)

LEARNED = ("denoiser", "reward_end", "actor_critic")


def train(folder: Path, config: TrainConfig = CONFIG, stop_after: int | None = None) -> Trainer:
    """Trains here; asked to stop at the stop_after-th chance."""
    run = Run(folder)
    run.begin(config)
    chances = iter(range(10**9))
    trainer = Trainer(config, run, should_stop=lambda: stop_after is not None and next(chances) >= stop_after)
    assert trainer.run() is (stop_after is None)
    return trainer


def metrics(folder: Path) -> list[dict]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: x for name, x in line.items() if not name.endswith("seconds")} for line in lines]


@pytest.fixture(scope="module")
def unstopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "unstopped"
    return folder, train(folder)


def assert_same_weights(a: Path, b: Path, atol: float = 0.0) -> None:
    ours, theirs = (load(folder, "cpu").published_state_dict() for folder in (a, b))
    for key in ours:
        torch.testing.assert_close(ours[key], theirs[key], atol=atol, rtol=0)


def assert_same_up_to_rounding(a: Path, b: Path) -> None:
    """Numbers of one process equal another's up to the last bits: on some processors kernels are chosen by address."""
    ours, theirs = metrics(a), metrics(b)
    assert [(line["epoch"], line["phase"]) for line in ours] == [(line["epoch"], line["phase"]) for line in theirs]
    for line, other in zip(ours, theirs, strict=True):
        assert line.keys() == other.keys()
        for name, value in line.items():
            if isinstance(value, (int, float)):
                assert value == pytest.approx(other[name], rel=1e-4, abs=1e-6), f"{name} of {line}"
            else:
                assert value == other[name]
    assert_same_weights(a, b, atol=1e-5)


def test_a_run_leaves_what_it_should(unstopped):
    folder, trainer = unstopped
    assert trainer.last_epoch == 4, "200 + 60 + 60 steps, then one more epoch"
    phases = [(line["epoch"], line["phase"]) for line in metrics(folder)]
    assert phases == [(1, "collect"), (1, "denoiser"), (1, "reward_end"), (1, "actor_critic"),
                      (2, "collect"), (2, "denoiser"), (2, "reward_end"), (2, "actor_critic"), (2, "evaluate"),
                      (3, "collect"), (3, "denoiser"), (3, "reward_end"), (3, "actor_critic"),
                      (4, "denoiser"), (4, "reward_end"), (4, "actor_critic"), (4, "evaluate")]
    agent = load(folder, "cpu")
    assert agent.card.training["updates"] == {"denoiser": 18, "reward_end": 18, "actor_critic": 18}
    assert agent.card.metrics["returns"]["episodes"] == 4 and len(agent.starts["frames"]) > 0
    assert list((folder / "tensorboard").iterdir())


def test_stopped_and_resumed_equals_never_stopped(unstopped, tmp_path):
    """Stops at several places, in the middle of every phase, and goes on each time."""
    for stop_after in (3, 4, 5, 6, 8, 11):
        train(tmp_path / "run", stop_after=stop_after)
    trainer = train(tmp_path / "run")
    assert metrics(tmp_path / "run") == metrics(unstopped[0])
    assert_same_weights(tmp_path / "run", unstopped[0])
    assert trainer.dataset.lengths.tolist() == unstopped[1].dataset.lengths.tolist()


def test_a_stop_is_heard_in_the_last_evaluation_too(unstopped, tmp_path, monkeypatch):
    """It may take hours. It is played anew, and there is no moment of an epoch after it."""
    one = {name: replace(getattr(CONFIG, name), first_updates=1, updates=1) for name in LEARNED}
    config = replace(CONFIG, dataset=str(unstopped[0] / "dataset"), **one)
    run, asked = Run(tmp_path / "run"), []
    run.begin(config)
    monkeypatch.setattr("diamond_core.training.trainer.play_episodes",
                        lambda *args, **kwargs: asked.append(1) or play_episodes(*args, **kwargs))
    trainer = Trainer(config, run, should_stop=lambda: bool(asked))
    assert not trainer.run() and not trainer.scores
    assert metrics(tmp_path / "run")[-1]["phase"] == "actor_critic"
    trainer = Trainer(config, run)
    assert trainer.run() and trainer.scores["episodes"] == 4 and trainer.scores["score"] == pytest.approx(
        sum(trainer.scores["returns"]) / 4)
    assert [m.name for m in run.moments()] == ["epoch_0001"]
    assert Trainer(config, run).run(), "and is finished when it is looked at again"


ONE = replace(CONFIG, **{name: replace(getattr(CONFIG, name), first_updates=1, updates=1) for name in LEARNED},
              evaluation=replace(CONFIG.evaluation, final_episodes=0))


@pytest.mark.parametrize("fails", ["save_state", "write_moment"])
def test_a_disk_that_is_full_at_an_epochs_end_costs_nothing_once_it_is_not(unstopped, tmp_path, monkeypatch, fails):
    config = replace(ONE, dataset=str(unstopped[0] / "dataset"), save_every=1e9)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Run, fails, full)
        with pytest.raises(OSError, match="No space"):
            train(tmp_path / "run", config)
    trainer = train(tmp_path / "run", config)
    assert trainer.position.epoch == 2 and [m.name for m in Run(tmp_path / "run").moments()] == ["epoch_0001"]


def test_the_agent_collects_from_other_beginnings_than_who_played_first(tmp_path, monkeypatch):
    seeds = []
    monkeypatch.setattr("diamond_core.training.trainer.Collector", lambda *x: seeds.append(x[3]) or Collector(*x))
    few = {name: replace(getattr(CONFIG, name), first_updates=1, updates=1) for name in LEARNED}
    collection = replace(CONFIG.collection, first_policy="random")
    train(tmp_path / "run", replace(CONFIG, **few, collection=collection))
    assert len(set(seeds)) == 2


def test_what_torch_says_of_a_full_disk_is_a_full_disk(tmp_path, monkeypatch):
    def falls_short(*_):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")

    run = Run(tmp_path / "run")
    run.begin(CONFIG)
    monkeypatch.setattr(torch, "save", falls_short)
    with pytest.raises(OSError, match="No space left") as told:
        run.save_state({})
    assert told.value.errno == 28 and not list(run.folder.glob("*.tmp"))


def test_what_a_person_keeps_beside_the_moments_is_left_alone(unstopped, tmp_path):
    shutil.copytree(unstopped[0], tmp_path / "run")
    run = Run(tmp_path / "run")
    shutil.copytree(run.moment(1), run.checkpoints / "epoch_first_good")
    run.thin_out(2)
    assert [m.name for m in run.moments()] == ["epoch_0001", "epoch_0004"]
    assert (run.checkpoints / "epoch_first_good").exists() and load(run.folder, "cpu").card.training["epoch"] == 4


def test_a_dataset_may_be_moved(unstopped, tmp_path):
    shutil.copytree(unstopped[0] / "dataset", tmp_path / "old")
    config = replace(ONE, dataset=str(tmp_path / "old"), final_epochs=2)
    train(tmp_path / "run", config, stop_after=2)
    (tmp_path / "old").rename(tmp_path / "new")
    assert train(tmp_path / "run", replace(config, dataset=str(tmp_path / "new"))).position.epoch == 3
    assert Run(tmp_path / "run").config().dataset == str(tmp_path / "new"), "and the next time nothing need be said"
    with pytest.raises(RunError, match="dataset is"):
        Run(tmp_path / "run").begin(replace(config, dataset=None))


@pytest.mark.parametrize("save_every", [0.0, 1e9])
def test_a_stop_between_epochs_shows_the_one_that_is_over(unstopped, tmp_path, save_every):
    one = {name: replace(getattr(CONFIG, name), first_updates=1, updates=1) for name in LEARNED}
    config = replace(CONFIG, dataset=str(unstopped[0] / "dataset"), final_epochs=3, save_every=save_every, **one)
    run = Run(tmp_path / "run")
    run.begin(config)
    trainer = Trainer(config, run, should_stop=lambda: trainer.position == Position(3))
    assert not trainer.run()
    assert [m.name for m in run.moments()] == ["epoch_0001", "epoch_0002"]
    assert load(run.folder, "cpu").card.training["epoch"] == 2


def test_a_run_that_diverges_ends_and_keeps_what_it_had(tmp_path):
    """An agent that goes on in the ruins of its world learns from rewards that are no numbers."""
    wild = replace(CONFIG, denoiser=replace(FEW, first_updates=60, learning_rate=1e30, warmup=1))
    with pytest.raises(Diverged, match="begin another run from it"):
        train(tmp_path, wild)
    state = torch.load(tmp_path / "state.pt", weights_only=False)
    assert state["position"]["phase"] == "denoiser" and "NaN" not in (tmp_path / "metrics.jsonl").read_text()
    assert all(x.isfinite().all() for x in state["learners"]["denoiser"]["model"].values())


def test_same_seed_same_run_other_seed_other_run(unstopped, tmp_path):
    train(tmp_path / "other", replace(CONFIG, seed=1))
    assert metrics(tmp_path / "other") != metrics(unstopped[0])


CHILD = """
import json, sys
from pathlib import Path
from tests.whole.test_training import CONVERTER, Run, TrainConfig, Trainer
run = Run(Path(sys.argv[1]))
run.begin(CONVERTER.structure(json.loads(sys.argv[2]), TrainConfig))
Trainer(run.config(), run).run()
"""


def child(folder: Path, config: TrainConfig = CONFIG, prefix: tuple[str, ...] = ()) -> subprocess.Popen:
    text = json.dumps(CONVERTER.unstructure(config))
    return subprocess.Popen([sys.executable, *prefix, "-c", CHILD, str(folder), text], stderr=subprocess.DEVNULL)


def kill_again_and_again(folder: Path, config: TrainConfig, kills: int) -> int:
    """Runs children and kills each at a random moment, until so many were killed or one came to the end."""
    chance, killed = random.Random(0), 0
    while killed < kills:
        process = child(folder, config)
        try:
            process.wait(timeout=chance.uniform(2.2, 4.5))
            break
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
    return killed


def test_killed_at_random_moments_loses_nothing(unstopped, tmp_path):
    """SIGKILL, again and again; the last run ends with the metrics and weights of the one that was left alone."""
    assert kill_again_and_again(tmp_path / "run", CONFIG, kills=2) > 0
    train(tmp_path / "run")
    assert_same_up_to_rounding(tmp_path / "run", unstopped[0])


@pytest.mark.skipif("DIAMOND_LONG" not in os.environ, reason="takes a minute: DIAMOND_LONG=1 runs it")
def test_ten_kills(tmp_path):
    config = replace(CONFIG, final_epochs=20)
    train(tmp_path / "unstopped", config)
    assert kill_again_and_again(tmp_path / "run", config, kills=10) == 10
    train(tmp_path / "run", config)
    assert_same_up_to_rounding(tmp_path / "run", tmp_path / "unstopped")


def test_static_dataset_initial_weights_and_holdout(unstopped, tmp_path):
    folder, before = unstopped
    config = replace(CONFIG, dataset=str(folder / "dataset"), holdout=2, initial=str(folder),
                     initial_models=("denoiser",), final_epochs=2)
    run = Run(tmp_path / "static")
    run.begin(config)
    trainer = Trainer(config, run)
    assert trainer.dataset.num_episodes == before.dataset.num_episodes - 2
    source = load(folder, "cpu")
    assert torch.equal(trainer.learners["denoiser"].model.inner_model.conv_in.weight,
                       source.denoiser.inner_model.conv_in.weight)
    assert not torch.equal(trainer.learners["reward_end"].model.lstm.weight_hh_l0, source.reward_end.lstm.weight_hh_l0)
    files = {p.name: p.stat().st_mtime_ns for p in (folder / "dataset").iterdir()}
    assert trainer.run()
    assert {p.name: p.stat().st_mtime_ns for p in (folder / "dataset").iterdir()} == files, "the dataset is only read"
    assert not any(line["phase"] == "collect" for line in metrics(tmp_path / "static"))
    told, first = load(tmp_path / "static", "cpu").card.training, source.card.training
    own = {name: learner.num_updates for name, learner in trainer.learners.items()}
    assert [stage["updates"] for stage in told["stages"]] == [{"denoiser": first["updates"]["denoiser"]}, own]
    assert told["updates"] == {**own, "denoiser": own["denoiser"] + first["updates"]["denoiser"]}
    assert told["seconds"] >= first["seconds"] and "stages" not in first


def test_a_static_dataset_that_has_grown_changes_nothing(unstopped, tmp_path):
    """What was held out stays so, and a run that goes on is the one that was never stopped."""
    shutil.copytree(unstopped[0] / "dataset", tmp_path / "data")
    one = {name: replace(getattr(CONFIG, name), first_updates=2, updates=2) for name in LEARNED}
    config = replace(CONFIG, dataset=str(tmp_path / "data"), holdout=2, final_epochs=2, **one)
    train(tmp_path / "whole", config)
    before = train(tmp_path / "stopped", config, stop_after=4).dataset.lengths.tolist()
    grown = Dataset.open(tmp_path / "data")
    grown.add(grown[0])
    assert train(tmp_path / "stopped", config).dataset.lengths.tolist() == before
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    (tmp_path / "data" / "000000.episode").unlink()
    with pytest.raises(DatasetError, match=r"to begin with the \d+ episodes .* restore them"):
        Trainer(config, Run(tmp_path / "stopped"))
    with pytest.raises(ValueError, match="--holdout 100 leaves none"):
        train(tmp_path / "none", replace(config, holdout=100))


def test_a_run_that_lost_its_state_keeps_what_it_played(unstopped, tmp_path):
    shutil.copytree(unstopped[0], tmp_path / "run")
    kept = sorted(p.name for p in (tmp_path / "run").rglob("*.episode"))
    state = tmp_path / "run" / "state.pt"
    state.write_bytes(state.read_bytes()[:1000])
    for wrong in ("damaged", "missing"):
        with pytest.raises(RunError, match=rf"{wrong}.*--init {tmp_path / 'run'} --dataset {tmp_path / 'run'}/dataset"):
            train(tmp_path / "run")
        state.unlink(missing_ok=True)
    assert sorted(p.name for p in (tmp_path / "run").rglob("*.episode")) == kept and metrics(tmp_path / "run")


@pytest.mark.parametrize("content", [b"hello" * 100, b"", {"weights": torch.zeros(2)}, [1, 2]])
def test_a_state_that_is_none_is_said(unstopped, tmp_path, content):
    shutil.copytree(unstopped[0], tmp_path / "run")
    state = tmp_path / "run" / "state.pt"
    state.write_bytes(content) if isinstance(content, bytes) else torch.save(content, state)
    with pytest.raises(RunError, match=r"state\.pt is damaged: restore it, or begin another run"):
        Run(tmp_path / "run").load_state()


def test_a_run_goes_on_when_what_it_began_with_is_gone(unstopped, tmp_path):
    shutil.copytree(unstopped[0], tmp_path / "first")
    config = replace(CONFIG, initial=str(tmp_path / "first"), final_epochs=2)
    train(tmp_path / "second", config, stop_after=7)
    shutil.rmtree(tmp_path / "first")
    done = train(tmp_path / "second", config)
    assert len(load(tmp_path / "second", "cpu").card.training["stages"]) == 2 and len(done.before) == 1


def test_the_agent_may_practise_with_fewer_denoising_steps(unstopped, tmp_path):
    few = replace(CONFIG, dataset=str(unstopped[0] / "dataset"), imagination=ImaginationConfig(denoising_steps=1))
    steps = []
    for name, config in (("few", few), ("all", replace(few, imagination=ImaginationConfig()))):
        run = Run(tmp_path / name)
        run.begin(config)
        steps.append(Trainer(config, run)._practice_env().world.sampler.num_steps)
    assert steps == [1, SMALL.sampler.num_steps] and SMALL.sampler.num_steps > 1


def test_games_wait_as_long_as_the_config_says(tmp_path):
    """Games of equal seeds that press FIRE at once: Breakout serves where the frame count says."""
    served = {}
    for noop_max in (1, 30):
        config = replace(CONFIG, game="Breakout", agent=replace(SMALL, noop_max=noop_max), model_free=True)
        run = Run(tmp_path / str(noop_max))
        run.begin(config)
        trainer = Trainer(config, run)
        for env in (trainer._practice_env(), trainer._make_collector("random").env):
            env.reset(3)
            for _ in range(4):
                frames = env.step(torch.ones(env.num_envs, dtype=torch.int64)).frames
            served.setdefault(noop_max, []).append(len(frames.unique(dim=0)))
    assert served[1] == [1, 1] and min(served[30]) > 1


def test_model_free(tmp_path):
    config = replace(CONFIG, model_free=True, final_epochs=2)
    train(tmp_path / "stopped", config, stop_after=7)
    stopped, whole = train(tmp_path / "stopped", config), train(tmp_path / "whole", config)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "whole")
    assert {line["phase"] for line in metrics(tmp_path / "whole")} == {"actor_critic", "evaluate"}
    assert stopped.learners["actor_critic"].num_updates == whole.learners["actor_critic"].num_updates == 10
    training = json.loads((tmp_path / "whole" / "checkpoints" / "epoch_0002" / "card.json").read_text())["training"]
    assert training["model_free"], "whoever reads the card would take it for an agent of the dream"
    stages = stages_before(load(tmp_path / "whole", "cpu").card, ["actor_critic"])
    assert stages[0]["model_free"], "and whoever goes on from it"
    assert training["steps"] == 10 * 5 * 4 and "episodes" not in training
    halves = json.loads((tmp_path / "stopped" / "checkpoints" / "epoch_0002" / "card.json").read_text())["training"]
    assert halves["steps"] == training["steps"]


def test_first_collection_waits_for_rare_rewards(tmp_path):
    config = replace(CONFIG, collection=replace(CONFIG.collection, first_min_steps=20, first_max_steps=2_000,
                                                first_min_rare_rewards=10, steps=0), final_epochs=1)
    trainer = train(tmp_path / "run", config)
    counts = trainer.dataset.counts_rewards()
    assert 10 <= counts.sum() - counts.max() < 40 and 20 < trainer.dataset.num_steps < 2_000


def test_other_configuration_and_busy_or_foreign_folders_are_refused(unstopped, tmp_path):
    folder, _ = unstopped
    with pytest.raises(RunError, match=r"seed is 0 there, 5 here"):
        Run(folder).begin(replace(CONFIG, seed=5))
    Run(folder).begin(replace(CONFIG, runtime=replace(EXACT, device="auto")))
    lock = Run(folder).lock()
    with pytest.raises(RunError, match="another process"):
        Run(folder).lock()
    lock.release()
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("x")
    with pytest.raises(RunError, match="not empty"):
        Run(tmp_path / "mine").begin(CONFIG)
    with pytest.raises(RunError, match="holds no run"):
        Run(tmp_path / "nothing").config()


def test_a_moment_stays_until_a_newer_one_is_whole(tmp_path):
    def write(word: str, full: bool = False) -> None:
        def fill(folder: Path) -> None:
            folder.mkdir(parents=True)
            (folder / "word").write_text(word)
            if full:
                raise OSError("no space left on the disk")
        run.write_moment(1, fill)

    run = Run(tmp_path)
    write("first")
    with pytest.raises(OSError, match="no space"):
        write("half", full=True)
    assert (run.moment(1) / "word").read_text() == "first"
    write("second")
    assert (run.moment(1) / "word").read_text() == "second" and len(list(run.checkpoints.iterdir())) == 1


def test_the_newest_moment_is_that_of_the_last_epoch(tmp_path):
    run = Run(tmp_path)
    for epoch in (9998, 9999, 10000, 10001):
        run.moment(epoch).mkdir(parents=True)
    assert run.moments()[-1] == run.moment(10001)
    run.thin_out(3)
    assert [path.name for path in run.moments()] == ["epoch_9998", "epoch_10000", "epoch_10001"]


def test_moments_are_thinned_out_evenly(tmp_path):
    run = Run(tmp_path)
    for epoch in range(1, 21):
        run.moment(epoch).mkdir(parents=True)
    run.thin_out(5)
    epochs = [int(m.name.removeprefix("epoch_")) for m in run.moments()]
    assert len(epochs) == 5 and epochs[0] == 1 and epochs[-1] == 20
    assert max(b - a for a, b in pairwise(epochs)) <= 10


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_train_one_agent(tmp_path):
    """Plain torchrun on gloo: both processes take part and end with one set of weights and one run folder."""
    script = tmp_path / "child.py"
    script.write_text(
        "import json, sys, time; from pathlib import Path\n"
        "from tests.whole.test_training import CONVERTER, Run, TrainConfig, Trainer\n"
        "from diamond_core.training.distributed import join, leave\n"
        "from diamond_core.world.imagination import ImaginedEnv\n"
        "luck, reset = [], ImaginedEnv.reset\n"
        "ImaginedEnv.reset = lambda self, seed: luck.append(seed) or reset(self, seed)\n"
        "run, p = Run(Path(sys.argv[1])), join('cpu')\n"
        "config = CONVERTER.structure(json.loads(sys.argv[2]), TrainConfig)\n"
        "if p.is_main: run.begin(config)\n"
        "p.barrier()\n"
        # one comes late to each moment, as on a busy machine; its own clock would not find the next one due
        "keep = Trainer._save_moment\n"
        "Trainer._save_moment = lambda self, epoch: (time.sleep(0.3 * p.rank), keep(self, epoch))\n"
        "t = Trainer(config, run, p); assert t.run()\n"
        "sums = p.gather(sum(x.double().sum().item() for x in t.shown.parameters()))\n"
        "assert sums[0] == sums[1], sums\n"
        "a, b = p.gather(luck); assert a and not set(a) & set(b), (a, b)\n"
        "p.barrier()\n"
        "leave()\n")
    config = json.dumps(CONVERTER.unstructure(replace(CONFIG, save_every=0.5)))
    result = subprocess.run([sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone",
                             str(script), str(tmp_path / "run"), config], capture_output=True, text=True, timeout=120,
                            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1",
                                  "PYTHONFAULTHANDLER": "1"})
    # the child that fell speaks first, the launcher that reports it last
    assert result.returncode == 0, result.stderr
    assert len(metrics(tmp_path / "run")) == 17


def test_where_one_process_falls_the_others_are_ended():
    code = "import os, sys, time; time.sleep(60) if os.environ['RANK'] == '0' else sys.exit(3)"
    begun = time.monotonic()
    assert launch([sys.executable, "-c", code], 2) == 3 and time.monotonic() - begun < 30
    killed = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert launch([sys.executable, "-c", killed], 1) == 137
    one_group = "import os; assert os.environ['WORLD_SIZE'] == '2' and os.environ['MASTER_PORT']"
    assert launch([sys.executable, "-c", one_group], 2) == 0


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
@pytest.mark.parametrize("ends", [signal.SIGINT, signal.SIGKILL])
def test_ctrl_c_or_a_killed_launcher_stops_all_processes_and_loses_nothing(tmp_path, ends):
    command = [sys.executable, "-m", "app.commands.train", "--game", "toy", "--preset", "tiny", "--run",
               str(tmp_path / "run"), "--processes", "2"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (tmp_path / "run" / "metrics.jsonl").exists():
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.1)
    os.killpg(child.pid, ends)  # as a terminal does
    out, err = child.communicate(timeout=60)
    assert child.returncode == (0 if ends == signal.SIGINT else -ends) and "Traceback" not in err, err
    assert err.count("stopping after") == (ends == signal.SIGINT), err
    assert out.count("stopped and saved in epoch 1") == 1, out
    assert out.rstrip().endswith("--resume --processes 2")


def test_a_terminal_that_is_closed_leaves_nobody_behind(tmp_path):
    code = "import os, time; open(os.environ['RANK'], 'w').write(str(os.getpid())); time.sleep(60)"
    script = ("import signal, sys; from diamond_core.training.distributed import launch; "
              "signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # these tests may run under nohup
              f"sys.exit(launch([sys.executable, '-c', {code!r}], 2))")
    child = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)})
    while not all((tmp_path / rank).exists() and (tmp_path / rank).read_text() for rank in "01"):
        assert child.poll() is None
        time.sleep(0.05)
    child.send_signal(signal.SIGHUP)
    assert child.wait(30) == 128 + signal.SIGHUP
    for rank in "01":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / rank).read_text()), 0)


@pytest.mark.skipif(not torch.distributed.is_available(), reason="this torch has no torch.distributed")
def test_two_processes_stopped_and_resumed_say_what_they_had_said(tmp_path):
    script = ("import itertools, json, sys; from pathlib import Path\n"
              "from tests.whole.test_training import CONVERTER, Run, TrainConfig, Trainer\n"
              "from diamond_core.training.distributed import join, leave\n"
              "config = CONVERTER.structure(json.loads(sys.argv[1]), TrainConfig)\n"
              "p = join('cpu')\n"
              "for name, stops in (('whole', [None]), ('parts', [3, 5, None])):\n"
              "    run = Run(Path(name))\n"
              "    if p.is_main: run.begin(config)\n"
              "    p.barrier()\n"
              "    for stop in stops:\n"
              "        asked = itertools.count()\n"
              "        t = Trainer(config, run, p, lambda: stop is not None and next(asked) >= stop)\n"
              "        assert t.run() is (stop is None)\n"
              "        p.barrier()\n"
              "leave()\n")
    config = replace(CONFIG, dataset=None, final_epochs=0, collection=replace(CONFIG.collection, total_steps=200))
    child = [sys.executable, "-c", script, json.dumps(CONVERTER.unstructure(config))]
    code = f"import sys; from diamond_core.training.distributed import launch; sys.exit(launch({child!r}, 2))"
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120,
                            env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert result.returncode == 0, result.stderr
    assert metrics(tmp_path / "parts") == metrics(tmp_path / "whole") != []

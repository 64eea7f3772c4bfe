"""The command line: whole walks on the toy game, and one clear line with exit code 2 for every kind of bad input."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.cli import main, quota, spread
from app.commands.data import alone_in, players
from app.commands.evaluate import shown
from app.commands.train import say_if_idle, seconds
from diamond_core.agent.policies import RandomPolicy
from diamond_core.agent.scripted import RULES
from diamond_core.config import LearnerConfig, SamplerConfig
from diamond_core.envs import make_env
from diamond_core.presets import paper, playground
from diamond_core.replay import Dataset
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import CONVERTER, Card, save_checkpoint
from diamond_core.training.library import load
from diamond_core.training.run import Run
from tests.conftest import SMALL
from tests.whole.test_training import CONFIG

SHORT = ["--denoiser.first-updates", "2", "--denoiser.updates", "1", "--reward-end.first-updates", "2",
         "--reward-end.updates", "1", "--actor-critic.first-updates", "1", "--actor-critic.updates", "1",
         "--evaluation.final-episodes", "1", "--evaluation.max-steps", "20", "--collection.first-min-steps", "80",
         "--collection.first-max-steps", "80", "--collection.steps", "0", "--runtime.device", "cpu"]


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A dataset, a run and two checkpoints of the toy game."""
    folder = tmp_path_factory.mktemp("home")
    main(["collect", "--game", "toy", "--steps", "400", "--out", str(folder / "data"), "--num-envs", "4",
          "--image-size", "8"])
    main(["train", "--game", "toy", "--preset", "tiny", "--run", str(folder / "run"), *SHORT])
    torch.manual_seed(0)
    agent = Agent.from_config(SMALL, 6)
    pong = Card("Pong", ["NOOP", "FIRE", "RIGHT", "LEFT", "RIGHTFIRE", "LEFTFIRE"], SMALL)
    save_checkpoint(folder / "pong", agent, pong)
    return folder


def fails(capsys, *args) -> str:
    """The one line that a failing command prints."""
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in args])
    out = capsys.readouterr()
    assert stop.value.code == 2
    assert out.err.startswith("diamond: ") and out.err.count("\n") == 1 and "Traceback" not in out.err
    return out.err


def test_a_collection_that_is_stopped_keeps_what_was_played(tmp_path, capsys, monkeypatch):
    act, calls = RandomPolicy.act, []

    def stopping(self: RandomPolicy, frames: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        if len(calls) == 10:
            # what Ctrl-C would call; a signal of its own ends a worker of pytest-xdist
            signal.getsignal(signal.SIGINT)(signal.SIGINT, None)
        return act(self, frames)

    monkeypatch.setattr(RandomPolicy, "act", stopping)
    main(["collect", "--game", "toy", "--steps", "400", "--out", str(tmp_path / "data"), "--num-envs", "4",
          "--policy", "random", "--image-size", "8"])
    out = capsys.readouterr()
    assert "stopped after 40 of 400 steps" in out.out and "40 steps in" in out.out and "stopping" in out.err
    assert Dataset.open(tmp_path / "data").num_steps == 40


def test_games_that_wait_alike_serve_alike(tmp_path):
    """Breakout serves where its frame count says."""
    places = {}
    for noop_max in ("1", "30"):
        main(["collect", "--game", "Breakout", "--steps", "400", "--num-envs", "16", "--policy", "random",
              "--seed", "3", "--out", str(tmp_path / noop_max), "--noop-max", noop_max])
        dataset = Dataset.open(tmp_path / noop_max)
        balls = [RULES["Breakout"].ball.find(dataset[i].frames)[:, 1] for i in range(dataset.num_episodes)]
        places[noop_max] = {round(x[~x.isnan()][0].item()) for x in balls if not x.isnan().all()}
    assert len(places["1"]) == 1 < len(places["30"])


def test_a_lost_life_parts_real_games_as_it_parts_dreams(capsys, home, monkeypatch):
    asked = {}

    def make_env(*args, **kwargs):
        asked.update(kwargs)
        raise ValueError("not today")

    monkeypatch.setattr("diamond_core.envs.make_env", make_env)
    assert "not today" in fails(capsys, "evaluate", "free", home / "run", "--dataset", home / "data")
    assert asked["life_loss_ends"]


def test_the_same_seed_under_other_rules_is_other_play(capsys, tmp_path):
    again = ["collect", "--game", "toy", "--steps", "40", "--policy", "random", "--image-size", "8", "--append",
             "--out", str(tmp_path / "data")]
    main(again)
    main([*again, "--noop-max", "1"])
    capsys.readouterr()
    assert "with seed 0 already" in fails(capsys, *again) and "seed 0 already" in fails(capsys, *again, "--noop-max", 1)


@pytest.mark.parametrize(("files", "cores"), [
    ({"cpu.max": "150000 100000\n"}, 2), ({"cpu.max": "50000 100000\n"}, 1), ({"cpu.max": "max 100000\n"}, None),
    ({"cpu.max": "900000 100000\n"}, None), ({}, None),
    ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
    ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None)])
def test_a_containers_share_of_the_cores_is_known(tmp_path, monkeypatch, files, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    (tmp_path / "cpu").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert quota(tmp_path) == cores


def test_help_needs_no_command(capsys):
    main([])
    assert "diamond train" in capsys.readouterr().out


@pytest.mark.parametrize("args, words", [
    (["dance"], "unknown command 'dance'"),
    (["play", "--fram", "3"], "diamond: Unrecognized options: --fram, 3"),
    (["evaluate", "beauty"], "evaluate returns"),
    (["train", "--game", "Pongg", "--preset", "tiny", "--run", "x"], "Pong"),
    (["train", "--game", "toy", "--preset", "huge", "--run", "x"], "paper, playground, tiny"),
    (["train", "--game", "toy", "--preset", "tiny"], "--run DIR"),
    (["train", "--game", "toy", "--preset", "tiny", "--run", "x", "--runtime.device", "abacus"], "auto, cpu, cuda"),
    (["train", "--game", "toy", "--preset", "tiny", "--run", "x", "--runtime.device", "cuda:7"], "not on this machine"),
    (["train", "--game", "toy", "--preset", "tiny", "--run", "x", "--denoiser.batchsize", "3"], "batchsize"),
    (["train", "--game", "toy", "--preset", "tiny", "--run", "x", "--seed", "many"], "many"),
    (["train", "--game", "toy", "--preset", "tiny", "--run", "x", "--time-limit", "soon"], "45m"),
    (["train", "--resume", "--run", "nowhere"], "holds no run"),
    (["train", "--game", "toy", "--preset", "tiny", "--run", "x", "--init", "nothing"], "no checkpoint 'nothing'"),
    (["train", "--game", "toy", "--preset", "tiny", "--run", "x", "--dataset", "nothing"], "nothing"),
    (["collect", "--game", "toy", "--out", "d", "--policy", "clever"], "unknown policy 'clever'"),
    (["collect", "--game", "Pong", "--out", "d", "--policy", "scripted:most"], "scripted:most: the share"),
    (["collect", "--game", "Pong", "--out", "d", "--policy", "sticky:1"], "sticky:1: the share"),
    (["collect", "--game", "toy"], "--out"),
    (["collect", "--game", "toy", "--out", "d", "--steps", "0"], "1 or more"),
    (["collect", "--game", "gym:Nope-v0", "--out", "d"], "Nope-v0"),
    (["record", "nothing", "--out", "a.mp4"], "no checkpoint 'nothing'"),
    (["evaluate", "chaos", "Pong", "--pixels", "256"], "--pixels must be from 1 to 16, got 256"),
    (["record", "Pong", "--out", "a.mp4", "--scale", "5000"], "--scale must be from 1 to 64, got 5000"),
    (["import", "absent.pt", "--game", "Breakout", "--out", "b"], "absent.pt is missing"),
    (["evaluate", "aggregate", "absent.json"], "absent.json"),
    (["export", "Pong", "--out", "d", "--policy-temperature", "0"], "--policy-temperature must be more than 0, got 0"),
    (["collect", "--game", "Pong", "--out", "d", "--image-size", "0"], "--image-size must be 1 or more, got 0"),
    (["collect", "--game", "toy", "--out", "d", "--seed", "-5"], "--seed must be 0 to 2147483647, got -5"),
    (["collect", "--game", "toy", "--out", "d", "--seed", str(2**44)], "--seed must be 0 to 2147483647"),
    (["evaluate", "events", "Pong", "--dataset", "d", "--seed", str(2**32)], "--seed must be 0 to 2147483647"),
    (["train", "--resume", "--run", "x", "--game", "Breakout"], "leave out --game"),
    (["evaluate", "fidelity", "Pong", "--dataset", "d", "--holdout", "-3"], "--holdout must be 0 or more, got -3"),
    (["record", "Pong", "--out", "a.mp4", "--frames", "-1"], "--frames must be 1 or more, got -1"),
    (["record", "Pong", "--out", "."], ". is a folder"),
    (["evaluate", "events", "Pong", "--dataset", "d", "--ahead", "0"], "--ahead must be 1 or more, got 0"),
    (["evaluate", "free", "Pong", "--dataset", "d", "--dreams", "0"], "--dreams must be 1 or more, got 0"),
    (["evaluate", "free", "Pong", "--dataset", "d", "--policy", "me"], "unknown policy 'me': use random"),
    (["evaluate", "free", "Pong", "--dataset", "d", "--out", "."], ". is a folder"),
    (["evaluate", "fidelity", "Pong", "--dataset", "d", "--rollouts", "0"], "--rollouts must be 1 or more, got 0"),
    (["evaluate", "schedules", "Pong", "--dataset", "d", "--horizon", "0"], "--horizon must be 1 or more, got 0"),
    (["evaluate", "chaos", "Pong", "--pixels", "0"], "--pixels must be 1 or more, got 0"),
    (["evaluate", "chaos", "Pong", "--policy", "me"], "unknown policy 'me': use random"),
    (["evaluate", "chaos", "MsPacman", "--windows", "1"], "where MsPacman keeps what moves: use one of Pong"),
    (["web", "--steps", "0"], "must be 1 to 50, got 0"),
    (["web", "--steps", "11"], "with up to 10 denoising steps: got 11"),
    (["web", "--device", "cuda:7"], "not on this machine"),
    (["web", "--host", "1.2.3.4", "--port", "7999"], "an address of this machine, see --host"),
    (["play", "nothing"], "no checkpoint 'nothing'"),
    (["evaluate", "fidelity", "nothing", "--dataset", "d"], "no checkpoint"),
])
def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch, args, words):
    monkeypatch.chdir(tmp_path)
    assert words in fails(capsys, *args)


def test_what_torchrun_starts_is_the_command(tmp_path):
    command = [sys.executable, "-m", "app.commands.train", "--", "--game", "Nope", "--run", str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("diamond: no Atari game is called 'Nope'")


@pytest.mark.parametrize("processes, words", [("two", "takes a num"), ("0", "takes a num"), ("3", "share evenly")])
def test_several_processes_are_refused_before_they_start(capsys, tmp_path, processes, words):
    args = ["train", "--game", "toy", "--preset", "tiny", "--run", tmp_path / "x", "--processes", processes]
    assert words in fails(capsys, *args) and not (tmp_path / "x").exists()


def test_what_one_process_finds_wrong_is_one_line(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("x")
    command = [sys.executable, "-m", "app.commands.train", "--game", "toy", "--preset", "tiny", "--run",
               str(tmp_path / "full"), "--processes", "2"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2 and "Traceback" not in done.stderr, done.stderr
    assert done.stderr.count("diamond: ") == 1 and "is not empty" in done.stderr


def test_remarks_in_the_readme_are_words_for_every_shell():
    lines = re.findall(r"^    diamond .* # (.*)$", (Path(__file__).parents[2] / "README.md").read_text(), re.MULTILINE)
    assert len(lines) > 15 and not [line for line in lines if set(line) & set(";&|()'\"`?*<>$[]")]


def test_a_remark_is_no_argument(capsys):
    """The shell of macOS hands it over."""
    main(["games", "#", "the", "list"])
    assert "Pong" in capsys.readouterr().out


def test_a_star_stands_for_files_where_the_shell_leaves_it(tmp_path):
    for name in ("b.tape", "a.tape", "a.mp4"):
        (tmp_path / name).touch()
    files = spread([tmp_path / "*.tape", tmp_path / "a.mp4", tmp_path / "*.none"])
    assert [file.name for file in files] == ["a.tape", "b.tape", "a.mp4", "*.none"]


def test_one_process_is_this_one(capsys, tmp_path):
    args = ["--game", "toy", "--preset", "tiny", "--run", str(tmp_path / "x"), "--processes", "1", "--time-limit", "0"]
    main(["train", *args])
    assert "stopped and saved in epoch 1" in capsys.readouterr().out


def test_nothing_that_existed_is_lost(capsys, home, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("x")
    for args in (["collect", "--game", "toy", "--out", tmp_path / "full"],
                 ["train", "--game", "toy", "--preset", "tiny", "--run", tmp_path / "full"],
                 ["export", home / "run", "--out", tmp_path / "full"]):
        assert "not empty" in fails(capsys, *args)
    assert (tmp_path / "full" / "letter").read_text() == "x"
    for args in (["evaluate", "returns", home / "run"], ["bench"]):
        assert "full is a folder" in fails(capsys, *args, "--out", tmp_path / "full")
    assert "with seed 0 already" in fails(capsys, "collect", "--game", "toy", "--out", home / "data", "--append",
                                          "--image-size", 8)
    video = tmp_path / "a.gif"
    video.write_text("mine")
    assert "exists already" in fails(capsys, "record", home / "run", "--out", video, "--frames", 2)
    assert video.read_text() == "mine"
    assert "another configuration" in fails(capsys, "train", "--game", "toy", "--preset", "tiny", "--run", home / "run")


def test_an_agent_that_sees_other_sizes_is_refused_before_the_folder_is_made(capsys, home, tmp_path):
    args = ["collect", "--game", "toy", "--steps", 20, "--out", tmp_path / "d", "--policy", f"agent:{home / 'run'}"]
    assert "collect with --image-size 8" in fails(capsys, *args)
    main([*map(str, args), "--image-size", "8"])
    assert "--agent.image-size 8 8" in capsys.readouterr().out, "what is told to do next must work"


def test_two_do_not_add_to_one_dataset(capsys, home):
    with alone_in(home / "data"):
        assert "another process adds" in fails(capsys, "collect", "--game", "toy", "--out", home / "data", "--append",
                                               "--image-size", 8, "--seed", 7)


def test_a_score_is_not_written_over_anothers(capsys, home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a", "b"):
        shutil.copytree(home / "run", tmp_path / name / "toy")
    short = ["--episodes", "1", "--num-envs", "1", "--max-steps", "3"]
    for _ in range(2):
        main(["evaluate", "returns", "a/toy", *short])
    capsys.readouterr()
    assert "another checkpoint" in fails(capsys, "evaluate", "returns", "b/toy", *short)
    main(["evaluate", "returns", "b/toy/checkpoints/epoch_0001", *short])
    assert (tmp_path / "toy-epoch_0001-returns.json").exists()
    found = json.loads((tmp_path / "toy-returns.json").read_text())
    assert found["num_envs"] == 1 and found["sha256"] == load("a/toy", "cpu").card.sha256
    capsys.readouterr()  # the same run after another epoch:
    (tmp_path / "toy-returns.json").write_text(json.dumps(found | {"sha256": "another"}))
    assert "another checkpoint" in fails(capsys, "evaluate", "returns", "a/toy", *short)


def test_what_was_held_out_is_judged_and_a_file_says_what_of(capsys, home, tmp_path):
    data = ["--dataset", home / "data"]
    judged = [*data, "--holdout", 20, "--out", tmp_path / "x.json"]
    few = {"free": ["--dreams", 2, "--steps", 3], "events": [], "schedules": ["--rollouts", 2, "--horizon", 2]}
    for kind, rest in few.items():
        main(["evaluate", *map(str, (kind, home / "run", *judged, *rest))])
        found = json.loads((tmp_path / "x.json").read_text())
        assert found["sha256"] == load(home / "run", "cpu").card.sha256 and found["holdout"] == 20
        assert found["dataset"] == str(home / "data") and len(found) > 4
    capsys.readouterr()
    judged[3] = 999
    assert "--holdout 999 is more" in fails(capsys, "evaluate", "events", home / "run", *judged)
    assert "midst of play" in fails(capsys, "evaluate", "free", home / "run", *data, "--begin", "games")


def test_what_could_be_foreseen_is_told_and_kept(capsys, tmp_path, monkeypatch):
    monkeypatch.setattr("diamond_core.evaluation.chaos.BEGIN", (30, 40))
    out = tmp_path / "chaos.json"
    main(["evaluate", "chaos", "pong", "--windows", "3", "--policy", "sticky:0.9", "--out", str(out)])
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    assert "Pong: 3 windows of sticky:0.9 play, the ball 1 of the console's pixels elsewhere" in said
    rewards = found["precision"]["reward"]["100"]
    assert rewards["events"] and f"within 100 steps ({rewards['events']}): {rewards['alone']:.2f} by one" in said
    assert f"100: {found['psnr']['100']:.1f} dB" in said and "ends within" not in said


def test_a_game_goes_on_for_as_many_steps_as_are_asked_for(home, tmp_path, monkeypatch):
    asked = []

    def made(*args, **kwargs):
        asked.append(kwargs)
        return make_env(*args, **kwargs)

    monkeypatch.setattr("diamond_core.envs.make_env", made)
    for steps in (3, 27_000, 28_000):
        main(["evaluate", "returns", str(home / "run"), "--episodes", "1", "--num-envs", "1", "--max-steps", str(steps),
              "--out", str(tmp_path / "x.json")])
    assert [its["max_frames"] for its in asked] == [108_000, 108_000, 112_030]


def test_other_games_and_actions_are_refused(capsys, home, tmp_path):
    assert "checkpoint of Pong" in fails(capsys, "collect", "--game", "toy", "--out", tmp_path / "d", "--policy",
                                         f"agent:{home / 'pong'}")
    assert "does not fit this run's network" in fails(
        capsys, "train", "--game", "toy", "--preset", "playground", "--run", tmp_path / "r", "--init", home / "pong")
    assert "unknown policy" in fails(capsys, "record", home / "run", "--out", tmp_path / "a.gif", "--policy", "JUMP")
    assert "noise levels" in fails(capsys, "export", home / "pong", "--out", tmp_path / "e", "--sigma-min", 7)
    (tmp_path / "file").write_text("mine")
    assert "file is a file" in fails(capsys, "web", "--tapes", tmp_path / "file")
    line = fails(capsys, "evaluate", "fidelity", home / "pong", "--dataset", home / "data", "--out", tmp_path / "f")
    assert "Pong" in line and "toy" in line


def test_what_was_refused_may_be_corrected(capsys, home, tmp_path):
    """Nothing was done yet, so nothing binds the next command."""
    args = ["train", "--game", "toy", "--preset", "tiny", "--run", tmp_path / "r", "--time-limit", "0s"]
    assert "no checkpoint 'Nope'" in fails(capsys, *args, "--init", "Nope")
    told = main([str(arg) for arg in [*args, "--dataset", home / "data"]])
    assert told is None and "stopped and saved" in capsys.readouterr().out
    assert "another configuration" in fails(capsys, *args)


def test_corrupt_episode_is_named(capsys, home, tmp_path):
    shutil.copytree(home / "data", tmp_path / "data")
    victim = sorted((tmp_path / "data").glob("*.episode"))[3]
    victim.write_bytes(victim.read_bytes()[:-7])
    assert victim.name in fails(capsys, "train", "--game", "toy", "--preset", "tiny", "--run", tmp_path / "run",
                                "--dataset", tmp_path / "data")


def test_full_disk(capsys, home, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    config = replace(CONFIG, denoiser=LearnerConfig(first_updates=1, updates=1, batch_size=2))
    run = Run(tmp_path / "run")
    run.begin(config)
    monkeypatch.setattr("os.fsync", full)
    assert "no space left" in fails(capsys, "train", "--run", tmp_path / "run", "--resume")
    monkeypatch.undo()
    assert CONVERTER.structure(json.loads((tmp_path / "run" / "config.json").read_text()), type(config)) == config


def test_a_sticky_player_is_as_sticky_as_is_asked_for():
    for policy, share in (("sticky", 0.8), ("sticky:0.97", 0.97)):
        assert players(policy, "toy", 3, 4, 0, (8, 8)).sticks.tolist() == pytest.approx([share] * 4)


def test_the_same_play_does_not_come_twice_under_two_names(capsys, tmp_path):
    play = ["collect", "--game", "toy", "--steps", "20", "--num-envs", "2", "--out", tmp_path / "d"]
    main([*map(str, play), "--policy", "sticky"])
    capsys.readouterr()
    assert "already" in fails(capsys, *play, "--policy", "sticky:0.8", "--append")
    assert "already" in fails(capsys, *play, "--policy", "sticky:0.80", "--append")


def test_a_run_whose_agent_begins_too_late_says_so(capsys):
    for config in (replace(playground("Boxing"), final_epochs=41), replace(paper("Boxing"), final_epochs=1)):
        say_if_idle(config)
    assert capsys.readouterr().out == ""
    say_if_idle(replace(playground("Boxing"), final_epochs=30))
    assert "first-epoch 41 comes after the last epoch, 30\n" in capsys.readouterr().out


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="unknown command"):
        main(["dance", "--debug"])


@pytest.mark.parametrize("text, expected", [("45m", 2700), ("1h30m", 5400), ("90s", 90), ("90", 90), ("1.5h", 5400)])
def test_times(text, expected):
    assert seconds(text) == expected


def test_walk(capsys, home, tmp_path, monkeypatch):
    """Resume, export, record in all kinds, twin, evaluate, aggregate: what the README shows, on the toy game."""
    monkeypatch.chdir(tmp_path)
    main(["train", "--run", str(home / "run"), "--resume"])
    assert "finished" in capsys.readouterr().out
    main(["export", str(home / "run"), "--out", "shelf/toy", "--sigma-min", "0.2", "--temperature", "5"])
    kept = load("shelf/toy", "cpu").config.sampler
    assert (kept.sigma_min, kept.temperature, kept.two_step_sigma) == (0.2, 5.0, SamplerConfig().two_step_sigma)
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", "shelf")
    main(["games"])
    assert "toy" in capsys.readouterr().out
    for name in ("a.mp4", "a.gif", "a.webp", "a.png"):
        main(["record", "toy", "--out", name, "--frames", "4", "--policy", "LEFT,0,right", "--scale", "2"])
        assert (tmp_path / name).stat().st_size > 100
    main(["record", "toy", "--twin", "--out", "twin.gif", "--frames", "3", "--policy", "random"])
    main(["play", "toy", "--frames", "3", "--out", "toy-dream.mp4"])
    assert (tmp_path / "toy-dream.mp4").exists()
    main(["evaluate", "returns", "toy", "--episodes", "3", "--max-steps", "30", "--out", "new/score.json"])
    assert (tmp_path / "new" / "score.json").exists()
    main(["evaluate", "returns", "toy", "--episodes", "3", "--max-steps", "30"])
    assert "toy: score" in capsys.readouterr().out
    main(["evaluate", "fidelity", "toy", "--dataset", str(home / "data"), "--horizons", "1", "5", "--rollouts", "4",
          "--holdout", "5", "--out", "report"])
    out = capsys.readouterr().out
    assert "copy-last" in out and (tmp_path / "report" / "fidelity.png").exists()
    score = json.loads((tmp_path / "toy-returns.json").read_text())
    (tmp_path / "pong.json").write_text(json.dumps({**score, "game": "Pong"}))
    main(["evaluate", "events", "toy", "--dataset", str(home / "data"), "--moments", "4", "--out", "events.json"])
    assert " in reality, " in capsys.readouterr().out and json.loads((tmp_path / "events.json").read_text())["kinds"]
    main(["evaluate", "aggregate", "pong.json"])
    assert "iqm" in capsys.readouterr().out


def test_an_exported_agent_may_be_made_surer(home, tmp_path):
    main(["export", str(home / "run"), "--out", str(tmp_path / "sure"), "--policy-temperature", "0.25", "--no-half"])
    plain, sure = (load(path, "cpu").actor_critic.actor_linear for path in (home / "run", tmp_path / "sure"))
    assert plain.weight.abs().max() > 0
    torch.testing.assert_close(sure.weight, 4 * plain.weight)
    torch.testing.assert_close(sure.bias, 4 * plain.bias)
    main(["export", str(home / "run"), "--actor-critic", str(tmp_path / "sure"), "--out", str(tmp_path / "joined")])
    main(["export", str(tmp_path / "joined"), "--actor-critic", str(home / "run"), "--out", str(tmp_path / "back")])
    for name, expected in (("sure", [0.25]), ("joined", [0.25]), ("back", [])):
        stages = json.loads((tmp_path / name / "card.json").read_text())["training"].get("stages", [])
        assert [s["policy_temperature"] for s in stages if "policy_temperature" in s] == expected


def test_an_exported_world_may_move_towards_another(capsys, home, tmp_path):
    main(["export", str(home / "run"), "--towards", str(home / "run"), "--share", "0.25", "--no-half",
          "--out", str(tmp_path / "a")])
    agents = [load(path, "cpu") for path in (home / "run", tmp_path / "a")]
    for p, q in zip(*(x.parameters() for x in agents), strict=True):
        torch.testing.assert_close(p, q)
    assert agents[1].card.training["stages"][-1] == {"towards_another_world": 0.25}
    told = fails(capsys, "export", home / "run", "--towards", home / "pong", "--out", tmp_path / "b")
    assert "not the same game" in told


def test_the_time_left_of_a_part_does_not_count_the_parts_before_it(monkeypatch):
    import time

    import tqdm

    made = []

    class Bar(tqdm.tqdm):
        def __init__(self, **options) -> None:
            super().__init__(**options)
            made.append(self)

    monkeypatch.setattr(tqdm, "tqdm", Bar)
    with shown(" steps") as watch:
        watch("dreaming", 1, 2)
        time.sleep(0.3)
        watch("dreaming", 2, 2)
        assert made[0].format_dict["elapsed"] > 0.3 and made[0].n == 2
        watch("classifying", 1, 500)
        assert made[0].format_dict["elapsed"] < 0.2 and (made[0].n, made[0].total) == (1, 500)

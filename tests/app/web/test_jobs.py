"""Trainings as children of nobody: ordered, started, found again, stopped cleanly, resumed, deleted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from app.web.house import House, Settings
from app.web.jobs import JOB, LOG, JobError, Jobs, Order, arguments_of, canonical, tail
from app.web.progress import models_of, updates_until
from app.web.tabs.train import beginning, choices, refresh
from diamond_core.presets import tiny
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import Card, save_checkpoint
from diamond_core.training.run import Run


def test_an_order_is_what_the_command_line_takes():
    order = Order("pong", "tiny", minutes=1.5, dataset="data/x", seed=3, epochs=2, batch_size=4, learning_rate=1e-3)
    assert arguments_of(order) == [
        "--game", "Pong", "--preset", "tiny", "--seed", "3", "--time-limit", "90s", "--dataset", "data/x",
        "--final-epochs", "2", "--denoiser.batch-size", "4", "--denoiser.learning-rate", "0.001"]
    assert arguments_of(Order("toy", "tiny")) == ["--game", "toy", "--preset", "tiny", "--seed", "0"]


def test_a_world_goes_on_to_see_as_many_frames_as_it_did(tmp_path: Path):
    config = tiny("toy").agent
    config = replace(config, denoiser=replace(config.denoiser, num_conditioning_frames=6, num_conditioning_actions=4))
    save_checkpoint(tmp_path, Agent.from_config(config, 3), Card("toy", ["A", "B", "C"], config))
    assert arguments_of(Order("toy", "tiny", initial=str(tmp_path)))[-9:] == [
        "--init", str(tmp_path), "--initial-models", "denoiser", "reward_end",
        "--agent.denoiser.num-conditioning-frames", "6", "--agent.denoiser.num-conditioning-actions", "4"]


@pytest.mark.parametrize("order, words", [
    (Order("toy", minutes=-5), "0 to go on until it is done; got -5"),
    (Order("Pongg"), "Pong"), (Order("toy", "huge"), "paper"), (Order("toy", epochs=-1), "more than 0"),
    (Order("gym:Nothing-v9"), "Nothing"), (Order(""), "."), (Order("toy", learning_rate=float("inf")), "more than 0"),
    (Order("toy", batch_size=99_999_999), "a batch size of more than 0 and at most 10000, or 0 .* got 99999999"),
    (Order("toy", seed=10**30), "a seed of 0 to")])
def test_an_order_that_cannot_be(order: Order, words: str, tmp_path: Path):
    with pytest.raises(JobError, match=words):
        Jobs(tmp_path / "runs").start(order)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", ".hidden", "a b", "x" * 61, "-rf"])
def test_a_name_is_a_name(name: str, tmp_path: Path):
    with pytest.raises(JobError, match="letters"):
        Jobs(tmp_path / "runs").start(Order("toy", "tiny", name=name))


def test_games_by_any_spelling():
    assert canonical(" mspacman ") == canonical("ms_pacman") == "MsPacman" and canonical("toy") == "toy"


def begun(runs: Path, name: str, **job: object) -> Run:
    """A run that somebody began."""
    run = Run(runs / name)
    run.begin(tiny("toy"))
    if job:
        (run.folder / JOB).write_text(json.dumps(job))
    return run


def test_what_became_of_a_run(tmp_path: Path):
    jobs = Jobs(tmp_path)
    for name, words, state in (("a", "stopped and saved in epoch 1", "stopped"), ("b", "finished in 3s", "finished"),
                               ("c", "diamond: no space left on the disk", "failed"), ("d", "", "stopped"),
                               ("e", "epoch 1/3 denoiser   ███    33/128,   1h02m left", "failed")):
        begun(tmp_path, name, pid=2**22 + 1)
        (tmp_path / name / LOG).write_text(f"epoch 1/3\r{words}\n")
        assert jobs.status(name).state == state
    assert jobs.status("c").last_words == "diamond: no space left on the disk"
    assert "without saving" in jobs.status("e").last_words, "what is killed says nothing"
    metrics = tmp_path / "e" / "metrics.jsonl"
    metrics.write_text("{}\n")
    assert jobs.status("e").state == "failed"
    os.utime(metrics, (time.time() - 1800, time.time() - 1800))
    os.utime(tmp_path / "e" / LOG, (time.time() - 3600, time.time() - 3600))
    assert jobs.status("e").state == "stopped", "it went on in a terminal"
    with pytest.raises(JobError, match="not being trained"):
        jobs.stop("a")
    jobs.delete("a")
    assert sorted(jobs.names()) == ["b", "c", "d", "e"] and not (tmp_path / "a").exists()


def test_a_run_of_another_version_is_named_and_hides_no_other(tmp_path: Path):
    begun(tmp_path, "good")
    house = House(Settings(runs=tmp_path))
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "config.json").write_text('{"game": "toy", "from_another": true}')
    for job in (None, {"pid": 2**22 + 1, "started": 0, "game": None}):  # begun in a terminal, and gone on with here
        if job:
            (tmp_path / "old" / JOB).write_text(json.dumps(job))
        assert house.jobs.status("old").state == "unreadable"
        assert sorted(name for _, name in choices(house)) == ["good", "old"]
        assert "another version" in refresh(house, "old")[1] and "?" not in refresh(house, "old")[1]
    house.jobs.delete("old")
    assert house.jobs.names() == ["good"]


def test_only_what_was_found_can_be_named(tmp_path: Path):
    begun(tmp_path / "runs", "good")
    (tmp_path / "secret").mkdir()
    jobs = Jobs(tmp_path / "runs")
    for name in ("../secret", "/etc", "", ".", "nothing"):
        for act in (jobs.status, jobs.stop, jobs.resume, jobs.delete, jobs.log):
            with pytest.raises(JobError, match="no run"):
                act(name)
    assert (tmp_path / "secret").exists()


@pytest.mark.parametrize("words", [[], ["train", "--run", "toy-10"], ["train", "--run"]])
def test_a_number_that_was_given_to_another_process_is_not_ours(tmp_path: Path, words: list[str]):
    """The process that once trained is gone and its number belongs to somebody else: that one is left alone."""
    with called(words, tmp_path) as other:
        begun(tmp_path, "toy-1", pid=other.pid)
        jobs = Jobs(tmp_path)
        assert jobs.status("toy-1").state == "stopped"
        with pytest.raises(JobError):
            jobs.stop("toy-1")
        assert other.poll() is None


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a lock tells")
def test_a_training_that_was_begun_by_a_path_of_its_own_place_is_ours(tmp_path: Path):
    with called(["train", "--run", "runs/toy-1"], tmp_path) as child:
        begun(tmp_path / "runs", "toy-1", pid=child.pid)
        assert Jobs(tmp_path / "runs").status("toy-1").ours


@contextmanager
def called(words: list[str], where: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that was given these words."""
    code = "import time; print('there', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, *words], cwd=where, stdout=subprocess.PIPE) as process:
        try:
            # until then the system does not know its words
            assert process.stdout.readline()
            yield process
        finally:
            process.kill()


def test_a_training_that_came_to_its_end_in_a_terminal_is_finished(tmp_path: Path):
    run, jobs = begun(tmp_path, "toy-1"), Jobs(tmp_path)
    config = run.config()
    last = config.final_epochs + 1
    learned = [{"phase": name, "epoch": last, "loss": 1.0, "updates": updates_until(getattr(config, name), last)}
               for name in models_of(config)]
    lines = [{"phase": "collect", "epoch": 1, "steps": config.collection.total_steps}, *learned,
             {"phase": "evaluate", "epoch": last, "score": 1.0}]
    for number in range(1, len(lines) + 1):
        (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[:number]))
        assert jobs.status("toy-1").state == ("finished" if number == len(lines) else "stopped"), number


def test_a_training_in_a_terminal_is_seen_and_left_alone(tmp_path: Path):
    run = begun(tmp_path, "toy-1")
    (run.folder / "metrics.jsonl").write_text("")
    code = f"import sys, time; from diamond_core.training.run import Run; from pathlib import Path; lock = Run(Path(" \
           f"{str(run.folder)!r})).lock(); print('held', flush=True); time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline() == b"held\n"
        jobs = Jobs(tmp_path)
        assert jobs.status("toy-1").state == "training" and not jobs.status("toy-1").ours
        with pytest.raises(JobError, match="started elsewhere"):
            jobs.stop("toy-1")
        with pytest.raises(JobError, match="being trained already"):
            jobs.resume("toy-1")
        with pytest.raises(JobError, match="stop it first"):
            jobs.delete("toy-1")
        # the lock that was asked about is still theirs
        assert Jobs(tmp_path).status("toy-1").state == "training"
        # nor is it deleted before its first line of metrics, or long after the last one
        for age in (3600, None):
            if age is None:
                (run.folder / "metrics.jsonl").unlink()
            else:
                os.utime(run.folder / "metrics.jsonl", (time.time() - age,) * 2)
            with pytest.raises(JobError, match="stop it there first"):
                jobs.delete("toy-1")
            assert run.exists
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_a_log_without_its_bars(tmp_path: Path):
    path = tmp_path / "log"
    path.write_bytes(b"a 1/9\ra 2/9\x1b[A\r\x1b[31ma 9/9\nfinished\n\n\xff\n")
    assert tail(path) == ["a 9/9", "finished", "\ufffd"] and tail(tmp_path / "none") == []


def test_a_training_outlives_who_started_it(tmp_path: Path):
    """Started by a server that ends; found, stopped and resumed by the next."""
    runs = tmp_path / "runs"
    code = f"from app.web.jobs import Jobs, Order; from pathlib import Path; " \
           f"print(Jobs(Path({str(runs)!r})).start(Order('toy', 'tiny', batch_size=2)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout == "toy-1\n"
    jobs = Jobs(runs)
    try:
        assert jobs.names() == ["toy-1"] and jobs.status("toy-1").state == "training"
        assert jobs.status("toy-1").ours and jobs.status("toy-1").config.denoiser.batch_size == 2
        with pytest.raises(JobError, match="already"):
            jobs.start(Order("toy", "tiny", name="toy-1"))
        wait_for(lambda: (runs / "toy-1" / "metrics.jsonl").exists())
        jobs.stop("toy-1")
        assert jobs.status("toy-1").state in ("stopping", "stopped")
        wait_for(lambda: jobs.status("toy-1").state == "stopped")
        assert "stopped and saved" in jobs.log("toy-1") and len(Run(runs / "toy-1").moments()) == 1
        size = (runs / "toy-1" / LOG).stat().st_size
        jobs.resume("toy-1", minutes=0.01)
        wait_for(lambda: jobs.status("toy-1").state == "stopped")
        assert (runs / "toy-1" / LOG).stat().st_size > size
    finally:
        job = json.loads((runs / "toy-1" / JOB).read_text())
        if Jobs(runs).status("toy-1").state != "stopped":
            os.kill(job["pid"], 9)


def wait_for(happened, seconds: float = 90) -> None:
    until = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.1)


def test_the_order_of_runs_is_the_newest_first(tmp_path: Path):
    for i, name in enumerate(("a", "b", "c")):
        run = begun(tmp_path, name)
        os.utime(run.folder, (1000 + i, 1000 + i))
    assert Jobs(tmp_path).names() == ["c", "b", "a"]
    assert replace(Order("toy"), seed=1).seed == 1


def test_a_beginning_that_was_chosen_a_moment_ago_is_no_error():
    """Who starts at once after changing the preset still sends the choice of before; `begin` takes new weights then."""
    assert beginning("toy", "tiny").preprocess("Pong") == "Pong"

"""Checkpoints come in as tensors and never as code, under names that are names, and go out only from the own shelf."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from app.web import imports
from app.web.house import House
from app.web.imports import bring_files, bring_from_hub, bring_moment, free, throw_out
from app.web.jobs import JobError
from app.web.shelf import Shelf, Unknown
from diamond_core.presets import tiny
from diamond_core.training.agent import Agent
from diamond_core.training.checkpoint import CheckpointError, read_card
from diamond_core.training.library import SHIPPED, WORLDS, load
from diamond_core.training.run import Run
from tests.app.web.conftest import small_checkpoint


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Weights of the toy game as they are published: a state dict, with no word on the game."""
    torch.manual_seed(0)
    agent = Agent.from_config(tiny("toy").agent, 3)
    torch.save(agent.published_state_dict(), tmp_path / "toy.pt")
    return tmp_path / "toy.pt"


def test_a_published_file_becomes_a_dream(published: Path, own: Path):
    folder = bring_files([published], "toy", "", own)
    assert folder == own / "toy"
    agent = load(folder, "cpu")
    assert agent.starts is not None and agent.card is not None and agent.card.action_names == ["NOOP", "LEFT", "RIGHT"]
    weights = torch.load(published, weights_only=True)
    save_file({k: v.contiguous().clone() for k, v in weights.items()}, published.with_suffix(".safetensors"))
    assert bring_files([published.with_suffix(".safetensors")], "toy", "again", own) == own / "again"
    with pytest.raises(JobError, match="already"):
        bring_files([published], "toy", "again", own)


def test_the_files_of_a_checkpoint_come_in_together(tmp_path: Path, own: Path):
    files = list(small_checkpoint(tmp_path / "small").iterdir())
    assert bring_files(files, "Pong", "mine", own) == own / "mine"
    assert load(own / "mine", "cpu").num_actions == 3
    assert bring_files(files, "Pong", "", own) == own / "toy"
    with pytest.raises(CheckpointError, match="missing"):
        bring_files([f for f in files if f.name != "starts.safetensors"], "Pong", "other", own)


def test_damaged_files_leave_nothing(tmp_path: Path, own: Path):
    folder = small_checkpoint(tmp_path / "small")
    (folder / "weights.safetensors").write_bytes((folder / "weights.safetensors").read_bytes()[:-4] + b"xxxx")
    with pytest.raises(CheckpointError, match=r"^(?!.*/).*SHA-256"):
        bring_files(list(folder.iterdir()), "toy", "mine", own)
    assert list(own.iterdir()) == []


def test_nothing_in_a_file_is_executed(tmp_path: Path, own: Path):
    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    torch.save({"a": Evil()}, tmp_path / "evil.pt")
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "noise.safetensors").write_bytes(b"\xff" * 100)
    (tmp_path / "x.py").write_text("raise SystemExit")
    for name in ("evil.pt", "raw.pt", "noise.safetensors", "x.py"):
        with pytest.raises(CheckpointError) as refusal:
            bring_files([tmp_path / name], "toy", "x", own)
        assert str(tmp_path) not in str(refusal.value) and "weights_only" not in str(refusal.value)
    with pytest.raises(CheckpointError):
        bring_files([], "toy", "x", own)
    assert not (tmp_path / "executed").exists() and not (own / "x").exists()


@pytest.mark.parametrize("name", ["../x", "a/b", ".x", "", "a b", "x" * 61])
def test_names_are_names(name: str, own: Path):
    with pytest.raises(JobError, match="letters"):
        free(own, name, "")


@pytest.mark.parametrize("repository", ["diamond", "a/b/c", "../x/y", "https://example.org/x", "a /b"])
def test_a_repository_is_an_owner_and_a_name(repository: str, own: Path):
    with pytest.raises(CheckpointError, match="OWNER/REPOSITORY"):
        bring_from_hub(repository, "Pong", "x", own)


def test_only_the_own_shelf_is_cleared(tmp_path: Path, own: Path):
    small_checkpoint(own / "mine")
    elsewhere = small_checkpoint(tmp_path / "elsewhere")
    (own / "link").symlink_to(elsewhere)
    for name in ("../elsewhere", "elsewhere", "nothing", "", ".", "link"):
        with pytest.raises(CheckpointError, match="stays"):
            throw_out(name, own)
    throw_out("mine", own)
    assert not (own / "mine").exists() and (elsewhere / "card.json").exists()


def test_what_was_shipped_stays_in_a_checkout_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert {folder.name for folder in SHIPPED.iterdir() if (folder / "card.json").exists()} >= set(WORLDS)
    monkeypatch.setattr(imports, "SHIPPED", tmp_path)
    for name in ("Pong", "mine"):
        small_checkpoint(tmp_path / name)
    assert list(imports.own(tmp_path)) == ["mine"]
    with pytest.raises(CheckpointError, match="stays"):
        throw_out("Pong", tmp_path)
    throw_out("mine", tmp_path)
    assert [folder.name for folder in tmp_path.iterdir()] == ["Pong"]


def test_what_is_wrong_with_a_file_is_told_before_a_name_that_is_taken(tmp_path: Path, own: Path):
    small_checkpoint(own / "toy")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(CheckpointError, match=r"bad\.safetensors"):
        bring_files([tmp_path / "bad.safetensors"], "toy", "", own)
    with pytest.raises(CheckpointError, match=r"missing card\.json, starts\.safetensors"):
        bring_files([own / "toy" / "weights.safetensors"], "toy", "", own)
    with pytest.raises(CheckpointError, match="which game"):
        bring_files([tmp_path / "bad.safetensors"], "", "", own)
    with pytest.raises(JobError, match="'toy' already"):
        bring_files(list((own / "toy").iterdir()), "", "", own)
    with pytest.raises(JobError, match="'toy' already"):  # before anything is fetched
        bring_from_hub("a/b", "toy", "", own)
    assert [folder.name for folder in own.iterdir()] == ["toy"]


def test_a_moment_becomes_a_dream_and_only_the_owner_opens_moments(tmp_path: Path, own: Path):
    run = Run(tmp_path / "runs" / "toy-1")
    run.begin(tiny("toy"))
    shutil.move(small_checkpoint(tmp_path / "small"), run.moment(3))
    shelf = Shelf(tmp_path / "runs", "cpu", quicken=lambda *_: None)
    assert shelf.moments("toy-1") == [("toy-1@3", "epoch 3")]
    assert bring_moment(shelf.path_of("toy-1@3", True), "kept", own) == own / "kept"
    assert bring_moment(shelf.path_of("toy-1@3", True), "", own) == own / "toy"
    assert shelf.load("toy-1@3", True).title == "toy-1, epoch 3"
    house = SimpleNamespace(shelf=shelf)
    assert House.moments(house, "toy-1@3") == [{"name": "toy-1@3", "word": "epoch 3"}]
    assert House.moments(house, "deleted@3") == [], "its dream goes on"
    beyond = f"toy-1@{'9' * 300}"
    for name, is_owner in (
            (beyond, True), ("toy-1@3", False), ("toy-1@4", True), ("../toy-1@3", True), ("toy-2@3", True)):
        with pytest.raises(Unknown):
            shelf.path_of(name, is_owner)


def test_what_was_recorded_in_a_training_goes_on_in_its_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    run = Run(tmp_path / "runs" / "Box")
    run.begin(tiny("toy"))
    for epoch in (1, 2):
        shutil.move(small_checkpoint(tmp_path / "small"), run.moment(epoch))
    (tmp_path / "runs" / ".old" / "config.json").parent.mkdir()
    (tmp_path / "runs" / ".old" / "config.json").write_text("{}")
    sha256 = read_card(run.moment(2)).sha256
    shelf = Shelf(tmp_path / "runs", "cpu", quicken=lambda *_: None)
    assert shelf.fitting(shelf.cards(True), "toy", sha256) == "Box@2"
    assert shelf.fitting(shelf.cards(False), "toy", sha256) is None
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(tmp_path / "shelf"))
    small_checkpoint(tmp_path / "shelf" / "kept")
    assert shelf.fitting(shelf.cards(True), "toy", sha256) == "kept"
    assert shelf.fitting(shelf.cards(True), "toy", "another") == "kept"


def test_a_few_dreams_are_kept_at_hand(tmp_path: Path, shelf: Path, monkeypatch: pytest.MonkeyPatch):
    for name in "abcd":
        small_checkpoint(tmp_path / "shelf" / name)
    monkeypatch.setenv("DIAMOND_CHECKPOINTS", str(tmp_path / "shelf"))
    few = Shelf(tmp_path / "runs", "cpu", keep=2, quicken=lambda *_: None)
    first = few.load("a", False)
    assert few.load("a", False) is first
    few.load("b", False)
    few.load("c", False)
    assert few.load("a", False) is not first and len(few._loaded) == 2

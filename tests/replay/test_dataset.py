"""RAM and folder say the same, after growth, after a kill and after a rollback, and hold nothing twice."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from diamond_core.replay import Dataset, DatasetError, DatasetInfo, Episode, EpisodeError

ROOT = Path(__file__).parents[2]
MEMORY = """
import os, sys, tempfile, torch
from pathlib import Path
from diamond_core.replay import Dataset, DatasetInfo, Episode, SegmentSampler

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

with tempfile.TemporaryDirectory() as name:
    info = DatasetInfo("Counter", ("A",))
    for length, count in ((1000, 80), (50, 400)):
        no = torch.zeros(length, dtype=torch.bool)
        frames = torch.full((length + 1, 3, 64, 64), 7, dtype=torch.uint8)
        episode = Episode(frames, torch.zeros(length, dtype=torch.int64), torch.zeros(length), no, no)
        first = len(os.listdir(name))
        for number in range(first, first + count):
            if number == first:
                episode.save(Path(name) / f"{number:06d}.episode")
            else:
                os.link(Path(name) / f"{first:06d}.episode", Path(name) / f"{number:06d}.episode")
    before = resident()
    dataset = Dataset(Path(name), info)
    SegmentSampler(dataset, 19, 32, past_end=True, seed=0).batch(0)
    print(dataset.num_steps, resident() - before)
"""


def contents(dataset: Dataset) -> list[tuple]:
    """Everything in a dataset, comparable."""
    names = ("frames", "actions", "rewards", "ends", "truncs")
    episodes = [dataset[i] for i in range(dataset.num_episodes)]
    return [(*(getattr(e, name).tolist() for name in names), dict(e.info)) for e in episodes]


def filled(folder: Path | None, info: DatasetInfo, counter, lengths=(3, 8, 5)) -> Dataset:
    dataset = Dataset(folder, info)
    for index, length in enumerate(lengths):
        assert dataset.add(counter(length, finished=index < len(lengths) - 1)) == index
    return dataset


def test_ram_and_folder_are_equal(tmp_path, info, counter):
    dataset = filled(tmp_path / "new" / "folder", info, counter)
    again = Dataset.open(dataset.folder)
    assert sorted(os.listdir(dataset.folder)) == ["000000.episode", "000001.episode", "000002.episode", "info.json"]
    assert contents(again) == contents(dataset) == contents(filled(None, info, counter))
    assert again.info == info and again.num_episodes == 3 and again.num_steps == 16
    assert again.lengths.tolist() == [3, 8, 5]


def test_counts(info, counter):
    dataset = filled(None, info, counter)
    dataset.add(Episode(**{**vars(counter(4)), "rewards": -counter(4).rewards}))
    assert dataset.counts_rewards().tolist() == [3, 4, 13]
    assert dataset.counts_ends().tolist() == [17, 3]
    assert Dataset(None, info).counts_rewards().tolist() == [0, 0, 0]


def test_replace_takes_growth_only(tmp_path, info, counter):
    dataset = filled(tmp_path, info, counter)
    dataset.replace(2, dataset[2].concat(counter(4, first=5)))
    assert dataset.lengths.tolist() == [3, 8, 9] and contents(Dataset.open(tmp_path)) == contents(dataset)
    with pytest.raises(DatasetError, match="steps and more"):
        dataset.replace(1, counter(3))
    with pytest.raises(DatasetError, match="same info"):
        dataset.replace(1, Episode(**{**vars(counter(8)), "info": {}}))
    assert contents(Dataset.open(tmp_path)) == contents(dataset)


@pytest.mark.parametrize("on_disk", [True, False])
def test_rollback_is_exact(tmp_path, info, counter, on_disk):
    dataset = filled(tmp_path if on_disk else None, info, counter)
    before, lengths = contents(dataset), dataset.lengths.tolist()
    dataset.replace(2, dataset[2].concat(counter(4, first=5)))
    dataset.add(counter(6))
    dataset.add(counter(7, finished=False))
    (tmp_path / "000005.episode.77.tmp").write_bytes(b"half")
    dataset.rollback(lengths)
    assert contents(dataset) == before
    assert dataset[2].frames.untyped_storage().nbytes() == 6 * 4
    if on_disk:
        assert contents(Dataset.open(tmp_path)) == before
        assert len(os.listdir(tmp_path)) == 4
    assert dataset.add(counter(6)) == 3


def test_rollback_that_cannot_be_changes_nothing(tmp_path, info, counter):
    dataset = filled(tmp_path, info, counter)
    before = contents(dataset)
    for lengths in ([3, 8, 6], [3, 8, 5, 1]):
        with pytest.raises(DatasetError, match="some are missing"):
            dataset.rollback(lengths)
    assert contents(dataset) == contents(Dataset.open(tmp_path)) == before
    (tmp_path / "000000.episode").unlink()
    with pytest.raises(DatasetError, match="some are missing"):
        dataset.rollback([3, 5])


def test_refresh_follows_another_process(tmp_path, info, counter):
    writer, reader = filled(tmp_path, info, counter), Dataset.open(tmp_path)
    lengths = writer.lengths.tolist()
    writer.replace(2, writer[2].concat(counter(4, first=5)))
    writer.add(counter(6))
    oldest = reader[0]
    assert reader.refresh() == 2 and contents(reader) == contents(writer) and reader[0] is oldest
    assert reader.refresh() == 0
    writer.rollback(lengths)
    assert reader.refresh() == 1 and contents(reader) == contents(writer)
    writer.add(counter(6))
    with pytest.raises(DatasetError, match="refresh"):
        reader.add(counter(6))


def test_a_corrupt_episode_is_named_and_may_be_deleted(tmp_path, info, counter):
    dataset = filled(tmp_path, info, counter)
    path = tmp_path / "000001.episode"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(EpisodeError, match=r"000001\.episode.*delete it"):
        Dataset.open(tmp_path)
    path.unlink()
    dataset = Dataset.open(tmp_path)
    assert dataset.lengths.tolist() == [3, 5] and dataset.add(counter(9)) == 2
    assert Dataset.open(tmp_path).lengths.tolist() == [3, 5, 9]


def test_a_failed_save_changes_nothing(tmp_path, monkeypatch, info, counter):
    dataset = filled(tmp_path, info, counter)

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    for attempt in (lambda: dataset.add(counter(4)), lambda: dataset.replace(2, counter(9))):
        with pytest.raises(OSError, match="No space left"):
            attempt()
    assert dataset.lengths.tolist() == [3, 8, 5] == Dataset.open(tmp_path).lengths.tolist()
    assert len(os.listdir(tmp_path)) == 4


def test_what_is_no_dataset_or_another_one_is_refused(tmp_path, info, counter):
    for folder in (tmp_path, tmp_path / "nowhere"):
        for expected in (None, info):
            with pytest.raises(DatasetError, match=r"found no info\.json"):
                Dataset.open(folder, expected)
    assert os.listdir(tmp_path) == []
    filled(tmp_path, info, counter)
    for name, value in {"game": "Pong", "action_names": ("A", "C"), "frame_shape": (3, 64, 64)}.items():
        with pytest.raises(DatasetError, match=name):
            Dataset.open(tmp_path, DatasetInfo(**{**vars(info), name: value}))
    assert Dataset.open(tmp_path, DatasetInfo(**{**vars(info), "policy": "human"})).info == info
    for text in ("{", "[]", '{"game": "Pong"}'):
        (tmp_path / "info.json").write_text(text)
        with pytest.raises(DatasetError, match=r"info\.json: expected"):
            Dataset.open(tmp_path)


def test_episodes_that_do_not_belong_are_refused(tmp_path, info, counter):
    dataset = Dataset(None, info)
    wrong = counter(4)
    wrong.actions[2] = 4
    for episode in (counter(0), wrong, Episode(**{**vars(counter(4)), "frames": counter(4).frames[..., :1]})):
        with pytest.raises(DatasetError, match="expected"):
            dataset.add(episode)
    assert dataset.num_episodes == 0 and dataset.num_steps == 0
    Dataset(tmp_path, info)
    wrong.save(tmp_path / "000000.episode")
    with pytest.raises(DatasetError, match=r"000000\.episode: expected"):
        Dataset.open(tmp_path)


def test_split_holds_out_whole_episodes_without_copies(info, counter):
    dataset = filled(None, info, counter, lengths=range(1, 11))
    for test, lengths in ((slice(-2, None), [9, 10]), (slice(4, None, 5), [5, 10])):
        train, held = dataset.split(test)
        assert held.lengths.tolist() == lengths
        assert train.lengths.tolist() == [n for n in range(1, 11) if n not in lengths]
        assert held[0].frames.data_ptr() == dataset[lengths[0] - 1].frames.data_ptr()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_hundred_thousand_steps_fit_in_memory(tmp_path):
    done = subprocess.run([sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True)
    steps, grown = map(int, done.stdout.split())
    assert steps == 100_000 and grown < 1.3e9

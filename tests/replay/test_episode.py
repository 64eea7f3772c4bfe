"""An episode survives the disk exactly or says that it did not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import zstandard

from diamond_core import files
from diamond_core.replay import Episode, EpisodeError, episode

ROOT = Path(__file__).parents[2]
SAVER = """
import io, sys, time, torch
from pathlib import Path
from diamond_core import files
from diamond_core.replay import Episode

class Slow(io.FileIO):
    def write(self, data):
        super().write(data[: len(data) // 2])
        print("half", flush=True)
        time.sleep(0.1)
        super().write(data[len(data) // 2 :])

files.open = Slow
for step in range(1000):
    frames = torch.randint(0, 256, (30 + step, 3, 8, 8), dtype=torch.uint8)
    no = torch.zeros(29 + step, dtype=torch.bool)
    Episode(frames, no.long() + step, no.float(), no, no).save(Path(sys.argv[1]) / f"{step % 3}.episode")
"""


def zipped(raw: bytes, checksum: bool = True) -> bytes:
    return zstandard.ZstdCompressor(write_checksum=checksum).compress(raw)


@pytest.mark.parametrize("length", [0, 1, 7, 300])
def test_round_trip_is_exact(tmp_path, counter, same, length):
    counter(length).save(tmp_path / "a")
    assert same(Episode.load(tmp_path / "a"), counter(length))
    assert os.listdir(tmp_path) == ["a"]


def test_many_actions_and_truncation_survive(tmp_path, same):
    steps = [(700, -2.5, False, False), (3, float("inf"), False, True)]
    before = Episode.of([torch.zeros(3, 4, 5, dtype=torch.uint8)] * 3, steps, {"policy": "human", "score": 1.5})
    before.save(tmp_path / "a")
    assert same(Episode.load(tmp_path / "a"), before)
    assert before.finished and before.rewards.tolist() == [-2.5, float("inf")] and before.actions.tolist() == [700, 3]


def test_tensors_of_any_layout_survive(tmp_path, same):
    frames = torch.arange(3 * 4 * 5 * 2, dtype=torch.uint8).reshape(3, 4, 5, 2).movedim(-1, 1)
    steps = torch.arange(4)
    no = torch.zeros(2, dtype=torch.bool)
    before = Episode(frames, steps[::2], steps[1:3].float(), no, no)
    before.save(tmp_path / "a")
    assert same(Episode.load(tmp_path / "a"), before)


def test_any_truncation_and_any_flipped_byte_is_refused(tmp_path, counter):
    path = tmp_path / "a"
    counter(20).save(path)
    data = path.read_bytes()
    for place in range(len(data)):
        for wrong in (data[:place], data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :]):
            path.write_bytes(wrong)
            with pytest.raises(EpisodeError) as caught:
                Episode.load(path)
            assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_any_flipped_bit_of_the_header_is_refused_or_without_effect(tmp_path, counter, same):
    path = tmp_path / "a"
    counter(20).save(path)
    data = path.read_bytes()
    for place in range(8 * 48):
        wrong = bytearray(data)
        wrong[place // 8] ^= 1 << place % 8
        path.write_bytes(wrong)
        try:
            assert same(Episode.load(path), counter(20))
        except EpisodeError:
            continue


def test_foreign_and_tampered_files_are_refused(tmp_path, counter):
    path = tmp_path / "a"
    counter(20).save(path)
    good = zstandard.decompress(path.read_bytes())
    tensors = safetensors.torch.load(good)
    other = {"format": "diamond-episode-9", "info": "{}"}
    ours = {"format": episode.FORMAT, "info": "{}"}
    foreign = {
        "empty": b"",
        "text": b"PK\x03\x04 not an episode",
        "no checksum": zipped(good, checksum=False),
        "something after it": path.read_bytes() + b"x",
        "zipped text": zipped(b"hello"),
        "zipped nothing": zipped(b""),
        "a promise of terabytes": b"\x28\xb5\x2f\xfd\xe4" + (1 << 45).to_bytes(8, "little") + b"\x01\x00\x00" + b"abcd",
        "no metadata": zipped(safetensors.torch.save(tensors)),
        "another format": zipped(safetensors.torch.save(tensors, other)),
        "a missing tensor": zipped(safetensors.torch.save({"frames": tensors["frames"]}, ours)),
        "a tensor too many": zipped(safetensors.torch.save(tensors | {"x": torch.zeros(1)}, ours)),
        "other lengths": zipped(safetensors.torch.save(tensors | {"rewards": torch.zeros(3)}, ours)),
        "other types": zipped(safetensors.torch.save(tensors | {"ends": torch.zeros(20)}, ours)),
        "info of lists": zipped(safetensors.torch.save(tensors, ours | {"info": '{"a": []}'})),
        "info that is no table": zipped(safetensors.torch.save(tensors, ours | {"info": "[1]"})),
        "deep info": zipped(safetensors.torch.save(tensors, ours | {"info": "[" * 100_000})),
    }
    for name, data in foreign.items():
        path.write_bytes(data)
        with pytest.raises(EpisodeError, match="expected a whole episode"):
            pytest.fail(f"{name} was taken for {Episode.load(path)}")


def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, counter, same):
    def full_disk(*args):
        with open(*args) as file:
            file.write(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    path = tmp_path / "a"
    counter(5).save(path)
    monkeypatch.setattr(files, "open", full_disk, raising=False)
    with pytest.raises(OSError, match="No space left"):
        counter(9).save(path)
    assert os.listdir(tmp_path) == ["a"]
    assert same(Episode.load(path), counter(5))


def test_a_kill_while_saving_leaves_whole_episodes(tmp_path):
    command = [sys.executable, "-c", SAVER, str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as saver:
        for _ in range(8):
            assert saver.stdout.readline() == b"half\n"
        saver.kill()
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".episode"] * 3 + [".tmp"]
    for number, step in enumerate((6, 4, 5)):
        whole = Episode.load(tmp_path / f"{number}.episode")
        assert len(whole) == 29 + step and whole.actions.unique().tolist() == [step]


def test_clip_and_concat_are_inverse(counter, same):
    whole = counter(12)
    first, rest = counter(5, finished=False), counter(7, first=5)
    assert same(first.concat(rest), whole) and same(whole.clip(12), whole)
    assert same(whole.clip(5), first) and not first.finished and whole.finished
    assert same(whole.clip(0).concat(whole), whole)


def test_concat_refuses_what_does_not_follow(counter):
    with pytest.raises(EpisodeError, match="last frame"):
        counter(5, finished=False).concat(counter(7, first=6))
    with pytest.raises(EpisodeError, match="unfinished"):
        counter(5).concat(counter(7, first=5))


def test_compact_gives_up_the_rest_of_the_memory(counter, same):
    part = counter(200).clip(5)
    assert part.frames.untyped_storage().nbytes() == 201 * 4
    assert part.compact().frames.untyped_storage().nbytes() == 6 * 4
    assert same(part.compact(), part)


def test_what_does_not_hold_together_is_refused(counter):
    good = counter(4)
    wrong = [
        ("frames", good.frames.float()),
        ("frames", good.frames[0]),
        ("actions", good.actions.int()),
        ("rewards", good.rewards[:2]),
        ("ends", torch.tensor([False, True, False, False])),
        ("info", {"lives": [1, 2]}),
    ]
    for name, value in wrong:
        with pytest.raises(EpisodeError, match="expected"):
            Episode(**{**vars(good), name: value})
    with pytest.raises(EpisodeError, match="from 0 to 4"):
        good.clip(5)

"""Recordings: what was written is read back, pixel for pixel where the kind allows it; twins share their actions."""

from __future__ import annotations

import re
import subprocess
from itertools import islice, pairwise
from pathlib import Path

import imageio.v3 as iio
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from app.session.recording import DREAM, REALITY, Beside, Script, dream_env, play_frames, twin_frames
from app.session.video import VideoWriter
from diamond_core.agent.policies import AgentPolicy
from diamond_core.envs import make_env
from diamond_core.pixels import to_hwc
from diamond_core.training.agent import Agent
from diamond_core.world.dream import World

PALETTE = np.array([[20, 24, 56], [64, 208, 120], [255, 216, 72], [200, 30, 40]], np.uint8)


def frames(n: int, height: int = 16, width: int = 24) -> list[np.ndarray]:
    """Pictures of four colours, all different."""
    return list(PALETTE[np.random.default_rng(0).integers(0, 4, (n, height, width))])


def write(path: Path, images: list[np.ndarray], **options: int) -> np.ndarray:
    with VideoWriter(path, **options) as writer:
        for image in images:
            writer.add(image)
    assert writer.num_frames == len(images) and [p.name for p in path.parent.iterdir()] == [path.name]
    if path.suffix == ".mp4":
        return film(path)[0]
    return iio.imread(path, index=0 if path.suffix == ".png" else ...)[..., :3]


def film(path: Path) -> tuple[np.ndarray, str]:
    """(n, h, w, 3) and what ffmpeg says of the file; imageio's own reader leaves pipes open."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    done = subprocess.run(command, capture_output=True, check=True)
    words = done.stderr.decode()
    width, height = map(int, re.search(r"Video: h264.* (\d+)x(\d+)", words).groups())
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), words


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_moving_pictures_keep_every_pixel(tmp_path: Path, ending: str):
    images = frames(7)
    back = write(tmp_path / f"dream{ending}", images, scale=3)
    assert back.shape == (7, 48, 72, 3)
    np.testing.assert_array_equal(back, np.stack(images).repeat(3, axis=1).repeat(3, axis=2))


@pytest.mark.parametrize("ending", [".gif", ".webp"])
def test_moving_pictures_keep_time(tmp_path: Path, ending: str):
    path = tmp_path / "new folder" / f"dream{ending}"
    write(path, frames(30), scale=1)
    with Image.open(path) as film:
        total = 0
        for i in range(film.n_frames):
            film.seek(i)
            film.load()
            total += film.info["duration"]
    assert total == 2000


def test_gif_keeps_a_rare_colour_among_many(tmp_path: Path):
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 120, (64, 64, 3), dtype=np.uint8) for _ in range(5)]
    for image in images:
        image[30, 40] = 250, 200, 20
    back = write(tmp_path / "ball.gif", images, scale=1)
    assert np.abs(back[:, 30, 40].astype(int) - [250, 200, 20]).max() < 12


@pytest.mark.parametrize("size", [(16, 24), (15, 13)])
def test_film(tmp_path: Path, size: tuple[int, int]):
    images = frames(9, *size)
    back = write(tmp_path / "dream.mp4", images, scale=5)
    height, width = (side * 5 + side * 5 % 2 for side in size)
    assert back.shape == (9, height, width, 3)
    large = np.stack(images).repeat(5, axis=1).repeat(5, axis=2).astype(int)
    # the middle of every square, where no neighbour's chroma bleeds in
    seen, meant = back[:, 2::5, 2::5].astype(int)[:, :size[0], :size[1]], large[:, 2::5, 2::5]
    assert np.abs(seen - meant).mean() < 6


def test_film_runs_at_the_speed_of_play(tmp_path: Path):
    write(tmp_path / "dream.mp4", frames(30), scale=4)
    _, words = film(tmp_path / "dream.mp4")
    assert all(word in words for word in ("Duration: 00:00:02.00", "15 fps", "yuv420p(tv, bt709"))


def test_sheet(tmp_path: Path):
    images = frames(48)
    back = write(tmp_path / "dream.png", images, scale=2)
    assert back.shape == ((4 * 17 + 1) * 2, (6 * 25 + 1) * 2, 3)
    np.testing.assert_array_equal(back[2:34:2, 2:50:2], images[0])
    np.testing.assert_array_equal(back[-34:-2:2, -50:-2:2], images[-1])
    assert write(tmp_path / "dream.png", frames(2), scale=1, overwrite=True).shape == (18, 51, 3)


def test_grey_frames(tmp_path: Path):
    back = write(tmp_path / "grey.webp", [image[..., :1] for image in frames(2)], scale=1)
    np.testing.assert_array_equal(back[0], frames(1)[0][..., :1].repeat(3, axis=2))


def test_an_unknown_ending_is_told_the_known_ones(tmp_path: Path):
    with pytest.raises(ValueError, match=r"\.mp4, \.gif, \.webp, \.png, got 'dream.avi'"):
        VideoWriter(tmp_path / "dream.avi")


def test_a_file_is_overwritten_only_when_told(tmp_path: Path):
    path = tmp_path / "dream.gif"
    write(path, frames(2), scale=1)
    with pytest.raises(FileExistsError, match="allow it to be overwritten"):
        VideoWriter(path)
    assert len(write(path, frames(3), scale=1, overwrite=True)) == 3


@pytest.mark.parametrize("ending", [".mp4", ".gif"])
def test_what_fails_leaves_nothing(tmp_path: Path, ending: str):
    path = tmp_path / f"dream{ending}"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), VideoWriter(path, overwrite=True) as writer:
        writer.add(frames(1)[0])
        raise KeyboardInterrupt
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_no_frames_are_no_film(tmp_path: Path):
    with pytest.raises(ValueError, match="got none"), VideoWriter(tmp_path / "dream.mp4"):
        pass
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".mp4", ".gif", ".webp"])
def test_what_no_film_holds_is_refused_at_the_first_frame(tmp_path: Path, ending: str):
    with pytest.raises(ValueError, match="12000x16800 pixels are too many"), \
            VideoWriter(tmp_path / f"x{ending}", scale=2400) as writer:
        writer.add(np.zeros((7, 5, 3), np.uint8))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("image", [np.zeros((4, 5, 3)), np.zeros((4, 4, 3), np.uint8)])
def test_a_frame_that_does_not_fit(tmp_path: Path, image: np.ndarray):
    with VideoWriter(tmp_path / "x.gif") as writer:
        writer.add(np.zeros((4, 5, 3), np.uint8))
        with pytest.raises(ValueError, match=r"uint8 images of shape \(4, 5, 3\)"):
            writer.add(image)


def test_a_dream_is_played_frame_by_frame(small_agent: Agent, small_world: World):
    env = dream_env(small_world, small_agent.starts["frames"], small_agent.starts["actions"], seed=1)
    policy = AgentPolicy(small_agent.actor_critic, small_world.runtime, 1, seed=0)
    images = list(play_frames(env, policy, 12, seed=0))
    assert len(images) == 12 and images[0].shape == (16, 16, 3)
    assert any(np.array_equal(images[0], to_hwc(start[-1])) for start in small_agent.starts["frames"])


def test_the_seed_decides_where_dreams_begin(small_agent: Agent, small_world: World):
    def play(seed: int) -> list[np.ndarray]:
        env = dream_env(small_world, small_agent.starts["frames"], small_agent.starts["actions"], seed)
        return list(play_frames(env, Script([0, 1, 2]), 5, seed))

    assert np.array_equal(play(1), play(1))
    assert len({play(seed)[0].tobytes() for seed in range(8)}) > 2


def test_an_episode_is_shown_to_its_end_and_then_the_next_one():
    env = make_env("toy", 1, image_size=(16, 16))
    images = list(play_frames(env, Script([1]), 60, seed=3))
    ball = [int((image == [255, 216, 72]).all(-1).any(1).argmax()) // 4 for image in images]
    # a ball falls a row a frame; a new one begins in the top row
    assert all(b == a + 1 or (a == 3 and b == 0) for a, b in pairwise(ball)) and 0 in ball[1:]


def twins(world: World, actions: list[int], n: int, scale: int = 4, seed: int = 5) -> list[np.ndarray]:
    env = make_env("toy", 1, image_size=(16, 16))
    return list(twin_frames(world, env, Script(actions), n, seed, scale=scale, warmup=4))


def test_twins_take_the_same_actions(small_world: World):
    """Reality is what the emulator shows for these actions, the dream what the world makes of them."""
    actions = [2, 0, 1, 1, 2, 0, 0, 1]
    env = make_env("toy", 1, image_size=(16, 16))

    def survives(seed: int) -> bool:
        env.reset(seed)
        return not any(env.step(torch.tensor([action])).dones for action in actions[:7])

    seed = next(filter(survives, range(100)))
    real = [env.reset(seed).frames]
    real += [env.step(torch.tensor([action])).frames for action in actions[:6]]
    dream = small_world.start(torch.stack(real[1:5], dim=1), torch.tensor([actions[1:4]]), torch.tensor([seed << 16]))
    beside = Beside(16, 16, 4)
    for i, picture in enumerate(twins(small_world, actions, 3, seed=seed)):
        np.testing.assert_array_equal(picture, beside(to_hwc(dream.frames[0, -1]), to_hwc(real[4 + i][0])))
        dream = small_world.step(dream, torch.tensor([actions[4 + i]])).state


def test_twins_begin_anew_when_reality_ends(small_world: World):
    """Catch ends at the first ball missed: sixty pictures hold more than one night."""
    pictures = twins(small_world, [1], 60)
    beside = Beside(16, 16, 4)
    inside = slice(beside._top, beside._top + 64)
    same = [np.array_equal(*(p[inside, left:left + 64] for left in beside._lefts)) for p in pictures]
    assert same[0] and 1 < sum(same) < 30


def test_a_twin_dreams_of_one_episode_however_short(small_world: World):
    for warmup in range(24):
        env = make_env("toy", 1, image_size=(16, 16))
        next(twin_frames(small_world, env, Script([1]), 1, 5, warmup=warmup))
        assert len(env.state_dict()["actions"][0]) >= 3


def test_a_twin_is_framed_in_two_colours():
    picture = Beside(16, 16, 4)(np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 1), 9, np.uint8))
    middle = picture.shape[1] // 2
    for colour, part, other in ((DREAM, picture[:, :middle], picture[:, middle:]),
                                (REALITY, picture[:, middle:], picture[:, :middle])):
        assert (part == colour).all(-1).sum() >= 4 * 64 * 2 and not (other == colour).all(-1).any()
    assert (picture == 9).all(-1).sum() == 64 * 64


def test_twins_need_one_world_and_a_past(small_world: World):
    with pytest.raises(ValueError, match="one real world"):
        twin_frames(small_world, make_env("toy", 2, image_size=(16, 16)), Script([0]), 5, 0)
    with pytest.raises(ValueError, match="one action or more"):
        Script([])


def test_play_never_stops_by_itself():
    env = make_env("toy", 1, image_size=(16, 16))
    assert len(list(islice(play_frames(env, Script([0, 2]), 500, 0), 400))) == 400

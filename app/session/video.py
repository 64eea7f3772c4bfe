"""Frames become a file: a film (.mp4), a moving picture (.gif, .webp) or a sheet of stills (.png). Our own.

Pixels stay squares: whole multiples, nearest neighbour, no dithering.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import TracebackType

import imageio_ffmpeg
import numpy as np
from PIL import Image

from app.session.look import BACKGROUND, STEPS_A_SECOND
from app.session.tape import TapeError
from app.session.tapefile import walk

SCALE = 6
LARGEST = 16_383
"""Pixels a side that .webp holds; .mp4 is encoded to one more."""
COLUMNS, ROWS, GAP = 6, 4, 1
"""Of a sheet; the gap is in pixels before scaling."""
H264 = ["-crf", "12", "-movflags", "+faststart",
        # players assume BT.709 where nothing is said, ffmpeg converts by BT.601: do it and say it
        "-vf", "scale=out_color_matrix=bt709", "-colorspace", "bt709", "-color_primaries", "bt709",
        "-color_trc", "bt709"]


class VideoWriter:
    """Writes frames to a file of the kind that its name ends in. The file appears whole or not at all."""

    def __init__(self, path: Path, *, scale: int = SCALE, fps: int = STEPS_A_SECOND, overwrite: bool = False,
                 finish: Callable[[Path], None] = lambda _: None) -> None:
        """A pixel becomes scale x scale pixels; `finish` adds to the file before it appears. Raises ValueError for
        other endings, FileExistsError."""
        kind = path.suffix.lower()
        if kind not in KINDS:
            raise ValueError(f"expected a name that ends in {', '.join(KINDS)}, got {path.name!r}: choose one of these")
        if path.exists() and not overwrite:
            raise FileExistsError(f"{path} exists already: choose another name, or allow it to be overwritten")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.num_frames = path, 0
        self._shape: tuple[int, ...] | None = None
        self._scale = scale
        self._temporary = path.with_name(f".{path.stem}.{os.getpid()}{kind}")
        self._sink = KINDS[kind](self._temporary, scale, fps)
        self._finish = finish

    def add(self, image: np.ndarray) -> None:
        """One frame, (h, w, 3) or (h, w, 1) uint8, of the first one's shape."""
        if self._shape is None:
            self._shape = image.shape
            height, width = (side * self._scale for side in image.shape[:2])
            if max(height, width) > LARGEST and self.path.suffix.lower() != ".png":
                raise ValueError(f"{width}x{height} pixels are too many for a film, which holds at most {LARGEST} a "
                                 "side: choose a smaller scale")
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape != self._shape:
            raise ValueError(f"expected uint8 images of shape {self._shape}, got {image.dtype} {image.shape}: "
                             "see pixels.to_hwc")
        self._sink.add(np.broadcast_to(image, (*image.shape[:2], 3)))
        self.num_frames += 1

    def close(self) -> None:
        """Puts the finished file in its place. Raises OSError where it could not be written to its end."""
        try:
            if not self.num_frames:
                raise ValueError(f"{self.path}: expected one frame or more, got none: record longer")
            self._sink.save()
            self._finish(self._temporary)
            os.replace(self._temporary, self.path)
        finally:
            self.discard()

    def discard(self) -> None:
        """Gives up and leaves nothing behind."""
        self._sink.drop()
        self._temporary.unlink(missing_ok=True)

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        if kind is None:
            self.close()
        else:
            self.discard()


class _Film:
    """H.264, written while the frames come."""

    def __init__(self, path: Path, scale: int, fps: int) -> None:
        self._path, self._scale, self._fps = path, scale, fps
        self._pipe: Generator[None, bytes | None, None] | None = None

    def add(self, image: np.ndarray) -> None:
        """Appends a picture (h, w, 3) uint8; the first one starts the encoder and fixes the size."""
        large = enlarged(image, self._scale)
        # yuv420p knows even sizes only
        even = np.pad(large, [(0, large.shape[0] % 2), (0, large.shape[1] % 2), (0, 0)], mode="edge")
        if self._pipe is None:
            self._pipe = imageio_ffmpeg.write_frames(
                str(self._path.absolute()), even.shape[1::-1], fps=self._fps, codec="libx264", pix_fmt_out="yuv420p",
                macro_block_size=2, quality=None, output_params=H264)
            self._pipe.send(None)
        self._pipe.send(even.tobytes())

    def save(self) -> None:
        self.drop()
        try:
            kinds = {kind for kind, *_ in walk(self._path)}
        except (OSError, TapeError):
            kinds = set()
        # ffmpeg says nothing where it fails; the index comes last
        if not {b"moov", b"mdat"} <= kinds:
            raise OSError("the film could not be written to its end: the disk may be full")

    def drop(self) -> None:
        if self._pipe is not None:
            self._pipe.close()


Write = Callable[[Path, list[np.ndarray], int, int], None]
"""write(path, images, scale, fps)."""


class _Album:
    """Frames that are kept until they are written together."""

    def __init__(self, write: Write, path: Path, scale: int, fps: int) -> None:
        self._write, self._path, self._scale, self._fps = write, path, scale, fps
        self._images: list[np.ndarray] = []

    def add(self, image: np.ndarray) -> None:
        self._images.append(image.copy())

    def save(self) -> None:
        self._write(self._path, self._images, self._scale, self._fps)

    def drop(self) -> None:
        self._images = []


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    """(h, w, c) -> the same picture in squares of scale x scale pixels."""
    return image.repeat(scale, axis=0).repeat(scale, axis=1)


def durations(n: int, fps: int, unit: int) -> list[int]:
    """Milliseconds of n pictures in whole units that add up to the true time: GIF counts in hundredths of a second."""
    ends = [round(i * 1000 / fps / unit) * unit for i in range(n + 1)]
    return [after - before for before, after in pairwise(ends)]


def _some(images: list[np.ndarray], most: int) -> list[np.ndarray]:
    """At most so many, evenly spread from the first to the last."""
    return [images[i] for i in np.linspace(0, len(images) - 1, min(most, len(images))).round().astype(int)]


def _write_gif(path: Path, images: list[np.ndarray], scale: int, fps: int) -> None:
    """256 colours for the whole film, chosen so that a ball of few pixels keeps its own."""
    sample = Image.fromarray(np.concatenate(_some(images, 64)))
    palette = sample.quantize(256, Image.Quantize.MAXCOVERAGE)
    frames = [Image.fromarray(image).quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    large = [x.resize((x.width * scale, x.height * scale), Image.Resampling.NEAREST) for x in frames]
    large[0].save(path, save_all=True, append_images=large[1:], duration=durations(len(large), fps, 10), loop=0)


def _write_webp(path: Path, images: list[np.ndarray], scale: int, fps: int) -> None:
    first, *rest = (Image.fromarray(enlarged(image, scale)) for image in images)
    first.save(path, save_all=True, append_images=rest, duration=durations(len(images), fps, 1), loop=0, lossless=True,
               method=2)


def _write_sheet(path: Path, images: list[np.ndarray], scale: int, fps: int) -> None:
    stills = _some(images, COLUMNS * ROWS)
    columns = min(COLUMNS, len(stills))
    rows = -(-len(stills) // columns)
    h, w = (side + GAP for side in stills[0].shape[:2])
    sheet = np.full((rows * h + GAP, columns * w + GAP, 3), BACKGROUND, np.uint8)
    for i, still in enumerate(stills):
        y, x = i // columns * h + GAP, i % columns * w + GAP
        sheet[y:y + h - GAP, x:x + w - GAP] = still
    Image.fromarray(enlarged(sheet, scale)).save(path)


KINDS: dict[str, Callable[[Path, int, int], _Film | _Album]] = {
    ".mp4": _Film, ".gif": partial(_Album, _write_gif), ".webp": partial(_Album, _write_webp),
    ".png": partial(_Album, _write_sheet)}
"""The ending of a name -> what writes it."""

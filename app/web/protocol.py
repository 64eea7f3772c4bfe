"""What page and server say to each other: strict JSON one way, JSON events and binary packets of pictures the other.

Our own. Pixels travel as PNG, so that what is drawn is what was dreamed; a packet is

    "D" | kind, 1 byte | number of pictures, 1 byte | length of the JSON, 4 bytes little-endian | JSON
    then for each picture: its length, 4 bytes | PNG
"""

from __future__ import annotations

import io
import json
import math
import struct
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from app.session.look import STEPS_A_SECOND

MAX_MESSAGE = 16 * 1024
"""Bytes of one message from a page; the longest honest one is a link's."""
MAX_ACTIONS = 8192
"""Actions that a link may carry: nine minutes of play."""
MAX_DRAWN = 4096
"""Characters in which it tells how they were drawn."""
MAX_STEPS = 10
"""Denoising steps a frame: everybody else waits while it is drawn."""
TURN = r"\d{1,4}-([1-9]|10)-[12]-\d{1,3}(\.\d{1,6})?-\d{1,2}(\.\d{1,6})?"
HEADER = struct.Struct("<cBBI")
LENGTH = struct.Struct("<I")
VIEW, SHEET = 0, 1
"""Kinds of packets: what is seen now, and a sheet of frames (futures, or a frame as its noise is taken away)."""


class BadMessage(ValueError):
    """A message that no page of ours sends; the one who sent it is shown the door."""


class Message(BaseModel):
    """What every message keeps to: known fields only, of exactly their type, finite and within bounds."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Name = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^./\\\pC][^/\\\pC]*$")]
"""Of a folder on a shelf, where it is looked up among those that are there."""
Secret = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$")]
Key = Annotated[str, Field(pattern=r"^[a-z0-9]{1,12}$")]
Seed = Annotated[int, Field(ge=0, le=2**24 - 1)]
Count = Annotated[int, Field(ge=0, le=2**31 - 1)]


class Join(Message):
    """The first message: a newcomer, somebody who was cut off, or a spectator."""

    t: Literal["join"]
    resume: Secret | None = None
    watch: Secret | None = None


class Open(Message):
    """Step into a dream, the nth game of a seed. Actions (base 36 digits) are played first, the frames drawn as `drawn`
    says from a step on: step-denoising steps-order-churn-temperature; with a tape it goes on at one of its steps."""

    t: Literal["open"]
    game: Name
    seed: Seed = 0
    nth: Annotated[int, Field(ge=0, lt=1 << 14)] = 0
    actions: Annotated[str, Field(max_length=MAX_ACTIONS, pattern=r"^[0-9a-z]*$")] = ""
    drawn: Annotated[str, Field(max_length=MAX_DRAWN, pattern=rf"^({TURN}(_{TURN})*)?$")] = ""
    tape: Secret | None = None
    at: Count = 0


class Press(Message):
    """A key went down; `n` numbers it for the measurement of the way to the picture."""

    t: Literal["press"]
    key: Key
    n: Count


class Release(Message):
    """A key went up."""

    t: Literal["release"]
    key: Key


class Plain(Message):
    """What needs no more words."""

    t: Literal["blur", "leave", "step", "sleep", "wake", "resync", "fork", "unfork", "unpaint", "denoise", "link"]


class Got(Message):
    """A picture has been drawn: the next may come."""

    t: Literal["got"]
    seq: Count


class Ping(Message):
    """Asks how long the way is."""

    t: Literal["ping"]
    n: Count


class Pause(Message):
    """Holds the dream, or lets it go on."""

    t: Literal["pause"]
    on: bool


class Who(Message):
    """Who plays."""

    t: Literal["who"]
    who: Literal["you", "agent", "random", "help"]


class Show(Message):
    """What is looked at."""

    t: Literal["show"]
    view: Literal["dream", "reality", "twin"]


class Resync(Message):
    """Falls asleep anew every so many steps; 0 = never."""

    t: Literal["resync_every"]
    steps: Annotated[int, Field(ge=0, le=10_000)]


class Speed(Message):
    """Slow motion and fast forward."""

    t: Literal["speed"]
    x: Annotated[float, Field(ge=0.25, le=4)]


class Reset(Message):
    """A new dream; without a seed, of another start."""

    t: Literal["reset"]
    seed: Seed | None = None


class Rewind(Message):
    """Back to a moment of the timeline; not done while the strip is still being dragged."""

    t: Literal["rewind"]
    moment: Count
    done: bool = True


class Branch(Message):
    """Goes on in one of the futures that were fanned out."""

    t: Literal["branch"]
    action: Annotated[int, Field(ge=0, le=63)]


class SetKnobs(Message):
    """How frames are drawn; what is left out stays."""

    t: Literal["knobs"]
    steps: Annotated[int, Field(ge=1, le=MAX_STEPS)] | Literal["auto"] | None = None
    order: Literal[1, 2] | None = None
    churn: Annotated[float, Field(ge=0, le=50)] | None = None
    temperature: Annotated[float, Field(ge=0, le=10)] | None = None
    seed: Seed | None = None


class Wanted(Message):
    """Whether the agent's thoughts, or the emulator's full picture, are wanted."""

    t: Literal["mind", "screen"]
    on: bool


Pixel = Annotated[int, Field(ge=0, le=1023)]


class Paint(Message):
    """A stroke of colour on the frozen frame, or more of the one before."""

    t: Literal["paint"]
    path: Annotated[list[Annotated[tuple[Pixel, Pixel], Field(strict=False)]], Field(min_length=1, max_length=64)]
    new: bool
    radius: Annotated[int, Field(ge=0, le=16)]
    rgb: Annotated[tuple[Annotated[int, Field(ge=0, le=255)], Annotated[int, Field(ge=0, le=255)],
                         Annotated[int, Field(ge=0, le=255)]], Field(strict=False)]


class Record(Message):
    """Begins or ends a tape."""

    t: Literal["record"]
    on: bool


AnyMessage = Annotated[
    Join | Open | Press | Release | Plain | Got | Ping | Pause | Who | Show | Resync | Speed | Reset | Rewind | Branch
    | SetKnobs | Wanted | Paint | Record, Field(discriminator="t")]
_MESSAGES: TypeAdapter[Any] = TypeAdapter(AnyMessage)


def parse(data: str | bytes) -> Message:
    """A page's message. Raises BadMessage with one line that says what is wrong with it."""
    if isinstance(data, bytes):
        raise BadMessage("expected text, got a binary message")
    if len(data) > MAX_MESSAGE or len(data.encode("utf-8", "surrogatepass")) > MAX_MESSAGE:
        raise BadMessage(f"expected at most {MAX_MESSAGE} bytes a message, got {len(data)} characters")
    try:
        message: Message = _MESSAGES.validate_json(data)
        return message
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "message"
        if where.startswith("open."):  # no page makes such a wish by itself
            raise BadMessage("this link was cut off or changed: ask for it again") from None
        raise BadMessage(f"{where}: {first['msg']}"[:120]) from None


def event(t: str, **fields: Any) -> str:
    """An event for the page."""
    return json.dumps({"t": t, **plain(fields)}, separators=(",", ":"), allow_nan=False)


def packet(kind: int, fields: dict[str, Any], images: Sequence[bytes]) -> bytes:
    """Pictures (PNG) and what belongs to them."""
    text = json.dumps(plain(fields), separators=(",", ":"), allow_nan=False).encode()
    parts = [HEADER.pack(b"D", kind, len(images), len(text)), text]
    for image in images:
        parts += [LENGTH.pack(len(image)), image]
    return b"".join(parts)


def unpack(data: bytes) -> tuple[int, dict[str, Any], list[bytes]]:
    """What `packet` packed. Raises BadMessage."""
    try:
        magic, kind, number, size = HEADER.unpack_from(data)
        at = HEADER.size + size
        fields, images = json.loads(data[HEADER.size:at]), []
        for _ in range(number):
            (length,) = LENGTH.unpack_from(data, at)
            at += LENGTH.size + length
            images.append(data[at - length:at])
    except (struct.error, ValueError) as error:
        raise BadMessage(f"not a packet: {error}") from None
    if magic != b"D" or at != len(data):
        raise BadMessage(f"expected a packet of {at} bytes that begins with D, got {len(data)} bytes")
    return kind, fields, images


def png(image: np.ndarray, level: int = 3) -> bytes:
    """(h, w, 3) uint8 as PNG, every pixel as it is."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(file, "PNG", compress_level=level)
    return file.getvalue()


def webp(frames: Sequence[np.ndarray]) -> bytes:
    """Images (h, w, 3) as a film that plays over and over, every pixel as it is."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    file = io.BytesIO()
    first.save(file, "WEBP", save_all=True, append_images=rest, duration=round(1000 / STEPS_A_SECOND), loop=0,
               lossless=True, method=2)
    return file.getvalue()


def plain(value: Any) -> Any:
    """Numbers as JSON knows them: rounded, and null for what is not finite."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return round(value, 4) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): plain(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [plain(x) for x in value]
    return value

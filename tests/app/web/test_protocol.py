"""Messages are read strictly or not at all; packets and pixels come out as they went in."""

from __future__ import annotations

import io
import json
import random
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.desktop.knobs import KNOBS
from app.web import protocol as say

SHIPPED = Path(__file__).parents[3] / "checkpoints"
TEMPLATE = Path(say.__file__).parent / "static" / "template.js"


@pytest.mark.parametrize("text, expected", [
    ('{"t":"join"}', say.Join(t="join")),
    ('{"t":"join","resume":"abc-_9"}', say.Join(t="join", resume="abc-_9")),
    ('{"t":"open","game":"gym:CartPole-v1","seed":3}', say.Open(t="open", game="gym:CartPole-v1", seed=3)),
    ('{"t":"open","game":"toy-1@3","actions":"012z"}', say.Open(t="open", game="toy-1@3", actions="012z")),
    ('{"t":"open","game":"Pong, big (Ann\'s)"}', say.Open(t="open", game="Pong, big (Ann's)")),
    (f'{{"t":"open","game":"{"é" * 200}"}}', say.Open(t="open", game="é" * 200)),
    ('{"t":"press","key":"left","n":0}', say.Press(t="press", key="left", n=0)),
    ('{"t":"speed","x":1}', say.Speed(t="speed", x=1.0)),
    ('{"t":"knobs","steps":"auto"}', say.SetKnobs(t="knobs", steps="auto")),
    ('{"t":"paint","path":[[1,2],[3,2]],"new":true,"radius":1,"rgb":[1,2,255]}',
     say.Paint(t="paint", path=[(1, 2), (3, 2)], new=True, radius=1, rgb=(1, 2, 255))),
    ('{"t":"wake"}', say.Plain(t="wake")),
])
def test_what_a_page_says(text: str, expected: say.Message):
    assert say.parse(text) == expected


@pytest.mark.parametrize("world", sorted(SHIPPED.glob("*/card.json")), ids=lambda path: path.parent.name)
def test_the_knobs_of_a_shipped_world_can_be_set_again(world: Path):
    """Its temperature is more than 1; the page sends it for "As it was"."""
    temperature = json.loads(world.read_text())["config"]["sampler"]["temperature"]
    assert say.parse(json.dumps({"t": "knobs", "temperature": temperature})) == say.SetKnobs(
        t="knobs", temperature=temperature)
    (most,) = re.findall(r'slider\("temperature", "temperature", 0, ([\d.]+)', TEMPLATE.read_text())
    assert temperature <= float(most) and temperature in next(k.values for k in KNOBS if k.name == "temperature")


@pytest.mark.parametrize("text", [
    "", "null", "[]", "3", "{", '{"t":"dance"}', '{"t":["join"]}', '{"game":"Pong"}', '{"t":"join","extra":1}',
    '{"t":"press","key":"left"}', '{"t":"press","key":"left","n":-1}', '{"t":"press","key":"left","n":1.5}',
    '{"t":"press","key":"left","n":true}', '{"t":"press","key":"left","n":"1"}', '{"t":"press","key":"LEFT ","n":1}',
    '{"t":"press","key":"' + "a" * 13 + '","n":1}', '{"t":"speed","x":NaN}', '{"t":"speed","x":1e999}',
    '{"t":"knobs","steps":11}', '{"t":"open","game":"Pong","actions":"0","drawn":"0-50-2-0-1"}',
    '{"t":"speed","x":0}', '{"t":"speed","x":"1"}', '{"t":"open","game":"../../etc/passwd"}',
    '{"t":"open","game":".."}', '{"t":"open","game":".Pong"}', '{"t":"open","game":"a\\\\b"}',
    '{"t":"open","game":"a\\nb"}', '{"t":"open","game":"Pong\\n"}', '{"t":"open","game":"a\\u202eb"}',
    '{"t":"open","game":"' + "a" * 201 + '"}', '{"t":"open","game":"a/b"}',
    '{"t":"open","game":""}', '{"t":"open","game":"Pong","seed":16777216}',
    '{"t":"open","game":"Pong","actions":"0;1"}', '{"t":"open","game":"Pong","nth":-1}',
    '{"t":"open","game":"Pong","tape":"../x"}',
    '{"t":"join","resume":"' + "a" * 65 + '"}', '{"t":"knobs","steps":0}', '{"t":"knobs","steps":51}',
    '{"t":"knobs","order":3}', '{"t":"paint","path":[[1,2]],"new":true,"radius":1,"rgb":[1,2,256]}',
    '{"t":"paint","path":[],"new":true,"radius":1,"rgb":[1,2,3]}',
    '{"t":"paint","path":[[1,1024]],"new":true,"radius":1,"rgb":[1,2,3]}',
    '{"t":"paint","path":[[1,2]],"new":true,"radius":1,"rgb":[1,2]}', '{"t":"rewind","moment":-5}',
    '{"t":"who","who":"root"}',
    '{"t":"join","t":"press"}', "[" * 5000, '{"a":' * 3000, '{"t":"join"}' + " " * say.MAX_MESSAGE,
    '"\ud800"', '{"t":"\ud800"}', "\x00", '{"t":"join"}{"t":"join"}',
])
def test_what_no_page_says(text: str):
    with pytest.raises(say.BadMessage) as refused:
        say.parse(text)
    assert 0 < len(str(refused.value)) <= 160 and "\n" not in str(refused.value)


@pytest.mark.parametrize("wrong", [{"drawn": "0-3-1-0"}, {"game": "Pong/"}, {"nth": -5}, {"actions": "0;1"}])
def test_a_link_that_was_cut_off_is_said_in_words(wrong: dict[str, object]):
    with pytest.raises(say.BadMessage, match=r"^this link was cut off or changed: ask for it again$"):
        say.parse(json.dumps({"t": "open", "game": "Pong", **wrong}))


def test_bytes_are_no_message():
    with pytest.raises(say.BadMessage, match="binary"):
        say.parse(b'{"t":"join"}')


def test_noise_is_refused_or_read_but_never_breaks():
    chance = random.Random(0)
    good = ['{"t":"press","key":"left","n":7}', '{"t":"knobs","churn":0.5,"order":2}', '{"t":"rewind","moment":7}']
    for _ in range(3000):
        text = list(chance.choice(good))
        for _ in range(chance.randrange(1, 6)):
            code = chance.choice([chance.randrange(32, 127), chance.randrange(0x11000)])
            text[chance.randrange(len(text))] = chr(code)
        try:
            assert isinstance(say.parse("".join(text)), say.Message)
        except say.BadMessage:
            continue


def test_a_packet_is_unpacked():
    images = [say.png(np.full((4, 5, 3), i, np.uint8)) for i in range(3)]
    kind, fields, back = say.unpack(say.packet(say.SHEET, {"a": [1, None], "b": float("nan")}, images))
    assert (kind, fields, back) == (say.SHEET, {"a": [1, None], "b": None}, images)


def test_a_broken_packet_is_refused():
    data = say.packet(say.VIEW, {"a": 1}, [b"12345"])
    for cut in range(len(data)):
        with pytest.raises(say.BadMessage):
            say.unpack(data[:cut])
    with pytest.raises(say.BadMessage):
        say.unpack(b"E" + data[1:])


def test_pixels_are_sacred():
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    back = np.asarray(Image.open(io.BytesIO(say.png(image))))
    np.testing.assert_array_equal(back, image)


def test_numbers_are_plain():
    text = say.event("x", a=np.float32(1.23456789), b=float("inf"), c=(np.int64(3), np.bool_(True)), d={"e": None})
    assert json.loads(text) == {"t": "x", "a": 1.2346, "b": None, "c": [3, True], "d": {"e": None}}

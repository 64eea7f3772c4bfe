"""The knobs that a person may turn, with the values that each can take. Our own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from app.session.look import STEPS_A_SECOND


@dataclass(frozen=True)
class Settings:
    """Where the knobs stand."""

    steps: int | Literal["auto"] = 3
    order: int = 1
    churn: float = 0.0
    temperature: float = 1.0
    seed: int = 0
    resync_every: int = 0
    horizon: int | None = None
    speed: float = 1.0


class Knob(NamedTuple):
    """One row of the panel."""

    name: str
    label: str
    values: tuple[Any, ...]
    """In order; none where it counts without end."""
    meaning: str
    """What turning it does, in a sentence."""


KNOBS = (
    Knob("steps", "denoising", ("auto", 1, 2, 3, 4, 5, 6, 8, 10, 16, 32),
         "More steps draw a cleaner frame and take longer. auto: as many as time allows."),
    Knob("order", "solver", (1, 2), "1 is Euler's method; 2 is Heun's, which asks the network twice a step."),
    Knob("churn", "noise put back", (0.0, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0), "Churn: noise added as a frame is drawn."),
    Knob("temperature", "temperature", (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 10.0),
         "How much noise a frame is drawn from: less draws what is likely more often."),
    Knob("seed", "luck", (), "The same number and the same keys dream the same."),
    Knob("resync_every", "fall asleep", (0, 1, 2, 5, 15, 30, 75, 150),
         "Every so many steps the dream begins again from reality's frames. 1 is always true, never is a free dream."),
    Knob("horizon", "horizon", (None, 15, 50, 150, 450, 900), "After so long the dream begins anew."),
    Knob("speed", "speed", (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0), "1 is the game's own speed."),
)


def words(name: str, value: Any) -> str:
    """A value as the panel writes it."""
    if name in ("resync_every", "horizon"):
        if not value:
            return "never"
        return f"{value / STEPS_A_SECOND:g} s" if name == "horizon" else f"{value} step{'s' * (value > 1)}"
    if name == "order":
        return ("Euler", "Heun")[value - 1]
    if name == "speed":
        return f"×{value:g}"
    return value if isinstance(value, str) else f"{value:g}"


def turned(settings: Settings, name: str, by: int) -> Any:
    """The value next to the present one, up or down; the last one stays."""
    knob = next(knob for knob in KNOBS if knob.name == name)
    now = getattr(settings, name)
    if not knob.values:
        return max(now + by, 0)
    if now in knob.values:
        return knob.values[min(max(knob.values.index(now) + by, 0), len(knob.values) - 1)]
    # a value from outside lies between two of ours
    numbers = [value for value in knob.values if isinstance(value, int | float)]
    beyond = [value for value in numbers if (value > now if by > 0 else value < now)]
    return (min(beyond) if by > 0 else max(beyond)) if beyond else numbers[-1 if by > 0 else 0]

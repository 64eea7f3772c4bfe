"""A dream as a link: where it began, what was pressed, and how each frame was drawn. Our own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from app.session.controls import Controls
from app.session.session import Session
from app.session.timeline import Timeline
from app.web.protocol import MAX_ACTIONS, MAX_DRAWN, MAX_STEPS
from diamond_core.config import SamplerConfig

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
"""An action of a link is one of these; no game has more actions."""
KNOBS = ("steps", "order", "churn", "temperature")
"""What a person may turn of how frames are drawn."""


def query_of(name: str, timeline: Timeline) -> dict[str, str]:
    """What an address tells of the dream at the cursor. Raises ValueError where that is not all that made it."""
    begun = max(cut for cut in timeline.cuts if cut <= timeline.cursor)
    first, *facts = timeline.facts()[begun - timeline.first:timeline.cursor - timeline.first + 1]
    if first.seed is None or first.played or any(f.lived for f in (first, *facts)):
        raise ValueError("a link can tell a dream that was played from its start, and more came into this one, such as "
                         "reality's frames after a lost life: take a new dream (Backspace) and play, or record a tape")
    samplers = [f.sampler for f in facts if f.sampler is not None]
    if any(s.num_steps > MAX_STEPS for s in samplers):
        raise ValueError(f"a link tells frames of up to {MAX_STEPS} denoising steps: record a tape")
    turns = [at for at, now in enumerate(samplers) if not at or now != samplers[at - 1]]
    drawn = "_".join(f"{at}-{_told(samplers[at])}" for at in turns)
    if len(facts) > MAX_ACTIONS or len(drawn) > MAX_DRAWN:
        raise ValueError("this dream is too long for a link: record a tape")
    return {"game": name, "seed": str(first.seed), "nth": str(first.game_number),
            "actions": "".join(DIGITS[f.action or 0] for f in facts), "drawn": drawn}


def _told(sampler: SamplerConfig) -> str:
    churn, temperature = (f"{x:.6f}".rstrip("0").rstrip(".") for x in (sampler.s_churn, sampler.temperature))
    return f"{sampler.num_steps}-{sampler.order}-{churn}-{temperature}"


def _read(turn: str) -> tuple[int, dict[str, Any]]:
    at, steps, order, *others = turn.split("-")
    return int(at), dict(zip(KNOBS, (int(steps), int(order), *map(float, others)), strict=True))


class Retold(Controls):
    """Actions that somebody else took are taken again, each frame drawn as it was then; the first key of the person
    ends that, and so does another dream: a new one, a moment before, a future, paint, reality."""

    def __init__(self, session: Session, actions: str, drawn: str) -> None:
        """Raises ValueError for an action that the game does not have and for drawing that cannot be."""
        super().__init__(session.action_names)
        self.session, self._next = session, session.instant
        self.own = self.turned = self._knobs()
        self.told = [DIGITS.index(digit) for digit in reversed(actions)]
        if any(action >= len(session.action_names) for action in self.told):
            raise ValueError("this link's actions are not this game's: it was cut or changed")
        self.turns = {len(actions) - at: knobs for at, knobs in map(_read, filter(None, drawn.split("_")))}
        for knobs in self.turns.values():
            replace(session.knobs, **knobs)

    def take(self) -> tuple[int | None, float | None]:
        """The next action of the story, or the person's."""
        action, pressed = super().take()
        if action is not None or self.session.instant != self._next:
            self.told.clear()
        self._next = self.session.instant + 1
        self._turn(self.turns.get(len(self.told), self.turned) if self.told else self.own)
        return (self.told.pop(), None) if self.told else (action, pressed)

    def _turn(self, knobs: Mapping[str, Any]) -> None:
        """To these knobs, unless the person turned some."""
        if knobs != self.turned and self._knobs() == self.turned:
            self.session.set_knobs(**knobs)
            self.turned = knobs

    def _knobs(self) -> Mapping[str, Any]:
        return {name: getattr(self.session.knobs, name) for name in KNOBS}

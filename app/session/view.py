"""What a session shows and asks: plain values for those who draw, batch and record. Our own."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from diamond_core.config import SamplerConfig
from diamond_core.diffusion.noise import MOST_TEMPERATURE
from diamond_core.diffusion.sampler import MOST_STEPS
from diamond_core.world.dream import DreamState

Who = Literal["you", "agent", "random", "help"]
Show = Literal["dream", "reality", "twin"]


@dataclass(frozen=True)
class Facts:
    """What happened at one moment, in numbers."""

    reward: float = 0.0
    """Of the newest dreamt step."""
    end: bool = False
    """Whether the dream says that the game is over."""
    reward_probabilities: tuple[float, float, float] = (0.0, 1.0, 0.0)
    """Of -1, 0 and +1."""
    end_probability: float = 0.0
    total: float = 0.0
    """The dream's return."""
    age: int = 0
    """Steps dreamt since the dream last saw real frames."""
    reality_reward: float = 0.0
    reality_end: bool = False
    """Whether the real game is over."""
    reality_total: float = 0.0
    psnr: float | None = None
    """dB, dream against reality; none without reality."""
    ssim: float | None = None
    agreement: bool = True
    """Whether all rewards and ends have been the same since the dream last saw real frames."""
    divergence: float | None = None
    """0 = the same picture, 1 = another world."""
    steps_agreed: int = 0
    """Steps until picture, rewards or ends first differed; grows while they agree."""
    action: int | None = None
    """That led here; none at a beginning."""
    sampler: SamplerConfig | None = None
    """How the frame that came of it was drawn; none where none was dreamt."""
    lived: bool = False
    """Whether only reality took this step."""
    game_number: int = 0
    """Which game of its seed this is, from 0."""
    seed: int | None = None
    """Of which seed; none where something was put in since that game began."""
    played: int = 0
    """Steps since that game began, asleep and awake."""
    value: float | None = None
    """The agent's expectation here, where it was asked for."""


@dataclass(frozen=True)
class View(Facts):
    """Everything there is to see of one instant. Frames are uint8 and never written to."""

    frame: np.ndarray = field(default_factory=lambda: np.zeros((64, 64, 3), np.uint8))
    """The dream's newest frame, (h, w, 3)."""
    reality: np.ndarray | None = None
    """What an agent sees of the emulator at the same instant, (h, w, 3)."""
    screen: np.ndarray | None = None
    """The emulator's full picture, (210, 160, 3)."""
    action_name: str = ""
    who: Who = "you"
    show: Show = "dream"
    helping: bool = False
    """Whether the agent is playing for an idle person now."""
    paused: bool = False
    awake: bool = False
    """Whether the person plays in reality and the dream stands still."""
    over: bool = False
    """Whether the world that is played in has just ended; a new one begins after a moment or at the next key."""
    moment: int = 0
    """Where on the timeline this is; counts steps since the session began, less what was rewound."""
    probabilities: tuple[float, ...] | None = None
    """The agent's, of each action; none unless asked for."""
    milliseconds: float = 0.0
    """That the newest dream step took."""
    rate: float = 0.0
    """Steps a second that were really taken."""
    slipping: bool = False
    """Whether steps come later than they should."""
    latency: float | None = None
    """Seconds from the newest key press to the frame that it led to."""
    steps: int = 3
    """Denoising steps of the next frame."""
    path: str = ""
    """Which engine computes."""
    recording: int | None = None
    """Steps on the running tape; none where none runs."""
    led: tuple[int, int] | None = None
    """The next step of the tape that is being played again, and its length; none where no tape leads."""
    message: str = ""
    """One short line for the person, or nothing."""


NumSteps = int | Literal["auto"]
"""Denoising steps, 1 to 50; auto: as many as time allows."""


@dataclass(frozen=True)
class Knobs:
    """What a person may turn. Raises ValueError for what a sampler cannot do."""

    steps: NumSteps = 3
    order: Literal[1, 2] = 1
    """1 = Euler, 2 = Heun."""
    churn: float = 0.0
    """Noise that is put back at each denoising step."""
    seed: int = 0
    """The dream's luck."""
    temperature: float = 1.0
    """Scale of the noise that frames are drawn from."""

    def __post_init__(self) -> None:
        if self.steps != "auto" and not (isinstance(self.steps, int) and 1 <= self.steps <= MOST_STEPS):
            raise ValueError(f"denoising steps must be auto or 1 to {MOST_STEPS}, got {self.steps}")
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 (Euler) or 2 (Heun), got {self.order}")
        if not (0 <= self.churn <= 100 and 0 <= self.temperature <= MOST_TEMPERATURE):
            raise ValueError(f"churn must be 0 to 100 and temperature 0 to {MOST_TEMPERATURE:g}, "
                             f"got {self.churn} and {self.temperature}")
        if not 0 <= self.seed < 2**31:
            raise ValueError(f"seed must be 0 to {2**31 - 1}, got {self.seed}")

    def sampler(self, base: SamplerConfig, auto: int) -> SamplerConfig:
        """The checkpoint's sampler with these knobs; `auto` denoising steps where the knob says so."""
        steps = auto if self.steps == "auto" else self.steps
        return replace(base, num_steps=steps, order=self.order, s_churn=self.churn, temperature=self.temperature)


@dataclass(frozen=True)
class Ask:
    """What must be dreamt for one step."""

    state: DreamState
    """One row."""
    action: int
    sampler: SamplerConfig
    """How the frame is to be drawn."""

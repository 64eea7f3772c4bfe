"""Every number of the method, as frozen dataclasses; three presets at the end. Source: SPEC 2 to 7.

The defaults are the paper's. A preset is a value, made by `dataclasses.replace`; nothing is changed in place.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class DenoiserConfig:
    """The network that draws the next frame, and its preconditioning (SPEC 2)."""

    num_conditioning_frames: int = 4
    """How many past frames and actions the next frame depends on (k)."""
    num_conditioning_actions: int = 0
    """How many of these actions it depends on, where older ones show in the frames; 0 = all, as in the paper."""
    cond_channels: int = 256
    """Width of the conditioning vector; must divide by the number of conditioning actions."""
    channels: tuple[int, ...] = (64, 64, 64, 64)
    """Width of each resolution of the U-Net."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of each resolution."""
    attention: tuple[bool, ...] = (False, False, False, False)
    """Self-attention in each resolution's residual blocks."""
    sigma_data: float = 0.5
    """Standard deviation of the frames."""
    sigma_offset_noise: float = 0.3
    """Standard deviation of the noise that is constant over a channel."""


@dataclass(frozen=True)
class SamplerConfig:
    """How a frame is drawn: the Karras schedule and the solver (SPEC 3)."""

    num_steps: int = 3
    """Denoising steps, 1 to 50."""
    least_steps: int = 1
    """Fewest denoising steps that a deadline may come down to. With fewer a world may forget things: see `diamond
    evaluate free`."""
    sigma_min: float = 2e-3
    """Last noise level before 0."""
    sigma_max: float = 5.0
    """First noise level."""
    two_step_sigma: float = 0.05
    """Second noise level where there are two steps; 0 = sigma_min, as the Karras schedule has it. `diamond evaluate
    schedules` compares the choices."""
    rho: float = 7.0
    """Curvature of the schedule."""
    order: Literal[1, 2] = 1
    """1 = Euler, 2 = Heun."""
    s_churn: float = 0.0
    """Amount of noise that is put back at each step."""
    s_tmin: float = 0.0
    """Lowest noise level that is churned."""
    s_tmax: float = float("inf")
    """Highest noise level that is churned."""
    s_noise: float = 1.0
    """Scale of the churned noise."""
    temperature: float = 1.0
    """Scale of the noise that a frame is drawn from: below 1 the dream is tamer, above 1 wilder; 1 is the paper's."""


@dataclass(frozen=True)
class RewardEndConfig:
    """The recurrent model of rewards and episode ends (SPEC 4)."""

    cond_channels: int = 128
    """Width of the action embedding."""
    channels: tuple[int, ...] = (32, 32, 32, 32)
    """Width of each resolution of the encoder."""
    depths: tuple[int, ...] = (2, 2, 2, 2)
    """Residual blocks of each resolution."""
    attention: tuple[bool, ...] = (False, False, False, False)
    """Self-attention in each resolution's residual blocks."""
    lstm_dim: int = 512
    """Width of the memory."""
    begins_with_change: bool = False
    """Begin with filters that see only what differs between a frame and the next. A score that counts on is such a
    difference, and filters that begin at random must find it first. Off is the paper's."""


@dataclass(frozen=True)
class ActorCriticConfig:
    """The policy and value network (SPEC 5)."""

    channels: tuple[int, ...] = (32, 32, 64, 64)
    """Width of each stage; a stage halves the image."""
    lstm_dim: int = 512
    """Width of the memory."""


@dataclass(frozen=True)
class AgentConfig:
    """Everything a checkpoint needs to know of its three networks besides the number of actions."""

    image_channels: int = 3
    """3 = colour, which every game gives; a world from elsewhere may have another number."""
    image_size: tuple[int, int] = (64, 64)
    """Height and width of a frame."""
    denoiser: DenoiserConfig = field(default_factory=DenoiserConfig)
    sampler: SamplerConfig = field(default_factory=SamplerConfig)
    reward_end: RewardEndConfig = field(default_factory=RewardEndConfig)
    actor_critic: ActorCriticConfig = field(default_factory=ActorCriticConfig)
    noop_max: int = 30
    """A real game begins with 0 to noop_max - 1 emulator frames of waiting. Where a game decides by its frame count
    what comes, as Breakout does where it serves, 1 has all decide alike: those that are learned from, and those beside
    the dream. An agent's score is always that of games with 30."""

    @property
    def frame_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of one frame."""
        return (self.image_channels, *self.image_size)


@dataclass(frozen=True)
class DenoisingConfig:
    """The denoiser's training objective (SPEC 2)."""

    log_sigma_mean: float = -0.4
    """Mean of ln sigma."""
    log_sigma_std: float = 1.2
    """Standard deviation of ln sigma."""
    sigma_min: float = 2e-3
    """Lowest noise level trained on."""
    sigma_max: float = 20.0
    """Highest noise level trained on."""
    num_autoregressive_steps: int = 1
    """Further loss terms that are conditioned on the model's own frames (n)."""
    motion_weight: float = 0.0
    """A pixel that moves within the segment counts so many times more; 0 is the paper's plain mean."""
    object_weight: float = 0.0
    """A pixel that stands out from the batch's median frame counts so many times more: what is at rest is not
    forgotten either; 0 is the paper's."""
    error_weight: float = 0.0
    """A pixel that the model has wrong counts so many times more. The two weights above lean towards painting: what
    is forgotten costs more than what is imagined. This one is just, and still finds small things; 0 is the paper's."""
    context_noise: float = 0.0
    """Largest standard deviation of the noise on the frames that a term is conditioned on, against drift: what is a
    little wrong in the past is not copied on; 0 is the paper's."""
    guess_share: float = 0.0
    """Largest share of the model's guess from nothing but noise in a noisy image. What may be at one of several places
    is faint at all of them in that guess, and so it is behind the first denoising step of play: there the strongest
    must win, or the ball that was everywhere is nowhere; 0 is the paper's."""
    final_frames: bool = False
    """An episode's final observation is learned too. The paper leaves it out, so its dreams never see what an end looks
    like (Freeway's picture stands still, a digit of Breakout's lives changes), by which the reward model knows it."""


@dataclass(frozen=True)
class ReturnsConfig:
    """The actor-critic's objective (SPEC 5)."""

    gamma: float = 0.985
    """Discount."""
    lambda_: float = 0.95
    """Weight of the longer returns."""
    value_weight: float = 1.0
    """Weight of the value's squared error. In very small networks a full weight drowns the policy's gradient."""
    entropy_weight: float = 0.001
    """Weight of the policy's entropy."""
    clip: float = 0.0
    """How far the chance of an action may have moved, as a share, and still be learned from (PPO): for rollouts that
    are learned from more than once. 0 is the paper's."""
    rollout_length: int = 15
    """Steps between two updates; gradients are cut there, the memory is carried on."""


@dataclass(frozen=True)
class ImaginationConfig:
    """The dream as a training ground (SPEC 6). As many worlds as the actor-critic's batch size."""

    horizon: int = 15
    """Steps after which a dream is reset."""
    denoising_steps: int | None = None
    """Fewer denoising steps than the world is played with make more of an hour; none = as many, as in the paper."""
    engine: Literal["torch", "fast"] = "torch"
    """fast: on the fastest engine of the machine, which is made anew in every epoch."""


@dataclass(frozen=True)
class LearnerConfig:
    """How one model is updated (SPEC 7)."""

    first_updates: int = 10_000
    """Updates in the first epoch that trains this model."""
    updates: int = 400
    """Updates in each later epoch."""
    first_epoch: int = 1
    """The epoch in which training of this model begins."""
    last_epoch: int | None = None
    """The epoch in which it ends; none = the last one."""
    batch_size: int = 32
    """Segments (or imagined worlds) a batch, over all processes together."""
    accumulation: int = 1
    """Batches whose gradients are added up before an update."""
    event_share: float = 0.0
    """Share of the segments that are drawn around a rare reward or an episode's end, each kind by the square root of
    its number; of the actor-critic's dreams, the share that begins shortly before one. 0 is the paper's."""
    moments: tuple[str, ...] = ()
    """With an event share, kinds of moments that are events too: near = the ball near the player's paddle, serve = a
    ball that comes, lost = one that gets past the paddle and wait = none for long, in Pong and Breakout; life = another
    number of lives and due = none yet but soon, in Breakout; hit = a car hits the chicken, miss = one passes close to
    it and clock = the digits' colours tell that the game will end, in Freeway."""
    learning_rate: float = 1e-4
    warmup: int = 100
    """Updates over which the learning rate rises from 0; constant afterwards."""
    weight_decay: float = 0.01
    """Not on biases, norms and embeddings."""
    epsilon: float = 1e-8
    """AdamW's epsilon."""
    max_gradient_norm: float = 1.0
    ema_decay: float = 0.0
    """Exponential moving average of the weights, which is what a checkpoint then holds; 0 = off."""

    def updates_in(self, epoch: int) -> int:
        """Updates in an epoch, counted from 1."""
        if epoch < self.first_epoch or (self.last_epoch is not None and epoch > self.last_epoch):
            return 0
        return self.first_updates if epoch == self.first_epoch else self.updates


@dataclass(frozen=True)
class ActingConfig(LearnerConfig):
    """How the agent learns in the dream."""

    encoder_rests: bool = False
    """Its encoder stays as it is: what it saw before is not lost to chance, and an update costs less. Off is the
    paper's; for an agent that learned to see by sight or imitation."""
    passes: int = 1
    """How often a rollout is learned from; more than once asks for `returns.clip`. 1 is the paper's."""
    parts: int = 1
    """Updates of one pass, each from a part of the worlds. 1 is the paper's."""


@dataclass(frozen=True)
class WatchingConfig(LearnerConfig):
    """How the agent learns from recorded play, before it learns in the dream. Off is the paper's."""

    first_updates: int = 0
    updates: int = 0
    learning_rate: float = 1e-3
    warmup: int = 20
    weight_decay: float = 0.0
    segment: int = 16
    """Frames in a segment: memory must carry what was seen."""


@dataclass(frozen=True)
class ImitationConfig(WatchingConfig):
    """How the agent begins as a player."""

    teacher: Literal["recorded", "scripted"] = "recorded"
    """Whose moves: what was pressed in the recordings, or what the scripted player would have pressed in each of their
    frames, whoever played. The agent's own play can be recorded and corrected so (Ross et al., DAgger, 2011)."""
    caution: float = 0.0
    """Where the scripted player aims as a teacher: from 0 = where it is best to 1 = the other end of what it tries. An
    aim at the paddle's edge is a miss for a pupil that is less exact."""


@dataclass(frozen=True)
class CollectionConfig:
    """How the agent gathers experience while it trains (SPEC 7)."""

    num_envs: int = 1
    first_policy: Literal["agent", "random", "sticky", "scripted", "mix"] = "agent"
    """Who plays in the first collection; later ones are always the agent's."""
    epsilon: float = 0.01
    """Chance that a step's actions are random; one coin for all environments."""
    first_min_steps: int = 5_000
    """Steps before the first update."""
    first_max_steps: int = 10_000
    """The first collection goes on up to here while rewards are rare."""
    first_min_rare_rewards: int = 10
    """Rewards of all kinds but the most frequent that the first collection waits for."""
    steps: int = 100
    """Steps in each later epoch."""
    total_steps: int = 100_000
    """Steps after which collection stops."""


@dataclass(frozen=True)
class EvaluationConfig:
    """How often and how long the agent plays the real game to be judged (SPEC 7)."""

    every: int = 10
    """Epochs between two evaluations; 0 = never."""
    episodes: int = 4
    final_episodes: int = 100
    """Episodes after the last epoch; 0 = no final evaluation."""
    num_envs: int = 4
    max_steps: int = 27_000
    """Steps after which an evaluation episode is cut off (108,000 emulator frames)."""


@dataclass(frozen=True)
class RuntimeConfig:
    """How the arithmetic is done; `auto` looks at the device."""

    device: str = "auto"
    """cpu, cuda, cuda:1, mps or auto."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of autocast in training and imagination."""
    channels_last: Literal["auto", "on", "off"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the three networks."""
    convolutions: Literal["auto", "torch"] = "auto"
    """auto: by Winograd's algorithm on CPUs, if there is a C compiler: where an agent looks, and in training without
    bfloat16."""
    threads: int = 0
    """CPU threads of training; 0 = one a core."""


@dataclass(frozen=True)
class TrainConfig:
    """One training run."""

    game: str = "Pong"
    """An ALE game, `gym:ID` or `toy`."""
    preset: Literal["paper", "playground", "tiny"] = "paper"
    """Where the other numbers came from."""
    seed: int = 0
    agent: AgentConfig = field(default_factory=AgentConfig)
    dataset: str | None = None
    """Train on this dataset and collect nothing."""
    holdout: int = 0
    """Newest episodes of that dataset which are never trained on, so that fidelity can be judged on them."""
    initial: str | None = None
    """A checkpoint to start from, of this game or another one: the worlds of one game know much about the next."""
    initial_models: tuple[Literal["denoiser", "reward_end", "actor_critic"], ...] = (
        "denoiser", "reward_end", "actor_critic")
    """Which models are taken from `initial`. What belongs to an action is taken where the actions' names agree; sizes
    must be the same."""
    model_free: bool = False
    """Train the actor-critic on the real environment, with no world model."""
    life_loss_ends: bool = True
    """A lost life ends an episode in training (never in evaluation)."""
    collection: CollectionConfig = field(default_factory=CollectionConfig)
    sampling_weights: tuple[float, ...] | None = (0.1, 0.1, 0.1, 0.7)
    """Weights of the groups of episodes, oldest first; none = by length."""
    denoising: DenoisingConfig = field(default_factory=DenoisingConfig)
    reward_segment: int = 19
    """Steps in a segment of the reward model: 4 to burn in, 15 as long as a dream."""
    returns: ReturnsConfig = field(default_factory=ReturnsConfig)
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)
    denoiser: LearnerConfig = field(default_factory=LearnerConfig)
    reward_end: LearnerConfig = field(default_factory=lambda: LearnerConfig(max_gradient_norm=100.0))
    sight: WatchingConfig = field(default_factory=lambda: WatchingConfig(
        batch_size=24, event_share=0.25, max_gradient_norm=10.0))
    """Where ball and paddle are, in games that the scripted player knows: some 300 first updates."""
    imitation: ImitationConfig = field(default_factory=lambda: ImitationConfig(
        batch_size=64, segment=32, weight_decay=1e-4, ema_decay=0.99))
    """What the recorded player presses, and what comes of it, in any game: some 1,000 first updates of all but the
    encoder, which is at rest and should be able to see."""
    actor_critic: ActingConfig = field(default_factory=lambda: ActingConfig(
        first_updates=5_000, weight_decay=0.0, max_gradient_norm=100.0))
    final_epochs: int = 50
    """Epochs after the last collection."""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
    save_every: float = 120.0
    """Seconds between two saves of the whole training state."""
    keep_checkpoints: int = 20
    """Saved moments of the agent that are kept, one an epoch at most; older ones are thinned out."""

    @property
    def segment_length(self) -> int:
        """Frames in a denoiser segment: the context, the next frame and the autoregressive ones."""
        return self.agent.denoiser.num_conditioning_frames + 1 + self.denoising.num_autoregressive_steps

    @property
    def is_static(self) -> bool:
        """Whether nothing is collected after the first collection."""
        return self.dataset is not None or self.collection.steps == 0

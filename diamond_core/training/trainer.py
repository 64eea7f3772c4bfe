"""The epoch as prose: collect, learn three models, evaluate, save; stopped and resumed equals never stopped.

Source: SPEC 7. Every random number is drawn from a seed made of (seed, epoch, phase, step), so the state of a run is
its position, its weights and optimizers, its data and where its worlds stand; no generator is ever saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diamond_core.agent.policies import AgentPolicy
from diamond_core.agent.rollout import Rollouts
from diamond_core.config import LearnerConfig, TrainConfig
from diamond_core.device import keep_memory, resolve
from diamond_core.envs import action_names, frames_of, make_env
from diamond_core.evaluation.returns import Interrupted, play_episodes, scored
from diamond_core.evaluation.sprites import moments_of
from diamond_core.replay import Prefetcher, SegmentSampler
from diamond_core.training.agent import Agent
from diamond_core.training.build import (
    MODELS,
    dataset_of,
    learners_of,
    played_in,
    player_of,
    practice_env,
    rollouts_of,
    starts_of,
    teacher_of,
)
from diamond_core.training.checkpoint import Card, save_checkpoint, stages_before, summed
from diamond_core.training.collect import Collector
from diamond_core.training.distributed import Processes
from diamond_core.training.imitation import draws, watch
from diamond_core.training.library import load
from diamond_core.training.metrics import Metrics
from diamond_core.training.progress import Bar, Pace, Position
from diamond_core.training.run import Run
from diamond_core.types import VectorEnv

LEARNED = ("denoiser", "reward_end", "sight", "imitation", "actor_critic")
PHASES = ("collect", *LEARNED, "evaluate")
LOG_EVERY = 50
"""Updates whose numbers are averaged into one line of metrics."""


class StopRequested(Exception):
    """Somebody wants the training to stop; everything was saved."""


class Trainer:
    """One training run, from its configuration or from its saved state to its last epoch."""

    def __init__(self, config: TrainConfig, run: Run, processes: Processes = Processes(),
                 should_stop: Callable[[], bool] = lambda: False) -> None:
        self.config, self.run_folder, self.processes, self.should_stop = config, run, processes, should_stop
        self.runtime = resolve(config.runtime)
        keep_memory()
        self.action_names = action_names(config.game)
        self.position = Position()
        self.last_epoch = config.final_epochs if config.is_static or config.model_free else None
        self.seconds = 0.0
        self.scores: dict[str, Any] = {}
        self._state = run.load_state()
        self.pace = Pace()
        self.metrics = Metrics(run.folder, writes=processes.is_main)
        # a run that goes on has all it needs, whatever became of what it began with
        source = None if config.initial is None or self._state is not None else load(config.initial, "cpu")
        self.before = [] if source is None else stages_before(source.card, config.initial_models)
        torch.manual_seed(self._seed("weights"))
        self.learners = learners_of(config, self.action_names, self.runtime, processes.world_size, source)
        self.shown = Agent(config.agent, *(self.learners[name].averaged for name in MODELS))  # type: ignore[arg-type]
        # one process makes the folder and rolls it back, the others read what they find then
        known = None if self._state is None else self._state["episodes"]
        if processes.is_main:
            self.dataset = dataset_of(config, run, self.action_names, known)
            if config.dataset is None and not config.model_free:
                self.dataset.rollback(known or [])
        processes.barrier()
        if not processes.is_main:
            self.dataset = dataset_of(config, run, self.action_names, known)
        self.collector: Collector | None = None
        self.rollouts: Rollouts | None = None
        self._samplers: dict[str, SegmentSampler] = {}
        self._clock = self._saved_at = time.perf_counter()
        self._moment_at = -float("inf")
        self._restore()

    def run(self) -> bool:
        """Trains to the end; False if it was asked to stop before. Either way everything is saved."""
        try:
            while not self.is_finished:
                self.epoch()
            if not self.run_folder.moment(self.position.epoch - 1).exists():  # it ended between state and moment
                self._save_moment(self.position.epoch - 1)
            return True
        except StopRequested:
            return False
        finally:
            self.metrics.close()

    def epoch(self) -> None:
        """One epoch, from wherever in it the run stands."""
        for phase in range(self.position.phase, len(PHASES)):
            self.position.phase = phase
            getattr(self, f"_{PHASES[phase]}")()
            self.position.step = 0
        self.position = Position(self.position.epoch + 1)
        # first the state: a moment without one could not be gone on from
        self._save_if_due(force=(due := self.is_finished or self._is_late(self._moment_at)))
        if due:
            self._save_moment(self.position.epoch - 1)

    @property
    def is_finished(self) -> bool:
        """Whether the last epoch is over."""
        return self.last_epoch is not None and self.position.epoch > self.last_epoch

    # the phases

    def _collect(self) -> None:
        c, epoch = self.config.collection, self.position.epoch
        if self.config.dataset is not None or self.config.model_free or (self.last_epoch is not None and epoch > 1):
            return
        started = time.perf_counter()
        if self.processes.is_main:
            if self.collector is None or (epoch == 2 and c.first_policy != "agent"):
                self.collector = self._make_collector(c.first_policy if epoch == 1 else "agent")
            with self._bar("collect", c.first_min_steps if epoch == 1 else c.steps) as bar:
                if epoch == 1:
                    self._collect_first(self.collector, bar)
                else:
                    self.collector.collect(c.steps, bar.advance)
        self.processes.barrier()
        if not self.processes.is_main:
            self.dataset.refresh()
        self.metrics.write(epoch, "collect", epoch=epoch, steps=self.dataset.num_steps,
                           episodes=self.dataset.num_episodes, rewards=self.dataset.counts_rewards().tolist(),
                           seconds=time.perf_counter() - started)
        if self.last_epoch is None and self.dataset.num_steps >= c.total_steps:
            self.last_epoch = epoch + self.config.final_epochs
        self.collector = self.collector if self.last_epoch is None else None  # it holds what was seen last

    def _collect_first(self, collector: Collector, bar: Bar) -> None:
        """At least the minimum, then on while rewards are rare, up to the maximum."""
        c = self.config.collection
        collector.collect(c.first_min_steps, bar.advance)
        while self.dataset.num_steps < c.first_max_steps and self.dataset.num_rare_rewards < c.first_min_rare_rewards:
            collector.collect(100, bar.advance)

    def _denoiser(self) -> None:
        if not (c := self.config).model_free:
            self._learn_from_segments("denoiser", c.segment_length, past_end=False, beyond=c.denoising.final_frames,
                                      late=c.denoising.num_autoregressive_steps + 2)

    def _reward_end(self) -> None:
        if not self.config.model_free:
            self._learn_from_segments("reward_end", self.config.reward_segment, past_end=True)

    def _sight(self) -> None:
        if "sight" in self.learners and self._updates("sight") and not self.config.model_free:
            self._look_again("sight")
            self._learn_from_segments("sight", self.config.sight.segment, past_end=False)
            self._hand_over("sight")

    def _imitation(self) -> None:
        if "imitation" not in self.learners or not self._updates("imitation") or self.config.model_free:
            return
        learner, c = self.learners["imitation"], self.config.imitation
        self._look_again("imitation")
        watched = []
        with self._bar("watch", self.dataset.num_episodes, {"imitation": self._updates("imitation")}) as bar:
            for seen in watch(self.learners["actor_critic"].model, self.dataset,  # type: ignore[arg-type]
                              self.config.returns, self.runtime, teacher_of(self.config, self.action_names)):
                watched.append(seen)
                bar.advance()
                self._save_if_due()
        batches = draws(watched, c, self.processes.share(c.batch_size),
                        lambda: self._seed("imitation", learner.num_updates))
        self._updating("imitation", batches)
        self._hand_over("imitation")

    def _look_again(self, name: str) -> None:
        """Its average is of the last epoch, and the agent has dreamt since."""
        if self.position.step == 0:
            self.learners[name].catch_up()

    def _hand_over(self, name: str) -> None:
        """What was learned by watching becomes the agent's."""
        learner = self.learners[name]
        learner.model.load_state_dict(learner.averaged.state_dict())
        self.learners["actor_critic"].catch_up()

    def _learn_from_segments(self, name: str, length: int, past_end: bool, **events: int) -> None:
        learner = self.learners[name]
        sampler = self._sampler(name, length, learner.config, past_end, **events)
        per_update = learner.config.accumulation
        start = learner.num_updates * per_update
        left = self._updates(name) - self.position.step
        device, stop = self.runtime.device, start + left * per_update
        with Prefetcher(lambda i: sampler.batch(i).to(device), start, stop) as batches:
            self._updating(name, batches)

    def _actor_critic(self) -> None:
        if not self._updates("actor_critic"):
            return
        if self.rollouts is None:
            self.rollouts = rollouts_of(self.config, self._practice_env(), self.runtime)
            seed = self._seed("practice", self.position.epoch)
            self.rollouts.begin(self.learners["actor_critic"].model, seed)  # type: ignore[arg-type]
        model = self.learners["actor_critic"].model
        self._updating("actor_critic", self.rollouts.stream(model))  # type: ignore[arg-type]
        if not self.config.model_free:
            # next epoch dreams with newer weights and newer data
            self.rollouts = None

    def _updating(self, name: str, batches: Any) -> None:
        """The updates of one phase, from the position on."""
        learner, epoch, updates = self.learners[name], self.position.epoch, self._updates(name)
        if updates == 0:
            return
        with self._bar(name, updates) as bar:
            for step in range(self.position.step, updates):
                torch.manual_seed(self._seed(name, learner.num_updates))
                self.metrics.add(learner.update(batches))
                self.position.step = step + 1
                note = ""
                if (step + 1) % LOG_EVERY == 0 or step + 1 == updates:
                    means = self.metrics.mean(self.processes.gather)
                    note = f"loss {means['loss']:.4g}"
                    self.metrics.write(learner.num_updates, name, epoch=epoch, updates=learner.num_updates, **means,
                                       update_seconds=self.pace.seconds.get(name))
                bar.advance(1, note)
                self._save_if_due()

    def _evaluate(self) -> None:
        e, epoch = self.config.evaluation, self.position.epoch
        regular = e.every > 0 and epoch % e.every == 0 and self.learners["actor_critic"].num_updates > 0
        episodes = e.final_episodes if epoch == self.last_epoch else e.episodes if regular else 0
        plays = episodes > 0 and self.processes.is_main
        if self.processes.agree(plays and not self._play_for_a_score(epoch, episodes)):  # all of it comes next time
            self._save_if_due()

    def _play_for_a_score(self, epoch: int, episodes: int) -> bool:
        """Whether it came to its end."""
        e, started = self.config.evaluation, time.perf_counter()
        n = min(e.num_envs, episodes)
        env = make_env(self.config.game, n, image_size=self.config.agent.image_size, max_frames=frames_of(e.max_steps))
        policy = AgentPolicy(self.shown.actor_critic, self.runtime, n, self._seed("evaluate", epoch))
        with closing(env), suppress(Interrupted), self._bar("evaluate", episodes) as bar:
            results = play_episodes(env, policy, episodes, self._seed("episodes", epoch), e.max_steps,
                                    lambda *_: bar.advance(), self.should_stop)
            self.scores = {**scored(self.config.game, results), "epoch": epoch}
            self.metrics.write(epoch, "evaluate", epoch=epoch, score=results.mean, episodes=episodes,
                               length=float(np.mean(results.lengths)), seconds=time.perf_counter() - started)
            return True
        return False

    # what the phases need

    def _make_collector(self, policy: str) -> Collector:
        c = self.config.collection
        env = make_env(self.config.game, c.num_envs, life_loss_ends=self.config.life_loss_ends,
                       image_size=self.config.agent.image_size, noop_max=self.config.agent.noop_max)
        info: dict[str, str | int | float] = {"game": self.config.game, "policy": policy}
        self._player = policy
        player = player_of(policy, self.config.game, c, self.shown.actor_critic, self.runtime, self.action_names,
                           self._seed(policy))
        return Collector(env, player, self.dataset, self._seed("collect", policy), info)

    def _practice_env(self) -> VectorEnv:
        """Where the actor-critic learns, from starts that no other epoch has."""
        c, first = self.config, self.position.epoch << 20

        def starts(draw: int) -> tuple[Tensor, Tensor]:
            k = c.agent.denoiser.num_conditioning_frames
            ahead = c.imagination.horizon - 1  # so that the last step still meets the event
            batch = self._sampler("starts", k, c.actor_critic, False, ahead=ahead, late=1).batch(first + draw)
            return batch.frames, batch.actions

        n = self.processes.share(c.actor_critic.batch_size)
        return practice_env(c, n, self.shown, starts, self.runtime, self.processes.is_main)

    def _sampler(self, name: str, length: int, config: LearnerConfig, past_end: bool, **events: int) -> SegmentSampler:
        if name not in self._samplers:  # kept, for it looks for events again only when there is new data
            moments = moments_of(self.config.game, config.moments) if config.moments else None
            self._samplers[name] = SegmentSampler(
                self.dataset, length, config.batch_size, weights=self.config.sampling_weights, past_end=past_end,
                seed=self._seed(name), event_share=config.event_share, moments=moments, **events,
                rank=self.processes.rank, world_size=self.processes.world_size)
        return self._samplers[name]

    def _updates(self, name: str) -> int:
        return int(getattr(self.config, name).updates_in(self.position.epoch))

    def _seed(self, *what: str | int) -> int:
        """A 31-bit seed for one use; alike in all processes but for the noise of updates and their dreams."""
        words = [w if isinstance(w, int) else int.from_bytes(w.encode(), "little") for w in what]
        rank = self.processes.rank if what[0] in (*LEARNED, "practice") and len(what) > 1 else 0
        return int(np.random.SeedSequence([self.config.seed, rank, *words]).generate_state(1)[0] >> 1)

    def _bar(self, kind: str, total: int, follows: dict[str, int] | None = None) -> Bar:
        position, epochs = self.position, self.last_epoch or self._expected_epochs()
        label = f"epoch {position.epoch}/{epochs} {kind.replace('_', ' ')}"
        return Bar(label, total, position.step if kind in LEARNED else 0, self.pace, kind,
                   {**self._units_after_this_phase(), **(follows or {})}, self.processes.is_main)

    def _units_after_this_phase(self) -> dict[str, int]:
        """Updates that the rest of the run holds behind the present phase."""
        units: dict[str, int] = {}
        for name in LEARNED if not self.config.model_free else ("actor_critic",):
            first = self.position.epoch + (PHASES.index(name) <= self.position.phase)
            last = self.last_epoch or self._expected_epochs()
            units[name] = sum(getattr(self.config, name).updates_in(epoch) for epoch in range(first, last + 1))
        return units

    def _expected_epochs(self) -> int:
        c = self.config.collection
        missing = max(0, c.total_steps - max(self.dataset.num_steps, c.first_min_steps))
        collects_now = self.position.epoch > 1 and PHASES[self.position.phase] == "collect"
        return self.position.epoch - collects_now + -(-missing // max(1, c.steps)) + self.config.final_epochs

    # what is kept

    def _is_late(self, since: float) -> bool:  # by the main process's clock, for all
        return self.processes.agree(self.processes.is_main and time.perf_counter() - since > self.config.save_every)

    def _save_if_due(self, force: bool = False) -> None:
        """Saves the whole state now and then, and at once when asked to stop: the only place where that is read."""
        stop = self.processes.agree(self.should_stop())
        if not (force or stop or self._is_late(self._saved_at)):
            return
        shares = self.processes.gather((self.rollouts and self.rollouts.state_dict(), self.metrics.state_dict()))
        now = time.perf_counter()
        self.seconds += now - self._clock
        self._clock = self._saved_at = now
        if self.processes.is_main:
            self.run_folder.save_state({
                "position": {**asdict(self.position), "phase": PHASES[self.position.phase]},
                "last_epoch": self.last_epoch, "seconds": self.seconds, "scores": self.scores,
                "pace": dict(self.pace.seconds), "metrics": [m for _, m in shares],
                "learners": {name: learner.state_dict() for name, learner in self.learners.items()},
                "episodes": self.dataset.lengths.tolist(), "rollouts": [r for r, _ in shares], "before": self.before,
                "collector": None if self.collector is None else
                {"player": self._player, **self.collector.state_dict()}})
        if stop and not self.is_finished:
            # whoever stops wants to see how far it came; the state is safe, and the epoch's end replaces this moment
            if (phase := PHASES[self.position.phase]) in ("sight", "imitation"):
                self._hand_over(phase)
            self._save_moment(self.position.epoch - (self.position.phase == 0))  # of no epoch that has not begun
            raise StopRequested

    def _restore(self) -> None:
        """Goes back to the saved state, if there is one; whatever was written since is forgotten."""
        state = self._state
        if state is None:
            self.metrics.load_state_dict({"size": 0, "sums": {}, "count": 0})
            return
        at = state["position"]
        # before phases were saved by their names there was no imitation
        phase = at["phase"] if isinstance(at["phase"], str) else [p for p in PHASES if p != "imitation"][at["phase"]]
        self.position, self.last_epoch = Position(at["epoch"], PHASES.index(phase), at["step"]), state["last_epoch"]
        self.seconds, self.scores, self.pace.seconds = state["seconds"], state["scores"], state["pace"]
        self.before = state.get("before", [])
        mine, windows = self.processes.rank, state["metrics"]
        self.metrics.load_state_dict(windows[mine % len(windows)] if isinstance(windows, list) else windows)
        for name, learner in self.learners.items():
            learner.load_state_dict(state["learners"][name])
        if state["collector"] is not None and self.processes.is_main:
            self.collector = self._make_collector(state["collector"]["player"])
            self.collector.load_state_dict(state["collector"])
        if len(state["rollouts"]) == self.processes.world_size and state["rollouts"][mine] is not None:
            self.rollouts = rollouts_of(self.config, self._practice_env(), self.runtime)
            self.rollouts.load_state_dict(state["rollouts"][mine])
        self._state = None

    def _save_moment(self, epoch: int) -> None:
        """The agent as it is now, in a folder of its own."""
        self._moment_at = time.perf_counter()
        if not self.processes.is_main:
            return
        updates = {name: learner.num_updates for name, learner in self.learners.items()}
        stage = {"game": self.config.game, "preset": self.config.preset,
                 **played_in(self.config, self.dataset, updates["actor_critic"]), "updates": updates,
                 "seconds": round(self.seconds + time.perf_counter() - self._clock)}
        training = {**stage, "seed": self.config.seed, "epoch": epoch, "torch": torch.__version__,
                    **summed([*self.before, stage])}
        card = Card(self.config.game, list(self.action_names), self.config.agent, training=training,
                    metrics={"returns": self.scores} if self.scores else {})
        starts = starts_of(self.config, self.dataset)
        self.run_folder.write_moment(epoch, lambda folder: save_checkpoint(folder, self.shown, card, starts))
        self.run_folder.thin_out(self.config.keep_checkpoints)

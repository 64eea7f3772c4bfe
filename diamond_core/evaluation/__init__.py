"""Judge: the agent by its returns in the real game, the world by its fidelity to it."""

from diamond_core.evaluation.chaos import ChaosReport, evaluate_chaos
from diamond_core.evaluation.events import EventReport, evaluate_events
from diamond_core.evaluation.fidelity import FidelityReport, evaluate_fidelity
from diamond_core.evaluation.free import FreeReport, evaluate_free
from diamond_core.evaluation.returns import EpisodeResults, human_normalised, play_episodes, reference
from diamond_core.evaluation.scores import Aggregate, Score, aggregate, read_scores

__all__ = [
    "Aggregate",
    "ChaosReport",
    "EpisodeResults",
    "EventReport",
    "FidelityReport",
    "FreeReport",
    "Score",
    "aggregate",
    "evaluate_chaos",
    "evaluate_events",
    "evaluate_fidelity",
    "evaluate_free",
    "human_normalised",
    "play_episodes",
    "read_scores",
    "reference",
]

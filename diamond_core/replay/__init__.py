"""2 REMEMBER: what was played, on disk and in RAM, and the segments that training draws from it."""

from diamond_core.replay.dataset import Dataset, DatasetError, DatasetInfo
from diamond_core.replay.episode import Episode, EpisodeError
from diamond_core.replay.sampling import Prefetcher, SegmentSampler
from diamond_core.replay.segment import collate, segment

__all__ = [
    "Dataset",
    "DatasetError",
    "DatasetInfo",
    "Episode",
    "EpisodeError",
    "Prefetcher",
    "SegmentSampler",
    "collate",
    "segment",
]

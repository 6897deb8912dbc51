"""Share a device's time between a node's pipelines: high priority levels first, and equal shares within a level.

Pure. Each priority level has a guaranteed minimum share of the device time. The method is start-time fair queueing
(Goyal, Vin and Cheng, SIGCOMM 1996) over measured device time. Of two pipelines that have used about the same device
time, the pipeline with the earlier deadline goes first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

QUANTUM_S = 0.05
"""Two pipelines of a priority level are served by deadline while their used device times differ by at most this time
in s. A usual model computes several batches within ``QUANTUM_S``."""
FLOOR_SHARE = 0.1
"""Guaranteed minimum share of the device time for each priority level with waiting jobs, however busy higher levels
are."""

Key = TypeVar("Key", bound=Hashable)


class Demand(NamedTuple):
    """Demand of a waiting queue: its priority level, 0 for the highest, and the earliest deadline of its jobs."""

    level: int
    deadline_ns: int


class FairShares(Generic[Key]):
    """Chooses which queue uses the device next.

    The highest priority level with waiting jobs goes first, unless a lower level has used less than its guaranteed
    minimum. Within a level, waiting queues get equal device time. A queue gets no credit for time in which it had no
    waiting jobs.
    """

    def __init__(self) -> None:
        self._used_s: defaultdict[Key, float] = defaultdict(float)
        """Virtual time of each queue: its used device time in s. When a queue begins to wait, its virtual time is
        raised to the lowest virtual time of the queues that already wait."""
        self._owed_s: defaultdict[int, float] = defaultdict(float)
        """Device time in s that each level still lacks to its guaranteed minimum; negative if the level has used
        more."""
        self._waiting: dict[Key, int] = {}
        self._top = 0

    def choose(self, demands: Mapping[Key, Demand]) -> Key:
        """Return the queue to serve next. ``demands`` maps every waiting queue to its Demand, and is not empty."""
        self._note(demands)
        levels = sorted({demand.level for demand in demands.values()})
        self._top = levels[0]
        level = next((lower for lower in reversed(levels[1:]) if self._owed_s[lower] > 0.0), self._top)
        same = [key for key, demand in demands.items() if demand.level == level]
        least_s = min(self._used_s[key] for key in same)
        near = [key for key in same if self._used_s[key] <= least_s + QUANTUM_S]
        return min(near, key=lambda key: demands[key].deadline_ns)

    def charge(self, key: Key, level: int, seconds: float) -> None:
        """Add used device time in s to a queue. A negative time corrects an earlier estimate that was too high."""
        self._used_s[key] += seconds
        waiting = set(self._waiting.values())
        for lower in {*self._owed_s, *waiting, level}:
            if lower <= self._top:
                continue
            owed_s = self._owed_s[lower] + FLOOR_SHARE * seconds - (seconds if lower == level else 0.0)
            self._owed_s[lower] = owed_s if lower in waiting else min(owed_s, 0.0)

    def _note(self, demands: Mapping[Key, Demand]) -> None:
        for level in {demand.level for demand in demands.values()}:
            same = [key for key, demand in demands.items() if demand.level == level]
            stayed = [self._used_s[key] for key in same if key in self._waiting]
            present_s = min(stayed) if stayed else max(self._used_s[key] for key in same)
            for key in same:
                if key not in self._waiting:
                    self._used_s[key] = max(self._used_s[key], present_s)
        self._waiting = {key: demand.level for key, demand in demands.items()}

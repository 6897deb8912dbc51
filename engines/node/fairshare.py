"""Fair shares of a device for the pipelines of a node: priority levels with a floor, and weighted turns in a level.

Pure. The method is start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996) over measured device time, in which
deadlines decide between pipelines that are about equally far.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Mapping
from typing import Generic, NamedTuple, TypeVar

QUANTUM_S = 0.05
"""Device time in s by which a pipeline may be ahead of another one of its level. Within it the earlier deadline goes
first. It is several batches of a usual model."""
FLOOR_SHARE = 0.1
"""Share of the device time that each waiting level gets, however busy the levels above it are."""

Key = TypeVar("Key", bound=Hashable)


class Demand(NamedTuple):
    """A queue that waits: its priority level, 0 for the highest, and its earliest deadline."""

    level: int
    deadline_ns: int


class FairShares(Generic[Key]):
    """Chooses which queue uses the device next.

    The highest waiting level goes first, unless a lower one has used less than its floor. In a level, queues get
    equal device time while they wait. A queue that did not wait gets no credit for that time.
    """

    def __init__(self) -> None:
        self._used_s: defaultdict[Key, float] = defaultdict(float)
        """Virtual time: device time that a queue has used, raised to that of the others when it begins to wait."""
        self._owed_s: defaultdict[int, float] = defaultdict(float)
        """Device time that a level may still use before it has had its floor. Negative if it has used more."""
        self._waiting: dict[Key, int] = {}
        self._top = 0

    def choose(self, demands: Mapping[Key, Demand]) -> Key:
        """Return the queue to serve next. ``demands`` are all queues that wait; there is at least one."""
        self._note(demands)
        levels = sorted({demand.level for demand in demands.values()})
        self._top = levels[0]
        level = next((lower for lower in reversed(levels[1:]) if self._owed_s[lower] > 0.0), self._top)
        same = [key for key, demand in demands.items() if demand.level == level]
        least_s = min(self._used_s[key] for key in same)
        near = [key for key in same if self._used_s[key] <= least_s + QUANTUM_S]
        return min(near, key=lambda key: demands[key].deadline_ns)

    def charge(self, key: Key, level: int, seconds: float) -> None:
        """Add device time to a queue. A negative time corrects an estimate that was too high."""
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
        for level in self._owed_s.keys() - set(self._waiting.values()):
            self._owed_s[level] = min(self._owed_s[level], 0.0)

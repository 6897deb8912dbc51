"""The batch sizes that are worth a CUDA graph. Pure."""

from __future__ import annotations

from collections import Counter

GRAPHS = 2
"""Number of batch sizes with a graph. A graph needs an execution context per slot."""
GRAPH_RUNS = 64
"""Number of runs from which a batch size may get a graph. The number exceeds the runs of a warm-up, which are 5 per
slot and size."""
CHOOSE_EVERY = 64
"""Number of runs between two choices of the sizes that have graphs."""
HALVE_EVERY = 4096
"""Number of runs after which all counts are halved, so that the choice follows a change of load within a minute."""
ADVANTAGE = 1.5
"""Factor by which the count of a size with a graph is multiplied, so that two sizes of similar count do not replace
each other in turn."""


class HotSizes:
    """Counts batch sizes, and chooses the ``GRAPHS`` most frequent sizes."""

    def __init__(self) -> None:
        self.sizes: frozenset[int] = frozenset()
        self._counts: Counter[int] = Counter()
        self._runs = 0

    def note(self, rows: int) -> None:
        """Count a run, and choose the sizes again every ``CHOOSE_EVERY`` runs."""
        self._counts[rows] += 1
        self._runs += 1
        if self._runs % CHOOSE_EVERY == 0:
            ranked = sorted(self._counts, key=self._weight, reverse=True)[:GRAPHS]
            self.sizes = frozenset(size for size in ranked if self._counts[size] >= GRAPH_RUNS)
        if self._runs % HALVE_EVERY == 0:
            self._counts = Counter({size: count // 2 for size, count in self._counts.items()})

    def _weight(self, rows: int) -> float:
        return self._counts[rows] * (ADVANTAGE if rows in self.sizes else 1.0)

"""Selection of the most frequent batch sizes, which get a CUDA graph. The module does no I/O."""

from __future__ import annotations

from collections import Counter

GRAPHS = 2
"""Maximum number of batch sizes that have a CUDA graph. Each graph needs one TensorRT execution context for each
slot."""
GRAPH_RUNS = 64
"""Minimum number of batches of one size before that size may get a CUDA graph. A warm-up runs 5 batches for each slot
and size, which is too few to get a graph."""
CHOOSE_EVERY = 64
"""Number of batches after which the batch sizes with a CUDA graph are chosen again."""
HALVE_EVERY = 4096
"""Number of batches after which all counts are halved, so that the chosen sizes follow a change of load within a
minute."""
ADVANTAGE = 1.5
"""Factor for the count of a batch size that has a CUDA graph (hysteresis). The factor keeps two sizes with similar
counts from replacing each other at every choice."""


class HotSizes:
    """Counts the batches of each size, and chooses up to ``GRAPHS`` sizes with the highest counts."""

    def __init__(self) -> None:
        self.sizes: frozenset[int] = frozenset()
        self._counts: Counter[int] = Counter()
        self._runs = 0

    def note(self, rows: int) -> None:
        """Count a batch of ``rows`` images, and choose the sizes again after every ``CHOOSE_EVERY`` batches."""
        self._counts[rows] += 1
        self._runs += 1
        if self._runs % CHOOSE_EVERY == 0:
            ranked = sorted(self._counts, key=self._weight, reverse=True)[:GRAPHS]
            self.sizes = frozenset(size for size in ranked if self._counts[size] >= GRAPH_RUNS)
        if self._runs % HALVE_EVERY == 0:
            self._counts = Counter({size: count // 2 for size, count in self._counts.items()})

    def _weight(self, rows: int) -> float:
        return self._counts[rows] * (ADVANTAGE if rows in self.sizes else 1.0)

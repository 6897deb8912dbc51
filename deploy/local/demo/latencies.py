"""How long things took, for any number of them, in bounded memory. Pure.

A histogram whose buckets grow by a constant factor, so that every value is known within a constant share of itself:
the sketch of Masson, Rim and Lee, "DDSketch", Proceedings of the VLDB Endowment 12 (2019).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

RELATIVE_ERROR = 0.005
"""Of a percentile, at most: half a ms in a hundred, less than two runs differ by. Up to a day are 2,000 buckets."""
LEAST_MS = 0.1
"""What is shorter, or negative because two clocks differ, counts as this: reports are rounded to it."""
RECENT = 500
"""What the live table looks at: some ten seconds of a few cameras."""
_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_FACTOR = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_FACTOR = math.log(_FACTOR)


class Latencies:
    """Latencies in ms. ``recent`` are the last ones as they were, for a look at how things go just now."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT)
        self._buckets: Counter[int] = Counter()

    def add(self, latency_ms: float) -> None:
        """Count one."""
        self.recent.append(latency_ms)
        self._buckets[math.ceil(math.log(max(latency_ms, LEAST_MS)) / _LOG_FACTOR)] += 1

    def clear(self) -> None:
        """Forget all of them."""
        self.recent.clear()
        self._buckets.clear()

    def percentiles(self) -> dict[str, float]:
        """Return what ``percentiles_ms`` does of all values, each within ``RELATIVE_ERROR`` before it is rounded."""
        if not self._buckets:
            return {}
        buckets = sorted(self._buckets)
        middles = [2 * _FACTOR**bucket / (_FACTOR + 1) for bucket in buckets]
        below = np.cumsum([self._buckets[bucket] for bucket in buckets])
        return {name: round(_at(share, middles, below), 1) for name, share in _PERCENTILES.items()}


def percentiles_ms(values: Iterable[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in ms, rounded to a tenth; empty when there is nothing to say."""
    given = list(values)
    if not given:
        return {}
    found = np.quantile(given, list(_PERCENTILES.values()))
    return {name: round(float(value), 1) for name, value in zip(_PERCENTILES, found, strict=True)}


def _at(share: float, middles: list[float], below: npt.NDArray[np.int64]) -> float:
    """Return a quantile, between two values in proportion. ``below`` counts the values up to each bucket's end."""
    rank = share * (int(below[-1]) - 1)
    low, high = (middles[int(np.searchsorted(below, place, "right"))] for place in (int(rank), math.ceil(rank)))
    return low + (high - low) * (rank - int(rank))

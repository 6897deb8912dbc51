"""Percentiles of any number of latencies in bounded memory. Pure.

The buckets of the histogram grow by a constant factor, so that each value has the same relative error. Source:
Masson, Rim and Lee, "DDSketch", Proceedings of the VLDB Endowment 12 (2019).
"""

from __future__ import annotations

import math
from collections import Counter, deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

RELATIVE_ERROR = 0.005
"""Largest relative error of a percentile: 0.5 ms in 100 ms, which is less than the difference between two runs. With
this error, latencies up to a day need 2,000 buckets."""
LEAST_MS = 0.1
"""Smallest recorded latency in ms, and the rounding step of reports. Shorter latencies count as ``LEAST_MS``.
Negative latencies, which occur if two clocks differ, also count as ``LEAST_MS``."""
RECENT = 500
"""Number of recent latencies for the live table: about ten seconds of results of a few cameras."""
_PERCENTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_FACTOR = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_LOG_FACTOR = math.log(_FACTOR)


class Latencies:
    """Histogram of latencies in ms. ``recent`` has the last ``RECENT`` latencies unrounded, for the live table."""

    def __init__(self) -> None:
        self.recent: deque[float] = deque(maxlen=RECENT)
        self._buckets: Counter[int] = Counter()

    def add(self, latency_ms: float) -> None:
        """Count one latency."""
        self.recent.append(latency_ms)
        self._buckets[math.ceil(math.log(max(latency_ms, LEAST_MS)) / _LOG_FACTOR)] += 1

    def percentiles(self) -> dict[str, float]:
        """Return p50, p95 and p99 in ms, with a relative error of at most ``RELATIVE_ERROR``."""
        if not self._buckets:
            return {}
        buckets = sorted(self._buckets)
        middles = [2 * _FACTOR**bucket / (_FACTOR + 1) for bucket in buckets]
        below = np.cumsum([self._buckets[bucket] for bucket in buckets])
        return {name: round(_at(share, middles, below), 1) for name, share in _PERCENTILES.items()}


def percentiles_ms(values: Iterable[float]) -> dict[str, float]:
    """Return p50, p95 and p99 in ms, rounded to 0.1 ms, or an empty dict if there are no values."""
    given = list(values)
    if not given:
        return {}
    found = np.quantile(given, list(_PERCENTILES.values()))
    return {name: round(float(value), 1) for name, value in zip(_PERCENTILES, found, strict=True)}


def _at(share: float, middles: list[float], below: npt.NDArray[np.int64]) -> float:
    """Return a quantile by linear interpolation. ``below`` has the number of values up to the end of each bucket."""
    rank = share * (int(below[-1]) - 1)
    low, high = (middles[int(np.searchsorted(below, place, "right"))] for place in (int(rank), math.ceil(rank)))
    return low + (high - low) * (rank - int(rank))

"""Token buckets that limit the bytes a camera may spend, and the file that carries them over a restart."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.runtime.clock import Clock
from ingest.runtime.files import make_folder, open_private
from ingest.site import EncodeConfig

DAY_S = 86_400.0
DAY_BURST_SHARE = 0.25
"""Share of a day's budget that a quiet night can save up. The rest flows in evenly over the day, so that no 24 hours
ever cost more than the budget."""
START_S = 60.0
"""A new bucket holds the inflow of this time instead of its full capacity. A restarted capture does not receive it
again: it continues with its carried budget."""
MAX_HORIZON_S = 1800.0
"""Longest time over which savings are spent: a night's savings go to the next busy half hour."""
MAX_SHARE = 0.7
"""Maximum share of a bucket's content for one frame, because the size of the next frame is only an estimate."""
_FILE_BYTES = 512
"""Fixed size of the budget file. Every frame rewrites the same bytes, which changes one page in memory. The system
writes that page to disk from time to time, and only a power cut loses the latest state."""


@dataclass
class Bucket:
    """Token bucket: ``rate`` bytes a second flow in, up to ``capacity`` bytes.

    In any ``T`` seconds, at most ``capacity + rate × T`` bytes flow out.
    """

    rate: float
    capacity: float
    left: float
    at_s: float | None = None

    def share(self, interval_s: float) -> float:
        """Return the bytes that the next frame may have when a frame comes every ``interval_s``."""
        then = min(self.capacity, self.left + self.rate * interval_s)
        horizon_s = min(self.capacity / self.rate / 2, MAX_HORIZON_S)  # time in which the savings are spent
        return then * min(interval_s / horizon_s, MAX_SHARE)

    def refill(self, now_s: float) -> None:
        """Add the inflow since the last call. A clock that goes back adds nothing."""
        if self.at_s is not None:
            self.left = min(self.capacity, self.left + max(0.0, now_s - self.at_s) * self.rate)
        self.at_s = now_s if self.at_s is None else max(self.at_s, now_s)


def make_buckets(config: EncodeConfig) -> list[Bucket]:
    """Return the buckets of a camera's budgets: per second, per day, both or none."""
    limits = []
    if config.bytes_per_s:
        limits.append((float(config.bytes_per_s), config.bytes_per_s * config.burst_s))
    if config.bytes_per_day:
        burst = config.bytes_per_day * DAY_BURST_SHARE
        limits.append(((config.bytes_per_day - burst) / DAY_S, burst))
    return [Bucket(rate, capacity, min(capacity, rate * START_S)) for rate, capacity in limits]


class CarriedBudget:
    """Small file that carries a camera's remaining budget over a restart of its capture.

    Without it, a camera that reconnects often would receive the starting allowance each time, which adds up to many
    times the daily budget. A file that cannot be read or written is ignored.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def restore(self, buckets: Sequence[Bucket]) -> None:
        """Give buckets of an unchanged budget their last content, plus the inflow since then by the wall clock.

        The file is saved again at once. Otherwise, after a clock was set back, captures too short for a frame would
        gain nothing until the clock has caught up.
        """
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(_FILE_BYTES))  # any bytes behind that are not ours
            away_s = max(0.0, self._clock.now_ns() / 1e9 - float(found["at_s"]))
            kept = {(float(rate), float(capacity)): float(left) for rate, capacity, left in found["buckets"]}
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return
        for bucket in buckets:
            left = kept.get((bucket.rate, bucket.capacity))
            if left is not None:  # a changed budget has other buckets, which start anew
                bucket.left = min(bucket.capacity, max(0.0, left) + away_s * bucket.rate)
        self.save(buckets)

    def save(self, buckets: Sequence[Bucket]) -> None:
        """Write the current content of the buckets."""
        if not buckets:
            return
        now = {"at_s": self._clock.now_ns() / 1e9, "buckets": [[b.rate, b.capacity, b.left] for b in buckets]}
        with contextlib.suppress(OSError):
            make_folder(self._path.parent)
            file = open_private(self._path, flags=0)
            try:
                os.pwrite(file, json.dumps(now).encode().ljust(_FILE_BYTES), 0)
            finally:
                os.close(file)

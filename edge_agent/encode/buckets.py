"""Token buckets that limit the bytes a camera may send, and the file that keeps their content over a restart."""

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
"""Share of the daily budget that a bucket can hold, saved up during a quiet night. The remaining part of the daily
budget flows in evenly over the day. Any 24 hours therefore cost at most the daily budget."""
START_S = 60.0
"""Initial content of a new bucket, as seconds of inflow. A restarted capture process does not get this content again.
The restarted process continues with the bytes that the last process saved."""
MAX_HORIZON_S = 1800.0
"""Maximum time over which a bucket's saved bytes are spent, in seconds. With this limit, bytes saved during a quiet
night are spent in the next busy half hour."""
MAX_SHARE = 0.7
"""Maximum share of a bucket's content that is planned for one frame. The remaining share is a margin, because an
encoded frame may be larger than planned."""
_FILE_BYTES = 512
"""Fixed size of the budget file. Each frame rewrites the same bytes of the file, which changes one page in memory.
The operating system writes that page to disk from time to time. Only a power cut loses the latest content."""


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
        """Return the planned size of the next frame in bytes, if one frame arrives every ``interval_s`` seconds."""
        then = min(self.capacity, self.left + self.rate * interval_s)
        horizon_s = min(self.capacity / self.rate / 2, MAX_HORIZON_S)  # time over which saved bytes are spent
        return then * min(interval_s / horizon_s, MAX_SHARE)

    def refill(self, now_s: float) -> None:
        """Add the bytes that flowed in since the last call. A clock that goes back adds no bytes."""
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
    """Small file that keeps a camera's remaining budget over a restart of its capture process.

    Without the file, each reconnect of a camera would grant ``START_S`` of budget again. A camera that reconnects
    often could send many times its daily budget. A file that cannot be read or written is ignored.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def restore(self, buckets: Sequence[Bucket]) -> None:
        """Restore the saved content of buckets with an unchanged budget, plus the inflow since the save.

        The wall clock measures the inflow. After the restore, save the file again at once with the present time.
        Without this save, a wall clock that was set back could stop the inflow: processes that end before their first
        frame would never save a new time.
        """
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(_FILE_BYTES))  # ignores any bytes after the fixed size
            away_s = max(0.0, self._clock.now_ns() / 1e9 - float(found["at_s"]))
            kept = {(float(rate), float(capacity)): float(left) for rate, capacity, left in found["buckets"]}
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return
        for bucket in buckets:
            left = kept.get((bucket.rate, bucket.capacity))
            if left is not None:  # a bucket of a changed budget keeps its initial content
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

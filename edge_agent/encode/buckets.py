"""Token buckets that limit the bytes that a camera may send, and the file that keeps the buckets' content over a
restart."""

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
"""Capacity of the bucket for the daily budget, as a share of the daily budget. The daily budget minus this capacity
flows into the bucket evenly over the day. A full bucket and 24 hours of inflow add up to the daily budget, so a
camera never sends more within 24 hours."""
START_S = 60.0
"""Initial content of a new bucket, expressed as seconds of inflow. A restarted capture process does not fill its
bucket to ``START_S`` again, but continues with the content that the previous process saved."""
MAX_HORIZON_S = 1800.0
"""Maximum time over which the controller spends the saved bytes of a bucket, in seconds. With a limit, the bytes that
a camera saved during a quiet night are spent within the next busy half hour."""
MAX_SHARE = 0.7
"""Maximum planned size of a frame, as a share of the bucket's content. The rest of the bucket's content is a margin,
because an encoded frame may be larger than planned."""
_FILE_BYTES = 512
"""Fixed size of the file that stores the bucket contents, in bytes. Each frame overwrites the same bytes of the file,
so only one memory page changes. The operating system writes the changed page to disk from time to time. A power cut
loses the latest content of the file, but a crash of the process does not."""


@dataclass
class Bucket:
    """Token bucket into which ``rate`` bytes flow per second, and which holds at most ``capacity`` bytes.

    In any ``T`` seconds, at most ``capacity + rate × T`` bytes flow out.
    """

    rate: float
    capacity: float
    left: float
    at_s: float | None = None

    def share(self, interval_s: float) -> float:
        """Return the planned size of the next frame in bytes, given that one frame arrives every ``interval_s``
        seconds."""
        then = min(self.capacity, self.left + self.rate * interval_s)
        horizon_s = min(self.capacity / self.rate / 2, MAX_HORIZON_S)  # time over which saved bytes are spent
        return then * min(interval_s / horizon_s, MAX_SHARE)

    def refill(self, now_s: float) -> None:
        """Add the bytes that flowed in since the last refill. If the clock goes back, add no bytes."""
        if self.at_s is not None:
            self.left = min(self.capacity, self.left + max(0.0, now_s - self.at_s) * self.rate)
        self.at_s = now_s if self.at_s is None else max(self.at_s, now_s)


def make_buckets(config: EncodeConfig) -> list[Bucket]:
    """Return a token bucket for each budget that the camera's configuration sets: the budget per second and the
    budget per day."""
    limits = []
    if config.bytes_per_s:
        limits.append((float(config.bytes_per_s), config.bytes_per_s * config.burst_s))
    if config.bytes_per_day:
        burst = config.bytes_per_day * DAY_BURST_SHARE
        limits.append(((config.bytes_per_day - burst) / DAY_S, burst))
    return [Bucket(rate, capacity, min(capacity, rate * START_S)) for rate, capacity in limits]


class CarriedBudget:
    """Small file that keeps a camera's remaining budget over a restart of its capture process.

    If the budget were not saved, a camera would get ``START_S`` seconds of budget again at each reconnect. If each
    restart filled the buckets, a camera that reconnects often could send many times its daily budget. A missing or
    unreadable file is ignored, and so is a failed write.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def restore(self, buckets: Sequence[Bucket]) -> None:
        """Restore the saved content of each bucket whose budget is unchanged, and add the bytes that flowed in since
        the save.

        The elapsed time since the save is measured with the wall clock. After the restore, save the file again with
        the present time. If the file were not saved after a restore, an agent that is often killed before its first
        frame would never save a new time. After the wall clock was set back, an agent that never saves a new time
        would add no bytes to its buckets.
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
        """Write the current content of the buckets to the file."""
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

"""What is left of a camera's budgets, on disk: a capture that is started anew goes on with what the last one left.

Without it, a camera that comes and goes would have a start's allowance each time, many times the budget of a day.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from edge_agent.encode.bucket import Bucket
from ingest.runtime.clock import Clock

_WIDTH = 512
"""Bytes of the file, always the same ones: with each frame one page in memory changes, which the system writes now
and then. What it has not written yet, only a power cut loses."""


class Purse:
    """A small file. What cannot be read or written is as if it were not there."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._path, self._clock = path, clock

    def fill(self, buckets: Sequence[Bucket]) -> None:
        """Give buckets of the same budgets what they had, and what has flowed in since by the wall clock.

        From then on it is counted anew: after a clock that was set back, what flows in between captures that are too
        short for a frame would else be lost until it has come as far again.
        """
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(_WIDTH))  # behind that is nothing of ours
            away_s = max(0.0, self._clock.now_ns() / 1e9 - float(found["at_s"]))
            kept = {(float(rate), float(capacity)): float(left) for rate, capacity, left in found["buckets"]}
        except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return
        for bucket in buckets:
            left = kept.get((bucket.rate, bucket.capacity))
            if left is not None:  # other budgets have other buckets, and begin anew
                bucket.left = min(bucket.capacity, max(0.0, left) + away_s * bucket.rate)
        self.keep(buckets)

    def keep(self, buckets: Sequence[Bucket]) -> None:
        """Remember what is left now."""
        if not buckets:
            return
        now = {"at_s": self._clock.now_ns() / 1e9, "buckets": [[b.rate, b.capacity, b.left] for b in buckets]}
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.pwrite(file, json.dumps(now).encode().ljust(_WIDTH), 0)
            finally:
                os.close(file)

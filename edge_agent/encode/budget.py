"""Which quality and size keep a camera within its budgets. Pure; time is passed in.

The controller is an integrator on the logarithm of the size, since sizes go about as exp(level): after each frame the
level moves by ``GAIN`` × ln(target ÷ size). Where the size goes as exp(k × level), the distance to the target shrinks
to |1 - GAIN × k| of itself with each frame. With JPEG and WebP k was 0.4 to 4.5 on all footage tried, and 2 mostly:
the distance is below 5 % of what it was after 4 frames mostly, after 24 at the worst. It is stable up to a k of 6.

The target is a share of what a bucket holds: a bucket that is fuller than what flows in makes pictures larger, one
that runs dry makes them smaller, and it comes to rest where as much flows out as in.
"""

from __future__ import annotations

import math

from edge_agent.encode.bucket import Bucket, buckets
from edge_agent.encode.ladder import Ladder, Rung
from ingest.site import EncodeConfig

GAIN = 0.3
_INTERVAL_RATE = 0.2
"""Of the running mean of the time between frames: it follows a gate that opens within a few frames."""
_MAX_INTERVAL_S = 60.0
"""A gap longer than this is a pause, and says nothing about what comes now."""
_HOPELESS_SHARE = 0.5
"""Of the last size at the floor: with less than this left it is not even tried, which saves the encoding; but with a
full bucket it is, since the scene may have become simpler."""


class Budget:
    """The budgets of one camera. For each frame: ``rung``, encode, ``spend``, and ``floor`` when that is refused."""

    def __init__(self, config: EncodeConfig) -> None:
        self._ladder = Ladder(config)
        self._buckets: list[Bucket] = buckets(config)
        self._level = 1.0
        self._interval_s = 0.0
        self._last_s: float | None = None
        self._floor_bytes = 0
        self._at_floor = False

    @property
    def buckets(self) -> list[Bucket]:
        """The buckets, for what outlives this capture."""
        return self._buckets

    @property
    def level(self) -> float:
        """Where on the ladder the next frame is, 0..1."""
        return self._level

    @property
    def left(self) -> int:
        """How many bytes may be spent now; only of use where there is a budget."""
        return int(min((b.left for b in self._buckets), default=0))

    def rung(self, now_s: float) -> Rung | None:
        """Return what to encode the next frame with, None when there is no hope for it."""
        for bucket in self._buckets:
            bucket.flow(now_s)
        if self._last_s is not None and 0 < now_s - self._last_s <= _MAX_INTERVAL_S:
            step_s = now_s - self._last_s
            self._interval_s += (step_s - self._interval_s) * (_INTERVAL_RATE if self._interval_s else 1.0)
        self._last_s = now_s
        if any(b.left < min(b.capacity, self._floor_bytes * _HOPELESS_SHARE) for b in self._buckets):
            return None
        self._at_floor = self._level <= 0
        return self._ladder.floor if self._at_floor else self._ladder.rung(self._level)

    def floor(self) -> Rung | None:
        """Return the floor, for a frame that was refused; None when it was at the floor already."""
        if self._at_floor:
            return None
        self._at_floor = True
        return self._ladder.floor

    def spend(self, size_bytes: int) -> bool:
        """Spend a frame's bytes and learn from its size. Return False, and spend none, when they are not there."""
        if not self._buckets:
            return True
        if self._at_floor:
            self._floor_bytes = size_bytes
        there = size_bytes <= min(b.left for b in self._buckets)
        if there:
            for bucket in self._buckets:
                bucket.left -= size_bytes
        if not self._at_floor or self._level <= 0:
            self._learn(size_bytes)
        return there

    def _learn(self, size_bytes: int) -> None:
        if not self._interval_s:
            return  # the first frame: nobody knows yet how often they come
        target = min(bucket.share(self._interval_s) for bucket in self._buckets)
        self._level = min(1.0, max(0.0, self._level + GAIN * math.log(max(target, 1.0) / max(size_bytes, 1))))

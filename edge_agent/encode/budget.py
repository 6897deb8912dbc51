"""Controller that chooses picture quality and size so that a camera stays within its byte budgets. Pure.

A level in 0..1 determines quality and size. Level 1 is the configured quality at full size. Level 0 is the floor: the
configured minimum quality and minimum size.

The controller is an integrator on the logarithm of the size, because encoded sizes grow about as exp(level). After
each frame the level moves by ``GAIN`` × ln(target ÷ size). If sizes grow as exp(k × level), each frame multiplies the
distance to the target by |1 - GAIN × k|. In measurements with JPEG and WebP, k was 0.4 to 4.5, and mostly 2. With
such k, the distance to the target usually falls below 5 % after 4 frames, and in the worst case after 24 frames. The
controller is stable for k up to 6.

The target is a share of a bucket's content. A full bucket makes pictures larger, and an almost empty bucket makes
them smaller. In equilibrium, the frames use as many bytes a second as flow into the bucket.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from edge_agent.encode.buckets import Bucket, make_buckets
from ingest.site import EncodeConfig

GAIN = 0.3
SCALE_BELOW = 0.5
"""Level below which the picture is also scaled down. Above this level, the picture has full size and only its quality
changes."""
STEP = 1 / 8
"""Step of the scale, as a share of width and height. A tracker follows boxes in pixels, so a picture size that
changed with every frame would disturb tracking."""
HYSTERESIS = 0.06
"""Hysteresis of the scale, as a difference of levels. The scale changes only when the level is beyond the boundary
between two scales by more than this difference. The value is about half the distance between two such boundaries."""
_INTERVAL_RATE = 0.2
"""Weight of the newest interval in the running mean of the time between frames. When the gate opens and frames become
more frequent, the mean adapts within a few frames."""
_MAX_INTERVAL_S = 60.0
"""Maximum interval that enters the mean, in seconds. A longer gap between two frames is a pause and does not predict
the next interval."""
_HOPELESS_SHARE = 0.5
"""Share of the size of the last frame that was encoded at the floor. If a bucket holds fewer bytes than this share of
that size, the next frame is refused without encoding it. Frames that meet a full bucket are always encoded:
only their encoding shows whether the scene has become simpler."""


class Rung(NamedTuple):
    """Encoder settings of one level."""

    quality: int
    scale: float


class Ladder:
    """Mapping from a level to the encoder settings of one camera.

    The mapping has a hysteresis, so it depends on the last scale.
    """

    def __init__(self, config: EncodeConfig) -> None:
        self._config = config
        self._scale = 1.0

    @property
    def floor(self) -> Rung:
        """Encoder settings of minimum quality and scale."""
        return Rung(self._config.min_quality, self._config.min_scale)

    def rung(self, level: float) -> Rung:
        """Return the settings for a level in 0..1."""
        best, worst = self._config.quality, self._config.min_quality
        share = min(1.0, max(0.0, (level - SCALE_BELOW) / (1 - SCALE_BELOW)))
        lower, upper = self._scale_at(level - HYSTERESIS), self._scale_at(level + HYSTERESIS)
        self._scale = min(upper, max(lower, self._scale))
        return Rung(round(worst + (best - worst) * share), self._scale)

    def _scale_at(self, level: float) -> float:
        smallest = self._config.min_scale
        share = min(1.0, max(0.0, level / SCALE_BELOW))
        return max(smallest, round((smallest + (1 - smallest) * share) / STEP) * STEP)


class Budget:
    """Byte budgets of one camera.

    For each frame, call ``rung``, encode with its settings, and call ``spend``. If ``spend`` refuses the frame,
    encode the frame once more at ``floor``.
    """

    def __init__(self, config: EncodeConfig) -> None:
        self._ladder = Ladder(config)
        self.buckets: list[Bucket] = make_buckets(config)
        """Token buckets, which a ``CarriedBudget`` saves and restores."""
        self.level = 1.0
        """Level of the next frame, 0..1."""
        self._interval_s = 0.0
        self._last_s: float | None = None
        self._floor_bytes = 0
        self._at_floor = False

    @property
    def left(self) -> int:
        """Bytes that may be spent now; 0 without a budget."""
        return int(min((b.left for b in self.buckets), default=0))

    def rung(self, now_s: float) -> Rung | None:
        """Return the encoder settings for the next frame.

        Return None if even a frame of minimum quality and size would exceed the budget.
        """
        for bucket in self.buckets:
            bucket.refill(now_s)
        if self._last_s is not None and 0 < now_s - self._last_s <= _MAX_INTERVAL_S:
            step_s = now_s - self._last_s
            self._interval_s += (step_s - self._interval_s) * (_INTERVAL_RATE if self._interval_s else 1.0)
        self._last_s = now_s
        if any(b.left < min(b.capacity, self._floor_bytes * _HOPELESS_SHARE) for b in self.buckets):
            return None
        self._at_floor = self.level <= 0
        return self._ladder.floor if self._at_floor else self._ladder.rung(self.level)

    def floor(self) -> Rung | None:
        """Return the settings of minimum quality and size for a refused frame.

        Return None if the frame was already encoded with these settings.
        """
        if self._at_floor:
            return None
        self._at_floor = True
        return self._ladder.floor

    def spend(self, size_bytes: int) -> bool:
        """Spend a frame's bytes and adjust the level. Return False and spend no bytes if too few bytes are left."""
        if not self.buckets:
            return True
        if self._at_floor:
            self._floor_bytes = size_bytes
        enough = size_bytes <= min(b.left for b in self.buckets)
        if enough:
            for bucket in self.buckets:
                bucket.left -= size_bytes
        if self._interval_s and (not self._at_floor or self.level <= 0):  # the first frame has no interval yet
            target = min(bucket.share(self._interval_s) for bucket in self.buckets)
            self.level = min(1.0, max(0.0, self.level + GAIN * math.log(max(target, 1.0) / max(size_bytes, 1))))
        return enough

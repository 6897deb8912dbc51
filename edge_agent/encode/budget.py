"""Controller that selects the quality and size of pictures so that a camera stays within its byte budgets. Pure.

One number, the level in 0..1, determines the quality and the size of a picture. Level 1 means the configured quality
and the full size. Level 0 means the configured minimum quality and minimum size.

The controller integrates the logarithm of the size error, because the size of encoded frames grows about as exp(k ×
level). After each frame, the controller adds ``GAIN`` × ln(target ÷ size) to the level. Each frame multiplies the
logarithmic distance between size and target by |1 - GAIN × k|. In measurements with JPEG and WebP, the growth rate k
was between 0.4 and 4.5, and mostly about 2. For k from 0.4 to 4.5, the size is within 5 % of the target after 4
frames in most cases, and after 24 frames in the worst case. The controller is stable for growth rates k up to 6.

The target size of a frame is a share of the bytes in the token bucket. Pictures become larger while the token bucket
is full, and smaller while it is almost empty. In equilibrium, the frames use as many bytes per second as flow into
the bucket.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from edge_agent.encode.buckets import Bucket, make_buckets
from ingest.site import EncodeConfig

GAIN = 0.3
SCALE_BELOW = 0.5
"""Quality level below which the picture has the minimum quality and is also scaled down.

Above ``SCALE_BELOW``, the picture keeps its full size, and the level changes only the quality of the JPEG or WebP.
"""
STEP = 1 / 8
"""Smallest change of the picture's scale, as a share of the full width and height. Coarse changes are better for
tracking, which follows boxes in pixels and would be disturbed by a new picture size in every frame."""
HYSTERESIS = 0.06
"""Difference by which the quality level must pass the boundary between two picture scales before the scale changes. A
step of 0.06 is about half the distance between the boundaries of neighbouring scales."""
_INTERVAL_RATE = 0.2
"""Weight of the newest interval in the running average of the interval between frames. When the gate opens and frames
become more frequent, the running average adapts within a few frames."""
_MAX_INTERVAL_S = 60.0
"""Maximum interval between frames that enters the running average, in seconds. A longer interval is a pause of the
camera, and does not predict the next interval between frames."""
_HOPELESS_SHARE = 0.5
"""Minimum content of a bucket for encoding a frame, as a share of the size of the last frame that was encoded at
minimum quality and size. A frame is refused without being encoded if a bucket holds fewer bytes than this share of
the last smallest encoding. While all buckets are filled to capacity, every frame is encoded: only encoding shows
whether the scene has become simpler."""


class Rung(NamedTuple):
    """Encoder settings for one level, which are the JPEG or WebP quality and the scale of the picture."""

    quality: int
    scale: float


class Ladder:
    """Mapping from a level to the encoder settings of one camera.

    The scale has a hysteresis, so the settings depend on the previous scale.
    """

    def __init__(self, config: EncodeConfig) -> None:
        self._config = config
        self._scale = 1.0

    @property
    def floor(self) -> Rung:
        """Encoder settings with the minimum quality and the minimum scale."""
        return Rung(self._config.min_quality, self._config.min_scale)

    def rung(self, level: float) -> Rung:
        """Return the encoder settings for a level in 0..1."""
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
    """Byte budgets of one camera, and the controller of the camera's picture quality and size.

    The caller calls ``rung`` for each frame, encodes the frame with the returned settings, and calls ``spend``. If
    ``spend`` returns False, the caller encodes the frame once more with the settings that ``floor`` returns.
    """

    def __init__(self, config: EncodeConfig) -> None:
        self._ladder = Ladder(config)
        self.buckets: list[Bucket] = make_buckets(config)
        """Token buckets, which a ``CarriedBudget`` saves and restores."""
        self.level = 1.0
        """Level for the next frame, in 0..1."""
        self._interval_s = 0.0
        self._last_s: float | None = None
        self._floor_bytes = 0
        self._at_floor = False

    @property
    def left(self) -> int:
        """Bytes that a frame may use now; 0 if no budget is configured."""
        return int(min((b.left for b in self.buckets), default=0))

    def rung(self, now_s: float) -> Rung | None:
        """Return the encoder settings for the next frame.

        Return None if the buckets hold too few bytes even for a frame of minimum quality and size.
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
        """Return the encoder settings of minimum quality and size, for a frame that ``spend`` refused.

        Return None if the frame was already encoded at minimum quality and size.
        """
        if self._at_floor:
            return None
        self._at_floor = True
        return self._ladder.floor

    def spend(self, size_bytes: int) -> bool:
        """Take the bytes of an encoded frame from the buckets and adjust the level.

        If a bucket holds too few bytes, return False and take no bytes.
        """
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

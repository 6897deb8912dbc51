"""From one number to quality and size: 1 is the best that a camera asks for, 0 its floor. Pure.

Down to ``SCALE_BELOW`` only quality falls, and below it the picture is scaled down as well, in steps: a tracker
follows boxes in pixels, and a size that changes with every frame would be a nuisance to everything downstream.
"""

from __future__ import annotations

from typing import NamedTuple

from ingest.site import EncodeConfig

SCALE_BELOW = 0.5
STEP = 1 / 8
"""Of the width and height."""
HYSTERESIS = 0.06
"""In levels: so far beyond a step's edge the level must go before the size changes; half a step is about as much."""


class Rung(NamedTuple):
    """What to encode with."""

    quality: int
    scale: float


class Ladder:
    """The rungs of one camera. Remembers its scale, for the hysteresis."""

    def __init__(self, config: EncodeConfig) -> None:
        self._config = config
        self._scale = 1.0

    @property
    def floor(self) -> Rung:
        """The lowest rung."""
        return Rung(self._config.min_quality, self._config.min_scale)

    def rung(self, level: float) -> Rung:
        """Return what to encode with at a level in 0..1."""
        best, worst = self._config.quality, self._config.min_quality
        share = min(1.0, max(0.0, (level - SCALE_BELOW) / (1 - SCALE_BELOW)))
        lower, upper = self._scale_at(level - HYSTERESIS), self._scale_at(level + HYSTERESIS)
        self._scale = min(upper, max(lower, self._scale))
        return Rung(round(worst + (best - worst) * share), self._scale)

    def _scale_at(self, level: float) -> float:
        smallest = self._config.min_scale
        share = min(1.0, max(0.0, level / SCALE_BELOW))
        return max(smallest, round((smallest + (1 - smallest) * share) / STEP) * STEP)

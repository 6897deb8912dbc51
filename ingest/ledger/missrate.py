"""Estimate of how often the gate misses an object, from its random sample of withheld frames. Pure.

The gate sends a random sample of the frames that it would withhold. A sampled frame is a miss if it shows an object
that the last regular frame did not show: a new object, or an object that has moved by more than half its size. A
stationary object is no miss, because an earlier regular frame showed the object. Objects in earlier sampled frames do
not count as seen, because these frames would not exist without the sample. Therefore the random draw does not
influence which quiet frames are misses.

Misses come in runs: an unnoticed object is missed in every frame until a regular frame is sent. Frames are drawn
independently, so the confidence interval of the rate is still valid.

Two kinds of error are not measured. The model itself may overlook an object. A pipeline that classifies
only moving regions classifies nothing in a frame without motion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingest.contract.identity import is_replay
from ingest.contract.records import Detection, Result

CERTAIN = 0.5
"""Minimum score of an object. Below this score, a detector finds an object in one frame and loses it in the next."""
SAME = 0.5
"""Minimum intersection over union of two boxes of one object that has hardly moved."""
_Z_95 = 1.959964
"""Standard deviations around the mean that hold 95 % of a normal distribution."""
_LOOKED_AT = ("still", "masked")
"""Withheld reasons of frames that the gate inspected. The random sample is drawn from frames with these reasons."""


@dataclass
class MissRate:
    """The miss rate of one camera's gate, measured with one pipeline.

    ``quiet`` counts the frames in which the gate saw no motion, ``sampled`` the quiet frames that were sent as the
    sample and classified, and ``missed`` the sampled frames that showed a new object.
    """

    quiet: int = 0
    sampled: int = 0
    missed: int = 0

    @property
    def rate(self) -> float | None:
        """Share of quiet frames that show a new object, 0..1; None without a classified sample."""
        return self.missed / self.sampled if self.sampled else None

    @property
    def bounds(self) -> tuple[float, float]:
        """95 % confidence interval of the rate."""
        return wilson(self.missed, self.sampled)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        low, high = self.bounds
        return {**vars(self), "rate": self.rate, "low": low, "high": high}


@dataclass
class MissCounter:
    """Miss rates by camera and pipeline. ``hidden`` returns whether a detection is behind a mask."""

    hidden: Callable[[Result, Detection], bool]
    rates: dict[tuple[str, str], MissRate] = field(default_factory=dict)
    _sent: dict[tuple[str, str, str], Result] = field(default_factory=dict)
    _last: dict[tuple[str, str, str], Result] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Add the next result. The results of each camera must be added in the order of their frames."""
        if is_replay(result.lane):
            return
        rate = self.rates.setdefault((result.camera, result.pipeline), MissRate())
        rate.quiet += sum(result.withheld.get(reason, 0) for reason in _LOOKED_AT) + result.sampled
        key = (result.camera, result.pipeline, result.lane)
        last, self._last[key] = self._last.get(key), result
        if last is None or not _follows(result, last):
            self._sent.pop(key, None)
        if not result.sampled:
            self._sent[key] = result
        elif result.outcome == "classified" and key in self._sent and self._sent[key].outcome == "classified":
            rate.sampled += 1
            shown = [found for found in result.detections if not self.hidden(result, found)]
            rate.missed += shows_new_object(shown, self._sent[key].detections)


def _follows(result: Result, last: Result) -> bool:
    """Return whether no frame between two results was sent on the other lane or became a dead letter."""
    return result.epoch == last.epoch and result.seq - last.seq - 1 <= sum(result.withheld.values())


def shows_new_object(now: Sequence[Detection], before: Sequence[Detection]) -> bool:
    """Return whether a detection with a score of at least ``CERTAIN`` has no counterpart in the previous frame.

    The counterpart may have any score. Labels are not compared, because models often give a small vehicle different
    labels in two frames.
    """
    return any(found.score >= CERTAIN and all(found.box.iou(other.box) < SAME for other in before) for found in now)


def wilson(hits: int, trials: int, z: float = _Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a rate with ``hits`` in ``trials``; 0..1 without any trial.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927). This
    interval is valid for few trials and for rates near 0, where the interval of the normal approximation has no
    width.
    """
    if not trials:
        return 0.0, 1.0
    rate, spread = hits / trials, z * z / trials
    middle = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)

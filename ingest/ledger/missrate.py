"""Estimate of how often an agent's motion gate misses an object, from a random sample of withheld frames. Pure.

The gate sends a random sample of the frames that it would withhold. A sampled frame counts as a miss if it shows an
object that is new or has moved by more than half its size since the last regular frame. A stationary object does not
make a frame a miss, because the last regular frame showed the object. A sampled frame is never compared with an
earlier sampled frame, because the earlier frame would not have been sent without the sampling. Comparing only with
regular frames ensures that the random draw does not influence which withheld frames are misses.

Misses come in groups, because an object that the gate overlooks is missed in every frame until the next regular
frame. The confidence interval of the miss rate is valid nevertheless, because frames are drawn independently.

The miss rate does not include objects that the model itself overlooks. The miss rate cannot be measured with a
pipeline that classifies only moving regions, because such a pipeline classifies nothing in a frame without motion.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingest.contract.identity import is_replay
from ingest.contract.records import Detection, Result

CERTAIN = 0.5
"""Minimum score of a detection that can count as a missed object. Detections with a lower score are unstable: a
detector often reports an object with a low score in one frame and not in the next."""
SAME = 0.5
"""Minimum intersection over union at which two boxes count as the same object."""
_Z_95 = 1.959964
"""Half-width of the interval around the mean that contains 95 % of a normal distribution, in standard deviations."""
_LOOKED_AT = ("still", "masked")
"""Reasons for withholding a frame after the gate has examined the frame. The random sample is drawn from frames that
the gate examined and withheld."""


@dataclass
class MissRate:
    """The miss rate of one camera's motion gate, measured with one pipeline.

    ``quiet`` counts the frames in which the gate saw no motion. ``sampled`` counts the frames without motion that
    were drawn at random, sent and classified. ``missed`` counts the sampled frames that showed a new object.
    """

    quiet: int = 0
    sampled: int = 0
    missed: int = 0

    @property
    def rate(self) -> float | None:
        """Share of frames without motion that show a new object, 0..1; None if no sampled frame was classified."""
        return self.missed / self.sampled if self.sampled else None

    @property
    def bounds(self) -> tuple[float, float]:
        """95 % confidence interval of the miss rate: (lower bound, upper bound), 0..1."""
        return wilson(self.missed, self.sampled)

    def to_dict(self) -> dict[str, Any]:
        """Return a dict of plain values that can be written as JSON."""
        low, high = self.bounds
        return {**vars(self), "rate": self.rate, "low": low, "high": high}


@dataclass
class MissCounter:
    """Counts misses by camera and pipeline. ``hidden`` returns whether a detection lies in a masked area."""

    hidden: Callable[[Result, Detection], bool]
    rates: dict[tuple[str, str], MissRate] = field(default_factory=dict)
    _sent: dict[tuple[str, str, str], Result] = field(default_factory=dict)
    _last: dict[tuple[str, str, str], Result] = field(default_factory=dict)

    def add(self, result: Result) -> bool:
        """Count one result, and return whether the motion gate would have missed the frame.

        The caller must add the results of each camera in the order of the frames.
        """
        if is_replay(result.lane):
            return False
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
            missed = shows_new_object(shown, self._sent[key].detections)
            rate.missed += missed
            return missed
        return False


def _follows(result: Result, last: Result) -> bool:
    """Return whether all frames between two results of a lane were withheld.

    A frame between two results that was not withheld was sent on another lane or became a dead letter.
    """
    return result.epoch == last.epoch and result.seq - last.seq - 1 <= sum(result.withheld.values())


def shows_new_object(now: Sequence[Detection], before: Sequence[Detection]) -> bool:
    """Return whether the present frame has a detection that matches no detection of the last regular frame.

    Only a detection with a score of at least ``CERTAIN`` counts as new, but a match in the last regular frame may
    have any score. Two detections match if their intersection over union is at least ``SAME``. Labels are not
    compared, because models often give a small vehicle different labels in two frames.
    """
    return any(found.score >= CERTAIN and all(found.box.iou(other.box) < SAME for other in before) for found in now)


def wilson(hits: int, trials: int, z: float = _Z_95) -> tuple[float, float]:
    """Return the Wilson score interval of a rate, for ``hits`` in ``trials``; (0, 1) if there are no trials.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927). The Wilson
    score interval is valid for few trials and for rates near 0, where the normal approximation gives an interval
    without width.
    """
    if not trials:
        return 0.0, 1.0
    rate, spread = hits / trials, z * z / trials
    middle = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)

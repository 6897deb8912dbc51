"""What the gates of cameras miss, by the random sample of withheld frames that they send all the same. Pure.

A sampled frame is a miss if it shows an object that the last frame that was sent for its own sake did not: one that
is new, or has moved by more than half of itself. An object that stands still was seen before, and needs no other
frame. Other frames of the sample do not count as seen: without the sample nobody would have them. So each quiet
frame is a miss or is none, whichever are drawn. As each is drawn by itself, the interval of a share is right
although misses come in rows: an object that came unseen and stays is missed in every frame, until one is sent. What
the model itself does not see is no part of this, and neither is what pipelines do not look at: those that look at
moving regions only have nothing to look at in a frame in which nothing moved.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingest.contract.identity import is_replay
from ingest.contract.records import Detection, Result

CERTAIN = 0.5
"""An object that a detector is less certain of comes and goes from frame to frame."""
SAME = 0.5
"""Of two boxes, what they share of both together, from which on they are one object that has hardly moved."""
_Z_95 = 1.959964
"""Of a normal distribution, 95 % lie within so many standard deviations."""
_LOOKED_AT = ("still", "masked")
"""Reasons of the gate's that are judgements: these frames were looked at, and the sample is drawn from them."""


@dataclass
class MissRate:
    """What is known of one camera's gate through one pipeline.

    ``quiet`` are the frames in which the gate saw nothing move, ``sampled`` those of them that were sent as the
    sample and classified, ``missed`` those of these that showed something new.
    """

    quiet: int = 0
    sampled: int = 0
    missed: int = 0

    @property
    def rate(self) -> float | None:
        """The share of quiet frames that show something new; None when no sample was looked at."""
        return self.missed / self.sampled if self.sampled else None

    @property
    def bounds(self) -> tuple[float, float]:
        """Between what the rate lies, in 95 of 100 samples."""
        return wilson(self.missed, self.sampled)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        low, high = self.bounds
        return {**vars(self), "rate": self.rate, "low": low, "high": high}


@dataclass
class MissCounter:
    """Takes results of each camera in their order. ``hidden`` tells of detections that are behind a mask."""

    hidden: Callable[[Result, Detection], bool]
    rates: dict[tuple[str, str], MissRate] = field(default_factory=dict)
    _sent: dict[tuple[str, str, str], Result] = field(default_factory=dict)
    _last: dict[tuple[str, str, str], Result] = field(default_factory=dict)

    def add(self, result: Result) -> None:
        """Take the next result."""
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
            rate.missed += has_news(shown, self._sent[key].detections)


def _follows(result: Result, last: Result) -> bool:
    """Tell whether no frame between two of one lane was sent: on the other lane, or to the dead letters."""
    return result.epoch == last.epoch and result.seq - last.seq - 1 <= sum(result.withheld.values())


def has_news(now: Sequence[Detection], before: Sequence[Detection]) -> bool:
    """Tell whether a detection of which the model is certain has no counterpart before, however uncertain.

    Labels are not compared: models change their mind about what a small vehicle is.
    """
    return any(found.score >= CERTAIN and all(found.box.iou(other.box) < SAME for other in before) for found in now)


def wilson(hits: int, trials: int, z: float = _Z_95) -> tuple[float, float]:
    """Return between what a rate lies of which ``hits`` were seen in ``trials``; all there is when there were none.

    E. B. Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927): right for
    few trials and rates near 0 too, where the usual interval has no width.
    """
    if not trials:
        return 0.0, 1.0
    rate, spread = hits / trials, z * z / trials
    middle = (rate + spread / 2) / (1 + spread)
    half = z * math.sqrt(rate * (1 - rate) / trials + spread / (4 * trials)) / (1 + spread)
    return max(0.0, middle - half), min(1.0, middle + half)

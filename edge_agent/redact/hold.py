"""Boxes stay for a while after what they cover is not found again. Pure; time comes with the frame.

A detector misses a face in single frames, when it turns or blurs. One frame that shows it is enough to recognise
somebody, so a box is kept where it was last, and is widened meanwhile, since what it covers goes on moving.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ingest.contract.records import Box

SURE_SHARE = 0.5
"""Of the score that a new box needs: so much is enough for one that continues a box (as in ByteTrack, ECCV 2022)."""
DRIFT_PER_S = 1.0
"""How much a held box is widened on each side, in its own sizes a second: a face 0.2 m wide walks 1.4 m/s, which is
7 a second across, but is missed for a few tenths of a second and is mostly on its way to or from the camera."""
_MAX_DRIFT = 1.0
_SAME_OVERLAP = 0.1
"""Intersection over the smaller area: a face moves by less than its own width between two frames."""


@dataclass(frozen=True, slots=True)
class Found:
    """A box that a detector found, in pixels of the frame, with its score in 0..1."""

    box: Box
    score: float


@dataclass(frozen=True, slots=True)
class Held:
    """A box to redact. ``seen_ns`` is when it was found last; ``held`` that this was in an earlier frame."""

    box: Box
    seen_ns: int
    held: bool


class Hold:
    """The boxes of one kind in the frames of one camera, in order."""

    def __init__(self, min_score: float, hold_s: float) -> None:
        self._min_score, self._hold_ns = min_score, hold_s * 1e9
        self._boxes: list[Held] = []

    @property
    def least_score(self) -> float:
        """What is found with less than this is never looked at."""
        return self._min_score * SURE_SHARE

    def step(self, found: Sequence[Found], at_ns: int) -> list[Held]:
        """Return what to redact in a frame in which ``found`` was found, with scores from ``least_score`` on."""
        fresh = [
            Held(f.box, at_ns, False)
            for f in found
            if f.score >= self._min_score or any(f.box.overlap(old.box) >= _SAME_OVERLAP for old in self._boxes)
        ]
        missed = [
            Held(old.box, old.seen_ns, True)
            for old in self._boxes
            if abs(at_ns - old.seen_ns) <= self._hold_ns
            and not any(old.box.overlap(new.box) >= _SAME_OVERLAP for new in fresh)
        ]
        self._boxes = fresh + missed
        return [Held(self._drifted(b, at_ns), b.seen_ns, b.held) for b in self._boxes]

    def _drifted(self, held: Held, at_ns: int) -> Box:
        return held.box.widened(min(_MAX_DRIFT, DRIFT_PER_S * abs(at_ns - held.seen_ns) / 1e9))

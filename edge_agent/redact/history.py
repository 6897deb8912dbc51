"""History of detected boxes, which stay covered for a while after the last detection.

Pure: the module reads no clock, because the caller passes the capture time of each frame.

A detector may miss a face for some frames while the face turns or is blurred. One frame with an uncovered face is
enough to recognise a person. A box that is no longer detected therefore stays covered at its last position, and
widens because the face may move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingest.contract.records import Box

SURE_SHARE = 0.5
"""A detected box that overlaps a box of an earlier frame needs only this share of the minimum score (as in ByteTrack,
ECCV 2022)."""
DRIFT_PER_S = 1.0
"""Speed at which a box that is no longer detected widens on each side, in box sizes a second. The face of a person
who walks past the camera moves by seven face widths a second. One box size a second is enough, because most people
walk towards or away from the camera, and a face is missed for only tenths of a second."""
_MAX_DRIFT = 1.0
_SAME_OVERLAP = 0.1
"""Minimum overlap at which two boxes count as the same face: area of the intersection divided by the area of the
smaller box. The boxes of a face in two successive frames overlap, because the face moves by less than its own
width."""


@dataclass(frozen=True, slots=True)
class ScoredBox:
    """Box found by a detector, in pixels of the frame, with its score in 0..1."""

    box: Box
    score: float


@dataclass(frozen=True, slots=True)
class CoveredBox:
    """Box to obscure.

    ``seen_ns`` is the capture time in ns of the last frame in which the box was detected. ``held`` is true if the box
    was not detected in the current frame.
    """

    box: Box
    seen_ns: int
    held: bool


class BoxHistory:
    """Recently detected boxes of one kind (faces or plates) in the frames of one camera.

    The caller passes the boxes of each frame in the order of capture. ``grow`` is the margin on each side of a
    covered box, as a share of the box's size.
    """

    def __init__(self, min_score: float, hold_s: float, grow: float) -> None:
        self._min_score, self._hold_ns, self._grow = min_score, hold_s * 1e9, grow
        self._boxes: list[CoveredBox] = []

    @property
    def min_score(self) -> float:
        """Score below which a detected box has no effect, even if the box overlaps a box of an earlier frame."""
        return self._min_score * SURE_SHARE

    def step(self, found: Sequence[ScoredBox], at_ns: int) -> list[CoveredBox]:
        """Return the boxes to cover in a frame, given the boxes that were detected in the frame (``found``).

        Each box in ``found`` must have a score of at least ``min_score``.
        """
        fresh = [
            CoveredBox(f.box, at_ns, False)
            for f in found
            if f.score >= self._min_score or any(f.box.overlap(old.box) >= _SAME_OVERLAP for old in self._boxes)
        ]
        missed = [
            CoveredBox(old.box, old.seen_ns, True)
            for old in self._boxes
            if abs(at_ns - old.seen_ns) <= self._hold_ns
            and not any(old.box.overlap(new.box) >= _SAME_OVERLAP for new in fresh)
        ]
        self._boxes = fresh + missed
        drifts = [min(_MAX_DRIFT, DRIFT_PER_S * abs(at_ns - known.seen_ns) / 1e9) for known in self._boxes]
        return [
            replace(known, box=known.box.widened(drift).widened(self._grow))
            for known, drift in zip(self._boxes, drifts, strict=True)
        ]

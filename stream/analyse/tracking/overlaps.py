"""Reduce the detections of a frame to one per object. Pure.

A detector that suppresses overlapping boxes of one class only reports a van as a car and as a truck. Two detections
of one object would become two tracks, and the object would cross a line twice.
"""

from __future__ import annotations

from ingest.contract.records import Box, Detection, Result

ONE_OBJECT = 0.7
"""Minimum intersection over union of two boxes that count as one object. A detector's boxes of one vehicle as two
classes differ by a few per cent on each side; a rider and the bicycle share half of their boxes."""


def one_per_object(result: Result) -> tuple[Detection, ...]:
    """Return the detections of a result without duplicates.

    Of several detections of one object, keep the one with the highest score. Keep all labels that a classifier gives
    to one region, because these labels are not exclusive.
    """
    if len(result.detections) < 2:
        return result.detections
    regions = {box.clipped(result.width, result.height) for box in result.looked_at}
    kept: list[Detection] = []
    for one in sorted(result.detections, key=lambda detection: -detection.score):
        if one.box in regions or not any(_overlap(one.box, other.box) >= ONE_OBJECT for other in kept):
            kept.append(one)
    chosen = set(map(id, kept))
    return tuple(one for one in result.detections if id(one) in chosen)


def _overlap(one: Box, other: Box) -> float:
    shared = one.shared(other)
    return shared / (one.area + other.area - shared) if shared > 0.0 else 0.0

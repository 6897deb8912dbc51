"""Reduce the detections of a frame to one detection per object. Pure.

Many detectors suppress overlapping boxes only within one class, and thus report one van both as a car and as a truck.
Two detections of one object would become two tracks, and the object would cross a line twice.
"""

from __future__ import annotations

from ingest.contract.records import Detection, Result

ONE_OBJECT = 0.7
"""Minimum intersection over union of two boxes that count as one object. If a detector reports one vehicle as two
classes, the two boxes differ by a few per cent on each side. The boxes of a bicycle and its rider, which are two
objects, overlap only by half."""


def one_per_object(result: Result) -> tuple[Detection, ...]:
    """Return the detections of a result without duplicates.

    Of several detections of one object, keep the detection with the highest score. Keep all labels that a classifier
    gives to one region, because these labels are not exclusive.
    """
    if not _any_overlap(result):
        return result.detections
    regions = {box.clipped(result.width, result.height) for box in result.looked_at}
    kept: list[Detection] = []
    for one in sorted(result.detections, key=lambda detection: -detection.score):
        if one.box in regions or not any(one.box.iou(other.box) >= ONE_OBJECT for other in kept):
            kept.append(one)
    chosen = set(map(id, kept))
    return tuple(one for one in result.detections if id(one) in chosen)


def _any_overlap(result: Result) -> bool:
    """Return whether two detections of a result may show one object, as in few frames."""
    boxes = sorted([one.box for one in result.detections])
    for number, box in enumerate(boxes, 1):
        for other in boxes[number:]:
            if other.left >= box.right:
                break  # the boxes after it are even further to the right
            if box.iou(other) >= ONE_OBJECT:
                return True
    return False

"""Reduce the detections of a frame to one detection per object. Pure.

Many detectors suppress overlapping boxes only within one class, and thus report one van both as a car and as a truck.
Two detections of one object would become two tracks, and the object would cross a line twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from ingest.contract.records import Box, Detection, Result

ONE_OBJECT = 0.7
"""Minimum intersection over union of two boxes that count as one object. If a detector reports one vehicle as two
classes, the two boxes differ by a few per cent on each side. The boxes of a bicycle and its rider, which are two
objects, overlap only by half."""


def one_per_object(result: Result) -> tuple[Detection, ...]:
    """Return the detections of a result without duplicates.

    Of several detections of one object, keep the detection with the highest score. Keep all labels that a classifier
    gives to one region, because these labels are not exclusive.
    """
    found = result.detections
    same = _same_objects([one.box for one in found])
    if not same:
        return found
    regions = {box.clipped(result.width, result.height) for box in result.looked_at}
    kept: set[int] = set()
    for number in sorted(range(len(found)), key=lambda number: -found[number].score):
        if found[number].box in regions or kept.isdisjoint(same.get(number, ())):
            kept.add(number)
    return tuple(one for number, one in enumerate(found) if number in kept)


def _same_objects(boxes: Sequence[Box]) -> Mapping[int, list[int]]:
    """Return the numbers of the other boxes of the same object, by the number of each box that has such others. Most
    frames have none."""
    found: defaultdict[int, list[int]] = defaultdict(list)
    ordered = sorted((box, number) for number, box in enumerate(boxes))
    for place, (box, number) in enumerate(ordered, 1):
        for other, other_number in ordered[place:]:
            if other.left >= box.right:
                break  # the boxes after it are even further to the right
            if box.iou(other) >= ONE_OBJECT:
                found[number].append(other_number)
                found[other_number].append(number)
    return found

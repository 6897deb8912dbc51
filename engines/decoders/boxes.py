"""Functions on a detector's boxes: conversion, non-maximum suppression, and mapping to the frame.

All functions are pure.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from engines.decoders.base import DecoderOptions, FrameRegion, clipped
from ingest.contract.records import Box, Detection

MAX_DETECTIONS = 300
"""Maximum number of detections per image. The COCO evaluation uses at most 100 detections per image, and even a
crowded image shows fewer than 300 objects."""

FAR = 1e6
"""Limit to which box coordinates are clipped, in the unit of the model's output, such as px or grid cells. The limit
keeps computations with box coordinates from overflowing."""
LARGEST_LOG = 14.0
"""Limit to which the logarithm of a box's size is clipped. A size of e^14 px exceeds any image, so the limit only
prevents overflow."""

EDGE_SHARE = 0.01
"""Distance of a box from the border of its region, as a share of the region's side, below which the border cuts the
object. Detectors place the edges of a cut object within some pixels of the border."""
CUT_SHARE = 0.5
"""Minimum overlap of a cut box and another box that show the same object, as a share of the smaller box."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


def from_centres(boxes: Floats) -> Floats:
    """Convert boxes ``(…, 4)`` from (centre x, centre y, width, height) to (left, top, right, bottom)."""
    half = boxes[..., 2:4] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def likely(scores: Floats, min_score: float) -> tuple[Indices, Indices, Floats]:
    """Return the index, the best class and its score for each box whose best class scores at least ``min_score``.

    ``scores`` has the shape ``(boxes, classes)``.
    """
    classes = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), classes]
    indices = np.flatnonzero(best >= min_score)
    return indices, classes[indices], best[indices]


def likely_cells(cells: Floats, min_score: float) -> tuple[Indices, Indices, Floats]:
    """Return the index, best class and score of each grid cell whose best class scores at least ``min_score``.

    ``cells`` has the shape ``(cells, 5 + classes)``, with the objectness in column 4. The score of a class is the
    objectness times the class score, which is at most 1. Cells whose objectness is below ``min_score`` are skipped
    before their classes are read: nearly all of the 25,200 cells of a 640 px input.
    """
    sure = np.flatnonzero(cells[:, 4] >= min_score)
    indices, classes, best = likely(cells[sure, 4:5] * np.minimum(cells[sure, 5:], 1.0), min_score)
    return sure[indices], classes, best


def suppressed(
    corners: Floats, scores: Floats, classes: Indices, max_overlap: float, across_classes: bool = False
) -> list[int]:
    """Return the indices of the boxes that non-maximum suppression keeps, highest score first.

    A box is dropped if its intersection over union with a kept box exceeds ``max_overlap``. Boxes of different
    classes are compared only if ``across_classes`` is true. Boxes with equal scores are ordered by class and then by
    corners, so that the result does not depend on the order of the input. At most ``MAX_DETECTIONS`` boxes are kept.
    """
    order = np.lexsort((*corners.T[::-1], classes, -scores))
    low = corners[order, :2]
    boxes = np.concatenate([low, np.maximum(corners[order, 2:] - low, 0.0)], axis=1).tolist()
    ranks = np.arange(len(order), 0, -1).tolist()  # ranks replace scores, so that equal scores keep the order
    if across_classes:
        kept = cv2.dnn.NMSBoxes(boxes, ranks, 0.0, max_overlap)
    else:
        kept = cv2.dnn.NMSBoxesBatched(boxes, ranks, classes[order].tolist(), 0.0, max_overlap)
    return [int(i) for i in order[np.asarray(kept, np.intp).ravel()[:MAX_DETECTIONS]]]


def detections(
    corners: Floats, scores: Floats, classes: Indices, row: FrameRegion, options: DecoderOptions
) -> list[Detection]:
    """Convert boxes in px of the model's input to detections in px of the frame, in the given order.

    Boxes are clipped to the frame. Boxes that lie outside of the frame are dropped.
    """
    found = []
    for (left, top, right, bottom), score, index in zip(
        corners.tolist(), scores.tolist(), classes.tolist(), strict=True
    ):
        box = clipped(row.region.fit.to_frame(Box(left, top, right, bottom)), row)
        if box is not None:
            found.append(Detection(box=box, label=options.labels[index], class_id=index, score=min(score, 1.0)))
    return found


def one_per_object(
    rows: Sequence[FrameRegion], found: Sequence[Sequence[Detection]], options: DecoderOptions
) -> list[Detection]:
    """Return the detections of overlapping regions of one frame without repeats, highest score first.

    A detection is a repeat if its intersection over union with a better detection of its class exceeds
    ``max_overlap``. The border of a region cuts the boxes of objects that reach beyond the region. A box that the
    border of its region cuts ranks after all whole boxes, and is a repeat if half of it lies in a better box.
    ``found`` has for each region in ``rows`` its detections.
    """
    ranked = sorted(
        ((_is_cut(one.box, row), -one.score, one) for row, each in zip(rows, found, strict=True) for one in each),
        key=lambda entry: entry[:2],
    )
    kept: list[Detection] = []
    for cut, _, one in ranked:
        rivals = [other for other in kept if options.across_classes or other.class_id == one.class_id]
        if not any(_repeats(one.box, other.box, options.max_overlap, cut=cut) for other in rivals):
            kept.append(one)
    return sorted(kept, key=lambda detection: -detection.score)


def _repeats(box: Box, better: Box, max_overlap: float, *, cut: bool) -> bool:
    return box.iou(better) > max_overlap or (cut and box.overlap(better) >= CUT_SHARE)


def _is_cut(box: Box, row: FrameRegion) -> bool:
    """Return whether a box reaches an edge of its region that is not an edge of the frame."""
    region = row.region.box
    x, y = region.width * EDGE_SHARE, region.height * EDGE_SHARE
    return (
        (box.left <= region.left + x and region.left > 0.0)
        or (box.top <= region.top + y and region.top > 0.0)
        or (box.right >= region.right - x and region.right < row.frame_width)
        or (box.bottom >= region.bottom - y and region.bottom < row.frame_height)
    )


def best_boxes(corners: Floats, scores: Floats, row: FrameRegion, options: DecoderOptions) -> list[Detection]:
    """Return the detections of one image from all its boxes and scores, after non-maximum suppression.

    ``corners`` has the shape ``(boxes, 4)`` and is in px of the model's input. ``scores`` has the shape ``(boxes,
    classes)``.
    """
    indices, classes, best = likely(scores, options.min_score)
    return kept_boxes(corners[indices], best, classes, row, options)


def kept_boxes(
    corners: Floats, scores: Floats, classes: Indices, row: FrameRegion, options: DecoderOptions
) -> list[Detection]:
    """Apply non-maximum suppression to boxes in px of the model's input, and return the kept boxes as detections."""
    if not scores.size:
        return []
    kept = suppressed(corners, scores, classes, options.max_overlap, options.across_classes)
    return detections(corners[kept], scores[kept], classes[kept], row, options)

"""Functions on a detector's boxes: conversion, non-maximum suppression, and mapping to the frame.

All functions are pure.
"""

from __future__ import annotations

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
prevents overflow."""
LARGEST_LOG = 14.0
"""Limit to which the logarithm of a box's size is clipped. A size of e^14 px exceeds any image, so the limit only
prevents overflow."""

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
    objectness times the class score, which is at most 1. Cells whose objectness is below ``min_score`` are therefore
    skipped, which are nearly all of the 25,200 cells of a 640 px input.
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

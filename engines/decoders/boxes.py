"""Boxes of a detector: conversion, non-maximum suppression, and detections in the frame. Pure."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from engines.decoders.base import DecoderOptions, FrameRegion, clipped
from ingest.contract.records import Box, Detection

MAX_DETECTIONS = 300
"""Maximum number of detections per image. A COCO evaluation uses at most 100, and a crowded image has fewer than 300
objects."""

FAR = 1e6
"""Maximum distance of a box from the image, in the unit of the output, such as px or grid cells. Prevents
overflow."""
LARGEST_LOG = 14.0
"""Maximum logarithm of a box's size, which lies beyond any image and prevents overflow."""

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]


def from_centres(boxes: Floats) -> Floats:
    """Convert boxes ``(…, 4)`` of centre x, centre y, width, height to left, top, right, bottom."""
    half = boxes[..., 2:4] / 2
    return np.concatenate([boxes[..., :2] - half, boxes[..., :2] + half], axis=-1)


def likely(scores: Floats, min_score: float) -> tuple[Indices, Indices, Floats]:
    """Return the boxes whose best class has a score of at least ``min_score``: their indices, classes and scores.

    ``scores`` is ``(boxes, classes)``.
    """
    classes = scores.argmax(axis=1)
    best = scores[np.arange(len(scores)), classes]
    indices = np.flatnonzero(best >= min_score)
    return indices, classes[indices], best[indices]


def likely_cells(cells: Floats, min_score: float) -> tuple[Indices, Indices, Floats]:
    """Return the grid cells whose best class has a score of at least ``min_score``: indices, classes and scores.

    ``cells`` is ``(cells, 5 + classes)``, with the objectness in column 4. A score is the objectness times a class
    score of at most 1. Cells with a low objectness are therefore skipped: nearly all of the 25,200 cells of a 640 px
    input.
    """
    sure = np.flatnonzero(cells[:, 4] >= min_score)
    indices, classes, best = likely(cells[sure, 4:5] * np.minimum(cells[sure, 5:], 1.0), min_score)
    return sure[indices], classes, best


def suppressed(
    corners: Floats, scores: Floats, classes: Indices, max_overlap: float, across_classes: bool = False
) -> list[int]:
    """Return the indices of the boxes that non-maximum suppression keeps, highest score first.

    A box is dropped if its intersection over union with a kept box exceeds ``max_overlap``. Boxes of different
    classes are compared only if ``across_classes`` is true. The kept boxes do not depend on the order of the input:
    between equal scores, the class and then the corners decide. At most ``MAX_DETECTIONS`` boxes are kept.
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
    """Return the detections of boxes in px of the model's input, in the given order.

    Boxes are mapped to the frame and clipped. Boxes without area in the frame are dropped.
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
    """Return the detections of one image after non-maximum suppression.

    ``corners`` is ``(boxes, 4)`` in px of the model's input, ``scores`` is ``(boxes, classes)``.
    """
    indices, classes, best = likely(scores, options.min_score)
    return kept_boxes(corners[indices], best, classes, row, options)


def kept_boxes(
    corners: Floats, scores: Floats, classes: Indices, row: FrameRegion, options: DecoderOptions
) -> list[Detection]:
    """Return the detections of boxes in px of the model's input after non-maximum suppression."""
    if not scores.size:
        return []
    kept = suppressed(corners, scores, classes, options.max_overlap, options.across_classes)
    return detections(corners[kept], scores[kept], classes[kept], row, options)

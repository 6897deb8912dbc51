"""Decoders in plain loops over single numbers, written independently of the product's code, to compare results.

Each function takes the arrays of one image and returns candidates: corners in px of the input and a score for each
label. ``finish`` selects, suppresses and clips the candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

Corners = tuple[float, float, float, float]
Candidates = list[tuple[Corners, list[float]]]
Found = list[tuple[Corners, int, float]]
Arrays = Mapping[str, np.ndarray]


def iou(a: Corners, b: Corners) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)


def greedy(found: Found, limit: float, across_classes: bool) -> Found:
    """Keep each box, best first, that overlaps no kept box by more than ``limit``."""
    kept: Found = []
    for box in sorted(found, key=lambda one: (-one[2], one[1], one[0])):
        rivals = [other for other in kept if across_classes or other[1] == box[1]]
        if all(iou(box[0], other[0]) <= limit for other in rivals):
            kept.append(box)
    return kept


def finish(
    candidates: Candidates, labels: Sequence[str], size: tuple[int, int], *, nms: bool = True, across: bool = False
) -> Found:
    """Return the boxes that score at least 0.3, after suppression of overlaps above 0.45, clipped to the input."""
    found: Found = []
    for corners, scores in candidates:
        best, score = -1, -1.0
        for index, value in enumerate(scores):
            if labels[index] != "background" and value > score:
                best, score = index, value
        if score >= np.float32(0.3):
            found.append((corners, best, score))
    kept = greedy(found, 0.45, across) if nms else sorted(found, key=lambda one: -one[2])
    clipped = [((max(0, b[0]), max(0, b[1]), min(size[0], b[2]), min(size[1], b[3])), c, s) for b, c, s in kept]
    return [one for one in clipped if one[0][2] > one[0][0] and one[0][3] > one[0][1]][:300]


def around(x: float, y: float, width: float, height: float) -> Corners:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softmax(values: Sequence[float]) -> list[float]:
    parts = [math.exp(v) for v in values]
    return [part / sum(parts) for part in parts]


def yolox(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    found: Candidates = []
    rows = iter(arrays["output"].tolist())
    for stride in (8, 16, 32):
        for line in range(size[1] // stride):
            for column in range(size[0] // stride):
                x, y, width, height, sure, *scores = next(rows)
                box = around(
                    (x + column) * stride, (y + line) * stride, math.exp(width) * stride, math.exp(height) * stride
                )
                found.append((box, [sure * score for score in scores]))
    return found


def yolov5(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    return [(around(*row[:4]), [row[4] * score for score in row[5:]]) for row in arrays["output"].tolist()]


def yolov8(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    table = arrays["output"].tolist()
    found: Candidates = []
    for cell in range(len(table[0])):
        column = [line[cell] for line in table]
        found.append((around(*column[:4]), column[4:]))
    return found


def corners(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    w, h = size
    pairs = zip(arrays["boxes"].tolist(), arrays["scores"].tolist(), strict=True)
    return [((b[0] * w, b[1] * h, b[2] * w, b[3] * h), scores) for b, scores in pairs]


def corners_px(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    pairs = zip(arrays["boxes"].tolist(), arrays["scores"].tolist(), strict=True)
    return [((b[0], b[1], b[2], b[3]), scores) for b, scores in pairs]


def centres(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    w, h = size
    pairs = zip(arrays["boxes"].tolist(), arrays["scores"].tolist(), strict=True)
    return [(around(b[0] * w, b[1] * h, b[2] * w, b[3] * h), scores) for b, scores in pairs]


PRIORS: dict[int, list[Any]] = {16: [20, (30, 10)], 32: [40]}


def ssd_offsets(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    """Decode offsets from ``PRIORS`` with the variances 0.1 and 0.2; the scores are logits of a softmax."""
    w, h = size
    rows = iter(zip(arrays["boxes"].tolist(), arrays["scores"].tolist(), strict=True))
    found: Candidates = []
    for stride, sides in PRIORS.items():
        lines, columns = math.ceil(h / stride), math.ceil(w / stride)
        for line in range(lines):
            for column in range(columns):
                for side in sides:
                    wide, high = side if isinstance(side, tuple) else (side, side)
                    wide, high = min(w, wide), min(h, high)
                    (dx, dy, dw, dh), logits = next(rows)
                    x = (column + 0.5) / columns * w + dx * 0.1 * wide
                    y = (line + 0.5) / lines * h + dy * 0.1 * high
                    box = around(x, y, wide * math.exp(0.2 * dw), high * math.exp(0.2 * dh))
                    found.append((box, softmax(logits)))
    return found


def detr(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    return [(box, softmax(logits)) for box, logits in centres(arrays, size)]


def rtdetr(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    return [(box, [sigmoid(v) for v in logits]) for box, logits in centres(arrays, size)]


def rtdetr_table(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    table = arrays["output"]
    return centres({"boxes": table[:, :4], "scores": table[:, 4:]}, size)


def end2end(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    found: Candidates = []
    for *box, score, index in arrays["output"].tolist():
        scores = [0.0, 0.0, 0.0]
        scores[int(index)] = score
        found.append(((box[0], box[1], box[2], box[3]), scores))
    return found


def end2end_parts(arrays: Arrays, size: tuple[int, int]) -> Candidates:
    """Decode TensorFlow's four outputs: top, left, bottom, right as shares, in another order than TensorRT's."""
    w, h = size
    found: Candidates = []
    for row in range(int(arrays["num_detections"][0])):
        top, left, bottom, right = arrays["detection_boxes"][row].tolist()
        scores = [0.0, 0.0, 0.0]
        scores[int(arrays["detection_classes"][row])] = float(arrays["detection_scores"][row])
        found.append(((left * w, top * h, right * w, bottom * h), scores))
    return found


Reference = Callable[[Arrays, tuple[int, int]], Candidates]

"""The moving parts of a picture: pixels joined to regions. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.gate.background import Moving

Labels = npt.NDArray[np.int32]

_MIN_SIDE_PX = 2
"""Of the small picture: a line of single pixels is rain, or the edge of a shadow."""
SURE_SHARE = 0.5
"""Of the smallest part that counts, so much has to differ surely: the edge of a sign that trembles hardly does."""
_SMALL = 3.0
"""Times the smallest part that counts: drops and streaks of rain join to that much."""
_NEAR = np.ones((5, 5), np.uint8)
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
"""Joins the parts of one object: a roof in the colour of the road splits a car."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """What moves in a small picture.

    ``labels`` is ``(height, width)`` int32, 0 where nothing differs. ``areas`` is in pixels, by label, 0 for a part
    that does not count. ``rectangles`` are left, top, width and height of those that do, largest first.
    """

    labels: Labels
    areas: Labels
    rectangles: tuple[tuple[int, int, int, int], ...]


def join(moving: Moving, least_px: float, before: Parts | None) -> Parts:
    """Join pixels that differ to parts. A part counts if it has at least so many pixels and they surely differ.

    A small one has to touch what differed in the picture ``before``, too: rain falls elsewhere each time.
    """
    whole = cv2.morphologyEx(cv2.medianBlur(moving.differs, 3), cv2.MORPH_CLOSE, _CLOSE)
    # Grana's is the fastest of OpenCV's algorithms at this size, by more than half
    found = cv2.connectedComponentsWithStatsWithAlgorithm(whole, 8, cv2.CV_32S, cv2.CCL_GRANA)
    labels, stats = np.asarray(found[1], np.int32), found[2]
    areas = stats[:, cv2.CC_STAT_AREA].astype(np.int32)
    areas[0] = 0  # what does not move
    sides = stats[:, (cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT)].min(axis=1)
    sure = np.bincount(labels[moving.surely.view(np.bool_)], minlength=len(areas))
    areas[(areas < least_px) | (sides < _MIN_SIDE_PX) | (sure < SURE_SHARE * least_px)] = 0
    small = (areas > 0) & (areas < _SMALL * least_px)
    if small.any():
        areas[small & ~_touching(labels, before, len(areas))] = 0
    order = np.argsort(-areas, kind="stable")[: np.count_nonzero(areas)]
    return Parts(labels, areas, tuple((x, y, width, height) for x, y, width, height, _ in stats[order].tolist()))


def _touching(labels: Labels, before: Parts | None, count: int) -> npt.NDArray[np.bool_]:
    """Tell, by label, what is next to something that differed before."""
    if before is None or before.labels.shape != labels.shape:
        return np.zeros(count, np.bool_)
    near = cv2.dilate((before.labels > 0).view(np.uint8), _NEAR)
    return np.bincount(labels[near.view(np.bool_)], minlength=count) > 0

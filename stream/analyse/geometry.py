"""Geometry of points, lines and polygons in a picture: x to the right, y downwards, in pixels. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ingest.contract.records import Point


def distance_px(start: Point, end: Point, point: Point) -> float:
    """Return the distance of a point from the infinite line through start and end, positive on the line's right.

    Right and left are seen from the start, looking towards the end.
    """
    along = end[0] - start[0], end[1] - start[1]
    towards = point[0] - start[0], point[1] - start[1]
    return (along[0] * towards[1] - along[1] * towards[0]) / math.hypot(*along)


def crosses(start: Point, end: Point, before: Point, after: Point) -> bool:
    """Return whether the path from one point to another meets the finite line, including its ends.

    The points must be on different sides of the infinite line.
    """
    a, b = distance_px(start, end, before), distance_px(start, end, after)
    share = a / (a - b)
    meeting = before[0] + share * (after[0] - before[0]), before[1] + share * (after[1] - before[1])
    along = end[0] - start[0], end[1] - start[1]
    position = (meeting[0] - start[0]) * along[0] + (meeting[1] - start[1]) * along[1]
    return -1e-9 <= position / (along[0] ** 2 + along[1] ** 2) <= 1.0 + 1e-9


def inside(polygon: Sequence[Point], point: Point) -> bool:
    """Return whether a point is in a polygon, by the even-odd rule (Shimrat, CACM 1962)."""
    x, y = point
    found = False
    for (ax, ay), (bx, by) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if (ay > y) != (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax:
            found = not found
    return found

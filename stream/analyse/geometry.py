"""Geometry of points, lines and polygons in a picture, and conversion between picture sizes. Pure.

Coordinates are in pixels, x to the right, y downwards.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from ingest.contract.records import Box, Detection, Point


def distance_px(start: Point, end: Point, point: Point) -> float:
    """Return the distance in pixels of a point from the infinite line through ``start`` and ``end``, positive to the
    right of the line.

    Right and left are as seen by an observer at ``start`` who looks towards ``end`` in the picture.
    """
    along = end[0] - start[0], end[1] - start[1]
    towards = point[0] - start[0], point[1] - start[1]
    return (along[0] * towards[1] - along[1] * towards[0]) / math.hypot(*along)


def crosses(start: Point, end: Point, before: Point, after: Point) -> bool:
    """Return whether the straight path from ``before`` to ``after`` meets the finite line from ``start`` to ``end``,
    including its ends.

    ``before`` and ``after`` must be on different sides of the infinite line through ``start`` and ``end``.
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


class Scale(NamedTuple):
    """Factors that convert pixels of the current picture to pixels of the epoch's first picture.

    If the picture size changes during an epoch, tracks and rules keep the coordinates of the epoch's first picture.
    """

    x: float = 1.0
    y: float = 1.0

    @classmethod
    def between(cls, picture: tuple[int, int], first: tuple[int, int]) -> Scale:
        """Return the factors from pixels of ``picture`` to pixels of ``first``; each size is given as ``(width,
        height)``.

        Raise ValueError for a picture whose width or height is 0.
        """
        if not all(picture):
            raise ValueError(f"picture of {picture[0]}×{picture[1]} pixels: expected a width and a height above 0")
        return cls(first[0] / picture[0], first[1] / picture[1])

    def detections(self, found: tuple[Detection, ...]) -> tuple[Detection, ...]:
        """Convert detections from pixels of the current picture to pixels of the first picture."""
        if self == _UNCHANGED:
            return found
        return tuple(one.model_copy(update={"box": one.box.scaled(self.x, self.y)}) for one in found)

    def boxes(self, found: Iterable[Box]) -> tuple[Box, ...]:
        """Convert boxes from pixels of the current picture to pixels of the first picture."""
        return tuple(found) if self == _UNCHANGED else tuple(box.scaled(self.x, self.y) for box in found)

    def back(self, box: Box) -> Box:
        """Convert a box from pixels of the first picture to pixels of the current picture."""
        return box.scaled(1 / self.x, 1 / self.y)

    def trail_back(self, trail: Iterable[Point]) -> tuple[Point, ...]:
        """Convert points from pixels of the first picture to pixels of the current picture."""
        return tuple((x / self.x, y / self.y) for x, y in trail)


_UNCHANGED = Scale()

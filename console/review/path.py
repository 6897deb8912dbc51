"""Comparison of a path that a user has sketched with the trails of objects. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Points = Sequence[tuple[float, float]]
MAX_POINTS = 100
"""Maximum number of points of the path that a user sketches to search for objects that moved along it."""
_SKETCH_POINTS, _TRAIL_POINTS = 16, 128
"""Numbers of equidistant points to which a sketched path and an object's trail are resampled."""


def path_distance(sketch: Points, trail: Points) -> float:
    """Return the largest distance in pixels between a sketched path and the part of an object's trail that follows
    the path from its first to its last point; infinity if the path or the trail has no points.

    The trail may begin before the sketched path and end after it. The distance is the discrete Fréchet distance (Alt
    and Godau, Computing the Fréchet distance, 1995), except that both ends of the trail are free.
    """
    if not trail or not sketch:
        return math.inf
    wanted, given = _resampled(sketch, _SKETCH_POINTS), _resampled(trail, _TRAIL_POINTS)
    distances = np.hypot(*(wanted[:, None, :] - given[None, :, :]).transpose(2, 0, 1))
    reached = distances[0]
    for row in distances[1:]:
        reached = np.maximum(row, np.minimum.accumulate(reached))
    return float(reached.min())


def is_near(sketch: Points, trail: Points, near: float) -> bool:
    """Return whether a trail follows a sketched path in the direction of the sketch, within ``near`` pixels."""
    for x, y in (sketch[0], sketch[-1]):  # rejects most trails quickly
        if not trail or not (
            min(p[0] for p in trail) - near <= x <= max(p[0] for p in trail) + near
            and min(p[1] for p in trail) - near <= y <= max(p[1] for p in trail) + near
        ):
            return False
    return path_distance(sketch, trail) <= near


def _resampled(points: Points, count: int) -> npt.NDArray[np.float64]:
    """Return ``count`` points at equal distances along a path."""
    path = np.asarray(points, np.float64)
    steps = np.hypot(*np.diff(path, axis=0).T) if len(path) > 1 else np.zeros(0)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, path[:, 0]), np.interp(at, along, path[:, 1])], axis=1)

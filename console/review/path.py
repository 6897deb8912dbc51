"""Comparison of a sketched path with the trails of objects. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Points = Sequence[tuple[float, float]]
MAX_POINTS = 100
"""Maximum number of points of a sketch."""
_SKETCH_POINTS, _TRAIL_POINTS = 16, 128
"""Numbers of points with equal distances, to which a sketch and a trail are resampled."""


def path_distance(sketch: Points, trail: Points) -> float:
    """Return the largest distance between a sketch and the part of a trail that follows the sketch from its first to
    its last point; infinity for a trail without points.

    The trail may begin before the sketch and end after it. This is the discrete Fréchet distance with free ends of
    the trail, for the points of the sketch (Alt and Godau, Computing the Fréchet distance, 1995).
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
    """Return whether a trail follows a sketch in its direction, within a distance."""
    for x, y in (sketch[0], sketch[-1]):  # rejects most trails quickly
        if not trail or not (
            min(p[0] for p in trail) - near <= x <= max(p[0] for p in trail) + near
            and min(p[1] for p in trail) - near <= y <= max(p[1] for p in trail) + near
        ):
            return False
    return path_distance(sketch, trail) <= near


def _resampled(points: Points, count: int) -> npt.NDArray[np.float64]:
    """Return points with equal distances along a path."""
    path = np.asarray(points, np.float64)
    steps = np.hypot(*np.diff(path, axis=0).T) if len(path) > 1 else np.zeros(0)
    along = np.concatenate([[0.0], np.cumsum(steps)])
    at = np.linspace(0.0, along[-1], count)
    return np.stack([np.interp(at, along, path[:, 0]), np.interp(at, along, path[:, 1])], axis=1)

"""Ground plane of a camera: conversion from pixels to metres, and the speed of an object with its error. Pure.

A plane seen by a camera without lens distortion is mapped to the picture by a homography, which four pairs of points
determine (Hartley and Zisserman, Multiple View Geometry, section 4.1). Points of a camera with a configured lens are
undistorted first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np

from ingest.contract.records import Lens, Point
from ingest.site import to_pixels
from ingest.site.ground import GroundConfig

BOX_ERROR_PX = 1.5
"""Standard deviation of the lower edge of a detected box, in pixels of the picture."""


class Speed(NamedTuple):
    """Velocity on the ground in m/s, and the standard error of its magnitude in m/s."""

    x_m_s: float
    y_m_s: float
    error_m_s: float

    @property
    def m_s(self) -> float:
        """Magnitude of the velocity in m/s."""
        return math.hypot(self.x_m_s, self.y_m_s)

    @property
    def km_h(self) -> float:
        """Magnitude of the velocity in km/h."""
        return 3.6 * self.m_s


class GroundPoint(NamedTuple):
    """Position on the ground in metres at the time ``at_ns``, with the position's standard error in metres."""

    at_ns: int
    x_m: float
    y_m: float
    error_m: float


@dataclass(frozen=True, slots=True)
class GroundPlane:
    """Homography from pixels to metres, row by row. With a ``lens``, the homography is from pixels of the undistorted
    picture.

    The origin is the near left corner of the configured rectangle, x runs along its near edge and y away from the
    camera. The last row is positive for points below the horizon.
    """

    rows: tuple[float, ...]
    lens: Lens | None = None

    @classmethod
    def of(cls, config: GroundConfig, width: int, height: int, lens: Lens | None = None) -> Self:
        """Return the ground plane of a picture of ``width`` × ``height`` pixels, seen through ``lens``.

        The lens must show the corners of the configured rectangle.
        """
        w, d = config.width_m, config.length_m
        pixels = to_pixels(config.corners, width, height)
        if lens:
            pixels = tuple(point for point in map(lens.undistorted, pixels) if point)
        equations = []
        for (px, py), (x, y) in zip(pixels, ((0, 0), (w, 0), (w, d), (0, d)), strict=True):
            equations += [[px, py, 1, 0, 0, 0, -x * px, -x * py, -x], [0, 0, 0, px, py, 1, -y * px, -y * py, -y]]
        rows = np.linalg.svd(np.array(equations))[2][-1]
        above_0 = rows[6:] @ (*pixels[0], 1.0) > 0.0
        return cls(tuple((rows if above_0 else -rows).tolist()), lens)

    def to_metres(self, point: Point) -> Point | None:
        """Return the position of a point in metres; None for a point at or above the horizon, or that the lens does
        not show."""
        a, b, c, d, e, f, g, h, i = self.rows
        straight = self.lens.undistorted(point) if self.lens else point
        if straight is None:
            return None
        x, y = straight
        scale = g * x + h * y + i
        if scale <= 0.0:
            return None
        return (a * x + b * y + c) / scale, (d * x + e * y + f) / scale

    def at(self, point: Point, at_ns: int) -> GroundPoint | None:
        """Return the position of a point with its error; None for a point at or above the horizon.

        The error is that of a point whose two coordinates are wrong by ``BOX_ERROR_PX`` each.
        """
        here = self.to_metres(point)
        right, below = self.to_metres((point[0] + 1, point[1])), self.to_metres((point[0], point[1] + 1))
        if not (here and right and below):
            return None
        per_px = math.hypot(right[0] - here[0], right[1] - here[1], below[0] - here[0], below[1] - here[1])
        return GroundPoint(at_ns, *here, BOX_ERROR_PX * per_px)


def speed(points: Sequence[GroundPoint]) -> Speed | None:
    """Return the speed in m/s along a path of points: the slope of a straight line through them, by least squares
    weighted with the points' errors.

    Return None for fewer than three points, or for points of a single time. The speed's error is computed once from
    the errors of the points, and once from the distances of the points from the line; the larger result counts.
    """
    if len(points) < 3:
        return None
    start_ns = points[0].at_ns
    weights = [1.0 / max(point.error_m, 1e-6) ** 2 for point in points]
    total = sum(weights)
    times = [(point.at_ns - start_ns) / 1e9 for point in points]
    mean_s = sum(w * t for w, t in zip(weights, times, strict=True)) / total
    spread = sum(w * (t - mean_s) ** 2 for w, t in zip(weights, times, strict=True))
    if spread <= 0.0:
        return None
    slopes, residual = [], 0.0
    for values in ([point.x_m for point in points], [point.y_m for point in points]):
        mean = sum(w * v for w, v in zip(weights, values, strict=True)) / total
        slope = sum(w * (t - mean_s) * (v - mean) for w, t, v in zip(weights, times, values, strict=True)) / spread
        residual += sum(
            w * (v - mean - slope * (t - mean_s)) ** 2 for w, t, v in zip(weights, times, values, strict=True)
        )
        slopes.append(slope)
    excess = residual / max(2 * len(points) - 4, 1)
    return Speed(slopes[0], slopes[1], math.sqrt(max(1.0, excess) / spread))

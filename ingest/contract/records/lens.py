"""The lens of a camera: map points and boxes between the camera's frame and its undistorted picture. Pure.

The models are those of OpenCV ("Camera Calibration and 3D Reconstruction"): Brown's distortion (Photogrammetric
Engineering 37, 1971) and the fisheye model of Kannala and Brandt (IEEE Transactions on Pattern Analysis and Machine
Intelligence 28, 2006).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from ingest.contract.records.base import MAX_PX, Box, Coordinate, Point, Record

MAX_ANGLE = math.radians(80.0)
"""Largest angle between a ray and the optical axis that a lens may show, in radians. In a plane picture, the
distance from the centre grows with the tangent of the angle: 80° lie 5.7 focal lengths from the centre."""
MIN_SLOPE = 0.02
"""Minimum derivative of the distorted radius by the undistorted one. The picture of a lens folds back where the
derivative is 0, and cannot be undistorted beyond that radius."""
ROUNDNESS = 4
"""Exponent of the superellipse that stands for an object in its box. With 2, an ellipse, the corners of a car would
be missed; a box would exceed the outline of a person. Decision 32 has the errors."""
CONVERGED = 1e-8
"""Step of the search for an undistorted point, in focal lengths, at which the search ends: a hundred-thousandth of a
pixel."""
MAX_STEPS = 100
_SCAN_STEP = 0.005
_MIDDLES = ((-1.0, 0.0), (1.0, 0.0), (0.0, -1.0), (0.0, 1.0))
_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (-1.0, 1.0), (1.0, 1.0))
_DIAGONAL = 0.5 ** (1 / ROUNDNESS)
_OBJECT = (*_MIDDLES, *((x * _DIAGONAL, y * _DIAGONAL) for x, y in _CORNERS))
"""Points on the outline of an object whose box is a square from -1 to 1."""
LensModel = Literal["pinhole", "fisheye"]
COEFFICIENTS: dict[LensModel, tuple[int, ...]] = {"pinhole": (4, 5), "fisheye": (4,)}
"""Possible numbers of coefficients of each camera model."""

Focal = Annotated[float, Field(ge=1.0, le=MAX_PX)]
Coefficient = Annotated[float, Field(ge=-1000.0, le=1000.0)]
Ray = tuple[float, float]
"""Direction of a ray as the slopes ``(x, y)``: x and y per unit of depth."""


class Optics(Record):
    """A camera model of OpenCV: focal lengths and principal point in pixels, and the coefficients of the distortion.

    ``distortion`` has the coefficients k1, k2, p1, p2 and perhaps k3 of the model ``pinhole``, or k1, k2, k3, k4 of
    the model ``fisheye``. Points are in pixels of the frame like boxes: the centre of the first pixel is (0.5, 0.5),
    which OpenCV calls (0, 0).
    """

    KIND: ClassVar[str] = "optics"

    model: LensModel
    fx: Focal
    fy: Focal
    cx: Coordinate
    cy: Coordinate
    distortion: tuple[Coefficient, ...]

    @model_validator(mode="after")
    def _has_the_coefficients_of_its_model(self) -> Self:
        if len(self.distortion) not in COEFFICIENTS[self.model]:
            counts = " or ".join(map(str, COEFFICIENTS[self.model]))
            raise ValueError(
                f"{len(self.distortion)} numbers in distortion of the model {self.model}: expected {counts}"
            )
        return self

    @property
    def limit(self) -> float:
        """Largest slope of a ray that the lens shows."""
        turn = _turning_point(self._radial, self._most)
        return math.tan(turn) if self.model == "fisheye" else turn

    @property
    def is_wide(self) -> bool:
        """Whether the lens may show rays beyond ``MAX_ANGLE``."""
        return self.model == "fisheye" and _turning_point(self._radial, MAX_ANGLE) == MAX_ANGLE

    @property
    def is_centred(self) -> bool:
        """Whether the distortion only depends on the distance from the principal point."""
        return self.model == "fisheye" or self.distortion[2:4] == (0.0, 0.0)

    def to_point(self, ray: Ray) -> Point:
        """Return the point at which a ray meets the frame. A ray beyond ``limit`` counts as a ray at ``limit``."""
        x, y = ray
        slope = math.hypot(x, y)
        if slope > (limit := self.limit):
            x, y, slope = x * limit / slope, y * limit / slope, limit
        spread = _spread(self._radial, self._angle(slope)) / slope if slope else 1.0
        aside, down = self._tangential(x, y)
        return self.cx + self.fx * (x * spread + aside), self.cy + self.fy * (y * spread + down)

    def to_ray(self, point: Point) -> Ray | None:
        """Return the ray that meets the frame at a point; None if the lens shows no ray there."""
        x = wanted_x = (point[0] - self.cx) / self.fx
        y = wanted_y = (point[1] - self.cy) / self.fy
        radial = self._radial
        most = _turning_point(radial, self._most)
        edge, angle = _spread(radial, most), 0.0
        for _ in range(MAX_STEPS):
            before_x, before_y = x, y
            aside, down = self._tangential(x, y)
            x, y = wanted_x - aside, wanted_y - down
            radius = math.hypot(x, y)
            if not radius < edge:
                return None
            if radius:
                angle = _inverse(radial, radius, most, angle or radius)
                longer = (math.tan(angle) if self.model == "fisheye" else angle) / radius
                x, y = x * longer, y * longer
            if self.is_centred or abs(x - before_x) + abs(y - before_y) < CONVERGED:
                return x, y
        return None

    @property
    def _most(self) -> float:
        return MAX_ANGLE if self.model == "fisheye" else math.tan(MAX_ANGLE)

    @property
    def _radial(self) -> tuple[float, ...]:
        """Coefficients of the even powers of the radius, from the second on."""
        k = self.distortion
        return k if self.model == "fisheye" else (k[0], k[1], *k[4:])

    def _angle(self, slope: float) -> float:
        return math.atan(slope) if self.model == "fisheye" else slope

    def _tangential(self, x: float, y: float) -> Ray:
        """Return the shift of a ray by a lens that is not parallel to the sensor."""
        if self.is_centred:
            return 0.0, 0.0
        p1, p2 = self.distortion[2:4]
        square = x * x + y * y
        return 2.0 * p1 * x * y + p2 * (square + 2.0 * x * x), p1 * (square + 2.0 * y * y) + 2.0 * p2 * x * y


class Lens(Record):
    """The lens of a camera, and the undistorted picture of its frames, which has the same size as the frames.

    The undistorted picture has the focal lengths ``fx`` and ``fy`` and the principal point (``cx``, ``cy``) in
    pixels, and no distortion.
    """

    KIND: ClassVar[str] = "lens"

    optics: Optics
    fx: Focal
    fy: Focal
    cx: Coordinate
    cy: Coordinate

    def distorted(self, point: Point) -> Point:
        """Return the point of the frame that a point of the undistorted picture shows."""
        return self.optics.to_point(((point[0] - self.cx) / self.fx, (point[1] - self.cy) / self.fy))

    def undistorted(self, point: Point) -> Point | None:
        """Return the point of the undistorted picture for a point of the frame, perhaps outside of the picture.

        Return None if the lens shows nothing at this point.
        """
        ray = self.optics.to_ray(point)
        return None if ray is None else (self.cx + self.fx * ray[0], self.cy + self.fy * ray[1])

    def distorted_box(self, box: Box) -> Box:
        """Return the box in the frame of an object with the given box in the undistorted picture.

        The object is taken for a superellipse that fills its box: the box around the whole curved box would be too
        large, because the corners of a box are rarely part of the object.
        """
        return _around([self.distorted(point) for point in _within(box, _OBJECT)])

    def undistorted_box(self, box: Box) -> Box | None:
        """Return the smallest box in the undistorted picture that contains a box of the frame; None if the lens shows
        nothing of the box."""
        points = map(self.undistorted, _within(box, (*_MIDDLES, *_CORNERS)))
        found = [point for point in points if point is not None]
        return _around(found) if found else None


def _within(box: Box, places: Sequence[Ray]) -> list[Point]:
    """Return the points of a box at ``places``, which are relative to a square from -1 to 1."""
    (x, y), half_x, half_y = box.centre, box.width / 2, box.height / 2
    return [(x + half_x * across, y + half_y * down) for across, down in places]


def _around(points: Sequence[Point]) -> Box:
    xs, ys = zip(*points, strict=True)
    return Box(min(xs), min(ys), max(xs), max(ys))


def _spread(radial: tuple[float, ...], angle: float) -> float:
    """Return the distance from the principal point, in focal lengths, of a ray at ``angle``."""
    total, square = 0.0, angle * angle
    for k in reversed(radial):
        total = (total + k) * square
    return angle * (1.0 + total)


def _slope(radial: tuple[float, ...], angle: float) -> float:
    """Return the derivative of ``_spread``."""
    total, square = 0.0, angle * angle
    for n in range(len(radial), 0, -1):
        total = (total + (2 * n + 1) * radial[n - 1]) * square
    return 1.0 + total


@lru_cache(maxsize=1024)
def _turning_point(radial: tuple[float, ...], most: float) -> float:
    """Return the largest angle up to ``most`` below which the derivative of ``_spread`` is at least ``MIN_SLOPE``."""
    steps = math.ceil(most / _SCAN_STEP)
    for n in range(1, steps + 1):
        if _slope(radial, n * most / steps) < MIN_SLOPE:
            return (n - 1) * most / steps
    return most


def _inverse(radial: tuple[float, ...], wanted: float, most: float, guess: float) -> float:
    """Return the angle up to ``most`` whose ``_spread`` is ``wanted``: Newton's method between two bounds (Press et
    al., Numerical Recipes, ``rtsafe``), which begins at ``guess``."""
    low, high, angle = 0.0, most, min(guess, most)
    for _ in range(MAX_STEPS):
        error = _spread(radial, angle) - wanted
        low, high = (low, angle) if error > 0.0 else (angle, high)
        after = angle - error / (_slope(radial, angle) or 1.0)
        if not low <= after <= high:
            after = (low + high) / 2
        if abs(after - angle) < CONVERGED / 10:
            return after
        angle = after
    return angle

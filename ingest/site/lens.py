"""Configuration of a camera's lens, as a calibration with pictures of a chessboard finds it."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Self

from pydantic import Field, model_validator

from ingest.contract.records import Box, Lens, Optics, Point
from ingest.contract.records.base import MAX_PX
from ingest.contract.records.lens import COEFFICIENTS, Coefficient, Focal, LensModel
from ingest.site.entry import ConfigSection

MAX_SIDE_PX = 32_766
"""Largest width or height of a picture that OpenCV can undistort."""
_INTERVALS = 16
"""Number of intervals along each edge of a picture, at whose ends the lens is examined."""
_ERROR_PX = 0.1
"""Largest distance in pixels between a point and the same point undistorted and distorted again."""
_NAMES = {"pinhole": "k1, k2, p1, p2 and perhaps k3", "fisheye": "k1, k2, k3, k4"}


class LensConfig(ConfigSection):
    """Lens of a camera in the camera models of OpenCV. `sightline config lens` finds the values of a camera.

    ``width`` and ``height`` are the size in pixels of the pictures from which the values were found. A frame of
    another size counts as such a picture, scaled.
    """

    model: LensModel = "pinhole"
    """Camera model: ``fisheye`` for lenses that show 120° and more."""
    width: int = Field(gt=0, le=MAX_SIDE_PX)
    height: int = Field(gt=0, le=MAX_SIDE_PX)
    fx: Focal
    fy: Focal
    """Focal lengths in pixels."""
    cx: float
    cy: float
    """Principal point in pixels, from the centre of the first pixel."""
    distortion: tuple[Coefficient, ...]
    """Coefficients k1, k2, p1, p2 and perhaps k3 of the model ``pinhole``, or k1, k2, k3, k4 of ``fisheye``."""
    zoom: float = Field(default=0.0, ge=0.0, le=4.0)
    """Size of objects in the middle of the undistorted picture, as a multiple of their size in the frame. The smaller
    ``zoom`` is, the more of the frame's edges the undistorted picture shows. With 0, it shows the frame from the
    middle of each edge to that of the opposite edge, as large as possible."""

    def lens(self, width: int, height: int) -> Lens:
        """Return the lens for frames of ``width`` × ``height`` pixels."""
        return _lens(self, width, height)

    @model_validator(mode="after")
    def _has_the_coefficients_of_its_model(self) -> Self:
        if len(self.distortion) not in COEFFICIENTS[self.model]:
            raise ValueError(
                f"expected the coefficients {_NAMES[self.model]} of the model {self.model} in distortion, not "
                f"{len(self.distortion)} numbers"
            )
        return self

    @model_validator(mode="after")
    def _has_its_centre_in_the_picture(self) -> Self:
        if not (0.0 <= self.cx <= self.width and 0.0 <= self.cy <= self.height):
            raise ValueError(
                f"expected a principal point inside the picture of {self.width} × {self.height} px, not cx = "
                f"{self.cx:g} and cy = {self.cy:g}"
            )
        return self

    @model_validator(mode="after")
    def _can_be_undone(self) -> Self:
        """Refuse a lens whose distortion has no inverse at some point of the picture."""
        optics = self._optics(self.width, self.height)
        for point in _points(self.width, self.height):
            ray = optics.to_ray(point)
            if ray is None and optics.is_wide:
                continue  # no plane picture can show this point
            if ray is None or math.dist(optics.to_point(ray), point) > _ERROR_PX:
                raise ValueError(
                    "expected a distortion that can be undone in the whole picture, but it cannot at pixel "
                    f"({point[0]:.0f}, {point[1]:.0f}). Calibrate with chessboards near all corners"
                )
        return self

    def _optics(self, width: int, height: int) -> Optics:
        x, y = width / self.width, height / self.height
        return Optics(
            model=self.model,
            fx=_focal(self.fx * x),
            fy=_focal(self.fy * y),
            cx=(self.cx + 0.5) * x,
            cy=(self.cy + 0.5) * y,
            distortion=self.distortion,
        )


@lru_cache(maxsize=1024)
def _lens(config: LensConfig, width: int, height: int) -> Lens:
    optics = config._optics(width, height)
    if config.zoom:
        fx, fy = _focal(optics.fx * config.zoom), _focal(optics.fy * config.zoom)
        return Lens(optics=optics, fx=fx, fy=fy, cx=optics.cx, cy=optics.cy)
    seen = _rays_of_edges(optics, width, height)
    zoom = min(width / (optics.fx * seen.width), height / (optics.fy * seen.height))
    (x, y), fx, fy = seen.centre, _focal(optics.fx * zoom), _focal(optics.fy * zoom)
    return Lens(optics=optics, fx=fx, fy=fy, cx=width / 2 - fx * x, cy=height / 2 - fy * y)


def _focal(length_px: float) -> float:
    return min(max(length_px, 1.0), float(MAX_PX))


def _points(width: int, height: int) -> list[Point]:
    """Return points on the edges of a picture and inside of it."""
    shares = [n / _INTERVALS for n in range(_INTERVALS + 1)]
    edges = [point for n in shares for point in ((n, 0.0), (n, 1.0), (0.0, n), (1.0, n))]
    inside = [(x, y) for x in shares[::4] for y in shares[::4]]
    return [(x * width, y * height) for x, y in dict.fromkeys([*edges, *inside])]


def _rays_of_edges(optics: Optics, width: int, height: int) -> Box:
    """Return the rectangle of the rays at the middle of each edge of a picture, with the largest slope of the lens
    where it shows nothing."""
    limit = optics.limit
    left, right = (optics.to_ray((x, optics.cy)) for x in (0.0, float(width)))
    top, bottom = (optics.to_ray((optics.cx, y)) for y in (0.0, float(height)))
    return Box(
        left[0] if left else -limit,
        top[1] if top else -limit,
        right[0] if right else limit,
        bottom[1] if bottom else limit,
    )

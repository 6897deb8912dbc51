"""The rays of a camera with a lens, by OpenCV, for tests that render scenes through a lens."""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from ingest.site.lens import LensConfig


@lru_cache
def rays(config: LensConfig, size: tuple[int, int]) -> npt.NDArray[np.float64]:
    """Return the slopes of the ray at each pixel, ``(H, W, 2)``, by OpenCV."""
    x, y = size[0] / config.width, size[1] / config.height
    centre = (config.cx + 0.5) * x - 0.5, (config.cy + 0.5) * y - 0.5
    matrix = np.array([[config.fx * x, 0, centre[0]], [0, config.fy * y, centre[1]], [0, 0, 1]], float)
    grid = np.stack(np.meshgrid(np.arange(size[0]), np.arange(size[1])), axis=-1).reshape(-1, 1, 2).astype(float)
    ends = (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 60, 1e-10)
    coefficients = np.array(config.distortion, float)
    if config.model == "fisheye":
        found = cv2.fisheye.undistortPoints(grid, matrix, coefficients, criteria=ends)
    else:
        found = cv2.undistortPointsIter(grid, matrix, coefficients, np.eye(3), np.eye(3), ends)
    return np.asarray(found).reshape(size[1], size[0], 2)

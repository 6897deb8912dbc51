"""Kalman filters of many boxes at once, with constant velocity and the true time between frames. Pure.

The four edges of a box move independently of each other, and are measured with equal errors. Because the edges have
equal errors, they share one covariance of position and velocity, and the filter stores three numbers per box
(Bar-Shalom, Li and Kirubarajan, Estimation with Applications to Tracking and Navigation, section 6.2.2: white noise
acceleration). Errors are shares of the size of a box, because the box of a near object varies by more pixels than the
box of a far one.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BOX_ERROR = 0.1
"""Standard deviation of a measured edge, as a share of the box's size. Boxes of moving regions include shadows and
parts of other objects."""
_ACCELERATION = 1.0
"""Square root of the spectral density of the acceleration, in sizes of the box per s^1.5. A vehicle that brakes
changes its speed by about its own length per second within one second."""
_FIRST_SPEED = 2.0
"""Standard deviation of the unknown speed of a new box, in sizes of the box per second. A person moves by half of its
size per second, and a vehicle in a side view by two to five of its sizes."""
_MIN_SIZE_PX = 1.0


class BoxFilter:
    """Positions and velocities of ``n`` boxes. ``boxes`` is an array ``(n, 4)`` in pixels: left, top, right,
    bottom."""

    def __init__(self) -> None:
        self.boxes: Floats = np.empty((0, 4))
        self._speeds: Floats = np.empty((0, 4))
        self._spread: Floats = np.empty((3, 0))
        """Rows: variance of a box's position, covariance of position and velocity, and variance of the velocity, in
        units of box size and second. There is one column for each box."""

    def predict(self, step_s: float) -> None:
        """Move all boxes forward by ``step_s`` seconds."""
        self.boxes = self.boxes + step_s * self._speeds
        noise = _ACCELERATION**2
        added = noise * step_s**3 / 3, noise * step_s**2 / 2, noise * step_s
        moved = (1.0, 2.0 * step_s, step_s**2), (0.0, 1.0, step_s), (0.0, 0.0, 1.0)
        self._spread = np.array(moved) @ self._spread + np.array(added)[:, None]

    def update(self, rows: npt.NDArray[np.intp], measured: Floats) -> None:
        """Correct the boxes in ``rows`` with the boxes ``measured`` in this frame, an array ``(len(rows), 4)``."""
        place, mixed, speed = self._spread[:, rows]
        total = place + _BOX_ERROR**2
        gain_place, gain_speed = place / total, mixed / total
        change = measured - self.boxes[rows]
        self.boxes[rows] += gain_place[:, None] * change
        self._speeds[rows] += gain_speed[:, None] * change
        kept = 1 - gain_place
        self._spread[:, rows] = kept * place, kept * mixed, speed - gain_speed * mixed

    def add(self, boxes: Floats) -> None:
        """Append new boxes whose velocity is unknown."""
        count = len(boxes)
        self.boxes = np.concatenate((self.boxes, boxes))
        self._speeds = np.concatenate((self._speeds, np.zeros((count, 4))))
        first = np.tile(((_BOX_ERROR**2,), (0.0,), (_FIRST_SPEED**2,)), count)
        self._spread = np.concatenate((self._spread, first), axis=1)

    def keep(self, rows: npt.NDArray[np.bool_]) -> None:
        """Drop all boxes except those of ``rows``."""
        self.boxes, self._speeds, self._spread = self.boxes[rows], self._speeds[rows], self._spread[:, rows]


def overlaps(one: Floats, other: Floats, margin: float) -> Floats:
    """Return the intersection over union of each pair of boxes, as an array ``(len(one), len(other))``.

    Each box is first enlarged on each side by ``margin``, as a share of its size.
    """
    # the right and lower edges are negative, so that the larger of two edges is always the edge of the intersection
    near, far = 1.0 + margin, -margin
    enlarge = np.array(((near, 0, -far, 0), (0, near, 0, -far), (far, 0, -near, 0), (0, far, 0, -near)))
    enlarged = np.concatenate((one, other)) @ enlarge
    sizes = enlarged[:, :2] + enlarged[:, 2:]
    areas = sizes[:, 0] * sizes[:, 1]
    count = len(one)
    edges = np.maximum(enlarged[:count, None], enlarged[count:])
    sides = np.minimum(edges[..., :2] + edges[..., 2:], 0.0)
    shared = sides[..., 0] * sides[..., 1]
    union = areas[:count, None] + areas[count:] - shared
    return np.asarray(shared / np.maximum(union, _MIN_SIZE_PX))

"""Kalman filter of a box, with constant velocity and the true time between frames. Pure.

The four edges of a box move independently of each other, and are measured with equal errors. Because the edges have
equal errors, they share one covariance of position and velocity, which has three numbers (Bar-Shalom, Li and
Kirubarajan, Estimation with Applications to Tracking and Navigation, section 6.2.2: white noise acceleration). Errors
are shares of the size of a box, because the box of a near object varies by more pixels than the box of a far one.

The filter computes with Python's numbers. In a usual frame, with a few boxes, arrays would take three times as long.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator, Sequence

Edges = tuple[float, float, float, float]
"""Left, top, right and bottom edge of a box, in pixels."""

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
    """Position and velocity of a box, first at rest at ``box``. ``box`` is the present estimate of the position."""

    __slots__ = ("_speeds", "_spread", "box")

    def __init__(self, box: Edges) -> None:
        self.box = box
        self._speeds = 0.0, 0.0, 0.0, 0.0
        self._spread = _BOX_ERROR**2, 0.0, _FIRST_SPEED**2
        """Variance of the position, covariance of position and velocity, and variance of the velocity, in units of
        box size and second."""

    def predict(self, step_s: float) -> None:
        """Move the box forward by ``step_s`` seconds."""
        left, top, right, bottom = self.box
        of_left, of_top, of_right, of_bottom = self._speeds
        self.box = (
            left + step_s * of_left,
            top + step_s * of_top,
            right + step_s * of_right,
            bottom + step_s * of_bottom,
        )
        place, mixed, speed = self._spread
        noise = _ACCELERATION**2 * step_s
        self._spread = (
            place + step_s * (2.0 * mixed + step_s * (speed + noise / 3.0)),
            mixed + step_s * (speed + noise / 2.0),
            speed + noise,
        )

    def update(self, measured: Edges) -> None:
        """Correct the position and the velocity with the box measured in this frame."""
        place, mixed, speed = self._spread
        total = place + _BOX_ERROR**2
        gain, kept = place / total, 1.0 - place / total
        gain_speed = mixed / total
        left, top, right, bottom = self.box
        new_left, new_top, new_right, new_bottom = measured
        by_left, by_top, by_right, by_bottom = new_left - left, new_top - top, new_right - right, new_bottom - bottom
        self.box = left + gain * by_left, top + gain * by_top, right + gain * by_right, bottom + gain * by_bottom
        of_left, of_top, of_right, of_bottom = self._speeds
        self._speeds = (
            of_left + gain_speed * by_left,
            of_top + gain_speed * by_top,
            of_right + gain_speed * by_right,
            of_bottom + gain_speed * by_bottom,
        )
        self._spread = kept * place, kept * mixed, speed - gain_speed * mixed


def overlaps(boxes: Sequence[Edges], others: Sequence[Edges], margin: float) -> Iterator[tuple[int, int, float]]:
    """Yield the number of a box, the number of one of the ``others`` that overlaps it, and their intersection over
    union.

    Each box is first enlarged on each side by ``margin``, as a share of its size.
    """
    ordered = sorted((_enlarged(other, margin), number) for number, other in enumerate(others))
    lefts = [other[0] for other, _ in ordered]
    widest = max((other[2] - other[0] for other, _ in ordered), default=0.0)
    for row, box in enumerate(boxes):
        left, top, right, bottom = _enlarged(box, margin)
        area = (right - left) * (bottom - top)
        # only these others may overlap the box: in a crowd, a small part of all
        for other, column in ordered[bisect(lefts, left - widest) : bisect(lefts, right)]:
            other_left, other_top, other_right, other_bottom = other
            width = (right if right < other_right else other_right) - (left if left > other_left else other_left)
            height = (bottom if bottom < other_bottom else other_bottom) - (top if top > other_top else other_top)
            if width > 0.0 and height > 0.0:
                shared = width * height
                union = area + (other_right - other_left) * (other_bottom - other_top) - shared
                yield row, column, shared / max(union, _MIN_SIZE_PX)


def _enlarged(box: Edges, margin: float) -> Edges:
    left, top, right, bottom = box
    x, y = margin * (right - left), margin * (bottom - top)
    return left - x, top - y, right + x, bottom + y

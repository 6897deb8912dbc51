"""Configuration of a camera's ground plane, from which services compute distances and speeds in metres."""

from __future__ import annotations

import math
from typing import Self

from pydantic import Field, model_validator

from ingest.site.entry import ConfigSection, RelativePoint

_LEAST_TURN = 1e-6
"""Minimum cross product of two edges, in shares of the picture. Below it, three corners of a polygon count as lying
on one line."""


class GroundConfig(ConfigSection):
    """Ground plane of a camera: a rectangle on the ground, whose corners are marked in the picture.

    ``corners`` begin with the near left corner, followed by the near right, the far right and the far left corner.
    """

    corners: tuple[RelativePoint, RelativePoint, RelativePoint, RelativePoint]
    width_m: float = Field(gt=0.0)
    """Length of the near edge, from the first to the second corner, in metres."""
    length_m: float = Field(gt=0.0)
    """Length of the right edge, from the second to the third corner, in metres."""

    @model_validator(mode="after")
    def _is_convex(self) -> Self:
        turns = set()
        for n in range(4):
            (ax, ay), (bx, by), (cx, cy) = (self.corners[(n + step) % 4] for step in range(3))
            turn = (bx - ax) * (cy - by) - (by - ay) * (cx - bx)
            turns.add(0 if abs(turn) < _LEAST_TURN else math.copysign(1, turn))
        if turns not in ({1.0}, {-1.0}):
            raise ValueError(
                "expected four corners in order around a rectangle (near left, near right, far right, far left), no "
                "three of them on a line"
            )
        return self

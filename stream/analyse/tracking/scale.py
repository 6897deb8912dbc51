"""Picture scale: when the picture size changes, tracks and rules keep the coordinates of the first picture. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ingest.contract.records import Box, Detection, Point


@dataclass(frozen=True, slots=True)
class Scale:
    """Factors from pixels of the current picture to pixels of the epoch's first one."""

    x: float = 1.0
    y: float = 1.0

    @classmethod
    def between(cls, picture: tuple[int, int], first: tuple[int, int]) -> Scale:
        """Return the scale from one ``(width, height)`` to another. Raise ValueError for a picture without pixels."""
        if not all(picture):
            raise ValueError(f"picture of {picture[0]}×{picture[1]} pixels: expected a width and a height above 0")
        return cls(first[0] / picture[0], first[1] / picture[1])

    def detections(self, found: tuple[Detection, ...]) -> tuple[Detection, ...]:
        """Return detections in pixels of the first picture."""
        if self == Scale():
            return found
        return tuple(one.model_copy(update={"box": one.box.scaled(self.x, self.y)}) for one in found)

    def boxes(self, found: Iterable[Box]) -> tuple[Box, ...]:
        """Return boxes in pixels of the first picture."""
        return tuple(found) if self == Scale() else tuple(box.scaled(self.x, self.y) for box in found)

    def back(self, box: Box) -> Box:
        """Return a box of the first picture in pixels of the current one."""
        return box.scaled(1 / self.x, 1 / self.y)

    def trail_back(self, trail: Iterable[Point]) -> tuple[Point, ...]:
        """Return points of the first picture in pixels of the current one."""
        return tuple((x / self.x, y / self.y) for x, y in trail)

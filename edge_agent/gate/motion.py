"""Where something moves: what differs from the background on a small grey picture, joined to regions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.gate.background import Background, Moving
from edge_agent.gate.masks import drawn
from edge_agent.gate.parts import SURE_SHARE, Parts, join
from ingest.contract.records import Box, Point

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

LEAST_WIDTH_PX = 160
"""A person of 16 px in a 640 px picture is four pixels wide then, and 14,400 pixels are cheap."""
_NOMINAL_STEP_S = 0.1
"""Between frames whose times are not given."""
_STALE_S = 60.0
"""A camera that has not been looked at for longer, while it was not armed, may show another light and other cars."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What moves, in pixels of the frame, largest first. ``masked`` tells of motion that is behind a mask only."""

    boxes: tuple[Box, ...] = ()
    masked: bool = False
    parts: Parts | None = field(default=None, compare=False)


class MotionDetector:
    """Finds moving regions in the frames of one camera, in order. ``min_area`` is a share of the picture.

    Motion inside of ``masks``, polygons in shares of width and height, is none.
    """

    def __init__(self, min_area: float, masks: Sequence[Sequence[Point]] = ()) -> None:
        self._min_area, self._masks = min_area, masks
        self._background: Background | None = None
        self._shown: Image | None = None
        self._before: Parts | None = None
        self._at_ns: int | None = None
        self._frame: _Frame | None = None

    def boxes(self, image: Image) -> tuple[Box, ...]:
        """Return what moves in a frame ``(height, width, 3)`` uint8, ten of which make a second."""
        return self._see(image, _NOMINAL_STEP_S).boxes

    def see(self, image: Image, at_ns: int) -> Seen:
        """Return what moves in a frame ``(height, width, 3)`` uint8 that was captured at a time in ns."""
        step_s = _NOMINAL_STEP_S if self._at_ns is None else (at_ns - self._at_ns) / 1e9
        self._at_ns = at_ns
        return self._see(image, step_s)

    def resting(self) -> tuple[Box, ...]:
        """Return where something has stopped and not gone since, in pixels of the last frame, the latest first.

        Of too many, these are the ``MAX_RESTING`` latest.
        """
        if self._background is None or self._frame is None:
            return ()
        least_px = self._min_area * math.prod(self._background.shape)
        found = self._background.rest.rectangles(least_px, self._shown)
        return tuple(self._frame.box(*rectangle) for rectangle in found)

    def _see(self, image: Image, step_s: float) -> Seen:
        small = _small(image)
        self._frame = frame = _Frame(image.shape[1], image.shape[0], image.shape[1] // small.shape[1])
        if self._background is None or self._background.shape != small.shape or step_s > _STALE_S:
            self._background = Background(small)
            self._shown = drawn(self._masks, small.shape) if self._masks else None
        moving = self._background.moving(small, step_s)
        if cv2.countNonZero(moving.surely) < SURE_SHARE * self._min_area * small.size:
            self._before = None
            return Seen()
        parts = self._joined(moving, self._shown)
        masked = not parts.rectangles and self._shown is not None and bool(self._joined(moving, None).rectangles)
        self._before = parts
        if parts.rectangles:
            return Seen(tuple(frame.box(*rectangle) for rectangle in parts.rectangles), parts=parts)
        return Seen(masked=masked)

    def _joined(self, moving: Moving, shown: Image | None) -> Parts:
        if shown is not None:
            moving = Moving(moving.differs & shown, moving.surely & shown)
        return join(moving, self._min_area * moving.differs.size, self._before)


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame of that size in pixels, ``scale`` times as large as the small picture."""

    width: int
    height: int
    scale: int

    def box(self, left: int, top: int, width: int, height: int) -> Box:
        """Return a rectangle of the small picture in pixels of the frame."""
        right, bottom = (left + width) * self.scale, (top + height) * self.scale
        edges = left * self.scale, top * self.scale, min(right, self.width), min(bottom, self.height)
        return Box(*map(float, edges))


def _small(image: Image) -> Floats:
    """Halve a frame, as often as it stays wide enough, and return it in grey levels.

    Halves are the one size that OpenCV averages by vector instructions: a tenth of the time of other sizes.
    """
    small = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    while small.shape[1] >= 2 * LEAST_WIDTH_PX and small.shape[0] > 1:
        height, width = small.shape[0] // 2, small.shape[1] // 2
        small = cv2.resize(small[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)

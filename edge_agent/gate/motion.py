"""Where something moves: a background model on a small grey picture.

The background is a running average, and each pixel's noise a running mean deviation, as in adaptive background
mixture models with one mode (Stauffer and Grimson, CVPR 1999). A pixel moves when it differs from its background by
more than its own noise explains. A change of light changes the whole picture: its median difference is taken off
first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.gate.masks import drawn
from ingest.records import Box, Point

__all__ = ["MotionDetector", "Seen"]

Image = npt.NDArray[np.uint8]

SMALL_WIDTH_PX = 160
"""Wide enough for a person of 16 px in a 640 px picture to be four pixels wide, and cheap: 14,400 pixels."""
_LEARNING_RATE = 0.05
"""Of the background where nothing moves, per frame: the sun and the clouds are slower than that."""
_ABSORB_RATE = 0.004
"""Where something moves: what stops becomes background within about a minute at five frames a second, and what
passes leaves no ghost behind."""
_NOISE_RATE = 0.03
_SIGMAS = 4.0
"""In mean deviations of a pixel's own noise: 3.2 standard deviations; the single pixels left fall to the median."""
_MIN_DIFFERENCE = 10.0
"""In grey levels: below this, clothes that hardly differ from the ground are not told from compression anyway."""
_SETTLE_FRAMES = 3
"""So many frames are background, whatever they show, until differences mean something."""
_MIN_SIDE_PX = 2
"""Of the small picture: a line of single pixels is rain, or the edge of a shadow."""
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))
"""Joins the parts of one object: a roof in the colour of the road splits a car."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What moves, in pixels of the frame, largest first. ``masked`` tells of motion that is behind a mask only."""

    boxes: tuple[Box, ...]
    masked: bool = False


class MotionDetector:
    """Finds moving regions in the frames of one camera, in order. ``min_area`` is a share of the picture.

    Motion inside of ``masks``, polygons in shares of width and height, is none.
    """

    def __init__(self, min_area: float, masks: Sequence[Sequence[Point]] = ()) -> None:
        self._min_area, self._masks = min_area, masks
        self._shown: Image | None = None
        self._background = np.zeros((0, 0), np.float32)
        self._noise = np.zeros((0, 0), np.float32)
        self._seen = 0

    def boxes(self, image: Image) -> tuple[Box, ...]:
        """Return what moves in a frame ``(height, width, 3)`` uint8, in pixels of the frame, largest first."""
        return self.see(image).boxes

    def see(self, image: Image, at_ns: int = 0) -> Seen:
        """Return what moves in a frame ``(height, width, 3)`` uint8 that was captured at a time in ns."""
        small = _small(image)
        if self._background.shape != small.shape:
            self._background, self._noise, self._seen = small.copy(), np.full_like(small, 2.0), 0
            self._shown = drawn(self._masks, small.shape) if self._masks else None
        difference = small - self._background
        difference -= np.float32(np.median(difference[::4, ::4]))
        size = np.abs(difference)
        moving = size > np.maximum(_MIN_DIFFERENCE, _SIGMAS * self._noise)
        self._learn(small, size, moving)
        self._seen += 1
        if self._seen <= _SETTLE_FRAMES:
            return Seen(())
        whole, scale = moving.astype(np.uint8), image.shape[1] / small.shape[1]
        if self._shown is None:
            return Seen(self._regions(whole, scale, image.shape[:2]))
        boxes = self._regions(whole * self._shown, scale, image.shape[:2])
        return Seen(boxes, not boxes and bool(self._regions(whole, scale, image.shape[:2])))

    def _learn(
        self, small: npt.NDArray[np.float32], size: npt.NDArray[np.float32], moving: npt.NDArray[np.bool_]
    ) -> None:
        still = (~moving).astype(np.uint8)
        if self._seen < _SETTLE_FRAMES:
            cv2.accumulateWeighted(small, self._background, 0.5)
        else:
            cv2.accumulateWeighted(small, self._background, _LEARNING_RATE, still)
            cv2.accumulateWeighted(small, self._background, _ABSORB_RATE, 1 - still)
        cv2.accumulateWeighted(size, self._noise, _NOISE_RATE, still)

    def _regions(self, moving: Image, scale: float, shape: tuple[int, ...]) -> tuple[Box, ...]:
        whole = cv2.morphologyEx(cv2.medianBlur(moving, 3), cv2.MORPH_CLOSE, _CLOSE)
        count, _, stats, _ = cv2.connectedComponentsWithStats(whole, connectivity=8)
        smallest = self._min_area * moving.size
        found = []
        for left, top, width, height, area in stats[1:count].tolist():
            if area >= smallest and min(width, height) >= _MIN_SIDE_PX:
                edges = (left, top, left + width, top + height)
                scaled = (min(v * scale, float(limit)) for v, limit in zip(edges, _limits(shape), strict=True))
                found.append((area, Box(*scaled)))
        return tuple(box for _, box in sorted(found, key=lambda pair: -pair[0]))


def _limits(shape: tuple[int, ...]) -> tuple[int, int, int, int]:
    return shape[1], shape[0], shape[1], shape[0]


def _small(image: Image) -> npt.NDArray[np.float32]:
    height, width = image.shape[:2]
    size = SMALL_WIDTH_PX, max(1, round(height * SMALL_WIDTH_PX / width))
    small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(small, cv2.COLOR_BGR2GRAY).astype(np.float32)

"""Motion detector: finds the pixels of a small grey picture that differ from the background, and returns their
bounding boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.gate.background import Background, Foreground
from edge_agent.gate.parts import SURE_SHARE, MovingParts, join
from ingest.contract.records import Box, Point

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

MIN_WIDTH_PX = 160
"""Minimum width of the small picture in which motion is detected, in px. A person who is 16 px wide in a 640 px wide
picture is 4 px wide in a 160 px wide picture, which is enough for detection. A small picture of 160×90 has 14,400
pixels and is cheap to process."""
_NOMINAL_STEP_S = 0.1
"""Assumed time between two frames when their capture times are not known, in seconds."""
_STALE_S = 60.0
"""Maximum time between two frames, in seconds; after a longer gap, the background is learnt anew. During a gap of
more than a minute, the light may change and cars may park or leave."""
_MASK_FRACTION_BITS = 4
"""Number of fraction bits in the mask corners that OpenCV gets: corners are integers in sixteenths of a pixel."""


@dataclass(frozen=True, slots=True)
class Motion:
    """Bounding boxes of moving objects in pixels of the frame, largest first.

    ``masked`` means that objects moved only behind the masks.
    """

    boxes: tuple[Box, ...] = ()
    masked: bool = False
    parts: MovingParts | None = field(default=None, compare=False)


class MotionDetector:
    """Detector of moving regions in the frames of one camera. The caller passes the frames in the order of capture.

    ``min_area`` is the minimum area of a reported region, as a share of the picture's area. The detector ignores
    motion behind the ``masks``. ``masks`` are polygons, whose corners are given in shares of the picture's width and
    height.
    """

    def __init__(self, min_area: float, masks: Sequence[Sequence[Point]] = ()) -> None:
        self._min_area, self._masks = min_area, masks
        self._background: Background | None = None
        self._unmasked: Image | None = None
        self._before: MovingParts | None = None
        self._at_ns: int | None = None
        self._size = (0, 0, 1)
        """Width and height of the last frame in px, and the factor by which the frame is larger than the small
        picture made from it."""

    def boxes(self, image: Image) -> tuple[Box, ...]:
        """Return the bounding boxes of moving objects in a frame ``(height, width, 3)`` uint8.

        The frame counts as captured 0.1 s after the previous frame.
        """
        return self._detect(image, _NOMINAL_STEP_S).boxes

    def detect(self, image: Image, at_ns: int) -> Motion:
        """Return the motion in a frame ``(height, width, 3)`` uint8 that was captured at ``at_ns``, in Unix ns."""
        step_s = _NOMINAL_STEP_S if self._at_ns is None else (at_ns - self._at_ns) / 1e9
        self._at_ns = at_ns
        return self._detect(image, step_s)

    def stationary_boxes(self) -> tuple[Box, ...]:
        """Return the bounding boxes of objects that have stopped and have not left yet, in pixels of the last frame.

        Return at most ``MAX_RESTING`` boxes. The boxes of the objects that stopped last come first.
        """
        if self._background is None:
            return ()
        min_px = self._min_area * math.prod(self._background.shape)
        found = self._background.stationary.rectangles(min_px, self._unmasked)
        return tuple(self._in_frame(*rectangle) for rectangle in found)

    def _detect(self, image: Image, step_s: float) -> Motion:
        small = _small(image)
        self._size = image.shape[1], image.shape[0], image.shape[1] // small.shape[1]
        if self._background is None or self._background.shape != small.shape or step_s > _STALE_S:
            self._background = Background(small)
            self._unmasked = draw_masks(self._masks, small.shape) if self._masks else None
        foreground = self._background.update(small, step_s)
        if cv2.countNonZero(foreground.surely) < SURE_SHARE * self._min_area * small.size:
            self._before = None
            return Motion()
        parts = self._joined(foreground, self._unmasked)
        masked = (
            not parts.rectangles and self._unmasked is not None and bool(self._joined(foreground, None).rectangles)
        )
        self._before = parts
        if parts.rectangles:
            return Motion(tuple(self._in_frame(*rectangle) for rectangle in parts.rectangles), parts=parts)
        return Motion(masked=masked)

    def _joined(self, foreground: Foreground, unmasked: Image | None) -> MovingParts:
        if unmasked is not None:
            foreground = Foreground(foreground.differs & unmasked, foreground.surely & unmasked)
        return join(foreground, self._min_area * foreground.differs.size, self._before)

    def _in_frame(self, left: int, top: int, width: int, height: int) -> Box:
        """Convert a rectangle in pixels of the small picture to a box in pixels of the frame."""
        frame_width, frame_height, scale = self._size
        right, bottom = min((left + width) * scale, frame_width), min((top + height) * scale, frame_height)
        return Box(*map(float, (left * scale, top * scale, right, bottom)))


def draw_masks(masks: Sequence[Sequence[Point]], shape: tuple[int, ...]) -> Image:
    """Return a uint8 array of the given ``shape``, (height, width), that contains 0 behind a mask and 1 elsewhere.

    The corners of a mask are given in shares of width and height. A pixel is behind a mask if its centre is inside
    the polygon.
    """
    unmasked = np.ones(shape[:2], np.uint8)
    for mask in masks:
        corners = np.array(mask) * (shape[1], shape[0]) - 0.5
        corners = np.round(corners * 2**_MASK_FRACTION_BITS).astype(np.int32)
        cv2.fillPoly(unmasked, [corners], 0, shift=_MASK_FRACTION_BITS)
    return unmasked


def _small(image: Image) -> Floats:
    """Return a small grey picture: the frame, halved repeatedly while its width stays at least ``MIN_WIDTH_PX``.

    OpenCV halves a picture with vector instructions, which is ten times as fast as scaling by another factor.
    """
    small = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    while small.shape[1] >= 2 * MIN_WIDTH_PX and small.shape[0] > 1:
        height, width = small.shape[0] // 2, small.shape[1] // 2
        small = cv2.resize(small[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)

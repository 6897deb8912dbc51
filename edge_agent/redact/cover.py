"""Irreversible redaction of a picture: fill privacy masks, and obscure boxes around faces and plates.

The methods ``fill``, ``pixelate`` and ``blur`` remove information from a box, so that nobody can restore the
original. ``fill`` paints the whole box in one grey. ``pixelate`` divides a box into at most ``MAX_BLOCKS`` ×
``MAX_BLOCKS`` blocks and paints each block in its mean colour. ``blur`` computes the same mean colours as
``pixelate``, but draws smooth transitions between the blocks. A plain Gaussian blur only weakens fine detail and can
be undone, whereas averaging into blocks destroys the detail.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from ingest.contract.records import Box
from ingest.site import RedactConfig, to_pixels

Image = npt.NDArray[np.uint8]
Method = Literal["pixelate", "blur", "fill"]

MAX_BLOCKS = 8
"""Maximum number of blocks along each side of a pixelated box. A box is 1.5 times as wide as the face in the box, so
five or six blocks cover the width of the face."""
MIN_BLOCK_PX = 6
"""Minimum width and height of a block, in px. Because blocks have a minimum size, a small face is divided into fewer
blocks than a large face."""
FILL_GREY = 127
"""Grey level with which the method ``fill`` paints a box. Black would look like a privacy mask or like night, and a
model may have learnt to react to a strong colour."""
_EDGE_PX = 3
"""Width in px of the outline that is drawn around a privacy mask. The outline covers every pixel that the mask's edge
touches and one more pixel on each side, because scaling a picture down mixes neighbouring pixels."""
_MARGIN_PX = 4
"""Margin in px that is added around the picture while masks are drawn, so that an outline along the picture's border
is closed."""


class PrivacyMasks:
    """Privacy masks of one camera, drawn once for each picture size."""

    def __init__(self, config: RedactConfig) -> None:
        self._polygons, self._colour = config.masks, config.mask_colour
        self._covered = np.zeros((0, 0), np.uint8)
        self._flat = np.zeros((0, 0, 3), np.uint8)

    @property
    def count(self) -> int:
        """Number of masks."""
        return len(self._polygons)

    def fill(self, image: Image) -> None:
        """Paint the privacy masks over a picture ``(height, width, 3)`` uint8, in place.

        Raise cv2.error if the picture does not have the shape ``(height, width, 3)``.
        """
        if not self._polygons:
            return
        if self._covered.shape != image.shape[:2]:
            self._covered = self._drawn(image.shape[1], image.shape[0])
            self._flat = np.full_like(image, self._colour)
        cv2.copyTo(self._flat, self._covered, image)

    def darkened(self, grey: Image) -> Image:
        """Return a copy of a grey picture ``(height, width)`` uint8 in which the privacy masks are black."""
        if not self._polygons:
            return grey
        if self._covered.shape != grey.shape:
            self._covered = self._drawn(grey.shape[1], grey.shape[0])
        return np.where(self._covered, np.uint8(0), grey)

    def _drawn(self, width: int, height: int) -> Image:
        """Return an array ``(height, width)`` uint8 that is 255 where a mask covers the picture, and 0 elsewhere.

        A mask covers everything inside its outline. The usual even-odd fill rule would leave areas uncovered where an
        outline crosses itself.
        """
        covered = np.zeros((height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX), np.uint8)
        for polygon in self._polygons:
            outline = np.zeros_like(covered)
            # subtract half a pixel to convert edge positions to pixel centres
            points = np.array(to_pixels(polygon, width, height)) + _MARGIN_PX - 0.5
            cv2.polylines(outline, [np.rint(points).astype(np.int32)], True, 255, _EDGE_PX)
            contours, _ = cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(covered, contours, -1, 255, cv2.FILLED)
        return np.ascontiguousarray(covered[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX])


def obscure(image: Image, box: Box, method: Method) -> bool:
    """Make a box in a picture ``(height, width, 3)`` uint8 unrecognisable, in place.

    Return False if the box is outside the picture.
    """
    left, top = max(0, int(np.floor(box.left))), max(0, int(np.floor(box.top)))
    right, bottom = min(image.shape[1], int(np.ceil(box.right))), min(image.shape[0], int(np.ceil(box.bottom)))
    if left >= right or top >= bottom:
        return False
    part = image[top:bottom, left:right]
    part[:] = FILL_GREY if method == "fill" else _averaged(part, method)
    return True


def _averaged(part: Image, method: Method) -> Image:
    height, width = part.shape[:2]
    blocks = max(1, min(MAX_BLOCKS, width // MIN_BLOCK_PX)), max(1, min(MAX_BLOCKS, height // MIN_BLOCK_PX))
    few = cv2.resize(part, blocks, interpolation=cv2.INTER_AREA)
    interpolation = cv2.INTER_NEAREST if method == "pixelate" else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(few, (width, height), interpolation=interpolation), np.uint8)

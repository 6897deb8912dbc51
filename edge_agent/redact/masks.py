"""Privacy masks: polygons that are filled with one colour."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from ingest.site import RedactConfig, to_pixels

Image = npt.NDArray[np.uint8]

_EDGE_PX = 3
"""The outline is drawn this thick, so that every pixel that an edge touches is covered, and one more on each side:
a picture that was scaled down before has mixed its neighbours."""
_MARGIN_PX = 4
"""Around the picture, so that an outline along its border is closed."""


class Masks:
    """The masks of one camera, for pictures of any size. A picture's size is drawn once."""

    def __init__(self, config: RedactConfig) -> None:
        self._polygons, self._colour = config.masks, config.mask_colour
        self._covered = np.zeros((0, 0), np.uint8)
        self._flat = np.zeros((0, 0, 3), np.uint8)

    @property
    def count(self) -> int:
        """How many masks there are."""
        return len(self._polygons)

    def fill(self, image: Image) -> None:
        """Fill the masks in a picture ``(height, width, 3)`` uint8, in place. Raise cv2.error for anything else."""
        if not self._polygons:
            return
        if self._covered.shape != image.shape[:2]:
            self._covered = self._drawn(image.shape[1], image.shape[0])
            self._flat = np.full_like(image, self._colour)
        cv2.copyTo(self._flat, self._covered, image)

    def darkened(self, grey: Image) -> Image:
        """Return a grey picture ``(height, width)`` uint8 with its masks black. The one given is left as it is."""
        if not self._polygons:
            return grey
        if self._covered.shape != grey.shape:
            self._covered = self._drawn(grey.shape[1], grey.shape[0])
        return np.where(self._covered, np.uint8(0), grey)

    def _drawn(self, width: int, height: int) -> Image:
        """Return what is covered, 255 in ``(height, width)``.

        Everything that an outline encloses is: the usual fill rule would leave out where an outline winds twice.
        """
        covered = np.zeros((height + 2 * _MARGIN_PX, width + 2 * _MARGIN_PX), np.uint8)
        for polygon in self._polygons:
            outline = np.zeros_like(covered)
            points = np.array(to_pixels(polygon, width, height)) + _MARGIN_PX - 0.5  # from edges to pixels' centres
            cv2.polylines(outline, [np.rint(points).astype(np.int32)], True, 255, _EDGE_PX)
            contours, _ = cv2.findContours(outline, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(covered, contours, -1, 255, cv2.FILLED)
        return np.ascontiguousarray(covered[_MARGIN_PX:-_MARGIN_PX, _MARGIN_PX:-_MARGIN_PX])

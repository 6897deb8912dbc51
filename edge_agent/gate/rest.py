"""Where something has come to rest. Pure but for remembering that.

A pixel is at rest once what stopped there has become the background, until what it hid is seen again. What passes in
front of something at rest hides it, and does not take it away.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

__all__ = ["Rest"]

Mask = npt.NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]

_APART_S = 2.0
"""The pixels of one object become background within a second or two of each other. What comes to rest later is
another object, also where it touches the first: cars in a row."""
_LIGHT_SHARE = 0.25
"""More of the picture than this has another light: what rests there still does."""
_MIN_SIDE_PX = 2
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


class Rest:
    """The arrivals of one camera, at the size of the small pictures: ``(height, width)``."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._top = np.zeros(shape, np.int32)
        self._beneath = np.zeros(shape, np.int32)
        self._arrival = 0
        self._arrived_s = -math.inf
        self._is_light, self._before = False, self._top
        self._found: dict[float, tuple[Rectangle, ...]] = {}

    def stopped(self, where: Mask, hides: Mask, at_s: float) -> None:
        """Take note of pixels that have stopped; where one ``hides``, what it hides is remembered."""
        if at_s - self._arrived_s > _APART_S:
            self._arrival, self._is_light, self._before = self._arrival + 1, False, self._top.copy()
        self._arrived_s = at_s
        np.copyto(self._beneath, self._top, where=hides)
        if not self._is_light:
            self._top[where] = self._arrival
            self._unless_light()
        self._found.clear()

    def _unless_light(self) -> None:
        arrived = self._top == self._arrival
        if np.count_nonzero(arrived) > _LIGHT_SHARE * arrived.size:
            self._is_light = True
            self._top[arrived] = self._before[arrived]

    def relit(self) -> None:
        """Take note that the background begins again, and hides itself as it was in another light."""
        self._beneath = self._top.copy()

    def uncovered(self, bare: Mask) -> None:
        """Take note that what was hidden is seen again; it may be at rest itself."""
        self._top[bare], self._beneath[bare] = self._beneath[bare], 0
        self._found.clear()

    def rectangles(self, least_px: float, shown: npt.NDArray[np.uint8] | None) -> tuple[Rectangle, ...]:
        """Return left, top, width and height of what is at rest where it is ``shown``, the latest first."""
        if least_px not in self._found:
            top = self._top if shown is None else self._top * shown
            arrivals = np.unique(top)[::-1]
            self._found[least_px] = tuple(r for a in arrivals if a for r in _parts(top == a, least_px))
        return self._found[least_px]


def _parts(where: Mask, least_px: float) -> list[Rectangle]:
    whole = cv2.morphologyEx(where.view(np.uint8), cv2.MORPH_CLOSE, _CLOSE)
    _, _, stats, _ = cv2.connectedComponentsWithStats(whole, connectivity=8)
    return [
        (x, y, width, height)
        for x, y, width, height, area in stats[1:].tolist()
        if area >= least_px and min(width, height) >= _MIN_SIDE_PX
    ]

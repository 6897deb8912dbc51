"""Map of stationary objects: places where an object has stopped and not left.

A pixel is stationary from the moment its stopped object has become the background until the hidden background is seen
again. An object that passes in front hides a stationary object and does not remove it.
"""

from __future__ import annotations

import math
from itertools import islice

import cv2
import numpy as np
import numpy.typing as npt

from ingest.contract.records import MAX_RESTING

Mask = npt.NDArray[np.bool_]
Rectangle = tuple[int, int, int, int]

_SEPARATE_S = 2.0
"""Gap that separates two arrivals. The pixels of one object become background within a second or two of each other.
Pixels that stop later belong to another object, even if it touches the first, like cars in a row."""
_MAX_ARRIVAL_S = 30.0
"""Maximum length of one arrival; even the shadow of a cloud has passed by then. Without a limit, leaves that come to
rest every second would form one endless arrival as large as a change of light."""
_LIGHT_SHARE = 0.25
"""Share of the picture above which an arrival is a change of light. Stationary objects in that area stay."""
_SURE_SHARE = 0.5
"""Minimum share of the smallest counted object that must be stationary before gaps are closed. Leaves and noise leave
specks behind, and after a day there are too many to examine."""
_MIN_SIDE_PX = 2
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


class StationaryMap:
    """Arrivals of stationary objects of one camera, at the size of the small pictures: ``(height, width)``."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._top = np.zeros(shape, np.int32)
        self._beneath = np.zeros(shape, np.int32)
        self._arrival = 0
        self._began_s = self._arrived_s = -math.inf
        self._is_light, self._before = False, self._top
        self._found: dict[float, tuple[Rectangle, ...]] = {}

    def stopped(self, where: Mask, hides: Mask, at_s: float) -> None:
        """Add pixels that have stopped. Where one ``hides`` an earlier arrival, that arrival is kept beneath it."""
        if at_s - self._arrived_s > _SEPARATE_S or at_s - self._began_s > _MAX_ARRIVAL_S:
            self._arrival, self._is_light, self._before = self._arrival + 1, False, self._top.copy()
            self._began_s = at_s
        self._arrived_s = at_s
        np.copyto(self._beneath, self._top, where=hides)
        if not self._is_light:
            self._top[where] = self._arrival
            arrived = self._top == self._arrival
            if np.count_nonzero(arrived) > _LIGHT_SHARE * arrived.size:
                self._is_light = True
                self._top[arrived] = self._before[arrived]
        self._found.clear()

    def relit(self) -> None:
        """Keep all arrivals while the background begins again in another light and hides its earlier self."""
        self._beneath = self._top.copy()

    def uncovered(self, bare: Mask) -> None:
        """Remove the arrivals where the hidden background is seen again; an arrival beneath them comes back."""
        self._top[bare], self._beneath[bare] = self._beneath[bare], 0
        self._found.clear()

    def rectangles(self, min_px: float, unmasked: npt.NDArray[np.uint8] | None) -> tuple[Rectangle, ...]:
        """Return left, top, width and height of at most ``MAX_RESTING`` stationary objects outside the masks.

        The latest come first.
        """
        if min_px not in self._found:
            top = self._top if unmasked is None else self._top * unmasked
            arrivals, pixels = np.unique(top, return_counts=True)
            latest_first = arrivals[(arrivals > 0) & (pixels >= _SURE_SHARE * min_px)][::-1]
            found = (r for arrival in latest_first for r in _rectangles(top == arrival, min_px))
            self._found[min_px] = tuple(islice(found, MAX_RESTING))
        return self._found[min_px]


def _rectangles(where: Mask, min_px: float) -> list[Rectangle]:
    whole = cv2.morphologyEx(where.view(np.uint8), cv2.MORPH_CLOSE, _CLOSE)
    _, _, stats, _ = cv2.connectedComponentsWithStats(whole, connectivity=8)
    return [
        (x, y, width, height)
        for x, y, width, height, area in stats[1:].tolist()
        if area >= min_px and min(width, height) >= _MIN_SIDE_PX
    ]

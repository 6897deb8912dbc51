"""Map of stationary objects: objects that have stopped and not left yet.

A pixel is stationary from the moment when a stopped object becomes its background. The pixel stops being stationary
when the background behind the object is visible again. An object that passes in front does not remove a stationary
object.
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
"""Time without newly stopped pixels after which the next stopped pixels form a new arrival. An arrival is the set of
pixels that stop at about the same time. All pixels of one object become background within two seconds. Pixels that
stop later belong to another object, even if both objects touch, like cars in a row."""
_MAX_ARRIVAL_S = 30.0
"""Maximum length of one arrival. The shadow of a cloud passes in a shorter time. Without this limit, leaves that come
to rest every second would form one endless arrival, which would look like a change of light."""
_LIGHT_SHARE = 0.25
"""Share of the picture above which an arrival counts as a change of light. An arrival that large is dropped, and the
earlier stationary objects in its area are kept."""
_SURE_SHARE = 0.5
"""Minimum number of pixels of an arrival, as a share of the minimum area of an object. Smaller arrivals are ignored
early, because the many specks that leaves and noise leave in a day would take too long to examine."""
_MIN_SIDE_PX = 2
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


class StationaryMap:
    """Map from each pixel of a small picture ``(height, width)`` to the arrival of the stationary object there."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._top = np.zeros(shape, np.int32)
        self._beneath = np.zeros(shape, np.int32)
        self._arrival = 0
        self._began_s = self._arrived_s = -math.inf
        self._is_light, self._before = False, self._top
        self._found: dict[float, tuple[Rectangle, ...]] = {}

    def stopped(self, where: Mask, hides: Mask, at_s: float) -> None:
        """Add the stopped pixels ``where``.

        At the pixels ``hides``, remember the earlier stationary object, which the new object now covers.
        """
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
        """Keep all arrivals after a light was switched.

        Remember each arrival as part of the background that the new light has replaced.
        """
        self._beneath = self._top.copy()

    def uncovered(self, bare: Mask) -> None:
        """Remove the arrivals at the pixels ``bare``, where a stationary object has left.

        Restore the earlier arrivals that the removed arrivals had covered.
        """
        self._top[bare], self._beneath[bare] = self._beneath[bare], 0
        self._found.clear()

    def rectangles(self, min_px: float, unmasked: npt.NDArray[np.uint8] | None) -> tuple[Rectangle, ...]:
        """Return left, top, width and height of at most ``MAX_RESTING`` stationary objects outside the masks.

        Objects that stopped last come first.
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

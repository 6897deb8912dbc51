"""Map of stationary objects, which have stopped and have not left yet.

A pixel becomes stationary at the moment when the background model makes a stopped object part of the background. A
pixel stops being stationary when the earlier background behind the stopped object is visible again. A stationary
object stays in the map while another object passes in front of it.
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
"""Time without newly stopped pixels after which the next stopped pixels form a new arrival (a new stopped object), in
seconds. An arrival is a set of pixels that stopped at about the same time. All pixels of one object become background
within two seconds. Pixels that stop more than two seconds later belong to another object, even if both objects touch,
as parked cars do."""
_MAX_ARRIVAL_S = 30.0
"""Maximum time from the first to the last stopped pixel of one arrival, in seconds. The shadow of a cloud passes
within 30 s. Without a limit, leaves that come to rest every second would form one endless arrival, which would count
as a change of light."""
_LIGHT_SHARE = 0.25
"""Maximum size of an arrival (pixels that stopped together), as a share of the picture; a larger arrival counts as a
change of light. A larger arrival is dropped, and the earlier stationary objects in its area stay in the map."""
_SURE_SHARE = 0.5
"""Minimum number of pixels of an arrival, as a share of the minimum number of pixels of an object. Smaller arrivals
are ignored early, because moving leaves and noise cause too many small arrivals in a day to examine each arrival."""
_MIN_SIDE_PX = 2
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


class StationaryMap:
    """Map from each pixel of a small picture ``(height, width)`` to the number of the stopped object (arrival) at
    this pixel, or 0 without a stopped object."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._top = np.zeros(shape, np.int32)
        self._beneath = np.zeros(shape, np.int32)
        self._arrival = 0
        self._began_s = self._arrived_s = -math.inf
        self._is_light, self._before = False, self._top
        self._found: dict[float, tuple[Rectangle, ...]] = {}

    def stopped(self, where: Mask, hides: Mask, at_s: float) -> None:
        """Add the pixels ``where``, at which an object has just stopped, to the map.

        At the pixels ``hides``, also remember the stationary object that the newly stopped object hides.
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
        """Keep all stopped objects in the map after a light was switched.

        After the switch, the background model treats the background from before the switch as hidden. Because a
        stopped object may show again after a light was switched, also store it as a hidden object.
        """
        self._beneath = self._top.copy()

    def uncovered(self, bare: Mask) -> None:
        """Remove the arrivals at the pixels ``bare``, from which a stationary object has left.

        Restore the earlier stationary objects that the removed objects had hidden.
        """
        self._top[bare], self._beneath[bare] = self._beneath[bare], 0
        self._found.clear()

    def rectangles(self, min_px: float, unmasked: npt.NDArray[np.uint8] | None) -> tuple[Rectangle, ...]:
        """Return left, top, width and height, in px of the small picture, of at most ``MAX_RESTING`` stationary
        objects outside the masks.

        The objects that stopped last come first.
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

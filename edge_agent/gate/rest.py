"""Where something has come to rest. Pure but for remembering that.

A pixel is at rest once what stopped there has become the background, until what it hid is seen again. What passes in
front of something at rest hides it, and does not take it away.
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

_APART_S = 2.0
"""The pixels of one object become background within a second or two of each other. What comes to rest later is
another object, also where it touches the first: cars in a row."""
_LASTS_S = 30.0
"""An arrival is over by then, and so is a cloud's shadow. Where leaves come to rest every second, it would last for
ever, and be as large as a light."""
_LIGHT_SHARE = 0.25
"""More of the picture than this has another light: what rests there still does."""
_SURE_SHARE = 0.5
"""Of the smallest thing that counts, so much has to be at rest before gaps are closed. Leaves and noise leave specks
behind, in a day more than can be looked through."""
_MIN_SIDE_PX = 2
_CLOSE = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5))


class Rest:
    """The arrivals of one camera, at the size of the small pictures: ``(height, width)``."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._top = np.zeros(shape, np.int32)
        self._beneath = np.zeros(shape, np.int32)
        self._arrival = 0
        self._began_s = self._arrived_s = -math.inf
        self._is_light, self._before = False, self._top
        self._found: dict[float, tuple[Rectangle, ...]] = {}

    def stopped(self, where: Mask, hides: Mask, at_s: float) -> None:
        """Take note of pixels that have stopped; where one ``hides``, what it hides is remembered."""
        if at_s - self._arrived_s > _APART_S or at_s - self._began_s > _LASTS_S:
            self._arrival, self._is_light, self._before = self._arrival + 1, False, self._top.copy()
            self._began_s = at_s
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
        """Return left, top, width and height of what is at rest where it is ``shown``, the latest first.

        Of too many, these are the ``MAX_RESTING`` latest.
        """
        if least_px not in self._found:
            top = self._top if shown is None else self._top * shown
            found = (r for a in _arrivals(top, least_px) for r in _parts(top == a, least_px))
            self._found[least_px] = tuple(islice(found, MAX_RESTING))
        return self._found[least_px]


def _arrivals(top: npt.NDArray[np.int32], least_px: float) -> list[int]:
    """Return the numbers of the arrivals that may have something in them, the latest first."""
    numbers, pixels = np.unique(top, return_counts=True)
    some = numbers[(numbers > 0) & (pixels >= _SURE_SHARE * least_px)]
    return list(map(int, some[::-1]))


def _parts(where: Mask, least_px: float) -> list[Rectangle]:
    whole = cv2.morphologyEx(where.view(np.uint8), cv2.MORPH_CLOSE, _CLOSE)
    _, _, stats, _ = cv2.connectedComponentsWithStats(whole, connectivity=8)
    return [
        (x, y, width, height)
        for x, y, width, height, area in stats[1:].tolist()
        if area >= least_px and min(width, height) >= _MIN_SIDE_PX
    ]

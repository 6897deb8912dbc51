"""Masks, drawn once for the size in which motion is looked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from ingest.contract.records import Point

_FRACTION_BITS = 4
"""Corners lie between pixels: OpenCV takes them in sixteenths."""


def drawn(masks: Sequence[Sequence[Point]], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Return ``shape`` (height, width) uint8, 0 behind a mask and 1 elsewhere. Corners are relative.

    A polygon covers the pixels whose middle it covers.
    """
    shown = np.ones(shape[:2], np.uint8)
    for mask in masks:
        corners = np.array(mask) * (shape[1], shape[0]) - 0.5
        cv2.fillPoly(shown, [np.round(corners * 2**_FRACTION_BITS).astype(np.int32)], 0, shift=_FRACTION_BITS)
    return shown

"""Correct the light of frames: the steps ``low-light`` and ``fog`` of a pipeline. Pure.

``low-light`` raises the mean luma of a dark frame with a gamma curve. ``fog`` is contrast-limited adaptive histogram
equalisation (CLAHE; Zuiderveld, Graphics Gems IV, 1994) of the luma of a frame with little contrast. A frame in good
light is not changed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import cv2
import numpy as np

from ingest.contract.records import Pixels as Image
from ingest.site.pipeline import LightStep

DARK_MEAN = 40.0
"""Mean luma in grey levels below which a frame is dark. The clips of ``benchmarks/denoise.py`` have a mean of 102 to
142, and of 25 to 36 with a quarter of the light."""
WANTED_MEAN = 100.0
"""Mean luma in grey levels to which the gamma curve moves the mean of a dark frame."""
MIN_GAMMA = 0.3
"""Smallest exponent of the gamma curve. An exponent below ``MIN_GAMMA`` would turn the noise of a black picture
grey."""
FOG_SPREAD = 65.0
"""Distance between the 2nd and the 98th percentile of the luma, in grey levels, below which a frame lacks contrast.
YOLOX-nano finds more objects with CLAHE in frames with a spread of 58 and less, and fewer objects from 96 on."""
CLIP_LIMIT = 3.0
"""Limit of the contrast gain of CLAHE, as a multiple of the mean count of a histogram bin."""
GRID = 8
"""Number of tiles of CLAHE along each side of the picture: the usual value."""
REDUCTION = 8
"""Factor by which the sides of a frame are divided to decide whether the frame needs a step. Decoding a JPEG at an
eighth of the size takes a third of the time, and the decision takes a twentieth of its time at full size."""
_SHARES = np.arange(256, dtype=np.float64) / 255.0
_PERCENTILES = (2, 98)

Change = Callable[[Image], Image]


def changes(steps: Sequence[LightStep], small: Image) -> list[Change]:
    """Return the functions that correct a frame, in the order of ``steps``; none for a frame in good light.

    ``small`` is the frame ``(H, W, 3)`` uint8, BGR, at full or reduced size. Each step examines the result of the
    previous steps.
    """
    found: list[Change] = []
    for step in steps:
        change = _brightener(small) if step == "low-light" else _clearer(small)
        if change is not None:
            small = change(small)
            found.append(change)
    return found


def _brightener(small: Image) -> Change | None:
    """Return the gamma curve that moves the mean luma to ``WANTED_MEAN``, or None for a frame that is not dark."""
    mean = max(float(_luma(small).mean()), 1.0)
    if mean >= DARK_MEAN:
        return None
    gamma = max(MIN_GAMMA, math.log(WANTED_MEAN / 255.0) / math.log(mean / 255.0))
    curve = np.round(255.0 * _SHARES**gamma).astype(np.uint8)
    return lambda image: cv2.LUT(image, curve)  # type: ignore[return-value]  # OpenCV's type is wider


def _clearer(small: Image) -> Change | None:
    low, high = np.percentile(_luma(small), _PERCENTILES)
    return equalised if high - low < FOG_SPREAD else None


def equalised(image: Image) -> Image:
    """Return a frame whose luma is equalised by CLAHE."""
    parts = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
    parts[..., 0] = cv2.createCLAHE(CLIP_LIMIT, (GRID, GRID)).apply(parts[..., 0])
    return cv2.cvtColor(parts, cv2.COLOR_YCrCb2BGR)  # type: ignore[return-value]  # OpenCV's type is wider


def _luma(image: Image) -> Image:
    return cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)  # type: ignore[return-value]  # OpenCV's type is wider

"""Estimate of a change of light between two pictures of one scene. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_EVERY_PX = 4
"""Sampling step in both directions. A thousand pixels of a small picture are enough."""
_MIN_OFFSET = 2.0
"""In grey levels. A smaller change is measurably the same for dark and bright pixels."""
_MIN_CONTRAST = 4.0
"""In grey levels, between the dark and the bright quarter of a picture. With less, no gain can be measured."""
_MAX_GAIN = 4.0
_MAX_ERROR = 20.0
"""In grey levels. A larger deviation of a pixel has another cause than light and counts no more than this."""


class Light(NamedTuple):
    """Linear change of light: a pixel with ``grey`` levels now has ``gain * grey + offset``."""

    gain: float
    offset: float

    def apply_to(self, picture: Floats) -> None:
        """Convert a picture to the new light, in place."""
        if self.gain != 1.0:
            picture *= np.float32(self.gain)
        picture += np.float32(self.offset)


def light_change(before: Floats, now: Floats) -> Light:
    """Return the change of light between two pictures of one scene, ``(height, width)`` float32.

    Three models compete, and the one that explains most of the picture wins. Fog adds an offset, a lamp or the
    camera's exposure multiplies, and a camera that corrects its contrast does both. The medians ignore moving objects
    that cover less than half of the picture.
    """
    old, new = before[::_EVERY_PX, ::_EVERY_PX].ravel(), now[::_EVERY_PX, ::_EVERY_PX].ravel()
    shift = Light(1.0, _median(new - old))
    if abs(shift.offset) < _MIN_OFFSET:
        return shift
    scale = Light(_bounded(_median(new) / max(_median(old), 1.0)), 0.0)
    return min(shift, scale, _gain_and_offset(old, new), key=lambda light: _error(light, old, new))


def _gain_and_offset(old: Floats, new: Floats) -> Light:
    """Return the straight line through the dark and the bright quarter of the picture."""
    order = np.argsort(old)
    quarter = -(-len(order) // 4)  # at least one pixel: a failing camera may send a picture of one pixel
    dark, bright = order[:quarter], order[-quarter:]
    dark_old, bright_old = _median(old[dark]), _median(old[bright])
    if bright_old - dark_old < _MIN_CONTRAST:
        return Light(1.0, _median(new - old))
    dark_new = _median(new[dark])
    gain = _bounded((_median(new[bright]) - dark_new) / (bright_old - dark_old))
    return Light(gain, dark_new - gain * dark_old)


def _error(light: Light, old: Floats, new: Floats) -> float:
    return float(np.minimum(np.abs(new - light.gain * old - light.offset), _MAX_ERROR).mean())


def _bounded(gain: float) -> float:
    return min(max(gain, 1 / _MAX_GAIN), _MAX_GAIN)


def _median(values: Floats) -> float:
    """Return the upper median, in a sixth of the time of NumPy's median, which averages two values."""
    return float(np.partition(values, values.size // 2, axis=None)[values.size // 2])

"""What the light has done to the whole picture between two moments. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

_EVERY_PX = 4
"""Enough of a small picture: a thousand pixels."""
_UNSEEN = 2.0
"""In grey levels: a change of less is the same for dark and bright pixels, as far as can be measured."""
_LEAST_CONTRAST = 4.0
"""In grey levels between the dark and the bright quarter of a picture: with less there is no gain to be measured."""
_MOST_GAIN = 4.0
_MOVED = 20.0
"""In grey levels: what is off by more has another reason than the light, however far it is off."""


class Light(NamedTuple):
    """A pixel of ``grey`` levels now has ``gain * grey + offset``."""

    gain: float
    offset: float

    def put_on(self, picture: Floats) -> None:
        """Change a picture to how it looks in the new light."""
        if self.gain != 1.0:
            picture *= np.float32(self.gain)
        picture += np.float32(self.offset)


def change(before: Floats, now: Floats) -> Light:
    """Return the change of light between two pictures of one scene, ``(height, width)`` float32.

    A fog adds, a lamp and the camera's exposure scale, a camera that corrects its contrast does both: whichever
    explains most of the picture. Medians are not moved by what moves, as long as that is less than half of it.
    """
    old, new = before[::_EVERY_PX, ::_EVERY_PX].ravel(), now[::_EVERY_PX, ::_EVERY_PX].ravel()
    shift = Light(1.0, _median(new - old))
    if abs(shift.offset) < _UNSEEN:
        return shift
    scale = Light(_bounded(_median(new) / max(_median(old), 1.0)), 0.0)
    return min(shift, scale, _both(old, new), key=lambda light: _unexplained(light, old, new))


def _both(old: Floats, new: Floats) -> Light:
    """Return the straight line through the dark and the bright quarter of the picture."""
    order = np.argsort(old)
    quarter = -(-len(order) // 4)  # at least one pixel: a camera that fails may send a picture of no more
    dark, bright = order[:quarter], order[-quarter:]
    dark_old, bright_old = _median(old[dark]), _median(old[bright])
    if bright_old - dark_old < _LEAST_CONTRAST:
        return Light(1.0, _median(new - old))
    dark_new = _median(new[dark])
    gain = _bounded((_median(new[bright]) - dark_new) / (bright_old - dark_old))
    return Light(gain, dark_new - gain * dark_old)


def _unexplained(light: Light, old: Floats, new: Floats) -> float:
    return float(np.minimum(np.abs(new - light.gain * old - light.offset), _MOVED).mean())


def _bounded(gain: float) -> float:
    return min(max(gain, 1 / _MOST_GAIN), _MOST_GAIN)


def _median(values: Floats) -> float:
    """Return the upper median: a sixth of the time of NumPy's, which takes the mean of two."""
    return float(np.partition(values, values.size // 2, axis=None)[values.size // 2])

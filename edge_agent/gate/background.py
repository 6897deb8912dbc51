"""Background model of a camera's scene, which finds the foreground: the pixels that differ from the background.

For each pixel, the model stores a background level (a running average) and a noise level (a running mean deviation).
Adaptive background mixture models store similar values for each pixel (Stauffer and Grimson, CVPR 1999). When a
moving object stops, its pixels become background after some seconds. The model remembers the background that a
stopped object hides. When a stopped object leaves, the model knows the background behind it, and reports no motion
there. When the light changes, the model estimates the change between two pictures and adapts the background.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.gate.stationary import StationaryMap

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

ABSORB_S = 4.0
"""Time for which a foreground pixel must be steady to count as part of a stopped object, in seconds. A passing bus
with a plain roof keeps a pixel steady for about a second, so the time must be longer than that."""
ESTABLISHED_S = 60.0
"""Minimum age of a background, in seconds, for replacing the remembered background behind a stopped object. A person
who stands still for less than a minute is not remembered as background."""
_LEARN_S = 2.0
"""Time constant with which a background pixel adapts where nothing moves, in seconds. The background follows
daylight, which changes within minutes."""
_FORGET_S = 60.0
"""Time constant with which a background pixel adapts where pixels change all the time, such as at branches and water,
in seconds."""
_NOISE_S = 3.3
"""Time constant of the running average of a pixel's noise, in seconds."""
_RECENT_S = 0.3
"""Time constant of a short running average of each pixel, in seconds. A foreground pixel is steady while its level
stays close to its short running average."""
_SIGMAS = 4.0
"""Detection limit of a foreground pixel, in mean deviations of the pixel's noise. For Gaussian noise, four mean
deviations are 3.2 standard deviations. A median filter later removes single pixels whose noise exceeded the detection
limit."""
_MIN_DIFFERENCE = 10.0
"""Minimum difference between a foreground pixel and the background, in grey levels. Compression noise causes smaller
differences."""
_JUDGE_S = 0.15
"""Time between two searches for steady pixels, in seconds. A search in every frame would cost eight times as much and
would find stopped objects no earlier, because objects take seconds to stop."""
_STEADY_SHARE = 0.5
"""Maximum difference between a steady pixel and its short running average, as a share of the detection limit."""
_FIRST_NOISE = 2.0
_MAX_NOISE = 20.0
"""Maximum noise that a pixel can learn from objects that pass all the time, in grey levels."""
_SETTLE_FRAMES = 3
"""Number of frames after the start during which the model learns the background and reports no foreground."""
_MAX_STEP_S = 1.0
"""Maximum time step between two frames that the model uses, in seconds. After a longer gap between frames, the
background adapts as if only ``_MAX_STEP_S`` had passed."""
_FLOOD_SHARE = 0.5
"""Minimum share of the picture that changes at once when a light is switched; a moving object usually covers a
smaller share."""
_FLOOD_S = 2.0
"""Minimum time between two switches of a light, in seconds. If another large change follows within two seconds, a
large object near the camera caused the change."""
_UNKNOWN = -1e6
"""Grey level that marks an unknown background behind stopped objects. No real pixel can have this level, even after
changes of light."""
_NEIGHBOURS = np.ones((3, 3), np.uint8)
_EVERY_PX = 4
"""Sampling step in x and y for estimating a change of light, in px; the estimate needs only about 1,000 pixels."""
_MIN_OFFSET = 2.0
"""Minimum change of light for which a gain is estimated, in grey levels; a smaller change is treated as one offset
for all pixels."""
_MIN_CONTRAST = 4.0
"""Minimum contrast for estimating a gain: the difference between the darkest and the brightest quarter of a picture,
in grey levels."""
_MAX_GAIN = 4.0
_MAX_ERROR = 20.0
"""Maximum error that one pixel can contribute when models of a light change are compared, in grey levels. Pixels of
moving objects have larger errors, and the limit keeps those pixels from deciding how the light has changed."""


class _Light(NamedTuple):
    """Linear change of light: a pixel of grey level ``g`` changes to ``gain * g + offset``."""

    gain: float
    offset: float

    def apply_to(self, picture: Floats) -> None:
        """Apply this change of light to a picture, in place."""
        if self.gain != 1.0:
            picture *= np.float32(self.gain)
        picture += np.float32(self.offset)


class Foreground(NamedTuple):
    """Two masks, ``(height, width)`` uint8, in which 1 marks a foreground pixel.

    ``differs`` marks all pixels that differ from the background. ``surely`` leaves out pixels that differ only
    because the background has moved by one pixel, such as the edge of a trembling mast.
    """

    differs: Mask
    surely: Mask


class Background:
    """Background model of one camera, as ``(height, width)`` float32 grey levels of the small pictures."""

    def __init__(self, first: Floats) -> None:
        self._back, self._recent = first.copy(), first.copy()
        self._hidden = np.full_like(first, _UNKNOWN)
        self._noise = np.full_like(first, _FIRST_NOISE)
        self._steady_s = np.zeros_like(first)
        self._since_s = np.zeros_like(first)
        self._clock_s = self._unjudged_s = 0.0
        self._seen = 0
        self._flood_s = -math.inf
        self.stationary = StationaryMap(first.shape)
        """Map of the objects that have stopped and have not left yet."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width of the small pictures, in px."""
        return self._back.shape

    def update(self, small: Floats, step_s: float) -> Foreground:
        """Learn from the next small picture, which was taken ``step_s`` after the previous picture.

        Return the foreground pixels of the picture.
        """
        step_s = min(max(step_s, 0.0), _MAX_STEP_S)
        self._clock_s += step_s
        if self._seen < _SETTLE_FRAMES:
            self._seen += 1
            cv2.accumulateWeighted(small, self._back, 0.5)
            np.copyto(self._recent, small)
            return _no_foreground(small)
        light = _light_change(self._back, small)
        light.apply_to(self._back)
        light.apply_to(self._hidden)
        limit = np.maximum(self._noise * np.float32(_SIGMAS), np.float32(_MIN_DIFFERENCE))
        difference = _difference(small, self._back)
        differs = surely = _exceeds(difference, limit)
        if cv2.countNonZero(differs):
            differs = self._unless_uncovered(small, limit, differs)
            surely = differs & _exceeds(_beyond_neighbours(small, self._back), limit)
        is_flooded = cv2.countNonZero(surely) > _FLOOD_SHARE * surely.size
        if is_flooded and self._clock_s - self._flood_s >= _FLOOD_S:
            self._begin_again(small)
            return _no_foreground(small)
        self._learn(small, difference, Foreground(differs, surely), step_s)
        self._unjudged_s += step_s
        if self._unjudged_s >= _JUDGE_S:
            self._absorb(small, limit, differs, self._unjudged_s)
            self._unjudged_s = 0.0
        return Foreground(differs, surely)

    def _unless_uncovered(self, small: Floats, limit: Floats, differs: Mask) -> Mask:
        """Return the pixels of ``differs`` that also differ from the remembered background behind stopped objects.

        A pixel of ``differs`` that equals the remembered background shows that a stopped object has left; the
        remembered background becomes the background again.
        """
        new = differs & _exceeds(_difference(small, self._hidden), limit)
        if cv2.countNonZero(new) != cv2.countNonZero(differs):
            bare = (differs != new).view(np.bool_)
            self._back[bare], self._since_s[bare] = self._hidden[bare], self._clock_s - ESTABLISHED_S
            self._hidden[bare] = _UNKNOWN
            self.stationary.uncovered(bare)
        return new

    def _begin_again(self, small: Floats) -> None:
        self._flood_s = self._clock_s
        np.copyto(self._hidden, self._back)
        self.stationary.relit()
        np.copyto(self._back, small)
        np.copyto(self._recent, small)
        self._since_s.fill(self._clock_s)
        self._steady_s.fill(0.0)

    def _learn(self, small: Floats, difference: Floats, foreground: Foreground, step_s: float) -> None:
        still = 1 - foreground.differs
        cv2.accumulateWeighted(small, self._back, _weight(step_s, _LEARN_S), still)
        # pixels near sure motion belong to a moving object and must not teach their variation as noise
        near = np.asarray(cv2.dilate(foreground.surely, _NEIGHBOURS), np.uint8)
        cv2.accumulateWeighted(difference, self._noise, _weight(step_s, _NOISE_S), 1 - near)
        if cv2.countNonZero(near):
            restless = np.minimum(difference, np.float32(_MAX_NOISE))
            cv2.accumulateWeighted(restless, self._noise, _weight(step_s, _FORGET_S), near)

    def _absorb(self, small: Floats, limit: Floats, differs: Mask, step_s: float) -> None:
        """Adapt the background to the foreground pixels.

        An unsteady pixel adapts slowly; a pixel that was steady for ``ABSORB_S`` becomes background at once.
        """
        unsteady = _exceeds(_difference(small, self._recent), limit * np.float32(_STEADY_SHARE))
        cv2.accumulateWeighted(small, self._recent, _weight(step_s, _RECENT_S))
        cv2.accumulateWeighted(small, self._back, _weight(step_s, _FORGET_S), differs & unsteady)
        longer_s = self._steady_s + np.float32(step_s)
        self._steady_s = np.asarray(cv2.copyTo(longer_s, differs & ~unsteady), np.float32)
        stopped = self._steady_s >= ABSORB_S
        if stopped.any():
            established = self._clock_s - self._since_s >= ESTABLISHED_S
            hides = stopped & ((self._hidden <= _UNKNOWN / 2) | established)
            self._hidden[hides] = self._back[hides]
            self.stationary.stopped(stopped, hides, self._clock_s)
            self._back[stopped] = self._recent[stopped]
            self._since_s[stopped], self._steady_s[stopped] = self._clock_s, 0.0


def _no_foreground(small: Floats) -> Foreground:
    nothing = np.zeros(small.shape, np.uint8)
    return Foreground(nothing, nothing)


def _difference(one: Floats, other: Floats) -> Floats:
    return np.asarray(cv2.absdiff(one, other), np.float32)


def _beyond_neighbours(small: Floats, back: Floats) -> Floats:
    """Return by how many grey levels each pixel is outside the range of the background at the pixel and its eight
    neighbours.

    The result is small at the edge of a mast that trembles in the wind, because that edge has moved by only one
    pixel.
    """
    above = cv2.subtract(small, cv2.dilate(back, _NEIGHBOURS))
    below = cv2.subtract(cv2.erode(back, _NEIGHBOURS), small)
    return np.asarray(cv2.max(above, below), np.float32)


def _exceeds(difference: Floats, limit: Floats) -> Mask:
    return (difference > limit).view(np.uint8)


def _weight(step_s: float, constant_s: float) -> float:
    """Return the weight of a new value in a running average with the time constant ``constant_s``."""
    return 1.0 - math.exp(-step_s / constant_s)


def _light_change(before: Floats, now: Floats) -> _Light:
    """Return the change of light between two pictures of the same scene, ``(height, width)`` float32.

    Three models of the change are compared, and the model with the smallest error is returned. The three models are
    an offset (fog), a gain (a lamp or the exposure), and an offset with a gain (a correction of contrast). The models
    use medians, so moving objects that cover less than half of the picture have no influence.
    """
    old, new = before[::_EVERY_PX, ::_EVERY_PX].ravel(), now[::_EVERY_PX, ::_EVERY_PX].ravel()
    shift = _Light(1.0, _median(new - old))
    if abs(shift.offset) < _MIN_OFFSET:
        return shift
    scale = _Light(_bounded(_median(new) / max(_median(old), 1.0)), 0.0)
    return min(shift, scale, _gain_and_offset(old, new), key=lambda light: _error(light, old, new))


def _gain_and_offset(old: Floats, new: Floats) -> _Light:
    """Return the gain and offset that fit the medians of the darkest and the brightest quarter of the picture."""
    order = np.argsort(old)
    quarter = -(-len(order) // 4)  # at least one pixel: a failing camera may send a picture of one pixel
    dark, bright = order[:quarter], order[-quarter:]
    dark_old, bright_old = _median(old[dark]), _median(old[bright])
    if bright_old - dark_old < _MIN_CONTRAST:
        return _Light(1.0, _median(new - old))
    dark_new = _median(new[dark])
    gain = _bounded((_median(new[bright]) - dark_new) / (bright_old - dark_old))
    return _Light(gain, dark_new - gain * dark_old)


def _error(light: _Light, old: Floats, new: Floats) -> float:
    return float(np.minimum(np.abs(new - light.gain * old - light.offset), _MAX_ERROR).mean())


def _bounded(gain: float) -> float:
    return min(max(gain, 1 / _MAX_GAIN), _MAX_GAIN)


def _median(values: Floats) -> float:
    """Return the median; for an even number of values, the upper of the two middle values.

    NumPy's ``median`` averages the two middle values instead, and takes six times as long.
    """
    return float(np.partition(values, values.size // 2, axis=None)[values.size // 2])

"""What the empty scene looks like, pixel by pixel, and which pixels differ from it.

Each pixel has a background, a running average, and its own noise, a running mean deviation, as in adaptive background
mixture models (Stauffer and Grimson, CVPR 1999). What has stopped is steady for some seconds, and then becomes the
background at once; what it hides is remembered, so that nothing is left behind when it goes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.gate.light import Light, change
from edge_agent.gate.rest import Rest

Floats = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

ABSORB_S = 4.0
"""What has been steady for so long has stopped. A bus with a plain roof takes one second to pass a pixel."""
ESTABLISHED_S = 60.0
"""What has been background for less than this, such as the coat of somebody who stands there, is not remembered in
place of what it hides."""
_LEARN_S = 2.0
"""Time constant of the background where nothing moves: the sun and the clouds are slower than that."""
_FORGET_S = 60.0
"""Of the background where something moves that is never steady: branches, water."""
_NOISE_S = 3.3
_RECENT_S = 0.3
"""Of the picture that the newest one is held against to see whether what moved is steady now."""
_SIGMAS = 4.0
"""In mean deviations of a pixel's own noise: 3.2 standard deviations; the single pixels left fall to the median."""
_MIN_DIFFERENCE = 10.0
"""In grey levels: below this, clothes that hardly differ from the ground are not told from compression anyway."""
_JUDGE_S = 0.15
"""So often it is looked at what is steady: an eighth of the work, for something that takes seconds."""
_STEADY_SHARE = 0.5
"""Of the difference that makes a pixel move, what it may tremble by and still be called steady."""
_FIRST_NOISE = 2.0
_RESTLESS = 20.0
"""In grey levels: more than this a pixel's noise does not grow by where things pass all the time."""
_SETTLE_FRAMES = 3
"""So many frames are background, whatever they show, until differences mean something."""
_LONGEST_STEP_S = 1.0
"""A frame after a longer gap teaches no more than one after this."""
_FLOOD_SHARE = 0.5
"""More of the picture than this does not change at once by things that move: a light was switched."""
_FLOOD_S = 2.0
"""But if it changes again within this time, something large is in front of the camera."""
_UNKNOWN = -1e6
"""The grey level of what nobody has seen: it differs from everything, in any light."""
_NEIGHBOURS = np.ones((3, 3), np.uint8)


class Moving(NamedTuple):
    """Two masks ``(height, width)`` uint8: 1 where a picture differs from the background, and where it surely does.

    The second leaves out what an edge does that trembles.
    """

    differs: Mask
    surely: Mask


class Background:
    """The empty scene of one camera, at the size of the small pictures: ``(height, width)`` float32 grey levels."""

    def __init__(self, first: Floats) -> None:
        self._back, self._recent = first.copy(), first.copy()
        self._hidden = np.full_like(first, _UNKNOWN)
        self._noise = np.full_like(first, _FIRST_NOISE)
        self._steady_s = np.zeros_like(first)
        self._since_s = np.zeros_like(first)
        self._clock_s = self._unjudged_s = 0.0
        self._seen = 0
        self._flood_s = -math.inf
        self.rest = Rest(first.shape)
        """What has stopped and has not gone since."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width."""
        return self._back.shape

    def moving(self, small: Floats, step_s: float) -> Moving:
        """Take the next picture, ``step_s`` after the one before, and return where something moves."""
        step_s = min(max(step_s, 0.0), _LONGEST_STEP_S)
        self._clock_s += step_s
        if self._seen < _SETTLE_FRAMES:
            self._settle(small)
            return _nowhere(small)
        self._light(change(self._back, small))
        limit = np.maximum(self._noise * np.float32(_SIGMAS), np.float32(_MIN_DIFFERENCE))
        size = _apart(small, self._back)
        differs = surely = _over(size, limit)
        if cv2.countNonZero(differs):
            differs = self._unless_uncovered(small, limit, differs)
            surely = differs & _over(_beyond(small, self._back), limit)
        if self._is_flood(surely):
            self._begin_again(small)
            return _nowhere(small)
        self._learn(small, size, Moving(differs, surely), step_s)
        self._unjudged_s += step_s
        if self._unjudged_s >= _JUDGE_S:
            self._absorb(small, limit, differs, self._unjudged_s)
            self._unjudged_s = 0.0
        return Moving(differs, surely)

    def _settle(self, small: Floats) -> None:
        self._seen += 1
        cv2.accumulateWeighted(small, self._back, 0.5)
        np.copyto(self._recent, small)

    def _light(self, light: Light) -> None:
        """Show what is known in the light of now: it falls on what is hidden or covered as well."""
        light.put_on(self._back)
        light.put_on(self._hidden)

    def _unless_uncovered(self, small: Floats, limit: Floats, differs: Mask) -> Mask:
        """Return what differs from what is hidden as well; where it does not, that is the background again."""
        new = differs & _over(_apart(small, self._hidden), limit)
        if cv2.countNonZero(new) != cv2.countNonZero(differs):
            bare = (differs != new).view(np.bool_)
            self._back[bare], self._since_s[bare] = self._hidden[bare], self._clock_s - ESTABLISHED_S
            self._hidden[bare] = _UNKNOWN
            self.rest.uncovered(bare)
        return new

    def _is_flood(self, moving: Mask) -> bool:
        if cv2.countNonZero(moving) <= _FLOOD_SHARE * moving.size or self._clock_s - self._flood_s < _FLOOD_S:
            return False
        self._flood_s = self._clock_s
        return True

    def _begin_again(self, small: Floats) -> None:
        np.copyto(self._hidden, self._back)
        self.rest.relit()
        np.copyto(self._back, small)
        np.copyto(self._recent, small)
        self._since_s.fill(self._clock_s)
        self._steady_s.fill(0.0)

    def _learn(self, small: Floats, size: Floats, moving: Moving, step_s: float) -> None:
        still = 1 - moving.differs
        cv2.accumulateWeighted(small, self._back, _weight(step_s, _LEARN_S), still)
        # what trembles by itself is noise; what is next to something that surely moves belongs to it
        near = np.asarray(cv2.dilate(moving.surely, _NEIGHBOURS), np.uint8)
        cv2.accumulateWeighted(size, self._noise, _weight(step_s, _NOISE_S), 1 - near)
        if cv2.countNonZero(near):
            restless = np.minimum(size, np.float32(_RESTLESS))
            cv2.accumulateWeighted(restless, self._noise, _weight(step_s, _FORGET_S), near)

    def _absorb(self, small: Floats, limit: Floats, differs: Mask, step_s: float) -> None:
        """Make background of what has been steady for long enough, and bit by bit of what never is."""
        unsteady = _over(_apart(small, self._recent), limit * np.float32(_STEADY_SHARE))
        cv2.accumulateWeighted(small, self._recent, _weight(step_s, _RECENT_S))
        cv2.accumulateWeighted(small, self._back, _weight(step_s, _FORGET_S), differs & unsteady)
        longer_s = self._steady_s + np.float32(step_s)
        self._steady_s = np.asarray(cv2.copyTo(longer_s, differs & ~unsteady), np.float32)
        stopped = self._steady_s >= ABSORB_S
        if stopped.any():
            established = self._clock_s - self._since_s >= ESTABLISHED_S
            hides = stopped & ((self._hidden <= _UNKNOWN / 2) | established)
            self._hidden[hides] = self._back[hides]
            self.rest.stopped(stopped, hides, self._clock_s)
            self._back[stopped] = self._recent[stopped]
            self._since_s[stopped], self._steady_s[stopped] = self._clock_s, 0.0


def _nowhere(small: Floats) -> Moving:
    nothing = np.zeros(small.shape, np.uint8)
    return Moving(nothing, nothing)


def _apart(one: Floats, other: Floats) -> Floats:
    return np.asarray(cv2.absdiff(one, other), np.float32)


def _beyond(small: Floats, back: Floats) -> Floats:
    """Return by how much a picture is brighter or darker than anything next to the same place in a background.

    Masts tremble in the wind, and an edge that has moved by a pixel is still the same edge.
    """
    above = cv2.subtract(small, cv2.dilate(back, _NEIGHBOURS))
    below = cv2.subtract(cv2.erode(back, _NEIGHBOURS), small)
    return np.asarray(cv2.max(above, below), np.float32)


def _over(size: Floats, limit: Floats) -> Mask:
    return (size > limit).view(np.uint8)


def _weight(step_s: float, constant_s: float) -> float:
    """Return the weight of a new value in a running average with a time constant."""
    return 1.0 - math.exp(-step_s / constant_s)

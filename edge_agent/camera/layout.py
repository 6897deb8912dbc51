"""The layout of a scene's edges against a slow memory of it: what covers, blurs or turns a camera changes it. Pure.

Light comes and goes and things move, and the edges of walls, kerbs and roofs stay where they are. So the strengths of
edges are compared by their correlation, which does not mind that all of them grow weaker at dusk; a lens out of focus
loses its fine edges before its coarse ones.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.sources.source import Grey

Field = npt.NDArray[np.float32]

_SMOOTH_S = 3.0
"""Pictures are averaged over so long: noise goes, and so does what passes."""
_MEMORY_S = 300.0
"""The memory follows shadows, which move by their own width in several minutes."""
_LEARN_S = 30.0
"""Nothing is judged before the memory is so old."""
_UNLIKE = 0.35
"""Below this correlation it is another view: the same one keeps above 0.5 through rain, night and heavy traffic."""
_BLURRED = 0.55
"""Of the share of fine edges that the memory has: rain and noise add to it, nothing but a lens takes so much away."""
_FLAT = 2.0
"""In grey levels: a view whose standard deviation is smaller shows nothing."""
_COVERED = 0.35
"""Of the memory's standard deviation."""
_NEAR = (7, 7)
"""Pixels of the small picture within which an edge may be found again: masts sway."""


class SceneLayout:
    """One view. It must be looked at every second or so. ``before`` is its memory of an earlier life."""

    def __init__(self, relearn_s: float, before: Grey | None = None) -> None:
        self._relearn_s = relearn_s
        self._before = before
        self._now: Field = np.zeros((0, 0), np.float32)
        self._memory = self._now
        self._learnt_s = 0.0
        self._looked_s = 0.0
        self._unlike_s: float | None = None

    def look(self, grey: Grey, now_s: float) -> str:
        """Return what is wrong with a small picture of the view, empty if nothing is."""
        if self._now.shape != grey.shape:
            self._begin(grey, now_s)
        passed_s, self._looked_s = max(0.0, now_s - self._looked_s), now_s
        cv2.accumulateWeighted(grey, self._now, _rate(passed_s, _SMOOTH_S))
        what = self._judge() if self._learnt_s >= _LEARN_S else ""
        if not what or self._has_settled(now_s):
            self._learn(passed_s)
            return ""
        return what

    @property
    def memory(self) -> Grey | None:
        """What the view usually is, None while that is not known."""
        return self._memory.astype(np.uint8) if self._learnt_s >= _LEARN_S else None

    def _begin(self, grey: Grey, now_s: float) -> None:
        before, self._before = self._before, None
        known = before is not None and before.shape == grey.shape
        self._now = grey.astype(np.float32)
        self._memory = before.astype(np.float32) if before is not None and known else self._now.copy()
        self._learnt_s, self._looked_s, self._unlike_s = _LEARN_S if known else 0.0, now_s, None

    def _learn(self, passed_s: float) -> None:
        self._unlike_s = None
        self._learnt_s += passed_s
        cv2.accumulateWeighted(self._now, self._memory, _rate(passed_s, min(_MEMORY_S, self._learnt_s)))

    def _has_settled(self, now_s: float) -> bool:
        """Take a view that has been another one for long enough as the camera's own."""
        self._unlike_s = now_s if self._unlike_s is None else self._unlike_s
        if now_s - self._unlike_s < self._relearn_s:
            return False
        self._memory, self._learnt_s = self._now.copy(), 0.0
        return True

    def _judge(self) -> str:
        spread, usual = float(self._now.std()), float(self._memory.std())
        if spread < _FLAT:
            return "covered: nothing is to be seen"
        fine, fine_before = _edges(self._now), _edges(self._memory)
        alike = _correlation(_near(fine), _near(fine_before))
        blurred = _sharpness(fine, self._now) < _BLURRED * _sharpness(fine_before, self._memory)
        if blurred and alike >= _UNLIKE / 2:
            return "out of focus"
        if alike < _UNLIKE:
            return "covered" if spread < _COVERED * usual else "turned away, or covered"
        return ""


def _rate(passed_s: float, over_s: float) -> float:
    return float(1.0 - np.exp(-passed_s / over_s)) if over_s else 1.0


def _edges(picture: Field) -> Field:
    across, down = cv2.Sobel(picture, cv2.CV_32F, 1, 0, ksize=3), cv2.Sobel(picture, cv2.CV_32F, 0, 1, ksize=3)
    return np.asarray(cv2.magnitude(across, down), np.float32)


def _near(fine: Field) -> Field:
    return np.asarray(cv2.blur(fine, _NEAR), np.float32)


def _sharpness(fine: Field, picture: Field) -> float:
    """Return how strong the strongest fine edges are, as a share of the picture's whole contrast."""
    return float(np.percentile(fine, 98) / (picture.std() + 1.0))


def _centred(field: Field) -> Field:
    """Take off the means of rows and columns: a kerb from edge to edge looks the same wherever the camera turns."""
    rows, columns = field.mean(axis=1, keepdims=True), field.mean(axis=0, keepdims=True)
    return np.asarray(field - rows - columns + field.mean(), np.float32)


def _correlation(one: Field, other: Field) -> float:
    a, b = _centred(one), _centred(other)
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-6))

"""Tamper detection: compare the edges in a camera's current view with the edges of its usual view. Pure.

In a good view, light changes and objects move, but the edges of walls, kerbs and roofs stay in place. Covering,
blurring or turning the camera changes the edges in the picture. The detector compares edge strengths by correlation,
which stays the same when all edges grow weaker at dusk. A lens that goes out of focus blurs fine edges before coarse
ones, so a drop in sharpness means a blurred view.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.sources.source import Grey

Field = npt.NDArray[np.float32]

_SMOOTH_S = 3.0
"""Time constant of the short running average that serves as the current picture, in seconds. A running average has
less noise than a single picture, and shows no passing objects."""
_MEMORY_S = 300.0
"""Time constant of the usual view, which is a long running average of the camera's pictures, in seconds. The usual
view must follow shadows, which move within minutes."""
_LEARN_S = 30.0
"""Time for which the usual view is learnt before the current picture is compared with the usual view, in seconds."""
_UNLIKE = 0.35
"""Minimum correlation between the edges of the current picture and of the usual view. The view has changed if the
correlation with the usual view's edges is below ``_UNLIKE``. The correlation of an unchanged view stays above 0.5 in
rain and at night."""
_BLURRED = 0.55
"""Minimum sharpness of the current picture, as a share of the sharpness of the usual view. The view is blurred if the
sharpness is below this minimum.

Rain and noise increase a picture's sharpness, so only a lens that is out of focus reduces it this far.
"""
_FLAT = 2.0
"""Minimum standard deviation of a picture, in grey levels. A picture with a deviation below this minimum shows
nothing."""
_COVERED = 0.35
"""Minimum standard deviation of a changed view, as a share of the standard deviation of the usual view. A changed
view counts as covered if its standard deviation is below this share of the usual view's. With a higher standard
deviation, a changed view may be turned away or covered, and the reason names both."""
_NEAR = (7, 7)
"""Width and height of the area over which edge strengths are averaged, in px of the small picture. An edge may move
within such an area, because masts sway."""


class SceneLayout:
    """Tamper detector of one camera; ``look`` is called about twice a second.

    ``before`` is the picture of the usual view that an earlier capture saved.
    """

    def __init__(self, relearn_s: float, before: Grey | None = None) -> None:
        self._relearn_s = relearn_s
        self._before = before
        self._now: Field = np.zeros((0, 0), np.float32)
        self._memory = self._now
        self._learnt_s = 0.0
        self._looked_s = 0.0
        self._unlike_s: float | None = None

    def look(self, grey: Grey, now_s: float) -> str:
        """Return what is wrong with the view, given a small picture; an empty string for a good view."""
        if self._now.shape != grey.shape:
            self._begin(grey, now_s)
        passed_s, self._looked_s = max(0.0, now_s - self._looked_s), now_s
        cv2.accumulateWeighted(grey, self._now, _rate(passed_s, _SMOOTH_S))
        fault = self._judge() if self._learnt_s >= _LEARN_S else ""
        if not fault or self._has_settled(now_s):
            self._learn(passed_s)
            return ""
        return fault

    @property
    def memory(self) -> Grey | None:
        """Picture of the usual view; None until the usual view is known."""
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
        """Return whether a changed view has lasted for ``relearn_s``, so that it becomes the usual view.

        When ``relearn_s`` has passed, replace the usual view with the changed view.
        """
        self._unlike_s = now_s if self._unlike_s is None else self._unlike_s
        if now_s - self._unlike_s < self._relearn_s:
            return False
        self._memory, self._learnt_s = self._now.copy(), 0.0
        return True

    def _judge(self) -> str:
        spread, usual = float(self._now.std()), float(self._memory.std())
        if spread < _FLAT:
            return "covered: nothing is visible"
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
    """Return the strength of the strongest edges of a picture, relative to the contrast of the picture."""
    return float(np.percentile(fine, 98) / (picture.std() + 1.0))


def _centred(field: Field) -> Field:
    """Return the edge strengths minus the mean of each row and the mean of each column.

    A line across the whole picture, such as a kerb, can look the same after the camera has been turned. Subtracting
    the row and column means removes lines across the whole picture from the comparison.
    """
    rows, columns = field.mean(axis=1, keepdims=True), field.mean(axis=0, keepdims=True)
    return np.asarray(field - rows - columns + field.mean(), np.float32)


def _correlation(one: Field, other: Field) -> float:
    a, b = _centred(one), _centred(other)
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-6))

"""Tamper detection: compare the edges in a camera's view with a slow average of earlier views. Pure.

Light changes and objects move, but the edges of walls, kerbs and roofs stay in place. Covering, blurring or turning a
camera changes these edges. Edge strengths are compared by correlation, which does not change when all edges grow
weaker at dusk. A lens that goes out of focus loses fine edges before coarse ones.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from edge_agent.sources.source import Grey

Field = npt.NDArray[np.float32]

_SMOOTH_S = 3.0
"""Time constant of the average that serves as the current picture. The average contains less noise than one picture,
and no passing objects."""
_MEMORY_S = 300.0
"""Time constant of the memory, which is a slow average of the camera's pictures. The memory must follow shadows,
which move within minutes."""
_LEARN_S = 30.0
"""Minimum age of the memory before the current picture is compared with the memory."""
_UNLIKE = 0.35
"""Correlation of the edges with the memory's edges below which the camera shows another view. An unchanged view stays
above 0.5 in rain and at night."""
_BLURRED = 0.55
"""Share of the memory's sharpness below which the view is blurred.

Rain and noise add sharpness. Only a lens that is out of focus reduces sharpness below this share.
"""
_FLAT = 2.0
"""Standard deviation in grey levels below which a view shows nothing."""
_COVERED = 0.35
"""Share of the memory's standard deviation below which a changed view is covered. A changed view above this share
means that the camera is turned away."""
_NEAR = (7, 7)
"""Area around an edge, in px of the small picture, within which the edge may move, because masts sway."""


class SceneLayout:
    """Tamper detector of one camera, called about once a second.

    ``before`` is the memory (usual picture) that an earlier capture saved.
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
        """Return the fault of the view in a small picture; an empty string for a good view."""
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
        """Usual picture of the view; None while the usual picture is unknown."""
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
        """Return whether a changed view has lasted for ``relearn_s`` and is now the usual view.

        After ``relearn_s``, replace the memory with the changed view.
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
    """Return the strength of the strongest edges, relative to the contrast of the picture."""
    return float(np.percentile(fine, 98) / (picture.std() + 1.0))


def _centred(field: Field) -> Field:
    """Return the edge strengths minus the means of their rows and columns.

    Lines across the whole picture, such as a kerb, occur in any direction of view. Subtracting the means removes such
    lines.
    """
    rows, columns = field.mean(axis=1, keepdims=True), field.mean(axis=0, keepdims=True)
    return np.asarray(field - rows - columns + field.mean(), np.float32)


def _correlation(one: Field, other: Field) -> float:
    a, b = _centred(one), _centred(other)
    return float((a * b).sum() / (np.sqrt((a * a).sum() * (b * b).sum()) + 1e-6))

"""Health of a camera's view: good, frozen, black or tampered. Pure: the caller passes small pictures and times.

A video stream may arrive in time and decode without error, and still show nothing useful. The agent reports a frozen,
black or tampered view as the state of the camera, and continues to capture frames.
"""

from __future__ import annotations

import numpy as np

from edge_agent.camera.layout import SceneLayout
from edge_agent.camera.messages import ViewCondition
from edge_agent.sources.source import Grey
from ingest.site import WatchConfig

SMALL_WIDTH_PX = 160
"""Width of the small pictures that are checked, in px. A picture of ``SMALL_WIDTH_PX`` still shows the layout of a
scene, and checking the picture takes 0.25 ms."""
_SAME_SHARE = 0.99
"""Minimum share of pixels that stay unchanged in a frozen view. Up to 1 % of the pixels may change in a frozen view,
because some cameras draw a clock into their pictures."""
_BLACK_LEVEL = 32
"""Grey level above which a pixel counts as lit, from 0 to 255. Black in video has grey level 16, and sensor noise
adds a few levels."""
_LIT_SHARE = 0.01
"""Minimum share of lit pixels; a view with fewer lit pixels is black. At night, the lamps of a street light a larger
share of the pixels."""
_RECOVER_S = 2.0
"""Time for which a black or tampered view must be good again before the agent reports the view as good, in seconds.
Without a delay, the reported state would change repeatedly while someone wipes the lens."""


def small(grey: Grey) -> Grey:
    """Return every n-th pixel of every n-th row, so that the picture is about 160 px wide.

    Averaging would hide the sensor noise, which distinguishes a still scene from a frozen picture.
    """
    step = max(1, grey.shape[1] // SMALL_WIDTH_PX)
    return np.ascontiguousarray(grey[::step, ::step])


class ViewHealth:
    """Detector of a frozen, black or tampered view of one camera.

    ``before`` is the picture of the usual view (``memory``) from an earlier capture of the same camera.
    """

    def __init__(self, config: WatchConfig, before: Grey | None = None) -> None:
        self._frozen, self._black = _Hysteresis(config.frozen_s), _Hysteresis(config.black_s, _RECOVER_S)
        self._tampered = _Hysteresis(config.tampered_s, _RECOVER_S)
        self._layout = SceneLayout(config.relearn_s, before)
        self._same: Grey = np.zeros((0, 0), np.uint8)
        self._fault = ""

    @property
    def memory(self) -> Grey | None:
        """Picture of the usual view; None until the usual view is known."""
        return self._layout.memory

    def look(self, grey: Grey, now_s: float) -> ViewCondition:
        """Return the condition of the view, given a ``(height, width)`` uint8 picture from ``small`` and its time."""
        frozen = self._frozen.since(self._is_same(grey), now_s)
        black = self._black.since(bool(np.mean(grey > _BLACK_LEVEL) < _LIT_SHARE), now_s)
        if self._black.begun:
            return ViewCondition("black", "the picture is black") if black else ViewCondition()
        if frozen:
            return ViewCondition("frozen", "the picture does not change")
        fault = self._layout.look(grey, now_s)
        self._fault = fault or self._fault
        return ViewCondition("tampered", self._fault) if self._tampered.since(bool(fault), now_s) else ViewCondition()

    def _is_same(self, grey: Grey) -> bool:
        if self._same.shape == grey.shape and np.mean(self._same == grey) >= _SAME_SHARE:
            return True
        self._same = grey.copy()
        return False


class _Hysteresis:
    """Switch that turns on when a condition has held for ``begin_s``, and turns off when the condition has not held
    for ``end_s``."""

    def __init__(self, begin_s: float, end_s: float = 0.0) -> None:
        self._begin_s, self._end_s = begin_s, end_s
        self._from_s: float | None = None
        self._seen_s = 0.0
        self._on = False

    @property
    def begun(self) -> bool:
        """Whether the condition holds or held within the last ``end_s``, even if the condition has lasted for less
        than ``begin_s``."""
        return self._from_s is not None

    def since(self, seen: bool, now_s: float) -> bool:
        """Update the switch; ``seen`` says whether the condition holds at ``now_s``.

        Return whether the switch is on.
        """
        if not self._begin_s:
            return False
        if seen:
            self._seen_s = now_s
            self._from_s = now_s if self._from_s is None else self._from_s
            self._on = self._on or now_s - self._from_s >= self._begin_s
        elif self._from_s is not None and (not self._on or now_s - self._seen_s >= self._end_s):
            self._on, self._from_s = False, None
        return self._on

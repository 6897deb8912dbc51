"""Whether a camera shows what it should: frozen, black or tampered with. Pure; fed with small pictures and times.

None of these ends a capture. A stream may come in time, decode well, and show nothing: that is told, not hidden.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from edge_agent.camera.layout import SceneLayout
from edge_agent.sources.source import Grey
from ingest.site import WatchConfig

ViewState = Literal["", "frozen", "black", "tampered"]

SMALL_WIDTH_PX = 160
"""Pictures are looked at in this width: enough for the layout of a scene, and a quarter of a millisecond."""
_SAME_SHARE = 0.99
"""A frozen picture may have a clock burnt in that goes on."""
_BLACK_LEVEL = 32
"""Video black is 16 of 255 and a little noise; a street at night has lamps."""
_LIT_SHARE = 0.01
_RECOVER_S = 2.0
"""A view is well again when it has been well for so long: no to and fro while someone wipes the lens."""


@dataclass(frozen=True, slots=True)
class ViewCondition:
    """How a view is: an empty ``state`` is a good one."""

    state: ViewState = ""
    reason: str = ""


def small(grey: Grey) -> Grey:
    """Return every so many-th pixel: averaging would take away the noise that tells a live picture from a frozen."""
    step = max(1, grey.shape[1] // SMALL_WIDTH_PX)
    return np.ascontiguousarray(grey[::step, ::step])


class ViewHealth:
    """One camera's view over time. ``before`` is the ``memory`` of an earlier life."""

    def __init__(self, config: WatchConfig, before: Grey | None = None) -> None:
        self._frozen, self._black = _Lasting(config.frozen_s), _Lasting(config.black_s, _RECOVER_S)
        self._tampered = _Lasting(config.tampered_s, _RECOVER_S)
        self._layout = SceneLayout(config.relearn_s, before)
        self._same: Grey = np.zeros((0, 0), np.uint8)
        self._what = ""

    @property
    def memory(self) -> Grey | None:
        """What the view usually is, None while that is not known."""
        return self._layout.memory

    def look(self, grey: Grey, now_s: float) -> ViewCondition:
        """Return how the view is, given a picture of it ``(height, width)`` that ``small`` made, and its time."""
        frozen = self._frozen.since(self._is_same(grey), now_s)
        black = self._black.since(bool(np.mean(grey > _BLACK_LEVEL) < _LIT_SHARE), now_s)
        if self._black.begun:
            return ViewCondition("black", "the picture is black") if black else ViewCondition()
        if frozen:
            return ViewCondition("frozen", "the very same picture again and again")
        what = self._layout.look(grey, now_s)
        self._what = what or self._what
        return ViewCondition("tampered", self._what) if self._tampered.since(bool(what), now_s) else ViewCondition()

    def _is_same(self, grey: Grey) -> bool:
        if self._same.shape == grey.shape and np.mean(self._same == grey) >= _SAME_SHARE:
            return True
        self._same = grey.copy()
        return False


class _Lasting:
    """Something that counts when it has lasted for ``begin_s``, and until it has been away for ``end_s``."""

    def __init__(self, begin_s: float, end_s: float = 0.0) -> None:
        self._begin_s, self._end_s = begin_s, end_s
        self._from_s: float | None = None
        self._seen_s = 0.0
        self._on = False

    @property
    def begun(self) -> bool:
        """Tell whether it may be on, or is about to be."""
        return self._from_s is not None

    def since(self, seen: bool, now_s: float) -> bool:
        """Take note whether it is seen now. Return whether it counts."""
        if not self._begin_s:
            return False
        if seen:
            self._seen_s = now_s
            self._from_s = now_s if self._from_s is None else self._from_s
            self._on = self._on or now_s - self._from_s >= self._begin_s
        elif self._from_s is not None and (not self._on or now_s - self._seen_s >= self._end_s):
            self._on, self._from_s = False, None
        return self._on

"""Frames at an even pace, for sources that have none of their own."""

from __future__ import annotations

import time
from collections.abc import Callable

from ingest.runtime.clock import Clock

SLICE_S = 1.0
"""Nobody waits for longer than this at a time: a capture that is told to stop stops, and is seen to live."""
_MAX_LAG_S = 1.0
"""Behind by more than this, the pace starts afresh instead of hurrying to catch up."""


class FramePacer:
    """Waits until the next frame is due. ``wait`` may be replaced in tests."""

    def __init__(self, fps: float, clock: Clock, wait: Callable[[float], None] = time.sleep) -> None:
        self._interval_s = 1.0 / fps
        self._clock = clock
        self._wait = wait
        self._due_s: float | None = None

    def ready(self) -> bool:
        """Block until the next frame is due, but no longer than ``SLICE_S``; tell whether it is. The first one is."""
        now_s = self._clock.monotonic()
        if self._due_s is None or now_s - self._due_s > _MAX_LAG_S:
            self._due_s = now_s
        left_s = self._due_s - now_s
        if left_s > 0:
            self._wait(min(left_s, SLICE_S))
        if left_s > SLICE_S:
            return False
        self._due_s += self._interval_s
        return True

    def rest(self, seconds: float) -> None:
        """Block for so long, but no longer than ``SLICE_S``: there was nothing to read."""
        self._wait(min(seconds, SLICE_S))

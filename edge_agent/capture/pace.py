"""Frames at an even pace, for sources that have none of their own."""

from __future__ import annotations

import time
from collections.abc import Callable

from ingest.clock import Clock

__all__ = ["Pace"]

_MAX_LAG_S = 1.0
"""Behind by more than this, the pace starts afresh instead of hurrying to catch up."""


class Pace:
    """Waits until the next frame is due. ``wait`` may be replaced in tests."""

    def __init__(self, fps: float, clock: Clock, wait: Callable[[float], None] = time.sleep) -> None:
        self._interval_s = 1.0 / fps
        self._clock = clock
        self._wait = wait
        self._due_s: float | None = None

    def next(self) -> None:
        """Block until the next frame is due. The first one is due at once."""
        now_s = self._clock.monotonic()
        if self._due_s is None or now_s - self._due_s > _MAX_LAG_S:
            self._due_s = now_s
        if self._due_s > now_s:
            self._wait(self._due_s - now_s)
        self._due_s += self._interval_s

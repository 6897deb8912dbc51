"""Pacing of frames at even intervals, for sources that have no frame rate of their own."""

from __future__ import annotations

import time
from collections.abc import Callable

from ingest.runtime.clock import Clock

SLICE_S = 1.0
"""Maximum length of one wait, in seconds. Between two waits, the capture process checks for a stop request and
reports its progress."""
_MAX_LAG_S = 1.0
"""Maximum delay of a frame after its due time, in seconds. After a delay of more than ``_MAX_LAG_S``, the schedule
starts again at the present time, without catching up."""


class FramePacer:
    """Pacer that waits until the next frame is due. Tests replace ``wait``."""

    def __init__(self, fps: float, clock: Clock, wait: Callable[[float], None] = time.sleep) -> None:
        self._interval_s = 1.0 / fps
        self._clock = clock
        self._wait = wait
        self._due_s: float | None = None

    def ready(self) -> bool:
        """Block until the next frame is due, but at most for ``SLICE_S``. Return whether the frame is due."""
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
        """Block for ``seconds``, but at most for ``SLICE_S``.

        A source calls ``rest`` after a read that found no frame.
        """
        self._wait(min(seconds, SLICE_S))

"""Keep or withhold: rate first, then motion. Pure but for the detector's state; time comes with the frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from edge_agent.gate.motion import MotionDetector
from ingest.records import Box
from ingest.site import GateConfig

__all__ = ["Gate", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``reason`` says why a frame is withheld; empty when it is kept.

    ``motion`` is None when the gate did not look, and empty when it looked and nothing moved.
    """

    reason: str
    motion: tuple[Box, ...] | None = None

    @property
    def keep(self) -> bool:
        """Tell whether the frame is kept."""
        return not self.reason


class Gate:
    """Decides on the frames of one camera, in order. The first frame is always kept."""

    def __init__(self, config: GateConfig) -> None:
        self._config = config
        self._interval_ns = 1e9 / config.max_fps if config.max_fps else 0.0
        self._detector = MotionDetector(config.min_area) if config.motion else None
        self._next_ns = 0.0
        self._kept_ns: int | None = None
        self._moved_ns: int | None = None

    def judge(self, image: npt.NDArray[np.uint8], captured_ns: int) -> Verdict:
        """Return what becomes of a frame ``(height, width, 3)`` uint8 that was captured at ``captured_ns``."""
        if self._interval_ns and self._kept_ns is not None and captured_ns < self._next_ns:
            return Verdict("rate")
        # on from when it was due, so that the rate is held on average; but a camera that was away is not made up for
        behind = self._kept_ns is None or captured_ns - self._next_ns >= self._interval_ns
        self._next_ns = (captured_ns if behind else self._next_ns) + self._interval_ns
        motion = self._detector.boxes(image) if self._detector else None
        if motion:
            self._moved_ns = captured_ns
        if motion is not None and not self._open(captured_ns):
            return Verdict("still", motion)
        self._kept_ns = captured_ns
        return Verdict("", motion)

    def _open(self, now_ns: int) -> bool:
        config = self._config
        if self._kept_ns is None:
            return True
        if self._moved_ns is not None and now_ns - self._moved_ns <= config.hold_s * 1e9:
            return True
        return bool(config.keep_alive_s) and now_ns - self._kept_ns >= config.keep_alive_s * 1e9

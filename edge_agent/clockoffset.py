"""Offset of the broker's clock from the local clock. Pure.

Each heartbeat on ``status`` is one measurement. The broker stamps the record with its own clock, at a moment between
the send and the acknowledgement. The offset is therefore the broker's stamp minus the midpoint of the local send and
acknowledgement times. The error is at most half the time between send and acknowledgement (Cristian, "Probabilistic
clock synchronization", Distributed Computing 3, 1989). The estimate is the recent measurement with the shortest round
trip. When the local clock or the broker's clock is set, all earlier measurements are dropped.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MEASUREMENTS_KEPT = 60
"""Number of recent measurements to keep: one for each heartbeat of the last minute. A clock that runs 50 ppm fast
gains 3 ms in that minute, about as much as the error of one measurement."""
_STAMP_MS = 1.0
"""Resolution of Kafka's timestamps."""
_DRIFT_MS = 6.0
"""Maximum drift of the two clocks between two recent measurements, in ms: 100 ppm for one minute. A larger difference
between two measurements means that one of the clocks was set."""


@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """The broker's clock is ahead of the local clock by ``offset_ms``, with a maximum error of ``error_ms``."""

    offset_ms: float
    error_ms: float


class ClockOffset:
    """Estimator of the broker's clock offset from a series of acknowledged heartbeats."""

    def __init__(self) -> None:
        self._last: deque[ClockEstimate] = deque(maxlen=MEASUREMENTS_KEPT)

    def add(self, sent_ns: int, acknowledged_ns: int, stamp_ms: int) -> None:
        """Add a measurement: local send and acknowledgement times in Unix ns, and the broker's stamp in Unix ms.

        Ignore a measurement during which the local clock was set back.
        """
        took_ms = (acknowledged_ns - sent_ns) / 1e6
        if took_ms < 0.0:
            return
        middle_ms = (sent_ns + acknowledged_ns) / 2e6
        found = ClockEstimate(stamp_ms + _STAMP_MS / 2 - middle_ms, (took_ms + _STAMP_MS) / 2)
        for before in tuple(self._last):
            if abs(found.offset_ms - before.offset_ms) > found.error_ms + before.error_ms + _DRIFT_MS:
                self._last.clear()  # the two measurements contradict each other: a clock was set between them
        self._last.append(found)

    @property
    def estimate(self) -> ClockEstimate | None:
        """The recent estimate with the smallest error; None before the first measurement."""
        return min(self._last, key=lambda e: e.error_ms, default=None)

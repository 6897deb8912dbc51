"""Estimate of how far the clock of the Kafka broker is ahead of the local clock. Pure.

Each heartbeat that the agent sends to the ``status`` topic gives one measurement of the offset. The broker sets the
record's timestamp with its own clock, at some moment between the send and the acknowledgement. The measured offset is
the broker's timestamp minus the midpoint of the local send and acknowledgement times. The maximum error of the
measured offset is half the time between send and acknowledgement (Cristian, "Probabilistic clock synchronization",
Distributed Computing 3, 1989). The estimated offset is the recent measurement with the shortest round trip. All
earlier measurements are dropped when somebody sets the local clock or the broker's clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

MEASUREMENTS_KEPT = 60
"""Number of recent measurements to keep: at one heartbeat a second, the measurements of the last minute. A clock that
runs 50 ppm fast gains 3 ms in a minute, about as much as the error of one measurement."""
_STAMP_MS = 1.0
"""Resolution of Kafka's timestamps, in ms."""
_DRIFT_MS = 6.0
"""Maximum drift between the two clocks from one recent measurement to another, in ms: 100 ppm for one minute. If two
measurements differ by more than this drift and their errors, somebody has set one of the clocks."""


@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """Offset by which the broker's clock is ahead of the local clock, ``offset_ms``, and the maximum error of the
    offset, ``error_ms``."""

    offset_ms: float
    error_ms: float


class ClockOffset:
    """Estimator of the broker's clock offset from a series of acknowledged heartbeats."""

    def __init__(self) -> None:
        self._last: deque[ClockEstimate] = deque(maxlen=MEASUREMENTS_KEPT)

    def add(self, sent_ns: int, acknowledged_ns: int, stamp_ms: int) -> None:
        """Add a measurement: the local send and acknowledgement times in Unix ns, and the broker's timestamp in Unix
        ms.

        Ignore the measurement if the local clock was set back between send and acknowledgement.
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
        """The recent measurement with the smallest error; None before the first measurement."""
        return min(self._last, key=lambda e: e.error_ms, default=None)

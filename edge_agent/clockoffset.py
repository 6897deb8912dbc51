"""Offset of the broker's clock from the local clock. Pure.

The broker stamps each record on ``status`` with its own clock, at a moment between the send and the acknowledgement.
So its offset is the stamp minus the middle of the two, with an error of at most half the duration of the exchange
(F. Cristian, "Probabilistic clock synchronization", Distributed Computing 3, 1989). The quickest recent exchange
gives the estimate. When a clock is set, all earlier exchanges are dropped.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

EXCHANGES = 60
"""Number of recent exchanges: one minute of heartbeats. A clock that runs 50 ppm fast gains 3 ms in that time, about
the error of one exchange."""
_STAMP_MS = 1.0
"""Resolution of Kafka's timestamps."""
_DRIFT_MS = 6.0
"""Maximum drift between two recent exchanges, at 100 ppm. A larger difference means that a clock was set."""


@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """The broker's clock is ahead of the local clock by ``offset_ms``, with a maximum error of ``error_ms``."""

    offset_ms: float
    error_ms: float


class ClockOffset:
    """Estimate of the offset from a series of exchanges."""

    def __init__(self) -> None:
        self._last: deque[ClockEstimate] = deque(maxlen=EXCHANGES)

    def add(self, sent_ns: int, acknowledged_ns: int, stamp_ms: int) -> None:
        """Add an exchange: local times in Unix ns, and the broker's stamp in Unix ms.

        Ignore an exchange during which the local clock was set back.
        """
        took_ms = (acknowledged_ns - sent_ns) / 1e6
        if took_ms < 0.0:
            return
        middle_ms = (sent_ns + acknowledged_ns) / 2e6
        found = ClockEstimate(stamp_ms + _STAMP_MS / 2 - middle_ms, (took_ms + _STAMP_MS) / 2)
        for before in tuple(self._last):
            if abs(found.offset_ms - before.offset_ms) > found.error_ms + before.error_ms + _DRIFT_MS:
                self._last.clear()  # they contradict each other: a clock was set between them
        self._last.append(found)

    @property
    def estimate(self) -> ClockEstimate | None:
        """The most exact recent estimate, None before the first exchange."""
        return min(self._last, key=lambda e: e.error_ms, default=None)

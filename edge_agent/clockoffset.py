"""How far this machine's clock is from the broker's. Pure.

The broker stamps what is written to ``status`` with its own clock. It did so at some moment between the send and the
acknowledgement, so that its clock is ahead of ours by the stamp less the middle of the two, within half of the time
that the exchange took (F. Cristian, "Probabilistic clock synchronization", Distributed Computing 3, 1989). The
quickest exchange of the last ones counts, until a clock is set: then all that was found before is forgotten.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

EXCHANGES = 60
"""A minute of heartbeats: a clock that runs 50 ppm fast is 3 ms off by then, as much as an exchange is unsure."""
_STAMP_MS = 1.0
"""Kafka's stamps are cut to whole milliseconds."""
_DRIFT_MS = 6.0
"""Between two exchanges of the last ones clocks may part by so much, at 100 ppm. By more, one of them was set."""


@dataclass(frozen=True, slots=True)
class ClockEstimate:
    """The broker's clock is ahead of ours by ``offset_ms``, give or take ``error_ms``."""

    offset_ms: float
    error_ms: float


class ClockOffset:
    """Takes one exchange after another."""

    def __init__(self) -> None:
        self._last: deque[ClockEstimate] = deque(maxlen=EXCHANGES)

    def add(self, sent_ns: int, acknowledged_ns: int, stamp_ms: int) -> None:
        """Take an exchange, in Unix ns by our clock and Unix ms by the broker's.

        One during which our clock was set back is left out.
        """
        took_ms = (acknowledged_ns - sent_ns) / 1e6
        if took_ms < 0.0:
            return
        middle_ms = (sent_ns + acknowledged_ns) / 2e6
        found = ClockEstimate(stamp_ms + _STAMP_MS / 2 - middle_ms, (took_ms + _STAMP_MS) / 2)
        if any(_apart(found, before) for before in self._last):
            self._last.clear()
        self._last.append(found)

    @property
    def estimate(self) -> ClockEstimate | None:
        """The best of the last exchanges, None before the first."""
        return min(self._last, key=lambda e: e.error_ms, default=None)


def _apart(one: ClockEstimate, other: ClockEstimate) -> bool:
    """Tell whether two estimates cannot both be right of the same two clocks."""
    return abs(one.offset_ms - other.offset_ms) > one.error_ms + other.error_ms + _DRIFT_MS

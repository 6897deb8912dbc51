"""Tumbling windows in event time. Pure.

A window ``[k·w, (k+1)·w)`` is closed when a reading comes that is later than its end by the allowed lateness. How the
readings were cut into columns makes no difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ALLOWED_LATENESS_S = 1.0
"""A sensor's readings come in order; this covers a clock that is set back a little."""
LATE_IN_A_ROW = 30
"""The last of so many late readings, with none in time between them, shows that the clock was set back for good, or
has come back from a time that never was. At ten readings a second that takes three seconds."""


@dataclass
class ReadingWindow:
    """The readings of one window so far."""

    start_ns: int
    count: int = 0
    total: float = 0.0

    @property
    def mean(self) -> float:
        """The readings' mean."""
        return self.total / self.count


class TumblingWindows:
    """One sensor's windows of one length."""

    def __init__(self, length_s: float) -> None:
        self._length_ns = round(length_s * 1e9)
        self._open: dict[int, ReadingWindow] = {}
        self._closed_before_ns = 0
        self._late_in_a_row = 0
        self._epoch_begins = False
        self.late = 0
        """Readings that came after their window was closed."""
        self.set_back = 0
        """How often the sensor's clock was found to have been set back, so that its windows began anew."""

    def begin_epoch(self) -> None:
        """Take it that the device was started again: its clock may have been set back meanwhile."""
        self._epoch_begins = True

    def add(self, readings: Iterable[tuple[int, float]]) -> list[ReadingWindow]:
        """Take readings as (Unix ns, value) and return the windows that are closed by them, in order."""
        closed: list[ReadingWindow] = []
        for at_ns, value in readings:
            start_ns = at_ns - at_ns % self._length_ns
            if self._comes_late(start_ns):
                self.late += 1
                continue
            window = self._open.setdefault(start_ns, ReadingWindow(start_ns))
            window.count += 1
            window.total += value
            closed += self._close(at_ns)
        return closed

    def _comes_late(self, start_ns: int) -> bool:
        """Tell whether a reading's window is closed. Begin anew, and say no, when the clock must have been set back.

        What was open then lies in a time that is still to come, and is given up.
        """
        late = start_ns < self._closed_before_ns
        self._late_in_a_row = self._late_in_a_row + 1 if late else 0
        if late and (self._epoch_begins or self._late_in_a_row >= LATE_IN_A_ROW):
            self._open.clear()
            self._closed_before_ns = self._late_in_a_row = 0
            self.set_back += 1
            late = False
        self._epoch_begins = False
        return late

    def _close(self, now_ns: int) -> list[ReadingWindow]:
        bound_ns = now_ns - round(ALLOWED_LATENESS_S * 1e9) - self._length_ns
        done = sorted(start_ns for start_ns in self._open if start_ns <= bound_ns)
        if done:
            self._closed_before_ns = done[-1] + self._length_ns
        return [self._open.pop(start_ns) for start_ns in done]

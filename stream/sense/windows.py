"""Windows in event time: their base class, and tumbling windows. Pure.

A window ``[k·w, (k+1)·w)`` is closed by the first reading whose time exceeds the window's end by the allowed
lateness. The windows do not depend on how readings are grouped into records.

Consecutive readings of the same window are added together, by loops that run in C.

A sensor that falls silent sends no reading that closes its last window. The last window of a silent sensor is
evaluated as soon as the sensor's clock has certainly passed the window's end. A window that is evaluated before a
reading closes it stays open, so that readings delayed by a broken link still count.
"""

from __future__ import annotations

import abc
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add
from typing import NamedTuple

import numpy as np

from ingest.site import ALLOWED_LATENESS_S

_LATENESS_NS = round(ALLOWED_LATENESS_S * 1e9)
LATE_IN_A_ROW = 30
"""Number of consecutive late readings after which the sensor's clock has certainly been set back, or has returned
from a wrong time. At ten readings per second, 30 late readings take three seconds."""
SPARE_WINDOWS = 64
"""Maximum number of open windows in addition to those that begin within the allowed lateness. Readings in order of
time never need more open windows. Readings whose times run backwards open windows and close none."""


class Column(NamedTuple):
    """Readings of one sensor in the order of their arrival: their Unix times in ns, and their values."""

    times_ns: Sequence[int]
    values: Sequence[float]


@dataclass
class ReadingWindow:
    """Count and sum of the readings in one window."""

    start_ns: int
    count: int = 0
    total: float = 0.0
    seen: int = 0
    """Number of readings that the window had when ``TumblingWindows.due`` last returned the window."""

    @property
    def mean(self) -> float:
        """Mean of the readings."""
        return self.total / self.count


class EventTimeWindows(abc.ABC):
    """The windows of one sensor for one rule, in event time: open windows, late readings, and clocks set back.

    A window stays open until the watermark has passed its end. The watermark is the latest time of a reading minus
    the allowed lateness.
    """

    def __init__(self, length_s: float, lateness_s: float = ALLOWED_LATENESS_S) -> None:
        self._length_ns = max(1, round(length_s * 1e9))
        self._lateness_ns = round(lateness_s * 1e9)
        self._max_open = max(_LATENESS_NS, self._lateness_ns) // self._length_ns + SPARE_WINDOWS
        self._open: dict[int, ReadingWindow] = {}
        self._closed_before_ns = 0
        self._late_in_a_row = 0
        self._epoch_begins = False
        self.late = 0
        """Number of readings that arrived after their window was closed."""
        self.set_back = 0
        """Number of times that the windows were restarted because the sensor's clock had been set back."""

    @abc.abstractmethod
    def add(self, column: Column) -> list[ReadingWindow]:
        """Add readings, and return the windows that these readings close, in order."""

    @property
    @abc.abstractmethod
    def pending_ns(self) -> int | None:
        """Event time in ns at which the oldest window with new readings is due; None if no window has new
        readings."""

    @abc.abstractmethod
    def due(self, now_ns: int) -> list[ReadingWindow]:
        """Return, in order, copies of the open windows that have new readings since the last call of ``due``. Leave
        out windows whose end plus the allowed lateness is after ``now_ns``.

        ``now_ns`` is the sensor's present time, estimated from the sensor's last reading. The returned windows stay
        open.
        """

    def begin_epoch(self) -> None:
        """Note that the device was restarted. The next reading may come from a clock that was set back."""
        self._epoch_begins = True

    def _count_late(self, start_ns: int, count: int) -> int:
        """Return how many of the next ``count`` readings, which belong to the same window, arrive after their window
        was closed.

        The reading that shows that the sensor's clock has been set back is not late, and neither are the readings
        after it. The reading that shows the correction drops the open windows, which lie in the future of the
        corrected clock. A reading that needs more than ``_max_open`` windows also shows that the clock has been set
        back.
        """
        until_restart = 1 if self._epoch_begins else LATE_IN_A_ROW - self._late_in_a_row
        self._epoch_begins = False
        if start_ns >= self._closed_before_ns:
            self._late_in_a_row = 0
            if len(self._open) >= self._max_open and start_ns not in self._open:
                self._restart()
            return 0
        if count < until_restart:
            self._late_in_a_row += count
            return count
        self._restart()
        return until_restart - 1

    def _restart(self) -> None:
        """Drop the open windows because the sensor's clock has been set back."""
        self._open.clear()
        self._closed_before_ns = self._late_in_a_row = 0
        self.set_back += 1


class TumblingWindows(EventTimeWindows):
    """Windows of the same length that do not overlap."""

    def add(self, column: Column) -> list[ReadingWindow]:
        """Add readings, and return the windows that these readings close, in order."""
        closed: list[ReadingWindow] = []
        for start_ns, (times_ns, values) in self._split(column):
            late = self._count_late(start_ns, len(values))
            self.late += late
            if late < len(values):
                window = self._open.get(start_ns)
                if window is None:
                    window = self._open[start_ns] = ReadingWindow(start_ns)
                window.count += len(values) - late
                window.total = reduce(add, values[late:], window.total)
                closed += self._close(max(times_ns[late:]))
        return closed

    @property
    def pending_ns(self) -> int | None:
        """Event time in ns at which the oldest window with new readings is due; None if no window has new
        readings."""
        unseen = [window.start_ns for window in self._open.values() if window.count > window.seen]
        return min(unseen) + self._length_ns + _LATENESS_NS if unseen else None

    def due(self, now_ns: int) -> list[ReadingWindow]:
        """Return, in order, copies of the open windows that have new readings and have certainly ended."""
        bound_ns = now_ns - _LATENESS_NS - self._length_ns
        found = [w for start_ns, w in sorted(self._open.items()) if start_ns <= bound_ns and w.count > w.seen]
        for window in found:
            window.seen = window.count
        return [replace(window) for window in found]

    def open_windows(self) -> Sequence[ReadingWindow]:
        """Return the windows that are open."""
        return tuple(self._open.values())

    def _split(self, column: Column) -> Iterable[tuple[int, Column]]:
        """Split a column of readings wherever the next reading belongs to another window. Return each part of the
        column with the beginning of its window, in Unix ns."""
        times_ns = column.times_ns
        if not times_ns:
            return ()
        ordered = sorted(times_ns)  # takes less time than min and max for times in order
        first, last = ordered[0] // self._length_ns, ordered[-1] // self._length_ns
        if first == last:
            return ((first * self._length_ns, column),)
        return self._parts(column, ordered)

    def _parts(self, column: Column, ordered: list[int]) -> Iterator[tuple[int, Column]]:
        times_ns, values = column
        if ordered == list(times_ns):
            cuts = self._cuts_in_order(ordered)
        else:
            numbers = np.array(times_ns, np.int64) // self._length_ns
            cuts = (np.flatnonzero(numbers[1:] != numbers[:-1]) + 1).tolist()
        for begin, end in pairwise((0, *cuts, len(times_ns))):
            start_ns = times_ns[begin] - times_ns[begin] % self._length_ns
            yield start_ns, Column(times_ns[begin:end], values[begin:end])

    def _cuts_in_order(self, times_ns: Sequence[int]) -> list[int]:
        """Return the indexes at which another window begins, for times in ascending order."""
        cuts: list[int] = []
        end = 0
        while True:
            start_ns = times_ns[end] - times_ns[end] % self._length_ns
            end = bisect_left(times_ns, start_ns + self._length_ns, end)
            if end == len(times_ns):
                return cuts
            cuts.append(end)

    def _close(self, now_ns: int) -> list[ReadingWindow]:
        bound_ns = now_ns - self._lateness_ns - self._length_ns
        if min(self._open) > bound_ns:
            return []
        done = sorted([start_ns for start_ns in self._open if start_ns <= bound_ns])
        if done:
            self._closed_before_ns = done[-1] + self._length_ns
        return [self._open.pop(start_ns) for start_ns in done]

"""Session windows in event time: a session is a sequence of readings without a longer gap. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from itertools import pairwise
from operator import add

import numpy as np

from ingest.site import ALLOWED_LATENESS_S
from stream.sense.windows import Column, EventTimeWindows, ReadingWindow


@dataclass
class _Session(ReadingWindow):
    last_ns: int = 0
    """Time of the session's last reading."""


class SessionWindows(EventTimeWindows):
    """Sessions of readings: the time between two consecutive readings of a session is at most ``gap_s``.

    A session also ends at each multiple of ``length_s``, so that a session that never pauses is evaluated, and has
    the same bounds after a restart. A late reading may join two sessions that are still open.
    """

    def __init__(self, length_s: float, gap_s: float, lateness_s: float = ALLOWED_LATENESS_S) -> None:
        super().__init__(length_s, lateness_s)
        self._gap_ns = max(1, round(gap_s * 1e9))
        self._max_open += self._lateness_ns // self._gap_ns
        self._sessions: dict[int, _Session] = {}
        self._open = self._sessions  # type: ignore[assignment]

    def add(self, column: Column) -> list[ReadingWindow]:
        """Add readings, and return the sessions that these readings end, in order."""
        ended: list[ReadingWindow] = []
        for times_ns, values in self._split(column):
            late = self._count_late(times_ns[0], len(values))
            self.late += late
            if late < len(values):
                self._join(Column(times_ns[late:], values[late:]))
                ended += self._close(times_ns[-1])
        return ended

    @property
    def pending_ns(self) -> int | None:
        """Event time in ns at which the oldest session with new readings is due; None if no session has new
        readings."""
        ends = [self._end_ns(one) for one in self._sessions.values() if one.count > one.seen]
        return min(ends) + self._lateness_ns if ends else None

    def due(self, now_ns: int) -> list[ReadingWindow]:
        """Return copies of the sessions, in order, that have new readings and have certainly ended."""
        bound_ns = now_ns - self._lateness_ns
        found = [
            one for _, one in sorted(self._sessions.items()) if self._end_ns(one) <= bound_ns and one.count > one.seen
        ]
        for one in found:
            one.seen = one.count
        return [ReadingWindow(one.start_ns, one.count, one.total, one.seen) for one in found]

    def _split(self, column: Column) -> list[Column]:
        """Split a column of readings between two sessions, at the bounds of sessions, and where late readings end."""
        times_ns, values = column
        times = np.array(times_ns, np.int64)
        steps, cells = np.diff(times), times // self._length_ns
        timely = times >= self._closed_before_ns
        parts = (steps < 0).any() | (steps > self._gap_ns) | (cells[1:] != cells[:-1]) | (timely[1:] != timely[:-1])
        cuts = (np.flatnonzero(parts) + 1).tolist()
        return [Column(times_ns[a:b], values[a:b]) for a, b in pairwise((0, *cuts, len(times_ns))) if a < b]

    def _join(self, column: Column) -> None:
        """Add readings of one session, and merge the open sessions that these readings connect."""
        first_ns, last_ns = column.times_ns[0], column.times_ns[-1]
        cell = first_ns // self._length_ns
        joined = [
            one
            for one in self._sessions.values()
            if one.start_ns // self._length_ns == cell
            and one.start_ns - last_ns <= self._gap_ns
            and first_ns - one.last_ns <= self._gap_ns
        ]
        session = joined[0] if joined else _Session(first_ns, last_ns=last_ns)
        for one in joined:
            del self._sessions[one.start_ns]
        for other in joined[1:]:
            session = replace(
                session,
                start_ns=min(session.start_ns, other.start_ns),
                count=session.count + other.count,
                total=session.total + other.total,
                last_ns=max(session.last_ns, other.last_ns),
            )
        session.start_ns, session.last_ns = min(session.start_ns, first_ns), max(session.last_ns, last_ns)
        session.count += len(column.values)
        session.total = reduce(add, column.values, session.total)
        self._sessions[session.start_ns] = session

    def _end_ns(self, session: _Session) -> int:
        bound_ns = (session.start_ns // self._length_ns + 1) * self._length_ns
        return min(session.last_ns + self._gap_ns, bound_ns)

    def _close(self, now_ns: int) -> list[ReadingWindow]:
        bound_ns = now_ns - self._lateness_ns
        done = sorted(start_ns for start_ns, one in self._sessions.items() if self._end_ns(one) <= bound_ns)
        ended = [self._sessions.pop(start_ns) for start_ns in done]
        self._closed_before_ns = max([self._closed_before_ns, *map(self._end_ns, ended)])
        return [ReadingWindow(one.start_ns, one.count, one.total, one.seen) for one in ended]

"""The number of objects inside a place: entries minus exits since the last reset. Pure.

The count depends only on the minutes since the last reset, so that a restarted worker computes the same count from
the topic ``measures``.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta
from typing import Literal, NamedTuple, Self
from zoneinfo import ZoneInfo

from ingest.contract.identity import LATE
from ingest.contract.records import Measure
from ingest.runtime.clock import unix_ns

Direction = Literal["forward", "backward"]
MINUTE_NS = 60 * 10**9
KEPT_NS = 50 * 3600 * 10**9
"""Time span in ns of the minutes that are kept: two days between resets, of 25 hours when clocks are set back."""


class Passages(NamedTuple):
    """Objects that crossed a line in each direction in one minute."""

    forward: float
    backward: float


class DoorMinute(NamedTuple):
    """The crossings of one line in one minute, by lane (live or late), from one record of the topic ``measures``."""

    door: str
    start_ns: int
    lanes: Mapping[str, Passages]
    observed: float
    revision: int
    id: str

    @classmethod
    def of(cls, measure: Measure) -> Self:
        """Return the crossings of all labels in a record of a measure of the type ``line``."""
        names = {way: [key for key in measure.values if key.endswith(f".{way}")] for way in ("forward", "backward")}
        lanes = {
            lane: Passages(*(sum(tally.sums.get(key, 0.0) for key in names[way]) for way in ("forward", "backward")))
            for lane, tally in measure.parts.items()
        }
        return cls(measure.name, measure.start_ns, lanes, measure.observed, measure.revision, measure.id)

    @property
    def is_late(self) -> bool:
        """Whether all frames of the minute came late."""
        return self.lanes.keys() == {LATE}


class OccupancyCount(NamedTuple):
    """The number of objects inside at the end of the minute that begins at ``start_ns``."""

    start_ns: int
    reset_ns: int
    """Unix time in ns of the last reset."""
    inside: float
    entries: float
    """Entries since the last reset or correction."""
    exits: float
    unmatched: float
    """Exits that would have made the count negative, since the last reset or correction. Each of these exits has an
    entry that was not counted."""
    observed: float
    """Smallest observed share of the minute among the doors."""
    revision: int = 0
    cause: str = ""
    """Id of the record that completed or corrected the count."""


class KnownCount(NamedTuple):
    """A number of objects inside that a person has counted at a time in Unix ns."""

    at_ns: int
    inside: int


class Occupancy:
    """Counts the objects inside a place whose doors are lines.

    ``inward`` has the direction of an entry for each line. A minute is complete when each line has a live record of
    the minute or of a later one. Late and corrected minutes change the count of the latest complete minute.
    """

    def __init__(
        self,
        inward: Mapping[str, Direction],
        reset_at: time,
        time_zone: str,
        known: KnownCount | None = None,
    ) -> None:
        self._inward, self._reset_at, self._zone, self._known = inward, reset_at, time_zone, known
        self._minutes: dict[int, dict[str, DoorMinute]] = {}
        """The minutes with crossings, and those after the latest complete minute, by start and line."""
        self._latest: dict[str, int] = {}
        """Start of the last live minute of each line."""
        self._revisions: dict[int, int] = {}
        self._last: OccupancyCount | None = None
        self._is_changed = False
        """Whether a minute has changed that ``_last`` has counted."""

    def add(self, minute: DoorMinute) -> OccupancyCount | None:
        """Add a minute of a line. Return the count if the minute completes or changes the count, else None."""
        if minute.door not in self._inward:
            return None
        doors = self._minutes.setdefault(minute.start_ns, {})
        before = doors.get(minute.door)
        lanes = {**before.lanes, **minute.lanes} if before else minute.lanes
        doors[minute.door] = minute._replace(lanes=lanes)
        self._is_changed |= self._last is not None and minute.start_ns <= self._last.start_ns
        # A corrected record of an earlier minute has late frames. A first record of an earlier minute means that the
        # camera's clock was set back.
        if not minute.is_late and (minute.revision == 0 or minute.start_ns > self._latest.get(minute.door, 0)):
            self._latest[minute.door] = minute.start_ns
        if self._latest.keys() != self._inward.keys():
            return None
        through = min(self._latest.values())
        count, last = self._counted(through, minute.id), self._last
        self._is_changed = False
        if last and last == count._replace(observed=last.observed, revision=last.revision, cause=last.cause):
            return None
        self._drop(through)
        self._revisions[through] = count.revision
        self._last = count
        return count

    def _counted(self, through: int, cause: str) -> OccupancyCount:
        reset_ns = last_reset(through, self._reset_at, self._zone)
        begin, inside, entries, exits, unmatched = reset_ns, 0.0, 0.0, 0.0, 0.0
        if self._known and reset_ns <= self._known.at_ns <= through:
            begin, inside = self._known.at_ns, float(self._known.inside)
        last = self._last
        if last and not self._is_changed and begin <= last.start_ns <= through and last.reset_ns == reset_ns:
            begin = last.start_ns + 1
            inside, entries, exits, unmatched = last.inside, last.entries, last.exits, last.unmatched
        for start in sorted(start for start in self._minutes if begin <= start <= through):
            inward, outward = self._passages(start)
            entries, exits = entries + inward, exits + outward
            inside += inward - outward
            if inside < 0.0:
                unmatched, inside = unmatched - inside, 0.0
        doors = self._minutes[through].values() if through in self._minutes else ()
        observed = min((one.observed for one in doors), default=0.0)
        revision = self._revisions.get(through, -1) + 1
        return OccupancyCount(through, reset_ns, inside, entries, exits, unmatched, observed, revision, cause)

    def _passages(self, start: int) -> tuple[float, float]:
        """Return the entries and exits of one minute over all lines and lanes."""
        inward = outward = 0.0
        for door, minute in self._minutes[start].items():
            for passages in minute.lanes.values():
                ways = passages if self._inward[door] == "forward" else reversed(passages)
                entered, left = ways
                inward, outward = inward + entered, outward + left
        return inward, outward

    def _drop(self, through: int) -> None:
        """Drop the minutes that are too old for the count, and complete minutes without a crossing."""
        since = self._last.start_ns if self._last else 0
        for start in [one for one in self._minutes if since <= one < through]:
            if self._passages(start) == (0.0, 0.0):
                del self._minutes[start]
        for kept in (self._minutes, self._revisions):
            for start in [one for one in kept if one < through - KEPT_NS]:
                del kept[start]


@functools.lru_cache(maxsize=1000)
def last_reset(at_ns: int, reset_at: time, time_zone: str) -> int:
    """Return the Unix time in ns of the last reset at or before ``at_ns``. A reset is daily, at a local time."""
    now = datetime.fromtimestamp(at_ns // 10**9, UTC)
    zone = ZoneInfo(time_zone)
    today = now.astimezone(zone).date()
    resets = [datetime.combine(today - timedelta(days=n), reset_at, zone).astimezone(UTC) for n in (0, 1)]
    found = next((one for one in resets if one <= now), resets[-1])
    return unix_ns(found)

"""Armed hours of a camera, in which its gate may send frames. Pure.

Armed hours are given as wall-clock times in the camera's time zone. When the clocks change for daylight saving time,
an interval of armed hours stays one interval, and the camera stays armed at every wall-clock time inside that
interval:

- When clocks are set back, one hour occurs twice. A start time in the repeated hour means the first occurrence, and
  an end time means the second occurrence.
- When clocks are set forward, one hour is skipped. A start or end time in the skipped hour takes effect at the
  moment when the clocks change.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ingest.site import ArmedHours

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FIRST, _SECOND = 0, 1
"""First and second occurrence of an hour that is repeated when clocks are set back, as values of ``fold`` (PEP
495)."""


class Schedule:
    """Armed hours of one camera, with their time zone. A camera without configured hours is always armed."""

    def __init__(self, hours: Sequence[ArmedHours], time_zone: str) -> None:
        self._hours = tuple(hours)
        self._zone = ZoneInfo(time_zone)

    def armed(self, at_ns: int) -> bool:
        """Return whether the camera is armed at ``at_ns``, in Unix ns."""
        if not self._hours:
            return True
        now = datetime.fromtimestamp(at_ns // 1_000_000_000, UTC)
        today = now.astimezone(self._zone).date()
        starts = (today, today - timedelta(days=1))
        return any(self._within(hours, day, now) for hours in self._hours for day in starts)

    def _within(self, hours: ArmedHours, day: date, now: datetime) -> bool:
        if _DAYS[day.weekday()] not in hours.days:
            return False
        last = day if hours.end > hours.start else day + timedelta(days=1)
        start, end = datetime.combine(day, hours.start), datetime.combine(last, hours.end)
        return self._reached(start, _FIRST, now) and not self._reached(end, _SECOND, now)

    def _reached(self, wall: datetime, fold: int, now: datetime) -> bool:
        """Return whether the wall clock shows ``wall`` or a later time, or has skipped ``wall``.

        ``fold`` selects the first or the second occurrence of a repeated hour (PEP 495).
        """
        moment = wall.replace(tzinfo=self._zone, fold=fold).astimezone(UTC)
        if moment.astimezone(self._zone).replace(tzinfo=None) != wall:
            return now.astimezone(self._zone).replace(tzinfo=None) >= wall
        return now >= moment

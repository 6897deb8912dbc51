"""Armed hours of a camera. Pure.

Hours are local wall-clock times of a time zone. An interval of armed hours stays one interval on days when clocks
change, and a change of clocks never disarms a camera that its wall clock says is armed:

- Where clocks are set back, an hour occurs twice. A start in it means the first pass, an end in it the second.
- Where clocks are set forward, an hour is skipped. A start or end in it takes effect at the moment of the change.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ingest.site import ArmedHours

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FIRST, _SECOND = 0, 1
"""Pass of a repeated hour, as the ``fold`` of PEP 495."""


class Schedule:
    """Armed hours of one camera. A camera without hours is always armed."""

    def __init__(self, hours: Sequence[ArmedHours], time_zone: str) -> None:
        self._hours = tuple(hours)
        self._zone = ZoneInfo(time_zone)

    def armed(self, at_ns: int) -> bool:
        """Return whether the camera is armed at a moment, in Unix ns."""
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
        """Return whether the wall clock has reached a time, or has skipped it."""
        moment = wall.replace(tzinfo=self._zone, fold=fold).astimezone(UTC)
        if moment.astimezone(self._zone).replace(tzinfo=None) != wall:
            return now.astimezone(self._zone).replace(tzinfo=None) >= wall
        return now >= moment

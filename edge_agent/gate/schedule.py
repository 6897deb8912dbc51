"""When a camera is armed. Pure.

Hours are by the clock on the wall of a time zone. Where clocks are set back, an hour comes twice: what starts in it
starts the first time, and what ends in it ends the second time. Where they are set forward, what would start or end
in the hour that is left out does so at the moment of the change. So each stretch of armed hours is one, and a change
of clocks never disarms a camera that the clock on the wall says is armed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

from ingest.site import ArmedHours

_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_FIRST, _SECOND = 0, 1
"""Which of two passes of a repeated hour is meant: PEP 495's ``fold``."""


class Schedule:
    """The armed hours of one camera. Without any it is always armed."""

    def __init__(self, hours: Sequence[ArmedHours], time_zone: str) -> None:
        self._hours = tuple(hours)
        self._zone = ZoneInfo(time_zone)

    def armed(self, at_ns: int) -> bool:
        """Tell whether it is armed at a moment, in Unix ns."""
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
        """Tell whether a clock on the wall has come to a time, or past one that it leaves out."""
        moment = wall.replace(tzinfo=self._zone, fold=fold).astimezone(UTC)
        if moment.astimezone(self._zone).replace(tzinfo=None) != wall:
            return now.astimezone(self._zone).replace(tzinfo=None) >= wall
        return now >= moment

"""Weekly hours in which a camera sends frames or a rule emits events. Pure.

Weekly hours are given as wall-clock times in a time zone. When the clocks change for daylight saving time, an
interval of weekly hours stays one interval, and contains every wall-clock time between its start and its end:

- When clocks are set back, one hour occurs twice. A start time in the repeated hour means the first occurrence, and
  an end time means the second occurrence.
- When clocks are set forward, one hour is skipped. A start or end time in the skipped hour takes effect at the
  moment when the clocks change.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, Field

from ingest.site.entry import ConfigSection

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
_DAYS: tuple[Day, ...] = get_args(Day)
_LONGEST_ZONE = 64
"""Maximum length of a time zone's name in characters: twice the length of the longest existing name. Python looks up
each part of the name as a package, so the look-up of a very long name would be slow."""
_FIRST, _SECOND = 0, 1
"""First and second occurrence of an hour that is repeated when clocks are set back, as values of ``fold`` (PEP
495)."""


def _known(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):  # OSError: the name of a folder of zones
        raise ValueError("expected a time zone by its IANA name, such as Europe/Berlin") from None
    return name


def _local(at: time) -> time:
    if at.tzinfo is not None:
        raise ValueError("expected a time of day without a UTC offset: set the zone in time_zone")
    return at


TimeZone = Annotated[str, Field(max_length=_LONGEST_ZONE), AfterValidator(_known)]
TimeOfDay = Annotated[time, AfterValidator(_local)]


class WeeklyHours(ConfigSection):
    """Hours from ``start`` to ``end`` in local time. If ``end`` is not after ``start``, the hours end on the next
    day.

    ``days`` are the weekdays on which the hours start.
    """

    days: tuple[Day, ...] = Field(default=_DAYS, min_length=1)
    start: TimeOfDay
    end: TimeOfDay


class Schedule:
    """Weekly hours with their time zone. A schedule without hours contains every moment."""

    def __init__(self, hours: Sequence[WeeklyHours], time_zone: str) -> None:
        self._hours = tuple(hours)
        self._zone = ZoneInfo(time_zone)

    def contains(self, at_ns: int) -> bool:
        """Return whether the time ``at_ns``, in Unix ns, is within the weekly hours."""
        if not self._hours:
            return True
        now = datetime.fromtimestamp(at_ns // 1_000_000_000, UTC)
        today = now.astimezone(self._zone).date()
        starts = (today, today - timedelta(days=1))
        return any(self._within(hours, day, now) for hours in self._hours for day in starts)

    def _within(self, hours: WeeklyHours, day: date, now: datetime) -> bool:
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

"""Tests of armed hours by the wall clock, on ordinary days and on days when clocks change."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from functools import lru_cache
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.site import WeeklyHours
from ingest.site.hours import Schedule

MINUTE = timedelta(minutes=1)
CHANGES = (
    ("Europe/Berlin", datetime(2026, 3, 29)),
    ("Europe/Berlin", datetime(2026, 10, 25)),
    ("America/New_York", datetime(2026, 3, 8)),
    ("America/New_York", datetime(2026, 11, 1)),
    ("Australia/Lord_Howe", datetime(2026, 4, 5)),  # clocks change by half an hour
    ("Australia/Lord_Howe", datetime(2026, 10, 4)),
    ("America/Havana", datetime(2026, 3, 8)),  # clocks change at midnight: the day begins at one
    ("America/Havana", datetime(2026, 11, 1)),
    ("Asia/Kolkata", datetime(2026, 6, 1)),  # clocks never change
)
times = st.builds(time, st.integers(0, 23), st.sampled_from([0, 10, 30, 59]))
days = st.lists(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]), min_size=1, unique=True)


def ns(at: datetime) -> int:
    return round(at.timestamp()) * 1_000_000_000


@lru_cache(maxsize=32)
def minutes(zone: str, day: datetime) -> list[datetime]:
    """Return every minute from two days before a day until two days after it."""
    start = (day - timedelta(days=2)).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)
    return [start + MINUTE * index for index in range(5 * 24 * 60)]


@lru_cache(maxsize=32)
def wall_clock(zone: str, day: datetime, step: int) -> list[tuple[datetime, bool]]:
    """Return the wall-clock time of every ``step``-th minute, and whether clocks change within an hour of it."""
    place, hour = ZoneInfo(zone), timedelta(hours=1)
    return [
        (
            at.astimezone(place).replace(tzinfo=None),
            (at - hour).astimezone(place).utcoffset() != (at + hour).astimezone(place).utcoffset(),
        )
        for at in minutes(zone, day)[::step]
    ]


def stretches(schedule: Schedule, moments: list[datetime]) -> list[tuple[datetime, datetime]]:
    """Return the armed intervals: the first armed minute, and the first minute after the interval."""
    return intervals([schedule.contains(ns(at)) for at in moments], moments)


def intervals(flags: list[bool], moments: list[datetime]) -> list[tuple[datetime, datetime]]:
    edges = [i for i, (a, b) in enumerate(pairwise([False, *flags, False])) if a != b]
    return [(moments[a], moments[min(b, len(moments) - 1)]) for a, b in zip(edges[::2], edges[1::2], strict=True)]


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [("Europe/Berlin", (2026, 3, 28), 7), ("Europe/Berlin", (2026, 10, 24), 9), ("Europe/Berlin", (2026, 7, 3), 8)],
)
def test_an_armed_night_is_an_hour_longer_or_shorter_when_clocks_change(
    zone: str, day: tuple[int, int, int], hours: int
) -> None:
    evening = datetime(*day)
    weekday = evening.strftime("%a").lower()
    nights = Schedule([WeeklyHours.model_validate({"days": [weekday], "start": "22:00", "end": "06:00"})], zone)
    ((start, end),) = stretches(nights, minutes(zone, evening))
    assert end - start == timedelta(hours=hours)
    assert start.astimezone(ZoneInfo(zone)).strftime("%a %H:%M").lower() == f"{weekday} 22:00"


def test_armed_hours_within_an_hour_that_a_clock_change_repeats_include_both_passes_and_the_time_between() -> None:
    half = Schedule([WeeklyHours(start=time(2, 15), end=time(2, 45))], "Europe/Berlin")
    day = [s for s in stretches(half, minutes("Europe/Berlin", datetime(2026, 10, 25))) if s[0].day == 25]
    assert day == [(datetime(2026, 10, 25, 0, 15, tzinfo=UTC), datetime(2026, 10, 25, 1, 45, tzinfo=UTC))]


def test_armed_hours_inside_a_skipped_hour_never_arm_and_longer_armed_hours_start_at_the_clock_change() -> None:
    day, zone = datetime(2026, 3, 29), "Europe/Berlin"
    change = datetime(2026, 3, 29, 1, 0, tzinfo=UTC)
    inside = Schedule([WeeklyHours(days=("sun",), start=time(2, 15), end=time(2, 45))], zone)
    assert stretches(inside, minutes(zone, day)) == []
    beyond = Schedule([WeeklyHours(days=("sun",), start=time(2, 15), end=time(4, 0))], zone)
    assert stretches(beyond, minutes(zone, day)) == [(change, change + timedelta(hours=1))]


@pytest.mark.parametrize(("zone", "day"), CHANGES)
@settings(max_examples=30)
@given(start=times, end=times, weekdays=days)
def test_a_camera_is_armed_without_gaps_at_all_wall_clock_times_of_its_armed_hours(
    zone: str, day: datetime, start: time, end: time, weekdays: list[str]
) -> None:
    hours = WeeklyHours.model_validate({"days": weekdays, "start": start, "end": end})
    step = 7 if start.minute else 10
    schedule, moments = Schedule([hours], zone), minutes(zone, day)[::step]
    flags = [schedule.contains(ns(at)) for at in moments]
    for armed, (wall, change_is_near) in zip(flags, wall_clock(zone, day, step), strict=True):
        says = False
        for begins in (wall.date(), wall.date() - timedelta(days=1)):
            ends = begins if end > start else begins + timedelta(days=1)
            within = datetime.combine(begins, start) <= wall < datetime.combine(ends, end)
            says |= within and begins.strftime("%a").lower() in weekdays
        assert armed or not says
        if not says:  # outside its hours, a camera may be armed only while an hour repeats
            assert not armed or change_is_near
    most = sum(d.strftime("%a").lower() in weekdays for d in (day + timedelta(days=n) for n in range(-3, 4)))
    assert len(intervals(flags, moments)) <= most


@given(at_ns=st.integers(0, 4_000_000_000_000_000_000))
def test_a_camera_without_armed_hours_or_with_hours_around_the_clock_is_always_armed(at_ns: int) -> None:
    assert Schedule([], "UTC").contains(at_ns)
    assert Schedule([WeeklyHours(start=time(0), end=time(0))], "Europe/Berlin").contains(at_ns)


def test_overlapping_armed_hours_form_one_interval() -> None:
    both = Schedule([WeeklyHours(start=time(8), end=time(12)), WeeklyHours(start=time(11), end=time(14))], "UTC")
    found = stretches(both, minutes("UTC", datetime(2026, 6, 1)))
    assert [(a.hour, b.hour) for a, b in found] == [(8, 14)] * 5

"""Tests of the number of objects inside a place: entries minus exits, late minutes, resets and corrections."""

from __future__ import annotations

from datetime import time
from itertools import accumulate

from hypothesis import given, settings
from hypothesis import strategies as st

from stream.sense.occupancy.count import (
    KEPT_NS,
    MINUTE_NS,
    DoorMinute,
    KnownCount,
    Occupancy,
    OccupancyCount,
    Passages,
    last_reset,
)

MIDNIGHT_NS = 1_451_865_600 * 10**9
"""Midnight of Monday, 4 January 2016, UTC."""
HOUR_NS = 60 * MINUTE_NS
INWARD = {"north": "forward", "south": "backward"}


def minute(door: str, start_ns: int, entered: int, left: int, lane: str = "live", number: int = 0) -> DoorMinute:
    passages = Passages(entered, left) if door == "north" else Passages(left, entered)
    return DoorMinute(door, start_ns, {lane: passages}, 1.0, number, f"{door}.{start_ns}.{number}")


def place(known: KnownCount | None = None, reset_at: time = time(0)) -> Occupancy:
    return Occupancy({"north": "forward", "south": "backward"}, reset_at, "UTC", known)


def both(start_ns: int, entered: int, left: int) -> list[DoorMinute]:
    return [minute("north", start_ns, entered, left), minute("south", start_ns, 0, 0)]


def inside(counts: list[OccupancyCount | None]) -> list[float]:
    return [one.inside for one in counts if one]


PASSAGES = st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.integers(0, 5))


@st.composite
def logs(draw: st.DrawFn) -> list[DoorMinute]:
    """Return the minutes of two doors at steps of hours over several days, some of them followed by late minutes."""
    steps = draw(st.lists(st.tuples(st.integers(1, 600), PASSAGES, st.integers(0, 40)), min_size=1, max_size=30))
    found: list[DoorMinute] = []
    starts: list[int] = []
    for number, (step, (a, b, c, d), late) in enumerate(steps):
        starts.append((starts[-1] if starts else MIDNIGHT_NS) + step * MINUTE_NS)
        found += [minute("north", starts[-1], a, b), minute("south", starts[-1], c, d)]
        if late < len(starts):
            found.append(minute("north", starts[-1 - late], d, c, "late", number))
    return found


def expected(log: list[DoorMinute]) -> float:
    """Return the count at the end of a log by a plain sum over the minutes since midnight."""
    latest: dict[tuple[str, int, str], Passages] = {}
    for one in log:
        for lane, passages in one.lanes.items():
            latest[one.door, one.start_ns, lane] = passages
    through = max(one.start_ns for one in log)
    reset_ns = through // (24 * HOUR_NS) * 24 * HOUR_NS
    change: dict[int, float] = {}
    for (door, start_ns, _), (forward, backward) in latest.items():
        if start_ns >= reset_ns:
            inward = forward - backward if INWARD[door] == "forward" else backward - forward
            change[start_ns] = change.get(start_ns, 0.0) + inward
    return list(accumulate((change[one] for one in sorted(change)), lambda n, d: max(n + d, 0.0), initial=0.0))[-1]


@settings(max_examples=40, deadline=None)
@given(logs())
def test_the_occupancy_is_entries_minus_exits_since_the_daily_reset_and_never_below_zero(
    log: list[DoorMinute],
) -> None:
    one, last = place(), 0.0
    for n, found in enumerate(log):
        count = one.add(found)
        last = count.inside if count else last
        if found.door == "south" or found.is_late:
            assert last == expected(log[: n + 1]) >= 0.0


@settings(max_examples=40, deadline=None)
@given(logs(), st.data())
def test_a_restarted_occupancy_count_that_reads_the_retained_minutes_again_continues_unchanged(
    log: list[DoorMinute], data: st.DataObject
) -> None:
    steady = place()
    whole = [steady.add(one) for one in log]
    cut = data.draw(st.integers(0, len(log)))
    newest = max((one.start_ns for one in log[:cut]), default=0)
    again = place()
    for one in log[:cut]:
        if one.start_ns >= newest - KEPT_NS:
            again.add(one)
    assert [again.add(one) for one in log[cut:]] == whole[cut:]


def test_a_door_whose_minute_is_missing_delays_the_count_instead_of_distorting_it() -> None:
    one = place()
    assert one.add(minute("north", MIDNIGHT_NS, 10, 0)) is None
    count = one.add(minute("south", MIDNIGHT_NS, 0, 4))
    assert count
    assert (count.inside, count.entries, count.exits) == (6.0, 10.0, 4.0)


def test_exits_without_an_entry_are_counted_as_unmatched() -> None:
    one = place()
    counts = [one.add(found) for n, left in enumerate((2, 0)) for found in both(MIDNIGHT_NS + n * MINUTE_NS, 1, left)]
    last = counts[-1]
    assert last
    assert (last.inside, last.unmatched) == (1.0, 1.0)


def test_the_occupancy_begins_at_zero_after_the_daily_reset() -> None:
    one = place(reset_at=time(4))
    times = [MIDNIGHT_NS + n * HOUR_NS for n in (1, 3, 4, 5)]
    assert inside([one.add(found) for at in times for found in both(at, 2, 0)]) == [2.0, 4.0, 2.0, 4.0]


def test_a_manual_count_replaces_the_occupancy_from_its_time_until_the_daily_reset() -> None:
    one = place(KnownCount(MIDNIGHT_NS + 2 * HOUR_NS, 10))
    times = [MIDNIGHT_NS + n * HOUR_NS for n in (1, 3, 5, 25)]
    assert inside([one.add(found) for at in times for found in both(at, 2, 0)]) == [2.0, 12.0, 14.0, 2.0]


def test_a_late_minute_corrects_the_latest_count_with_a_higher_revision() -> None:
    one = place()
    for n in range(3):
        for found in both(MIDNIGHT_NS + n * MINUTE_NS, 1, 0):
            one.add(found)
    count = one.add(minute("north", MIDNIGHT_NS, 0, 2, "late"))
    assert count
    assert (count.start_ns, count.inside, count.revision) == (MIDNIGHT_NS + 2 * MINUTE_NS, 2.0, 1)


def test_late_frames_of_an_earlier_minute_correct_the_latest_occupancy_and_not_that_of_their_minute() -> None:
    one = place()
    for n in range(3):
        for found in both(MIDNIGHT_NS + n * MINUTE_NS, 1, 0):
            one.add(found)
    lanes = {"live": Passages(1, 0), "late": Passages(0, 2)}
    count = one.add(DoorMinute("north", MIDNIGHT_NS, lanes, 1.0, 1, "corrected"))
    assert count
    assert (count.start_ns, count.inside, count.revision) == (MIDNIGHT_NS + 2 * MINUTE_NS, 2.0, 1)


def test_the_count_follows_a_camera_clock_that_was_set_back() -> None:
    one = place()
    times = [MIDNIGHT_NS + n * HOUR_NS for n in (1, 7, 2, 3)]
    counts = [one.add(found) for at in times for found in both(at, 2, 0)]
    assert [(found.start_ns - MIDNIGHT_NS) // HOUR_NS for found in counts if found] == [1, 7, 2, 3]
    assert inside(counts) == [2.0, 4.0, 4.0, 6.0]


def test_the_daily_reset_keeps_its_local_time_when_clocks_change() -> None:
    winter, summer = 1_459_036_800 * 10**9, 1_459_123_200 * 10**9  # 27 and 28 March 2016, 0:00 UTC
    assert last_reset(winter, time(0), "Europe/Berlin") == winter - HOUR_NS
    assert last_reset(summer, time(0), "Europe/Berlin") == summer - 2 * HOUR_NS

"""Tests of the intake: every reading has a number and is kept or accounted for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.sensors.intake import MAX_WAITING, ReadingIntake
from edge_agent.sensors.source import Reading
from edge_agent.sensors.values import MAX_AHEAD_S
from ingest.contract.codec import decode, encode
from ingest.contract.records import (
    BY_HOST,
    BY_HOST_INSTEAD,
    BY_SOURCE,
    GOOD,
    OUT_OF_RANGE,
    STALE,
    SUSPECT,
    WITHHELD_READING_REASONS,
    Readings,
)
from ingest.ledger.intervals import Cover
from ingest.runtime.clock import ManualClock
from ingest.site import SensorConfig

CONFIG = SensorConfig(
    name="t",
    source="simulated:t",
    quantity="temperature",
    unit="Cel",
    low=-40,
    high=100,
    column_rows=4,
    max_delay_s=2,
)
BAD = Reading(None, problem="no number")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def intake(clock: ManualClock) -> ReadingIntake:
    return ReadingIntake(CONFIG, 7, clock)


def covered(found: list[Readings], intake: ReadingIntake) -> Cover:
    """Return the sequence numbers of kept and withheld readings."""
    cover = Cover()
    tail = intake.tail()
    for account in (*(each.account for each in found), tail):
        if account:
            cover.add(account.first, account.last)
            assert set(account.counts) <= set(WITHHELD_READING_REASONS)
    for each in found:
        cover.add(each.seq, each.last_seq)
    return cover


def test_a_record_of_readings_is_closed_when_it_is_full(intake: ReadingIntake) -> None:
    for value in range(9):
        intake.take(Reading(float(value)))
    first, second = intake.ready()
    assert (first.values, first.seq, first.last_seq) == ((0.0, 1.0, 2.0, 3.0), 0, 3)
    assert (second.seq, second.sensor, second.epoch, second.unit) == (4, "t", 7, "Cel")
    assert [each.values for each in intake.close()] == [(8.0,)]
    assert intake.tail() is None


def test_a_record_of_readings_is_closed_after_the_maximum_delay_of_its_first_reading(
    intake: ReadingIntake, clock: ManualClock
) -> None:
    assert intake.left_s() is None
    intake.take(Reading(1.0))
    clock.advance(1.5)
    intake.take(Reading(2.0))
    assert intake.left_s() == 0.5
    assert not intake.ready()
    clock.advance(0.5)
    assert intake.left_s() == 0.0
    assert [each.values for each in intake.ready()] == [(1.0, 2.0)]
    assert intake.left_s() is None


@pytest.mark.parametrize(
    ("reading", "quality", "by"),
    [
        (Reading(20.0), GOOD, BY_HOST),
        (Reading(20.0, quality=SUSPECT), SUSPECT, BY_HOST),
        (Reading(101.0), OUT_OF_RANGE, BY_HOST),
        (Reading(-41.0, quality=STALE), OUT_OF_RANGE + STALE, BY_HOST),
        (Reading(20.0, at_ns=ManualClock().now_ns() - 10**9), GOOD, BY_SOURCE),
        (Reading(20.0, at_ns=ManualClock().now_ns() + round((MAX_AHEAD_S + 1) * 1e9)), GOOD, BY_HOST_INSTEAD),
    ],
)
def test_the_sensor_intake_sets_the_quality_flags_and_the_time_of_a_reading(
    intake: ReadingIntake, clock: ManualClock, reading: Reading, quality: int, by: int
) -> None:
    intake.take(reading)
    (found,) = intake.close()
    assert found.quality == (quality,)
    assert found.timed_by == (() if by == BY_HOST else (by,))
    assert found.times_ns == ((reading.at_ns,) if by == BY_SOURCE else (clock.now_ns(),))
    assert decode(Readings, encode(found)) == found


def test_unreadable_readings_are_accounted_for_by_the_next_record(intake: ReadingIntake) -> None:
    for reading in (Reading(1.0), BAD, BAD, Reading(2.0), BAD):
        intake.take(reading)
    before, after = intake.close()
    assert (before.values, before.account, after.values, after.seq) == ((1.0,), None, (2.0,), 3)
    assert after.account is not None
    assert (after.account.first, after.account.last, after.account.counts) == (1, 2, {"unusable": 2})
    tail = intake.tail()
    assert tail is not None
    assert (tail.first, tail.last, tail.counts) == (4, 4, {"unusable": 1})


def test_a_sensor_outage_uses_one_sequence_number(intake: ReadingIntake) -> None:
    intake.lose()
    assert intake.take(Reading(1.0)) == ""
    (found,) = intake.close()
    assert (found.seq, found.account and found.account.counts) == (1, {"outage": 1})


def test_readings_are_withheld_as_overload_while_the_disk_is_slow(intake: ReadingIntake) -> None:
    reasons = [intake.take(Reading(0.0)) for _ in range(1000)]
    held = MAX_WAITING * CONFIG.column_rows
    assert reasons == [""] * held + ["overload"] * (1000 - held)
    found = intake.ready()
    assert intake.take(Reading(1.0)) == ""
    found += intake.close()
    assert len(found) == MAX_WAITING + 1
    assert found[-1].account is not None
    assert found[-1].account.counts == {"overload": 1000 - held}


STEPS = st.sampled_from(["good", "bad", "lost", "wait", "keep"])


@given(st.lists(STEPS, max_size=300))
def test_kept_and_withheld_readings_cover_every_sequence_number_exactly_once(steps: list[str]) -> None:
    clock = ManualClock()
    intake, found = ReadingIntake(CONFIG, 7, clock), list[Readings]()
    for step in steps:
        if step in ("good", "bad"):
            intake.take(Reading(1.0) if step == "good" else BAD)
        elif step == "lost":
            intake.lose()
        elif step == "wait":
            clock.advance(1.0)
        else:
            found += intake.ready()
    found += intake.close()
    captured = sum(step in ("good", "bad", "lost") for step in steps)
    assert intake.captured == captured
    assert list(covered(found, intake).runs()) == ([(0, captured - 1, 1)] if captured else [])

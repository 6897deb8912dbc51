"""Tests of the hours of sensor rules."""

from __future__ import annotations

from ingest.contract.records import GOOD, Readings
from ingest.site import SensorConfig
from stream.sense.rules.threshold import ThresholdRule
from stream.sense.sensor import SensorWatch

SENSOR = SensorConfig(name="t", source="simulated:t", quantity="temperature", unit="Cel", low=-40, high=100)
RULE = ThresholdRule(
    name="hot", sensor="t", window_s=1.0, min_readings=1, above=50.0, hours=({"start": "08:00", "end": "18:00"},)
)
SECOND_NS = 10**9
DAY = 24 * 3600
OPENS, CLOSES = 8 * 3600, 18 * 3600
HOT, COLD = 70.0, 20.0


def reported_s(*spans: tuple[int, int, float]) -> list[float]:
    """Return the times of the rule's events. A span ``(begin, end, value)`` has readings of ``value``, 10 s apart.

    All times are in seconds since midnight.
    """
    watch, found, seq = SensorWatch("t", SENSOR, [RULE]), list[float](), 0
    for begin, end, value in spans:
        times_s = range(begin, end, 10)
        column = Readings(
            sensor="t",
            epoch=1,
            seq=seq,
            quantity="temperature",
            unit="Cel",
            times_ns=tuple(second * SECOND_NS for second in times_s),
            values=(value,) * len(times_s),
            quality=(GOOD,) * len(times_s),
        )
        seq += len(times_s)
        found += [event.data.captured_ns / SECOND_NS for event in watch.step(column, 0, 0.0)]
    return found


def test_a_threshold_breach_that_lasts_until_the_active_hours_of_its_rule_begin_is_reported_at_that_time() -> None:
    assert reported_s((OPENS - 60, OPENS - 30, COLD), (OPENS - 30, OPENS + 30, HOT)) == [OPENS]


def test_a_threshold_breach_that_ends_before_the_active_hours_of_its_rule_is_not_reported() -> None:
    assert reported_s((OPENS - 60, OPENS - 30, HOT), (OPENS - 30, OPENS + 30, COLD)) == []


def test_a_threshold_breach_after_the_active_hours_of_its_rule_is_not_reported() -> None:
    assert reported_s((CLOSES - 60, CLOSES, COLD), (CLOSES, CLOSES + 60, HOT)) == []


def test_a_threshold_breach_that_lasts_overnight_is_reported_on_both_days() -> None:
    next_day = OPENS + DAY
    assert reported_s((CLOSES - 30, next_day + 30, HOT)) == [CLOSES - 30, next_day]

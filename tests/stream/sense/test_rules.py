"""Tests of the sensor rules against constructed readings: thresholds with hysteresis, anomalies, gaps, stuck sensors,
cooldowns, and restarts."""

from __future__ import annotations

import random
from typing import Any

import pytest
from pydantic import ValidationError

from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.records import GOOD, Event, Readings
from ingest.contract.topics import EVENTS, READINGS
from ingest.kafka.log import Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import SensorConfig
from ingest.site.topic.view import Config
from stream.runner.memory import MemoryRunner
from stream.sense.bounds import BoundedRule
from stream.sense.rule import SensorRule
from stream.sense.rules.anomaly import AnomalyRule
from stream.sense.rules.gap import GapRule
from stream.sense.rules.limit import LimitRule
from stream.sense.rules.stuck import StuckRule
from stream.sense.rules.threshold import ThresholdRule
from stream.sense.sensor import SensorWatch
from stream.sense.stage import SenseStage
from tests.stream.sense.chunks import in_one_chunk

SENSOR = SensorConfig(name="t", source="simulated:t", quantity="temperature", unit="Cel", rate_hz=1.0)
SECOND_NS = 10**9
COMMON: dict[str, Any] = {"name": "r", "sensor": "t"}
WINDOW: dict[str, Any] = {**COMMON, "window_s": 1.0, "min_readings": 1}
LONG_S = 10_000
"""A time after all readings, at which a last reading closes the windows, in seconds."""


def column(seq: int, times_s: list[float], values: list[float]) -> Readings:
    return Readings(
        sensor="t",
        epoch=1,
        seq=seq,
        quantity="temperature",
        unit="Cel",
        times_ns=tuple(round(at_s * SECOND_NS) for at_s in times_s),
        values=tuple(values),
        quality=(GOOD,) * len(values),
    )


def reported(rule: SensorRule, values: dict[float, float], together: int = 7) -> list[tuple[float, dict[str, Any]]]:
    """Return the times in s and the details of a rule's events for readings by their times in s."""
    watch, found, rows = SensorWatch("t", SENSOR, [rule]), list[Event](), list(values.items())
    for seq in range(0, len(rows), together):
        part = rows[seq : seq + together]
        found += watch.step(column(seq, [at for at, _ in part], [value for _, value in part]), 0, 0.0)
    return [(event.data.captured_ns / SECOND_NS, dict(event.data.details)) for event in found]


def times(rule: SensorRule, values: dict[float, float], together: int = 7) -> list[float]:
    by_columns = [at_s for at_s, _ in reported(rule, values, together)]
    assert by_columns == [at_s for at_s, _ in reported(rule, values, 1)]
    return by_columns


def each_second(*values: float) -> dict[float, float]:
    return {**{float(n): value for n, value in enumerate(values)}, LONG_S: 20.0}


def test_a_threshold_breach_ends_only_when_the_mean_is_inside_the_bounds_by_the_hysteresis() -> None:
    values = each_second(20, 52, 48, 52, 44, 52, 20)
    assert times(ThresholdRule(**WINDOW, above=50.0), values) == [1, 3, 5]
    assert times(ThresholdRule(**WINDOW, above=50.0, hysteresis=5.0), values) == [1, 5]
    assert times(ThresholdRule(**WINDOW, below=30.0, hysteresis=25.0), each_second(20, 40, 20, 56, 20)) == [0, 4]


def test_a_limit_is_reported_at_the_reading_that_exceeds_it_and_again_only_after_a_reading_inside() -> None:
    values = each_second(20, 52, 48, 52, 44, 52, 20)
    assert times(LimitRule(**COMMON, above=50.0), values) == [1, 3, 5]
    assert times(LimitRule(**COMMON, above=50.0, hysteresis=5.0), values) == [1, 5]
    assert times(LimitRule(**COMMON, above=90.0, below=30.0, hysteresis=16.0), each_second(60, 20, 40, 20)) == [1]
    assert times(LimitRule(**COMMON, above=90.0, below=30.0), each_second(60, 20, 95, 20, 60, 95)) == [1, 5]
    (found,) = reported(LimitRule(**COMMON, above=50.0), {0.0: 20.0, 1.0: 50.25})
    assert found == (1, {"value": 50.25, "unit": "Cel"})


def test_a_limit_that_is_still_exceeded_after_the_cooldown_is_reported_then() -> None:
    lasting = each_second(20, 60, 20, *([60] * 10))
    assert times(LimitRule(**COMMON, above=50.0, cooldown_s=5.0), lasting) == [1, 6]


@pytest.mark.parametrize("cls", [ThresholdRule, LimitRule])
def test_a_rule_without_bounds_or_with_bounds_that_leave_no_room_for_the_hysteresis_is_refused(
    cls: type[BoundedRule],
) -> None:
    with pytest.raises(ValidationError, match="more than twice the hysteresis, 5"):
        cls(**COMMON, above=20.0, below=10.0, hysteresis=5.0)
    with pytest.raises(ValidationError, match="expected a limit in above, in below, or in both"):
        cls(**COMMON)


def test_a_rule_reports_nothing_in_its_cooldown_and_afterwards_reports_a_breach_that_still_lasts() -> None:
    values = each_second(*([20, 60] * 10))
    assert times(ThresholdRule(**WINDOW, above=50.0), values) == [*range(1, 20, 2)]
    assert times(ThresholdRule(**WINDOW, above=50.0, cooldown_s=5.0), values) == [1, 7, 13, 19]
    lasting = each_second(20, 60, 20, *([60] * 10))
    assert times(ThresholdRule(**WINDOW, above=50.0, cooldown_s=5.0), lasting) == [1, 6]


def test_hopping_windows_report_a_breach_at_the_first_window_that_exceeds_the_bound() -> None:
    rule = ThresholdRule(**COMMON, window_s=4.0, hop_s=1.0, min_readings=4, above=50.0)
    assert reported(rule, each_second(20, 20, 20, 20, 90, 90, 90, 90, 90)) == [(2, {"value": 55.0, "unit": "Cel"})]


def test_all_readings_of_a_session_window_are_evaluated_together() -> None:
    """The session of five readings from 10 s on has a mean of 60."""
    rule = ThresholdRule(**COMMON, window_s=3600.0, session_gap_s=2.0, above=50.0)
    values = {0.0: 90.0, 10.0: 20.0, 11.0: 20.0, 12.0: 80.0, 13.0: 90.0, 14.0: 90.0, float(LONG_S): 0.0}
    assert reported(rule, values) == [(10, {"value": 60.0, "unit": "Cel"})]


def test_an_anomaly_is_far_from_the_median_of_the_history_in_robust_deviations() -> None:
    chance = random.Random(5)
    noise = [20.0 + chance.gauss(0.0, 0.5) for _ in range(200)]
    noise[100] = noise[101] = 40.0
    noise[150] = 0.0
    found = reported(AnomalyRule(**WINDOW, history_s=60.0), each_second(*noise[:200]))
    assert [at_s for at_s, _ in found] == [100, 150]
    assert found[0][1]["median"] == pytest.approx(20.0, abs=0.3)
    assert 25 < found[0][1]["score"] < 80


def test_a_constant_history_reports_an_anomaly_only_beyond_the_configured_minimum_deviation() -> None:
    constant = [20.0] * 40 + [20.5] + [20.0] * 10 + [30.0]
    assert times(AnomalyRule(**WINDOW), each_second(*constant)) == []
    assert times(AnomalyRule(**WINDOW, min_deviation=0.5), each_second(*constant)) == [51]
    assert times(AnomalyRule(**WINDOW, min_deviation=0.5, min_windows=60), each_second(*constant)) == []


def test_a_lasting_new_level_is_no_anomaly_once_it_fills_half_of_the_history() -> None:
    values = [20.0, 20.2] * 30 + [30.0, 30.2] * 60 + [20.0]
    assert times(AnomalyRule(**WINDOW, history_s=60.0), each_second(*values)) == [60, 180]


def test_a_sensor_is_stuck_once_its_readings_have_not_changed_for_the_configured_duration() -> None:
    values = each_second(1, 2, *([5] * 8), 6, *([5] * 3), *([7] * 20))
    assert times(StuckRule(**COMMON, for_s=5.0), values) == [7, 19]
    assert times(StuckRule(**COMMON, for_s=5.0, tolerance=1.0), values) == [7, 19]
    assert times(StuckRule(**COMMON, for_s=5.0, cooldown_s=20.0), values) == [7, 27]


def test_a_gap_between_readings_is_reported_with_the_time_at_which_it_reached_its_minimum_duration() -> None:
    values = {0.0: 1.0, 1.0: 1.0, 8.0: 1.0, 9.0: 1.0, 14.0: 1.0, 20.0: 1.0}
    assert times(GapRule(**COMMON, for_s=5.0), values) == [6, 19]


async def written(log: MemoryLog) -> list[Event]:
    stop = (await log.ends(EVENTS))[0]
    return [decode_json(Event, record.value) async for record in log.read(EVENTS, 0, 0, stop)]


async def test_a_gap_without_readings_is_reported_once_while_it_lasts() -> None:
    clock = ManualClock()
    log = MemoryLog(partitions=1, clock=clock)
    rule = GapRule(**COMMON, for_s=60.0)
    config = Config({entry.key: entry for entry in (SENSOR, rule)})
    runner = MemoryRunner(SenseStage(config, 1, clock=clock), log, clock)
    await log.produce(Outgoing(READINGS, 0, encode(column(0, [0.0, 1.0], [1.0, 1.0]))))
    await runner.run()
    await runner.advance(59.0)
    assert await written(log) == []
    await runner.advance(5.0)
    (event,) = await written(log)
    assert (event.type, event.data.captured_ns, event.data.sensor) == ("sightline.sensor.gap", 61 * SECOND_NS, "t")
    for _ in range(2):  # a restart during the gap, and one after it
        await runner.advance(300.0)
        runner = MemoryRunner(SenseStage(config, 1, clock=clock), log, clock)
        await runner.run()
    await log.produce(Outgoing(READINGS, 0, encode(column(2, [700.0], [1.0]))))
    await runner.run()
    assert await written(log) == [event]


RULES = [
    ThresholdRule(**WINDOW, above=50.0, cooldown_s=30.0, hysteresis=2.0),
    AnomalyRule(**{**WINDOW, "window_s": 2.0}, history_s=60.0),
    StuckRule(**COMMON, for_s=6.0, tolerance=0.5, cooldown_s=40.0),
    GapRule(**COMMON, for_s=5.0),
    LimitRule(**COMMON, above=60.0, hysteresis=30.0),
    ThresholdRule(**{**WINDOW, "window_s": 4.0}, hop_s=1.0, above=50.0),
    ThresholdRule(**{**WINDOW, "window_s": 600.0}, session_gap_s=2.0, above=33.0),
]


def records() -> list[bytes]:
    chance, found, at_s = random.Random(3), list[bytes](), 0.0
    for number in range(150):
        level = chance.choice([20.0, 20.0, 60.0])
        values = [level + (chance.gauss(0.0, 1.0) if number % 30 > 12 else 0.0) for _ in range(5)]
        at_s += 6.0 if chance.random() < 0.1 else 1.0
        found.append(encode(column(5 * number, [at_s + n for n in range(5)], values)))
        at_s += 4.0
    return found


RECORDS = records()


async def events_between(rule: SensorRule, start: int, stop: int, before: list[Event]) -> list[Event]:
    """Return the events of a worker that begins with the record ``start``. The log has the events ``before``."""
    clock = ManualClock()
    log = MemoryLog(partitions=1, clock=clock)
    for value in RECORDS:
        await log.produce(Outgoing(READINGS, 0, value))
        clock.advance(5.0)
    for event in before:
        await log.produce(Outgoing(EVENTS, 0, encode_json(event)))
    stage = SenseStage(Config({entry.key: entry for entry in (SENSOR, rule)}), 1)
    processor = await stage.open(TopicPartition(READINGS, 0), start, log)
    works = [work async for record in log.read(READINGS, 0, start, stop) for work in in_one_chunk(processor, record)]
    return [decode_json(Event, out.value) for work in works for out in work.records]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.type}-{rule.cooldown_s:g}")
async def test_a_restart_at_any_record_makes_the_events_of_the_undisturbed_run(rule: SensorRule) -> None:
    """A killed worker is replaced by one that continues two records earlier. The events have the same ids."""
    whole = await events_between(rule, 0, 150, [])
    assert len(whole) >= 3
    for cut in range(60, 150, 22):
        first = await events_between(rule, 0, cut, [])
        assert [*first, *await events_between(rule, cut - 2, 150, first)] == whole


def test_a_window_that_is_evaluated_twice_counts_once_in_the_history_of_an_anomaly() -> None:
    """A sensor sends a record every five seconds, so that its last windows are evaluated before the next record."""
    chance = random.Random(2)
    rule = AnomalyRule(**WINDOW, history_s=30.0, min_windows=12, deviations=4.0)
    rows = {float(n): 20.0 + chance.gauss(0.0, 1.0) + (8.0 if n % 9 == 0 else 0.0) for n in range(120)}
    undisturbed = times(rule, rows, together=5)
    watch, found, values = SensorWatch("t", SENSOR, [rule]), list[Event](), list(rows.items())
    for at in range(0, len(values), 5):
        part = values[at : at + 5]
        found += watch.step(column(at, [one for one, _ in part], [value for _, value in part]), 0, part[-1][0])
        found += watch.tick(part[-1][0] + 4.9)
    assert len(undisturbed) > 5
    assert [event.data.captured_ns / SECOND_NS for event in found] == undisturbed

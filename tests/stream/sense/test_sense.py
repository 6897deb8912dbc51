"""Tests of the stage ``sense``: windows, thresholds, restarts and parked readings."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from ingest.contract.codec import decode_json, encode, encode_json
from ingest.contract.records import Event
from ingest.contract.topics import DEADLETTER, EVENTS, READINGS
from ingest.kafka.log import LogRecord, Outgoing, TopicPartition
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site.topic.view import Config
from stream import readback
from stream.epochs import RUN_RECORDS
from stream.metrics import SenseMetrics
from stream.rules import Happening
from stream.sense.rules.threshold import ThresholdRule, ThresholdWatch
from stream.sense.stage import SenseStage
from stream.sense.windows import LATE_IN_A_ROW, Column, ReadingWindow, TumblingWindows
from tests.stream.sense.chunks import in_one_chunk
from tests.stream.sense.thermometer import SENSOR, STEP_NS, readings

RULE = ThresholdRule(name="hot", sensor="t", window_s=1.0, above=50.0)
CONFIG = Config({entry.key: entry for entry in (SENSOR, RULE)})


@given(
    values=st.lists(st.floats(-30, 90), min_size=1, max_size=120),
    cuts=st.lists(st.integers(0, 120), max_size=6),
)
def test_windows_of_readings_do_not_depend_on_how_readings_are_split_into_records(
    values: list[float], cuts: list[int]
) -> None:
    times_ns = [i * STEP_NS for i in range(len(values))]
    whole = TumblingWindows(1.0).add(Column(times_ns, values))
    edges = sorted({0, len(values), *(c for c in cuts if c < len(values))})
    windows, parts = TumblingWindows(1.0), []
    for a, b in itertools.pairwise(edges):
        parts += windows.add(Column(times_ns[a:b], values[a:b]))
    assert parts == whole
    assert [w.count for w in whole] == [10] * len(whole)
    assert windows.late == 0


async def test_a_sensor_makes_events_again_once_its_run_with_a_lower_number_is_accepted() -> None:
    log = MemoryLog(partitions=1)
    await log.produce(Outgoing(READINGS, 0, encode(readings(0, [20.0] * 30, epoch=9, first_ns=HOUR_NS))))
    for column in range(RUN_RECORDS + 3):
        hot = readings(10 * column, [70.0] * 10, epoch=4)
        await log.produce(Outgoing(READINGS, 0, encode(hot)))
    assert [event.data.captured_ns for event in await events_after(log, 0)] == [(RUN_RECORDS - 1) * SECOND_NS]


HOUR_NS = 3600 * 10**9


def rows(first_ns: int, count: int, value: float = 20.0) -> Column:
    return Column([first_ns + i * STEP_NS for i in range(count)], [value] * count)


def test_windows_of_readings_restart_after_a_fixed_number_of_late_readings() -> None:
    windows = TumblingWindows(1.0)
    assert len(windows.add(rows(HOUR_NS, 100))) == 8
    closed = windows.add(rows(0, LATE_IN_A_ROW + 50))
    assert windows.late == LATE_IN_A_ROW - 1
    assert windows.set_back == 1
    assert [(w.start_ns // 10**9, w.count) for w in closed] == [(2, 1), (3, 10), (4, 10), (5, 10)]


def test_late_readings_between_timely_readings_do_not_restart_the_windows() -> None:
    windows = TumblingWindows(1.0)
    windows.add(rows(HOUR_NS, 100))
    for number in range(2 * LATE_IN_A_ROW):
        windows.add(Column([0, HOUR_NS + (100 + number) * STEP_NS], [20.0, 20.0]))
    assert (windows.late, windows.set_back) == (2 * LATE_IN_A_ROW, 0)


def test_readings_of_a_new_run_continue_the_open_window_or_restart_it_at_an_earlier_time() -> None:
    windows = TumblingWindows(1.0)
    windows.add(rows(HOUR_NS, 25))
    windows.begin_epoch()
    (window,) = windows.add(rows(HOUR_NS + 25 * STEP_NS, 6))
    assert (window.count, windows.set_back) == (10, 0)
    windows.begin_epoch()
    assert len(windows.add(rows(0, 30))) == 1
    assert (windows.late, windows.set_back) == (0, 1)


async def events_of(log: MemoryLog, start: int, stop: int) -> dict[str, Event]:
    processor = await SenseStage(CONFIG, 1).open(TopicPartition(READINGS, 0), start, log)
    found = {}
    async for record in log.read(READINGS, 0, start, stop):
        for work in in_one_chunk(processor, record):
            for out in work.records:
                assert out.topic == EVENTS
                event = decode_json(Event, out.value)
                found[event.id] = event
    return found


async def test_a_threshold_breach_is_reported_once_and_again_after_a_window_inside_the_bounds() -> None:
    log = MemoryLog(partitions=1)
    values = [20.0] * 30 + [70.0] * 30 + [20.0] * 30 + [70.0] * 30 + [20.0] * 30
    for seq in range(0, len(values), 7):
        await log.produce(Outgoing(READINGS, 0, encode(readings(seq, values[seq : seq + 7]))))
    count = -(-len(values) // 7)
    whole = await events_of(log, 0, count)
    assert [e.data.captured_ns for e in whole.values()] == [3_000_000_000, 9_000_000_000]
    event = next(iter(whole.values()))
    assert event.data.details == {"value": 70.0, "unit": "Cel"}
    assert "above 50" in event.data.summary
    for cut in range(count):  # a restart at any record makes the same events
        first, second = await events_of(log, 0, cut), await events_of(log, max(0, cut - 2), count)
        assert {**first, **second} == whole


async def events_after(log: MemoryLog, start: int, metrics: SenseMetrics | None = None) -> list[Event]:
    """Open the stage at an offset, and return the events of the remaining readings."""
    processor = await SenseStage(TWO, 1, metrics).open(PARTITION, start, log)
    stop = (await log.ends(READINGS))[0]
    works = [work async for record in log.read(READINGS, 0, start, stop) for work in in_one_chunk(processor, record)]
    return [decode_json(Event, out.value) for work in works for out in work.records if out.topic == EVENTS]


PARTITION = TopicPartition(READINGS, 0)
SLOW = SENSOR.model_copy(update={"name": "slow", "rate_hz": 1.0, "max_delay_s": 60.0})
SLOW_RULE = RULE.model_copy(update={"name": "slow-hot", "sensor": "slow", "window_s": 5.0})
TWO = Config({entry.key: entry for entry in (SENSOR, RULE, SLOW, SLOW_RULE)})
SECOND_NS = 10**9


async def test_a_restart_restores_the_windows_of_a_rarely_writing_sensor_beside_a_frequent_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The broker's clock follows the capture. The slow sensor is hot from 150 s on, and makes one event."""
    monkeypatch.setattr(readback, "_FIRST_CHUNK", 8)
    clock = ManualClock()
    log = MemoryLog(partitions=1, clock=clock)
    for second in range(1, 301):
        clock.advance(1.0)
        await log.produce(Outgoing(READINGS, 0, encode(readings(second * 10, [20.0] * 10))))
        if second % 60 == 0:
            values = [20.0 if at < 150 else 70.0 for at in range(second - 60, second)]
            column = readings(second - 60, values, sensor="slow", step_ns=SECOND_NS)
            await log.produce(Outgoing(READINGS, 0, encode(column)))
    whole = await events_after(log, 0)
    assert [event.data.captured_ns for event in whole] == [150 * SECOND_NS]
    assert await events_after(log, 183) == []  # just after the column with the breach
    assert await events_after(log, 240) == []  # long after it, before the next column


async def test_a_threshold_breach_of_a_sensor_with_rare_readings_is_not_repeated_after_a_restart() -> None:
    """The sensor sends one reading a minute, and windows last a second, so the readings that show the breach are
    minutes old."""
    lone = SENSOR.model_copy(update={"rate_hz": 1 / 60})
    config = Config({entry.key: entry for entry in (lone, RULE.model_copy(update={"min_readings": 1}))})
    clock = ManualClock()
    log = MemoryLog(partitions=1, clock=clock)
    for minute in range(10):
        clock.advance(60.0)
        await log.produce(Outgoing(READINGS, 0, encode(readings(minute, [70.0], first_ns=minute * 60 * SECOND_NS))))
    for start in (0, 5, 9):
        processor = await SenseStage(config, 1).open(PARTITION, start, log)
        past = [record async for record in log.read(READINGS, 0, start, 10)]
        works = [work for record in past for work in in_one_chunk(processor, record)]
        assert sum(len(work.records) for work in works) == (start == 0)


async def test_sensor_events_that_were_written_before_the_first_commit_are_not_repeated() -> None:
    log = MemoryLog(partitions=1)
    await log.produce(Outgoing(READINGS, 0, encode(readings(0, [70.0] * 60))))
    (event,) = await events_after(log, 0)
    await log.produce(Outgoing(EVENTS, 0, encode_json(event)))
    assert await events_after(log, 0) == []


async def test_a_restart_that_reads_only_the_last_seconds_of_a_long_log_makes_the_same_events() -> None:
    clock = ManualClock()
    log = MemoryLog(partitions=1, clock=clock)
    for second in range(1000):
        clock.advance(1.0)
        value = 70.0 if second % 97 > 80 else 20.0
        await log.produce(Outgoing(READINGS, 0, encode(readings(second * 10, [value] * 10))))
    whole = [event.id for event in await events_after(log, 0)]
    assert len(whole) == 10
    rest = {cut: [event.id for event in await events_after(log, cut)] for cut in range(500, 1000, 7)}
    assert all(whole[len(whole) - len(ids) :] == ids for ids in rest.values())
    assert len(rest[997]) == 0 < len(rest[500]) < 10


async def test_dropped_readings_are_not_counted_again_when_a_restart_reads_them_to_restore_its_state() -> None:
    registry = CollectorRegistry()
    metrics = SenseMetrics(registry)
    log = MemoryLog(partitions=1)
    await log.produce(Outgoing(READINGS, 0, encode(readings(0, [20.0, 999.0], first_ns=HOUR_NS))))
    await log.produce(Outgoing(READINGS, 0, encode(readings(2, [20.0] * 30, first_ns=HOUR_NS + 2 * STEP_NS))))
    await log.produce(Outgoing(READINGS, 0, encode(readings(31, [20.0, 999.0], first_ns=HOUR_NS + 31 * STEP_NS))))
    await log.produce(Outgoing(READINGS, 0, encode(readings(33, [20.0] * 30, first_ns=0))))
    await log.produce(Outgoing(READINGS, 0, encode(readings(90, [20.0] * 5, epoch=0))))
    assert await events_after(log, 2, metrics) == []

    def counted(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"sightline_sense_{name}_total", {"sensor": "t", **labels})

    assert counted("dropped_readings", reason="repeat") == 1.0
    assert counted("dropped_readings", reason="range") == 1.0
    assert counted("dropped_readings", reason="old-epoch") == 5.0
    assert counted("late_readings", rule="hot") == LATE_IN_A_ROW - 1
    assert counted("clock_set_back", rule="hot") == 1.0


async def test_a_restarted_device_with_its_clock_set_back_makes_events() -> None:
    log = MemoryLog(partitions=1)
    await log.produce(Outgoing(READINGS, 0, encode(readings(0, [20.0] * 30, first_ns=HOUR_NS))))
    await log.produce(Outgoing(READINGS, 0, encode(readings(0, [70.0] * 30, epoch=2, first_ns=0))))
    assert [event.data.captured_ns for event in await events_after(log, 0)] == [0]


async def test_readings_that_cannot_be_processed_become_a_dead_letter_and_the_next_are_processed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = MemoryLog(partitions=1)
    for seq in range(0, 60, 10):
        await log.produce(Outgoing(READINGS, 0, encode(readings(seq, [70.0] * 10))))
    step = ThresholdWatch.step

    def breaks(self: ThresholdWatch, window: ReadingWindow) -> Happening | None:
        if window.start_ns == SECOND_NS:
            raise ArithmeticError("once")
        return step(self, window)

    monkeypatch.setattr(ThresholdWatch, "step", breaks)
    processor = await SenseStage(CONFIG, 1).open(PARTITION, 0, log)
    works = [work async for record in log.read(READINGS, 0, 0, 6) for work in in_one_chunk(processor, record)]
    assert Counter(out.topic for work in works for out in work.records) == {EVENTS: 1, DEADLETTER: 1}
    assert [work.done for work in works] == [(offset,) for offset in range(6)]
    assert await events_after(log, 5) == []  # a restart reads the failing readings again, and ignores the error


async def test_a_memory_error_ends_the_sense_process_and_makes_no_dead_letter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = MemoryLog(partitions=1)
    await log.produce(Outgoing(READINGS, 0, encode(readings(0, [20.0]))))

    def exhausted(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(TumblingWindows, "add", exhausted)
    with pytest.raises(MemoryError):
        await events_after(log, 0)
    with pytest.raises(MemoryError):
        await events_after(log, 1)


async def test_a_threshold_breach_continues_over_restarts_of_the_device_and_of_the_worker() -> None:
    log = MemoryLog(partitions=1, clock=ManualClock())
    for second in range(20):
        hot = readings(0, [70.0] * 10, epoch=1 + second, first_ns=second * SECOND_NS)
        await log.produce(Outgoing(READINGS, 0, encode(hot)))
    assert len(await events_after(log, 0)) == 1
    assert await events_after(log, 19) == []


@pytest.mark.parametrize(
    ("mean", "bounds", "text"),
    [
        (0.0031, {"above": 0.002}, "is 0.0031 A, above 0.002"),
        (-0.04, {"below": -0.01}, "is -0.04 A, below -0.01"),
        (60.04, {"above": 60.0}, "is 60.04 A, above 60"),
        (71.26, {"above": 60.0}, "is 71.3 A, above 60"),
        (2345678.9, {"above": 1234567.0}, "is 2345678.9 A, above 1234567"),
        (1.5e-14, {"above": 1e-14}, "is 1.5e-14 A, above 1e-14"),
    ],
)
def test_the_text_of_a_threshold_event_has_enough_digits_to_show_the_breach(
    mean: float, bounds: dict[str, float], text: str
) -> None:
    config = SENSOR.model_copy(update={"quantity": "current", "unit": "A"})
    watch = ThresholdRule(name="r", sensor="t", **bounds).watch("t", config)
    happening = watch.step(ReadingWindow(0, 1, mean))
    assert happening is not None
    assert happening.summary == f"current of t {text}"


async def test_a_changed_rule_begins_with_a_new_state_and_other_rules_keep_their_state() -> None:
    """Two rules have reported a lasting breach. Only the changed rule reports the breach again."""
    stage = SenseStage(Config({entry.key: entry for entry in (SENSOR, RULE)}), 1)
    processor = await stage.open(PARTITION, 0, MemoryLog(partitions=1))

    def fed(seq: int) -> list[str]:
        works = in_one_chunk(processor, LogRecord(READINGS, 0, seq, None, encode(readings(seq * 100, [70.0] * 100))))
        return [decode_json(Event, out.value).data.rule for work in works for out in work.records]

    assert fed(0) == ["hot"]
    added = RULE.model_copy(update={"name": "hotter", "above": 60.0})
    shared = RULE.model_copy(update={"sites": ("north",)})
    stage.configure(Config({entry.key: entry for entry in (SENSOR, shared, added)}))
    assert fed(1) == ["hotter"]
    stage.configure(Config({entry.key: entry for entry in (SENSOR, added, RULE.model_copy(update={"above": 55.0}))}))
    assert fed(2) == ["hot"]
    stage.configure(Config({SENSOR.key: SENSOR}))
    assert fed(3) == []

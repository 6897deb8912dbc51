"""Tests of the last window of a sensor that falls silent."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.contract.codec import decode_json, encode
from ingest.contract.records import Event
from ingest.contract.topics import EVENTS, READINGS
from ingest.kafka.log import Outgoing
from ingest.kafka.memorylog import MemoryLog
from ingest.runtime.clock import ManualClock
from ingest.site import ALLOWED_LATENESS_S
from ingest.site.topic.view import Config
from stream.runner.memory import MemoryRunner
from stream.sense.rules.threshold import ThresholdRule, ThresholdWatch
from stream.sense.stage import SenseStage
from tests.stream.sense.thermometer import SENSOR, readings

BURST = ThresholdRule(name="hot", sensor="t", window_s=5.0, above=50.0)
BURSTS = Config({entry.key: entry for entry in (SENSOR, BURST)})


async def written(log: MemoryLog) -> list[Event]:
    stop = (await log.ends(EVENTS))[0]
    return [decode_json(Event, record.value) async for record in log.read(EVENTS, 0, 0, stop)]


async def begun(values: list[float]) -> tuple[MemoryLog, MemoryRunner]:
    """Return a log with ten readings per second from time 0 on, and a runner of `sense` that has processed them."""
    clock = ManualClock()
    log = MemoryLog(partitions=1, clock=clock)
    runner = MemoryRunner(SenseStage(BURSTS, 1, clock=clock), log, clock)
    await log.produce(Outgoing(READINGS, 0, encode(readings(0, values))))
    await runner.run()
    return log, runner


async def test_a_threshold_breach_before_a_sensor_falls_silent_is_reported_soon_after_its_window() -> None:
    log, runner = await begun([90.0] * 9)
    await runner.advance(4.0)
    assert await written(log) == []
    await runner.advance(SENSOR.max_delay_s + ALLOWED_LATENESS_S + 1.0)
    (event,) = await written(log)
    assert event.data.captured_ns == 0
    await log.produce(Outgoing(READINGS, 0, encode(readings(9, [90.0] * 60))))  # delayed and timely readings
    await runner.run()
    await runner.advance(60.0)
    assert await written(log) == [event]


async def test_readings_that_a_broken_link_delayed_past_the_window_deadline_are_still_in_their_window() -> None:
    log, runner = await begun([20.0] * 9)
    await runner.advance(3600.0)
    assert await written(log) == []
    await log.produce(Outgoing(READINGS, 0, encode(readings(9, [90.0] * 35))))
    await runner.run()
    await runner.advance(60.0)
    assert [event.data.details["value"] for event in await written(log)] == [pytest.approx((9 * 20 + 35 * 90) / 44)]


async def test_a_restart_reports_the_last_window_of_a_silent_sensor_once() -> None:
    clock = ManualClock()
    log = MemoryLog(partitions=1, clock=clock)
    await log.produce(Outgoing(READINGS, 0, encode(readings(0, [90.0] * 9))))
    killed = MemoryRunner(SenseStage(BURSTS, 1, clock=clock), log, clock)
    await killed.run()
    for _ in range(3):  # the first finds the window unreported, the others find its event in the log
        restarted = MemoryRunner(SenseStage(BURSTS, 1, clock=clock), log, clock)
        await restarted.run()
        await restarted.advance(60.0)
        assert len(await written(log)) == 1


async def test_a_rule_that_fails_at_the_window_deadline_does_not_end_the_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def breaks(*_: Any) -> None:
        raise ArithmeticError("once")

    log, runner = await begun([90.0] * 9)
    monkeypatch.setattr(ThresholdWatch, "step", breaks)
    await runner.advance(60.0)
    assert await written(log) == []

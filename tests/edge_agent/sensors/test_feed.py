"""Tests of a feed and its sensors: outages, silence, unclaimed readings, and ends of epochs."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from edge_agent.exceptions import SourceUnusable, SpoolError
from edge_agent.sensors.source import Reading, Sink
from edge_agent.spool.schema import Row
from tests.edge_agent.sensors.feedbench import FeedBench, fed
from tests.edge_agent.sensors.listener import sensor

Make = Callable[..., Awaitable[FeedBench]]


class ScriptedSensorSource:
    """Source that runs the steps of a test, one after another."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[Callable[[Sink], None]] = asyncio.Queue()
        self.runs = 0

    async def run(self, sink: Sink) -> None:
        self.runs += 1
        while True:
            (await self.steps.get())(sink)

    def give(self, name: str, value: float | None) -> None:
        self.steps.put_nowait(lambda sink: sink.take(name, Reading(value, problem="" if value else "garbled")))

    def fail(self, error: Exception) -> None:
        def step(_: Sink) -> None:
            raise error

        self.steps.put_nowait(step)


@pytest.fixture
def source() -> ScriptedSensorSource:
    return ScriptedSensorSource()


@pytest.fixture
async def make(tmp_path: Path, source: ScriptedSensorSource) -> AsyncIterator[Make]:
    async with contextlib.AsyncExitStack() as stack:

        async def bench(**values: Any) -> FeedBench:
            configs = [sensor(name, "simulated:t", **{"max_delay_s": 0.02} | values) for name in ("a", "b")]
            return await stack.enter_async_context(fed(tmp_path, *configs, source=source))

        yield bench


async def test_a_single_reading_is_stored_after_its_maximum_delay(make: Make, source: ScriptedSensorSource) -> None:
    bench = await make()
    source.give("a", 1.0)
    await bench.until(lambda: bench.sensors["a"].kept == 1)
    assert bench.sensors["a"].state == "running"
    await bench.stop()
    assert [each.values for each in bench.kept("a")] == [(1.0,)]
    assert not bench.kept("b")


async def test_a_device_with_many_unreadable_readings_is_logged_once(
    make: Make, source: ScriptedSensorSource
) -> None:
    bench = await make()
    with capture_logs() as logs:
        for _ in range(5):
            source.give("a", None)
            source.give("a", 1.0)
        await bench.until(lambda: bench.sensors["a"].captured == 10)
    assert [line["event"] for line in logs].count("reading_withheld") == 1
    assert bench.sensors["a"].reason == ""


async def test_the_run_of_a_sensor_ends_cleanly_with_the_counts_of_withheld_readings(
    make: Make, source: ScriptedSensorSource
) -> None:
    bench = await make(max_delay_s=60.0)
    source.give("a", 1.0)
    source.give("a", None)
    await bench.until(lambda: bench.sensors["a"].captured == 2)
    assert (bench.sensors["a"].state, bench.sensors["a"].reason) == ("running", "unusable: garbled")
    await bench.stop()
    assert [each.values for each in bench.kept("a")] == [(1.0,)], "gathered readings are kept at the end"
    (a, a_tail), (b, b_tail) = (bench.ends()[name] for name in ("a", "b"))
    assert (a.last, a.clean, a_tail) == (1, True, {"unusable": 1})
    assert (b.last, b.clean, b_tail) == (-1, True, {})
    assert not bench.store.unfinished("readings")


async def test_a_spool_write_in_progress_is_finished_when_the_sensor_feed_stops(
    make: Make, source: ScriptedSensorSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench, free = await make(max_delay_s=0.0), threading.Event()
    await bench.until(lambda: source.runs == 1)
    keep, waited = bench.store.keep, list[bool]()

    def slow(rows: Sequence[Row], **options: Any) -> list[Row]:
        waited.append(free.wait(20.0))
        return keep(rows, **options)

    monkeypatch.setattr(bench.store, "keep", slow)
    source.give("a", 1.0)
    await bench.until(lambda: bench.sensors["a"].captured == 1 and bench.sensors["a"]._intake.left_s() is None)
    bench.feed.stop()
    await asyncio.sleep(0)
    free.set()
    await asyncio.wait_for(bench.task, 60)
    assert waited == [True]
    assert bench.values("a") == [1.0]


async def test_a_sensor_outage_is_logged_once_at_its_start_and_once_at_its_end(
    make: Make, source: ScriptedSensorSource
) -> None:
    with capture_logs() as logs:
        bench = await make()
        source.give("a", 1.0)
        await bench.until(lambda: bench.sensors["a"].captured == 1)
        for attempt in range(3):
            source.fail(SourceUnusable(f"unplugged {attempt}"))
        await bench.until(lambda: source.runs == 4)
        status = bench.sensors["a"].status([])
        assert (status.state, status.reason, status.captured) == ("down", "unplugged 2", 2)
        source.give("a", 2.0)
        await bench.until(lambda: bench.sensors["a"].captured == 3)
        assert (bench.sensors["a"].state, bench.sensors["a"].reason, bench.sensors["b"].state) == (
            "running",
            "",
            "down",
        )
        await bench.stop()
    events = [(line["event"], line["sensor"]) for line in logs if line["event"].startswith("sensor_")]
    assert sorted(events) == [("sensor_back", "a"), ("sensor_lost", "a"), ("sensor_lost", "b")]
    assert bench.withheld("a") == bench.withheld("b") == {"outage": 1}
    assert bench.figure("sightline_agent_source_restarts_total", source="simulated:t") == 3
    assert bench.figure("sightline_agent_readings_total", sensor="a", fate="taken") == 2


async def test_an_unexpected_error_of_a_sensor_source_does_not_end_its_feed(
    make: Make, source: ScriptedSensorSource
) -> None:
    bench = await make()
    source.fail(AttributeError("no attribute of a library"))
    await bench.until(lambda: source.runs == 2)
    assert "no attribute of a library" in bench.sensors["a"].reason
    await bench.stop()


async def test_a_silent_sensor_counts_as_stalled_until_its_next_reading(
    make: Make, source: ScriptedSensorSource
) -> None:
    bench = await make(silent_after_s=0.05)
    source.steps.put_nowait(lambda sink: sink.opened())
    await bench.until(lambda: bench.sensors["a"].state == "stalled")
    assert bench.sensors["a"].reason == "no reading for 0.05 s"
    source.steps.put_nowait(lambda sink: sink.opened())
    source.give("b", None)
    await bench.until(lambda: bench.sensors["b"].state == "running")
    assert bench.sensors["a"].state == "stalled", "a good connection does not prove a good sensor"
    await bench.stop()
    end, tail = bench.ends()["a"]
    assert (end.last, tail) == (0, {"outage": 1})


async def test_a_stalled_sensor_stays_stalled_while_other_sensors_give_readings(
    make: Make, source: ScriptedSensorSource
) -> None:
    bench = await make()
    source.steps.put_nowait(lambda sink: sink.lost("a", "unit 2 does not answer"))
    source.steps.put_nowait(lambda sink: sink.opened())
    source.give("b", 1.0)
    await bench.until(lambda: bench.sensors["b"].captured == 1)
    assert (bench.sensors["a"].state, bench.sensors["a"].reason) == ("stalled", "unit 2 does not answer")
    source.fail(SourceUnusable("unplugged"))
    await bench.state("a", "down")
    source.steps.put_nowait(lambda sink: sink.opened())
    for name in ("a", "b"):
        await bench.state(name, "running")
    await bench.stop()
    assert bench.withheld("a") == bench.withheld("b") == {"outage": 1}


async def test_readings_without_a_configured_sensor_are_counted_and_their_names_logged_once(
    make: Make, source: ScriptedSensorSource
) -> None:
    with capture_logs() as logs:
        bench = await make()
        for name in ["temp", "temp", "", *map(str, range(100))]:
            source.steps.put_nowait(lambda sink, name=name: sink.unclaimed(name))
        source.give("a", 1.0)
        await bench.until(lambda: bench.sensors["a"].captured == 1)
        await bench.stop()
    names = [line["field"] for line in logs if line["event"] == "reading_without_configured_sensor"]
    assert names[:3] == ["temp", "unreadable data", "0"]
    assert len(names) == 20
    assert bench.figure("sightline_agent_unclaimed_readings_total", source="simulated:t") == 103


async def test_a_failing_spool_ends_the_sensor_feed_with_the_error_of_the_spool(
    make: Make, source: ScriptedSensorSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise SpoolError("the disk is gone")

    bench = await make()
    monkeypatch.setattr(bench.store, "keep", fails)
    source.give("a", 1.0)
    with pytest.raises(SpoolError, match="the disk is gone"):
        await asyncio.wait_for(bench.task, 60)
